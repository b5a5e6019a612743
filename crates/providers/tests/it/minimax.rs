//! `saas/minimax`.

use byzerllm_core::{ChatRequest, ErrorKind, ResponseFormat, Tool, ToolChoice};
use proptest::prelude::*;
use serde_json::json;

use crate::translation::{check, open, plain, read, refused, request, write};

#[test]
fn it_is_what_its_documents_say() {
    check("minimax", 51);
}

#[test]
fn what_it_does_not_take_is_refused_by_name() {
    let dialect = open("minimax", &json!({"api_key": "sk-own", "group_id": "1"})).unwrap();
    let no = |name: &str, change: &dyn Fn(&mut ChatRequest)| {
        refused(dialect.as_ref(), ErrorKind::Unsupported, name, change);
    };
    no("stop", &|r| r.sampling.stop = Some(vec!["a".to_owned()]));
    no("seed", &|r| r.sampling.seed = Some(1));
    no("top_k", &|r| r.sampling.top_k = Some(1));
    no("n", &|r| r.n = 2);
    no("response_format", &|r| r.format = ResponseFormat::JsonObject);
    let tool = || Tool { name: "f".to_owned(), description: None, parameters: None, strict: false };
    no("tool_choice", &|r| (r.tools, r.tool_choice) = (vec![tool()], ToolChoice::None));
    refused(dialect.as_ref(), ErrorKind::InvalidRequest, "temperature", |r| {
        r.sampling.temperature = Some(0.0);
    });
    let second =
        json!({"api_key": "sk-own", "model": "MiniMax-M1", "api_url": "https://h/v1/text/chatcompletion_v2"});
    let second = open("minimax", &second).unwrap();
    refused(second.as_ref(), ErrorKind::Unsupported, "seed", |r| r.sampling.seed = Some(1));
}

#[test]
fn the_address_says_which_api() {
    let url = |more: serde_json::Value| {
        let mut given = json!({"api_key": "sk-own"});
        given.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        open("minimax", &given).map(|dialect| write(dialect.as_ref(), &request()).unwrap().url.to_string())
    };
    assert_eq!(
        url(json!({"group_id": "7"})).unwrap(),
        "https://api.minimax.chat/v1/text/chatcompletion_pro?GroupId=7"
    );
    let given = json!({"group_id": "7", "base_url": "http://127.0.0.1:1/v1"});
    assert_eq!(url(given).unwrap(), "http://127.0.0.1:1/v1/text/chatcompletion_pro?GroupId=7");
    let given = json!({"api_url": "https://api.minimaxi.com/v1/chat/completions"});
    assert_eq!(url(given).unwrap(), "https://api.minimaxi.com/v1/chat/completions");
    let fails = |given, name: &str| assert_eq!(url(given).unwrap_err().param(), Some(name));
    fails(json!({}), "saas.group_id");
    fails(json!({"api_url": "https://h/v1/other", "group_id": "7"}), "saas.api_url");
    fails(json!({"api_url": "https://h/v1/chat/completions", "base_url": "https://h"}), "saas.api_url");
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(7), ..ProptestConfig::default() })]

    /// Pieces, then the whole again: each character comes out once.
    #[test]
    fn the_answer_comes_once(pieces in proptest::collection::vec("[a你é\u{1F600}]{0,4}", 0..10), told in 0_usize..10) {
        let dialect = open("minimax", &json!({"api_key": "sk-own", "group_id": "1"})).unwrap();
        let frame = |text: &str, end: bool| {
            let message = json!({"sender_type": "BOT", "sender_name": "Assistant", "text": text});
            let mut choice = json!({"messages": [message]});
            if end {
                choice["finish_reason"] = json!("stop");
            }
            json!({"choices": [choice], "reply": if end { text } else { "" }}).to_string()
        };
        // The last pieces come with the whole only.
        let mut frames: Vec<String> = pieces.iter().take(told).map(|piece| frame(piece, false)).collect();
        frames.push(frame(&pieces.concat(), true));
        let mut decoder = dialect.decoder(&request());
        let found = read(decoder.as_mut(), frames.iter().map(plain)).unwrap();
        prop_assert_eq!(found.text.get(&0).cloned().unwrap_or_default(), pieces.concat());
    }
}
