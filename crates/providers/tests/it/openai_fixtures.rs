//! What vendors of OpenAI's dialect document, from `tests/fixtures`: requests as they are written, answers as they are
//! read, errors as they are understood. Each file names the page that it was written from.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use byzerllm_core::{ChatRequest, Error, FinishReason, ToolCallDelta, Usage};
use byzerllm_providers::{Delta, Dialect, Frame, Parameters, Signing, find};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

const VENDORS: &[&str] = &[
    "azure_openai",
    "baichuan",
    "chatglm",
    "deepseek",
    "moonshot",
    "openai",
    "siliconflow",
    "volcengine",
    "zhipu",
];

/// A dialect of a vendor with these parameters.
pub(crate) fn open<'a>(
    vendor: &str,
    given: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Arc<dyn Dialect>, Error> {
    let vendor = find(vendor)?;
    (vendor.open)(&Parameters::new(vendor, given)?)
}

pub(crate) fn signing() -> Signing<'static> {
    Signing { now: SystemTime::UNIX_EPOCH, token: None }
}

/// The body that a request becomes.
pub(crate) fn body(dialect: &dyn Dialect, request: &ChatRequest) -> Result<Value, Error> {
    Ok(serde_json::from_slice(&dialect.chat(request, &signing())?.body).unwrap())
}

/// The pieces that frames are read as, and the error that ended them.
pub(crate) fn read<'a>(
    dialect: &dyn Dialect,
    request: &ChatRequest,
    frames: impl IntoIterator<Item = &'a str>,
) -> (Vec<Delta>, Option<Error>) {
    let mut decoder = dialect.decoder(request);
    let mut deltas = Vec::new();
    for data in frames {
        if let Err(error) = decoder.frame(Frame { event: "", id: "", data }, &mut deltas) {
            return (deltas, Some(error));
        }
    }
    (deltas, None)
}

/// A choice, put together.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Folded {
    pub(crate) id: String,
    pub(crate) text: String,
    pub(crate) reasoning: String,
    pub(crate) calls: Vec<(String, String, String)>,
    pub(crate) finish: Option<FinishReason>,
    pub(crate) usage: Option<Usage>,
    pub(crate) end: bool,
}

pub(crate) fn fold(deltas: Vec<Delta>, choice: u32) -> Folded {
    let mut folded = Folded::default();
    for delta in deltas {
        match delta {
            Delta::RequestId(id) => folded.id = id,
            Delta::Text(of, text) if of == choice => folded.text.push_str(&text),
            Delta::Reasoning(of, text) if of == choice => folded.reasoning.push_str(&text),
            Delta::ToolCall(of, ToolCallDelta { index, id, name, arguments }) if of == choice => {
                let index = index as usize;
                assert!(index <= folded.calls.len(), "calls come in order");
                if index == folded.calls.len() {
                    folded.calls.push(Default::default());
                }
                let call = &mut folded.calls[index];
                call.0.extend(id);
                call.1.extend(name);
                call.2.push_str(&arguments);
            }
            Delta::Finished(of, reason) if of == choice => {
                assert_eq!(folded.finish.replace(reason), None, "a choice is finished once");
            }
            Delta::Usage(usage) => folded.usage = Some(usage),
            Delta::End => folded.end = true,
            _ => {}
        }
    }
    folded
}

struct Fixture {
    vendor: &'static str,
    name: String,
    json: Value,
}

impl Fixture {
    fn dialect(&self) -> Arc<dyn Dialect> {
        let parameters = self.json["parameters"].as_object().unwrap();
        let given = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap()));
        open(self.vendor, given).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}

fn fixtures(with: &str) -> Vec<Fixture> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut all = Vec::new();
    for vendor in VENDORS {
        for entry in root.join(vendor).read_dir().unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{vendor}/{}", path.file_name().unwrap().to_str().unwrap());
            let json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            assert!(
                json["source"].as_str().is_some_and(|source| source.len() > 10),
                "{name} names no source"
            );
            if json.get(with).is_some() {
                all.push(Fixture { vendor, name, json });
            }
        }
    }
    all
}

