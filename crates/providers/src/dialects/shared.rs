//! What translations have in common: refusing what a vendor does not take, reading JSON, and naming errors.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use byzerllm_core::{
    ChatRequest, EmbeddingInput, EmbeddingRequest, Error, ErrorKind, Input, Message, Part, ResponseFormat,
    Result, Role, Usage, UsageSource,
};
use http::Method;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};
use url::Url;

use super::openai::{Meaning, Said, describe};
use crate::refusal::{refuse, used};
use crate::{Framing, Outbound, Parameters, Secret};

/// Refuses what a request asks for and `takes` does not name: the words of [`used`], and `tools`, `strict` for tools whose
/// arguments must obey their schema, `json_object`, `json_schema`, `images`.
///
/// # Errors
/// [`ErrorKind::Unsupported`] with the parameter's name.
pub(crate) fn refuse_others(vendor: &str, request: &ChatRequest, takes: &[&str]) -> Result<()> {
    let tools = !request.tools.is_empty();
    // Nobody asked for the bound of the front end, so that a vendor without one need not refuse it.
    let of_nobody =
        |name| name == "max_tokens" && request.sampling.max_tokens == request.front_end.defaults().max_tokens;
    for name in used(request).filter(|name| !of_nobody(*name)) {
        let taken = match name {
            "prompt" | "prompt_token_ids" => true,
            "tool_choice" | "parallel_tool_calls" => !tools || takes.contains(&name),
            "response_format" if request.format == ResponseFormat::JsonObject => {
                takes.contains(&"json_object")
            }
            "response_format" => takes.contains(&"json_schema"),
            _ => takes.contains(&name),
        };
        if !taken {
            return Err(refuse(name, vendor));
        }
    }
    if tools && !takes.contains(&"tools") {
        return Err(refuse("tools", vendor));
    }
    if !takes.contains(&"strict") && request.tools.iter().any(|tool| tool.strict) {
        return Err(refuse("tools.strict", vendor));
    }
    if let Input::Messages(messages) = &request.input
        && !takes.contains(&"images")
        && messages.iter().any(Message::has_images)
    {
        let message = format!("saas/{vendor} takes no pictures; leave out the image parts of the messages");
        return Err(Error::new(ErrorKind::Unsupported, message).with_param("messages"));
    }
    Ok(())
}

/// The texts of a request for vectors.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for token ids, which only the model that they came from can read.
pub(crate) fn texts<'a>(vendor: &str, request: &'a EmbeddingRequest) -> Result<Vec<&'a str>> {
    let text = |input: &'a EmbeddingInput| match input {
        EmbeddingInput::Text(text) => Ok(text.as_str()),
        EmbeddingInput::Tokens(_) => {
            let message = format!("saas/{vendor} embeds texts, not token ids: give the text itself");
            Err(Error::new(ErrorKind::Unsupported, message).with_param("input"))
        }
    };
    request.inputs.iter().map(text).collect()
}

/// The conversation. A raw text is one message of the user.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for token ids.
pub(crate) fn conversation<'a>(vendor: &str, request: &'a ChatRequest) -> Result<Cow<'a, [Message]>> {
    match &request.input {
        Input::Messages(messages) if messages.is_empty() => {
            Err(Error::invalid("messages", "messages is empty: there must be at least one"))
        }
        Input::Messages(messages) => Ok(Cow::Borrowed(messages)),
        Input::Text(text) => Ok(Cow::Owned(vec![Message::new(Role::User, text.as_str())])),
        Input::Tokens(_) => {
            let message = format!("saas/{vendor} takes text, not token ids: give the prompt as text");
            Err(Error::new(ErrorKind::Unsupported, message).with_param("prompt"))
        }
    }
}

