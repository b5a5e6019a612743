//! `/v1/chat/completions`.

use byzerllm_core::{Input, ResponseFormat, Role, ToolChoice};
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
        "stop": ["a", "b"], "stop_token_ids": [1, 2], "logprobs": true, "top_logprobs": 3, "n": 4, "best_of": 6,
        "presence_penalty": 0.5, "frequency_penalty": -0.5, "repetition_penalty": 1.25, "logit_bias": {"7": -100, "8": 0.5},
        "ignore_eos": true, "min_tokens": 2
    }));
    app.chat(body).await.ok();
    let request = app.model.requests().pop().unwrap();
    let sampling = &request.sampling;
    assert_eq!((sampling.temperature, sampling.top_p, sampling.min_p), (Some(0.25), Some(0.5), Some(0.125)));
    assert_eq!((sampling.top_k, sampling.seed, sampling.max_tokens), (Some(7), Some(u64::MAX), Some(9)));
    assert_eq!(sampling.stop.as_deref(), Some(&["a".to_owned(), "b".to_owned()][..]));
    assert_eq!(sampling.stop_token_ids.as_deref(), Some(&[1, 2][..]));
    assert_eq!((sampling.logprobs, request.n, request.echo), (Some(3), 4, false));
    assert_eq!((sampling.presence_penalty, sampling.frequency_penalty), (Some(0.5), Some(-0.5)));
    assert_eq!((sampling.repetition_penalty, sampling.ignore_end), (Some(1.25), Some(true)));
    assert_eq!(sampling.logit_bias, Some([(7, -100.0), (8, 0.5)].into()));
    assert_eq!((sampling.min_tokens, request.best_of), (Some(2), Some(6)));

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
        "best_of",
        "ignore_eos",
        "min_tokens",
        "repetition_penalty",
        "guided_json",
        "guided_regex",
        "guided_choice",
        "guided_grammar",
        "guided_decoding_backend",
        "guided_whitespace_pattern",
        "use_beam_search",
        "early_stopping",
        "length_penalty",
        "include_stop_str_in_output",
        "skip_special_tokens",
        "spaces_between_special_tokens",
        "add_generation_prompt",
        "add_special_tokens",
        "continue_final_message",
        "echo",
        "suffix",
        "truncate_prompt_tokens",
        "allowed_token_ids",
        "prompt_logprobs",
        "documents",
        "chat_template",
        "chat_template_kwargs",
        "prompt_template",
        "priority",
        "request_id",
        "extra_body",
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
        "stream": false, "top_k": -1, "stop": "x", "use_beam_search": false, "early_stopping": false,
        "length_penalty": 1.0, "skip_special_tokens": true, "spaces_between_special_tokens": false,
        "add_generation_prompt": true, "echo": false, "priority": 0, "guided_decoding_backend": "outlines",
        "extra_body": {}, "include_stop_str_in_output": false
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

    // A text is what the user says.
    app.chat(json!({"model": "chat", "messages": "Hi, 世界"})).await.ok();
    let Input::Messages(got) = app.model.requests().pop().unwrap().input else { panic!("no messages") };
    assert_eq!(got, [byzerllm_core::Message::new(User, "Hi, 世界")]);
}

#[tokio::test]
async fn images_travel_as_parts() {
    let app = App::answering("x").await;
    let image =
        json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}});
    let parts = json!([{"type": "text", "text": "What"}, image, {"type": "text", "text": "is it?"}]);
    app.chat(ask(json!({"messages": [{"role": "user", "content": parts}]}))).await.ok();
    let Input::Messages(got) = app.model.requests().pop().unwrap().input else { panic!("no messages") };
    assert_eq!((got[0].content.as_str(), got[0].parts.len()), ("What\nis it?", 3));
    let url = "data:image/png;base64,AAAA".to_owned();
    assert_eq!(got[0].parts[1], byzerllm_core::Part::Image { url, detail: Some("low".to_owned()) });
}

