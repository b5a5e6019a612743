//! What is refused, and when, and with which numbers.

use std::time::{Duration, Instant};

use byzerllm_core::{
    ChatModel, ErrorKind, Event, Input, Message, Part, RequestContext, Role, Sampling, collect,
};
use byzerllm_engine::{EngineOptions, LocalModel, TokenRequest};
use futures::StreamExt;

use crate::fake::{BLOCK_BYTES, HashNetwork, Shape, VOCAB};
use crate::text::{ask, block_on, greedy, model, model_text, until};

async fn refusal(model: &LocalModel, request: byzerllm_core::ChatRequest) -> byzerllm_core::Error {
    match model.chat(request, RequestContext::local()).await {
        Ok(_) => panic!("a bad request was accepted"),
        Err(error) => error,
    }
}

#[test]
fn what_does_not_fit_is_refused_with_the_numbers() {
    block_on(async {
        let (model, _) = model(&Shape::default(), 100, |_| {});
        let tokens = |count: usize| Input::Tokens(vec![65; count]);
        let error = refusal(&model, greedy(tokens(100), 29)).await;
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        for number in ["128", "100", "29", "129"] {
            assert!(error.message().contains(number), "{error}");
        }
        ask(&model, greedy(tokens(100), 28)).await;

        let mut open = greedy(tokens(128), 1);
        open.sampling.max_tokens = None;
        assert_eq!(refusal(&model, open.clone()).await.kind(), ErrorKind::TooLarge);
        open.input = tokens(120);
        let response = ask(&model, open).await;
        assert!(response.usage.completion_tokens <= 8, "the answer ends with the context");
        // A prompt that fills the context can still be scored.
        ask(&model, greedy(tokens(128), 0)).await;
        assert_eq!(refusal(&model, greedy(tokens(129), 0)).await.kind(), ErrorKind::TooLarge);
    });
}

#[test]
fn bad_ids_counts_and_templates_are_refused() {
    block_on(async {
        let (model, _) = model(&Shape::default(), 100, |options| options.max_sequences = 4);
        let error = refusal(&model, greedy(Input::Tokens(vec![1, VOCAB as u32]), 3)).await;
        assert_eq!((error.kind(), error.param()), (ErrorKind::InvalidRequest, Some("prompt")));
        let mut request = greedy(Input::Tokens(vec![1]), 3);
        request.n = 5;
        assert_eq!(refusal(&model, request.clone()).await.param(), Some("n"));
        request.n = 1;
        request.prompt_logprobs = Some(21);
        assert_eq!(refusal(&model, request).await.param(), Some("prompt_logprobs"));
        assert_eq!(refusal(&model, greedy(Input::Messages(Vec::new()), 3)).await.param(), Some("messages"));

        let network = HashNetwork::new(&Shape::default(), Default::default());
        let bare = LocalModel::start(Box::new(network), model_text(false), EngineOptions::default()).unwrap();
        let messages = vec![byzerllm_core::Message::new(byzerllm_core::Role::User, "Hi")];
        let error = refusal(&bare, greedy(Input::Messages(messages), 3)).await;
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("send the prompt as text"), "{error}");
    });
}

#[test]
fn what_only_models_of_vendors_take_is_refused_by_name() {
    block_on(async {
        let (model, _) = model(&Shape::default(), 100, |_| {});
        let said =
            |part: Part| vec![Message::new(Role::User, "a"), Message::of_parts(Role::User, vec![part])];
        let image = said(Part::Image { url: "https://host/a.png".to_owned(), detail: None });
        let error = refusal(&model, greedy(Input::Messages(image.clone()), 3)).await;
        assert_eq!((error.kind(), error.param()), (ErrorKind::Unsupported, Some("messages[1].content[0]")));
        assert_eq!(model.apply_template(&image, true).unwrap_err().kind(), ErrorKind::Unsupported);
        let image = greedy(Input::Messages(image), 3);
        assert_eq!(model.count_tokens(&image).await.unwrap_err().kind(), ErrorKind::Unsupported);
        ask(&model, greedy(Input::Messages(said(Part::Text { text: "b".to_owned() })), 3)).await;

        let mut request = greedy(Input::Tokens(vec![65]), 3);
        request.extra.insert("enable_search".to_owned(), true.into());
        let error = refusal(&model, request).await;
        assert_eq!((error.kind(), error.param()), (ErrorKind::InvalidRequest, Some("enable_search")));
    });
}

#[test]
fn a_prompt_is_counted_as_it_is_used() {
    block_on(async {
        let (model, _) = model(&Shape::default(), 100, |_| {});
        for input in [
            Input::Messages(vec![Message::new(Role::System, "Be brief."), Message::new(Role::User, "Hi")]),
            Input::Text("Hi".to_owned()),
            Input::Tokens(vec![65, 66]),
        ] {
            let request = greedy(input, 1);
            let counted = model.count_tokens(&request).await.unwrap();
            assert_eq!(counted, ask(&model, request).await.usage.prompt_tokens);
        }
    });
}

