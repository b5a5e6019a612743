//! Adapters: the logits of PEFT's merged models, and what is refused.

use std::path::Path;

use byzerllm_model::{Checkpoint, Compute, LoadError};
use serde_json::{Value, json};

use crate::parity::worst;
use crate::support::{Fixture, Runner, Setup, copy_of, fixtures};

/// The adapter of a fixture with its base model inside.
fn with_base(adapter: &str, base: &str) -> tempfile::TempDir {
    let copy = copy_of(adapter);
    let inner = copy.path().join("pretrained_model");
    std::fs::create_dir(&inner).unwrap();
    for entry in std::fs::read_dir(fixtures().join(base)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), inner.join(entry.file_name())).unwrap();
    }
    copy
}

#[test]
fn merged_logits_are_those_of_peft() {
    for (adapter, base, matrices) in [("lora-llama", "llama-tied-f32", 4), ("lora-qwen2", "qwen2-bf16", 14)] {
        let copy = with_base(adapter, base);
        let path = copy.path();
        let fixture = Fixture::read(adapter, path, &path.join("expected.json"), &path.join("logits.bin"));
        let worst = worst(&fixture, Setup::EXACT);
        assert!(worst < 1e-4, "{adapter}: {worst}");
        let expected = &fixture.expected;
        let prompt = &expected.prompts[expected.greedy_prompt];
        let mut runner = Runner::new(&fixture.checkpoint, Setup::EXACT);
        assert_eq!(runner.greedy(prompt, expected.greedy.len()), expected.greedy, "{adapter}");
        // The adapter is what makes the difference.
        let plain = Fixture::directory(base);
        assert_ne!(plain.expected.logits, fixture.expected.logits);
        let info = fixture.checkpoint.info(Compute::Exact);
        assert_eq!(info.details["adapter"]["matrices"], json!(matrices));
        assert_eq!(fixture.checkpoint.path(), path);
        assert!(info.weight_bytes >= plain.checkpoint.memory_estimate(Compute::Exact));
        let tokenizer = fixture.checkpoint.tokenizer().unwrap();
        assert_eq!(
            tokenizer.encode("hello", true).unwrap(),
            plain.checkpoint.tokenizer().unwrap().encode("hello", true).unwrap()
        );
        assert!(fixture.checkpoint.chat_template().unwrap().is_some());
    }
}

fn edit(path: &Path, field: &str, value: Value) {
    let file = path.join("adapter_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    config[field] = value;
    std::fs::write(&file, config.to_string()).unwrap();
}

#[test]
fn settings_that_mean_something_else_are_refused_by_name() {
    for (field, value) in [
        ("peft_type", json!("IA3")),
        ("use_dora", json!(true)),
        ("modules_to_save", json!(["embed_tokens"])),
        ("rank_pattern", json!({"q_proj": 8})),
        ("alpha_pattern", json!({"q_proj": "8"})),
        ("alpha_pattern", json!({"(q|k)_proj": 8})),
        ("bias", json!("all")),
        ("lora_bias", json!(true)),
        ("init_lora_weights", json!("pissa")),
        ("layer_replication", json!([[0, 2]])),
        ("lora_alpha", json!("many")),
        ("r", json!(0)),
        ("r", json!(1 << 29)),
    ] {
        let copy = with_base("lora-llama", "llama-tied-f32");
        edit(copy.path(), field, value.clone());
        let error = Checkpoint::open(copy.path()).unwrap_err();
        // A rank that the tensors do not have shows as their shape.
        let named = error.to_string().contains(field) || matches!(error, LoadError::Shape { .. });
        assert!(named, "{field} {value}: {error}");
    }
    let copy = with_base("lora-llama", "llama-tied-f32");
    std::fs::remove_file(copy.path().join("adapter_config.json")).unwrap();
    assert!(Checkpoint::open(copy.path()).unwrap_err().to_string().contains("adapter_config.json"));
    let copy = with_base("lora-llama", "llama-tied-f32");
    std::fs::remove_file(copy.path().join("adapter_model.safetensors")).unwrap();
    assert!(Checkpoint::open(copy.path()).unwrap_err().to_string().contains("adapter_model.bin"));
}

/// A safetensors file of f32 zeros.
fn zeros(tensors: &[(&str, [usize; 2])]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += shape[0] * shape[1] * 4;
        header.insert(
            (*name).to_owned(),
            json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}),
        );
    }
    let header = Value::Object(header).to_string().into_bytes();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.resize(bytes.len() + end, 0);
    bytes
}

#[test]
fn tensors_of_other_modules_are_refused_by_name() {
    let refused = |tensors: &[(&str, [usize; 2])], words: &[&str]| {
        let copy = with_base("lora-llama", "llama-tied-f32");
        std::fs::write(copy.path().join("adapter_model.safetensors"), zeros(tensors)).unwrap();
        let message = Checkpoint::open(copy.path()).unwrap_err().to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    };
    let q = "base_model.model.model.layers.0.self_attn.q_proj";
    let (a, b) = (format!("{q}.lora_A.weight"), format!("{q}.lora_B.weight"));
    refused(&[("base_model.model.lm_head.lora_A.weight", [4, 64])], &["lm_head", "no matrix", "q_proj"]);
    refused(&[("base_model.model.model.embed_tokens.lora_embedding_A", [4, 64])], &["embed_tokens"]);
    refused(
        &[("base_model.model.model.layers.0.self_attn.qkv_proj.lora_A.weight", [4, 64])],
        &["qkv_proj", "no matrix"],
    );
    refused(
        &[("base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight", [4, 64])],
        &["layers.9", "no"],
    );
    refused(&[(&a, [4, 64])], &["q_proj", "only one"]);
    refused(&[(&a, [4, 64]), (&b, [64, 3])], &["lora_B", "[64, 4]"]);
    refused(&[(&a, [4, 32]), (&b, [64, 4])], &["lora_A", "[4, 64]"]);
    refused(&[(&a, [4, 64]), (&a.replace(".weight", ".default.weight"), [4, 64])], &["two names"]);
    refused(&[], &["nothing"]);
}
