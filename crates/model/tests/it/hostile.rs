//! Files that lie: every defect is an error that names the file and the field, never a panic, never much memory.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use byzerllm_model::{Checkpoint, LoadError};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::allocations::peak;
use crate::support::{DIRECTORIES, Runner, Setup, copy_of, gguf_path};

/// Opening may hold a small multiple of the file beside a fixed amount.
fn opens_within_bounds(path: &Path, size: usize) -> Result<Checkpoint, LoadError> {
    let (result, most) = peak(|| Checkpoint::open(path));
    assert!(most < 16 * size + (1 << 20), "{most} bytes for a file of {size}");
    result
}

/// The error of opening, whose message must name the file and the field.
fn refused(path: &Path, file: &str, field: &str) -> LoadError {
    let error = Checkpoint::open(path).expect_err(field);
    let text = error.to_string();
    assert!(text.contains(file) && text.contains(field), "{text:?} should name {file} and {field}");
    error
}

// ---- GGUF ----

/// A file written field by field, so that each one can lie.
#[derive(Clone)]
struct Gguf {
    magic: [u8; 4],
    version: u32,
    tensor_count: Option<u64>,
    pair_count: Option<u64>,
    pairs: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data: usize,
}

fn text(value: &[u8]) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes()[..], value].concat()
}

fn pair(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&text(key.as_bytes())[..], &kind.to_le_bytes(), value].concat()
}

