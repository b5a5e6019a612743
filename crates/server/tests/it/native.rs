//! Our own inference routes.

use byzerllm_core::testing::ScriptedModel;
use byzerllm_core::{
    ChatRequest, Error, ErrorKind, Event, Input, Message, ResponseFormat, Role, Sampling, Tool, ToolChoice,
};
use serde_json::json;

use crate::support::App;

fn hello() -> ChatRequest {
    ChatRequest::new("chat", Input::Messages(vec![Message::new(Role::User, "Hi")]))
}

#[tokio::test]
async fn the_event_stream_travels_unchanged() {
    let app = App::answering("eins zwei 三").await;
    let body = serde_json::to_string(&hello()).unwrap();
    let answer = app.post("/byzerllm/v1/chat", body).await;
    let events: Vec<Event> = answer.data().iter().map(|data| serde_json::from_str(data).unwrap()).collect();
    let id = answer.header("x-request-id").unwrap();
    assert!(matches!(&events[0], Event::Started { request_id, .. } if request_id.0 == id));
    assert!(matches!(events.last(), Some(Event::Usage { usage }) if usage.completion_tokens == 3));
    let text: String = events
        .iter()
        .filter_map(|event| match event {
            Event::Text { text, .. } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(text, "eins zwei 三");
    assert_eq!(app.model.requests()[0].input, hello().input);
}

#[tokio::test]
async fn errors_keep_their_kind() {
    let app =
        App::with(ScriptedModel::new("a b c").failing_after(1, Error::new(ErrorKind::Upstream, "lost")))
            .await;
    let answer = app.post("/byzerllm/v1/chat", serde_json::to_string(&hello()).unwrap()).await;
    let (_, last) = answer.text.trim_end().rsplit_once("\n\n").unwrap();
    let data = last.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    assert!(last.lines().any(|line| line == "event: error"), "{last}");
    let error: Error = serde_json::from_str(data).unwrap();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Upstream, "lost"));
    assert_eq!(error.usage().unwrap().completion_tokens, 1);

    let unknown = ChatRequest { model: "none".to_owned(), ..hello() };
    let answer = app.post("/byzerllm/v1/chat", serde_json::to_string(&unknown).unwrap()).await;
    assert_eq!(answer.status, 404);
    let error: Error = serde_json::from_value(answer.json()["detail"].clone()).unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn templates_and_tokens() {
    let app = App::answering("x").await;
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let body = json!({"model": "chat", "messages": messages, "add_generation_prompt": true});
    assert_eq!(app.post("/byzerllm/v1/template", body).await.ok(), json!({"text": "user: Hi\nassistant:"}));
    let body = json!({"model": "chat", "messages": messages, "add_generation_prompt": false});
    assert_eq!(app.post("/byzerllm/v1/template", body).await.ok(), json!({"text": "user: Hi\n"}));
    let ids = app.post("/byzerllm/v1/tokenize", json!({"model": "chat", "text": "a b"})).await.ok();
    assert_eq!(ids["ids"].as_array().unwrap().len(), 2);
    for (path, body, param) in [
        ("/byzerllm/v1/tokenize", json!({"model": "chat"}), "text"),
        (
            "/byzerllm/v1/template",
            json!({"model": "chat", "messages": messages, "template": "{{ x }}"}),
            "template",
        ),
    ] {
        assert_eq!(app.post(path, body).await.error().1.as_deref(), Some(param));
    }
    assert_eq!(app.post("/byzerllm/v1/tokenize", json!({"model": "none", "text": ""})).await.status, 404);
    assert_eq!(app.get("/byzerllm/v1/models/none").await.status, 404);
}

#[tokio::test]
async fn tokens_as_other_servers_tell_them() {
    let app = App::answering("x").await;
    let answer = app.post("/tokenize", json!({"model": "chat", "prompt": "a b"})).await.ok();
    assert_eq!((answer["count"].clone(), answer["max_model_len"].clone()), (json!(2), json!(4096)));
    let tokens = answer["tokens"].clone();
    let text = app.post("/detokenize", json!({"model": "chat", "tokens": tokens})).await.ok();
    assert_eq!(text, json!({"prompt": format!(" {} {}", tokens[0], tokens[1])}));
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let answer = app.post("/tokenize", json!({"model": "chat", "messages": messages})).await.ok();
    assert_eq!(answer["count"], 3, "user: Hi, and the model's turn");
    for (path, body, field) in [
        ("/tokenize", json!({"model": "chat"}), "prompt"),
        ("/tokenize", json!({"model": "chat", "prompt": "a", "messages": messages}), "messages"),
        (
            "/tokenize",
            json!({"model": "chat", "prompt": "a", "add_special_tokens": true}),
            "add_special_tokens",
        ),
        (
            "/tokenize",
            json!({"model": "chat", "prompt": "a", "return_token_strs": true}),
            "return_token_strs",
        ),
        ("/detokenize", json!({"model": "chat", "tokens": ["a"]}), "tokens[0]"),
        ("/detokenize", json!({"model": "chat", "tokens": [-1]}), "tokens[0]"),
    ] {
        let (status, param, _, message) = app.post(path, body).await.error();
        assert_eq!((status, param.as_deref()), (400, Some(field)), "{message}");
    }
    assert_eq!(app.post("/tokenize", json!({"model": "none", "prompt": ""})).await.status, 404);
    assert_eq!(app.post("/detokenize", json!({"model": "none", "tokens": []})).await.status, 404);
}

#[tokio::test]
async fn our_own_route_has_the_same_caps() {
    let app = App::answering("x").await;
    let tool =
        |index: usize| Tool { name: format!("f{index}"), description: None, parameters: None, strict: false };
    let many = ChatRequest { tools: (0..129).map(tool).collect(), ..hello() };
    let best = ChatRequest { best_of: Some(1_000_000), ..hello() };
    let named = ChatRequest { tool_choice: ToolChoice::Named("g".to_owned()), ..hello() };
    for (request, field) in [(many, "tools"), (best, "best_of"), (named, "tool_choice")] {
        let body = serde_json::to_string(&request).unwrap();
        assert_eq!(app.post("/byzerllm/v1/chat", body).await.error().1.as_deref(), Some(field));
    }
}

#[tokio::test]
async fn our_own_route_reads_everything_and_bounds_schemas() {
    let app = App::answering("x").await;
    let schema =
        json!({"type": "object", "properties": {"b": {"type": "integer"}, "a": {"enum": [null, 1.5, "x"]}}});
    let tool = |strict| Tool {
        name: "f".to_owned(),
        description: Some("d".to_owned()),
        parameters: Some(schema.clone()),
        strict,
    };
    let all = ChatRequest {
        echo: true,
        prompt_logprobs: Some(1),
        n: 2,
        best_of: Some(3),
        sampling: Sampling { seed: Some(7), max_tokens: Some(5), ..Sampling::default() },
        tools: vec![tool(true)],
        tool_choice: ToolChoice::Named("f".to_owned()),
        parallel_tool_calls: false,
        ..hello()
    };
    let mut requests = vec![all, hello()];
    for format in [
        ResponseFormat::Text,
        ResponseFormat::JsonObject,
        ResponseFormat::JsonSchema(schema.clone()),
        ResponseFormat::Regex("a+".to_owned()),
        ResponseFormat::Grammar("start: \"a\"".to_owned()),
        ResponseFormat::Choice(vec!["a".to_owned(), "b".to_owned()]),
    ] {
        requests.push(ChatRequest { format, ..hello() });
    }
    for request in requests {
        let answer = app.post("/byzerllm/v1/chat", serde_json::to_string(&request).unwrap()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let got = app.model.requests().pop().unwrap();
        // The runtime fills what a caller leaves open.
        let sampling = got.sampling.clone();
        assert_eq!(got, ChatRequest { sampling, clip_max_tokens: got.clip_max_tokens, ..request.clone() });
        assert_eq!(got.sampling.seed, request.sampling.seed);
    }

    let deep = (0..70).fold(json!(1), |inner, _| json!([inner]));
    let wide = json!({"enum": vec![0; 100_000]});
    let body = |fields: serde_json::Value| {
        let mut body = serde_json::to_value(hello()).unwrap();
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        body
    };
    for (fields, field) in [
        (json!({"format": {"kind": "json_schema", "value": deep}}), "format.value"),
        (json!({"format": {"value": wide, "kind": "json_schema"}}), "format.value"),
        (json!({"format": {"kind": "regex", "value": "a".repeat(100_000)}}), "format"),
        (json!({"format": {"kind": "choice", "value": vec!["a"; 2_000]}}), "format"),
        (json!({"format": {"kind": "yaml"}}), "format"),
        (json!({"format": {"kind": "text", "value": 1}}), "format"),
        (json!({"tools": [{"name": "f", "parameters": deep}]}), "tools[0].parameters"),
        (json!({"tools": [{"name": "f", "parameters": wide}]}), "tools[0].parameters"),
        (json!({"tools": [{"name": "f", "params": {}}]}), "tools[0].params"),
    ] {
        let (status, param, _, message) = app.post("/byzerllm/v1/chat", body(fields)).await.error();
        assert_eq!(status, 400, "{message}");
        assert!(message.len() < 1000, "{message}");
        // Within a schema that is too deep the place is named, too.
        assert!(param.is_some_and(|param| param.starts_with(field)), "{message}");
    }
}
