//! OpenAI's dialect beyond what vendors document: what it makes of odd frames.

use std::sync::Arc;

use byzerllm_core::{ChatRequest, ErrorKind, FinishReason, UsageSource};
use byzerllm_providers::{Delta, Dialect};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::openai_fixtures::{fold, open, read};
use crate::openai_refusals::{asking_for, request};

const KEY: (&str, &str) = ("api_key", "k-123");

fn openai() -> Arc<dyn Dialect> {
    open("openai", [KEY]).unwrap()
}

fn stream(frames: &[Value]) -> (crate::openai_fixtures::Folded, Option<byzerllm_core::Error>) {
    let frames: Vec<String> = frames.iter().map(Value::to_string).collect();
    let (deltas, error) = read(&*openai(), &request(), frames.iter().map(String::as_str));
    (fold(deltas, 0), error)
}

fn call(fields: Value) -> Value {
    json!({"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": [fields]}}]})
}

fn finish(word: &str) -> Value {
    json!({"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": word}]})
}

/// The habits of servers that say they speak OpenAI's dialect.
#[test]
fn tool_calls_are_told_apart_in_every_habit() {
    let two = |a: &str, b: &str| {
        vec![("a".to_owned(), "f".to_owned(), a.to_owned()), ("b".to_owned(), "g".to_owned(), b.to_owned())]
    };
    let calls = |frames: &[Value]| {
        let (folded, error) = stream(frames);
        assert!(error.is_none(), "{error:?}");
        assert_eq!(folded.finish, Some(FinishReason::ToolCalls));
        folded.calls
    };
    // Whole calls without an index.
    let whole = |id: &str, name: &str| call(json!({"id": id, "function": {"name": name, "arguments": "{}"}}));
    assert_eq!(calls(&[whole("a", "f"), whole("b", "g"), finish("tool_calls")]), two("{}", "{}"));
    // The same index for both, as Gemini sends it; `stop` at the end.
    let same = |id: &str, name: &str| {
        call(json!({"index": 0, "id": id, "function": {"name": name, "arguments": "{}"}}))
    };
    assert_eq!(calls(&[same("a", "f"), same("b", "g"), finish("stop")]), two("{}", "{}"));
    // Id and name again in every chunk.
    let again =
        |text: &str| call(json!({"index": 0, "id": "a", "function": {"name": "f", "arguments": text}}));
    assert_eq!(
        calls(&[again("{\"x\""), again(":1}"), finish("tool_calls")]),
        [two("{\"x\":1}", "")[0].clone()]
    );
    // Arguments as a value, and none at all.
    let value = call(json!({"index": 0, "id": "a", "function": {"name": "f", "arguments": {"x": 1}}}));
    let none = call(json!({"index": 1, "id": "b", "function": {"name": "g", "arguments": null}}));
    assert_eq!(calls(&[value, none, finish("function_call")]), two("{\"x\":1}", "{}"));
    // The name after the first arguments, and empty ids in later chunks.
    let late = [
        call(json!({"index": 0, "id": "a", "function": {"arguments": "{\"x\""}})),
        call(json!({"index": 0, "id": "", "function": {"name": "f", "arguments": ":1}"}})),
        finish("tool_calls"),
    ];
    assert_eq!(calls(&late), [two("{\"x\":1}", "")[0].clone()]);
    // No ids: they are made, each another.
    let nameless = |name: &str| call(json!({"function": {"name": name, "arguments": "{}"}}));
    let made = calls(&[nameless("f"), nameless("g"), finish("tool_calls")]);
    assert_eq!((made[0].0.as_str(), made[1].0.as_str()), ("call_c_0_0", "call_c_0_1"));
    // A call that never gets a name is no call.
    let (folded, _) = stream(&[
        call(json!({"index": 0, "id": "a", "function": {"arguments": "{}"}})),
        finish("tool_calls"),
    ]);
    assert!(matches!(folded.finish, Some(FinishReason::Error(_))), "{folded:?}");
}

#[test]
fn choices_are_told_apart_and_strange_ones_refused() {
    let mut request = request();
    request.n = 2;
    let frames = [
        json!({"choices": [{"index": 1, "delta": {"content": "b"}}, {"index": 0, "delta": {"content": "a"}}]}),
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
        json!({"choices": [{"index": 1, "delta": {"content": "!"}, "finish_reason": "length"}]}),
        json!({"choices": [{"index": 2, "delta": {"content": "c"}}]}),
    ];
    let frames = frames.map(|frame| frame.to_string());
    let (deltas, error) = read(&*openai(), &request, frames.iter().map(String::as_str));
    assert_eq!(error.unwrap().kind(), ErrorKind::Upstream);
    let second = fold(deltas.clone(), 1);
    assert_eq!((second.text.as_str(), second.finish), ("b!", Some(FinishReason::Length)));
    assert_eq!(fold(deltas, 0).text, "a");
}

