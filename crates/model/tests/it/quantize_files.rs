//! Checkpoints written as GGUF files and as directories: read again, they compute what was written.

use std::path::Path;
use std::sync::Arc;

use byzerllm_kernels::{ComputePool, PoolOptions};
use byzerllm_model::{
    Checkpoint, Importance, OutputFormat, OutputType, Quantization, QuantizeError, QuantizeOptions, Summary,
};

use crate::support::{Fixture, Runner, Setup, copy_of};

const DIRECTORIES: [&str; 7] = [
    "llama-tied-f32",
    "llama-sharded-bf16",
    "llama-llama3-f16",
    "llama-yarn-bf16",
    "mistral-window-bf16",
    "qwen2-bf16",
    "qwen3-bf16",
];

fn pool() -> Arc<ComputePool> {
    Arc::new(ComputePool::new(PoolOptions { threads: Some(2), ..PoolOptions::default() }).unwrap())
}

fn options(kind: &str) -> QuantizeOptions<'static> {
    let kind: OutputType = kind.parse().unwrap();
    let format =
        if matches!(kind, OutputType::Gptq(_)) { OutputFormat::Safetensors } else { OutputFormat::Gguf };
    QuantizeOptions { format, kind, importance: None, overwrite: false, requantize: false }
}

fn write(from: &Path, to: &Path, options: &QuantizeOptions<'_>) -> Result<Summary, QuantizeError> {
    Checkpoint::open(from).unwrap().quantize(to, options, &pool(), &|_| {})
}

fn logits(path: &Path, prompt: &[u32]) -> Vec<f32> {
    let checkpoint = Checkpoint::open(path).unwrap();
    Runner::new(&checkpoint, Setup::EXACT).step(&[(0, 0, prompt)]).concat()
}

fn distance(found: &[f32], expected: &[f32]) -> f64 {
    let mean = expected.iter().map(|value| f64::from(*value)).sum::<f64>() / expected.len() as f64;
    let difference: f64 =
        found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    let spread: f64 = expected.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum();
    (difference / spread).sqrt()
}

#[test]
fn directories_become_gguf_files_with_the_same_logits_and_tokenizer() {
    let place = tempfile::tempdir().unwrap();
    for name in DIRECTORIES {
        let fixture = Fixture::directory(name);
        let path = place.path().join(format!("{name}.gguf"));
        let summary = write(fixture.checkpoint.path(), &path, &options("f32")).unwrap();
        assert_eq!(summary.bytes_after, path.metadata().unwrap().len());
        let written = Checkpoint::open(&path).unwrap();
        for (prompt, expected) in fixture.expected.prompts.iter().zip(&fixture.expected.logits) {
            let distance = distance(&logits(&path, prompt), &expected.concat());
            assert!(distance < 1e-4, "{name}: {distance}");
        }
        let (own, other) = (fixture.checkpoint.tokenizer().unwrap(), written.tokenizer().unwrap());
        for text in ["Hello, world! 12345", "中文 text\n\n  with spaces", "naïve café"] {
            assert_eq!(own.encode(text, true).unwrap(), other.encode(text, true).unwrap(), "{name}: {text}");
        }
        assert_eq!(fixture.checkpoint.end_tokens(), written.end_tokens(), "{name}");
        let template = |checkpoint: &Checkpoint| {
            checkpoint.chat_template().unwrap().map(|template| template.source().to_owned())
        };
        assert_eq!(template(&fixture.checkpoint), template(&written), "{name}");
    }
}

#[test]
fn gguf_files_become_directories_and_come_back() {
    let place = tempfile::tempdir().unwrap();
    for name in ["llama-q4_0", "llama-q8_0", "llama-k-quants", "qwen2-mixed"] {
        let fixture = Fixture::gguf(name);
        let directory = place.path().join(name);
        let floats = QuantizeOptions { format: OutputFormat::Safetensors, ..options("f32") };
        write(fixture.checkpoint.path(), &directory, &floats).unwrap();
        let back = place.path().join(format!("{name}.gguf"));
        write(&directory, &back, &options("f32")).unwrap();
        let prompt = &fixture.expected.prompts[0];
        let expected = logits(fixture.checkpoint.path(), prompt);
        for path in [&directory, &back] {
            let distance = distance(&logits(path, prompt), &expected);
            assert!(distance < 1e-5, "{name} {}: {distance}", path.display());
            let tokenizer = Checkpoint::open(path).unwrap().tokenizer().unwrap();
            let text = "Hello, world! 12345 \n 中文";
            let own = fixture.checkpoint.tokenizer().unwrap().encode(text, true).unwrap();
            assert_eq!(tokenizer.encode(text, true).unwrap(), own, "{name}");
        }
    }
}