/// The system messages as one text, and the others. A vendor that keeps instructions apart has one place for them.
pub(crate) fn split_system(messages: &[Message]) -> (Option<String>, Vec<&Message>) {
    let (system, rest): (Vec<&Message>, Vec<&Message>) =
        messages.iter().partition(|m| m.role == Role::System);
    let texts: Vec<&str> =
        system.iter().map(|m| m.content.as_str()).filter(|text| !text.is_empty()).collect();
    ((!texts.is_empty()).then(|| texts.join("\n\n")), rest)
}

/// A tool call of an assistant's message.
pub(crate) struct Call<'a> {
    /// Its id; empty when the message holds none.
    pub(crate) id: &'a str,
    /// The function.
    pub(crate) name: &'a str,
    /// Its arguments, an object.
    pub(crate) arguments: Cow<'a, Value>,
}

impl Call<'_> {
    /// The arguments as JSON in a string.
    pub(crate) fn arguments_text(&self) -> String {
        self.arguments.to_string()
    }
}

/// The tool calls of a message.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] for something else under `tool_calls`.
pub(crate) fn calls(message: &Message) -> Result<Vec<Call<'_>>> {
    let Some(calls) = message.extra.get("tool_calls").filter(|calls| !calls.is_null()) else {
        return Ok(Vec::new());
    };
    let wrong =
        || Error::invalid("messages", "tool_calls must be a list of calls, each with a function's name");
    let call = |call| {
        let function = Value::get(call, "function").ok_or_else(wrong)?;
        let name = function.get("name").and_then(Value::as_str).ok_or_else(wrong)?;
        let arguments = match function.get("arguments") {
            None | Some(Value::Null) => Cow::Owned(Value::Object(Map::new())),
            Some(Value::String(text)) if text.trim().is_empty() => Cow::Owned(Value::Object(Map::new())),
            Some(Value::String(text)) => Cow::Owned(
                serde_json::from_str(text)
                    .map_err(|_| Error::invalid("messages", "the arguments of a tool call must be JSON"))?,
            ),
            Some(value) => Cow::Borrowed(value),
        };
        Ok(Call { id: call.get("id").and_then(Value::as_str).unwrap_or_default(), name, arguments })
    };
    calls.as_array().ok_or_else(wrong)?.iter().map(call).collect()
}

/// A text field of a message's extras.
pub(crate) fn extra<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    message.extra.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// The function that a result of a tool answers: its `name`, or that of the call with its id, further up.
pub(crate) fn function_of<'a>(message: &'a Message, before: &[&'a Message]) -> Result<&'a str> {
    if let Some(name) = extra(message, "name") {
        return Ok(name);
    }
    let id = extra(message, "tool_call_id").unwrap_or_default();
    for earlier in before.iter().rev() {
        for call in calls(earlier)? {
            if call.id == id {
                return Ok(call.name);
            }
        }
    }
    Err(Error::invalid(
        "messages",
        "a tool message answers no call: its tool_call_id is that of no call before it",
    ))
}

/// The parts of a message; its text alone when there are none.
pub(crate) fn parts(message: &Message) -> Cow<'_, [Part]> {
    if message.parts.is_empty() {
        Cow::Owned(vec![Part::Text { text: message.content.clone() }])
    } else {
        Cow::Borrowed(&message.parts)
    }
}

/// The media type and the base64 bytes of a `data:` URL; `None` for any other URL.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] for a `data:` URL that is not base64.
pub(crate) fn data_url(url: &str) -> Result<Option<(&str, &str)>> {
    let Some(rest) = url.strip_prefix("data:") else { return Ok(None) };
    let split = rest.split_once(',').and_then(|(head, data)| Some((head.strip_suffix(";base64")?, data)));
    let split = split.filter(|(_, data)| STANDARD.decode(data).is_ok());
    let message = "an image must be a URL, or data:MEDIA/TYPE;base64,… with its bytes";
    split.map(Some).ok_or_else(|| Error::invalid("messages", message))
}

