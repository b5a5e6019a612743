//! `/v1/completions`.

use byzerllm_core::Input;
use serde_json::{Value, json};

use crate::support::App;

fn ask(prompt: Value, more: Value) -> Value {
    let mut body = json!({"model": "chat", "prompt": prompt});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[tokio::test]
async fn whole_answers() {
    let app = App::answering(" upon a time").await;
    insta::assert_json_snapshot!("completion_whole", app.complete(ask(json!("Once"), json!({}))).await.ok());
    let body = ask(json!("你好 Welt"), json!({"echo": true, "logprobs": 2, "max_tokens": 2}));
    insta::assert_json_snapshot!("completion_echo_logprobs", app.complete(body).await.ok());
    let body = ask(json!([1, 2, 3]), json!({"echo": true, "logprobs": 0, "max_tokens": 0}));
    insta::assert_json_snapshot!("completion_scored_tokens", app.complete(body).await.ok());
}

#[tokio::test]
async fn streams() {
    let app = App::answering(" upon a").await;
    let body = ask(json!("Once"), json!({"stream": true, "stream_options": {"include_usage": true}}));
    insta::assert_json_snapshot!("completion_stream", app.complete(body).await.chunks());
    let body = ask(json!("你好 Welt"), json!({"stream": true, "echo": true, "logprobs": 1, "max_tokens": 1}));
    insta::assert_json_snapshot!("completion_stream_echo_logprobs", app.complete(body).await.chunks());
}

#[tokio::test]
async fn prompts_of_every_form_arrive() {
    let app = App::answering("x").await;
    let text = |text: &str| Input::Text(text.to_owned());
    for (prompt, expected) in [
        (json!("a"), vec![text("a")]),
        (json!(["a", "b"]), vec![text("a"), text("b")]),
        (json!([1, 2]), vec![Input::Tokens(vec![1, 2])]),
        (json!([[1], [2, 3]]), vec![Input::Tokens(vec![1]), Input::Tokens(vec![2, 3])]),
        (json!([""]), vec![text("")]),
    ] {
        let before = app.model.requests().len();
        app.complete(ask(prompt.clone(), json!({}))).await.ok();
        let got: Vec<Input> = app.model.requests().split_off(before).into_iter().map(|r| r.input).collect();
        assert_eq!(got, expected, "{prompt}");
    }
    // No hidden limit, and prompt log probabilities only with echo.
    app.complete(ask(json!("a"), json!({"logprobs": 3}))).await.ok();
    let request = app.model.requests().pop().unwrap();
    assert_eq!((request.sampling.max_tokens, request.sampling.temperature), (None, Some(1.0)));
    assert_eq!((request.prompt_logprobs, request.sampling.logprobs), (None, Some(3)));
}

#[tokio::test]
async fn two_prompts_with_three_choices_each() {
    let app = App::answering(" one two").await;
    let more = |stream: bool| json!({"n": 3, "echo": true, "logprobs": 0, "stream": stream});
    let whole = app.complete(ask(json!(["A", "B"]), more(false))).await.ok();
    let choices = whole["choices"].as_array().unwrap();
    for (index, choice) in choices.iter().enumerate() {
        let prompt = if index < 3 { "A" } else { "B" };
        assert_eq!(choice["index"], index);
        assert_eq!(choice["text"], format!("{prompt} one two"));
        assert_eq!(choice["logprobs"]["tokens"], json!([prompt, " one", " two"]));
        assert_eq!(choice["logprobs"]["token_logprobs"], json!([null, -0.5, -0.5]));
        assert_eq!(choice["logprobs"]["text_offset"], json!([0, 1, 5]));
        assert_eq!(choice["logprobs"]["top_logprobs"], Value::Null);
    }
    assert_eq!(choices.len(), 6);
    assert_eq!(whole["usage"]["prompt_tokens"], 2);
    assert_eq!(whole["usage"]["completion_tokens"], 12);

    let mut more = more(true);
    more["stream_options"] = json!({"include_usage": true});
    let chunks = app.complete(ask(json!(["A", "B"]), more)).await.chunks();
    let (mut texts, mut offsets) = (vec![String::new(); 6], vec![Vec::new(); 6]);
    let mut ends = 0;
    for chunk in &chunks {
        for choice in chunk["choices"].as_array().unwrap() {
            let index = choice["index"].as_u64().unwrap() as usize;
            texts[index].push_str(choice["text"].as_str().unwrap());
            offsets[index].extend(choice["logprobs"]["text_offset"].as_array().cloned().unwrap_or_default());
            ends += usize::from(choice["finish_reason"] == "stop");
        }
    }
    assert_eq!(texts, ["A one two", "A one two", "A one two", "B one two", "B one two", "B one two"]);
    assert!(offsets.iter().all(|list| *list == [0, 1, 5]), "{offsets:?}");
    assert_eq!(ends, 6);
    let last = chunks.last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]["total_tokens"]), (&json!([]), &json!(14)));
    assert_eq!(chunks.iter().filter(|chunk| chunk["usage"].is_object()).count(), 1);
}

