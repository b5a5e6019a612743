//! Every API of the gateway over simulated vendors, whose protocols are nothing like it.

use axum::body::Body;
use axum::http::Method;
use byzerllm_core::testing::ScriptedModel;
use byzerllm_runtime::DeploymentSpec;
use byzerllm_simulator::{Options, Simulator, TAIL};
use serde_json::{Value, json};

use crate::support::{Answer, App, request};

/// A gateway with the deployment `m` of a simulated vendor.
async fn world(name: &str, more: &[(&str, &str)]) -> (Simulator, App) {
    let vendor = Simulator::start(name, Options::default()).unwrap();
    let app = App::with(ScriptedModel::new("")).await;
    let mut spec = DeploymentSpec::of_provider("m", format!("saas/{name}"));
    let own = vendor.parameters();
    let own = own.iter().map(|(key, value)| (*key, value.as_str()));
    for (key, value) in own.chain(more.iter().copied()) {
        spec.set(&format!("saas.{key}"), value).unwrap();
    }
    app.runtime.deploy(spec).await.unwrap();
    (vendor, app)
}

/// The prompt and completion tokens of the last line on the bill.
fn billed(vendor: &Simulator) -> (u64, u64) {
    let bill = vendor.bill();
    let tokens = bill.last().unwrap().tokens;
    (tokens.prompt, tokens.completion)
}

fn tokens(usage: &Value, prompt: &str, completion: &str) -> (u64, u64) {
    (usage[prompt].as_u64().unwrap(), usage[completion].as_u64().unwrap())
}

/// The JSON of every `data:` line but OpenAI's mark of the end.
fn events(answer: &Answer) -> Vec<Value> {
    let data = answer.data();
    data.iter().filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
}

fn joined(events: &[Value], pointer: &str) -> String {
    events.iter().filter_map(|event| event.pointer(pointer)?.as_str()).collect()
}

fn merge(mut body: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        body[name.as_str()] = value.clone();
    }
    body
}

