//! Answers equal those of a naive generator, whatever else runs and however small the cache is.

use byzerllm_core::{
    ChatModel, ChatRequest, Domain, FinishReason, Input, Principal, RequestContext, Sampling, collect,
};
use byzerllm_engine::TokenRequest;
use futures::StreamExt;
use futures::future::join_all;
use proptest::prelude::*;

use crate::fake::{END, Shape, naive_greedy, naive_logits};
use crate::text::{ask, block_on, greedy, model, model_text, tokenizer};

#[test]
fn greedy_answers_equal_the_naive_generator() {
    block_on(async {
        let (model, _) = model(&Shape::default(), 100, |_| {});
        for length in [1u32, 3, 4, 5, 17, 60] {
            let prompt: Vec<u32> = (0..length).map(|place| 40 + place % 7).collect();
            let expected = naive_greedy(&[None], &prompt, 30);
            let sampling = Sampling { temperature: Some(0.0), max_tokens: Some(30), ..Sampling::default() };
            let request = TokenRequest { prompt: prompt.clone(), sampling, ..TokenRequest::default() };
            let ids: Vec<u32> = model.token_stream(request).unwrap().map(|id| id.unwrap()).collect().await;
            assert_eq!(ids, expected);
            let response = ask(&model, greedy(Input::Tokens(prompt), 30)).await;
            assert_eq!(response.choices[0].text, tokenizer().decode(&expected, true));
        }
    });
}

#[derive(Debug, Clone)]
struct Mix {
    shape: Shape,
    spare: u64,
    batch: usize,
    sequences: usize,
    requests: Vec<(ChatRequest, u64)>,
}

fn mixes() -> impl Strategy<Value = Mix> {
    let windows = prop_oneof![Just(vec![None]), Just(vec![Some(7)]), Just(vec![None, Some(10)])];
    let shape = (windows, 2usize..6, any::<bool>(), any::<bool>()).prop_map(
        |(windows, block_tokens, chunkable, shareable)| Shape {
            windows,
            block_tokens,
            context_length: 64,
            chunkable: chunkable || shareable,
            shareable,
        },
    );
    let request = (
        (0usize..40, prop::collection::vec(60u32..64, 1..8), 1u32..4, 0u32..24),
        prop_oneof![Just(0.0f32), Just(1.0f32)],
        (any::<u64>(), 0u32..3, prop::option::of(0u32..3), prop::option::of(0u32..3)),
        0u64..2,
    )
        .prop_map(
            |(
                (common, own, n, max_tokens),
                temperature,
                (seed, top_k, logprobs, prompt_logprobs),
                domain,
            )| {
                let mut prompt: Vec<u32> = (0..common as u32).map(|place| 100 + place % 3).collect();
                prompt.extend(own);
                let sampling = Sampling {
                    temperature: Some(temperature),
                    seed: Some(seed),
                    top_k: Some(top_k * 20),
                    max_tokens: Some(max_tokens.min(64 - prompt.len() as u32)),
                    logprobs,
                    ..Sampling::default()
                };
                let request = ChatRequest {
                    sampling,
                    n,
                    prompt_logprobs,
                    ..ChatRequest::new("hash", Input::Tokens(prompt))
                };
                (request, domain)
            },
        );
    (shape, 0u64..20, 4usize..40, 3usize..8, prop::collection::vec(request, 1..12)).prop_map(
        |(shape, spare, batch, sequences, requests)| Mix { shape, spare, batch, sequences, requests },
    )
}

