//! What vendors of OpenAI's dialect refuse: by name, before anything is sent.

use std::collections::BTreeMap;

use byzerllm_core::{
    ChatRequest, EmbeddingInput, EmbeddingRequest, ErrorKind, Input, Message, Part, ResponseFormat, Role,
    Tool, ToolChoice,
};
use byzerllm_providers::VENDORS;
use serde_json::json;

use crate::openai_fixtures::{body, open, signing};

const KEY: (&str, &str) = ("api_key", "k-123");

pub(crate) fn request() -> ChatRequest {
    ChatRequest::new("m", Input::Messages(vec![Message::new(Role::User, "hi")]))
}

/// A request that asks for one thing, by the name under which it is refused.
pub(crate) fn asking_for(name: &str) -> ChatRequest {
    let mut request = request();
    let sampling = &mut request.sampling;
    let tool = |strict| Tool { name: "f".to_owned(), description: None, parameters: None, strict };
    match name {
        "temperature" => sampling.temperature = Some(0.5),
        "top_p" => sampling.top_p = Some(0.5),
        "top_k" => sampling.top_k = Some(5),
        "min_p" => sampling.min_p = Some(0.1),
        "seed" => sampling.seed = Some(1),
        "max_tokens" => sampling.max_tokens = Some(1),
        "stop" => sampling.stop = Some(vec!["x".to_owned()]),
        "stop_token_ids" => sampling.stop_token_ids = Some(vec![1]),
        "presence_penalty" => sampling.presence_penalty = Some(0.5),
        "frequency_penalty" => sampling.frequency_penalty = Some(0.5),
        "repetition_penalty" => sampling.repetition_penalty = Some(1.1),
        "logit_bias" => sampling.logit_bias = Some(BTreeMap::from([(1, 1.0)])),
        "ignore_end" => sampling.ignore_end = Some(true),
        "min_tokens" => sampling.min_tokens = Some(1),
        "logprobs" => sampling.logprobs = Some(0),
        "n" => request.n = 2,
        "best_of" => request.best_of = Some(2),
        "echo" => request.echo = true,
        "prompt_logprobs" => request.prompt_logprobs = Some(0),
        "prompt_token_ids" => request.input = Input::Tokens(vec![1]),
        "guided_decoding" => request.format = ResponseFormat::Regex("a".to_owned()),
        "response_format" => request.format = ResponseFormat::JsonSchema(json!({})),
        "tools" => request.tools = vec![tool(false)],
        "tools.strict" => request.tools = vec![tool(true)],
        "tool_choice" => {
            request.tools = vec![tool(false)];
            request.tool_choice = ToolChoice::Required;
        }
        "parallel_tool_calls" => {
            request.tools = vec![tool(false)];
            request.parallel_tool_calls = false;
        }
        "messages[0].content" => {
            let image = Part::Image { url: "https://host/a.png".to_owned(), detail: None };
            request.input = Input::Messages(vec![Message::of_parts(Role::User, vec![image])]);
        }
        "messages[0].mood" => {
            let mut message = Message::new(Role::User, "hi");
            message.extra.insert("mood".to_owned(), json!("good"));
            request.input = Input::Messages(vec![message]);
        }
        "no_such_thing" => {
            request.extra.insert(name.to_owned(), json!(1));
        }
        other => panic!("{other}"),
    }
    request
}

/// A vendor, its parameters, what it takes of what only servers of one's own take, and what it refuses of the rest.
type Row =
    (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str], &'static [&'static str]);