fn tensor(name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let mut bytes = text(name.as_bytes());
    bytes.extend((dimensions.len() as u32).to_le_bytes());
    dimensions.iter().for_each(|dimension| bytes.extend(dimension.to_le_bytes()));
    bytes.extend(kind.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

const ARCHITECTURE: &str = "general.architecture";

impl Gguf {
    /// A well-formed header of something that is no model.
    fn plain() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            tensor_count: None,
            pair_count: None,
            pairs: vec![pair(ARCHITECTURE, 8, &text(b"llama"))],
            tensors: vec![tensor("token_embd.weight", &[32, 2], 0, 0)],
            data: 256,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = [&self.magic[..], &self.version.to_le_bytes()].concat();
        bytes.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        bytes.extend(self.pair_count.unwrap_or(self.pairs.len() as u64).to_le_bytes());
        bytes.extend(self.pairs.concat());
        bytes.extend(self.tensors.concat());
        bytes.resize(bytes.len().next_multiple_of(32) + self.data, 0);
        bytes
    }

    fn refused(&self, field: &str) -> LoadError {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hostile.gguf");
        let bytes = self.bytes();
        std::fs::write(&path, &bytes).unwrap();
        assert!(opens_within_bounds(&path, bytes.len()).is_err(), "{field}");
        refused(&path, "hostile.gguf", field)
    }
}

#[test]
fn gguf_headers_are_checked() {
    let plain = Gguf::plain();
    // The plain file is refused only because it is no whole model.
    assert!(matches!(plain.refused("llama.embedding_length"), LoadError::Malformed { .. }));
    let with = |change: &dyn Fn(&mut Gguf)| {
        let mut file = plain.clone();
        change(&mut file);
        file
    };
    with(&|file| file.magic = *b"GGUL").refused("magic");
    for version in [0, 1, 4, 1000] {
        let error = with(&|file| file.version = version).refused("version");
        assert!(matches!(error, LoadError::Unsupported { .. }));
    }
    let error = with(&|file| file.version = 3_u32.swap_bytes()).refused("version");
    assert!(error.to_string().contains("big-endian"));
    for count in [2, 1 << 20, 1 << 40, u64::MAX] {
        with(&|file| file.pair_count = Some(count)).refused("");
        with(&|file| file.tensor_count = Some(count)).refused("");
    }
    with(&|file| file.pair_count = Some(u64::MAX)).refused("metadata_kv_count");
    with(&|file| file.tensor_count = Some(u64::MAX)).refused("tensor_count");
    let double = pair(ARCHITECTURE, 8, &text(b"qwen2"));
    with(&|file| file.pairs.push(double.clone())).refused(ARCHITECTURE);
    with(&|file| file.pairs[0] = pair(ARCHITECTURE, 8, &text(b"mamba"))).refused(ARCHITECTURE);
    with(&|file| file.pairs[0] = pair(ARCHITECTURE, 4, &7_u32.to_le_bytes())).refused(ARCHITECTURE);
    with(&|file| file.pairs[0] = pair(ARCHITECTURE, 8, &text(&[0xff, 0xfe]))).refused("UTF-8");
    with(&|file| file.pairs.push(pair("", 7, &[1]))).refused("key");
    with(&|file| file.pairs.push(pair("a.b", 7, &[2]))).refused("a.b");
    with(&|file| file.pairs.push(pair("a.b", 13, &[2]))).refused("a.b");
}

#[test]
fn gguf_strings_and_arrays_are_checked() {
    let with_pair = |kind: u32, value: &[u8]| {
        let mut file = Gguf::plain();
        file.pairs.push(pair("a.b", kind, value));
        file
    };
    for length in [1 << 16, 1 << 33, u64::MAX] {
        with_pair(8, &length.to_le_bytes()).refused("a.b");
        for element in [0_u32, 6, 8, 9, 12] {
            let array = [&element.to_le_bytes()[..], &length.to_le_bytes()].concat();
            with_pair(9, &array).refused("a.b");
        }
    }
    // An array of an unknown type.
    with_pair(9, &[&77_u32.to_le_bytes()[..], &1_u64.to_le_bytes(), &[0; 8]].concat()).refused("a.b");
    // A thousand arrays inside of each other.
    let nested = [&9_u32.to_le_bytes()[..], &1_u64.to_le_bytes()].concat().repeat(1000);
    let error = with_pair(9, &nested).refused("a.b");
    assert!(error.to_string().contains("nests"), "{error}");
}

#[test]
fn gguf_alignment_is_checked() {
    for alignment in [0_u32, 3, 24, 33, u32::MAX] {
        let mut file = Gguf::plain();
        file.pairs.push(pair("general.alignment", 4, &alignment.to_le_bytes()));
        file.refused("general.alignment");
    }
    let mut file = Gguf::plain();
    file.pairs.push(pair("general.alignment", 8, &text(b"32")));
    file.refused("general.alignment");
}

#[test]
fn gguf_tensors_are_checked() {
    let name = "token_embd.weight";
    let with = |bytes: Vec<u8>| {
        let mut file = Gguf::plain();
        file.tensors = vec![bytes];
        file
    };
    for dimensions in
        [&[][..], &[1; 5], &[0, 4], &[u64::MAX, 2], &[1 << 40, 1 << 40], &[32, 3], &[1 << 62, 4]]
    {
        with(tensor(name, dimensions, 0, 0)).refused(name);
    }
    for offset in [1, 31, 256, 1 << 40, u64::MAX, u64::MAX - 31] {
        with(tensor(name, &[32, 2], 0, offset)).refused(name);
    }
    // 32 values are a block of these types, 33 are not.
    for kind in [2, 3, 6, 8] {
        with(tensor(name, &[33, 1], kind, 0)).refused(name);
    }
    let error = with(tensor(name, &[32, 2], 23, 0)).refused(name);
    assert!(matches!(error, LoadError::Unsupported { .. }));
    assert!(error.to_string().contains("IQ4_XS (23)"), "{error}");
    assert!(with(tensor(name, &[32, 2], 4711, 0)).refused(name).to_string().contains("4711"));
    let mut file = Gguf::plain();
    file.tensors.push(tensor(name, &[32, 2], 0, 0));
    assert!(file.refused(name).to_string().contains("twice"));
    with(tensor("", &[32, 2], 0, 0)).refused("name");
}

/// Where the tensors' values begin: everything before is the header.
fn gguf_header_bytes(path: &Path) -> usize {
    let tensors: u64 = Checkpoint::open(path).unwrap().tensors().iter().map(|tensor| tensor.bytes).sum();
    std::fs::metadata(path).unwrap().len() as usize - tensors as usize
}

#[test]
fn a_gguf_file_may_end_anywhere() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cut.gguf");
    std::fs::copy(gguf_path("llama-q4_0"), &path).unwrap();
    let header = gguf_header_bytes(&path);
    let whole = std::fs::metadata(&path).unwrap().len() as usize;
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    // Up to 31 bytes after the last tensor only fill its alignment.
    let lengths = (header..whole - 32).rev().step_by(997).chain((0..header).rev().step_by(3));
    for length in lengths {
        file.set_len(length as u64).unwrap();
        let error = opens_within_bounds(&path, length).unwrap_err();
        assert!(error.to_string().contains("cut.gguf"), "{error}");
    }
}

