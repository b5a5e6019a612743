//! As many streams as an engine runs by default.

use byzerllm_core::Sampling;
use byzerllm_engine::TokenRequest;
use futures::StreamExt;
use futures::future::join_all;

use crate::fake::{Shape, VOCAB, naive_logits};
use crate::text::{block_on, model, until};

const STREAMS: usize = 256;
const TOKENS: usize = 12;

/// Greedy, past the end token.
fn expected(windows: &[Option<usize>], prompt: &[u32]) -> Vec<u32> {
    let mut tokens = prompt.to_vec();
    for _ in 0..TOKENS {
        let logits = naive_logits(windows, &tokens);
        let best = (0..VOCAB).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
        tokens.push(best as u32);
    }
    tokens.split_off(prompt.len())
}

#[test]
fn each_of_256_streams_gets_its_own_answer() {
    // With room for all of them at once, and with so little that sequences give their blocks back.
    for (blocks, roomy) in [(STREAMS as u64 * 16, true), (400, false)] {
        let shape = Shape { windows: vec![None, Some(9)], ..Shape::default() };
        let (model, control) = model(&shape, blocks, |_| {});
        control.close();
        let prompts: Vec<Vec<u32>> = (0..STREAMS as u32)
            .map(|stream| (0..1 + stream % 23).map(|place| 40 + (stream * 31 + place * 7) % 200).collect())
            .collect();
        let streams: Vec<_> = prompts
            .iter()
            .map(|prompt| {
                let sampling = Sampling {
                    temperature: Some(0.0),
                    max_tokens: Some(TOKENS as u32),
                    ..Sampling::default()
                };
                let request = TokenRequest {
                    prompt: prompt.clone(),
                    sampling,
                    ignore_end: true,
                    ..TokenRequest::default()
                };
                model.token_stream(request).unwrap()
            })
            .collect();
        let answers = block_on(async {
            if roomy {
                // Ten steps at most compute all prompts; each answer takes twelve.
                control.allow(10);
                until("all run", || model.metrics().running == STREAMS).await;
            }
            control.open();
            let answers = join_all(streams.into_iter().map(StreamExt::collect::<Vec<_>>)).await;
            until("all is free", || model.metrics().blocks_used == 0).await;
            answers
        });
        for (prompt, answer) in prompts.iter().zip(answers) {
            let answer: Vec<u32> = answer.into_iter().map(Result::unwrap).collect();
            assert_eq!(answer, expected(&shape.windows, prompt), "after {prompt:?}, {blocks} blocks");
        }
        let metrics = model.metrics();
        assert_eq!((metrics.running, metrics.waiting), (0, 0));
        assert_eq!(metrics.preemptions == 0, roomy, "{metrics:?}");
        assert_eq!(metrics.generated_tokens, (STREAMS * TOKENS) as u64, "{metrics:?}");
    }
}
