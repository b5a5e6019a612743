//! `saas/gemini`.

use byzerllm_core::{ChatRequest, ErrorKind, Input, Message, ResponseFormat, Role, Tool};
use serde_json::json;

use crate::translation::{body, check, open, refused, request, write};

#[test]
fn it_is_what_its_documents_say() {
    check("gemini", 31);
}

#[test]
fn what_it_does_not_take_is_refused_by_name() {
    let dialect = open("gemini", &json!({"api_key": "sk-own"})).unwrap();
    let no = |name: &str, change: &dyn Fn(&mut ChatRequest)| {
        refused(dialect.as_ref(), ErrorKind::Unsupported, name, change);
    };
    no("repetition_penalty", &|r| r.sampling.repetition_penalty = Some(1.1));
    no("logit_bias", &|r| r.sampling.logit_bias = Some([(1, 1.0)].into()));
    no("logprobs", &|r| r.sampling.logprobs = Some(1));
    no("min_tokens", &|r| r.sampling.min_tokens = Some(1));
    no("guided_decoding", &|r| r.format = ResponseFormat::Grammar("start: \"a\"".to_owned()));
    let tool = || Tool { name: "f".to_owned(), description: None, parameters: None, strict: false };
    no("parallel_tool_calls", &|r| (r.tools, r.parallel_tool_calls) = (vec![tool()], false));
    no("tools.strict", &|r| r.tools = vec![Tool { strict: true, ..tool() }]);
    refused(dialect.as_ref(), ErrorKind::InvalidRequest, "seed", |r| r.sampling.seed = Some(u64::MAX));
    refused(dialect.as_ref(), ErrorKind::InvalidRequest, "messages", |r| {
        r.input = Input::Messages(vec![Message::new(Role::User, "a"), Message::new(Role::Tool, "b")]);
    });
}

#[test]
fn the_key_is_in_a_header_and_never_in_the_address() {
    for model in ["gemini-2.5-pro", "tunedModels/mine"] {
        let dialect = open("gemini", &json!({"api_key": "sk-own", "model": model})).unwrap();
        let outbound = write(dialect.as_ref(), &request()).unwrap();
        assert!(!outbound.url.as_str().contains("sk-own"), "{}", outbound.url);
        let path = if model.contains('/') { model.to_owned() } else { format!("models/{model}") };
        assert_eq!(outbound.url.path(), format!("/v1beta/{path}:streamGenerateContent"));
    }
}

#[test]
fn calls_of_earlier_turns_keep_the_vendor_ids_only() {
    let dialect = open("gemini", &json!({"api_key": "sk-own", "model": "gemini-3-pro-preview"})).unwrap();
    let mut asked = request();
    let mut call = Message::new(Role::Assistant, "");
    let calls =
        json!([{"id": "gemini-x-0-0", "type": "function", "function": {"name": "f", "arguments": {}}}]);
    call.extra.insert("tool_calls".to_owned(), calls);
    let mut result = Message::new(Role::Tool, "21 degrees");
    result.extra.insert("tool_call_id".to_owned(), json!("gemini-x-0-0"));
    asked.input = Input::Messages(vec![Message::new(Role::User, "a"), call, result]);
    let body = body(dialect.as_ref(), &asked);
    let part = &body["contents"][1]["parts"][0];
    assert_eq!(part["functionCall"], json!({"name": "f", "args": {}}));
    assert_eq!(part["thoughtSignature"], "skip_thought_signature_validator");
    let answer = json!({"functionResponse": {"name": "f", "response": {"result": "21 degrees"}}});
    assert_eq!(body["contents"][2]["parts"], json!([answer]));
}
