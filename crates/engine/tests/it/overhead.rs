//! What a step costs outside the network. A measurement, run by hand:
//! `cargo test --release -p byzerllm-engine --test it overhead -- --ignored --nocapture`.

use std::sync::Arc;
use std::time::Instant;

use byzerllm_core::{Result, Sampling};
use byzerllm_engine::{EngineOptions, LocalModel, TokenRequest};
use byzerllm_model::config::CacheGroup;
use byzerllm_model::{Network, NetworkTraits, PackedBatch, Rows};
use futures::StreamExt;
use futures::future::join_all;

use crate::text::{block_on, model_text};

/// Computes nothing.
struct Flat {
    traits: NetworkTraits,
    logits: Arc<Vec<f32>>,
}

impl Network for Flat {
    fn traits(&self) -> &NetworkTraits {
        &self.traits
    }

    fn allocate_cache(&mut self, _blocks: &[usize]) -> Result<()> {
        Ok(())
    }

    fn copy_block(&mut self, _group: usize, _from: u32, _to: u32) {}

    fn forward(&mut self, batch: &PackedBatch<'_>) -> Result<Rows<'_>> {
        let width = self.traits.vocab_size;
        Ok(Rows::new(&self.logits[..batch.rows.len() * width], width))
    }
}

fn microseconds_per_step(vocab_size: usize, sequences: usize, temperature: f32) -> f64 {
    let traits = NetworkTraits {
        vocab_size,
        hidden_size: 1,
        context_length: 4096,
        position_width: 1,
        cache_groups: vec![CacheGroup { layers: vec![0], window: None, floats_per_token: 1 }],
        chunkable_prefill: true,
        shareable_prefix: true,
        weight_bytes: 0,
        block_bytes: vec![1],
        block_tokens: 32,
        compute: "none".to_owned(),
    };
    let logits = (0..vocab_size * sequences).map(|place| ((place * 7919) % 1009) as f32 / 50.0).collect();
    let options = EngineOptions { cache_bytes: 1 << 20, ..EngineOptions::default() };
    let network = Flat { traits, logits: Arc::new(logits) };
    let model = LocalModel::start(Box::new(network), model_text(false), options).unwrap();
    let sampling = Sampling { temperature: Some(temperature), max_tokens: Some(200), ..Sampling::default() };
    let prompt: Vec<u32> = (0..64).collect();
    let start = Instant::now();
    block_on(join_all((0..sequences).map(|_| {
        let request = TokenRequest {
            prompt: prompt.clone(),
            sampling: sampling.clone(),
            ignore_end: true,
            ..TokenRequest::default()
        };
        model.token_stream(request).unwrap().count()
    })));
    start.elapsed().as_secs_f64() * 1e6 / model.metrics().steps as f64
}

#[test]
#[ignore = "a measurement"]
fn overhead_of_a_step() {
    for (vocab_size, sequences, temperature) in [
        (258, 1, 0.0),
        (258, 256, 0.0),
        (258, 256, 1.0),
        (150_000, 1, 0.0),
        (150_000, 1, 1.0),
        (150_000, 16, 1.0),
    ] {
        let cost = microseconds_per_step(vocab_size, sequences, temperature);
        println!(
            "vocabulary {vocab_size}, {sequences} sequences, temperature {temperature}: {cost:.0} us per step"
        );
    }
}
