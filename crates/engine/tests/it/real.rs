//! Real networks: tiny checkpoints of every family in a cache that is too small, and SmolLM2 when it is at hand.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use byzerllm_core::{ChatModel, Input, Message, Role, Sampling};
use byzerllm_engine::{EngineOptions, LocalModel, ModelText, TokenRequest};
use byzerllm_kernels::{ComputePool, PoolOptions};
use byzerllm_model::{Checkpoint, Compute, CpuOptions};
use futures::StreamExt;
use futures::future::join_all;
use serde::Deserialize;

use crate::text::{ask, block_on, greedy};

#[derive(Deserialize)]
struct Expected {
    prompts: Vec<Vec<u32>>,
    greedy_prompt: usize,
    greedy: Vec<u32>,
}

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures")
}

pub(crate) fn pool() -> Arc<ComputePool> {
    Arc::new(ComputePool::new(PoolOptions { threads: Some(2), ..PoolOptions::default() }).unwrap())
}

/// A model whose cache holds `contexts` whole contexts.
pub(crate) fn start(
    checkpoint: &Checkpoint,
    pool: &Arc<ComputePool>,
    compute: Compute,
    contexts: f64,
) -> LocalModel {
    let cpu = CpuOptions { block_tokens: 8, ..CpuOptions::new(compute) };
    let network = checkpoint.network(pool, &cpu).unwrap();
    let traits = network.traits();
    let context = traits.context_length.min(96);
    let blocks = (context.div_ceil(8) as f64 * contexts).ceil() as u64;
    let options = EngineOptions {
        cache_bytes: blocks * traits.block_bytes.iter().sum::<u64>(),
        context_length: Some(context as u32),
        max_batch_tokens: 24,
        max_sequences: 8,
        ..EngineOptions::default()
    };
    let text = ModelText {
        tokenizer: checkpoint.tokenizer().unwrap(),
        template: checkpoint.chat_template().unwrap(),
        end_tokens: checkpoint.end_tokens(),
        name: "real".to_owned(),
    };
    LocalModel::start(network, text, options).unwrap()
}

pub(crate) async fn ids(model: &LocalModel, prompt: &[u32], sampling: Sampling) -> Vec<u32> {
    let request =
        TokenRequest { prompt: prompt.to_vec(), sampling, ignore_end: true, ..TokenRequest::default() };
    model.token_stream(request).unwrap().map(|id| id.unwrap()).collect().await
}

pub(crate) fn sampling(temperature: f32, max_tokens: usize) -> Sampling {
    Sampling {
        temperature: Some(temperature),
        seed: Some(3),
        max_tokens: Some(max_tokens as u32),
        ..Sampling::default()
    }
}

#[test]
fn tiny_checkpoints_answer_alike_in_a_crowd() {
    let pool = pool();
    let mut preemptions = 0;
    let mut hits = 0;
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let path = entry.unwrap().path();
        let Ok(expected) = std::fs::read(path.join("expected.json")) else { continue };
        // An adapter alone is no checkpoint.
        if !path.join("config.json").exists() {
            continue;
        }
        let expected: Expected = serde_json::from_slice(&expected).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        for compute in Compute::ALL {
            let crowded = start(&checkpoint, &pool, compute, 1.0);
            let roomy = start(&checkpoint, &pool, compute, 8.0);
            block_on(async {
                let golden = &expected.prompts[expected.greedy_prompt];
                let prompts: Vec<&Vec<u32>> = expected.prompts.iter().chain([golden, golden]).collect();
                let context = checkpoint.config().context_length;
                let sampling =
                    |temperature, prompt: &[u32]| sampling(temperature, 30.min(context - prompt.len()));
                let runs = prompts.iter().flat_map(|prompt| {
                    [0.0, 1.0].map(|temperature| ids(&crowded, prompt, sampling(temperature, prompt)))
                });
                let together = join_all(runs).await;
                for (prompt, pair) in prompts.iter().zip(together.chunks(2)) {
                    for (temperature, found) in [0.0, 1.0].into_iter().zip(pair) {
                        let alone = ids(&roomy, prompt, sampling(temperature, prompt)).await;
                        assert_eq!(*found, alone, "{} {compute:?}", path.display());
                    }
                }
                if matches!(compute, Compute::Exact) {
                    let found = ids(&crowded, golden, self::sampling(0.0, expected.greedy.len())).await;
                    assert_eq!(found, expected.greedy, "{}", path.display());
                }
            });
            preemptions += crowded.metrics().preemptions;
            hits += roomy.metrics().prefix_hit_tokens;
        }
    }
    assert!(preemptions > 0 && hits > 0, "{preemptions} preemptions, {hits} hits");
}

#[test]
fn smollm2_gives_its_golden_answer() {
    let Some(directory) = std::env::var_os("BYZERLLM_TEST_MODELS") else { return };
    let checkpoint = Checkpoint::open(&PathBuf::from(directory).join("smollm2.gguf")).unwrap();
    let model = start(&checkpoint, &pool(), Compute::Exact, 2.0);
    let messages = [
        Message::new(Role::System, "You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
        Message::new(Role::User, "What is the capital of France?"),
    ];
    let golden = "1 9690 198 2683 359 253 5356 5646 11173 3365 3511 308 34519 28 7018 411 407 19712 8182 2 198 1 4093 \
                  198 1780 314 260 3575 282 4649 47 2 198 1 520 9531 198";
    let rendered = model.apply_template(&messages, true).unwrap();
    let prompt = model.tokenize(&rendered).unwrap();
    assert_eq!(prompt.iter().map(u32::to_string).collect::<Vec<_>>().join(" "), golden);
    block_on(async {
        for _ in 0..2 {
            let response = ask(&model, greedy(Input::Messages(messages.to_vec()), 20)).await;
            assert_eq!(response.choices[0].text, "The capital of France is Paris.");
            assert_eq!(response.choices[0].finish_reason, byzerllm_core::FinishReason::Stop);
            // The end token was generated too.
            assert_eq!((response.usage.prompt_tokens, response.usage.completion_tokens), (37, 8));
        }
        assert_eq!(model.metrics().prefix_hit_tokens, 32);
    });
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Capital {
    city: String,
    population: u64,
    coastal: bool,
}

#[test]
fn smollm2_answers_in_json() {
    let Some(directory) = std::env::var_os("BYZERLLM_TEST_MODELS") else { return };
    let checkpoint = Checkpoint::open(&PathBuf::from(directory).join("smollm2.gguf")).unwrap();
    let model = start(&checkpoint, &pool(), Compute::Standard, 8.0);
    let schema = serde_json::json!({
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 30},
            "population": {"type": "integer", "minimum": 0, "maximum": 100_000_000},
            "coastal": {"type": "boolean"}
        },
        "required": ["city", "population", "coastal"],
        "additionalProperties": false
    });
    let question = "Describe the capital of France as JSON with city, population and coastal.";
    block_on(async {
        for (seed, temperature) in [(1, 0.0), (1, 1.0), (2, 1.0), (3, 1.0)] {
            let mut request = greedy(Input::Messages(vec![Message::new(Role::User, question)]), 48);
            request.sampling.temperature = Some(temperature);
            request.sampling.seed = Some(seed);
            request.format = byzerllm_core::ResponseFormat::JsonSchema(schema.clone());
            let response = ask(&model, request).await;
            let text = &response.choices[0].text;
            let capital: Capital =
                serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
            assert!(capital.city.chars().count() <= 30 && capital.population <= 100_000_000);
            if temperature == 0.0 {
                assert!(capital.city.contains("Paris") && !capital.coastal, "{capital:?}");
            }
        }
    });
}