#[test]
fn gguf_values_that_contradict_each_other_are_named() {
    let replace = |key: &str, from: u32, to: u32, file: &str, field: &str| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("edited.gguf");
        let mut bytes = std::fs::read(gguf_path(file)).unwrap();
        let pattern = pair(key, 4, &from.to_le_bytes());
        let place = bytes.windows(pattern.len()).position(|window| window == pattern).unwrap();
        let value = place + pattern.len() - 4;
        bytes[value..value + 4].copy_from_slice(&to.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        assert!(opens_within_bounds(&path, bytes.len()).is_err());
        refused(&path, "edited.gguf", field);
    };
    for layers in [0, 31, 1_000_000_000, u32::MAX] {
        replace("llama.block_count", 3, layers, "llama-q4_0", "llama.block_count");
    }
    replace("llama.block_count", 3, 4, "llama-q4_0", "blk.3.attn_norm.weight");
    for heads in [0, 3, 5, 1_000_000_000] {
        replace("llama.attention.head_count", 4, heads, "llama-q4_0", "llama.");
    }
    for heads in [0, 3, 8, u32::MAX] {
        replace("llama.attention.head_count_kv", 2, heads, "llama-q4_0", "llama.attention.head_count_kv");
    }
    for count in [5, 2000, u32::MAX] {
        replace("llama.expert_used_count", 2, count, "mixtral-q8_0", "llama.expert_used_count");
    }
    replace("llama.expert_count", 4, 2000, "mixtral-q8_0", "llama.expert_count");
    replace("llama.expert_count", 4, 3, "mixtral-q8_0", "blk.0.ffn_gate_inp.weight");
    replace("llama.embedding_length", 64, 0, "llama-q4_0", "llama.embedding_length");
    replace("llama.embedding_length", 64, 96, "llama-q4_0", "token_embd.weight");
    replace("llama.feed_forward_length", 128, 1 << 29, "llama-q4_0", "blk.0.ffn_gate.weight");
    replace("llama.context_length", 256, 0, "llama-q4_0", "llama.context_length");
    replace("llama.context_length", 256, u32::MAX, "llama-q4_0", "llama.context_length");
    for float in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let (key, theta) = ("llama.rope.freq_base", 10_000_f32);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("edited.gguf");
        let mut bytes = std::fs::read(gguf_path("llama-q4_0")).unwrap();
        let pattern = pair(key, 6, &theta.to_le_bytes());
        let place = bytes.windows(pattern.len()).position(|window| window == pattern).unwrap();
        let value = place + pattern.len() - 4;
        bytes[value..value + 4].copy_from_slice(&float.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        refused(&path, "edited.gguf", key);
    }
}

// ---- safetensors ----

