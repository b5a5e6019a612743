//! A network that reads the context of a prompt in both directions (ChatGLM-6B), in a crowd and in too little cache.

use byzerllm_core::{Input, Message, Role};
use byzerllm_model::{Checkpoint, Compute};
use futures::future::join_all;
use serde_json::Value;

use crate::real::{fixtures, ids, pool, sampling, start};
use crate::text::{ask, block_on, greedy};

fn prompts(value: &Value) -> Vec<Vec<u32>> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn answers_do_not_depend_on_the_crowd_or_on_preemptions() {
    let directory = fixtures().join("chatglm-6b-f16");
    let expected: Value =
        serde_json::from_slice(&std::fs::read(directory.join("expected.json")).unwrap()).unwrap();
    let mut prompts = prompts(&expected["prompts"]);
    let greedy: Vec<u32> = serde_json::from_value(expected["greedy"].clone()).unwrap();
    let golden = prompts[1].clone();
    // The same beginning with another end of the context: nothing of it may be shared.
    let mut longer = golden.clone();
    longer.splice(4..4, 20..40);
    let mut changed = longer.clone();
    changed[20] += 1;
    prompts.extend([longer, changed, golden.clone()]);

    let checkpoint = Checkpoint::open(&directory).unwrap();
    let pool = pool();
    for compute in Compute::ALL {
        let crowded = start(&checkpoint, &pool, compute, 1.0);
        let roomy = start(&checkpoint, &pool, compute, 8.0);
        block_on(async {
            let runs = prompts.iter().flat_map(|prompt| {
                [0.0, 1.0].map(|temperature| ids(&crowded, prompt, sampling(temperature, 30)))
            });
            let together = join_all(runs).await;
            for (prompt, pair) in prompts.iter().zip(together.chunks(2)) {
                for (temperature, found) in [0.0, 1.0].into_iter().zip(pair) {
                    let alone = ids(&roomy, prompt, sampling(temperature, 30)).await;
                    assert_eq!(*found, alone, "{compute:?} {prompt:?}");
                }
            }
            if matches!(compute, Compute::Exact) {
                assert_eq!(ids(&crowded, &golden, sampling(0.0, greedy.len())).await, greedy);
            }
        });
        assert!(crowded.metrics().preemptions > 0, "{compute:?}");
        assert_eq!(roomy.metrics().prefix_hit_tokens, 0, "{compute:?}");
    }
}

#[test]
fn a_conversation_is_the_prompt_that_was_published() {
    let checkpoint = Checkpoint::open(&fixtures().join("chatglm-6b-f16")).unwrap();
    let model = start(&checkpoint, &pool(), Compute::Exact, 4.0);
    let tokenizer = checkpoint.tokenizer().unwrap();
    let prompt = tokenizer.encode("a tin", true).unwrap();
    block_on(async {
        let asked = greedy(Input::Messages(vec![Message::new(Role::User, "a tin")]), 12);
        let typed = greedy(Input::Text("a tin".to_owned()), 12);
        let (asked, typed) = (ask(&model, asked).await, ask(&model, typed).await);
        let found = ids(&model, &prompt, sampling(0.0, 12)).await;
        // The end token may come earlier: the texts are then the beginning of what the ids say.
        assert!(tokenizer.decode(&found, true).starts_with(asked.choices[0].text.as_str()));
        assert_eq!(asked.choices[0].text, typed.choices[0].text);
        assert_eq!(asked.usage.prompt_tokens, prompt.len() as u32);
    });
}
