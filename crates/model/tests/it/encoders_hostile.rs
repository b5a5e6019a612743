//! Encoders' files that lie: every defect is an error that names the file and the field, never a panic.

use std::path::Path;

use byzerllm_model::encoder::{OnnxOptions, convert_onnx_bert};
use byzerllm_model::{EncoderCheckpoint, task_of};
use serde_json::{Value, json};

use crate::allocations::peak;
use crate::encoders::path;

/// A copy of a fixture's directory with its folders.
fn copy_of(name: &str) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => copy(&entry.path(), &target),
                false => drop(std::fs::copy(entry.path(), target).unwrap()),
            }
        }
    }
    let target = tempfile::tempdir().unwrap();
    copy(&path(name), target.path());
    target
}

/// The message of opening, or of making the tokenizer, after a file was changed.
fn refusal(name: &str, file: &str, change: impl Fn(&mut Value)) -> String {
    let copy = copy_of(name);
    let target = copy.path().join(file);
    let mut value: Value = serde_json::from_slice(&std::fs::read(&target).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(&target, value.to_string()).unwrap();
    let size = 1 << 20;
    let (outcome, most) = peak(|| {
        let checkpoint = EncoderCheckpoint::open(copy.path())?;
        checkpoint.tokenizer().map(|_| ())
    });
    assert!(most < 32 * size, "{most} bytes for {file}");
    match outcome {
        Err(error) => error.to_string(),
        Ok(()) => panic!("{name}: a changed {file} was accepted"),
    }
}

/// Makes a value lie.
type Change<T> = fn(&mut T);
/// Makes a text lie.
type Edit = fn(String) -> String;

#[test]
fn configurations_that_lie_are_refused() {
    let cases: [(&str, Value, &str); 14] = [
        ("vocab_size", json!(1_000_000_000), "word_embeddings"),
        ("hidden_size", json!(0), "hidden_size"),
        ("hidden_size", json!(33), "word_embeddings"),
        ("num_attention_heads", json!(5), "heads"),
        ("num_hidden_layers", json!(900), "num_hidden_layers"),
        ("num_hidden_layers", json!(3), "layer.2"),
        ("intermediate_size", json!(1 << 29), "intermediate.dense"),
        ("max_position_embeddings", json!(1 << 29), "position_embeddings"),
        ("max_position_embeddings", json!(2), "max_position_embeddings"),
        ("type_vocab_size", json!(100_000), "type_vocab_size"),
        ("layer_norm_eps", json!("NaN"), "layer_norm_eps"),
        ("hidden_act", json!("softsign"), "softsign"),
        ("position_embedding_type", json!("relative_key"), "position_embedding_type"),
        ("quantization_config", json!({"quant_method": "gptq"}), "quantization_config"),
    ];
    for (field, value, expected) in cases {
        let message = refusal("bert-mean", "config.json", |config| config[field] = value.clone());
        assert!(message.contains(expected), "{field} = {value}: {message}");
    }
    let message = refusal("bert-mean", "config.json", |config| config["architectures"] = json!(["T5Model"]));
    assert!(message.contains("T5Model") && message.contains("BertModel"), "{message}");
    let message = refusal("roberta-labels", "config.json", |config| config["id2label"] = json!({"0": "one"}));
    assert!(message.contains("id2label") && message.contains('3'), "{message}");
    let message = refusal("roberta-labels", "config.json", |config| config["pad_token_id"] = json!(49));
    assert!(message.contains("max_position_embeddings"), "{message}");
}

#[test]
fn files_of_sentence_transformers_that_lie_are_refused() {
    let modules = |change: fn(&mut Value)| refusal("distilbert-dense", "modules.json", change);
    let cases: [(Change<Value>, &str); 8] = [
        (|modules| *modules = json!({}), "list of modules"),
        (|modules| *modules = json!(vec![json!({}); 1000]), "1000 modules"),
        (|modules| modules[1]["path"] = json!("../../etc"), "../../etc"),
        (|modules| modules[1]["path"] = json!("/etc"), "/etc"),
        (|modules| modules[1]["path"] = json!("absent"), "absent"),
        (|modules| modules[1]["type"] = json!("a.b.LSTM"), "LSTM"),
        (|modules| modules[4]["type"] = json!("a.Pooling"), "Pooling"),
        (|modules| modules[2]["path"] = json!("3_Dense"), "in_features"),
    ];
    for (change, expected) in cases {
        let message = modules(change);
        assert!(message.contains(expected), "{message} should say {expected}");
    }
    let dense: [(&str, Value, &str); 4] = [
        ("out_features", json!(1 << 29), "out_features"),
        ("out_features", json!(25), "reads 24 values"),
        ("activation_function", json!("os.system"), "os.system"),
        ("module_input_name", json!("token_embeddings"), "module_input_name"),
    ];
    for (field, value, expected) in dense {
        let message =
            refusal("distilbert-dense", "2_Dense/config.json", |config| config[field] = value.clone());
        assert!(message.contains(expected), "{message}");
    }
    let pooling = |field: &'static str, value: Value| {
        refusal("distilbert-dense", "1_Pooling/config.json", move |config| config[field] = value.clone())
    };
    assert!(pooling("pooling_mode", json!("weightedmean")).contains("weightedmean"));
    assert!(pooling("pooling_mode", json!([])).contains("pooling_mode"));
    assert!(pooling("include_prompt", json!(false)).contains("include_prompt"));
    let prompts = |field: &'static str, value: Value| {
        refusal("bert-mean", "config_sentence_transformers.json", move |config| config[field] = value.clone())
    };
    assert!(prompts("prompts", json!(["a"])).contains("prompts"));
    assert!(prompts("prompts", json!({"query": 3})).contains("prompts.query"));
    assert!(prompts("default_prompt_name", json!("none")).contains("default_prompt_name"));
    assert!(prompts("similarity_fn_name", json!("guess")).contains("guess"));
    let length =
        refusal("bert-mean", "sentence_bert_config.json", |config| config["max_seq_length"] = json!(2));
    assert!(length.contains("max_seq_length"), "{length}");
}