/// A copy of a fixture whose weights file is a header and so many bytes of data.
fn with_header(header: &[u8], length: Option<u64>, data: usize) -> tempfile::TempDir {
    let copy = copy_of("qwen2-bf16");
    let mut bytes = length.unwrap_or(header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.resize(bytes.len() + data, 0);
    std::fs::write(copy.path().join("model.safetensors"), &bytes).unwrap();
    assert!(opens_within_bounds(copy.path(), bytes.len()).is_err());
    copy
}

#[test]
fn safetensors_headers_are_checked() {
    let refuse = |header: &str, data: usize, field: &str| {
        refused(with_header(header.as_bytes(), None, data).path(), "model.safetensors", field)
    };
    for length in [0, 1 << 20, 1 << 40, u64::MAX] {
        refused(with_header(b"{}", Some(length), 8).path(), "model.safetensors", "header");
    }
    refuse("[]", 0, "header");
    refuse("{\"a\": 1}", 0, "header");
    refuse("{\"a\": {\"dtype\": \"F32\"}}", 0, "header");
    refuse(&"[".repeat(100_000), 0, "header");
    refuse(&format!("{{\"a\": {}", "{\"a\":".repeat(100_000)), 0, "header");
    let one = |dtype: &str, shape: &str, offsets: &str| {
        format!("{{\"a\": {{\"dtype\": \"{dtype}\", \"shape\": {shape}, \"data_offsets\": {offsets}}}}}")
    };
    let error = refuse(&one("F4", "[2]", "[0, 8]"), 8, "tensor a");
    assert!(matches!(error, LoadError::Unsupported { .. }));
    refuse(&one("F32", "[2]", "[0, 12]"), 12, "tensor a");
    refuse(&one("F32", "[2]", "[8, 0]"), 8, "tensor a");
    refuse(&one("F32", "[2]", "[0, 8]"), 4, "tensor a");
    refuse(&one("F32", "[2]", "[0, 8]"), 16, "data");
    refuse(&one("F32", "[2]", "[4, 12]"), 12, "tensor a");
    refuse(&one("F32", "[2]", "[0, 18446744073709551615]"), 8, "tensor a");
    refuse(&one("F32", "[4611686018427387904, 4]", "[0, 8]"), 8, "tensor a");
    refuse(&one("F32", "[-2]", "[0, 8]"), 8, "header");
    refuse(&one("F32", "[1,1,1,1,1,1,1,1,2]", "[0, 8]"), 8, "tensor a");
    let entry = "{\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]}";
    let error = refuse(&format!("{{\"a\": {entry}, \"a\": {entry}}}"), 4, "header");
    assert!(error.to_string().contains("tensor a appears twice"), "{error}");
    let error = refuse(&format!("{{\"a\": {entry}, \"b\": {entry}}}"), 4, "tensor");
    assert!(error.to_string().contains("overlap"), "{error}");
}

#[test]
fn safetensors_tensors_must_be_there_in_their_shape() {
    let path = |copy: &tempfile::TempDir| copy.path().join("model.safetensors");
    let rename = |from: &str, to: &str| {
        let copy = copy_of("qwen2-bf16");
        let bytes = std::fs::read(path(&copy)).unwrap();
        let place = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut bytes = bytes;
        bytes[place..place + from.len()].copy_from_slice(to.as_bytes());
        std::fs::write(path(&copy), bytes).unwrap();
        copy
    };
    let copy = rename("layers.1.mlp.up_proj", "layers.1.mlp.xx_proj");
    let error = refused(copy.path(), "model.safetensors", "model.layers.1.mlp.up_proj.weight");
    assert!(matches!(error, LoadError::MissingTensor { .. }));
    let copy = rename("\"shape\":[300,64]", "\"shape\":[64,300]");
    let error = refused(copy.path(), "model.safetensors", "tensor");
    assert!(matches!(error, LoadError::Shape { .. }), "{error}");
    let copy = rename("\"dtype\":\"BF16\"", "\"dtype\":\"I16\" ");
    assert!(matches!(refused(copy.path(), "model.safetensors", "I16"), LoadError::Unsupported { .. }));
}

#[test]
fn shards_are_checked() {
    let index = "model.safetensors.index.json";
    let edited = |change: &dyn Fn(&mut Map<String, Value>)| {
        let copy = copy_of("llama-sharded-bf16");
        let path = copy.path().join(index);
        let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(value["weight_map"].as_object_mut().unwrap());
        std::fs::write(&path, value.to_string()).unwrap();
        copy
    };
    let norm = "model.norm.weight";
    for name in ["../model.safetensors", "/etc/passwd", "..", "", "a/b", "a\\b", "C:x"] {
        refused(edited(&|map| map[norm] = json!(name)).path(), index, norm);
    }
    refused(edited(&|map| map[norm] = json!(3)).path(), index, norm);
    refused(
        edited(&|map| map[norm] = json!("model-00009.safetensors")).path(),
        "model-00009.safetensors",
        "missing",
    );
    // The shard exists, but the tensor is in another one.
    let copy = edited(&|map| map[norm] = json!("model-00001-of-00004.safetensors"));
    refused(copy.path(), index, norm);
    let copy = edited(&|map| {
        map.insert("model.extra".into(), json!("model-00001-of-00004.safetensors"));
    });
    refused(copy.path(), index, "model.extra");
    let copy = copy_of("llama-sharded-bf16");
    std::fs::write(copy.path().join(index), "{\"weight_map\": []}").unwrap();
    refused(copy.path(), index, "weight_map");
    // One tensor in two shards.
    let copy = edited(&|map| {
        map.insert("x".into(), json!("twice.safetensors"));
    });
    let first = copy.path().join("model-00001-of-00004.safetensors");
    std::fs::copy(&first, copy.path().join("twice.safetensors")).unwrap();
    assert!(refused(copy.path(), "twice.safetensors", "tensor").to_string().contains("is also in"));
    std::fs::remove_file(&first).unwrap();
    assert!(matches!(refused(copy.path(), "model-00001", "missing"), LoadError::NotFound { .. }));
}

#[test]
fn directories_without_their_files_say_what_is_missing() {
    for file in ["config.json", "model.safetensors"] {
        let copy = copy_of("qwen2-bf16");
        std::fs::remove_file(copy.path().join(file)).unwrap();
        assert!(matches!(refused(copy.path(), file, ""), LoadError::NotFound { .. }));
    }
    let copy = copy_of("qwen2-bf16");
    std::fs::remove_file(copy.path().join("model.safetensors")).unwrap();
    std::fs::write(copy.path().join("pytorch_model.bin"), "x").unwrap();
    refused(copy.path(), "pytorch_model.bin", "archive");
    let copy = copy_of("qwen2-bf16");
    std::fs::remove_file(copy.path().join("tokenizer.json")).unwrap();
    let error = Checkpoint::open(copy.path()).unwrap().tokenizer().unwrap_err();
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
    std::fs::write(copy.path().join("empty.gguf"), "").unwrap();
    refused(&copy.path().join("empty.gguf"), "empty.gguf", "empty");
}

// ---- config.json ----

fn with_config(name: &str, change: impl FnOnce(&mut Map<String, Value>)) -> tempfile::TempDir {
    let copy = copy_of(name);
    let path = copy.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(config.as_object_mut().unwrap());
    std::fs::write(&path, config.to_string()).unwrap();
    copy
}

#[test]
fn absurd_configurations_are_named() {
    let refuse = |fixture: &str, field: &str, value: Value, named: &str| {
        let copy = with_config(fixture, |config| {
            config.insert(field.into(), value);
        });
        assert!(opens_within_bounds(copy.path(), 300_000).is_err(), "{fixture} {field}");
        refused(copy.path(), "", named);
    };
    let llama = "llama-yarn-bf16";
    for value in [json!(0), json!(-1), json!(1e300), json!(1.5), json!("4"), json!([4]), json!(1_u64 << 40)] {
        for field in
            ["num_attention_heads", "num_hidden_layers", "hidden_size", "vocab_size", "intermediate_size"]
        {
            refuse(llama, field, value.clone(), field);
        }
        for field in ["num_key_value_heads", "head_dim", "max_position_embeddings"] {
            refuse(llama, field, value.clone(), field);
        }
    }
    refuse(llama, "num_hidden_layers", json!(1_000_000_000), "num_hidden_layers");
    refuse(llama, "num_hidden_layers", json!(3), "model.layers.2.input_layernorm.weight");
    refuse(llama, "vocab_size", json!(1_000_000_000_000_u64), "vocab_size");
    refuse(llama, "vocab_size", json!(299), "model.embed_tokens.weight");
    refuse(llama, "num_key_value_heads", json!(3), "num_key_value_heads");
    refuse(llama, "num_attention_heads", json!(8), "model.layers.0.self_attn.q_proj.weight");
    refuse(llama, "head_dim", json!(15), "partial_rotary_factor");
    refuse(llama, "head_dim", json!(1_000_000), "head_dim");
    for value in [json!(0), json!(-1e-6), json!(1e300), json!("small"), json!(2)] {
        refuse(llama, "rms_norm_eps", value, "rms_norm_eps");
    }
    refuse(llama, "hidden_act", json!("mystery"), "hidden_act");
    refuse(llama, "tie_word_embeddings", json!("no"), "tie_word_embeddings");
    refuse(llama, "quantization_config", json!({"bits": 4}), "quantization_config");
    for (field, value) in
        [("architectures", json!([])), ("architectures", json!("Llama")), ("architectures", json!([1]))]
    {
        refuse(llama, field, value, field);
    }
    refuse("qwen2-tied-f16", "sliding_window", json!(0), "sliding_window");
    refuse("qwen2-tied-f16", "layer_types", json!(["full_attention"]), "layer_types");
    refuse("gpt-neox-f16", "rotary_pct", json!(1.5), "rotary_pct");
    refuse("gpt-neox-f16", "rotary_emb_base", json!(-3), "rotary_emb_base");
    refuse("gpt-neox-f16", "num_attention_heads", json!(7), "hidden_size");
    refuse("falcon-rope-gqa-bf16", "num_kv_heads", json!(3), "num_kv_heads");
    refuse("falcon-rope-gqa-bf16", "parallel_attn", json!(false), "parallel_attn");
    refuse("falcon-rope-gqa-bf16", "num_ln_in_parallel_attn", json!(3), "num_ln_in_parallel_attn");
}

#[test]
fn absurd_fields_of_single_families_are_named() {
    let refuse = |fixture: &str, field: &str, value: Value, named: &str| {
        let copy = with_config(fixture, |config| {
            config.insert(field.into(), value);
        });
        assert!(opens_within_bounds(copy.path(), 300_000).is_err(), "{fixture} {field}");
        refused(copy.path(), "", named);
    };
    for per_token in [0, 5, 1_000_000] {
        refuse("mixtral-bf16", "num_experts_per_tok", json!(per_token), "num_experts_per_tok");
    }
    for count in [0, 1_000_000, 1_000_000_000_000_u64] {
        refuse("mixtral-bf16", "num_local_experts", json!(count), "num_local_experts");
    }
    refuse("mixtral-bf16", "num_local_experts", json!(5), "model.layers.0.block_sparse_moe.gate.weight");
    refuse("mixtral-fused-f16", "num_local_experts", json!(3), "model.layers.0.mlp.gate.weight");
    refuse("mixtral-fused-f16", "sliding_window", json!(0), "sliding_window");
    refuse("mixtral-fused-f16", "intermediate_size", json!(64), "model.layers.0.mlp.experts.gate_up_proj");
    refuse("qwen3-moe-bf16", "num_experts_per_tok", json!(7), "num_experts_per_tok");
    refuse("qwen3-moe-bf16", "decoder_sparse_step", json!(0), "decoder_sparse_step");
    refuse("qwen3-moe-bf16", "mlp_only_layers", json!([-1]), "mlp_only_layers");
    for cap in [json!(0), json!(-3), json!("no")] {
        refuse("gemma2-bf16", "attn_logit_softcapping", cap.clone(), "attn_logit_softcapping");
        refuse("gemma2-bf16", "final_logit_softcapping", cap, "final_logit_softcapping");
    }
    refuse("gemma2-bf16", "query_pre_attn_scalar", json!(0), "query_pre_attn_scalar");
    refuse("gemma2-bf16", "sliding_window", json!(0), "sliding_window");
    refuse("gemma2-bf16", "layer_types", json!(["full_attention"]), "layer_types");
    refuse("gemma2-bf16", "use_bidirectional_attention", json!(true), "use_bidirectional_attention");
    refuse("gemma3-old-f16", "sliding_window_pattern", json!(0), "sliding_window_pattern");
    refuse("gemma3-old-f16", "rope_local_base_freq", json!(-1), "rope_local_base_freq");
    refuse("gpt2-f16", "n_positions", json!(65), "transformer.wpe.weight");
    refuse("gpt2-f16", "n_head", json!(7), "n_embd");
    refuse("gpt2-f16", "add_cross_attention", json!(true), "add_cross_attention");
    refuse("gpt-bigcode-bf16", "multi_query", json!(false), "transformer.h.0.attn.c_attn.weight");
    refuse("starcoder2-bf16", "norm_epsilon", json!(2), "norm_epsilon");
    for factors in [json!([1.0]), json!([1, 1, 1, 1, 1, 0]), json!(7), json!(null)] {
        let rope = json!({
            "rope_type": "longrope",
            "short_factor": factors,
            "partial_rotary_factor": 0.75,
            "original_max_position_embeddings": 64,
        });
        refuse("phi3-longrope-f16", "rope_parameters", rope, "rope_parameters.short_factor");
    }
}

#[test]
fn absurd_rope_parameters_are_named() {
    let refuse = |rope: Value, named: &str| {
        let copy = with_config("llama-yarn-bf16", |config| {
            config.insert("rope_parameters".into(), rope);
        });
        refused(copy.path(), "config.json", named);
    };
    refuse(json!(7), "rope_parameters");
    refuse(json!({"full_attention": {"rope_theta": 1e4}}), "rope_parameters.full_attention");
    refuse(json!({"rope_theta": 0}), "rope_parameters.rope_theta");
    refuse(json!({"rope_theta": -10000.0}), "rope_parameters.rope_theta");
    refuse(json!({"rope_theta": 1e300}), "rope_parameters.rope_theta");
    refuse(json!({"rope_type": "spiral"}), "rope_parameters.rope_type");
    refuse(json!({"rope_type": "linear"}), "rope_parameters.factor");
    refuse(json!({"rope_type": "linear", "factor": 0}), "rope_parameters.factor");
    refuse(json!({"rope_type": "yarn", "factor": 4, "rope_theta": 1}), "rope_theta");
    refuse(json!({"rope_type": "yarn", "factor": 4, "beta_fast": -1}), "beta_fast");
    refuse(json!({"rope_type": "yarn", "factor": 4, "truncate": false}), "truncate");
    let llama3 = json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4});
    refuse(llama3, "high_freq_factor");
}

