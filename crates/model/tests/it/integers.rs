//! GPTQ and AWQ: what their packers write, and files that lie about it. Their logits are in `parity`.

use std::path::Path;

use byzerllm_model::{Checkpoint, Compute};
use serde_json::{Map, Value, json};

use crate::support::{Fixture, copy_of};

/// A copy of a fixture whose `quantization_config` is changed.
fn with_quantization(name: &str, change: impl FnOnce(&mut Map<String, Value>)) -> tempfile::TempDir {
    let copy = copy_of(name);
    let path = copy.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(config["quantization_config"].as_object_mut().unwrap());
    std::fs::write(&path, config.to_string()).unwrap();
    copy
}

/// A copy of a fixture whose tensors are changed, as `(name, type, shape, bytes)`.
fn with_tensors(
    name: &str,
    change: impl Fn(&mut Vec<(String, String, Vec<u64>, Vec<u8>)>),
) -> tempfile::TempDir {
    let copy = copy_of(name);
    let path = copy.path().join("model.safetensors");
    let file = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: Map<String, Value> = serde_json::from_slice(&file[8..8 + length]).unwrap();
    let mut tensors: Vec<_> = header
        .iter()
        .filter(|(name, _)| *name != "__metadata__")
        .map(|(name, tensor)| {
            let place = |index: usize| 8 + length + tensor["data_offsets"][index].as_u64().unwrap() as usize;
            let shape = serde_json::from_value(tensor["shape"].clone()).unwrap();
            let dtype = tensor["dtype"].as_str().unwrap().to_owned();
            (name.clone(), dtype, shape, file[place(0)..place(1)].to_vec())
        })
        .collect();
    change(&mut tensors);
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let end = data.len() + bytes.len();
        header.insert(name, json!({"dtype": dtype, "shape": shape, "data_offsets": [data.len(), end]}));
        data.extend(bytes);
    }
    let header = Value::Object(header).to_string();
    let length = (header.len() as u64).to_le_bytes();
    std::fs::write(&path, [&length[..], header.as_bytes(), &data].concat()).unwrap();
    copy
}

#[track_caller]
fn refused(directory: &Path, words: &[&str]) {
    let error = Checkpoint::open(directory).expect_err(words[0]).to_string();
    for word in words {
        assert!(error.contains(word), "{error:?} should name {word}");
    }
}

#[test]
fn codes_keep_their_bits() {
    let representation =
        |name| Fixture::directory(name).checkpoint.info(Compute::Standard).details["weights"].clone();
    let four = "4-bit codes, f16 scale per 32";
    let wide = "4-bit codes, f32 scale and minimum per 32";
    // Zeros in the middle need no minimum.
    assert_eq!(representation("gptq-symmetric")["Q4_0"], four);
    for name in ["gptq-activation-order", "gptq-v2-whole-rows", "awq-gemm"] {
        assert_eq!(representation(name)["INT4"], wide, "{name}");
    }
    assert_eq!(representation("gptq-8-activation-order")["Q8_0"], "8-bit codes, f16 scale per 32");
    // 8 bits with zeros elsewhere have no encoding of ours.
    assert!(representation("gptq-8-asymmetric").get("Q8_0").is_none());
    // Groups of 16 columns fit no encoding of ours.
    assert!(representation("gptq-small-groups").get("INT4").is_none());
}

#[test]
fn settings_that_are_not_computed_are_named() {
    let cases: [(&str, &str, Value, &[&str]); 7] = [
        ("gptq-symmetric", "bits", json!(3), &["quantization_config.bits", "3 bits", "4 and 8 are"]),
        ("awq-gemm", "bits", json!(8), &["bits", "8 bits", "4 are"]),
        ("gptq-symmetric", "checkpoint_format", json!("marlin"), &["checkpoint_format", "gptq_v2"]),
        ("gptq-symmetric", "quant_method", json!("bitsandbytes"), &["quant_method", "gptq and awq"]),
        ("gptq-symmetric", "group_size", json!(0), &["group_size"]),
        ("awq-gemm", "version", json!("gemv"), &["version", "gemm"]),
        ("awq-gemm", "bits", json!("four"), &["bits"]),
    ];
    for (name, field, value, words) in cases {
        let copy = with_quantization(name, |config| {
            config.insert(field.to_owned(), value);
        });
        refused(copy.path(), words);
    }
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    const MODULE: &str = "model.layers.0.self_attn.q_proj";
    let change = |kind: &'static str, shape: Option<Vec<u64>>, fill: Option<u8>| {
        with_tensors("gptq-activation-order", |tensors| {
            let tensor = tensors.iter_mut().find(|tensor| tensor.0 == format!("{MODULE}.{kind}")).unwrap();
            if let Some(shape) = &shape {
                tensor.2 = shape.clone();
            }
            if let Some(fill) = fill {
                tensor.3.fill(fill);
            }
        })
    };
    refused(change("qweight", Some(vec![64, 8]), None).path(), &[MODULE, "qweight", "[64, 8]", "[8, 64]"]);
    refused(change("qzeros", Some(vec![8, 2]), None).path(), &["qzeros", "[2, 8]"]);
    refused(change("scales", Some(vec![64, 2]), None).path(), &["scales", "[2, 64]"]);
    refused(change("g_idx", None, Some(0x7F)).path(), &["g_idx", "beyond 2"]);
    refused(change("g_idx", None, Some(0xFF)).path(), &["g_idx", "beyond 2"]);
    for kind in ["qzeros", "scales"] {
        let copy = with_tensors("gptq-activation-order", |tensors| {
            tensors.retain(|tensor| tensor.0 != format!("{MODULE}.{kind}"));
        });
        refused(copy.path(), &[MODULE, kind, "missing"]);
    }
    let copy = with_tensors("gptq-symmetric", |tensors| {
        let tensor = tensors.iter_mut().find(|tensor| tensor.0 == format!("{MODULE}.qweight")).unwrap();
        tensor.1 = "F32".into();
    });
    refused(copy.path(), &["qweight", "F32"]);
    // All codes of a group in the first place: no order brings whole blocks together, and it is computed all the same.
    assert!(Checkpoint::open(change("g_idx", None, Some(0)).path()).is_ok());
}
