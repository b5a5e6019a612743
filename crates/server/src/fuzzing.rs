//! What a request's body may hold: anything. The function takes any bytes, asserts what must hold of the request read
//! from them, and returns how much memory reading may have held at once.
//!
//! The fuzz targets call it, and so does the test below with every file of `fuzz/corpus`.
#![expect(clippy::panic, reason = "a broken promise ends the process that looks for it")]

use byzerllm_core::{ChatRequest, Error, Input, Result};
use byzerllm_runtime::DeploymentSpec;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::limits;
use crate::wire::anthropic::request::{CountBody, MessagesBody};
use crate::wire::chat::ChatBody;
use crate::wire::completions::CompletionBody;
use crate::wire::embeddings::EmbeddingBody;
use crate::wire::extra::parse_with;
use crate::wire::fields::parse;
use crate::wire::keys::{CreateKeyBody, RotateKeyBody};
use crate::wire::native::{InspectBody, TemplateBody};
use crate::wire::rerank::RerankBody;
use crate::wire::responses::request::ResponseBody;
use crate::wire::score::ScoreBody;
use crate::wire::tokens::{DetokenizeBody, Source, TokenizeBody};

/// Parameters as a vendor's model declares them.
const DECLARED: &[&str] = &["reasoning_effort", "enable_search", "thinking"];

/// A body: the first byte says of which route, the rest is the JSON.
pub fn request(bytes: &[u8]) -> usize {
    let Some((route, body)) = bytes.split_first() else { return 1 << 20 };
    match route % 15 {
        0 => same(body, |body| {
            let (parsed, extra) = parse_with::<ChatBody>(body, DECLARED)?;
            let request = parsed.into_request(extra)?.request;
            within_limits(&request);
            Ok(format!("{request:?}"))
        }),
        1 => same(body, |body| {
            let batch = parse::<CompletionBody>(body)?.into_requests(&Map::new())?.request;
            assert!((1..=limits::PROMPTS).contains(&batch.requests.len()));
            assert!(batch.requests.len() * batch.n as usize <= limits::CHOICES_PER_CALL);
            batch.requests.iter().for_each(within_limits);
            Ok(format!("{batch:?}"))
        }),
        2 => same(body, |body| {
            let (model, source) = parse::<TokenizeBody>(body)?.into_source()?;
            Ok(match source {
                Source::Prompt(text) => format!("{model} {text}"),
                Source::Messages(messages, begun) => {
                    assert!(messages.len() <= limits::MESSAGES);
                    format!("{model} {messages:?} {begun}")
                }
            })
        }),
        3 => same(body, |body| {
            let body = parse::<DetokenizeBody>(body)?;
            assert!(body.tokens.0.len() <= limits::TOKENS);
            Ok(format!("{body:?}"))
        }),
        4 => typed::<ChatRequest>(body),
        5 => deployment(body),
        6 => same(body, |body| {
            let body = parse::<TemplateBody>(body)?;
            assert!(body.messages.0.len() <= limits::MESSAGES);
            Ok(format!("{} {:?} {}", body.model, body.messages.0, body.add_generation_prompt))
        }),
        7 => same(body, |body| {
            let body = parse::<CreateKeyBody>(body)?;
            let scopes = body.scopes.as_ref().map(|scopes| &scopes.0);
            Ok(format!("{} {scopes:?} {:?}", body.name, body.expires_seconds))
        }),
        8 => {
            same(body, |body| Ok(format!("{}", parse::<RotateKeyBody>(body)?.grace_seconds)));
            same(body, |body| Ok(format!("{:?}", parse::<InspectBody>(body)?.path)));
        }
        9 => same(body, |body| {
            let (request, encoding) = parse::<EmbeddingBody>(body)?.into_request(Map::new())?;
            assert!((1..=limits::EMBEDDING_INPUTS).contains(&request.inputs.len()));
            Ok(format!("{request:?} {encoding:?}"))
        }),
        10 => same(body, |body| {
            let (parsed, extra) = parse_with::<MessagesBody>(body, DECLARED)?;
            let (request, stream) = parsed.into_request(extra, None)?;
            within_limits(&request);
            Ok(format!("{request:?} {stream}"))
        }),
        11 => same(body, |body| {
            let request = parse::<CountBody>(body)?.into_request(Map::new(), Some(""))?;
            within_limits(&request);
            Ok(format!("{request:?}"))
        }),
        13 => same(body, |body| {
            let (request, shown) = parse::<RerankBody>(body)?.into_request(Map::new())?;
            assert!((1..=limits::DOCUMENTS).contains(&request.pairs.len()));
            Ok(format!("{request:?} {shown:?}"))
        }),
        14 => same(body, |body| {
            let request = parse::<ScoreBody>(body)?.into_request(Map::new())?;
            assert!((1..=limits::DOCUMENTS).contains(&request.pairs.len()));
            Ok(format!("{request:?}"))
        }),
        _ => same(body, |body| {
            let (parsed, extra) = parse_with::<ResponseBody>(body, DECLARED)?;
            let asked = parsed.into_request(extra, DECLARED)?;
            within_limits(&asked.request);
            Ok(format!("{asked:?}"))
        }),
    }
    // Our own comparisons print requests, which the server does not.
    (2 << 20) + 256 * bytes.len()
}

