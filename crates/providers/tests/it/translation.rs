//! Fixtures of translations: a request and what is sent for it, frames and what they mean, errors and their kinds.
//!
//! A file of `tests/fixtures/VENDOR` has a `source`, the vendor's page or the SDK's file that it was written from, and lists:
//! `requests`, `answers`, `errors`, `embeddings`. Parameters of its deployment are under `parameters`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use byzerllm_core::{
    ChatRequest, EmbeddingRequest, Error, ErrorKind, FinishReason, Input, Message, Result, Role, Usage,
};
use byzerllm_providers::{
    Decode, Delta, Dialect, Frame, Framing, Outbound, Parameters, Secret, Signing, find,
};
use serde_json::{Value, json};

/// 2023-05-05 10:43:39 UTC, the date of iFLYTEK's page about signatures.
pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_683_283_419)
}

/// A deployment of a vendor.
pub(crate) fn open(vendor: &str, given: &Value) -> Result<Arc<dyn Dialect>> {
    let vendor = find(vendor)?;
    let given: BTreeMap<&str, &str> = given
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
        .collect();
    (vendor.open)(&Parameters::new(vendor, given)?)
}

/// A request of one word, in pieces.
pub(crate) fn request() -> ChatRequest {
    ChatRequest::new("m", Input::Messages(vec![Message::new(Role::User, "hi")]))
}

/// Writes a request, with a token where the vendor wants one.
pub(crate) fn write(dialect: &dyn Dialect, request: &ChatRequest) -> Result<Outbound> {
    let token = Secret::new("24.token");
    dialect.chat(request, &Signing { now: now(), token: Some(&token) })
}

/// The JSON that a request is written as.
pub(crate) fn body(dialect: &dyn Dialect, request: &ChatRequest) -> Value {
    serde_json::from_slice(&write(dialect, request).unwrap().body).unwrap()
}

/// Asserts that a change of a request is refused by that name.
pub(crate) fn refused(
    dialect: &dyn Dialect,
    kind: ErrorKind,
    name: &str,
    change: impl FnOnce(&mut ChatRequest),
) {
    let mut request = request();
    change(&mut request);
    let error = write(dialect, &request).map(|_| ()).expect_err(name);
    assert_eq!((error.kind(), error.param()), (kind, Some(name)), "{error}");
}

/// The fold of an answer.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) text: BTreeMap<u32, String>,
    pub(crate) reasoning: String,
    /// Id, name, arguments.
    pub(crate) calls: Vec<(String, String, String)>,
    pub(crate) finished: BTreeMap<u32, FinishReason>,
    /// The stop string that ended the first choice.
    pub(crate) stop: Option<String>,
    /// As events tell them.
    pub(crate) signatures: Vec<Value>,
    pub(crate) usage: Option<Usage>,
    pub(crate) request_id: String,
    pub(crate) ended: bool,
}

/// A frame of data alone.
pub(crate) fn plain(data: &String) -> Frame<'_> {
    Frame { event: "", id: "", data }
}

/// Reads frames and folds what they say; no text may follow the end of its choice.
pub(crate) fn read<'a>(
    decoder: &mut dyn Decode,
    frames: impl IntoIterator<Item = Frame<'a>>,
) -> Result<Answer> {
    let mut answer = Answer::default();
    for frame in frames {
        let mut out = Vec::new();
        let result = decoder.frame(frame, &mut out);
        for delta in out {
            match delta {
                Delta::RequestId(id) => answer.request_id = id,
                Delta::Text(choice, text) => {
                    assert!(!answer.finished.contains_key(&choice), "text after the end of its choice");
                    answer.text.entry(choice).or_default().push_str(&text);
                }
                Delta::Reasoning(_, text) => answer.reasoning.push_str(&text),
                Delta::Logprobs(..) => {}
                Delta::ToolCall(_, delta) => {
                    let index = delta.index as usize;
                    if answer.calls.len() <= index {
                        answer.calls.resize_with(index + 1, Default::default);
                    }
                    let call = &mut answer.calls[index];
                    call.0.extend(delta.id);
                    call.1.extend(delta.name);
                    call.2.push_str(&delta.arguments);
                }
                Delta::Stop(_, stop) => answer.stop = Some(stop),
                Delta::Signature(_, signature) if signature.is_empty() => {}
                Delta::Signature(_, signature) => answer.signatures.push(json!(signature)),
                Delta::Finished(choice, reason) => {
                    answer.finished.entry(choice).or_insert(reason);
                }
                Delta::Usage(usage) => answer.usage = Some(usage),
                Delta::End => answer.ended = true,
            }
        }
        result?;
    }
    Ok(answer)
}

