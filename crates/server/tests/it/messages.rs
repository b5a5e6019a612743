//! `/v1/messages` and `/v1/messages/count_tokens`.

use byzerllm_core::{
    ErrorKind, FinishReason, Input, Message, Notice, Part, ResponseFormat, Role, ToolChoice,
};
use serde_json::{Value, json};

use crate::played::{Played, broken, call, end, events, notice, plain, post, rich, text, usage};
use crate::support::{Answer, App};

const PATH: &str = "/v1/messages";

fn ask(more: Value) -> Value {
    let mut body =
        json!({"model": "chat", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// Status, type, parameter and message of an error.
fn refusal(answer: &Answer) -> (u16, String, String, String) {
    let body: Value = serde_json::from_str(&answer.text).unwrap();
    assert_eq!(body["type"], "error", "{body}");
    assert_eq!(body["request_id"].as_str(), answer.header("x-request-id"));
    let word = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
    (answer.status.as_u16(), word("type"), word("param"), word("message"))
}

fn messages(input: Input) -> Vec<Message> {
    match input {
        Input::Messages(messages) => messages,
        other => panic!("no messages: {other:?}"),
    }
}

#[tokio::test]
async fn a_whole_answer() {
    let (model, app) = Played::new(rich).serve().await;
    let answer = app.post(PATH, ask(json!({}))).await;
    insta::assert_json_snapshot!("message_whole", plain(&answer));
    assert_eq!(answer.header("x-vendor-request-id"), Some("vendor-1"));
    assert!(model.last().0.whole);
    let app = App::answering("one two three").await;
    let cut = plain(&app.post(PATH, ask(json!({"max_tokens": 1}))).await);
    assert_eq!((&cut["stop_reason"], &cut["content"][0]["text"]), (&json!("max_tokens"), &json!("one")));
}

#[tokio::test]
async fn a_stream() {
    let (model, app) = Played::new(rich).serve().await;
    let answer = app.post(PATH, ask(json!({"stream": true}))).await;
    let events = events(&answer);
    for (name, data) in &events {
        assert_eq!(data["type"], **name);
    }
    insta::assert_json_snapshot!("message_stream", events);
    assert!(!model.last().0.whole && !answer.text.contains("[DONE]"));
}

#[tokio::test]
async fn what_was_cut_off_is_told_as_it_is() {
    let cut = || vec![call(0, Some("c1"), "{\"city\": \"Pa"), end(FinishReason::Length), usage()];
    let (_, app) = Played::new(cut).serve().await;
    let block = &plain(&app.post(PATH, ask(json!({}))).await)["content"][0];
    assert_eq!((&block["input"], &block["partial_input"]), (&json!({}), &json!("{\"city\": \"Pa")));
}

#[tokio::test]
async fn failures_are_events() {
    let (_, app) = Played::new(broken).serve().await;
    let told = events(&app.post(PATH, ask(json!({"stream": true}))).await);
    let (name, last) = told.last().unwrap();
    assert_eq!((name.as_str(), &last["error"]["type"]), ("error", &json!("api_error")));
    assert_eq!(last["error"]["vendor_request_id"], "vendor-1");
    let answer = app.post(PATH, ask(json!({}))).await;
    assert_eq!(answer.header("x-vendor-request-id"), Some("vendor-1"));
    assert_eq!(refusal(&answer).0, 502);

    let again = || vec![text("a"), notice(Notice::Restarted), text("b"), end(FinishReason::Stop), usage()];
    let (_, app) = Played::new(again).serve().await;
    let told = events(&app.post(PATH, ask(json!({"stream": true}))).await);
    assert_eq!(told.last().unwrap().0, "error");
    assert_eq!(plain(&app.post(PATH, ask(json!({}))).await)["content"][0]["text"], "b");
}

#[tokio::test]
async fn every_parameter_arrives() {
    let app = App::answering("x").await;
    let tool = json!({"name": "f", "description": "d", "input_schema": {"type": "object"}, "strict": true,
        "cache_control": {"type": "ephemeral"}});
    let body = ask(json!({
        "system": [{"type": "text", "text": "s1", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "s2"}],
        "temperature": 0.25, "top_p": 0.5, "top_k": 7, "stop_sequences": ["a", "b"], "tools": [tool],
        "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": true},
        "metadata": {"user_id": "u"}, "thinking": {"type": "disabled"}, "service_tier": "auto",
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    }));
    plain(&app.post(PATH, body).await);
    let request = app.model.requests().pop().unwrap();
    let sampling = &request.sampling;
    assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k), (Some(0.25), Some(0.5), Some(7)));
    assert_eq!((sampling.max_tokens, sampling.stop.as_ref().unwrap().len()), (Some(50), 2));
    assert_eq!((request.tools[0].name.as_str(), request.tools[0].strict), ("f", true));
    assert_eq!(request.tool_choice, ToolChoice::Named("f".to_owned()));
    assert!(!request.parallel_tool_calls);
    assert_eq!(request.format, ResponseFormat::JsonSchema(json!({"type": "object"})));
    assert_eq!(messages(request.input)[0], Message::new(Role::System, "s1\ns2"));
    for (word, choice) in
        [("auto", ToolChoice::Auto), ("any", ToolChoice::Required), ("none", ToolChoice::None)]
    {
        let tool = json!({"name": "f", "input_schema": {"type": "object"}});
        let body = ask(json!({"tools": [tool], "tool_choice": {"type": word}}));
        plain(&app.post(PATH, body).await);
        assert_eq!(app.model.requests().pop().unwrap().tool_choice, choice);
    }
}