/// A body means the same however its JSON is written; a refusal is short and says why.
fn same(body: &[u8], read: impl Fn(&[u8]) -> Result<String>) {
    match read(body) {
        Ok(meaning) => {
            if let Ok(value) = serde_json::from_slice::<Value>(body) {
                for again in [value.to_string(), format!("{value:#}")] {
                    match read(again.as_bytes()) {
                        Ok(same) => assert_eq!(same, meaning, "{again}"),
                        Err(error) => panic!("written again it is refused: {error}: {again}"),
                    }
                }
            }
        }
        Err(error) => explained(&error),
    }
}

fn explained(error: &Error) {
    assert!(!error.message().is_empty());
    assert!(error.message().len() <= 4 * limits::MESSAGE_BYTES, "{} bytes of error", error.message().len());
    assert!(error.param().is_none_or(|param| param.len() <= 2 * limits::MESSAGE_BYTES));
    assert_eq!(
        error.kind().http_status() / 100,
        if error.kind().http_status() == 501 { 5 } else { 4 },
        "{error:?}"
    );
}

/// A body of our own vocabulary: written by us and read again, it is the same.
fn typed<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(body: &[u8]) {
    match parse::<T>(body) {
        Ok(value) => {
            let Ok(written) = serde_json::to_vec(&value) else { panic!("{value:?} cannot be written") };
            match parse::<T>(&written) {
                Ok(again) => assert_eq!(again, value),
                Err(error) => panic!("{value:?} is refused when it comes back: {error}"),
            }
        }
        Err(error) => explained(&error),
    }
}

/// A deployment: written with its secrets and read again, it is the same; shown, it can be read too.
fn deployment(body: &[u8]) {
    match parse::<DeploymentSpec>(body) {
        Ok(spec) => {
            let Ok(written) = spec.exposed() else { panic!("{spec:?} cannot be written") };
            match parse::<DeploymentSpec>(written.to_string().as_bytes()) {
                Ok(again) => assert_eq!(again, spec),
                Err(error) => panic!("{spec:?} is refused when it comes back: {error}"),
            }
            let Ok(shown) = serde_json::to_vec(&spec) else { panic!("{spec:?} cannot be shown") };
            assert!(parse::<DeploymentSpec>(&shown).is_ok(), "{spec:?}");
        }
        Err(error) => explained(&error),
    }
}

fn within_limits(request: &ChatRequest) {
    assert!((1..=limits::CHOICES).contains(&request.n));
    assert!(request.best_of.is_none_or(|best| best >= request.n && best <= limits::CHOICES));
    assert!(request.tools.len() <= limits::TOOLS);
    assert!(request.sampling.stop.as_ref().is_none_or(|stop| stop.len() <= limits::STOP));
    assert!(request.sampling.logprobs.is_none_or(|count| count <= limits::TOP_LOGPROBS));
    if let Input::Messages(messages) = &request.input {
        // Instructions stand above a conversation, and the parts of one message may be messages of their own.
        assert!((1..=2 * limits::CONTENT_PARTS * limits::MESSAGES).contains(&messages.len()));
    }
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    #[test]
    fn corpus_of_request() {
        super::replay::replay("request", super::request);
    }
}