/// What each vendor does not take, of all that there is.
#[test]
fn what_a_vendor_does_not_take_is_refused_by_name() {
    let never =
        ["best_of", "echo", "prompt_logprobs", "prompt_token_ids", "no_such_thing", "messages[0].mood"];
    const LOCAL: &[&str] = &[
        "top_k",
        "min_p",
        "repetition_penalty",
        "stop_token_ids",
        "ignore_end",
        "min_tokens",
        "guided_decoding",
    ];
    const MODEL: (&str, &str) = ("model", "some-model");
    let table: [Row; 10] = [
        ("openai", &[KEY], &[], &[]),
        (
            "openai",
            &[KEY, ("model", "o3")],
            &[],
            &["temperature", "top_p", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs"],
        ),
        ("openai", &[("base_url", "http://localhost/v1"), ("server", "vllm")], LOCAL, &[]),
        ("azure_openai", &[KEY, MODEL, ("azure_endpoint", "https://a.openai.azure.com")], &[], &[]),
        (
            "deepseek",
            &[KEY],
            &[],
            &[
                "seed",
                "logit_bias",
                "n",
                "response_format",
                "tools.strict",
                "parallel_tool_calls",
                "messages[0].content",
            ],
        ),
        (
            "moonshot",
            &[KEY, MODEL],
            &[],
            &["seed", "logit_bias", "logprobs", "tools.strict", "tool_choice", "parallel_tool_calls"],
        ),
        (
            "siliconflow",
            &[KEY, MODEL],
            &["top_k", "min_p"],
            &[
                "seed",
                "presence_penalty",
                "logit_bias",
                "logprobs",
                "response_format",
                "tool_choice",
                "parallel_tool_calls",
            ],
        ),
        ("volcengine", &[KEY, MODEL], &[], &["seed", "n", "tools.strict"]),
        (
            "zhipu",
            &[KEY],
            &[],
            &[
                "presence_penalty",
                "frequency_penalty",
                "logit_bias",
                "logprobs",
                "n",
                "response_format",
                "tools.strict",
                "tool_choice",
                "parallel_tool_calls",
            ],
        ),
        (
            "baichuan",
            &[KEY],
            &["top_k"],
            &[
                "seed",
                "stop",
                "presence_penalty",
                "frequency_penalty",
                "logit_bias",
                "logprobs",
                "n",
                "response_format",
                "tools.strict",
                "tool_choice",
                "parallel_tool_calls",
                "messages[0].content",
            ],
        ),
    ];
    let all: Vec<&str> = never
        .iter()
        .chain(LOCAL)
        .chain(&[
            "temperature",
            "top_p",
            "seed",
            "max_tokens",
            "stop",
            "presence_penalty",
            "frequency_penalty",
        ])
        .chain(&["logit_bias", "logprobs", "n", "response_format", "tools", "tools.strict", "tool_choice"])
        .chain(&["parallel_tool_calls", "messages[0].content"])
        .copied()
        .collect();
    for (vendor, given, takes, refuses) in table {
        let dialect = open(vendor, given.iter().copied()).unwrap();
        for name in &all {
            let refused = never.contains(name)
                || refuses.contains(name)
                || (LOCAL.contains(name) && !takes.contains(name));
            match dialect.chat(&asking_for(name), &signing()) {
                Ok(_) => assert!(!refused, "{vendor} {given:?} took {name}"),
                Err(error) => {
                    assert!(refused, "{vendor} {given:?}: {error}");
                    assert_eq!(
                        (error.kind(), error.param()),
                        (ErrorKind::Unsupported, Some(*name)),
                        "{vendor}"
                    );
                }
            }
        }
    }
}

#[test]
fn values_out_of_a_vendor_s_range_are_refused_by_name() {
    let set = |vendor: &str, change: fn(&mut ChatRequest)| {
        let given = [KEY, ("model", "some-model")];
        let mut request = request();
        change(&mut request);
        body(&*open(vendor, given).unwrap(), &request)
            .map_err(|error| (error.kind(), error.param().unwrap().to_owned()))
    };
    let invalid = |name: &str| Err((ErrorKind::InvalidRequest, name.to_owned()));
    for vendor in ["zhipu", "moonshot", "baichuan"] {
        assert_eq!(set(vendor, |request| request.sampling.temperature = Some(1.1)), invalid("temperature"));
        assert!(set(vendor, |request| request.sampling.temperature = Some(1.0)).is_ok());
    }
    assert_eq!(set("openai", |request| request.sampling.temperature = Some(2.1)), invalid("temperature"));
    assert_eq!(set("baichuan", |request| request.sampling.top_p = Some(1.0)), invalid("top_p"));
    assert_eq!(set("baichuan", |request| request.sampling.top_k = Some(21)), invalid("top_k"));
    let two = |request: &mut ChatRequest| request.sampling.stop = Some(vec!["a".to_owned(), "b".to_owned()]);
    assert_eq!(set("zhipu", two), invalid("stop"));
    assert!(set("openai", two).is_ok());
    let builtin = |request: &mut ChatRequest| {
        request.extra.insert("builtin_functions".to_owned(), json!("web"));
    };
    assert_eq!(set("moonshot", builtin), invalid("builtin_functions"));
}

/// Declared names are sent, and every name of a vendor's embeddings is among them.
#[test]
fn a_declared_extra_parameter_is_sent_and_never_hides_another_field() {
    let own = [
        "model",
        "messages",
        "stream",
        "stream_options",
        "temperature",
        "top_p",
        "n",
        "tools",
        "max_tokens",
        "stop",
    ];
    for vendor in VENDORS {
        let Ok(dialect) = open(vendor.name, [KEY, ("model", "o")]) else { continue };
        for name in dialect.extra_parameters() {
            assert!(!own.contains(name), "{} {name}", vendor.name);
        }
    }
    let mut request = request();
    request.extra.insert("verbosity".to_owned(), json!("low"));
    assert_eq!(body(&*open("openai", [KEY]).unwrap(), &request).unwrap()["verbosity"], "low");
    let error = {
        request.extra.insert("verbosty".to_owned(), json!("low"));
        open("openai", [KEY]).unwrap().chat(&request, &signing()).err().unwrap()
    };
    assert!(error.message().contains("did you mean 'verbosity'"), "{error}");
}

#[test]
fn reasoning_of_earlier_turns_goes_back_to_those_who_read_it() {
    let mut message = Message::new(Role::Assistant, "4");
    message.extra.insert("reasoning_content".to_owned(), json!("2+2"));
    let request = ChatRequest::new("m", Input::Messages(vec![message]));
    for (vendor, back) in [("openai", false), ("deepseek", true), ("zhipu", true), ("baichuan", false)] {
        let body = body(&*open(vendor, [KEY]).unwrap(), &request).unwrap();
        assert_eq!(body["messages"][0].get("reasoning_content").is_some(), back, "{vendor}");
    }
}

#[test]
fn parameters_of_a_deployment_are_checked() {
    let error = |vendor: &str, given: &[(&str, &str)]| {
        let error = open(vendor, given.iter().copied()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        error.param().unwrap().to_owned()
    };
    assert_eq!(error("openai", &[]), "saas.api_key");
    assert_eq!(error("openai", &[KEY, ("api_type", "azure")]), "saas.api_type");
    assert_eq!(error("openai", &[KEY, ("base_url", "wss://host/v1")]), "saas.base_url");
    assert_eq!(error("openai", &[("api_key", "schlüssel\u{2014}")]), "saas.api_key");
    assert_eq!(error("azure_openai", &[KEY]), "saas.azure_endpoint");
    assert_eq!(error("azure_openai", &[KEY, ("api_base", "https://a")]), "saas.azure_deployment");
    assert_eq!(error("moonshot", &[KEY]), "saas.model");
    assert_eq!(error("zhipu", &[KEY, ("auth", "jwt")]), "saas.api_key");
    let both = [KEY, ("base_url", "https://a"), ("baichuan_api_url", "https://a")];
    assert_eq!(error("baichuan", &both), "saas.baichuan_api_url");
}

#[test]
fn a_base_url_may_name_the_endpoint_and_hold_a_query() {
    let url = |base: &str| {
        let dialect = open("openai", [KEY, ("base_url", base)]).unwrap();
        let embed = EmbeddingRequest {
            model: "m".to_owned(),
            inputs: vec![EmbeddingInput::Text("a".to_owned())],
            dimensions: None,
            truncate: false,
            prompt: None,
            extra: Default::default(),
        };
        let chat = dialect.chat(&request(), &signing()).unwrap().url.to_string();
        (chat, dialect.embed(&embed, &signing()).unwrap().url.to_string())
    };
    let want = |query: &str| {
        (format!("https://h/v1/chat/completions{query}"), format!("https://h/v1/embeddings{query}"))
    };
    assert_eq!(url("https://h/v1"), want(""));
    assert_eq!(url("https://h/v1/?a=b"), want("?a=b"));
    assert_eq!(url("https://h/v1/chat/completions"), want(""));
    assert_eq!(url("https://h/v1/embeddings/"), want(""));
}

#[test]
fn a_key_is_signed_where_zhipu_wants_it() {
    let header = |given: &[(&str, &str)]| {
        let dialect = open("zhipu", given.iter().copied()).unwrap();
        let outbound = dialect.chat(&request(), &signing()).unwrap();
        outbound.headers["authorization"].to_str().unwrap().to_owned()
    };
    let signed = header(&[("api_key", "id.secret")]);
    assert_eq!(signed.matches('.').count(), 2);
    assert!(signed.starts_with("Bearer ey") && !signed.contains("secret"));
    assert_eq!(header(&[("api_key", "id.secret"), ("auth", "key")]), "Bearer id.secret");
    assert_eq!(header(&[("api_key", "plain")]), "Bearer plain");
}