#[tokio::test]
async fn blocks_become_messages() {
    let app = App::answering("x").await;
    let image =
        json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}});
    let elsewhere = json!({"type": "image", "source": {"type": "url", "url": "https://host/a.png"}});
    let turns = json!([
        {"role": "user", "content": [{"type": "text", "text": "Look"}, image]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "sig"}, {"type": "text", "text": "Wait."},
            {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": [1]}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "42"}, elsewhere]},
            {"type": "tool_result", "tool_use_id": "c2", "is_error": true},
            {"type": "text", "text": "And?"}]}
    ]);
    plain(&app.post(PATH, ask(json!({"messages": turns}))).await);
    let got = messages(app.model.requests().pop().unwrap().input);
    let roles: Vec<Role> = got.iter().map(|message| message.role).collect();
    assert_eq!(roles, [Role::User, Role::Assistant, Role::Tool, Role::Tool, Role::User]);
    let bytes = "data:image/png;base64,AAAA".to_owned();
    assert_eq!(got[0].parts[1], Part::Image { url: bytes, detail: None });
    assert_eq!((got[1].content.as_str(), &got[1].extra["reasoning_content"]), ("Wait.", &json!("hm")));
    let call = json!({"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": [1]}}});
    assert_eq!(got[1].extra["tool_calls"], json!([call]));
    assert_eq!((got[2].content.as_str(), &got[2].extra["tool_call_id"]), ("42", &json!("c1")));
    assert!(got[2].has_images() && got[3].content.is_empty());
    assert_eq!(got[4], Message::new(Role::User, "And?"));
}

#[tokio::test]
async fn an_answer_goes_back_in_as_it_came() {
    let (model, app) = Played::new(rich).serve().await;
    let answer = plain(&app.post(PATH, ask(json!({}))).await);
    let mut turns = ask(json!({}))["messages"].clone();
    let result = |id: &str| json!({"type": "tool_result", "tool_use_id": id, "content": "Sunny."});
    turns.as_array_mut().unwrap().extend([
        json!({"role": "assistant", "content": answer["content"]}),
        json!({"role": "user", "content": [result("c1"), result("c2")]}),
    ]);
    plain(&app.post(PATH, ask(json!({"messages": turns}))).await);
    let got = messages(model.last().0.input);
    assert_eq!(
        (got[1].content.as_str(), &got[1].extra["reasoning_content"]),
        ("One moment.", &json!("Rain?"))
    );
    assert_eq!(got[1].extra["tool_calls"][0]["function"]["arguments"], json!({"city": "Paris"}));
    assert_eq!(got.len(), 4);
}

