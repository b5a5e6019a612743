//! `/v1/chat/completions`.

use byzerllm_core::{Input, Role};
use serde_json::{Value, json};

use crate::support::App;

fn ask(more: Value) -> Value {
    let mut body = json!({"model": "chat", "messages": [{"role": "user", "content": "Hi"}]});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[tokio::test]
async fn a_whole_answer() {
    let app = App::answering("Hello there, 世界!").await;
    insta::assert_json_snapshot!("chat_whole", app.chat(ask(json!({}))).await.ok());
    let body = ask(json!({"n": 2, "logprobs": true, "top_logprobs": 2, "max_tokens": 1}));
    insta::assert_json_snapshot!("chat_whole_n_logprobs", app.chat(body).await.ok());
}

#[tokio::test]
async fn a_stream() {
    let app = App::answering("Hello 世界").await;
    let body = ask(json!({"stream": true}));
    insta::assert_json_snapshot!("chat_stream", app.chat(body).await.chunks());
    let body = ask(json!({
        "stream": true, "n": 2, "logprobs": true, "stream_options": {"include_usage": true}, "max_tokens": 1
    }));
    insta::assert_json_snapshot!("chat_stream_n_logprobs_usage", app.chat(body).await.chunks());
}

#[tokio::test]
async fn streamed_text_is_the_whole_text() {
    let text = "Zeile 1\nZeile 2\r\n\n\ndata: [DONE]\n\n你好，世界 👩‍👩‍👧 \u{2028}\u{0} \"quoted\" </s> ende";
    let app = App::answering(text).await;
    let whole = app.chat(ask(json!({}))).await.ok();
    assert_eq!(whole["choices"][0]["message"]["content"], text);
    let chunks = app.chat(ask(json!({"stream": true}))).await.chunks();
    let streamed: String =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(streamed, text);
    let ends: Vec<&Value> = chunks
        .iter()
        .map(|chunk| &chunk["choices"][0]["finish_reason"])
        .filter(|end| !end.is_null())
        .collect();
    assert_eq!(ends, ["stop"]);
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn every_parameter_arrives() {
    let app = App::answering("x").await;
    let body = ask(json!({
        "temperature": 0.25, "top_p": 0.5, "top_k": 7, "min_p": 0.125, "seed": -1, "max_completion_tokens": 9,
        "stop": ["a", "b"], "stop_token_ids": [1, 2], "logprobs": true, "top_logprobs": 3, "n": 4
    }));
    app.chat(body).await.ok();
    let request = app.model.requests().pop().unwrap();
    let sampling = &request.sampling;
    assert_eq!((sampling.temperature, sampling.top_p, sampling.min_p), (Some(0.25), Some(0.5), Some(0.125)));
    assert_eq!((sampling.top_k, sampling.seed, sampling.max_tokens), (Some(7), Some(u64::MAX), Some(9)));
    assert_eq!(sampling.stop.as_deref(), Some(&["a".to_owned(), "b".to_owned()][..]));
    assert_eq!(sampling.stop_token_ids.as_deref(), Some(&[1, 2][..]));
    assert_eq!((sampling.logprobs, request.n, request.echo), (Some(3), 4, false));

    // What is absent comes from OpenAI's defaults; null is absent.
    let nulls = [
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "max_tokens",
        "max_completion_tokens",
        "stop",
        "stop_token_ids",
        "logprobs",
        "top_logprobs",
        "n",
        "stream",
        "stream_options",
        "tools",
        "tool_choice",
        "response_format",
        "logit_bias",
        "presence_penalty",
        "frequency_penalty",
        "user",
        "metadata",
        "store",
        "functions",
        "function_call",
        "reasoning_effort",
        "verbosity",
        "service_tier",
        "modalities",
        "audio",
        "prediction",
        "parallel_tool_calls",
        "web_search_options",
        "safety_identifier",
        "prompt_cache_key",
    ];
    let nulls: serde_json::Map<String, Value> =
        nulls.iter().map(|name| ((*name).to_owned(), Value::Null)).collect();
    app.chat(ask(Value::Object(nulls))).await.ok();
    let sampling = app.model.requests().pop().unwrap().sampling;
    assert_eq!((sampling.temperature, sampling.top_p, sampling.max_tokens), (Some(1.0), Some(1.0), None));
    assert_eq!((sampling.seed, sampling.stop, sampling.logprobs), (None, None, None));

    // Accepted without effect, as documented.
    let harmless = json!({
        "user": "u", "safety_identifier": "s", "metadata": {"a": "b"}, "prompt_cache_key": "k", "store": false,
        "service_tier": "auto", "parallel_tool_calls": true, "tool_choice": "none", "tools": [], "logit_bias": {},
        "modalities": ["text"], "response_format": {"type": "text"}, "presence_penalty": 0, "frequency_penalty": 0.0,
        "stream": false, "top_k": -1, "stop": "x"
    });
    app.chat(ask(harmless)).await.ok();
    assert_eq!(app.model.requests().pop().unwrap().sampling.top_k, Some(0));
}

#[tokio::test]
async fn messages_of_every_form() {
    let app = App::answering("x").await;
    let messages = json!([
        {"role": "system", "content": "s"},
        {"role": "developer", "content": [{"type": "text", "text": "d1"}, {"type": "text", "text": "d2"}]},
        {"role": "user", "content": "u", "name": "Ann"},
        {"role": "assistant", "content": null, "refusal": null, "annotations": [], "audio": null,
         "function_call": null, "reasoning_content": "hm",
         "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]},
        {"role": "tool", "content": "42", "tool_call_id": "1"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": ""}
    ]);
    app.chat(ask(json!({"messages": messages}))).await.ok();
    let Input::Messages(got) = app.model.requests().pop().unwrap().input else { panic!("no messages") };
    let roles: Vec<Role> = got.iter().map(|message| message.role).collect();
    use Role::{Assistant, System, Tool, User};
    assert_eq!(roles, [System, System, User, Assistant, Tool, Assistant, User]);
    assert_eq!((got[1].content.as_str(), got[3].content.as_str()), ("d1\nd2", ""));
    assert_eq!(got[2].extra["name"], "Ann");
    assert_eq!(got[3].extra["reasoning_content"], "hm");
    assert_eq!(got[3].extra["tool_calls"][0]["function"], json!({"name": "f", "arguments": {"a": 1}}));
    assert_eq!(got[4].extra["tool_call_id"], "1");
}

#[tokio::test]
async fn what_is_wrong_or_not_there_is_named() {
    let app = App::answering("x").await;
    let user = |message: Value| json!({"messages": [{"role": "user", "content": "a"}, message]});
    let cases = [
        (json!({"temprature": 1}), "invalid_request", "temprature"),
        (json!({"ignore_eos": true}), "invalid_request", "ignore_eos"),
        (
            json!({"stream": true, "stream_options": {"usage": true}}),
            "invalid_request",
            "stream_options.usage",
        ),
        (json!({"stream_options": {"include_usage": true}}), "invalid_request", "stream_options"),
        (json!({"messages": []}), "invalid_request", "messages"),
        (json!({"messages": [["user", "Hi"]]}), "invalid_request", "messages[0]"),
        (json!({"messages": "Hi"}), "invalid_request", "messages"),
        (json!({"model": 5}), "invalid_request", "model"),
        (json!({"temperature": "0"}), "invalid_request", "temperature"),
        (json!({"temperature": -1}), "invalid_request", "temperature"),
        (json!({"top_p": 0}), "invalid_request", "top_p"),
        (json!({"top_k": -2}), "invalid_request", "top_k"),
        (json!({"n": 0}), "invalid_request", "n"),
        (json!({"n": 129}), "invalid_request", "n"),
        (json!({"n": -1}), "invalid_request", "n"),
        (json!({"max_tokens": 0}), "invalid_request", "max_tokens"),
        (json!({"max_tokens": -1}), "invalid_request", "max_tokens"),
        (json!({"max_tokens": 1.5}), "invalid_request", "max_tokens"),
        (json!({"max_tokens": 1, "max_completion_tokens": 2}), "invalid_request", "max_completion_tokens"),
        (json!({"top_logprobs": 2}), "invalid_request", "top_logprobs"),
        (json!({"logprobs": true, "top_logprobs": 21}), "invalid_request", "top_logprobs"),
        (json!({"seed": 1.5}), "invalid_request", "seed"),
        (json!({"stop": ["a", null]}), "invalid_request", "stop[1]"),
        (json!({"stop": [""]}), "invalid_request", "stop"),
        (json!({"stop": vec!["x"; 17]}), "invalid_request", "stop"),
        (json!({"tools": [{"type": "function"}]}), "unsupported", "tools"),
        (json!({"tool_choice": "required"}), "unsupported", "tool_choice"),
        (json!({"tool_choice": {"type": "function"}}), "unsupported", "tool_choice"),
        (json!({"functions": [{}]}), "unsupported", "functions"),
        (json!({"response_format": {"type": "json_object"}}), "unsupported", "response_format"),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {}}}),
            "unsupported",
            "response_format",
        ),
        (json!({"logit_bias": {"1": 5}}), "unsupported", "logit_bias"),
        (json!({"presence_penalty": 0.5}), "unsupported", "presence_penalty"),
        (json!({"frequency_penalty": -0.5}), "unsupported", "frequency_penalty"),
        (json!({"repetition_penalty": 1.1}), "unsupported", "repetition_penalty"),
        (json!({"modalities": ["text", "audio"]}), "unsupported", "modalities"),
        (json!({"reasoning_effort": "high"}), "unsupported", "reasoning_effort"),
        (json!({"service_tier": "flex"}), "unsupported", "service_tier"),
        (json!({"store": true}), "unsupported", "store"),
        (user(json!({"role": "robot", "content": "x"})), "invalid_request", "messages[1].role"),
        (user(json!({"role": "user"})), "invalid_request", "messages[1].content"),
        (user(json!({"role": "user", "content": null})), "invalid_request", "messages[1].content"),
        (user(json!({"content": "x"})), "invalid_request", "messages[1].role"),
        (user(json!({"role": "user", "content": "x", "nam": "y"})), "invalid_request", "messages[1].nam"),
        (user(json!({"role": "tool", "content": "x"})), "invalid_request", "messages[1].tool_call_id"),
        (
            user(json!({"role": "user", "content": [{"type": "text", "txt": "x"}]})),
            "invalid_request",
            "messages[1].content[0].txt",
        ),
        (
            user(json!({"role": "user", "content": [{"type": "text"}]})),
            "invalid_request",
            "messages[1].content[0].text",
        ),
        (
            user(json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]})),
            "unsupported",
            "messages[1].content[0]",
        ),
        (
            user(json!({"role": "assistant", "content": "x", "tool_calls": [
                {"id": "1", "function": {"name": "f", "arguments": "{"}}]})),
            "invalid_request",
            "messages[1].tool_calls[0].function.arguments",
        ),
    ];
    for (more, code, param) in cases {
        let (status, got_param, got_code, message) = app.chat(ask(more.clone())).await.error();
        assert_eq!((status, got_code.as_str()), (400, code), "{more}: {message}");
        assert_eq!(got_param.as_deref(), Some(param), "{more}: {message}");
        let field = param.split(['.', '[']).next().unwrap();
        assert!(message.contains(field), "{more}: {message}");
    }
    assert!(app.model.requests().is_empty());
    let (.., message) = app.chat(ask(json!({"temprature": 1}))).await.error();
    assert_eq!(message, "unknown field `temprature`; did you mean `temperature`?");
    let (status, param, _, message) = app.chat(json!({"messages": []})).await.error();
    assert_eq!((status, param.as_deref()), (400, Some("model")), "{message}");
    let (status, _, code, message) = app.chat(ask(json!({"model": "gpt-4"}))).await.error();
    assert_eq!((status, code.as_str()), (404, "not_found"));
    assert!(message.contains("chat"), "{message}");
}
