//! Adapters beside the weights: the logits of PEFT's own forward pass, and the same bits whatever runs beside a row.

use std::path::PathBuf;

use byzerllm_core::ErrorKind;
use byzerllm_kernels::{ComputePool, PoolOptions};
use byzerllm_model::{Adapter, Checkpoint, Compute, Quantization};

use crate::parity::relative;
use crate::support::{Fixture, Runner, Setup, bits, copy_of, fixtures, gguf_path};

fn path(name: &str) -> PathBuf {
    fixtures().join("adapters").join(name)
}

/// An adapter's fixture: its base with what is expected of both together.
fn fixture(name: &str) -> Fixture {
    let directory = path(name);
    let expected: serde_json::Value =
        serde_json::from_slice(&std::fs::read(directory.join("expected.json")).unwrap()).unwrap();
    let base = fixtures().join(expected["base"].as_str().unwrap());
    Fixture::read(name, &base, &directory.join("expected.json"), &directory.join("logits.bin"))
}

fn open(checkpoint: &Checkpoint, name: &str) -> Adapter {
    let pool = ComputePool::new(PoolOptions { threads: Some(1), ..PoolOptions::default() }).unwrap();
    checkpoint.adapter(&path(name), &pool).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The largest relative difference to what PEFT computed.
fn worst(checkpoint: &Checkpoint, name: &str, expected: &Fixture) -> f32 {
    let mut worst = 0.0_f32;
    for (prompt, rows) in expected.expected.prompts.iter().zip(&expected.expected.logits) {
        let mut runner = Runner::new(checkpoint, Setup::EXACT);
        let id = runner.load(open(checkpoint, name));
        let found = runner.step_with(&[(0, 0, prompt)], &[Some(id)]).unwrap();
        assert_eq!(found.len(), rows.len());
        for (found, expected) in found.iter().zip(rows) {
            worst = worst.max(relative(found, expected));
        }
    }
    worst
}

#[test]
fn logits_beside_the_weights_are_those_of_peft() {
    for name in ["patterns", "stable", "head", "neox", "falcon", "llama", "gpt2", "gptq", "awq"] {
        let fixture = fixture(name);
        let worst = worst(&fixture.checkpoint, name, &fixture);
        println!("{name}: {worst:.2e}");
        assert!(worst < 1e-4, "{name}: {worst}");
    }
}

/// The file has the rows of queries and keys in another order, and the same values.
#[test]
fn a_gguf_file_takes_the_adapters_of_its_source() {
    let fixture = fixture("llama");
    let checkpoint = Checkpoint::open(&gguf_path("llama-f16")).unwrap();
    let worst = worst(&checkpoint, "llama", &fixture);
    assert!(worst < 1e-4, "{worst}");
}

/// The weights have 8 or 4 bits, what an adapter adds is exact: so the logits come nearer to PEFT's by about what the
/// adapter changes. Four bits are little for networks as small and random as these.
#[test]
fn adapters_go_with_weights_that_are_quantized_at_load() {
    for name in ["patterns", "llama", "falcon"] {
        let fixture = fixture(name);
        let prompt = &fixture.expected.prompts[2];
        for (quantization, most) in [(Quantization::Eight, 0.1), (Quantization::Four, 0.75)] {
            let setup = Setup { quantization, ..Setup::EXACT };
            let logits = |adapter: Option<&str>| {
                let mut runner = Runner::new(&fixture.checkpoint, setup);
                let id = adapter.map(|name| runner.load(open(&fixture.checkpoint, name)));
                runner.step_with(&[(0, 0, prompt)], &[id]).unwrap()
            };
            let worst = |rows: &[Vec<f32>]| {
                let pairs = rows.iter().zip(&fixture.expected.logits[2]);
                pairs.map(|(found, expected)| relative(found, expected)).fold(0.0, f32::max)
            };
            let (with, without) = (worst(&logits(Some(name))), worst(&logits(None)));
            println!("{name}, {quantization} bits: {with:.3}, without the adapter {without:.3}");
            assert!(with < most * without, "{name} {quantization}: {with} {without}");
        }
    }
}

#[test]
fn merging_and_adding_agree() {
    for (name, base) in [
        ("patterns", "qwen2-bf16"),
        ("neox", "gpt-neox-f16"),
        ("falcon", "falcon-rope-gqa-bf16"),
        ("gpt2", "gpt2-f16"),
        ("gptq", "gptq-activation-order"),
        ("awq", "awq-gemm"),
    ] {
        let copy = copy_of(&format!("adapters/{name}"));
        std::os::unix::fs::symlink(fixtures().join(base), copy.path().join("pretrained_model")).unwrap();
        let merged = Checkpoint::open(copy.path()).unwrap();
        let fixture = fixture(name);
        let prompt = &fixture.expected.prompts[2];
        let merged = Runner::new(&merged, Setup::EXACT).step(&[(0, 0, prompt)]);
        for (found, expected) in merged.iter().zip(&fixture.expected.logits[2]) {
            let difference = relative(found, expected);
            assert!(difference < 1e-4, "{name}: {difference}");
        }
    }
}

/// The rows of a prompt alone, one thread, with one adapter or none loaded.
fn alone(checkpoint: &Checkpoint, compute: Compute, prompt: &[u32], adapter: Option<&str>) -> Vec<Vec<u32>> {
    let mut runner = Runner::new(checkpoint, Setup { compute, threads: 1, ..Setup::EXACT });
    let id = adapter.map(|name| runner.load(open(checkpoint, name)));
    bits(&runner.step_with(&[(0, 0, prompt)], &[id]).unwrap())
}

#[test]
fn neighbours_with_other_adapters_do_not_change_bits() {
    let fixture = fixture("patterns");
    let checkpoint = &fixture.checkpoint;
    let prompts = &fixture.expected.prompts;
    let long = &prompts[2];
    for compute in Compute::ALL {
        let base = alone(checkpoint, compute, long, None);
        let first = alone(checkpoint, compute, long, Some("patterns"));
        let second = alone(checkpoint, compute, long, Some("stable"));
        let third = alone(checkpoint, compute, &prompts[1], Some("head"));
        assert!(base != first && first != second, "{compute}: the adapters make a difference");
        let mut runner = Runner::new(checkpoint, Setup { compute, sequences: 5, ..Setup::EXACT });
        let [head, stable, patterns] =
            ["head", "stable", "patterns"].map(|name| Some(runner.load(open(checkpoint, name))));
        runner.step_with(&[(3, 0, &long[..17]), (4, 0, &long[..33])], &[stable, None]).unwrap();
        let parts = [
            (0, 0, &long[..]),
            (1, 0, &long[..]),
            (3, 17, &long[17..18]),
            (4, 33, &long[33..34]),
            (2, 0, &prompts[1][..]),
        ];
        let rows = bits(&runner.step_with(&parts, &[patterns, None, stable, None, head]).unwrap());
        assert!(rows[..40] == first[..], "{compute}: the first adapter");
        assert!(rows[40..80] == base[..], "{compute}: the base");
        assert!(rows[80] == second[17], "{compute}: the second adapter, in the middle of its prompt");
        assert!(rows[81] == base[33], "{compute}: the base, in the middle of its prompt");
        assert!(rows[82..] == third[..], "{compute}: the adapter of the head");
        // Two sequences of one adapter that are no neighbours.
        let parts = [(0, 0, &long[..]), (1, 0, &prompts[1][..]), (2, 0, &long[..])];
        let rows = bits(&runner.step_with(&parts, &[stable, head, stable]).unwrap());
        assert!(
            rows[..40] == second[..] && rows[40..47] == third[..] && rows[47..] == second[..],
            "{compute}"
        );
    }
}

#[test]
fn a_slot_is_never_used_again() {
    let fixture = fixture("patterns");
    let checkpoint = &fixture.checkpoint;
    let prompt = &fixture.expected.prompts[1];
    let mut runner = Runner::new(checkpoint, Setup::EXACT);
    let plain = bits(&runner.step(&[(0, 0, prompt)]));
    let first = runner.load(open(checkpoint, "patterns"));
    let with_first = bits(&runner.step_with(&[(0, 0, prompt)], &[Some(first)]).unwrap());
    assert!(runner.unload(first));
    assert!(!runner.unload(first), "it is gone");
    let error = runner.step_with(&[(0, 0, prompt)], &[Some(first)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    let second = runner.load(open(checkpoint, "stable"));
    assert_ne!(first, second);
    assert_eq!(bits(&runner.step(&[(0, 0, prompt)])), plain);
    assert_ne!(bits(&runner.step_with(&[(0, 0, prompt)], &[Some(second)]).unwrap()), with_first);
}

#[test]
fn an_adapter_says_what_it_is() {
    let adapter = open(&fixture("patterns").checkpoint, "patterns");
    assert_eq!((adapter.rank(), adapter.modules()), (8, 14));
    assert!(adapter.path().ends_with("adapters/patterns") && adapter.bytes() > 0);
}

#[test]
fn adapters_of_other_models_are_refused() {
    let pool = ComputePool::new(PoolOptions { threads: Some(1), ..PoolOptions::default() }).unwrap();
    let qwen = fixture("patterns").checkpoint;
    let refused =
        |checkpoint: &Checkpoint, name: &str| checkpoint.adapter(&path(name), &pool).unwrap_err().to_string();
    let message = refused(&qwen, "neox");
    assert!(message.contains("gpt_neox") && message.contains("self_attn.q_proj"), "{message}");
    let message = refused(&qwen, "llama");
    assert!(message.contains("lora_") && message.contains("the configuration asks for"), "{message}");
    let message = refused(&fixture("llama").checkpoint, "missing");
    assert!(message.contains("adapter_config.json"), "{message}");
    // Tied to the embedding, which is no matrix of its own.
    let tied = Fixture::directory("qwen2-tied-f16").checkpoint;
    assert!(refused(&tied, "head").contains("lm_head"));
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    let copy = copy_of("adapters/stable");
    let file = copy.path().join("adapter_model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&file, bytes).unwrap();
    let pool = ComputePool::new(PoolOptions { threads: Some(1), ..PoolOptions::default() }).unwrap();
    let error = fixture("stable").checkpoint.adapter(copy.path(), &pool).unwrap_err().to_string();
    assert!(error.contains("not finite") && error.contains("tensor"), "{error}");
}