fn context(domain: u64) -> RequestContext {
    let principal = Principal { domain: Domain(domain), key_name: None };
    RequestContext { principal, ..RequestContext::local() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Together in a tiny cache, and alone in a big one: the same text, numbers and reasons.
    #[test]
    fn answers_do_not_depend_on_company(mix in mixes()) {
        let blocks = (64 / mix.shape.block_tokens as u64 + 1) + mix.spare;
        let (crowded, _) = model(&mix.shape, blocks, |options| {
            options.max_batch_tokens = mix.batch;
            options.max_sequences = mix.sequences;
        });
        block_on(async {
            let together = join_all(mix.requests.iter().map(|(request, domain)| async {
                let stream = crowded.chat(request.clone(), context(*domain)).await.unwrap();
                collect(stream).await.unwrap()
            }))
            .await;
            for ((request, _), response) in mix.requests.iter().zip(together) {
                let (alone, _) = model(&mix.shape, 1000, |options| options.prefix_cache = false);
                let expected = ask(&alone, request.clone()).await;
                assert_eq!(response.choices, expected.choices);
                assert_eq!(response.prompt_logprobs, expected.prompt_logprobs);
                assert_eq!(response.usage.completion_tokens, expected.usage.completion_tokens);
                let Input::Tokens(prompt) = &request.input else { unreachable!() };
                if request.sampling.temperature == Some(0.0) {
                    let limit = request.sampling.max_tokens.unwrap() as usize;
                    let naive = naive_greedy(&mix.shape.windows, prompt, limit);
                    assert_eq!(response.choices[0].text, tokenizer().decode(&naive, true));
                    let reason = if naive.len() < limit { FinishReason::Stop } else { FinishReason::Length };
                    assert_eq!(response.choices[0].finish_reason, reason);
                }
            }
        });
        let metrics = crowded.metrics();
        block_on(crate::text::until("all blocks are free", || crowded.metrics().blocks_used == 0));
        prop_assert_eq!(metrics.running, 0);
    }
}

#[test]
fn tiny_caches_preempt_and_share() {
    block_on(async {
        let shape = Shape { context_length: 64, ..Shape::default() };
        let (model, _) = model(&shape, 20, |_| {});
        let prompt: Vec<u32> = (0..20).map(|place| 100 + place % 3).collect();
        let requests = (0..8).map(|index| {
            let mut prompt = prompt.clone();
            prompt.push(60 + index);
            ask(&model, greedy(Input::Tokens(prompt), 40))
        });
        join_all(requests).await;
        ask(&model, greedy(Input::Tokens(prompt), 4)).await;
        let metrics = model.metrics();
        assert!(metrics.preemptions > 0, "{metrics:?}");
        assert!(metrics.prefix_hit_tokens > 0, "{metrics:?}");
    });
}

#[test]
fn seeds_decide_and_choices_differ() {
    block_on(async {
        let (model, _) = model(&Shape::default(), 200, |_| {});
        let request = |seed: Option<u64>, n: u32| {
            let sampling =
                Sampling { temperature: Some(1.0), seed, max_tokens: Some(20), ..Sampling::default() };
            ChatRequest { sampling, n, ..ChatRequest::new("hash", Input::Text("Once".into())) }
        };
        let first = ask(&model, request(Some(1), 3)).await;
        let again = ask(&model, request(Some(1), 3)).await;
        let single = ask(&model, request(Some(1), 1)).await;
        let other = ask(&model, request(Some(2), 1)).await;
        assert_eq!(first.choices, again.choices);
        assert_eq!(first.choices[0], single.choices[0]);
        assert_ne!(single.choices[0].text, other.choices[0].text);
        assert_ne!(first.choices[0].text, first.choices[1].text);
        assert_ne!(first.choices[1].text, first.choices[2].text);
        let (one, two) = (ask(&model, request(None, 1)).await, ask(&model, request(None, 1)).await);
        assert_ne!(one.choices[0].text, two.choices[0].text, "without a seed every request has its own");
    });
}

#[test]
fn log_probabilities_are_those_of_the_network() {
    block_on(async {
        let (model, _) = model(&Shape::default(), 200, |_| {});
        let prompt: Vec<u32> = (0..10).map(|place| 65 + place).collect();
        let mut request = greedy(Input::Tokens(prompt.clone()), 5);
        request.sampling.logprobs = Some(3);
        request.prompt_logprobs = Some(2);
        request.echo = true;
        let response = ask(&model, request.clone()).await;
        let expected = naive_greedy(&[None], &prompt, 5);
        assert!(!expected.contains(&END) && expected.len() == 5, "the test needs five tokens");

        let check = |before: &[u32], id: u32, found: &byzerllm_core::TokenLogprob, top: usize| {
            let logits = naive_logits(&[None], before);
            let total: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
            let exact = f64::from(logits[id as usize]) - total.ln();
            assert_eq!(found.id, id);
            assert_eq!(found.bytes, tokenizer().token_bytes(id).unwrap());
            assert!((f64::from(found.logprob.unwrap()) - exact).abs() < 1e-4);
            assert_eq!(found.top.len(), top);
            assert!(found.top.is_sorted_by(|a, b| a.2 >= b.2));
        };
        let prompt_logprobs = response.prompt_logprobs.unwrap();
        assert_eq!(prompt_logprobs.len(), prompt.len());
        assert_eq!((prompt_logprobs[0].id, prompt_logprobs[0].logprob), (prompt[0], None));
        for place in 1..prompt.len() {
            check(&prompt[..place], prompt[place], &prompt_logprobs[place], 2);
        }
        let logprobs = response.choices[0].logprobs.as_ref().unwrap();
        assert_eq!(logprobs.len(), expected.len());
        let mut before = prompt.clone();
        for (found, &id) in logprobs.iter().zip(&expected) {
            check(&before, id, found, 3);
            before.push(id);
        }
        let all = [&prompt[..], &expected].concat();
        assert_eq!(response.choices[0].text, tokenizer().decode(&all, true));

        // max_tokens 0 scores the prompt and generates nothing.
        request.sampling.max_tokens = Some(0);
        let scored = ask(&model, request).await;
        assert_eq!(scored.prompt_logprobs.unwrap(), prompt_logprobs);
        assert_eq!(scored.choices[0].text, tokenizer().decode(&prompt, true));
        assert_eq!(scored.choices[0].finish_reason, FinishReason::Length);
        assert_eq!((scored.usage.prompt_tokens, scored.usage.completion_tokens), (10, 0));
    });
}

#[test]
fn stop_strings_and_stop_tokens_end_a_choice() {
    block_on(async {
        let (model, _) = model(&Shape::default(), 200, |_| {});
        let prompt: Vec<u32> = b"stop me".iter().map(|&byte| u32::from(byte)).collect();
        let ids = naive_greedy(&[None], &prompt, 60);
        let text = tokenizer().decode(&ids, true);
        let characters: Vec<(usize, char)> = text.char_indices().collect();
        assert!(characters.len() > 12, "the test needs a longer text: {text:?}");
        // Every stretch of two or three characters, as a stop string.
        for (place, length) in (0..characters.len() - 3).flat_map(|place| [(place, 2), (place, 3)]) {
            let stop: String = characters[place..place + length].iter().map(|(_, c)| *c).collect();
            let cut = text.find(&stop).unwrap();
            let mut request = greedy(Input::Tokens(prompt.clone()), 60);
            request.sampling.stop = Some(vec![stop, "never".into()]);
            request.sampling.logprobs = Some(0);
            let response = ask(&model, request).await;
            assert_eq!(response.choices[0].text, text[..cut]);
            assert_eq!(response.choices[0].finish_reason, FinishReason::Stop);
            let tokens = response.choices[0].logprobs.as_ref().map_or(0, Vec::len);
            assert!(response.usage.completion_tokens as usize > tokens);
            let shown: Vec<u32> = ids[..tokens].to_vec();
            assert!(tokenizer().decode(&shown, true).starts_with(text[..cut].trim_end_matches('\u{fffd}')));
        }
        let mut request = greedy(Input::Tokens(prompt), 60);
        request.sampling.stop_token_ids = Some(vec![ids[5]]);
        let place = ids.iter().position(|&id| id == ids[5]).unwrap();
        let response = ask(&model, request).await;
        assert_eq!(response.choices[0].text, tokenizer().decode(&ids[..place], true));
        assert_eq!(response.usage.completion_tokens as usize, place + 1);
    });
}

#[test]
fn messages_are_rendered_and_text_gets_its_first_token() {
    block_on(async {
        let (model, _) = model(&Shape::default(), 200, |_| {});
        let messages = vec![byzerllm_core::Message::new(byzerllm_core::Role::User, "Hi")];
        let rendered = model.apply_template(&messages, true).unwrap();
        assert_eq!(rendered, "user: Hi\nassistant:");
        let ids = model.tokenize(&rendered).unwrap();
        let response = ask(&model, greedy(Input::Messages(messages), 9)).await;
        assert_eq!(response.usage.prompt_tokens as usize, rendered.len());
        assert_eq!(response.choices[0].text, tokenizer().decode(&naive_greedy(&[None], &ids, 9), true));

        let response = ask(&model, greedy(Input::Text("Hi".into()), 9)).await;
        let ids = [256, u32::from(b'H'), u32::from(b'i')];
        assert_eq!(response.usage.prompt_tokens, 3);
        assert_eq!(response.choices[0].text, tokenizer().decode(&naive_greedy(&[None], &ids, 9), true));

        // An empty text is its first token alone.
        let response = ask(&model, greedy(Input::Text(String::new()), 3)).await;
        assert_eq!(response.usage.prompt_tokens, 1);
        let response = ask(&model, greedy(Input::Tokens(Vec::new()), 3)).await;
        assert_eq!(response.usage.prompt_tokens, 1);
    });
    let text = model_text(false);
    assert!(text.template.is_none());
}
