//! OpenAI's dialect and those who speak it.

use byzerllm_simulator::{Ending, Script, TAIL, Task, count};
use serde_json::{Value, json};

use crate::harness::{post, send, start};

const PATH: &str = "/chat/completions";

fn hello(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hello"}]})
}

/// A model and the path of each vendor that speaks the dialect with a bearer.
const SPEAKERS: [(&str, &str); 7] = [
    ("openai", "gpt-4o"),
    ("zhipu", "glm-4"),
    ("baichuan", "Baichuan2-Turbo"),
    ("deepseek", "deepseek-chat"),
    ("moonshot", "moonshot-v1-8k"),
    ("siliconflow", "Qwen/Qwen3-8B"),
    ("volcengine", "doubao-pro-32k"),
];

#[test]
fn an_answer_says_what_is_billed() {
    for (vendor, model) in SPEAKERS {
        let vendor = start(vendor);
        let came = post(&vendor, PATH, &hello(model));
        assert_eq!(came.status, 200, "{}", came.text());
        let body = came.json();
        let text = format!("hello{TAIL}");
        assert_eq!(body["choices"][0]["message"]["content"], text.as_str());
        let bill = vendor.bill();
        assert_eq!((bill.len(), bill[0].task, bill[0].ending), (1, Task::Chat, Ending::Answered));
        assert_eq!(bill[0].request_id, body["id"].as_str().unwrap());
        assert_eq!(body["usage"]["prompt_tokens"], bill[0].tokens.prompt);
        assert_eq!(body["usage"]["completion_tokens"], bill[0].tokens.completion);
        assert_eq!(bill[0].tokens.completion, count(&text));
    }
}

#[test]
fn a_stream_holds_the_same_text_and_says_what_it_cost_where_the_vendor_does() {
    for (name, model) in SPEAKERS {
        let vendor = start(name);
        let mut body = hello(model);
        body["stream"] = true.into();
        if !matches!(name, "zhipu" | "baichuan" | "moonshot" | "siliconflow") {
            body["stream_options"] = json!({"include_usage": true});
        }
        let came = post(&vendor, PATH, &body);
        assert!(came.complete && came.text().ends_with("data: [DONE]\n\n"), "{name}");
        let events = came.events();
        let text: String =
            events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(text, format!("hello{TAIL}"), "{name}");
        let usage = events.iter().rev().find_map(|event| {
            let inside = event["choices"][0].get("usage").or_else(|| event.get("usage"));
            inside.filter(|usage| !usage.is_null())
        });
        let tokens = vendor.bill()[0].tokens;
        assert_eq!(usage.unwrap()["completion_tokens"], tokens.completion, "{name}");
        assert_eq!(usage.unwrap()["total_tokens"], tokens.total(), "{name}");
    }
}

#[test]
fn without_asking_openai_does_not_say_what_a_stream_cost() {
    let vendor = start("openai");
    let mut body = hello("gpt-4o");
    body["stream"] = true.into();
    assert!(post(&vendor, PATH, &body).events().iter().all(|event| event.get("usage").is_none()));
    assert_eq!(vendor.bill().len(), 1);
}

#[test]
fn wrong_requests_are_refused_as_documented_and_cost_nothing() {
    let vendor = start("openai");
    let with = |name: &str, value: Value| {
        let mut body = hello("gpt-4o");
        body[name] = value;
        body
    };
    let cases = [
        (with("model", "nobody".into()), 404, "model_not_found"),
        (with("temperature", 3.into()), 400, "invalid_value"),
        (with("temprature", 1.into()), 400, "invalid_value"),
        (with("messages", json!([])), 400, "invalid_value"),
        (with("messages", json!([{"role": "robot", "content": "x"}])), 400, "invalid_value"),
        (
            with("messages", json!([{"role": "tool", "tool_call_id": "c", "content": "x"}])),
            400,
            "invalid_value",
        ),
        (with("stream_options", json!({"include_usage": true})), 400, "invalid_value"),
        (with("tool_choice", "required".into()), 400, "invalid_value"),
        (json!({"model": "gpt-4o"}), 400, "missing_required_parameter"),
    ];
    for (body, status, code) in cases {
        let came = post(&vendor, PATH, &body);
        assert_eq!((came.status, came.json()["error"]["code"].as_str()), (status, Some(code)), "{body}");
        assert!(came.field("x-request-id").is_some());
    }
    let wrong = send(&vendor, "POST", PATH, &[("authorization", "Bearer x")], &hello("gpt-4o").to_string());
    assert_eq!((wrong.status, wrong.json()["error"]["code"].as_str()), (401, Some("invalid_api_key")));
    assert_eq!(send(&vendor, "POST", PATH, &[], "{}").status, 401);
    assert_eq!(post(&vendor, "/nowhere", &json!({})).status, 404);
    assert!(vendor.bill().is_empty());
}