#[test]
fn configurations_that_are_no_json_are_named() {
    let deep = format!("{}{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    for (file, contents) in [
        ("config.json", "{\"hidden_size\": NaN}"),
        ("config.json", "[]"),
        ("config.json", ""),
        ("config.json", "{"),
        ("config.json", "\u{feff}{}"),
        ("config.json", deep.as_str()),
        ("generation_config.json", "{\"temperature\": -1}"),
        ("generation_config.json", "{\"eos_token_id\": [[1]]}"),
        ("generation_config.json", "7"),
        ("tokenizer_config.json", "{,}"),
    ] {
        let copy = copy_of("qwen2-bf16");
        std::fs::write(copy.path().join(file), contents).unwrap();
        assert!(opens_within_bounds(copy.path(), contents.len()).is_err());
        refused(copy.path(), file, "");
    }
}

/// Every field takes every value of a list of bad ones; what still opens must still compute.
#[test]
fn any_field_may_hold_anything() {
    let bad = [
        json!(null),
        json!(0),
        json!(1),
        json!(-1),
        json!(3),
        json!(32),
        json!(64),
        json!(1e12),
        json!(1e-30),
        json!(1e300),
        json!(0.5),
        json!("x"),
        json!([]),
        json!({}),
        json!(true),
        json!(false),
        json!([{"a": [[]]}]),
    ];
    for fixture in DIRECTORIES {
        let copy = copy_of(fixture);
        let path = copy.path().join("config.json");
        let original: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let baseline = Checkpoint::open(copy.path()).unwrap();
        let mut computed = 0;
        for field in original.as_object().unwrap().keys() {
            for value in &bad {
                let mut config = original.clone();
                config[field] = value.clone();
                // A new file: file systems wait for the disk when a file is cut off and written anew.
                std::fs::remove_file(&path).unwrap();
                std::fs::write(&path, config.to_string()).unwrap();
                let Ok(checkpoint) = opens_within_bounds(copy.path(), 300_000) else { continue };
                if checkpoint.config() != baseline.config() {
                    computed += 1;
                    let length = checkpoint.config().context_length.min(3);
                    let setup = Setup { length, threads: 1, ..Setup::EXACT };
                    let rows = Runner::new(&checkpoint, setup).step(&[(0, 0, &[5, 6, 7][..length])]);
                    assert_eq!(rows.len(), length, "{fixture} {field} {value}");
                }
            }
        }
        assert!(computed > 3, "{fixture}: {computed}");
    }
}