/// Event, id and data.
type Sent = (String, String, String);

fn frames(list: &Value) -> Vec<Sent> {
    let frame = |frame: &Value| match frame.get("event") {
        Some(event) => (
            event.as_str().unwrap().to_owned(),
            frame["id"].as_str().unwrap_or_default().to_owned(),
            text(&frame["data"]),
        ),
        None => (String::new(), String::new(), text(frame)),
    };
    list.as_array().unwrap().iter().map(frame).collect()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A request of a fixture; fields that are left out are those of [`request`].
fn asked(given: &Value) -> ChatRequest {
    let mut all = serde_json::to_value(request()).unwrap();
    for (name, value) in given.as_object().into_iter().flatten() {
        all[name.as_str()] = value.clone();
    }
    serde_json::from_value(all).unwrap()
}

/// Checks all fixtures of a vendor, and how many cases there are.
pub(crate) fn check(vendor: &str, cases: usize) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(vendor);
    let mut checked = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(
            file["source"].as_str().is_some_and(|source| source.len() > 10),
            "{} has no source",
            path.display()
        );
        let list = |name: &str| file[name].as_array().cloned().unwrap_or_default();
        for (kind, check) in [
            ("requests", check_request as fn(&str, &Value, &Value)),
            ("answers", check_answer),
            ("errors", check_error),
            ("embeddings", check_embedding),
        ] {
            for case in list(kind) {
                let shown = format!("{} {kind} {}", path.display(), case["name"]);
                let parameters = case.get("parameters").unwrap_or(&file["parameters"]).clone();
                let result = std::panic::catch_unwind(|| check(vendor, &parameters, &case));
                assert!(result.is_ok(), "{shown}");
                checked += 1;
            }
        }
    }
    assert_eq!(checked, cases, "the number of cases of {vendor}");
}

fn check_request(vendor: &str, parameters: &Value, case: &Value) {
    let dialect = open(vendor, parameters).unwrap();
    let outbound = write(dialect.as_ref(), &asked(&case["request"])).unwrap();
    sent(&outbound, case);
}

fn sent(outbound: &Outbound, case: &Value) {
    let body: Value = serde_json::from_slice(&outbound.body).unwrap();
    assert_eq!(body, case["body"], "the body is\n{body:#}");
    if let Some(url) = case["url"].as_str() {
        assert_eq!(outbound.url.as_str(), url);
    }
    for (name, value) in case["headers"].as_object().into_iter().flatten() {
        assert_eq!(outbound.headers[name.as_str()], value.as_str().unwrap(), "{name}");
    }
    for (name, value) in &outbound.headers {
        let secret = value.to_str().is_ok_and(|value| value.contains("sk-"));
        assert_eq!(value.is_sensitive(), secret, "{name}");
    }
    let framing = match outbound.framing {
        Framing::Whole => "whole",
        Framing::Sse => "sse",
        Framing::WebSocket => "websocket",
    };
    assert_eq!(framing, case["framing"].as_str().unwrap_or("sse"));
}