#[tokio::test]
async fn what_is_wrong_or_not_there_is_named() {
    let app = App::answering("x").await;
    let said = |block: Value| json!({"messages": [{"role": "user", "content": [block]}]});
    let tool = |more: Value| {
        let mut tool = json!({"name": "f", "input_schema": {"type": "object"}});
        for (name, value) in more.as_object().unwrap() {
            tool[name] = value.clone();
        }
        json!({"tools": [tool]})
    };
    for (more, param) in [
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"temperature": -1}), "temperature"),
        (json!({"top_p": 0}), "top_p"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": [{"role": "robot", "content": "x"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "user"}]}), "messages[0].content"),
        (json!({"messages": [{"role": "user", "content": []}]}), "messages[0].content"),
        (
            json!({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}),
            "messages[1]",
        ),
        (said(json!({"type": "text"})), "messages[0].content[0].text"),
        (said(json!({"type": "document", "source": {"type": "text"}})), "messages[0].content[0]"),
        (said(json!({"type": "tool_result"})), "messages[0].content[0].tool_use_id"),
        (said(json!({"type": "tool_use", "id": "1", "name": "f", "input": {}})), "messages[0].content[0]"),
        (said(json!({"type": "image"})), "messages[0].content[0].source"),
        (
            said(
                json!({"type": "image", "source": {"type": "base64", "media_type": "image/tiff", "data": "AA"}}),
            ),
            "messages[0].content[0].source.media_type",
        ),
        (
            said(json!({"type": "image", "source": {"type": "url", "url": "file:///a"}})),
            "messages[0].content[0].source.url",
        ),
        (said(json!({"type": "text", "text": "x", "citations": [1]})), "messages[0].content[0].citations"),
        (json!({"stop_sequences": [""]}), "stop_sequences"),
        (tool(json!({"input_schema": null})), "tools[0].input_schema"),
        (tool(json!({"name": "a b"})), "tools[0].name"),
        (tool(json!({"type": "web_search_20250305"})), "tools[0].type"),
        (json!({"tool_choice": {"type": "any"}}), "tool_choice"),
        (json!({"tool_choice": {"type": "tool"}}), "tool_choice.name"),
        (json!({"tool_choice": {"type": "maybe"}}), "tool_choice.type"),
        (json!({"thinking": {"type": "enabled", "budget_tokens": 2048}}), "thinking"),
        (json!({"service_tier": "priority"}), "service_tier"),
        (json!({"container": "x"}), "container"),
        (json!({"mcp_servers": [{"url": "x"}]}), "mcp_servers"),
        (json!({"output_config": {"effort": "high"}}), "output_config.effort"),
        (json!({"output_config": {"format": {"type": "xml", "schema": {}}}}), "output_config.format.type"),
        (json!({"max_token": 3}), "max_token"),
    ] {
        let answer = app.post(PATH, ask(more.clone())).await;
        let (status, kind, found, message) = refusal(&answer);
        assert_eq!((status, kind.as_str()), (400, "invalid_request_error"), "{more}: {message}");
        assert_eq!(found, param, "{more}: {message}");
    }
    assert!(app.model.requests().is_empty());
    let (status, kind, ..) = refusal(&app.post(PATH, ask(json!({"model": "none"}))).await);
    assert_eq!((status, kind.as_str()), (404, "not_found_error"));
    let (status, kind, ..) = refusal(&app.get(PATH).await);
    assert_eq!((status, kind.as_str()), (405, "invalid_request_error"));
}