const VENDORS: [&str; 8] =
    ["openai", "zhipu", "qianwen", "minimax", "qianfan", "sparkdesk", "claude", "gemini"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_api_tells_what_every_vendor_says_and_bills() {
    for name in VENDORS {
        let (vendor, app) = world(name, &[]).await;
        let text = format!("hello{TAIL}");
        let messages = json!([{"role": "user", "content": "hello"}]);
        let chat = json!({"model": "m", "messages": messages, "max_tokens": 500});
        let streamed = json!({"stream": true, "stream_options": {"include_usage": true}});

        let whole = app.chat(&chat).await.ok();
        assert_eq!(whole["choices"][0]["message"]["content"], text, "{name}");
        assert_eq!(whole["choices"][0]["finish_reason"], "stop", "{name}");
        let openai = |usage: &Value| tokens(usage, "prompt_tokens", "completion_tokens");
        assert_eq!(openai(&whole["usage"]), billed(&vendor), "{name}");
        let pieces = events(&app.chat(merge(chat.clone(), &streamed)).await);
        assert_eq!(joined(&pieces, "/choices/0/delta/content"), text, "{name}");
        assert!(pieces.len() > 4, "{name}: {pieces:?}");
        assert_eq!(openai(&pieces.last().unwrap()["usage"]), billed(&vendor), "{name}");

        let complete = json!({"model": "m", "prompt": "hello", "max_tokens": 500});
        let whole = app.complete(&complete).await.ok();
        assert_eq!(whole["choices"][0]["text"], text, "{name}");
        assert_eq!(openai(&whole["usage"]), billed(&vendor), "{name}");
        let pieces = events(&app.complete(merge(complete, &streamed)).await);
        assert_eq!(joined(&pieces, "/choices/0/text"), text, "{name}");
        assert_eq!(openai(&pieces.last().unwrap()["usage"]), billed(&vendor), "{name}");

        let anthropic = |usage: &Value| tokens(usage, "input_tokens", "output_tokens");
        let whole = app.post("/v1/messages", &chat).await.ok();
        assert_eq!(whole["content"], json!([{"type": "text", "text": text}]), "{name}");
        assert_eq!(whole["stop_reason"], "end_turn", "{name}");
        assert_eq!(anthropic(&whole["usage"]), billed(&vendor), "{name}");
        let pieces = events(&app.post("/v1/messages", merge(chat, &json!({"stream": true}))).await);
        assert_eq!(joined(&pieces, "/delta/text"), text, "{name}");
        let end = pieces.iter().find(|event| event["type"] == "message_delta").unwrap();
        assert_eq!(anthropic(&end["usage"]), billed(&vendor), "{name}");

        let respond = json!({"model": "m", "input": "hello", "max_output_tokens": 500});
        let whole = app.post("/v1/responses", &respond).await.ok();
        assert_eq!(whole["output"][0]["content"][0]["text"], text, "{name}");
        assert_eq!(anthropic(&whole["usage"]), billed(&vendor), "{name}");
        let pieces = events(&app.post("/v1/responses", merge(respond, &json!({"stream": true}))).await);
        let told: Vec<Value> =
            pieces.iter().filter(|event| event["type"] == "response.output_text.delta").cloned().collect();
        assert_eq!(joined(&told, "/delta"), text, "{name}");
        let end = &pieces.last().unwrap()["response"];
        assert_eq!(
            (&end["status"], anthropic(&end["usage"])),
            (&json!("completed"), billed(&vendor)),
            "{name}"
        );
        assert_eq!(vendor.bill().len(), 8, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embeddings_of_every_vendor_are_openais() {
    for (name, model) in [
        ("openai", ("model", "text-embedding-3-small")),
        ("zhipu", ("model", "embedding-2")),
        ("qianwen", ("model", "text-embedding-v2")),
        ("minimax", ("model", "embo-01")),
        ("qianfan", ("model", "Embedding-V1")),
        ("gemini", ("model", "gemini-embedding-001")),
    ] {
        let (vendor, app) = world(name, &[model]).await;
        let body = json!({"model": "m", "input": ["one", "two"]});
        let answer = app.post("/v1/embeddings", &body).await.ok();
        let lengths: Vec<f64> = answer["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap().powi(2)).sum())
            .collect();
        assert!(lengths.len() == 2 && lengths.iter().all(|length| (length - 1.0).abs() < 1e-3), "{name}");
        assert_ne!(answer["data"][0]["embedding"], answer["data"][1]["embedding"], "{name}");
        assert_eq!(vendor.bill().len(), 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stop_string_that_ended_an_answer_is_told() {
    let (_vendor, app) = world("claude", &[]).await;
    let messages = json!([{"role": "user", "content": "one two three"}]);
    let body =
        json!({"model": "m", "messages": messages, "max_tokens": 500, "stop_sequences": ["four", "two"]});
    let whole = app.post("/v1/messages", &body).await.ok();
    assert_eq!((&whole["stop_reason"], &whole["stop_sequence"]), (&json!("stop_sequence"), &json!("two")));
    let told = events(&app.post("/v1/messages", merge(body, &json!({"stream": true}))).await);
    let end = told.iter().find(|event| event["type"] == "message_delta").unwrap();
    assert_eq!(end["delta"], json!({"stop_reason": "stop_sequence", "stop_sequence": "two"}));
    let body = json!({"model": "m", "messages": messages, "max_tokens": 500, "stop": ["four", "two"]});
    let whole = app.chat(&body).await.ok();
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
    assert_eq!(whole["choices"][0]["stop_reason"], "two");
    let told = events(&app.chat(merge(body, &json!({"stream": true}))).await);
    assert_eq!(told.last().unwrap()["choices"][0]["stop_reason"], "two");
}

/// Sends a body with a vendor's own parameters, which the document of our API leaves out.
async fn post(app: &App, path: &str, body: &Value) -> Answer {
    app.send(request(Method::POST, path, Body::from(body.to_string()))).await
}

fn asked(more: &str) -> Value {
    json!([{"role": "user", "content": format!("call the tool{more}")}])
}

fn extended(messages: &Value, more: Vec<Value>) -> Value {
    let mut all = messages.clone();
    all.as_array_mut().unwrap().extend(more);
    all
}

fn thinking() -> Value {
    json!({"model": "m", "max_tokens": 4000, "thinking": {"type": "enabled", "budget_tokens": 1024}})
}

/// The content of a streamed message, put together as Anthropic's clients do.
fn content(told: &[Value]) -> Vec<Value> {
    let mut blocks: Vec<Value> = Vec::new();
    for event in told {
        match event["type"].as_str().unwrap() {
            "content_block_start" => blocks.push(event["content_block"].clone()),
            "content_block_delta" => {
                let block = blocks.last_mut().unwrap();
                let (from, to) = match event["delta"]["type"].as_str().unwrap() {
                    "text_delta" => ("text", "text"),
                    "thinking_delta" => ("thinking", "thinking"),
                    "signature_delta" => ("signature", "signature"),
                    _ => ("partial_json", "json"),
                };
                let more = event["delta"][from].as_str().unwrap();
                block[to] = format!("{}{more}", block[to].as_str().unwrap_or_default()).into();
            }
            _ => {}
        }
    }
    for block in &mut blocks {
        if let Some(json) = block.as_object_mut().unwrap().remove("json") {
            block["input"] = serde_json::from_str(json.as_str().unwrap()).unwrap();
        }
    }
    blocks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signed_thoughts_go_round_through_messages() {
    let (_vendor, app) = world("claude", &[]).await;
    let tools = json!([{"name": "f", "input_schema": {"type": "object"}}]);
    for (more, kinds) in [
        ("", &["thinking", "tool_use"][..]),
        ("; hide your thoughts", &["redacted_thinking", "thinking", "tool_use"]),
    ] {
        let body = merge(thinking(), &json!({"messages": asked(more), "tools": tools}));
        let whole = post(&app, "/v1/messages", &body).await.ok()["content"].clone();
        let streamed =
            events(&post(&app, "/v1/messages", &merge(body.clone(), &json!({"stream": true}))).await);
        for mut blocks in [whole.as_array().unwrap().clone(), content(&streamed)] {
            let found: Vec<&str> = blocks.iter().map(|block| block["type"].as_str().unwrap()).collect();
            assert_eq!(found, kinds);
            let id = blocks.last().unwrap()["id"].clone();
            let result = json!({"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": id, "content": "42"}
            ]});
            let next = |blocks: &[Value]| {
                let turn = json!({"role": "assistant", "content": blocks});
                merge(body.clone(), &json!({"messages": extended(&asked(more), vec![turn, result.clone()])}))
            };
            let answer = post(&app, "/v1/messages", &next(&blocks)).await.ok();
            let last = answer["content"].as_array().unwrap().last().unwrap();
            assert_eq!(last["text"], format!("The tool said: 42{TAIL}"));
            // What the vendor checks arrives there: a thought of one's own is none.
            let thought = blocks.iter_mut().find(|block| block["type"] == "thinking").unwrap();
            thought["thinking"] = "another thought".into();
            let refused = post(&app, "/v1/messages", &next(&blocks)).await;
            assert!(refused.status == 400 && refused.text.contains("signature"), "{}", refused.text);
        }
    }
}

/// The message of a streamed chat completion.
fn message(told: &[Value]) -> Value {
    let list = |pointer: &str| -> Vec<Value> {
        let found = told.iter().filter_map(|chunk| chunk.pointer(pointer)?.as_array());
        found.flatten().cloned().collect()
    };
    let deltas = list("/choices/0/delta/tool_calls");
    let mut call = deltas[0].clone();
    call["function"]["arguments"] = deltas
        .iter()
        .map(|delta| delta["function"]["arguments"].as_str().unwrap())
        .collect::<String>()
        .into();
    call.as_object_mut().unwrap().remove("index");
    json!({
        "role": "assistant",
        "content": joined(told, "/choices/0/delta/content"),
        "reasoning_content": joined(told, "/choices/0/delta/reasoning_content"),
        "thinking_blocks": list("/choices/0/delta/thinking_blocks"),
        "tool_calls": [call],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signed_thoughts_go_round_through_chat_completions() {
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    for (name, more, extra, result) in [
        ("claude", &[][..], thinking(), "42"),
        // Its results of calls are objects.
        ("gemini", &[("model", "gemini-3-pro-preview")], json!({"model": "m"}), r#"{"result":"42"}"#),
    ] {
        let (vendor, app) = world(name, more).await;
        let messages = asked("; hide your thoughts");
        let told = format!("The tool said: {result}{TAIL}");
        let body = merge(extra, &json!({"messages": messages, "tools": tools}));
        let whole = post(&app, "/v1/chat/completions", &body).await.ok()["choices"][0]["message"].clone();
        let streamed = message(&events(
            &post(&app, "/v1/chat/completions", &merge(body.clone(), &json!({"stream": true}))).await,
        ));
        for turn in [whole, streamed] {
            let blocks = turn["thinking_blocks"].as_array().map_or(0, Vec::len);
            assert_eq!(blocks, if name == "claude" { 2 } else { 0 }, "{name}: {turn}");
            let result =
                json!({"role": "tool", "tool_call_id": turn["tool_calls"][0]["id"], "content": "42"});
            let next = merge(body.clone(), &json!({"messages": extended(&messages, vec![turn, result])}));
            let answer = post(&app, "/v1/chat/completions", &next).await.ok();
            assert_eq!(answer["choices"][0]["message"]["content"], told, "{name}");
            let sent = vendor.requests().pop().unwrap().body;
            let signed = if name == "claude" { "\"signature\"" } else { "\"thoughtSignature\"" };
            assert!(sent.contains(signed) && !sent.contains("skip_thought_signature"), "{name}: {sent}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signed_thoughts_go_round_through_responses() {
    let (_vendor, app) = world("claude", &[]).await;
    let mut body = thinking();
    body.as_object_mut().unwrap().remove("max_tokens");
    let input = asked("; hide your thoughts");
    let more = json!({
        "input": input, "max_output_tokens": 4000,
        "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": false}],
    });
    let body = merge(body, &more);
    let whole = post(&app, "/v1/responses", &body).await.ok()["output"].clone();
    let told = events(&post(&app, "/v1/responses", &merge(body.clone(), &json!({"stream": true}))).await);
    let streamed = told.last().unwrap()["response"]["output"].clone();
    for output in [whole, streamed] {
        let items = output.as_array().unwrap().clone();
        let kinds: Vec<&str> = items.iter().map(|item| item["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["reasoning", "reasoning", "function_call"]);
        assert!(items[..2].iter().all(|item| item["encrypted_content"].is_string()), "{output}");
        let result = json!({"type": "function_call_output", "call_id": items[2]["call_id"], "output": "42"});
        let next = extended(&extended(&input, items), vec![result]);
        let answer = post(&app, "/v1/responses", &merge(body.clone(), &json!({"input": next}))).await.ok();
        let last = answer["output"].as_array().unwrap().last().unwrap();
        assert_eq!(last["content"][0]["text"], format!("The tool said: 42{TAIL}"));
    }
}