/// A number as it was written: 0.7 and not 0.699999988079071.
pub(crate) fn decimal(number: f32) -> Value {
    number.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

/// A `POST` of JSON.
pub(crate) fn post(url: Url, mut headers: HeaderMap, body: &Value, framing: Framing) -> Outbound {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if framing == Framing::Sse {
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    }
    Outbound { method: Method::POST, url, headers, body: Bytes::from(body.to_string()), framing }
}

/// One header that holds a credential.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] for a credential that no header can hold.
pub(crate) fn credential(
    name: HeaderName,
    prefix: &str,
    secret: &Secret,
    parameter: &'static str,
) -> Result<HeaderMap> {
    let value = HeaderValue::from_str(&format!("{prefix}{}", secret.expose()));
    let mut value = value.map_err(|_| {
        Error::invalid(
            parameter,
            format!("{parameter} holds characters that no credential has; set it again"),
        )
    })?;
    value.set_sensitive(true);
    Ok(HeaderMap::from_iter([(name, value)]))
}

/// The address of an operation: what the deployment names, or the vendor's own, then the prefix unless it is there, then
/// the rest.
///
/// # Errors
/// [`ErrorKind::Internal`] when they make no URL.
pub(crate) fn endpoint(parameters: &Parameters, own: &str, prefix: &str, rest: &str) -> Result<Url> {
    let base = parameters.url("base_url").map_or(own, Url::as_str).trim_end_matches('/');
    let prefix = if base.ends_with(prefix) { "" } else { prefix };
    Url::parse(&format!("{base}{prefix}{rest}"))
        .map_err(|_| Error::invalid("saas.base_url", format!("saas.base_url with {prefix}{rest} is no URL")))
}

/// Reads a frame or a body.
///
/// # Errors
/// [`ErrorKind::Upstream`] when it is not JSON.
pub(crate) fn json(vendor: &str, text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|cause| {
        Error::new(ErrorKind::Upstream, format!("{vendor} sent something that is not JSON"))
            .with_source(cause)
    })
}

/// A text behind a JSON pointer; empty when there is none.
pub(crate) fn text_at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A number of tokens behind a JSON pointer.
pub(crate) fn count_at(value: &Value, pointer: &str) -> Option<u32> {
    value.pointer(pointer).and_then(Value::as_u64).map(|count| u32::try_from(count).unwrap_or(u32::MAX))
}

/// What a vendor reported.
pub(crate) fn reported(prompt_tokens: u32, completion_tokens: u32) -> Usage {
    Usage { prompt_tokens, completion_tokens, source: UsageSource::Reported, ..Usage::default() }
}

/// A vector of a vendor's JSON.
///
/// # Errors
/// [`ErrorKind::Upstream`] when it is none.
pub(crate) fn vector(vendor: &str, value: Option<&Value>) -> Result<Vec<f32>> {
    let numbers = value.and_then(Value::as_array).filter(|numbers| !numbers.is_empty());
    #[expect(clippy::cast_possible_truncation, reason = "vectors are kept in single precision")]
    let vector = numbers.and_then(|numbers| numbers.iter().map(|n| n.as_f64().map(|n| n as f32)).collect());
    vector.ok_or_else(|| Error::new(ErrorKind::Upstream, format!("{vendor} answered without a vector")))
}

/// A text that a vendor sends again and again from its beginning, longer each time.
#[derive(Debug, Default)]
pub(crate) struct Growing {
    seen: String,
}

impl Growing {
    /// Takes a piece that was sent by itself.
    pub(crate) fn append(&mut self, piece: &str) {
        self.seen.push_str(piece);
    }