#[tokio::test]
async fn a_model_may_have_more_parameters_and_go_on_from_the_assistant() {
    let (model, app) = Played::new(rich).declaring(&["thinking"]).continuing("partial").serve().await;
    let thinking = json!({"type": "enabled", "budget_tokens": 2048});
    let turns = json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": "The"}]);
    let body = ask(json!({"thinking": thinking, "messages": turns}));
    plain(&post(&app, PATH, &[("anthropic-version", "2023-06-01"), ("anthropic-beta", "x")], body).await);
    let request = model.last().0;
    assert_eq!(request.extra["thinking"], thinking);
    let last = messages(request.input).pop().unwrap();
    assert_eq!((last.role, &last.extra["partial"]), (Role::Assistant, &json!(true)));
}

#[tokio::test]
async fn tokens_are_counted_where_the_tokenizer_is() {
    let app = App::answering("x").await;
    let body = json!({"model": "chat", "system": "Be brief.", "messages": [{"role": "user", "content": "Hi there"}]});
    let counted = app.post("/v1/messages/count_tokens", &body).await;
    // "system: Be brief.\nuser: Hi there\nassistant:"
    assert_eq!(plain(&counted), json!({"input_tokens": 7}));
    let mut body_ = body.clone();
    body_["max_tokens"] = 5.into();
    assert_eq!(refusal(&app.post("/v1/messages/count_tokens", body_).await).2, "max_tokens");
    let (_, app) = Played::new(rich).serve().await;
    let (status, kind, _, message) = refusal(&app.post("/v1/messages/count_tokens", body).await);
    assert_eq!((status, kind.as_str()), (400, "invalid_request_error"), "{message}");
    assert!(message.contains("tokenizer"), "{message}");
}

#[tokio::test]
async fn a_key_may_come_as_anthropics_clients_send_it() {
    let app = App::answering("x").await;
    let made = app.admin(axum::http::Method::POST, "/byzerllm/v1/keys", json!({"name": "app"})).await.ok();
    let key = made["key"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {key}");
    for path in [PATH, "/v1/chat/completions"] {
        let body = if path == PATH { ask(json!({})) } else { json!({"model": "chat", "messages": "Hi"}) };
        for (headers, status) in [
            (vec![("x-api-key", key.as_str())], 200),
            (vec![("authorization", bearer.as_str())], 200),
            (vec![("x-api-key", key.as_str()), ("authorization", bearer.as_str())], 200),
            (vec![("x-api-key", "other"), ("authorization", bearer.as_str())], 401),
            (vec![("x-api-key", key.as_str()), ("x-api-key", key.as_str())], 401),
            (vec![("x-api-key", bearer.as_str())], 401),
            (vec![], 401),
        ] {
            let answer = post(&app, path, &headers, body.clone()).await;
            assert_eq!(answer.status, status, "{path}: {headers:?}: {}", answer.text);
            assert!(!answer.text.contains(&key));
        }
    }
    let (_, kind, ..) = refusal(&post(&app, PATH, &[], ask(json!({}))).await);
    assert_eq!(kind, "authentication_error");
}

#[tokio::test]
async fn refusals_have_their_words() {
    for (kind, status, word) in [
        (ErrorKind::RateLimited, 429, "rate_limit_error"),
        (ErrorKind::Overloaded, 429, "overloaded_error"),
        (ErrorKind::Unavailable, 503, "overloaded_error"),
        (ErrorKind::DeadlineExceeded, 504, "timeout_error"),
        (ErrorKind::TooLarge, 400, "invalid_request_error"),
    ] {
        let error = byzerllm_core::Error::new(kind, "no");
        let app = App::with(byzerllm_core::testing::ScriptedModel::new("x").refusing(error)).await;
        let (got, found, ..) = refusal(&app.post(PATH, ask(json!({"stream": true}))).await);
        assert_eq!((got, found.as_str()), (status, word));
    }
}
