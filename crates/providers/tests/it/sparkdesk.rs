//! `saas/sparkdesk`.

use byzerllm_core::{ChatRequest, ErrorKind, ResponseFormat, Tool};
use byzerllm_providers::Framing;
use serde_json::{Value, json};

use crate::translation::{check, open, refused, request, write};

fn with(more: Value) -> Value {
    let mut given = json!({"appid": "12345", "api_key": "key", "api_secret": "secret"});
    given.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    given
}

#[test]
fn it_is_what_its_documents_say() {
    check("sparkdesk", 40);
}

#[test]
fn what_it_does_not_take_is_refused_by_name() {
    let dialect = open("sparkdesk", &with(json!({}))).unwrap();
    let no = |name: &str, change: &dyn Fn(&mut ChatRequest)| {
        refused(dialect.as_ref(), ErrorKind::Unsupported, name, change);
    };
    no("top_p", &|r| r.sampling.top_p = Some(0.5));
    no("stop", &|r| r.sampling.stop = Some(vec!["a".to_owned()]));
    no("seed", &|r| r.sampling.seed = Some(1));
    no("presence_penalty", &|r| r.sampling.presence_penalty = Some(1.0));
    no("n", &|r| r.n = 2);
    no("response_format", &|r| r.format = ResponseFormat::JsonObject);
    refused(dialect.as_ref(), ErrorKind::InvalidRequest, "top_k", |r| r.sampling.top_k = Some(7));
    refused(dialect.as_ref(), ErrorKind::InvalidRequest, "temperature", |r| {
        r.sampling.temperature = Some(0.0);
    });
    let old = open("sparkdesk", &with(json!({"domain": "generalv2"}))).unwrap();
    refused(old.as_ref(), ErrorKind::Unsupported, "tools", |r| {
        r.tools = vec![Tool { name: "f".to_owned(), description: None, parameters: None, strict: false }];
    });
    assert!(!old.features().tools && dialect.features().tools);
}

/// Computed with Python's `hmac`, `hashlib` and `urllib.parse.urlencode` from the four values below.
const SIGNED: &str = concat!(
    "wss://spark-api.xf-yun.com/v1.1/chat?authorization=YXBpX2tleT0iYWRkZDIyNzJiNmQ4YjdjOGFiZGQ3OTUzMTQyM",
    "GNhM2IiLCBhbGdvcml0aG09ImhtYWMtc2hhMjU2IiwgaGVhZGVycz0iaG9zdCBkYXRlIHJlcXVlc3QtbGluZSIsIHNpZ25hdHVyZ",
    "T0iejVnSGR1M3B4VlY0QURNeWs0Njd3T1dEUTlxNkJRelIzbmZNVGpjL0RhUT0i&date=Fri%2C+05+May+2023+10%3A43%3A39",
    "+GMT&host=spark-api.xf-yun.com",
);

#[test]
fn the_address_is_signed() {
    let given = json!({
        "appid": "12345",
        "api_key": "addd2272b6d8b7c8abdd79531420ca3b",
        "api_secret": "MjlmNzkzNmZkMDQ2OTc0ZDdmNGE2ZTZi",
        "gpt_url": "wss://spark-api.xf-yun.com/v1.1/chat",
    });
    let outbound = write(open("sparkdesk", &given).unwrap().as_ref(), &request()).unwrap();
    assert_eq!(outbound.url.as_str(), SIGNED);
    assert_eq!((outbound.framing, outbound.method), (Framing::WebSocket, http::Method::GET));
}

#[test]
fn a_port_is_part_of_the_signed_host() {
    let outbound = write(
        open("sparkdesk", &with(json!({"base_url": "http://127.0.0.1:9000", "domain": "4.0Ultra"})))
            .unwrap()
            .as_ref(),
        &request(),
    )
    .unwrap();
    assert!(
        outbound.url.as_str().starts_with("ws://127.0.0.1:9000/v4.0/chat?authorization="),
        "{}",
        outbound.url
    );
    assert!(outbound.url.query().unwrap().ends_with("host=127.0.0.1%3A9000"), "{}", outbound.url);
}

#[test]
fn address_and_domain_say_each_other() {
    let domain = |more| {
        let dialect = open("sparkdesk", &with(more))?;
        let outbound = write(dialect.as_ref(), &request())?;
        let body: Value = serde_json::from_slice(&outbound.body).unwrap();
        let domain = body["parameter"]["chat"]["domain"].as_str().unwrap().to_owned();
        assert_eq!(dialect.model(), domain);
        assert!(matches!(outbound.url.scheme(), "ws" | "wss"));
        Ok::<_, byzerllm_core::Error>((outbound.url.path().to_owned(), domain))
    };
    let pairs = [
        ("/v1.1/chat", "general"),
        ("/v2.1/chat", "generalv2"),
        ("/v3.1/chat", "generalv3"),
        ("/v3.5/chat", "generalv3.5"),
        ("/v4.0/chat", "4.0Ultra"),
        ("/chat/pro-128k", "pro-128k"),
        ("/chat/max-32k", "max-32k"),
    ];
    for (path, name) in pairs {
        let both = (path.to_owned(), name.to_owned());
        let url = format!("wss://spark-api.xf-yun.com{path}");
        assert_eq!(domain(json!({"gpt_url": url})).unwrap(), both);
        assert_eq!(domain(json!({"domain": name})).unwrap(), both);
        assert_eq!(domain(json!({"gpt_url": url, "domain": name})).unwrap(), both);
    }
    assert_eq!(domain(json!({})).unwrap(), ("/v3.1/chat".to_owned(), "generalv3".to_owned()));
    assert_eq!(domain(json!({"model": "lite"})).unwrap(), ("/v1.1/chat".to_owned(), "lite".to_owned()));
    let fails = |more| domain(more).unwrap_err();
    let error = fails(json!({"gpt_url": "wss://spark-api.xf-yun.com/v3.1/chat", "domain": "generalv2"}));
    assert_eq!(error.param(), Some("saas.domain"));
    assert!(error.message().contains("its domain is generalv3;"), "{error}");
    assert_eq!(fails(json!({"gpt_url": "wss://h/other"})).param(), Some("saas.domain"));
    assert_eq!(fails(json!({"domain": "no-such"})).param(), Some("saas.domain"));
    let both = ("/v3.1/chat".to_owned(), "generalv3".to_owned());
    assert_eq!(domain(json!({"gpt_url": "https://spark-api.xf-yun.com/v3.1/chat"})).unwrap(), both);
}
