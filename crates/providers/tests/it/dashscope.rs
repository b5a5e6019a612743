//! `saas/qianwen` and `saas/qianwen_vl`.

use byzerllm_core::{ErrorKind, Part, ResponseFormat, Role, Tool, ToolChoice};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::translation::{body, check, open, plain, read, refused, request, write};

fn tool() -> Tool {
    Tool { name: "f".to_owned(), description: None, parameters: None, strict: false }
}

#[test]
fn qianwen_is_what_its_documents_say() {
    check("qianwen", 60);
}

#[test]
fn qianwen_vl_is_what_its_documents_say() {
    check("qianwen_vl", 6);
}

#[test]
fn what_it_does_not_take_is_refused_by_name() {
    let dialect = open("qianwen", &json!({"api_key": "sk-own"})).unwrap();
    let no = |name: &str, change: &dyn Fn(&mut byzerllm_core::ChatRequest)| {
        refused(dialect.as_ref(), ErrorKind::Unsupported, name, change);
    };
    no("frequency_penalty", &|r| r.sampling.frequency_penalty = Some(0.5));
    no("logprobs", &|r| r.sampling.logprobs = Some(0));
    no("min_p", &|r| r.sampling.min_p = Some(0.1));
    no("logit_bias", &|r| r.sampling.logit_bias = Some([(1, 1.0)].into()));
    no("stop_token_ids", &|r| r.sampling.stop_token_ids = Some(vec![1]));
    no("guided_decoding", &|r| r.format = ResponseFormat::Regex("a".to_owned()));
    no("echo", &|r| r.echo = true);
    no("tool_choice", &|r| (r.tools, r.tool_choice) = (vec![tool()], ToolChoice::Required));
    no("messages", &|r| {
        let image = Part::Image { url: "https://example.com/a.png".to_owned(), detail: None };
        r.input =
            byzerllm_core::Input::Messages(vec![byzerllm_core::Message::of_parts(Role::User, vec![image])]);
    });
    refused(dialect.as_ref(), ErrorKind::InvalidRequest, "incremental_output", |r| {
        r.extra.insert("enable_thinking".to_owned(), json!(true));
        r.extra.insert("incremental_output".to_owned(), json!(false));
    });
    refused(dialect.as_ref(), ErrorKind::InvalidRequest, "incremental_output", |r| {
        r.extra.insert("incremental_output".to_owned(), json!(1));
    });
    let sees = open("qianwen_vl", &json!({"api_key": "sk-own"})).unwrap();
    refused(sees.as_ref(), ErrorKind::Unsupported, "n", |r| r.n = 2);
}

#[test]
fn what_changes_nothing_is_not_refused() {
    let dialect = open("qianwen", &json!({"api_key": "sk-own"})).unwrap();
    let mut request = request();
    request.sampling.frequency_penalty = Some(0.0);
    request.sampling.min_p = Some(0.0);
    assert_eq!(
        body(dialect.as_ref(), &request)["parameters"],
        json!({"result_format": "message", "incremental_output": true})
    );
}

#[test]
fn a_flag_may_be_a_text_and_still_says_how_the_answer_is_read() {
    let dialect = open("qianwen", &json!({"api_key": "sk-own"})).unwrap();
    let mut asked = request();
    asked.extra.insert("incremental_output".to_owned(), json!("False"));
    asked.extra.insert("enable_search".to_owned(), json!("true"));
    let parameters = body(dialect.as_ref(), &asked)["parameters"].clone();
    let wanted = json!({"result_format": "message", "incremental_output": false, "enable_search": true});
    assert_eq!(parameters, wanted);
    let frames = [frame(false, "", "a", "null"), frame(false, "", "ab", "stop")];
    let found = read(dialect.decoder(&asked).as_mut(), frames.iter().map(plain)).unwrap();
    assert_eq!(found.text[&0], "ab");
}

#[test]
fn a_model_of_vectors_does_not_chat() {
    let dialect = open("qianwen", &json!({"api_key": "sk-own", "model": "text-embedding-v2"})).unwrap();
    assert!(dialect.features().embeddings && !dialect.features().chat);
    let error = write(dialect.as_ref(), &request()).map(|_| ()).unwrap_err();
    assert_eq!((error.kind(), error.param()), (ErrorKind::Unsupported, Some("model")));
}

/// Texts with characters of one to four bytes.
fn text() -> impl Strategy<Value = String> {
    proptest::collection::vec(
        prop_oneof![Just('a'), Just('é'), Just('你'), Just('\u{1F600}'), Just('\n'), Just('"')],
        0..60,
    )
    .prop_map(|chars| chars.into_iter().collect())
}

/// Places to cut a text of so many bytes, not only between characters: what is cut within one ends with U+FFFD, as a
/// vendor writes it.
fn prefix(text: &str, end: usize) -> String {
    String::from_utf8_lossy(&text.as_bytes()[..end.min(text.len())]).into_owned()
}

fn frame(vision: bool, reasoning: &str, text: &str, reason: &str) -> String {
    let content = if vision { json!([{"text": text}]) } else { json!(text) };
    let message = json!({"role": "assistant", "content": content, "reasoning_content": reasoning});
    json!({"output": {"choices": [{"message": message, "finish_reason": reason}]}, "request_id": "r"})
        .to_string()
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(7), ..ProptestConfig::default() })]

    /// Cumulative frames, some of them twice or late, cut anywhere: each byte of the answer comes out once.
    #[test]
    fn cumulative_frames_become_pieces(
        answer in text(),
        reasoning in text(),
        mut cuts in proptest::collection::vec(0_usize..240, 0..12),
        twice in proptest::collection::vec(any::<bool>(), 12),
        vision in any::<bool>(),
    ) {
        let vendor = if vision { "qianwen_vl" } else { "qianwen" };
        let dialect = open(vendor, &json!({"api_key": "sk-own"})).unwrap();
        let mut asked = request();
        asked.extra.insert("incremental_output".to_owned(), Value::Bool(false));
        cuts.sort_unstable();
        let mut frames = Vec::new();
        for (place, cut) in cuts.iter().enumerate() {
            frames.push(frame(vision, &prefix(&reasoning, *cut), &prefix(&answer, *cut), "null"));
            if twice[place] {
                frames.push(frames[place / 2].clone());
            }
        }
        frames.push(frame(vision, &reasoning, &answer, "stop"));
        let mut decoder = dialect.decoder(&asked);
        let found = read(decoder.as_mut(), frames.iter().map(plain)).unwrap();
        prop_assert_eq!(found.text.get(&0).cloned().unwrap_or_default(), answer);
        prop_assert_eq!(found.reasoning, reasoning);
        prop_assert_eq!(found.finished.len(), 1);
    }

    /// Pieces are passed on as they are, however they repeat each other.
    #[test]
    fn pieces_stay_pieces(pieces in proptest::collection::vec(text(), 0..12)) {
        let dialect = open("qianwen", &json!({"api_key": "sk-own"})).unwrap();
        let mut frames: Vec<String> = pieces.iter().map(|piece| frame(false, "", piece, "null")).collect();
        frames.push(frame(false, "", "", "stop"));
        let mut decoder = dialect.decoder(&request());
        let found = read(decoder.as_mut(), frames.iter().map(plain)).unwrap();
        prop_assert_eq!(found.text.get(&0).cloned().unwrap_or_default(), pieces.concat());
    }
}