#[tokio::test]
async fn what_is_wrong_or_not_there_is_named() {
    let app = App::answering("x").await;
    let tool = |name: &str| json!({"type": "function", "function": {"name": name}});
    let user = |message: Value| json!({"messages": [{"role": "user", "content": "a"}, message]});
    let cases = [
        (json!({"temprature": 1}), "invalid_request", "temprature"),
        (
            json!({"stream": true, "stream_options": {"usage": true}}),
            "invalid_request",
            "stream_options.usage",
        ),
        (json!({"stream_options": {"include_usage": true}}), "invalid_request", "stream_options"),
        (json!({"messages": []}), "invalid_request", "messages"),
        (json!({"messages": [["user", "Hi"]]}), "invalid_request", "messages[0]"),
        (json!({"messages": 5}), "invalid_request", "messages"),
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
        (json!({"tools": [{"type": "function"}]}), "invalid_request", "tools[0].function"),
        (json!({"tools": [{"type": "retrieval"}]}), "unsupported", "tools[0].type"),
        (json!({"tools": [tool("a"), tool("a b")]}), "invalid_request", "tools[1].function.name"),
        (json!({"tools": [tool("a"), tool("a")]}), "invalid_request", "tools[1].function.name"),
        (
            json!({"tools": [{"type": "function", "function": {"name": "a", "parameters": 1}}]}),
            "invalid_request",
            "tools[0].function.parameters",
        ),
        (json!({"tool_choice": "required"}), "invalid_request", "tool_choice"),
        (json!({"tool_choice": "maybe"}), "invalid_request", "tool_choice"),
        (json!({"tool_choice": {"type": "function"}}), "invalid_request", "tool_choice.function"),
        (
            json!({"tools": [tool("a")], "tool_choice": {"type": "function", "function": {"name": "b"}}}),
            "invalid_request",
            "tool_choice",
        ),
        (json!({"functions": [{}]}), "unsupported", "functions"),
        (json!({"response_format": {"type": "json"}}), "unsupported", "response_format.type"),
        (
            json!({"response_format": {"type": "json_schema"}}),
            "invalid_request",
            "response_format.json_schema.schema",
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}),
            "invalid_request",
            "response_format.json_schema.schema",
        ),
        (
            json!({"response_format": {"type": "json_object"}, "guided_regex": "a"}),
            "invalid_request",
            "guided_regex",
        ),
        (json!({"guided_json": {}, "guided_choice": ["a"]}), "invalid_request", "guided_choice"),
        (json!({"guided_json": "{"}), "invalid_request", "guided_json"),
        (json!({"guided_choice": []}), "invalid_request", "guided_choice"),
        (json!({"logit_bias": {"x": 5}}), "invalid_request", "logit_bias"),
        (json!({"logit_bias": {"1": 101}}), "invalid_request", "logit_bias"),
        (json!({"presence_penalty": 3}), "invalid_request", "presence_penalty"),
        (json!({"frequency_penalty": -2.5}), "invalid_request", "frequency_penalty"),
        (json!({"repetition_penalty": 0}), "invalid_request", "repetition_penalty"),
        (json!({"n": 3, "best_of": 2}), "invalid_request", "best_of"),
        (json!({"best_of": 129}), "invalid_request", "best_of"),
        (json!({"use_beam_search": true}), "unsupported", "use_beam_search"),
        (json!({"length_penalty": 0.5}), "unsupported", "length_penalty"),
        (json!({"skip_special_tokens": false}), "unsupported", "skip_special_tokens"),
        (json!({"prompt_logprobs": 0}), "unsupported", "prompt_logprobs"),
        (json!({"chat_template": "x"}), "unsupported", "chat_template"),
        (json!({"add_generation_prompt": false}), "unsupported", "add_generation_prompt"),
        (json!({"echo": true}), "unsupported", "echo"),
        (json!({"extra_body": {"a": 1}}), "unsupported", "extra_body"),
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
            "invalid_request",
            "messages[1].content[0].image_url.url",
        ),
        (
            user(json!({"role": "user", "content": [{"type": "image_url"}]})),
            "invalid_request",
            "messages[1].content[0].image_url",
        ),
        (
            user(json!({"role": "assistant", "content": [
                {"type": "image_url", "image_url": {"url": "https://host/a.png"}}]})),
            "invalid_request",
            "messages[1].content[0]",
        ),
        (
            user(json!({"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x"}}]})),
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

