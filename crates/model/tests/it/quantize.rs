//! Quantization at load: what it costs in quality, what it saves, what it leaves alone.

use std::sync::Arc;
use std::sync::Mutex;

use byzerllm_kernels::{ComputePool, PoolOptions};
use byzerllm_model::{Checkpoint, Compute, CpuOptions, LoadError, Quantization};

use crate::support::{Fixture, Runner, Setup, copy_of};

const FLOATS: [&str; 8] = [
    "llama-tied-f32",
    "llama-sharded-bf16",
    "llama-llama3-f16",
    "mistral-window-bf16",
    "qwen2-tied-f16",
    "qwen2-bf16",
    "gpt-neox-f16",
    "falcon-rope-gqa-bf16",
];

fn logits(checkpoint: &Checkpoint, prompt: &[u32], compute: Compute, quantization: Quantization) -> Vec<f32> {
    let setup = Setup { compute, quantization, ..Setup::EXACT };
    Runner::new(checkpoint, setup).step(&[(0, 0, prompt)]).concat()
}

/// The length of the difference over that of the values around their mean.
fn distance(found: &[f32], expected: &[f32]) -> f64 {
    let mean = expected.iter().map(|value| f64::from(*value)).sum::<f64>() / expected.len() as f64;
    let square = |value: f64| value * value;
    let difference: f64 =
        found.iter().zip(expected).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let spread: f64 = expected.iter().map(|value| square(f64::from(*value) - mean)).sum();
    (difference / spread).sqrt()
}

#[test]
fn floats_are_quantized_at_load_in_every_mode() {
    for name in FLOATS {
        let fixture = Fixture::directory(name);
        let prompt = &fixture.expected.prompts[0];
        let exact = logits(&fixture.checkpoint, prompt, Compute::Exact, Quantization::Off);
        for compute in Compute::ALL {
            let off = CpuOptions::new(compute);
            for (quantization, most) in [(Quantization::Eight, 0.05), (Quantization::Four, 0.6)] {
                let found = logits(&fixture.checkpoint, prompt, compute, quantization);
                let distance = distance(&found, &exact);
                assert!(distance > 0.0 && distance < most, "{name} {compute} {quantization}: {distance}");
                let options = off.clone().quantized(quantization);
                let network = fixture.checkpoint.network(&pool(), &options).unwrap();
                let bytes = network.traits().weight_bytes;
                assert_eq!(bytes, fixture.checkpoint.memory_estimate_for(&options), "{name} {compute}");
                let before = fixture.checkpoint.memory_estimate_for(&off);
                assert!(bytes < before, "{name} {compute} {quantization}: {bytes} of {before}");
                let info = fixture.checkpoint.info_for(&options);
                assert_eq!(info.weight_bytes, bytes);
                assert_eq!(info.details["quantization"]["asked"], quantization.as_str());
            }
        }
    }
}

fn pool() -> Arc<ComputePool> {
    Arc::new(ComputePool::new(PoolOptions { threads: Some(2), ..PoolOptions::default() }).unwrap())
}

#[test]
fn results_do_not_depend_on_the_threads() {
    let fixture = Fixture::directory("llama-sharded-bf16");
    let prompt = &fixture.expected.prompts[0];
    let run = |threads| {
        let setup = Setup { threads, quantization: Quantization::Four, ..Setup::EXACT };
        Runner::new(&fixture.checkpoint, setup).step(&[(0, 0, prompt)])
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn off_changes_nothing() {
    let fixture = Fixture::directory("qwen2-bf16");
    let prompt = &fixture.expected.prompts[0];
    let off = logits(&fixture.checkpoint, prompt, Compute::Exact, Quantization::Off);
    let expected: Vec<f32> = fixture.expected.logits[0].concat();
    assert!(distance(&off, &expected) < 1e-4);
    assert!(!fixture.checkpoint.info(Compute::Exact).details.contains_key("quantization"));
}

#[test]
fn what_is_quantized_already_stays_and_this_is_told() {
    for (name, asked, tells) in [
        ("llama-q4_0", Quantization::Eight, true),
        ("llama-q4_0", Quantization::Four, true),
        ("llama-q8_0", Quantization::Eight, true),
        // Eight bits can become four.
        ("llama-q8_0", Quantization::Four, false),
        ("llama-f16", Quantization::Four, false),
    ] {
        let fixture = Fixture::gguf(name);
        let report = fixture.checkpoint.quantization_report(asked).unwrap();
        assert_eq!(report.notice.is_some(), tells, "{name} {asked}: {report:?}");
        assert_eq!(report.quantized == 0, tells, "{name} {asked}: {report:?}");
        if tells {
            assert!(report.notice.unwrap().contains("quantized already"));
            let prompt = &fixture.expected.prompts[0];
            let run = |quantization| logits(&fixture.checkpoint, prompt, Compute::Standard, quantization);
            let (with, without) = (run(asked), run(Quantization::Off));
            assert!(distance(&with, &without) < 0.02, "{name}");
        }
    }
}

#[test]
fn progress_is_told_and_numbers_that_are_none_are_refused() {
    let fixture = Fixture::directory("llama-tied-f32");
    let options = CpuOptions::new(Compute::Standard).quantized(Quantization::Four);
    let seen = Mutex::new(Vec::new());
    let tell = |share: f32| seen.lock().unwrap().push(share);
    fixture.checkpoint.network_with_progress(&pool(), &options, &tell).unwrap();
    let seen = seen.into_inner().unwrap();
    assert!(seen.len() >= 3 && seen.is_sorted() && seen.last() == Some(&1.0), "{seen:?}");

    let copy = copy_of("llama-tied-f32");
    let path = copy.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let names: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let begin = names["model.layers.1.mlp.down_proj.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[8 + header + begin..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let checkpoint = Checkpoint::open(copy.path()).unwrap();
    let error = checkpoint.network(&pool(), &options).err().unwrap();
    assert!(matches!(error, LoadError::Network { .. }), "{error}");
    assert!(error.to_string().contains("value 0 is not a finite number"), "{error}");
}