#[test]
fn every_type_is_written_and_read() {
    let place = tempfile::tempdir().unwrap();
    let fixture = Fixture::directory("qwen2-bf16");
    let prompt = &fixture.expected.prompts[0];
    let exact = logits(fixture.checkpoint.path(), prompt);
    let mut last = 0.0;
    for (kind, most) in [
        ("bf16", 0.01),
        ("q8_0", 0.05),
        ("q6_k", 0.05),
        ("q5_k", 0.3),
        ("q4_k", 0.3),
        ("q4_1", 0.6),
        ("q4_0", 0.6),
    ] {
        let path = place.path().join(format!("{kind}.gguf"));
        let summary = write(fixture.checkpoint.path(), &path, &options(kind)).unwrap();
        let distance = distance(&logits(&path, prompt), &exact);
        assert!(distance < most, "{kind}: {distance}");
        if kind == "bf16" || kind == "q8_0" {
            assert!(distance >= last, "{kind}: {distance}");
            last = distance;
        }
        assert!(summary.bits_per_weight < 17.5, "{summary:?}");
        // Norms are f32 everywhere.
        let norm = Checkpoint::open(&path).unwrap().tensors();
        assert!(norm.iter().filter(|tensor| tensor.shape.len() == 1).all(|tensor| tensor.kind == "F32"));
    }
}

#[test]
fn a_file_of_8_bits_computes_what_loading_with_8_bits_does() {
    let place = tempfile::tempdir().unwrap();
    let fixture = Fixture::directory("llama-sharded-bf16");
    let path = place.path().join("model.gguf");
    write(fixture.checkpoint.path(), &path, &options("q8_0")).unwrap();
    let prompt = &fixture.expected.prompts[0];
    let setup = Setup { quantization: Quantization::Eight, ..Setup::EXACT };
    let loaded = Runner::new(&fixture.checkpoint, setup).step(&[(0, 0, prompt)]).concat();
    // Only the table of embeddings differs: a file has 8 bits there, too.
    let distance = distance(&logits(&path, prompt), &loaded);
    assert!(distance < 0.02, "{distance}");
}

#[test]
fn gptq_directories_are_read_by_the_loader_of_gptq() {
    let place = tempfile::tempdir().unwrap();
    for name in ["llama-sharded-bf16", "qwen2-bf16"] {
        let fixture = Fixture::directory(name);
        let prompt = &fixture.expected.prompts[0];
        let exact = logits(fixture.checkpoint.path(), prompt);
        for (kind, most) in [("gptq8", 0.05), ("gptq4", 0.6)] {
            let path = place.path().join(format!("{name}-{kind}"));
            let summary = write(fixture.checkpoint.path(), &path, &options(kind)).unwrap();
            assert!(summary.tensors.keys().any(|key| key.starts_with("GPTQ")), "{summary:?}");
            let config = std::fs::read_to_string(path.join("config.json")).unwrap();
            assert!(config.contains("\"quant_method\": \"gptq\""), "{config}");
            let checkpoint = Checkpoint::open(&path).unwrap();
            let found = Runner::new(&checkpoint, Setup::EXACT).step(&[(0, 0, prompt)]).concat();
            let distance = distance(&found, &exact);
            assert!(distance < most, "{name} {kind}: {distance}");
        }
    }
}