// ---- random damage ----

/// Whatever opens must also answer every question without a panic.
fn question(checkpoint: &Checkpoint) {
    let _ = (checkpoint.end_tokens(), checkpoint.languages(), checkpoint.tensors(), checkpoint.metadata());
    let _ = checkpoint.info(byzerllm_model::Compute::Exact);
    let _ = checkpoint.tokenizer();
    let _ = checkpoint.chat_template();
}

fn damage(file: &mut File, flips: &[(usize, u8)]) {
    for &(place, mask) in flips {
        let mut byte = [0];
        file.seek(SeekFrom::Start(place as u64)).unwrap();
        file.read_exact(&mut byte).unwrap();
        file.seek(SeekFrom::Start(place as u64)).unwrap();
        file.write_all(&[byte[0] ^ mask]).unwrap();
    }
}

/// Opens a file with some bits of its first `header` bytes flipped, and repairs it.
fn survives(path: &Path, open: &Path, flips: &[(usize, u8)]) {
    let mut file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let size = file.metadata().unwrap().len() as usize;
    damage(&mut file, flips);
    match opens_within_bounds(open, size) {
        Ok(checkpoint) => question(&checkpoint),
        Err(error) => assert!(error.to_string().contains(&*open.to_string_lossy()), "{error}"),
    }
    let reversed: Vec<(usize, u8)> = flips.iter().rev().copied().collect();
    damage(&mut file, &reversed);
}