#[test]
fn text_after_the_end_of_a_choice_is_an_error_and_emptiness_is_not() {
    let text = |content: &str| json!({"id": "c", "choices": [{"index": 0, "delta": {"content": content}}]});
    let (folded, error) = stream(&[text("a"), finish("stop"), text(""), finish("stop"), text("b")]);
    assert_eq!((folded.text.as_str(), folded.finish), ("a", Some(FinishReason::Stop)));
    let error = error.unwrap();
    assert_eq!((error.kind(), error.vendor_request_id()), (ErrorKind::Upstream, Some("c")));
}

#[test]
fn usage_that_cannot_be_true_is_not_reported() {
    let read = |usage: Value, text: &str| {
        let choice = json!({"delta": {"content": text}, "finish_reason": "stop"});
        stream(&[json!({"choices": [choice], "usage": usage})]).0.usage.map(|usage| {
            assert_eq!(usage.source, UsageSource::Reported);
            (usage.prompt_tokens, usage.completion_tokens)
        })
    };
    let tokens = |usage| read(usage, "a");
    assert_eq!(tokens(json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5})), Some((3, 2)));
    assert_eq!(tokens(json!({"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3})), None);
    assert_eq!(tokens(json!({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0})), None);
    assert_eq!(tokens(json!({"prompt_tokens": -1, "completion_tokens": -1})), None);
    assert_eq!(tokens(json!(null)), None);
    // Reasoning that is counted apart is in the total.
    let apart = json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 15,
        "completion_tokens_details": {"reasoning_tokens": 10}});
    assert_eq!(tokens(apart), Some((3, 12)));
    assert_eq!(
        read(json!({"prompt_tokens": 3, "completion_tokens": 0}), ""),
        Some((3, 0)),
        "nothing was said"
    );
}

#[test]
fn errors_inside_a_stream_are_errors() {
    let kind = |data: &str| {
        let (_, error) = read(&*openai(), &request(), [data]);
        error.map(|error| error.kind())
    };
    for (data, want) in [
        (r#"{"error":{"message":"x","type":"server_error"}}"#, Some(ErrorKind::Upstream)),
        (r#"{"error":{"message":"x","code":"rate_limit_exceeded"}}"#, Some(ErrorKind::RateLimited)),
        (r#"{"object":"error","message":"x","code":400}"#, Some(ErrorKind::InvalidRequest)),
        (r#"{"error":{"message":"x","code":503}}"#, Some(ErrorKind::Overloaded)),
        (r#"{"error":"x"}"#, Some(ErrorKind::Upstream)),
        (r#"{"code":20015,"message":"x","data":null}"#, Some(ErrorKind::Upstream)),
        (
            r#"{"choices":[{"delta":{"content":""},"finish_reason":"error"}],"error":{"code":429,"message":"x"}}"#,
            Some(ErrorKind::RateLimited),
        ),
        (r#"{"type":"ping"}"#, None),
        ("{\"choices\":[", Some(ErrorKind::Upstream)),
        ("<html>", Some(ErrorKind::Upstream)),
        (r#"{"choices":[]}"#, None),
        (r#"{"id":"c","usage":null}"#, None),
        ("", None),
    ] {
        assert_eq!(kind(data), want, "{data}");
    }
}

#[test]
fn log_probabilities_stand_beside_their_text() {
    let token = |token: &str, bytes: Value| {
        json!({"token": token, "logprob": -0.5, "bytes": bytes, "top_logprobs": [
        {"token": "x", "logprob": -1.5, "bytes": null}]})
    };
    let content = json!([token("é", json!(null)), token("\\xe4", json!([228]))]);
    let frame =
        json!({"choices": [{"index": 0, "delta": {"content": "é"}, "logprobs": {"content": content}}]});
    let (deltas, _) = read(&*openai(), &request(), [frame.to_string().as_str()]);
    let [Delta::Text(0, text), Delta::Logprobs(0, logprobs)] = deltas.as_slice() else {
        panic!("{deltas:?}")
    };
    assert_eq!(text, "é");
    assert_eq!(logprobs[0].bytes, "é".as_bytes());
    assert_eq!((logprobs[1].bytes.as_slice(), logprobs[1].logprob), (&[228][..], Some(-0.5)));
    assert_eq!((logprobs[0].top[0].1.as_slice(), logprobs[0].top[0].2), (&b"x"[..], -1.5));
}

#[test]
fn a_whole_answer_to_a_request_for_a_stream_is_read() {
    let frame = json!({"id": "c", "choices": [{"message": {"content": [{"type": "text", "text": "hi"}]}}]});
    let (folded, error) = stream(&[frame]);
    assert!(error.is_none());
    assert_eq!((folded.text.as_str(), folded.finish), ("hi", Some(FinishReason::Stop)));
    let mut request = request();
    request.whole = true;
    let (_, error) = read(&*openai(), &request, [r#"{"id":"c","choices":[]}"#]);
    assert_eq!(error.unwrap().kind(), ErrorKind::Upstream);
}

#[test]
fn bounds_of_bills_hold_reasoning_pictures_and_pages() {
    let mut request = request();
    let bound = |vendor: &str, request: &ChatRequest| {
        open(vendor, [KEY, ("model", "x")]).unwrap().completion_bound(request)
    };
    assert_eq!(bound("openai", &request), None);
    request.sampling.max_tokens = Some(100);
    request.n = 3;
    assert_eq!(bound("openai", &request), Some(300));
    assert_eq!(bound("siliconflow", &request), Some(3 * (100 + 32_768)));
    let beyond = |request: &ChatRequest| open("zhipu", [KEY]).unwrap().prompt_beyond(request);
    assert_eq!(beyond(&request), 0);
    assert_eq!(beyond(&asking_for("messages[0].content")), 50_000, "a picture");
    request.extra.insert("web_search".to_owned(), json!({"enable": true}));
    assert_eq!(beyond(&request), 131_072, "pages that were found");
}

/// A piece of an answer.
#[derive(Debug, Clone)]
enum Piece {
    Reasoning(String),
    Text(String),
    Arguments(String),
}

fn piece() -> impl Strategy<Value = Piece> {
    prop_oneof![
        "[a-zé世😀 \"\\\\\n]{0,12}".prop_map(Piece::Reasoning),
        "[a-zé世😀 \"\\\\\n]{0,12}".prop_map(Piece::Text),
        "[0-9,]{0,6}".prop_map(Piece::Arguments),
    ]
}

/// Cuts a text at character borders, as a random number says.
fn cut(text: &str, mut random: u64) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for character in text.chars() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if random >> 62 == 0 {
            pieces.push(String::new());
        }
        pieces.last_mut().unwrap().push(character);
    }
    pieces
}

proptest! {
    /// However an answer is cut into deltas, and whatever unknown fields stand beside them, it is the same answer.
    #[test]
    fn how_an_answer_is_cut_does_not_matter(pieces in prop::collection::vec(piece(), 0..8), seed: u64) {
        let mut frames = Vec::new();
        let (mut text, mut reasoning, mut arguments) = (String::new(), String::new(), String::new());
        for (place, piece) in pieces.iter().enumerate() {
            let whole = match piece {
                Piece::Reasoning(piece) => { reasoning.push_str(piece); piece }
                Piece::Text(piece) => { text.push_str(piece); piece }
                Piece::Arguments(piece) => { arguments.push_str(piece); piece }
            };
            for part in cut(whole, seed.wrapping_add(place as u64)) {
                let delta = match piece {
                    Piece::Reasoning(_) => json!({"reasoning_content": part, "content": null, "role": "assistant"}),
                    Piece::Text(_) => json!({"content": part, "reasoning_content": null, "tool_calls": null, "x": [1]}),
                    Piece::Arguments(_) => {
                        let function = json!({"name": "f", "arguments": part, "later": {}});
                        json!({"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": function}]})
                    }
                };
                frames.push(json!({"id": "c", "choices": [{"index": 0, "delta": delta, "logprobs": null, "y": {"z": 1}}], "w": null}));
            }
        }
        frames.push(finish("stop"));
        let (folded, error) = stream(&frames);
        prop_assert!(error.is_none());
        prop_assert_eq!(folded.text, text);
        prop_assert_eq!(folded.reasoning, reasoning);
        let called = pieces.iter().any(|piece| matches!(piece, Piece::Arguments(_)));
        prop_assert_eq!(folded.finish, Some(if called { FinishReason::ToolCalls } else { FinishReason::Stop }));
        if called {
            let arguments = if arguments.is_empty() { "{}".to_owned() } else { arguments };
            prop_assert_eq!(folded.calls, [("a".to_owned(), "f".to_owned(), arguments)]);
        }
    }

    /// No bytes of a stranger make the decoder or the reader of errors panic.
    #[test]
    fn odd_frames_are_errors_or_nothing(text in "[\\[\\]{}\":,a-z0-9 ]{0,40}", seed in any::<[u8; 24]>()) {
        let _ = read(&*openai(), &request(), [text.as_str()]);
        let _ = openai().error(500, &Default::default(), &seed);
        let _ = openai().error(400, &Default::default(), text.as_bytes());
        let _ = openai().embedded(text.as_bytes());
    }
}

/// vLLM, OpenAI-compatible server, `stop_reason` of a choice; SGLang, `matched_stop`. Others have words of their own there.
#[test]
fn the_stop_string_that_ended_a_choice_is_read() {
    let dialect = open("openai", [("base_url", "http://127.0.0.1:1/v1"), ("model", "m")]).unwrap();
    let mut asked = request();
    asked.sampling.stop = Some(vec!["END".to_owned()]);
    for (field, told) in [
        ("\"stop_reason\": \"END\"", Some("END")),
        ("\"matched_stop\": \"END\"", Some("END")),
        ("\"stop_reason\": 151645", None),
        ("\"stop_reason\": \"eos_token\"", None),
        ("\"stop_reason\": null", None),
    ] {
        let frame = format!(
            "{{\"choices\": [{{\"index\": 0, \"delta\": {{\"content\": \"a\"}}, \"finish_reason\": \"stop\", {field}}}]}}"
        );
        let (deltas, error) = read(&*dialect, &asked, [frame.as_str()]);
        assert!(error.is_none());
        let stop = deltas.iter().find_map(|delta| match delta {
            Delta::Stop(0, stop) => Some(stop.as_str()),
            _ => None,
        });
        assert_eq!(stop, told, "{field}");
    }
}
