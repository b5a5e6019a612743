//! The work of a step against numbers counted by hand, and the compute path in words.

use std::sync::Arc;

use byzerllm_kernels::{ComputePool, PoolOptions};
use byzerllm_model::{Compute, CpuOptions, StepWork, WorkModel};
use serde_json::json;

use crate::support::Fixture;

fn model(fixture: &Fixture, compute: Compute) -> WorkModel {
    let pool = ComputePool::new(PoolOptions { threads: Some(1), ..PoolOptions::default() }).unwrap();
    let network = fixture.checkpoint.network(&Arc::new(pool), &CpuOptions::new(compute)).unwrap();
    network.work().unwrap()
}

/// Two layers of width 64: four heads of 16, two of them for keys, 96 inner features; 300 tokens, tied.
#[test]
fn work_is_what_one_counts_by_hand() {
    let fixture = Fixture::directory("llama-tied-f32");
    // Queries, keys and values; output; gate and up; down.
    let layer = 64 * (64 + 2 * 32) + 64 * 64 + 2 * 96 * 64 + 96 * 64;
    let head = 300 * 64;
    // The head is packed in panels of 32 rows; all other matrices are multiples of that.
    let packed = 2 * layer + 320 * 64;
    let pairs = 11;
    let one = model(&fixture, Compute::Exact).step(&[(10, 1)], 1);
    let expected = StepWork {
        weight_bytes: 4 * packed + 4 * 64,
        cache_bytes: pairs * 2 * (2 * 2 * 16) * 4,
        int8_operations: 0,
        f32_operations: 2 * (2 * layer + head) + pairs * 2 * 4 * (4 * 16),
    };
    assert_eq!(one, expected);

    // A prompt of three tokens sees one, two and three keys; weights are read once; one row of logits is wanted.
    let prompt = model(&fixture, Compute::Exact).step(&[(0, 3)], 1);
    assert_eq!(prompt.weight_bytes, 4 * packed + 3 * 4 * 64);
    assert_eq!(prompt.f32_operations, 2 * (3 * 2 * layer + head) + 6 * 2 * 4 * (4 * 16));
    assert_eq!(prompt.cache_bytes, 3 * 2 * 64 * 4);

    // Codes of eight bits with a scale of four bytes per 32; two bytes stand for an activation; a cache of f16.
    let standard = model(&fixture, Compute::Standard).step(&[(10, 1)], 1);
    assert_eq!(standard.weight_bytes, packed + packed / 32 * 4 + 4 * 64);
    assert_eq!(standard.int8_operations, 2 * 2 * (2 * layer + head));
    assert_eq!(standard.f32_operations, pairs * 2 * 4 * (4 * 16));
    assert_eq!(standard.cache_bytes, pairs * 2 * 64 * 2);

    // One byte stands for an activation; attention's products are of bytes; keys and values share a scale per head.
    let fast = model(&fixture, Compute::Fast).step(&[(10, 1), (10, 1)], 2);
    assert_eq!(fast.weight_bytes, standard.weight_bytes + 4 * 64);
    assert_eq!(fast.int8_operations, 2 * (2 * (2 * layer + head) + 2 * pairs * 2 * 2 * (4 * 16)));
    assert_eq!(fast.f32_operations, 0);
    assert_eq!(fast.cache_bytes, 2 * pairs * 2 * (64 + 2 * 2 * 4));
}

#[test]
fn every_fixture_reads_all_of_its_weights() {
    for fixture in Fixture::all() {
        for compute in Compute::ALL {
            let model = model(&fixture, compute);
            // With so many tokens every expert has some. Nothing but the row of the table comes with one more.
            let (none, many) = (model.step(&[], 1), model.step(&[(0, 128)], 1).weight_bytes);
            let row = model.step(&[(0, 129)], 1).weight_bytes - many;
            let estimate = fixture.checkpoint.memory_estimate(compute);
            assert_eq!(many, estimate + 128 * row, "{}", fixture.name);
            let experts = fixture.checkpoint.config().layers.iter().any(|layer| layer.mlp.experts.is_some());
            assert!(
                none.weight_bytes == estimate || experts && none.weight_bytes < estimate,
                "{}",
                fixture.name
            );
            assert_eq!(none.cache_bytes, 0);
        }
    }
}

#[test]
fn info_names_the_compute_path() {
    let info = |name: &str, compute| Fixture::gguf(name).checkpoint.info(compute).details;
    let fast = info("llama-q4_1", Compute::Fast);
    assert_eq!((&fast["compute_mode"], &fast["arithmetic"]), (&json!("fast"), &json!("int8")));
    assert_eq!(fast["cache_type"], "i8");
    assert_eq!(fast["weights"]["Q4_1"], "4-bit codes, f16 scale and minimum per 32");
    let isa = fast["instruction_set"].as_str().unwrap();
    assert!(isa.starts_with(byzerllm_kernels::Isa::active().name()), "{isa}");
    let exact = info("llama-f16", Compute::Exact);
    assert_eq!((&exact["arithmetic"], &exact["cache_type"]), (&json!("f32"), &json!("f32")));
    assert_eq!(exact["weights"], json!({"F16": "f16"}));
    let mixed = info("qwen2-mixed", Compute::Standard);
    assert!(mixed["weights"].as_object().unwrap().len() > 1, "{mixed:?}");
}