fn flips(header: usize) -> impl Strategy<Value = Vec<(usize, u8)>> {
    // Half of the flips hit the first bytes, where the counts and lengths are.
    let place = prop_oneof![0..header.min(400), 0..header];
    proptest::collection::vec((place, 1..=255_u8), 1..6)
}

#[test]
fn flipped_bits_of_gguf_never_panic() {
    let directory = tempfile::tempdir().unwrap();
    for (stem, cases) in [("llama-q4_0", 1500), ("qwen2-mixed", 500)] {
        let path = directory.path().join(format!("{stem}.gguf"));
        std::fs::copy(gguf_path(stem), &path).unwrap();
        let header = gguf_header_bytes(&path);
        let mut runner = seeded(cases);
        runner
            .run(&flips(header), |flips| {
                survives(&path, &path, &flips);
                Ok(())
            })
            .unwrap();
        // Every byte of the fields before the long arrays, and all of the tensor directory.
        for place in (0..800).chain(header - 1400..header) {
            survives(&path, &path, &[(place, 0xff)]);
        }
        assert!(Checkpoint::open(&path).is_ok());
    }
}

#[test]
fn flipped_bits_of_safetensors_never_panic() {
    let copy = copy_of("falcon-multi-query-f16");
    let path = copy.path().join("model.safetensors");
    let mut length = [0; 8];
    File::open(&path).unwrap().read_exact(&mut length).unwrap();
    let header = 8 + u64::from_le_bytes(length) as usize;
    let mut runner = seeded(1500);
    runner
        .run(&flips(header), |flips| {
            survives(&path, copy.path(), &flips);
            Ok(())
        })
        .unwrap();
    for place in 0..header {
        survives(&path, copy.path(), &[(place, 0x01)]);
    }
    assert!(Checkpoint::open(copy.path()).is_ok());
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    for length in (0..header).rev() {
        file.set_len(length as u64).unwrap();
        assert!(opens_within_bounds(copy.path(), length).is_err());
    }
}

/// The same cases on every run.
fn seeded(cases: u32) -> proptest::test_runner::TestRunner {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let rng = proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
    proptest::test_runner::TestRunner::new_with_rng(config, rng)
}
