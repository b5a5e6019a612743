//! `saas/claude`.

use byzerllm_core::{ChatRequest, ErrorKind, Input, Message, ResponseFormat, Role};
use serde_json::json;

use crate::translation::{body, check, open, refused, request};

#[test]
fn it_is_what_its_documents_say() {
    check("claude", 27);
}

#[test]
fn what_it_does_not_take_is_refused_by_name() {
    let dialect = open("claude", &json!({"api_key": "sk-own"})).unwrap();
    let no = |name: &str, change: &dyn Fn(&mut ChatRequest)| {
        refused(dialect.as_ref(), ErrorKind::Unsupported, name, change);
    };
    no("n", &|r| r.n = 2);
    no("seed", &|r| r.sampling.seed = Some(1));
    no("presence_penalty", &|r| r.sampling.presence_penalty = Some(1.0));
    no("frequency_penalty", &|r| r.sampling.frequency_penalty = Some(1.0));
    no("repetition_penalty", &|r| r.sampling.repetition_penalty = Some(1.1));
    no("logprobs", &|r| r.sampling.logprobs = Some(1));
    no("response_format", &|r| r.format = ResponseFormat::JsonObject);
    no("guided_decoding", &|r| r.format = ResponseFormat::Choice(vec!["a".to_owned()]));
    no("prompt", &|r| r.input = Input::Tokens(vec![1]));
    refused(dialect.as_ref(), ErrorKind::InvalidRequest, "temperature", |r| {
        r.sampling.temperature = Some(1.5);
    });
    refused(dialect.as_ref(), ErrorKind::InvalidRequest, "messages", |r| {
        r.input = Input::Messages(Vec::new());
    });
    refused(dialect.as_ref(), ErrorKind::InvalidRequest, "messages", |r| {
        r.input = Input::Messages(vec![Message::new(Role::User, "a"), Message::new(Role::Tool, "b")]);
    });
    refused(dialect.as_ref(), ErrorKind::InvalidRequest, "messages", |r| {
        let part = byzerllm_core::Part::Image { url: "data:image/png;base64,***".to_owned(), detail: None };
        r.input = Input::Messages(vec![Message::of_parts(Role::User, vec![part])]);
    });
}

#[test]
fn defaults_of_a_front_end_never_collide_with_newer_models() {
    // They refuse temperature beside top_p.
    let dialect = open("claude", &json!({"api_key": "sk-own"})).unwrap();
    let defaults = dialect.defaults();
    let mut asked = request();
    asked.sampling.temperature = defaults.temperature;
    asked.sampling.top_p = defaults.top_p;
    let body = body(dialect.as_ref(), &asked);
    assert!(body.get("temperature").is_none() && body.get("top_p").is_none(), "{body}");
}

#[test]
fn a_raw_text_is_a_message_of_the_user() {
    let dialect = open("claude", &json!({"api_key": "sk-own"})).unwrap();
    let mut asked = request();
    asked.input = Input::Text("Once".to_owned());
    let body = body(dialect.as_ref(), &asked);
    assert_eq!(body["messages"], json!([{"role": "user", "content": [{"type": "text", "text": "Once"}]}]));
}

#[test]
fn thinking_goes_back_with_its_signature() {
    let dialect = open("claude", &json!({"api_key": "sk-own"})).unwrap();
    let mut asked = request();
    let block = json!({"type": "thinking", "thinking": "hm", "signature": "s"});
    let mut answer = Message::new(Role::Assistant, "27");
    answer.extra.insert("thinking_blocks".to_owned(), json!([block]));
    asked.input = Input::Messages(vec![Message::new(Role::User, "a"), answer, Message::new(Role::User, "b")]);
    let body = body(dialect.as_ref(), &asked);
    assert_eq!(body["messages"][1]["content"], json!([block, {"type": "text", "text": "27"}]));
}