#[test]
fn vocabularies_that_lie_are_refused() {
    let words = |change: fn(String) -> String| {
        let copy = copy_of("bge-words-bf16");
        let file = copy.path().join("vocab.txt");
        std::fs::write(&file, change(std::fs::read_to_string(&file).unwrap())).unwrap();
        EncoderCheckpoint::open(copy.path()).unwrap().tokenizer().unwrap_err().to_string()
    };
    let cases: [(Edit, &str); 5] = [
        (|_| String::new(), "tokens"),
        (|text| text.replace("[CLS]", "[XXX]"), "[CLS]"),
        (|text| text.replace("[UNK]", "[XXX]"), "[UNK]"),
        (|text| text + "paris\nparis\n", "the same"),
        (|text| text + &(0..500).map(|n| format!("more{n}\n")).collect::<String>(), "rows of embeddings"),
    ];
    for (change, expected) in cases {
        let message = words(change);
        assert!(message.contains("vocab.txt") || message.contains("tokenizer"), "{message}");
        assert!(message.contains(expected), "{message} should say {expected}");
    }
    let copy = copy_of("bge-words-bf16");
    std::fs::remove_file(copy.path().join("vocab.txt")).unwrap();
    let message = EncoderCheckpoint::open(copy.path()).unwrap().tokenizer().unwrap_err().to_string();
    assert!(message.contains("sentencepiece.bpe.model"), "{message}");
}

#[test]
fn cut_files_are_refused() {
    for name in ["gguf-bert-cls", "gguf-xlm-roberta-rank"] {
        let whole = std::fs::read(path(name)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cut.gguf");
        for part in 0..40 {
            std::fs::write(&file, &whole[..whole.len() * part / 40]).unwrap();
            assert!(EncoderCheckpoint::open(&file).is_err(), "{name}, {part}/40");
            let _ = task_of(&file);
        }
    }
    let error = EncoderCheckpoint::open(&crate::support::gguf_path("llama-f16")).unwrap_err().to_string();
    assert!(error.contains("llama") && error.contains("bert"), "{error}");
}

// ---- ONNX ----

fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = varint(number << 3 | 2);
    out.extend(varint(bytes.len() as u64));
    out.extend_from_slice(bytes);
    out
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn number(number: u64, value: u64) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}

fn tensor(name: &str, shape: &[u64], kind: u64, raw: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = shape.iter().flat_map(|size| number(1, *size)).collect();
    bytes.extend(number(2, kind));
    bytes.extend(field(8, name.as_bytes()));
    bytes.extend(field(9, raw));
    field(5, &bytes)
}

fn node(operation: &str, inputs: &[&str], output: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = inputs.iter().flat_map(|input| field(1, input.as_bytes())).collect();
    bytes.extend(field(2, output.as_bytes()));
    bytes.extend(field(4, operation.as_bytes()));
    field(1, &bytes)
}

fn converting(graph: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.onnx");
    std::fs::write(&file, field(7, graph)).unwrap();
    let target = folder.path().join("out");
    let (outcome, most) = peak(|| convert_onnx_bert(&file, &target, &OnnxOptions::default()));
    assert!(most < 32 << 20, "{most} bytes");
    assert!(!target.exists());
    outcome.unwrap_err().to_string()
}

#[test]
fn graphs_that_lie_are_refused() {
    const WORDS: &str = "embeddings.word_embeddings.weight";
    let gather = node("Gather", &[WORDS, "input_ids"], "states");
    let cases: [(Vec<u8>, &str); 8] = [
        (Vec::new(), "is it a BERT?"),
        (vec![0x0a], "ends in the middle"),
        (vec![0xff; 12], "64 bits"),
        ([tensor("a.weight", &[2], 1, &[0; 8]), tensor("a.weight", &[2], 1, &[0; 8])].concat(), "twice"),
        ([tensor(WORDS, &[1 << 40, 1 << 40], 1, &[0; 8]), gather.clone()].concat(), "has the shape"),
        ([tensor(WORDS, &[1 << 20, 1 << 20], 1, &[0; 8]), gather.clone()].concat(), "has 8 bytes"),
        ([tensor(WORDS, &[2, 2], 1, &[0; 16]), gather.clone()].concat(), "position_embeddings"),
        ([tensor(WORDS, &[1; 12], 1, &[0; 4]), gather].concat(), "12 dimensions"),
    ];
    for (graph, expected) in cases {
        let message = converting(&graph);
        assert!(
            message.contains("model.onnx") && message.contains(expected),
            "{message} should say {expected}"
        );
    }
    // A weight that stands for itself is not followed for ever.
    let circle =
        [node("Identity", &["a"], "b"), node("Identity", &["b"], "a"), node("MatMul", &["x", "a"], "y")];
    assert!(converting(&circle.concat()).contains("is it a BERT?"));
    let folder = tempfile::tempdir().unwrap();
    let exists = convert_onnx_bert(folder.path(), folder.path(), &OnnxOptions::default()).unwrap_err();
    assert!(exists.to_string().contains("new directory"), "{exists}");
}
