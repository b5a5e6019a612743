//! What only one vendor has: its credentials, its errors, its roles.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use byzerllm_simulator::{Simulator, TAIL};
use ring::hmac;
use serde_json::{Value, json};

use crate::harness::{post, send, start};

#[test]
fn qianfan_gives_a_token_for_key_and_secret_and_takes_no_other() {
    let vendor = start("qianfan");
    let token = |key: &str, secret: &str| {
        let path =
            format!("/oauth/2.0/token?grant_type=client_credentials&client_id={key}&client_secret={secret}");
        send(&vendor, "POST", &path, &[], "")
    };
    let (key, secret) = (&vendor.credentials().api_key, &vendor.credentials().secret);
    assert_eq!(token("nobody", secret).json()["error_description"], "unknown client id");
    let wrong = token(key, "wrong");
    assert_eq!((wrong.status, wrong.json()["error"].as_str()), (401, Some("invalid_client")));
    let token = token(key, secret).json()["access_token"].as_str().unwrap().to_owned();
    let ask = |token: &str, messages: Value| {
        let path = format!("/rpc/2.0/ai_custom/v1/wenxinworkshop/chat/completions?access_token={token}");
        send(&vendor, "POST", &path, &[], &json!({"messages": messages}).to_string()).json()
    };
    let hello = json!([{"role": "user", "content": "hello"}]);
    assert_eq!(ask(&token, hello.clone())["result"], format!("hello{TAIL}"));
    assert_eq!(ask("24.other", hello)["error_code"], 110);
    let even = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]);
    assert_eq!(ask(&token, even)["error_code"], 336_003);
    assert_eq!(vendor.bill().len(), 1);
}

#[test]
fn dashscope_sends_the_whole_text_so_far_unless_pieces_are_asked_for() {
    let vendor = start("qianwen");
    let bearer = format!("Bearer {}", vendor.credentials().api_key);
    let fields = [("authorization", bearer.as_str()), ("x-dashscope-sse", "enable")];
    let ask = |incremental: bool| {
        let parameters = json!({"result_format": "message", "incremental_output": incremental});
        let messages = json!([{"role": "user", "content": "hello"}]);
        let body = json!({"model": "qwen-plus", "input": {"messages": messages}, "parameters": parameters});
        let came =
            send(&vendor, "POST", "/services/aigc/text-generation/generation", &fields, &body.to_string());
        let content =
            |event: &Value| event["output"]["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
        came.events().iter().map(content).collect::<Vec<_>>()
    };
    let (whole, pieces) = (ask(false), ask(true));
    assert_eq!(whole.last(), Some(&format!("hello{TAIL}")));
    assert!(whole.windows(2).all(|pair| pair[1].starts_with(&pair[0])));
    assert_eq!(pieces.concat(), format!("hello{TAIL}"));
}

#[test]
fn minimax_refuses_with_status_200_and_wants_its_group() {
    let vendor = start("minimax");
    let body = json!({
        "model": "abab6.5s-chat", "messages": [{"sender_type": "USER", "sender_name": "U", "text": "hello"}],
        "bot_setting": [{"bot_name": "B", "content": "You help."}],
        "reply_constraints": {"sender_type": "BOT", "sender_name": "B"},
    });
    let group = &vendor.credentials().app_id;
    let answer = post(&vendor, &format!("/text/chatcompletion_pro?GroupId={group}"), &body).json();
    assert_eq!(
        (answer["reply"].as_str(), answer["base_resp"]["status_code"].as_u64()),
        (Some(&*format!("hello{TAIL}")), Some(0))
    );
    let without = post(&vendor, "/text/chatcompletion_pro", &body);
    assert_eq!((without.status, without.json()["base_resp"]["status_code"].as_u64()), (200, Some(2049)));
    let mut other = body;
    other["reply_constraints"]["sender_name"] = "C".into();
    let refused = post(&vendor, &format!("/text/chatcompletion_pro?GroupId={group}"), &other).json();
    assert_eq!(refused["base_resp"]["status_code"], 2013);
}

#[test]
fn claude_wants_a_version_a_limit_and_the_user_first() {
    let vendor = start("claude");
    let key = vendor.credentials().api_key.clone();
    let good = json!({"model": "claude-3-5-haiku-20241022", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]});
    let ask = |body: &Value, version: bool| {
        let mut fields = vec![("x-api-key", key.as_str())];
        if version {
            fields.push(("anthropic-version", "2023-06-01"));
        }
        send(&vendor, "POST", "/v1/messages", &fields, &body.to_string())
    };
    assert_eq!(ask(&good, true).status, 200);
    assert_eq!(ask(&good, false).status, 400);
    for (name, value) in [
        ("max_tokens", Value::Null),
        ("foo", 1.into()),
        ("messages", json!([{"role": "assistant", "content": "x"}])),
    ] {
        let mut bad = good.clone();
        bad[name] = value;
        let came = ask(&bad, true);
        assert_eq!(
            (came.status, came.json()["error"]["type"].as_str()),
            (400, Some("invalid_request_error")),
            "{name}"
        );
        assert_eq!(came.json()["request_id"].as_str(), came.field("request-id").as_deref());
    }
}

