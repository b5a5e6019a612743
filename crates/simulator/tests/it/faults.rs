//! Faults as a client meets them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use byzerllm_simulator::{Ending, Fault, Options, RetryAfter, Simulator, TAIL};
use serde_json::{Value, json};

use crate::harness::{Came, post, send, start};

fn ask(vendor: &Simulator, stream: bool) -> Came {
    let body =
        json!({"model": "gpt-4o", "stream": stream, "messages": [{"role": "user", "content": "hello"}]});
    post(vendor, "/chat/completions", &body)
}

fn text(came: &Came) -> String {
    came.events()
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect()
}

#[test]
fn a_harmless_fault_loses_nothing() {
    let vendor = start("openai");
    for fault in Fault::all().into_iter().filter(Fault::is_harmless) {
        for stream in [true, false] {
            vendor.fault(fault);
            let came = ask(&vendor, stream);
            assert!(came.complete, "{fault}");
            let text = if stream {
                text(&came)
            } else {
                came.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
            };
            assert_eq!(text, format!("hello{TAIL}"), "{fault}");
            assert_eq!(vendor.bill().last().unwrap().ending, Ending::Answered, "{fault}");
        }
    }
}

#[test]
fn a_refusal_is_not_billed_and_a_broken_answer_is() {
    let vendor = start("openai");
    let silent = |fault: &Fault| matches!(fault, Fault::Stall | Fault::StallBefore | Fault::Oversized(_));
    for fault in Fault::all().into_iter().filter(|fault| !fault.is_harmless() && !silent(fault)) {
        for stream in [true, false] {
            vendor.clear();
            vendor.fault(fault);
            let came = ask(&vendor, stream);
            assert_eq!(vendor.bill().len(), usize::from(!fault.refuses()), "{fault}");
            let whole = came.complete && came.status == 200 && came.text_if_whole() == format!("hello{TAIL}");
            assert!(!whole, "{fault} did no harm");
            if let Some(line) = vendor.bill().first() {
                assert_eq!(line.ending, Ending::Broken, "{fault}");
            }
        }
    }
}

impl Came {
    fn text_if_whole(&self) -> String {
        let Ok(body) = String::from_utf8(self.body.clone()) else { return String::new() };
        match serde_json::from_str::<Value>(&body) {
            Ok(json) => json["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned(),
            Err(_) => text(self),
        }
    }
}

#[test]
fn when_to_come_again_is_said_in_both_forms() {
    let vendor = start("openai");
    vendor.fault(Fault::Status(429, RetryAfter::Seconds(7)));
    assert_eq!(ask(&vendor, false).field("retry-after").unwrap(), "7");
    vendor.fault(Fault::Status(503, RetryAfter::Date(5)));
    assert!(ask(&vendor, false).field("retry-after").unwrap().ends_with(" GMT"));
    vendor.fault(Fault::Status(429, RetryAfter::Unsaid));
    let came = ask(&vendor, false);
    assert_eq!((came.status, came.field("retry-after")), (429, None));
    assert_eq!(came.json()["error"]["code"], "rate_limit_exceeded");
}

#[test]
fn usage_can_be_absent_or_zero() {
    let vendor = start("openai");
    vendor.fault(Fault::NoUsage);
    assert!(ask(&vendor, false).json().get("usage").is_none());
    vendor.fault(Fault::ZeroUsage);
    assert_eq!(ask(&vendor, false).json()["usage"]["total_tokens"], 0);
    assert!(vendor.bill().iter().all(|line| line.tokens.total() > 0));
}

#[test]
fn an_oversized_event_is_as_large_as_asked() {
    let vendor = start("openai");
    vendor.fault(Fault::Oversized(100_000));
    let came = ask(&vendor, true);
    assert!(came.complete && came.body.len() > 100_000);
    assert_eq!(text(&came), format!("hello{TAIL}"));
}

#[test]
fn a_redirect_names_another_origin() {
    let vendor = start("openai");
    vendor.fault(Fault::Redirect);
    let came = ask(&vendor, false);
    let location = came.field("location").unwrap();
    assert_eq!(came.status, 307);
    assert!(
        location.starts_with("http://127.0.0.1:") && !location.starts_with(vendor.origin()),
        "{location}"
    );
    assert!(vendor.elsewhere().is_empty());
}

#[test]
fn a_client_that_leaves_is_billed() {
    let options = Options { pace: Duration::from_millis(30), ..Options::default() };
    let vendor = Simulator::start("openai", options).unwrap();
    let host = vendor.origin().strip_prefix("http://").unwrap();
    let body = json!({"model": "gpt-4o", "stream": true, "messages": [{"role": "user", "content": "hello"}]})
        .to_string();
    let mut stream = TcpStream::connect(host).unwrap();
    let key = &vendor.credentials().api_key;
    let length = body.len();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream.read_exact(&mut [0; 40]).unwrap();
    drop(stream);
    while vendor.bill()[0].ending == Ending::Open {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(vendor.bill()[0].ending, Ending::Dropped);
    assert!(vendor.bill()[0].tokens.completion > 0);
}

#[test]
fn faults_and_scripts_come_over_http_too() {
    let vendor = start("openai");
    let set = |path: &str, body: Value| send(&vendor, "POST", path, &[], &body.to_string());
    assert_eq!(set("/simulator/fault", json!({"fault": "500", "times": 2})).status, 200);
    assert_eq!(
        [ask(&vendor, false).status, ask(&vendor, false).status, ask(&vendor, false).status],
        [500, 500, 200]
    );
    assert_eq!(set("/simulator/fault", json!({"fault": "tired"})).status, 400);
    assert_eq!(set("/simulator/script", json!({"text": ["so be it"]})).status, 200);
    assert_eq!(ask(&vendor, false).json()["choices"][0]["message"]["content"], "so be it");
    let bill = send(&vendor, "GET", "/simulator/bill", &[], "").json();
    assert_eq!(bill, json!(vendor.bill()));
    let requests = send(&vendor, "GET", "/simulator/requests", &[], "").json();
    assert_eq!(requests.as_array().unwrap().len(), 4);
    assert_eq!(send(&vendor, "DELETE", "/simulator/bill", &[], "").status, 200);
    assert!(vendor.bill().is_empty());
}

#[test]
fn a_request_may_bring_its_own_fault() {
    let vendor = start("openai");
    let bearer = format!("Bearer {}", vendor.credentials().api_key);
    let fields = [("authorization", bearer.as_str()), ("x-simulator-fault", "web-page")];
    let body = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}).to_string();
    let came = send(&vendor, "POST", "/chat/completions", &fields, &body);
    assert!(came.text().starts_with("<html>"));
}