#[tokio::test]
async fn formats_and_tools_arrive() {
    let app = App::answering("x").await;
    let schema = json!({"type": "object", "properties": {"b": {"type": "integer"}, "a": {"enum": [null, 1.5, "x", true, -1]}}});
    let strict =
        json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": true}});
    use ResponseFormat::{Choice, Grammar, JsonObject, JsonSchema, Regex, Text};
    for (fields, format) in [
        (json!({"response_format": {"type": "text"}}), Text),
        (json!({"response_format": {"type": "json_object"}}), JsonObject),
        (json!({"response_format": strict}), JsonSchema(schema.clone())),
        (json!({"guided_json": schema}), JsonSchema(schema.clone())),
        (json!({"guided_json": schema.to_string()}), JsonSchema(schema.clone())),
        (json!({"guided_regex": "a+"}), Regex("a+".to_owned())),
        (json!({"guided_choice": ["a", "b"]}), Choice(vec!["a".to_owned(), "b".to_owned()])),
        (json!({"guided_grammar": "start: \"a\""}), Grammar("start: \"a\"".to_owned())),
    ] {
        app.chat(ask(fields.clone())).await.ok();
        assert_eq!(app.model.requests().pop().unwrap().format, format, "{fields}");
    }

    let tool =
        json!({"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}});
    for (choice, want) in [
        (json!(null), ToolChoice::Auto),
        (json!("auto"), ToolChoice::Auto),
        (json!("none"), ToolChoice::None),
        (json!("required"), ToolChoice::Required),
        (json!({"type": "function", "function": {"name": "f"}}), ToolChoice::Named("f".to_owned())),
    ] {
        app.chat(ask(json!({"tools": [tool], "tool_choice": choice}))).await.ok();
        let request = app.model.requests().pop().unwrap();
        assert_eq!(request.tool_choice, want);
        let [got] = &request.tools[..] else { panic!("{:?}", request.tools) };
        assert_eq!((got.name.as_str(), got.description.as_deref()), ("f", Some("d")));
        assert_eq!(got.parameters.as_ref(), Some(&schema));
    }
    let strict = json!({"type": "function", "function": {"name": "f", "parameters": schema, "strict": true}});
    for (fields, want) in [
        (json!({"tools": [tool]}), (false, true)),
        (json!({"tools": [strict], "tool_choice": "required", "parallel_tool_calls": true}), (true, true)),
        (json!({"tools": [strict], "parallel_tool_calls": false}), (true, false)),
        (json!({"tools": [strict], "tool_choice": "none", "parallel_tool_calls": false}), (true, false)),
    ] {
        app.chat(ask(fields.clone())).await.ok();
        let request = app.model.requests().pop().unwrap();
        assert_eq!((request.tools[0].strict, request.parallel_tool_calls), want, "{fields}");
    }
}

#[tokio::test]
async fn hostile_sizes_are_refused_quickly() {
    let app = App::answering("x").await;
    let begin = std::time::Instant::now();
    let tool = |name: usize| json!({"type": "function", "function": {"name": format!("f{name}")}});
    let tools = json!({"tools": (0..10_000).map(tool).collect::<Vec<_>>()});
    let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    let raw = |field: &str, value: &str| {
        format!(
            r#"{{"model": "chat", "messages": [{{"role": "user", "content": "a"}}], "{field}": {value}}}"#
        )
    };
    let parameters = |schema: &str| {
        raw(
            "tools",
            &format!(r#"[{{"type": "function", "function": {{"name": "f", "parameters": {schema}}}}}]"#),
        )
    };
    let wide = format!(r#"{{"enum": [{}0]}}"#, "0,".repeat(2_000_000));
    let biases: Vec<String> = (0..100_000).map(|id| format!(r#""{id}": 1"#)).collect();
    for (body, field) in [
        (ask(tools).to_string(), "tools"),
        (parameters(&format!(r#"{{"a": {}}}"#, deep(70))), "tools[0].function.parameters"),
        (parameters(&format!(r#"{{"a": {}}}"#, deep(1_000_000))), ""),
        (parameters(&wide), "tools[0].function.parameters"),
        (raw("guided_json", &wide), "guided_json"),
        (raw("guided_json", &format!(r#"{{"a": "{}"}}"#, "x".repeat(300_000))), "guided_json"),
        (raw("guided_regex", &format!(r#""{}""#, "a".repeat(100_000))), "guided_regex"),
        (raw("guided_choice", &format!("[{}\"a\"]", "\"a\",".repeat(10_000))), "guided_choice"),
        (raw("logit_bias", &format!("{{{}}}", biases.join(","))), "logit_bias"),
        (raw("n", "1000000"), "n"),
        (raw("best_of", "1000000"), "best_of"),
    ] {
        let (status, param, _, message) = app.chat(&body).await.error();
        assert_eq!(status, 400, "{field}: {message}");
        assert!(message.len() < 1000, "{message}");
        assert!(param.unwrap_or_default().starts_with(field), "{field}: {message}");
    }
    assert!(app.model.requests().is_empty());
    assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
}