#[test]
fn a_cache_below_one_context_is_refused_with_the_numbers() {
    let start = |bytes: u64, context_length: Option<u32>| {
        let network = HashNetwork::new(&Shape::default(), Default::default());
        let options = EngineOptions { cache_bytes: bytes, context_length, ..EngineOptions::default() };
        LocalModel::start(Box::new(network), model_text(true), options)
    };
    let error = start(31 * BLOCK_BYTES, None).unwrap_err();
    assert!(error.message().contains("3100") && error.message().contains("3200"), "{error}");
    assert_eq!(start(32 * BLOCK_BYTES, None).unwrap().context_length(), 128);
    let capped = start(31 * BLOCK_BYTES, Some(100)).unwrap();
    assert_eq!(capped.context_length(), 100);
    block_on(until("the engine has told its blocks", || capped.metrics().blocks_total == 31));
}

#[test]
fn a_full_queue_says_when_to_come_back() {
    block_on(async {
        let (model, control) = model(&Shape::default(), 100, |options| {
            options.max_sequences = 2;
            options.queue_limit = 3;
        });
        control.close();
        let submit = || {
            let sampling = Sampling { max_tokens: Some(5), ..Sampling::default() };
            model.token_stream(TokenRequest {
                prompt: vec![65],
                sampling,
                ignore_end: true,
                ..TokenRequest::default()
            })
        };
        let mut streams = Vec::new();
        let error = loop {
            match submit() {
                Ok(stream) => streams.push(stream),
                Err(error) => break error,
            }
        };
        // Two run at most, three wait.
        assert!((3..=5).contains(&streams.len()), "{}", streams.len());
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert!(error.retry_after().is_some());
        control.open();
        for stream in streams {
            assert_eq!(stream.count().await, 5);
        }
        submit().unwrap();
    });
}

#[test]
fn a_dropped_stream_frees_its_blocks_within_a_step() {
    block_on(async {
        let (model, control) = model(&Shape::default(), 100, |options| options.prefix_cache = false);
        control.close();
        let sampling = Sampling { max_tokens: Some(60), ..Sampling::default() };
        let request =
            TokenRequest { prompt: vec![65; 20], sampling, ignore_end: true, ..TokenRequest::default() };
        let keep = model.token_stream(request.clone()).unwrap();
        let mut leave = model.token_stream(request).unwrap();
        control.allow(3);
        leave.next().await.unwrap().unwrap();
        until("both run", || model.metrics().running == 2 && model.metrics().steps == 3).await;
        let used = model.metrics().blocks_used;
        drop(leave);
        // One step may be waiting for its permit already; the one after it is without the dropped request.
        control.allow(1);
        until("the blocks are free", || model.metrics().running == 1).await;
        assert!(model.metrics().steps <= 4);
        assert!(model.metrics().blocks_used <= used - 5, "{used} {:?}", model.metrics());
        control.open();
        assert_eq!(keep.count().await, 60);
        until("all is free", || model.metrics().blocks_used == 0).await;
    });
}

#[test]
fn a_deadline_ends_a_stream_and_tells_the_usage() {
    block_on(async {
        let (model, control) = model(&Shape::default(), 100, |_| {});
        control.close();
        let mut request = greedy(Input::Tokens(vec![65; 10]), 100);
        request.sampling.temperature = Some(1.0);
        let deadline = Instant::now() + Duration::from_millis(300);
        let context = RequestContext { deadline: Some(deadline), ..RequestContext::local() };
        let mut stream = model.chat(request, context).await.unwrap();
        control.allow(1);
        assert!(matches!(stream.next().await, Some(Ok(Event::Started { .. }))));
        until("the deadline has passed", || Instant::now() >= deadline).await;
        control.allow(1);
        let error = collect(stream).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
        assert_eq!(error.usage().unwrap().prompt_tokens, 10);
        control.open();
        until("all is free", || model.metrics().blocks_used == 0).await;
    });
}

#[test]
fn waiting_requests_can_be_dropped_too() {
    block_on(async {
        let (model, control) = model(&Shape::default(), 100, |options| options.max_sequences = 1);
        control.close();
        let sampling = Sampling { max_tokens: Some(4), ..Sampling::default() };
        let request =
            TokenRequest { prompt: vec![65; 20], sampling, ignore_end: true, ..TokenRequest::default() };
        let first = model.token_stream(request.clone()).unwrap();
        let second = model.token_stream(request.clone()).unwrap();
        let third = model.token_stream(request).unwrap();
        drop(second);
        control.open();
        assert_eq!((first.count().await, third.count().await), (4, 4));
        until("nothing waits", || model.metrics().waiting == 0 && model.metrics().running == 0).await;
    });
}
