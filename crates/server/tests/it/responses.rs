//! `/v1/responses`.

use byzerllm_core::{FinishReason, Input, Message, Part, ResponseFormat, Role, ToolChoice};
use serde_json::{Value, json};

use crate::played::{Played, broken, call, end, events, plain, rich, text, thought, usage};
use crate::support::App;

const PATH: &str = "/v1/responses";

fn ask(more: Value) -> Value {
    let mut body = json!({"model": "chat", "input": "Hi"});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn messages(input: Input) -> Vec<Message> {
    match input {
        Input::Messages(messages) => messages,
        other => panic!("no messages: {other:?}"),
    }
}

fn weather() -> Value {
    json!({"type": "function", "name": "weather", "description": "d", "parameters": {"type": "object"}, "strict": true})
}

#[tokio::test]
async fn a_whole_answer() {
    let (model, app) = Played::new(rich).serve().await;
    let body = ask(json!({
        "instructions": "Be brief.", "tools": [weather()], "tool_choice": "auto", "temperature": 0.5,
        "max_output_tokens": 99, "metadata": {"a": "b"}, "include": ["reasoning.encrypted_content"], "store": false
    }));
    let answer = app.post(PATH, body).await;
    insta::assert_json_snapshot!("response_whole", plain(&answer));
    assert_eq!(answer.header("x-vendor-request-id"), Some("vendor-1"));
    assert!(model.last().0.whole);
}

#[tokio::test]
async fn a_stream() {
    let (_, app) = Played::new(rich).serve().await;
    let events = events(&app.post(PATH, ask(json!({"stream": true}))).await);
    for (number, (name, data)) in events.iter().enumerate() {
        assert_eq!(
            (data["type"].as_str(), data["sequence_number"].as_u64()),
            (Some(name.as_str()), Some(number as u64))
        );
    }
    insta::assert_json_snapshot!("response_stream", events);
    // The last event holds the answer as it is in one piece.
    let whole = plain(&app.post(PATH, ask(json!({}))).await);
    assert_eq!(events.last().unwrap().1["response"], whole);
}

#[tokio::test]
async fn a_stream_says_what_the_whole_answer_says() {
    let cut = || vec![thought("hm"), text("Hel"), end(FinishReason::Length), usage()];
    let called = || vec![call(0, Some("c1"), "{\"a\": "), end(FinishReason::Length), usage()];
    let filtered = || vec![end(FinishReason::ContentFilter), usage()];
    let silent = || vec![end(FinishReason::Stop), usage()];
    let thinking = || vec![thought("hm"), end(FinishReason::Length), usage()];
    for (play, status, reason) in [
        (cut as fn() -> Vec<_>, "incomplete", Some("max_output_tokens")),
        (called, "incomplete", Some("max_output_tokens")),
        (filtered, "incomplete", Some("content_filter")),
        (silent, "completed", None),
        (thinking, "incomplete", Some("max_output_tokens")),
    ] {
        let (_, app) = Played::new(play).serve().await;
        let whole = plain(&app.post(PATH, ask(json!({}))).await);
        assert_eq!(
            (whole["status"].as_str(), whole["incomplete_details"]["reason"].as_str()),
            (Some(status), reason)
        );
        let last = whole["output"].as_array().unwrap().last().unwrap();
        assert_eq!(last["status"], if reason.is_some() { "incomplete" } else { "completed" });
        let told = events(&app.post(PATH, ask(json!({"stream": true}))).await);
        assert_eq!(told.last().unwrap().0, format!("response.{status}"));
        assert_eq!(told.last().unwrap().1["response"], whole);
    }
}

#[tokio::test]
async fn failures_are_events() {
    let (_, app) = Played::new(broken).serve().await;
    let told = events(&app.post(PATH, ask(json!({"stream": true}))).await);
    let (name, last) = told.last().unwrap();
    assert_eq!((name.as_str(), &last["response"]["status"]), ("response.failed", &json!("failed")));
    assert_eq!(last["response"]["error"], json!({"code": "upstream", "message": "the vendor broke off"}));
    assert_eq!(last["response"]["output"][0]["content"][0]["text"], "Hel");
    assert_eq!(app.post(PATH, ask(json!({}))).await.error().0, 502);
}

#[tokio::test]
async fn items_become_messages() {
    let app = App::answering("x").await;
    let image = json!({"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "high"});
    let input = json!([
        {"role": "developer", "content": "d"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Look"}, image]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [
            {"type": "output_text", "text": "Wait.", "annotations": [], "logprobs": []}]},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{\"a\": 1}"},
        {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "42"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "43"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "so"}], "encrypted_content": "x"},
        {"type": "function_call", "call_id": "c3", "name": "f", "arguments": "{}"},
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": "b"}
    ]);
    plain(&app.post(PATH, ask(json!({"instructions": "Be brief.", "input": input}))).await);
    let got = messages(app.model.requests().pop().unwrap().input);
    use Role::{Assistant, System, Tool, User};
    let roles: Vec<Role> = got.iter().map(|message| message.role).collect();
    assert_eq!(roles, [System, System, User, Assistant, Tool, Tool, Assistant, Assistant, Assistant]);
    let url = "data:image/png;base64,AAAA".to_owned();
    assert_eq!(got[2].parts[1], Part::Image { url, detail: Some("high".to_owned()) });
    assert_eq!((got[3].content.as_str(), &got[3].extra["reasoning_content"]), ("Wait.", &json!("hm")));
    assert_eq!(got[3].extra["tool_calls"].as_array().unwrap().len(), 2);
    assert_eq!(got[3].extra["tool_calls"][0]["function"], json!({"name": "f", "arguments": {"a": 1}}));
    assert_eq!((got[5].content.as_str(), &got[5].extra["tool_call_id"]), ("43", &json!("c2")));
    assert_eq!(
        (&got[6].extra["reasoning_content"], &got[6].extra["tool_calls"][0]["id"]),
        (&json!("so"), &json!("c3"))
    );
    assert_eq!((got[7].content.as_str(), got[8].content.as_str()), ("a", "b"));
}

