//! Who shares cached blocks with whom, and networks that cannot share or cut.

use std::sync::atomic::Ordering;

use byzerllm_core::{ChatModel, ChatRequest, Domain, Input, Notice, Principal, RequestContext, collect};

use crate::fake::{Shape, naive_greedy};
use crate::text::{ask, block_on, greedy, model, tokenizer};

fn in_domain(domain: u64) -> RequestContext {
    let principal = Principal { domain: Domain(domain), key_name: None };
    RequestContext { principal, ..RequestContext::local() }
}

fn prompt(length: u32) -> Vec<u32> {
    (0..length).map(|place| 65 + place % 23).collect()
}

#[test]
fn domains_never_share() {
    block_on(async {
        let (model, _) = model(&Shape::default(), 400, |_| {});
        let mut cached = Vec::new();
        for domain in [1, 2, 1, 2, 3] {
            let request = greedy(Input::Tokens(prompt(41)), 2);
            let response = collect(model.chat(request, in_domain(domain)).await.unwrap()).await.unwrap();
            cached.push(response.usage.cached_tokens);
            let noticed = response.notices.contains(&Notice::CacheHit { tokens: 40 });
            assert_eq!(noticed, response.usage.cached_tokens == 40);
        }
        assert_eq!(cached, [0, 0, 40, 40, 0]);
        assert_eq!(model.metrics().prefix_hit_tokens, 80);
    });
}

#[test]
fn the_last_prompt_token_is_always_computed() {
    block_on(async {
        let (model, _) = model(&Shape::default(), 400, |_| {});
        for expected in [0, 36, 36] {
            let response = ask(&model, greedy(Input::Tokens(prompt(40)), 5)).await;
            assert_eq!(response.usage.cached_tokens, expected);
            let ids = naive_greedy(&[None], &prompt(40), 5);
            assert_eq!(response.choices[0].text, tokenizer().decode(&ids, true));
        }
    });
}

#[test]
fn answers_are_reused_by_the_next_turn() {
    block_on(async {
        let (model, _) = model(&Shape::default(), 400, |_| {});
        let mut tokens = prompt(22);
        let answer = naive_greedy(&[None], &tokens, 12);
        assert_eq!(answer.len(), 12, "the test needs an answer without an end");
        ask(&model, greedy(Input::Tokens(tokens.clone()), 12)).await;
        tokens.extend(&answer);
        tokens.extend([70, 71, 72]);
        let response = ask(&model, greedy(Input::Tokens(tokens), 3)).await;
        // 22 + 12 tokens, of which the last was sampled but not computed.
        assert_eq!(response.usage.cached_tokens, 32);
    });
}

#[test]
fn networks_that_cannot_share_or_cut_are_obeyed() {
    block_on(async {
        let shape = Shape { shareable: false, chunkable: false, ..Shape::default() };
        let (model, control) = model(&shape, 400, |options| {
            options.max_batch_tokens = 8;
            options.max_sequences = 4;
        });
        for _ in 0..2 {
            let response = ask(&model, greedy(Input::Tokens(prompt(100)), 3)).await;
            assert_eq!(response.usage.cached_tokens, 0);
        }
        assert_eq!(control.largest.load(Ordering::SeqCst), 100);
        assert_eq!(model.metrics().blocks_cached, 0);

        let (model, control) = crate::text::model(&Shape::default(), 400, |options| {
            options.max_batch_tokens = 8;
            options.max_sequences = 4;
        });
        ask(&model, greedy(Input::Tokens(prompt(100)), 3)).await;
        assert!(control.largest.load(Ordering::SeqCst) <= 8);
    });
}

#[test]
fn choices_share_the_prompt() {
    block_on(async {
        let (model, control) = model(&Shape::default(), 400, |options| options.prefix_cache = false);
        let request = ChatRequest { n: 5, ..greedy(Input::Tokens(prompt(50)), 6) };
        let response = ask(&model, request).await;
        let ids = naive_greedy(&[None], &prompt(50), 6);
        assert_eq!(ids.len(), 6, "the test needs six tokens");
        for choice in &response.choices {
            assert_eq!(choice.text, tokenizer().decode(&ids, true));
        }
        assert_eq!(control.computed.load(Ordering::SeqCst), 50 + 5 * 5);
        assert_eq!((response.usage.prompt_tokens, response.usage.completion_tokens), (50, 30));
    });
}

#[test]
fn windows_free_what_has_passed() {
    block_on(async {
        let shape = Shape { windows: vec![Some(8)], context_length: 4000, ..Shape::default() };
        let (model, _) = model(&shape, 12, |options| {
            options.max_batch_tokens = 16;
            options.max_sequences = 2;
        });
        // 2000 tokens pass through 12 blocks of 4.
        let long: Vec<u32> = (0..2000).map(|place| 65 + place % 23).collect();
        let response = ask(&model, greedy(Input::Tokens(long.clone()), 30)).await;
        let ids = naive_greedy(&[Some(8)], &long, 30);
        assert_eq!(response.choices[0].text, tokenizer().decode(&ids, true));
        assert_eq!(model.metrics().preemptions, 0);
    });
}