    /// What is new. A frame that was sent twice, or that came late, brings nothing; a half character at the end, which
    /// vendors write as U+FFFD, waits for its other half.
    ///
    /// # Errors
    /// [`ErrorKind::Upstream`] when the text before has changed: what was sent on cannot be taken back.
    pub(crate) fn advance(&mut self, vendor: &str, whole: &str, last: bool) -> Result<String> {
        let whole = if last { whole } else { whole.trim_end_matches('\u{FFFD}') };
        if let Some(new) = whole.strip_prefix(self.seen.as_str()) {
            let new = new.to_owned();
            self.seen.push_str(&new);
            return Ok(new);
        }
        if self.seen.starts_with(whole) {
            return Ok(String::new());
        }
        let message = format!("{vendor} changed a part of its answer that it had already sent");
        Err(Error::new(ErrorKind::Upstream, message))
    }
}

/// An error that a vendor reported.
pub(crate) struct Refusal<'a> {
    /// The vendor, for people.
    pub(crate) vendor: &'a str,
    /// The status; 0 inside a stream.
    pub(crate) status: u16,
    /// What its code means; `None` where it says nothing better than the status.
    pub(crate) meaning: Option<Meaning>,
    /// Its own words.
    pub(crate) message: &'a str,
    /// The `saas.*` parameters that credentials are in.
    pub(crate) credentials: &'a str,
    /// Its id of the request.
    pub(crate) request_id: Option<&'a str>,
    /// When it asks to be tried again.
    pub(crate) retry_after: Option<Duration>,
}

impl Refusal<'_> {
    /// The error of ours.
    pub(crate) fn error(self) -> Error {
        // The one word of a table of one line.
        const WORD: &str = "!";
        let Self { vendor, status, credentials, .. } = self;
        let meaning =
            if self.meaning.is_none() && status == 401 { Some(Meaning::Credential) } else { self.meaning };
        let mut error = match meaning {
            // Vendors' words about credentials quote pieces of them.
            Some(Meaning::Credential) => Error::new(
                ErrorKind::PermissionDenied,
                format!("{vendor} refused this deployment's credentials; check its {credentials}"),
            ),
            meaning => {
                let said = Said {
                    message: self.message.to_owned(),
                    codes: vec![WORD.to_owned()],
                    ..Said::default()
                };
                let table = meaning.map(|meaning| (WORD, meaning));
                describe(vendor, table.as_slice(), status, &said)
            }
        };
        if let Some(id) = self.request_id.filter(|id| !id.is_empty()) {
            error = error.with_vendor_request_id(id.chars().take(256).collect::<String>());
        }
        if let Some(after) = self.retry_after.filter(|_| error.kind().is_retryable()) {
            error = error.with_retry_after(after);
        }
        error
    }
}

/// Whether a refusal is about the length of the prompt, where the vendor has no code of its own for it.
pub(crate) fn is_too_long(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let words = [
        "range of input length",
        "prompt is too long",
        "context length",
        "context window",
        "input length",
        "too many tokens",
        "exceeds the maximum number of tokens",
        "input token count",
        "exceed context limit",
        "max input tokens",
        "prompt tokens too long",
        "max length",
    ];
    words.iter().any(|word| message.contains(word))
}

/// A required credential. [`crate::Parameter::required`] makes sure of it; this only unwraps.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] when it is absent after all.
pub(crate) fn secret(parameters: &Parameters, vendor: &str, name: &'static str) -> Result<Secret> {
    parameters
        .secret(name)
        .cloned()
        .ok_or_else(|| Error::invalid(format!("saas.{name}"), format!("saas/{vendor} needs saas.{name}")))
}

/// A function as OpenAI writes it, which most vendors took over.
pub(crate) fn function(tool: &byzerllm_core::Tool) -> Value {
    let mut function = Map::new();
    function.insert("name".to_owned(), Value::from(tool.name.as_str()));
    if let Some(description) = &tool.description {
        function.insert("description".to_owned(), Value::from(description.as_str()));
    }
    let any = || serde_json::json!({"type": "object", "properties": {}});
    function.insert("parameters".to_owned(), tool.parameters.clone().unwrap_or_else(any));
    Value::Object(function)
}
