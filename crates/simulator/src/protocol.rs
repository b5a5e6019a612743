//! What a vendor's protocol is made of.

use serde_json::{Map, Value};

use crate::http::{Request, Whole};
use crate::model::{Answer, Chat, Embed};
use crate::refusal::Refusal;
use crate::tokens::Tokens;

/// One vendor: reads requests as strictly as the vendor, writes answers as the vendor documents them.
pub(crate) trait Protocol: Send + Sync {
    /// The path under which the API is, without a slash at its end.
    fn base(&self) -> &'static str;

    /// The id of a request.
    fn id(&self, number: u64) -> String;

    /// Checks credentials and reads a request.
    fn read(&self, request: &Request, door: &Door<'_>) -> Result<Job, Refusal>;

    /// Puts a refusal into the vendor's words.
    fn refuse(&self, refusal: &Refusal, request: &Request, id: &str) -> Whole;

    /// Writes an answer, whole or in events as the request asks.
    fn answer(&self, chat: &Chat, answer: &Answer) -> Reply;

    /// Writes vectors.
    fn embedded(&self, embed: &Embed, vectors: &[Vec<f32>], shown: Option<Tokens>, id: &str) -> Whole;

    /// An error inside a stream.
    fn stream_error(&self, chat: &Chat, id: &str) -> Frame;

    /// Whether events carry numbers, so that a client can tell a repeated one.
    fn numbered(&self, request: &Request) -> bool {
        let _ = request;
        false
    }

    /// Whether answers may hold reasoning.
    fn reasons(&self) -> bool {
        true
    }

    /// Whether it speaks over a WebSocket. Then `read` is asked twice: with the empty body of the handshake, where
    /// only the refusal of a credential or a path counts, and with the first message.
    fn socket(&self) -> bool {
        false
    }
}

/// What is needed to check a credential.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Door<'a> {
    /// Seconds since 1970.
    pub(crate) now: u64,
    /// The credentials that open.
    pub(crate) credentials: &'a crate::Credentials,
}

/// What a request is about.
#[derive(Debug)]
pub(crate) enum Job {
    /// An answer.
    Chat(Box<Chat>),
    /// Vectors.
    Embed(Embed),
    /// Anything that costs nothing: a token, a list of models.
    Free(Whole),
}

/// An answer as it goes out.
#[derive(Debug)]
pub(crate) enum Reply {
    /// In one piece.
    Whole(Whole),
    /// Server-sent events, with fields for the head.
    Events(Vec<(String, String)>, Vec<Frame>),
    /// Messages of a WebSocket.
    Messages(Vec<Frame>),
}

/// One event.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// Lines before the data of a server-sent event, with their ends.
    pub(crate) head: String,
    /// Its data.
    pub(crate) data: String,
    /// Whether it holds text, reasoning or a piece of a call: repeating it would repeat that.
    pub(crate) text: bool,
}

impl Frame {
    pub(crate) fn new(data: &Value, text: bool) -> Self {
        Self { head: String::new(), data: data.to_string(), text }
    }

    pub(crate) fn named(event: &str, data: &Value, text: bool) -> Self {
        Self { head: format!("event: {event}\n"), data: data.to_string(), text }
    }
}

/// The body as an object.
pub(crate) fn object(request: &Request) -> Result<Map<String, Value>, Refusal> {
    match serde_json::from_str(&request.body) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(Refusal::NoJson),
    }
}

/// A text that must be there.
pub(crate) fn required<'a>(object: &'a Map<String, Value>, name: &str) -> Result<&'a str, Refusal> {
    match object.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        None | Some(Value::Null) => Err(Refusal::Missing(name.to_owned())),
        Some(_) => Err(Refusal::Invalid(name.to_owned(), "it must be a text".to_owned())),
    }
}

/// A number within bounds.
pub(crate) fn number(
    object: &Map<String, Value>,
    name: &str,
    low: f64,
    high: f64,
) -> Result<Option<f64>, Refusal> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64().filter(|number| (low..=high).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                Err(Refusal::Invalid(name.to_owned(), format!("it must be a number from {low} to {high}")))
            }
        },
    }
}

/// A whole number from 1 on.
pub(crate) fn count(object: &Map<String, Value>, name: &str) -> Result<Option<u64>, Refusal> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64().filter(|number| (1..=10_000_000).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(Refusal::Invalid(name.to_owned(), "it must be a whole number from 1 on".to_owned())),
        },
    }
}

/// A flag; `false` when absent.
pub(crate) fn flag(object: &Map<String, Value>, name: &str) -> Result<bool, Refusal> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(Refusal::Invalid(name.to_owned(), "it must be true or false".to_owned())),
    }
}

/// A text or a list of texts.
pub(crate) fn texts(object: &Map<String, Value>, name: &str) -> Result<Vec<String>, Refusal> {
    let wrong = || Refusal::Invalid(name.to_owned(), "it must be a text or a list of texts".to_owned());
    match object.get(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(list)) => {
            list.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}

/// Refuses fields that are not known.
pub(crate) fn only(object: &Map<String, Value>, known: &[&[&str]]) -> Result<(), Refusal> {
    let stranger = object.keys().find(|key| !known.iter().any(|list| list.contains(&key.as_str())));
    match stranger {
        None => Ok(()),
        Some(key) => Err(Refusal::Invalid(key.clone(), "unrecognized request argument".to_owned())),
    }
}

/// Refuses a model that there is not.
pub(crate) fn known_model(model: &str, beginnings: &[&str], more: &[String]) -> Result<(), Refusal> {
    let known = beginnings.iter().any(|beginning| model.starts_with(beginning))
        || more.iter().any(|name| name == model);
    if known { Ok(()) } else { Err(Refusal::NoSuchModel(model.to_owned())) }
}