#[test]
fn requests_are_written_as_documented() {
    let all = fixtures("request");
    assert!(all.len() >= VENDORS.len(), "a request of every vendor");
    for Fixture { name, json, .. } in all.iter() {
        let dialect = all.iter().find(|fixture| fixture.name == *name).unwrap().dialect();
        let request: ChatRequest = serde_json::from_value(json["request"].clone()).unwrap();
        let outbound = dialect.chat(&request, &signing()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(outbound.url.as_str(), json["url"], "{name}");
        assert_eq!(outbound.method, "POST");
        for (field, value) in json["headers"].as_object().unwrap() {
            let sent = outbound.headers.get(field);
            assert_eq!(sent.map(|value| value.to_str().unwrap()), value.as_str(), "{name}: {field}");
            if ["authorization", "api-key"].contains(&field.as_str()) {
                assert!(sent.is_none_or(HeaderValue::is_sensitive), "{name}: {field}");
            }
        }
        let body: Value = serde_json::from_slice(&outbound.body).unwrap();
        assert_eq!(body, json["body"], "{name}: {body:#}");
    }
}

#[test]
fn answers_are_read_as_documented() {
    for fixture in fixtures("frames") {
        let Fixture { name, json, .. } = &fixture;
        let mut request = ChatRequest::new("m", byzerllm_core::Input::Text("x".to_owned()));
        request.whole = json["whole"] == true;
        let frames: Vec<String> = json["frames"].as_array().unwrap().iter().map(text).collect();
        let (deltas, error) = read(&*fixture.dialect(), &request, frames.iter().map(String::as_str));
        let folded = fold(deltas, 0);
        let expect = &json["expect"];
        let word = |field: &str| expect[field].as_str().unwrap_or_default();
        assert_eq!(folded.id, word("id"), "{name}");
        assert_eq!(folded.text, word("text"), "{name}");
        assert_eq!(folded.reasoning, word("reasoning"), "{name}");
        assert_eq!(folded.finish.as_ref().map_or("", FinishReason::as_str), word("finish"), "{name}");
        assert_eq!(folded.end, expect["end"] == true, "{name}");
        let calls: Vec<[&str; 3]> =
            folded.calls.iter().map(|(id, name, arguments)| [id.as_str(), name, arguments]).collect();
        assert_eq!(
            serde_json::to_value(calls).unwrap(),
            *expect.get("calls").unwrap_or(&Value::Array(Vec::new()))
        );
        let usage = folded.usage.map(|usage| {
            [usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, usage.reasoning_tokens]
        });
        assert_eq!(serde_json::to_value(usage).unwrap(), expect["usage"], "{name}");
        let kind = error.map(|error| serde_json::to_value(error.kind()).unwrap());
        assert_eq!(kind.unwrap_or_default(), expect["error"], "{name}");
    }
}

/// A frame's data: a text as it is, JSON written out.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[test]
fn errors_are_understood_as_documented() {
    for fixture in fixtures("errors") {
        let dialect = fixture.dialect();
        for case in fixture.json["errors"].as_array().unwrap() {
            let mut headers = HeaderMap::new();
            for (field, value) in case["headers"].as_object().into_iter().flatten() {
                let name: HeaderName = field.parse().unwrap();
                headers.insert(name, value.as_str().unwrap().parse().unwrap());
            }
            let status = u16::try_from(case["status"].as_u64().unwrap()).unwrap();
            let error = dialect.error(status, &headers, text(&case["body"]).as_bytes());
            let at = format!("{}: {case} became {error:?}", fixture.name);
            assert_eq!(serde_json::to_value(error.kind()).unwrap(), case["kind"], "{at}");
            assert!(error.message().contains(case["says"].as_str().unwrap_or_default()), "{at}");
            let hidden = case["hides"].as_str();
            assert!(hidden.is_none_or(|hidden| !error.message().contains(hidden)), "{at}");
            assert_eq!(error.vendor_request_id(), case["id"].as_str(), "{at}");
            let wait = error.retry_after().map(|after| u64::try_from(after.as_millis()).unwrap());
            assert_eq!(wait, case["retry_ms"].as_u64(), "{at}");
            if let Some(param) = case["param"].as_str() {
                assert_eq!(error.param(), Some(param), "{at}");
            }
        }
    }
}