#[tokio::test]
async fn many_prompts_keep_their_order() {
    let app = App::answering(" x").await;
    let prompts: Vec<String> = (0..100).map(|index| format!("p{index}")).collect();
    let whole = app.complete(ask(json!(prompts), json!({"echo": true}))).await.ok();
    let texts: Vec<&str> =
        whole["choices"].as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap()).collect();
    let expected: Vec<String> = prompts.iter().map(|prompt| format!("{prompt} x")).collect();
    assert_eq!(texts, expected);
}

#[tokio::test]
async fn what_is_wrong_or_not_there_is_named() {
    let app = App::answering("x").await;
    for (prompt, more, code, param) in [
        (json!(null), json!({}), "invalid_request", "prompt"),
        (json!([]), json!({}), "invalid_request", "prompt"),
        (json!(5), json!({}), "invalid_request", "prompt"),
        (json!([-1]), json!({}), "invalid_request", "prompt[0]"),
        (json!([1, "a"]), json!({}), "invalid_request", "prompt[1]"),
        (json!(["a", 1]), json!({}), "invalid_request", "prompt[1]"),
        (json!([[1], "a"]), json!({}), "invalid_request", "prompt[1]"),
        (json!([[1, 4_294_967_296_u64]]), json!({}), "invalid_request", "prompt[0][1]"),
        (json!(vec!["a"; 129]), json!({}), "invalid_request", "prompt"),
        (json!(vec!["a"; 100]), json!({"n": 3}), "invalid_request", "n"),
        (json!("a"), json!({"logprobs": 21}), "invalid_request", "logprobs"),
        (json!("a"), json!({"logprobs": true}), "invalid_request", "logprobs"),
        (json!("a"), json!({"ecko": true}), "invalid_request", "ecko"),
        (json!("a"), json!({"suffix": "z"}), "unsupported", "suffix"),
        (json!("a"), json!({"best_of": 1, "n": 2}), "invalid_request", "best_of"),
        (json!("a"), json!({"logit_bias": {"-1": 1}}), "invalid_request", "logit_bias"),
        (json!("a"), json!({"presence_penalty": 3}), "invalid_request", "presence_penalty"),
        (
            json!("a"),
            json!({"guided_regex": "a", "guided_choice": ["a"]}),
            "invalid_request",
            "guided_choice",
        ),
        (json!("a"), json!({"add_special_tokens": false}), "unsupported", "add_special_tokens"),
        (json!("a"), json!({"use_beam_search": true}), "unsupported", "use_beam_search"),
    ] {
        let (status, got_param, got_code, message) = app.complete(ask(prompt, more.clone())).await.error();
        assert_eq!((status, got_code.as_str()), (400, code), "{more}: {message}");
        assert_eq!(got_param.as_deref(), Some(param), "{more}: {message}");
    }
    assert!(app.model.requests().is_empty());
    let (.., message) = app.complete(ask(json!("a"), json!({"ecko": true}))).await.error();
    assert!(message.contains("did you mean `echo`?"), "{message}");
    for more in [json!({"best_of": 1}), json!({"best_of": 2, "n": 2}), json!({"suffix": "", "user": "u"})] {
        app.complete(ask(json!("a"), more)).await.ok();
    }
}
