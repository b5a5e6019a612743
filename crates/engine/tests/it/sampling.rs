//! Penalties, biases, minimum lengths and candidates, against a naive generator.

use std::collections::BTreeMap;

use byzerllm_core::{
    ChatModel, ChatRequest, ChatResponse, ErrorKind, FinishReason, Input, RequestContext, Sampling,
};
use futures::future::join_all;
use proptest::prelude::*;

use crate::fake::{END, Shape, VOCAB, naive_greedy, naive_logits};
use crate::text::{ask, block_on, greedy, model, tokenizer};

/// The greedy continuation under the documented formulas.
fn naive_changed(prompt: &[u32], sampling: &Sampling, max_tokens: usize) -> Vec<u32> {
    let mut generated: Vec<u32> = Vec::new();
    while generated.len() < max_tokens {
        let mut logits = naive_logits(&[None], &[prompt, &generated].concat());
        for (id, logit) in logits.iter_mut().enumerate() {
            let id = id as u32;
            let count = generated.iter().filter(|&&other| other == id).count();
            if count > 0 || prompt.contains(&id) {
                let penalty = sampling.repetition_penalty.unwrap_or(1.0);
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
            if count > 0 {
                *logit -= sampling.presence_penalty.unwrap_or(0.0);
                *logit -= sampling.frequency_penalty.unwrap_or(0.0) * count as f32;
            }
            *logit += sampling.logit_bias.as_ref().and_then(|bias| bias.get(&id)).unwrap_or(&0.0);
            if id == END && generated.len() < sampling.min_tokens.unwrap_or(0) as usize {
                *logit = f32::NEG_INFINITY;
            }
        }
        let best = (0..VOCAB).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32;
        if best == END && !sampling.ignore_end.unwrap_or(false) {
            break;
        }
        generated.push(best);
    }
    generated
}

fn changes() -> impl Strategy<Value = Sampling> {
    let penalty = || prop::option::of(prop_oneof![Just(-2.0f32), Just(0.5), Just(2.0)]);
    (
        penalty(),
        penalty(),
        prop::option::of(prop_oneof![Just(0.5f32), Just(1.3), Just(3.0)]),
        // The end token and some letters get more likely.
        prop::option::of(prop::collection::btree_map(250u32..VOCAB as u32, -3.0f32..3.0, 0..5)),
        prop::option::of(0u32..20),
        prop::option::of(any::<bool>()),
    )
        .prop_map(|(presence, frequency, repetition, bias, min_tokens, ignore_end)| Sampling {
            temperature: Some(0.0),
            max_tokens: Some(24),
            presence_penalty: presence,
            frequency_penalty: frequency,
            repetition_penalty: repetition,
            logit_bias: bias,
            min_tokens,
            ignore_end,
            ..Sampling::default()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Several at once in a cache that forces preemption.
    #[test]
    fn changed_answers_equal_the_naive_generator(
        requests in prop::collection::vec((prop::collection::vec(250u32..256, 1..16), changes()), 1..6),
    ) {
        let shape = Shape { context_length: 64, ..Shape::default() };
        let (model, _) = model(&shape, 18, |options| options.max_sequences = 4);
        block_on(async {
            let answers = requests.iter().map(|(prompt, sampling)| {
                let input = Input::Tokens(prompt.clone());
                ask(&model, ChatRequest { sampling: sampling.clone(), ..ChatRequest::new("hash", input) })
            });
            let answers = join_all(answers).await;
            for ((prompt, sampling), answer) in requests.iter().zip(answers) {
                let expected = naive_changed(prompt, sampling, 24);
                // The answer continues the prompt's text, whose last bytes may be part of a character.
                let whole = tokenizer().decode(&[prompt, &expected[..]].concat(), true);
                assert!(whole.ends_with(&answer.choices[0].text), "{whole:?} {answer:?}");
                let ended = expected.len() < 24;
                assert_eq!(answer.usage.completion_tokens as usize, expected.len() + usize::from(ended));
            }
        });
    }
}

fn text(prompt: &str, max_tokens: u32) -> ChatRequest {
    greedy(Input::Text(prompt.into()), max_tokens)
}

#[test]
fn extreme_biases_decide() {
    block_on(async {
        let (model, _) = model(&Shape::default(), 200, |_| {});
        let mut request = text("Go", 12);
        request.sampling.temperature = Some(1.0);
        request.sampling.logit_bias = Some(BTreeMap::from([(u32::from(b'z'), 100.0)]));
        request.sampling.logprobs = Some(0);
        let answer = ask(&model, request.clone()).await;
        assert_eq!(answer.choices[0].text, "z".repeat(12));
        // Log probabilities are those of the model, which finds the letter as unlikely as any.
        let logprobs = answer.choices[0].logprobs.as_ref().unwrap();
        assert!(logprobs.iter().all(|logprob| logprob.logprob.unwrap() < -0.5));

        let plain = ask(&model, text("Go", 12)).await;
        let first = plain.choices[0].text.bytes().next().unwrap();
        let mut request = text("Go", 12);
        request.sampling.logit_bias = Some(BTreeMap::from([(u32::from(first), -100.0)]));
        let answer = ask(&model, request).await;
        assert!(!answer.choices[0].text.bytes().any(|byte| byte == first));

        let mut request = text("Go", 12);
        request.sampling.logit_bias = Some(BTreeMap::from([(VOCAB as u32, 1.0)]));
        let error = model.chat(request, RequestContext::local()).await.map(|_| ()).unwrap_err();
        assert_eq!((error.kind(), error.param()), (ErrorKind::InvalidRequest, Some("logit_bias")));
    });
}

#[test]
fn the_end_waits_for_min_tokens_and_can_be_ignored() {
    block_on(async {
        let (model, _) = model(&Shape::default(), 200, |_| {});
        let ends = BTreeMap::from([(END, 100.0)]);
        let mut request = text("Go", 20);
        request.sampling.logit_bias = Some(ends.clone());
        assert_eq!(ask(&model, request.clone()).await.usage.completion_tokens, 1);
        request.sampling.min_tokens = Some(7);
        let answer = ask(&model, request.clone()).await;
        assert_eq!(answer.usage.completion_tokens, 8);
        assert_eq!(answer.choices[0].finish_reason, FinishReason::Stop);
        request.sampling.ignore_end = Some(true);
        request.sampling.min_tokens = None;
        let answer = ask(&model, request.clone()).await;
        assert_eq!((answer.usage.completion_tokens, answer.choices[0].text.as_str()), (20, ""));
        assert_eq!(answer.choices[0].finish_reason, FinishReason::Length);
        // A stop token that the caller asked for still ends it, but not too early.
        request.sampling.stop_token_ids = Some(vec![END]);
        request.sampling.min_tokens = Some(3);
        assert_eq!(ask(&model, request.clone()).await.usage.completion_tokens, 4);

        request.sampling.min_tokens = Some(21);
        let error = model.chat(request, RequestContext::local()).await.map(|_| ()).unwrap_err();
        assert_eq!((error.kind(), error.param()), (ErrorKind::InvalidRequest, Some("min_tokens")));

        // A stop string counts only in text after the first tokens.
        let mut request = text("Go", 20);
        request.sampling.logit_bias = Some(BTreeMap::from([(u32::from(b'z'), 100.0)]));
        request.sampling.stop = Some(vec!["zz".into()]);
        request.sampling.min_tokens = Some(5);
        let answer = ask(&model, request).await;
        assert_eq!(answer.choices[0].text, "zzzzz");
        assert_eq!(answer.choices[0].finish_reason, FinishReason::Stop);
    });
}

fn mean(answer: &ChatResponse, choice: usize) -> f64 {
    let logprobs = answer.choices[choice].logprobs.as_ref().unwrap();
    logprobs.iter().map(|token| f64::from(token.logprob.unwrap())).sum::<f64>() / logprobs.len() as f64
}

#[test]
fn the_best_candidates_are_kept() {
    block_on(async {
        let (model, _) = model(&Shape::default(), 400, |options| options.max_sequences = 8);
        let sampling = Sampling {
            temperature: Some(1.0),
            seed: Some(5),
            max_tokens: Some(12),
            ignore_end: Some(true),
            logprobs: Some(0),
            ..Sampling::default()
        };
        let mut request =
            ChatRequest { sampling, n: 8, ..ChatRequest::new("hash", Input::Text("Once".into())) };
        let all = ask(&model, request.clone()).await;
        let mut order: Vec<usize> = (0..8).collect();
        order.sort_by(|&a, &b| mean(&all, b).total_cmp(&mean(&all, a)));
        assert_ne!(order[0], 0, "the test needs a seed whose first candidate is not the best");

        request.n = 3;
        request.best_of = Some(8);
        let best = ask(&model, request.clone()).await;
        let expected: Vec<_> = order[..3].iter().map(|&place| all.choices[place].clone()).collect();
        assert_eq!(best.choices, expected);
        assert_eq!(best.usage.completion_tokens, 8 * 12);

        // Without log probabilities asked for, none are told.
        request.sampling.logprobs = None;
        request.n = 1;
        request.echo = true;
        let one = ask(&model, request.clone()).await;
        assert_eq!(one.choices.len(), 1);
        assert!(one.choices[0].logprobs.is_none());
        assert_eq!(one.choices[0].text, format!("Once{}", expected[0].text));

        for best_of in [0, 9] {
            request.best_of = Some(best_of);
            let error = model.chat(request.clone(), RequestContext::local()).await.map(|_| ()).unwrap_err();
            assert_eq!((error.kind(), error.param()), (ErrorKind::InvalidRequest, Some("best_of")));
        }
        request.best_of = Some(1);
        request.echo = false;
        assert_eq!(ask(&model, request).await.choices[0].text, all.choices[0].text);
    });
}

#[test]
fn penalties_change_nothing_when_they_are_off() {
    block_on(async {
        let (model, _) = model(&Shape::default(), 200, |_| {});
        let prompt: Vec<u32> = b"same".iter().map(|&byte| u32::from(byte)).collect();
        let mut request = greedy(Input::Tokens(prompt.clone()), 20);
        request.sampling.repetition_penalty = Some(1.0);
        request.sampling.presence_penalty = Some(0.0);
        request.sampling.frequency_penalty = Some(0.0);
        request.sampling.logit_bias = Some(BTreeMap::new());
        request.sampling.min_tokens = Some(0);
        let expected = naive_greedy(&[None], &prompt, 20);
        assert_eq!(ask(&model, request).await.choices[0].text, tokenizer().decode(&expected, true));
    });
}