#[test]
fn gemini_streams_events_or_a_list() {
    let vendor = start("gemini");
    let key = vendor.credentials().api_key.clone();
    let body = json!({"contents": [{"parts": [{"text": "hi"}]}]}).to_string();
    let ask = |path: &str| send(&vendor, "POST", path, &[("x-goog-api-key", &key)], &body);
    let events = ask("/models/gemini-2.5-flash:streamGenerateContent?alt=sse").events();
    let list = ask("/models/gemini-2.5-flash:streamGenerateContent").json();
    assert_eq!(events.len(), list.as_array().unwrap().len());
    assert_eq!(ask("/models/gpt-4o:generateContent").json()["error"]["status"], "NOT_FOUND");
    let denied = send(&vendor, "POST", "/models/gemini-2.5-flash:generateContent?key=x", &[], &body);
    assert_eq!(denied.json()["error"]["details"][0]["reason"], "API_KEY_INVALID");
}

/// The handshake of Spark, signed as the vendor documents it, and its status.
fn handshake(vendor: &Simulator, secret: &str, ago: Duration, host_signed: Option<&str>) -> u16 {
    let host = vendor.origin().strip_prefix("ws://").unwrap();
    let signed = host_signed.unwrap_or(host);
    let date = httpdate::fmt_http_date(SystemTime::now() - ago);
    let text = format!("host: {signed}\ndate: {date}\nGET /v3.5/chat HTTP/1.1");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = STANDARD.encode(hmac::sign(&key, text.as_bytes()));
    let api_key = &vendor.credentials().api_key;
    let authorization = STANDARD.encode(format!(
        "api_key=\"{api_key}\", algorithm=\"hmac-sha256\", headers=\"host date request-line\", signature=\"{signature}\""
    ));
    let escaped = |text: &str| text.replace('+', "%2B").replace(' ', "%20").replace('=', "%3D");
    let query = format!("authorization={}&date={}&host={signed}", escaped(&authorization), escaped(&date));
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let fields = "upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
    write!(stream, "GET /v3.5/chat?{query} HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n\r\n").unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    std::str::from_utf8(&start).unwrap().split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn spark_checks_signature_host_and_date() {
    let vendor = start("sparkdesk");
    let secret = vendor.credentials().secret.clone();
    let now = Duration::ZERO;
    assert_eq!(handshake(&vendor, &secret, now, None), 101);
    assert_eq!(handshake(&vendor, "wrong", now, None), 401);
    assert_eq!(handshake(&vendor, &secret, now, Some("spark-api.xf-yun.com")), 401);
    assert_eq!(handshake(&vendor, &secret, Duration::from_secs(290), None), 101);
    assert_eq!(handshake(&vendor, &secret, Duration::from_secs(310), None), 403);
}

#[test]
fn a_vendor_that_there_is_not_is_named_with_the_nearest() {
    let error = Simulator::start("claud", byzerllm_simulator::Options::default()).unwrap_err();
    assert!(error.message().contains("did you mean 'claude'"), "{error}");
    for vendor in byzerllm_simulator::VENDORS {
        assert_eq!(start(vendor).vendor(), *vendor);
    }
}