fn check_answer(vendor: &str, parameters: &Value, case: &Value) {
    let dialect = open(vendor, parameters).unwrap();
    let frames = frames(&case["frames"]);
    let mut decoder = dialect.decoder(&asked(&case["request"]));
    let answer = read(decoder.as_mut(), frames.iter().map(|(event, id, data)| Frame { event, id, data }));
    if let Some(kind) = case["fails"].as_str() {
        let error = answer.expect_err("an error");
        assert_eq!(kind_of(&error), kind, "{error}");
        assert_eq!(error.vendor_request_id(), case["request_id"].as_str());
        return;
    }
    let answer = answer.unwrap();
    let calls: Vec<Value> =
        answer.calls.iter().map(|(id, name, arguments)| json!([id, name, arguments])).collect();
    let mut found = json!({
        "text": answer.text.get(&0).map_or("", String::as_str),
        "reasoning": answer.reasoning,
        "calls": calls,
        "finished": answer.finished.get(&0).map(FinishReason::as_str),
        "request_id": answer.request_id,
        "usage": answer.usage,
        "ended": answer.ended,
    });
    // Where nothing is signed, fixtures do not say so.
    for (name, value) in [("stop", json!(answer.stop)), ("signatures", json!(answer.signatures))] {
        if !value.is_null() && value != json!([]) {
            found[name] = value;
        }
    }
    if let Some(second) = answer.text.get(&1) {
        found["second"] = json!(second);
    }
    // Numbers that are zero, and the source, are not written in fixtures.
    if let Some(usage) = found["usage"].as_object_mut() {
        assert_eq!(usage.remove("source").unwrap(), "reported");
        usage.retain(|_, count| *count != json!(0));
    }
    let mut wanted = json!({
        "text": "", "reasoning": "", "calls": [], "finished": "stop", "request_id": "", "usage": null, "ended": false,
    });
    for (name, value) in case["means"].as_object().unwrap() {
        wanted[name.as_str()] = value.clone();
    }
    assert_eq!(found, wanted);
    for (_, _, arguments) in &answer.calls {
        serde_json::from_str::<Value>(arguments).expect("arguments are JSON");
    }
}

fn kind_of(error: &Error) -> String {
    serde_json::to_value(error.kind()).unwrap().as_str().unwrap().to_owned()
}

fn check_error(vendor: &str, parameters: &Value, case: &Value) {
    let dialect = open(vendor, parameters).unwrap();
    let mut headers = http::HeaderMap::new();
    for (name, value) in case["headers"].as_object().into_iter().flatten() {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.insert(name, value.as_str().unwrap().parse().unwrap());
    }
    let status = u16::try_from(case["status"].as_u64().unwrap()).unwrap();
    let error = dialect.error(status, &headers, text(&case["body"]).as_bytes());
    assert_eq!(kind_of(&error), case["kind"].as_str().unwrap(), "{error}");
    assert_eq!(error.vendor_request_id(), case["request_id"].as_str(), "{error}");
    assert_eq!(error.retry_after(), case["retry_after"].as_f64().map(Duration::from_secs_f64), "{error}");
    if let Some(words) = case["says"].as_str() {
        assert!(error.message().contains(words), "{error}");
    }
}

fn check_embedding(vendor: &str, parameters: &Value, case: &Value) {
    let dialect = open(vendor, parameters).unwrap();
    let request: EmbeddingRequest = serde_json::from_value(case["request"].clone()).unwrap();
    let token = Secret::new("24.token");
    let outbound = dialect.embed(&request, &Signing { now: now(), token: Some(&token) }).unwrap();
    sent(&outbound, case);
    let embeddings = dialect.embedded(text(&case["answer"]).as_bytes()).unwrap();
    assert_eq!(json!(embeddings.vectors), case["vectors"]);
    assert_eq!(json!(embeddings.usage.prompt_tokens), case["tokens"]);
    assert_eq!(json!(dialect.embedding_batch()), case["batch"]);
}