#[test]
fn a_tool_that_must_be_called_is_called() {
    let vendor = start("openai");
    let mut body = hello("gpt-4o");
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    body["tools"] = json!([{"type": "function", "function": {"name": "weather", "parameters": schema}}]);
    body["tool_choice"] = "required".into();
    for stream in [false, true] {
        body["stream"] = stream.into();
        let came = post(&vendor, PATH, &body);
        let (name, arguments, finish) = if stream {
            let events = came.events();
            let calls = |pointer: &str| -> String {
                events
                    .iter()
                    .filter_map(|event| event.pointer(pointer)?.as_str().map(str::to_owned))
                    .collect()
            };
            let function = "/choices/0/delta/tool_calls/0/function";
            let name = calls(&format!("{function}/name"));
            (name, calls(&format!("{function}/arguments")), calls("/choices/0/finish_reason"))
        } else {
            let choice = &came.json()["choices"][0];
            let function = &choice["message"]["tool_calls"][0]["function"];
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(&function["name"]), text(&function["arguments"]), text(&choice["finish_reason"]))
        };
        assert_eq!((name.as_str(), finish.as_str()), ("weather", "tool_calls"));
        assert_eq!(serde_json::from_str::<Value>(&arguments).unwrap(), json!({"city": "北京"}));
    }
}

#[test]
fn a_script_is_followed_piece_by_piece() {
    let vendor = start("openai");
    vendor.script(Script { reasoning: vec!["hm".to_owned()], ..Script::text(["a", "", "bc"]) });
    let mut body = hello("gpt-4o");
    body["stream"] = true.into();
    let events = post(&vendor, PATH, &body).events();
    let pieces: Vec<&str> =
        events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(pieces, ["", "a", "", "bc"]);
    assert_eq!(events[1]["choices"][0]["delta"]["reasoning_content"], "hm");
    assert_eq!(vendor.bill()[0].tokens.reasoning, 1);
}

#[test]
fn vectors_come_in_both_forms() {
    let vendor = start("openai");
    let mut body = json!({"model": "text-embedding-3-small", "input": ["a", "b"], "dimensions": 8});
    let floats = post(&vendor, "/embeddings", &body).json();
    assert_eq!(floats["data"][1]["embedding"].as_array().unwrap().len(), 8);
    assert_eq!(floats["usage"]["prompt_tokens"], vendor.bill()[0].tokens.prompt);
    body["encoding_format"] = "base64".into();
    assert!(post(&vendor, "/embeddings", &body).json()["data"][0]["embedding"].is_string());
    body["input"] = "".into();
    assert_eq!(post(&vendor, "/embeddings", &body).status, 400);
}

#[test]
fn azure_wants_a_deployment_a_version_and_its_own_header() {
    let vendor = start("azure_openai");
    let key = vendor.credentials().api_key.clone();
    let path = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-06-01";
    let body = json!({"messages": [{"role": "user", "content": "hi"}], "stream": true}).to_string();
    let came = send(&vendor, "POST", path, &[("api-key", &key)], &body);
    assert_eq!(came.status, 200);
    assert_eq!(came.events()[0]["choices"], json!([]), "the first event holds what the filter found");
    let without = path.split('?').next().unwrap();
    assert_eq!(send(&vendor, "POST", without, &[("api-key", &key)], &body).status, 404);
    let unknown = path.replace("gpt-4o", "nobody");
    let came = send(&vendor, "POST", &unknown, &[("api-key", &key)], &body);
    assert_eq!(came.json()["error"]["code"], "DeploymentNotFound");
    assert_eq!(send(&vendor, "POST", path, &[], &body).json()["error"]["code"], "401");
}

#[test]
fn reasoning_comes_where_it_is_asked_for() {
    for (name, model, field) in [
        ("deepseek", "deepseek-reasoner", json!({})),
        ("zhipu", "glm-4.5", json!({"thinking": {"type": "enabled"}})),
        ("siliconflow", "Qwen/Qwen3-8B", json!({"enable_thinking": true})),
        ("volcengine", "doubao-seed", json!({"thinking": {"type": "enabled"}})),
    ] {
        let vendor = start(name);
        let mut body = hello(model);
        body.as_object_mut().unwrap().extend(field.as_object().unwrap().clone());
        let message = post(&vendor, PATH, &body).json()["choices"][0]["message"].clone();
        assert!(message["reasoning_content"].as_str().unwrap().contains("hello"), "{name}");
        let tokens = vendor.bill()[0].tokens;
        assert!(tokens.reasoning > 0 && tokens.reasoning < tokens.completion);
        assert!(post(&vendor, PATH, &hello(model.trim_end_matches("reasoner"))).json()["choices"][0]["message"]["reasoning_content"].is_null());
    }
}