#[tokio::test]
async fn an_answer_goes_back_in_as_it_came() {
    let (model, app) = Played::new(rich).serve().await;
    let answer = plain(&app.post(PATH, ask(json!({}))).await);
    let mut input = json!([{"role": "user", "content": "Hi"}]);
    let items = input.as_array_mut().unwrap();
    items.extend(answer["output"].as_array().unwrap().clone());
    items.push(json!({"type": "function_call_output", "call_id": "c1", "output": "Sunny."}));
    plain(&app.post(PATH, ask(json!({"input": input}))).await);
    let got = messages(model.last().0.input);
    assert_eq!(
        (got[1].content.as_str(), &got[1].extra["reasoning_content"]),
        ("One moment.", &json!("Rain?"))
    );
    assert_eq!(got[1].extra["tool_calls"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn every_parameter_arrives() {
    let app = App::answering("x").await;
    let schema = json!({"type": "object"});
    let format = json!({"type": "json_schema", "name": "n", "schema": schema, "strict": true});
    let body = ask(json!({
        "tools": [weather()], "tool_choice": {"type": "function", "name": "weather"}, "parallel_tool_calls": false,
        "text": {"format": format}, "temperature": 0.25, "top_p": 0.5, "max_output_tokens": 9, "reasoning": {"effort": "none"}
    }));
    let shown = plain(&app.post(PATH, body).await);
    assert_eq!(shown["text"]["format"]["name"], "n");
    assert_eq!((&shown["store"], &shown["tool_choice"]["name"]), (&json!(false), &json!("weather")));
    let request = app.model.requests().pop().unwrap();
    assert_eq!((request.sampling.temperature, request.sampling.top_p), (Some(0.25), Some(0.5)));
    assert_eq!((request.sampling.max_tokens, request.parallel_tool_calls), (Some(9), false));
    assert_eq!(request.tool_choice, ToolChoice::Named("weather".to_owned()));
    assert_eq!(request.format, ResponseFormat::JsonSchema(schema));
    assert!(request.tools[0].strict && request.extra.is_empty());

    let (model, app) = Played::new(rich).declaring(&["reasoning_effort", "verbosity"]).serve().await;
    let body = ask(json!({"reasoning": {"effort": "high"}, "text": {"verbosity": "low"}}));
    plain(&app.post(PATH, body).await);
    assert_eq!(Value::Object(model.last().0.extra), json!({"reasoning_effort": "high", "verbosity": "low"}));
}

#[tokio::test]
async fn what_is_wrong_or_not_there_is_named() {
    let app = App::answering("x").await;
    let item = |item: Value| json!({"input": [item]});
    for (more, code, param) in [
        (json!({"store": true}), "unsupported", "store"),
        (json!({"previous_response_id": "resp_1"}), "unsupported", "previous_response_id"),
        (json!({"conversation": "conv_1"}), "unsupported", "conversation"),
        (json!({"background": true}), "unsupported", "background"),
        (json!({"prompt": {"id": "p"}}), "unsupported", "prompt"),
        (json!({"truncation": "auto"}), "unsupported", "truncation"),
        (json!({"include": ["message.output_text.logprobs"]}), "unsupported", "include"),
        (json!({"top_logprobs": 2}), "unsupported", "top_logprobs"),
        (json!({"reasoning": {"effort": "high"}}), "unsupported", "reasoning.effort"),
        (json!({"text": {"verbosity": "low"}}), "unsupported", "text.verbosity"),
        (json!({"text": {"format": {"type": "grammar"}}}), "unsupported", "text.format.type"),
        (
            json!({"text": {"format": {"type": "json_schema", "name": "n"}}}),
            "invalid_request",
            "text.format.schema",
        ),
        (json!({"tools": [{"type": "web_search"}]}), "unsupported", "tools[0].type"),
        (json!({"tools": [{"type": "function"}]}), "invalid_request", "tools[0].name"),
        (json!({"tool_choice": "maybe"}), "invalid_request", "tool_choice"),
        (json!({"stream_options": {}}), "invalid_request", "stream_options"),
        (json!({"max_output_tokens": 0}), "invalid_request", "max_output_tokens"),
        (json!({"metadata": {"a": "x".repeat(513)}}), "invalid_request", "metadata"),
        (json!({"input": []}), "invalid_request", "input"),
        (item(json!({"content": "x"})), "invalid_request", "input[0].role"),
        (item(json!({"role": "robot", "content": "x"})), "invalid_request", "input[0].role"),
        (item(json!({"role": "user"})), "invalid_request", "input[0].content"),
        (item(json!({"type": "item_reference", "id": "x"})), "unsupported", "input[0]"),
        (item(json!({"type": "web_search_call", "id": "x"})), "unsupported", "input[0]"),
        (
            item(json!({"type": "function_call", "name": "f", "arguments": "{}"})),
            "invalid_request",
            "input[0].call_id",
        ),
        (
            item(json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{"})),
            "invalid_request",
            "input[0].arguments",
        ),
        (
            item(json!({"role": "user", "content": [{"type": "input_file", "file_id": "f"}]})),
            "unsupported",
            "input[0].content[0].file_id",
        ),
        (
            item(json!({"role": "user", "content": [{"type": "input_image", "image_url": "x"}]})),
            "invalid_request",
            "input[0].content[0].image_url",
        ),
        (
            item(json!({"role": "system", "content": [{"type": "input_image", "image_url": "https://h/a"}]})),
            "invalid_request",
            "input[0].content[0]",
        ),
        (json!({"instruction": "x"}), "invalid_request", "instruction"),
    ] {
        let (status, found, kind, message) = app.post(PATH, ask(more.clone())).await.error();
        assert_eq!((status, kind.as_str()), (400, code), "{more}: {message}");
        assert_eq!(found.as_deref(), Some(param), "{more}: {message}");
    }
    assert!(app.model.requests().is_empty());
}
