//! `saas/qianfan`.

use byzerllm_core::{ChatRequest, ErrorKind, Input, Message, ResponseFormat, Role, Tool, ToolChoice};
use serde_json::json;

use crate::translation::{check, open, refused};

#[test]
fn it_is_what_its_documents_say() {
    check("qianfan", 63);
}

fn tool() -> Tool {
    Tool { name: "f".to_owned(), description: None, parameters: None, strict: false }
}

#[test]
fn what_it_does_not_take_is_refused_by_name() {
    let with =
        |model: &str| open("qianfan", &json!({"api_key": "a", "secret_key": "b", "model": model})).unwrap();
    let dialect = with("ERNIE-3.5-8K");
    let no = |name: &str, change: &dyn Fn(&mut ChatRequest)| {
        refused(dialect.as_ref(), ErrorKind::Unsupported, name, change);
    };
    no("top_k", &|r| r.sampling.top_k = Some(4));
    no("seed", &|r| r.sampling.seed = Some(4));
    no("presence_penalty", &|r| r.sampling.presence_penalty = Some(1.0));
    no("n", &|r| r.n = 2);
    no("response_format", &|r| r.format = ResponseFormat::JsonSchema(json!({})));
    no("tool_choice", &|r| (r.tools, r.tool_choice) = (vec![tool()], ToolChoice::Required));
    let wrong = |name: &str, change: &dyn Fn(&mut ChatRequest)| {
        refused(dialect.as_ref(), ErrorKind::InvalidRequest, name, change);
    };
    wrong("temperature", &|r| r.sampling.temperature = Some(0.0));
    wrong("repetition_penalty", &|r| r.sampling.repetition_penalty = Some(3.0));
    wrong("stop", &|r| r.sampling.stop = Some(vec!["a".repeat(21)]));
    wrong("messages", &|r| r.input = Input::Messages(vec![Message::new(Role::Assistant, "a")]));
    wrong("messages", &|r| {
        r.input = Input::Messages(vec![Message::new(Role::User, "a"), Message::new(Role::Assistant, "b")]);
    });
    // Models differ.
    refused(with("ERNIE-4.0-8K").as_ref(), ErrorKind::Unsupported, "tool_choice", |r| {
        (r.tools, r.tool_choice) = (vec![tool()], ToolChoice::Named("f".to_owned()));
    });
    refused(with("ERNIE-Bot-turbo").as_ref(), ErrorKind::Unsupported, "max_tokens", |r| {
        r.sampling.max_tokens = Some(7);
    });
    refused(with("ERNIE-Speed").as_ref(), ErrorKind::Unsupported, "tools", |r| r.tools = vec![tool()]);
    assert!(!with("ERNIE-Speed").features().tools && with("ERNIE-Bot").features().tools);
}

#[test]
fn the_token_is_exchanged() {
    let dialect = open("qianfan", &json!({"api_key": "a+k", "secret_key": "s&k"})).unwrap();
    let request = dialect.token().unwrap();
    assert_eq!(
        request.outbound.url.as_str(),
        "https://aip.baidubce.com/oauth/2.0/token?grant_type=client_credentials&client_id=a%2Bk&client_secret=s%26k"
    );
    assert_eq!(request.outbound.method, http::Method::POST);
    let answer =
        json!({"refresh_token": "25.x", "expires_in": 2_592_000, "access_token": "24.y", "scope": "public"});
    let (token, seconds) = (request.read)(answer.to_string().as_bytes()).unwrap();
    assert_eq!((token.expose(), seconds), ("24.y", 2_592_000));
    let refusal = json!({"error": "invalid_client", "error_description": "Client authentication failed"});
    let error = (request.read)(refusal.to_string().as_bytes()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.message().contains("saas.secret_key"), "{error}");
    let given = open("qianfan", &json!({"access_token": "24.mine"})).unwrap();
    assert!(given.token().is_none());
}

#[test]
fn keys_must_belong_together() {
    let fails = |given, name: &str| {
        let error = open("qianfan", &given).map(|_| ()).unwrap_err();
        assert_eq!((error.kind(), error.param()), (ErrorKind::InvalidRequest, Some(name)), "{error}");
    };
    fails(json!({}), "saas.api_key");
    fails(json!({"secret_key": "s"}), "saas.api_key");
    fails(json!({"api_key": "bce-v3/x"}), "saas.model");
    fails(json!({"api_key": "bce-v3/x", "model": "m", "endpoint": "e"}), "saas.endpoint");
    fails(json!({"api_key": "a", "secret_key": "s", "model": "no-such-model"}), "saas.model");
}