#[test]
fn calibration_weighs_the_columns() {
    let fixture = Fixture::directory("qwen2-bf16");
    let windows: Vec<Vec<u32>> = fixture.expected.prompts.clone();
    let importance = fixture.checkpoint.calibrate(&windows, &pool(), &|_| {}).unwrap();
    assert_eq!(importance.tokens, windows.iter().map(Vec::len).sum::<usize>());
    let config = fixture.checkpoint.config();
    let layer = &config.layers[0];
    for (name, columns) in [
        ("blk.0.attn_q.weight", config.hidden_size),
        ("blk.1.attn_v.weight", config.hidden_size),
        ("blk.0.attn_output.weight", layer.attention.heads * layer.attention.head_dim),
        ("blk.1.ffn_down.weight", layer.mlp.intermediate_size),
        ("output.weight", config.hidden_size),
    ] {
        let seen = importance.of(name).unwrap();
        assert_eq!(seen.len(), columns, "{name}");
        assert!(seen.iter().all(|value| value.is_finite() && *value >= 0.0), "{name}");
        assert!(seen.iter().any(|value| *value > 0.0), "{name}");
    }
    assert_eq!(importance.of("blk.0.attn_q.weight"), importance.of("blk.0.attn_k.weight"));
    let place = tempfile::tempdir().unwrap();
    let (plain, weighed) = (place.path().join("plain.gguf"), place.path().join("weighed.gguf"));
    write(fixture.checkpoint.path(), &plain, &options("q4_0")).unwrap();
    let with = QuantizeOptions { importance: Some(&importance), ..options("q4_0") };
    write(fixture.checkpoint.path(), &weighed, &with).unwrap();
    assert_ne!(std::fs::read(&plain).unwrap(), std::fs::read(&weighed).unwrap());
    let all = |path: &Path| {
        let checkpoint = Checkpoint::open(path).unwrap();
        let run = |ids: &Vec<u32>| Runner::new(&checkpoint, Setup::EXACT).step(&[(0, 0, ids)]).concat();
        windows.iter().flat_map(run).collect::<Vec<f32>>()
    };
    let exact = all(fixture.checkpoint.path());
    let (plain, weighed) = (distance(&all(&plain), &exact), distance(&all(&weighed), &exact));
    assert!(weighed < 1.1 * plain, "{weighed} against {plain}");

    let too_long = vec![vec![0; config.context_length + 1]];
    let error = fixture.checkpoint.calibrate(&too_long, &pool(), &|_| {}).unwrap_err();
    assert!(matches!(error, QuantizeError::Calibration(_)), "{error}");
}

#[test]
fn what_cannot_be_written_is_named_and_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let to = place.path().join("model.gguf");
    let refused = |from: &Path, options: &QuantizeOptions<'_>, words: &str| {
        let error = write(from, &to, options).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    let falcon = Fixture::directory("falcon-rope-gqa-bf16");
    refused(falcon.checkpoint.path(), &options("q8_0"), "LlamaForCausalLM");
    let four = Fixture::gguf("llama-q4_0");
    refused(four.checkpoint.path(), &options("q8_0"), "--requantize");
    let llama = Fixture::directory("llama-tied-f32");
    let wrong = QuantizeOptions { format: OutputFormat::Gguf, ..options("gptq4") };
    refused(llama.checkpoint.path(), &wrong, "q4_k");
    let gptq = Fixture::directory("gptq-symmetric");
    refused(gptq.checkpoint.path(), &options("q8_0"), "GPTQ");

    let copy = copy_of("llama-tied-f32");
    let path = copy.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let names: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let begin = names["model.layers.1.mlp.down_proj.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[8 + header + begin..][..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    refused(copy.path(), &options("q8_0"), "is not a finite number");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);

    std::fs::write(&to, "mine").unwrap();
    refused(llama.checkpoint.path(), &options("q8_0"), "--force");
    assert_eq!(std::fs::read(&to).unwrap(), b"mine");
    let over = QuantizeOptions { overwrite: true, ..options("q8_0") };
    write(llama.checkpoint.path(), &to, &over).unwrap();
    assert!(Checkpoint::open(&to).is_ok());
    let missing = place.path().join("no").join("model.gguf");
    let error = write(llama.checkpoint.path(), &missing, &options("q8_0")).unwrap_err();
    assert!(matches!(error, QuantizeError::Write { .. }), "{error}");
}

#[test]
fn importance_of_other_lengths_is_not_used() {
    let place = tempfile::tempdir().unwrap();
    let fixture = Fixture::directory("llama-tied-f32");
    let mut importance = Importance::default();
    importance.set("blk.0.attn_q.weight", vec![1.0; 3]);
    let (plain, odd) = (place.path().join("plain.gguf"), place.path().join("odd.gguf"));
    write(fixture.checkpoint.path(), &plain, &options("q4_0")).unwrap();
    let with = QuantizeOptions { importance: Some(&importance), ..options("q4_0") };
    write(fixture.checkpoint.path(), &odd, &with).unwrap();
    assert_eq!(std::fs::read(&plain).unwrap(), std::fs::read(&odd).unwrap());
}
