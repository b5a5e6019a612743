//! Tiny encoders of every family against what sentence-transformers computed on them.

use std::path::PathBuf;
use std::sync::Arc;

use byzerllm_kernels::{ComputePool, PoolOptions};
use byzerllm_model::encoder::{Origin, Pooling};
use byzerllm_model::{Compute, EncodedInput, Encoder, EncoderCheckpoint, EncoderInput, Task, task_of};
use serde::Deserialize;

use crate::support::fixtures;

/// The checkpoints of `fixtures/encoders`: how each is meant to be read.
const ENCODERS: [(&str, &str, Task); 11] = [
    ("bert-mean", "BertModel", Task::Embed),
    ("bge-words-bf16", "BertForMaskedLM", Task::Embed),
    ("bert-rank-torch", "BertForSequenceClassification", Task::Rerank),
    ("xlm-roberta-f16", "XLMRobertaModel", Task::Embed),
    ("xlm-roberta-rank-bf16", "XLMRobertaForSequenceClassification", Task::Rerank),
    ("roberta-labels", "RobertaForSequenceClassification", Task::Rerank),
    ("distilbert-dense", "DistilBertModel", Task::Embed),
    ("distilbert-rank", "DistilBertForSequenceClassification", Task::Rerank),
    ("gguf-bert-cls", "BertModel", Task::Embed),
    ("gguf-nomic-mean", "nomic-bert", Task::Embed),
    ("gguf-xlm-roberta-rank", "BertModel", Task::Rerank),
];

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    Text { text: String, prompt: Option<String> },
    Pair { query: String, passage: String },
}

#[derive(Deserialize)]
struct Expected {
    inputs: Vec<Input>,
    ids: Vec<Vec<u32>>,
    types: Vec<Vec<u8>>,
    width: usize,
}

pub(crate) fn path(name: &str) -> PathBuf {
    let directory = fixtures().join("encoders").join(name);
    let gguf = directory.join("model.gguf");
    if gguf.is_file() { gguf } else { directory }
}

pub(crate) fn open(name: &str) -> EncoderCheckpoint {
    EncoderCheckpoint::open(&path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub(crate) fn network(checkpoint: &EncoderCheckpoint, compute: Compute, threads: usize) -> Box<dyn Encoder> {
    let pool = ComputePool::new(PoolOptions { threads: Some(threads), ..PoolOptions::default() }).unwrap();
    checkpoint.network(&Arc::new(pool), compute, &|_| {}).unwrap()
}

pub(crate) fn rows(network: &mut dyn Encoder, inputs: &[EncodedInput]) -> Vec<Vec<f32>> {
    let inputs: Vec<EncoderInput<'_>> = inputs.iter().map(EncodedInput::as_input).collect();
    let rows = network.encode(&inputs).unwrap();
    (0..rows.len()).map(|index| rows.row(index).to_vec()).collect()
}

fn read(name: &str) -> (Expected, Vec<Vec<f32>>) {
    let directory = fixtures().join("encoders").join(name);
    let expected: Expected =
        serde_json::from_slice(&std::fs::read(directory.join("expected.json")).unwrap()).unwrap();
    let bytes = std::fs::read(directory.join("rows.bin")).unwrap();
    let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let rows = values.chunks_exact(expected.width).map(<[f32]>::to_vec).collect();
    (expected, rows)
}

fn encoded(checkpoint: &EncoderCheckpoint, expected: &Expected) -> Vec<EncodedInput> {
    let tokenizer = checkpoint.tokenizer().unwrap();
    let encode = |input: &Input| match input {
        Input::Text { text, prompt } => tokenizer.text(text, prompt.as_deref()).unwrap(),
        Input::Pair { query, passage } => tokenizer.pair(query, passage).unwrap(),
    };
    expected.inputs.iter().map(encode).collect()
}

/// The largest value of all rows.
fn scale(rows: &[Vec<f32>]) -> f32 {
    rows.iter().flatten().fold(0.0_f32, |most, value| most.max(value.abs()))
}

/// The largest difference, in parts of `scale`.
fn difference(found: &[f32], expected: &[f32], scale: f32) -> f32 {
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
    assert!(found.iter().all(|value| value.is_finite()));
    worst / scale
}

#[test]
fn tasks_and_families_are_recognized() {
    for (name, class, task) in ENCODERS {
        assert_eq!(task_of(&path(name)).unwrap(), task, "{name}");
        let checkpoint = open(name);
        assert_eq!(checkpoint.architecture(), class, "{name}");
        assert_eq!(checkpoint.config().task, task, "{name}");
        assert!(checkpoint.memory_estimate(Compute::Exact) > 10_000, "{name}");
        assert!(checkpoint.tensors().len() > 20 && checkpoint.metadata().len() > 5, "{name}");
    }
    assert_eq!(task_of(&fixtures().join("llama-tied-f32")).unwrap(), Task::Generate);
    assert_eq!(task_of(&crate::support::gguf_path("qwen2-mixed")).unwrap(), Task::Generate);
}

#[test]
fn tokens_and_types_are_those_of_transformers() {
    for (name, ..) in ENCODERS {
        let checkpoint = open(name);
        let (expected, _) = read(name);
        for (index, input) in encoded(&checkpoint, &expected).iter().enumerate() {
            assert_eq!(input.ids, expected.ids[index], "{name}, input {index}");
            // A network without types reads zeros, whatever its tokenizer says.
            let typed = checkpoint.config().token_types > 1;
            let types = if typed { expected.types[index].clone() } else { vec![0; input.ids.len()] };
            assert_eq!(input.types, types, "{name}, input {index}");
            assert_eq!(input.length, input.ids.len());
        }
    }
}

#[test]
fn exact_rows_are_those_of_sentence_transformers() {
    for (name, ..) in ENCODERS {
        let checkpoint = open(name);
        let (expected, reference_rows) = read(name);
        let mut network = network(&checkpoint, Compute::Exact, 2);
        assert_eq!(network.traits().width, expected.width, "{name}");
        let found = rows(&mut *network, &encoded(&checkpoint, &expected));
        assert_eq!(found.len(), reference_rows.len(), "{name}");
        for (index, (found, reference)) in found.iter().zip(&reference_rows).enumerate() {
            let difference = difference(found, reference, scale(&reference_rows));
            assert!(difference < 1e-4, "{name}, row {index}: {difference}\n{found:?}\n{reference:?}");
        }
    }
}

#[test]
fn rounded_rows_stay_near() {
    // The relative error of one rounded product, grown by layers whose random weights cancel nothing.
    for (compute, limit) in [(Compute::Standard, 0.05), (Compute::Fast, 0.12)] {
        for (name, ..) in ENCODERS {
            let checkpoint = open(name);
            let (expected, reference_rows) = read(name);
            let mut network = network(&checkpoint, compute, 2);
            let found = rows(&mut *network, &encoded(&checkpoint, &expected));
            let mut worst = 0.0_f32;
            for (found, reference) in found.iter().zip(&reference_rows) {
                let difference = difference(found, reference, scale(&reference_rows));
                worst = worst.max(difference);
            }
            assert!(worst < limit, "{name}, {compute:?}: {worst}");
        }
    }
}

#[test]
fn rows_do_not_depend_on_their_company() {
    for (name, ..) in ENCODERS {
        let checkpoint = open(name);
        let (expected, _) = read(name);
        let inputs = encoded(&checkpoint, &expected);
        for compute in Compute::ALL {
            let mut together = network(&checkpoint, compute, 2);
            let all = rows(&mut *together, &inputs);
            let mut alone = network(&checkpoint, compute, 1);
            for (input, row) in inputs.iter().zip(&all).rev() {
                assert_eq!(&rows(&mut *alone, std::slice::from_ref(input))[0], row, "{name} {compute:?}");
            }
        }
    }
}

#[test]
fn settings_say_where_they_are_from() {
    let mean = open("bert-mean");
    assert_eq!(mean.config().head.pooling, [Pooling::Mean]);
    assert!(mean.config().head.normalize);
    assert_eq!(mean.config().max_length, 40);
    assert_eq!(mean.settings().pooling_origin, Origin::Given("1_Pooling/config.json".to_owned()));
    assert_eq!(mean.settings().max_length_origin, Origin::Given("sentence_bert_config.json".to_owned()));
    assert_eq!(mean.settings().default_prompt.as_deref(), Some("passage"));
    assert_eq!(mean.settings().prompts["query"], "the query: ");
    let info = mean.info(Compute::Standard);
    assert_eq!(info.details["pooling_from"], "1_Pooling/config.json");
    assert_eq!(info.details["dimensions"], 32);

    let bge = open("bge-words-bf16");
    assert_eq!(bge.config().head.pooling, [Pooling::Cls]);
    assert!(matches!(bge.settings().pooling_origin, Origin::Assumed(why) if why.contains("BGE")));
    let xlm = open("xlm-roberta-f16");
    assert_eq!((xlm.config().max_length, xlm.config().head.normalize), (48, false));
    assert!(matches!(xlm.settings().pooling_origin, Origin::Assumed(why) if why.contains("mean")));

    let labels = open("roberta-labels");
    assert_eq!(labels.settings().labels, ["entails", "neutral", "contradicts"]);
    assert_eq!(labels.settings().probabilities, None);
    assert_eq!(open("xlm-roberta-rank-bf16").settings().probabilities, Some(true));
    let gguf = open("gguf-bert-cls");
    assert_eq!(gguf.settings().pooling_origin, Origin::Given("bert.pooling_type".to_owned()));
    assert_eq!(gguf.info(Compute::Exact).details["format"], "gguf v3");
}

#[test]
fn prompts_are_known_by_name() {
    let tokenizer = open("bert-mean").tokenizer().unwrap();
    let plain = tokenizer.text("Paris", Some("")).unwrap();
    assert_eq!(plain, tokenizer.text("Paris", Some("document")).unwrap());
    assert_eq!(tokenizer.text("Paris", None).unwrap(), tokenizer.text("Paris", Some("passage")).unwrap());
    assert!(plain.ids.len() < tokenizer.text("Paris", None).unwrap().ids.len());
    let error = tokenizer.text("Paris", Some("title")).unwrap_err().to_string();
    assert!(error.contains("title") && error.contains("passage, query"), "{error}");
}

#[test]
fn tokens_get_the_special_ones() {
    let tokenizer = open("bert-mean").tokenizer().unwrap();
    let text = tokenizer.text("hello world", Some("")).unwrap();
    let inner = &text.ids[1..text.ids.len() - 1];
    assert_eq!(tokenizer.tokens(inner).unwrap(), text);
    let error = tokenizer.tokens(&[1_000_000]).unwrap_err().to_string();
    assert!(error.contains("1000000"), "{error}");
}

#[test]
fn cutting_keeps_special_tokens_and_cuts_the_longer_text() {
    let tokenizer = open("bert-rank-torch").tokenizer().unwrap();
    let whole = tokenizer.pair("hello world", &"capital of France ".repeat(12)).unwrap();
    let first = whole.types.iter().filter(|kind| **kind == 0).count();
    let mut cut = whole.clone();
    let removed = cut.truncate(20).unwrap();
    assert_eq!((cut.ids.len(), cut.types.len(), cut.length), (20, 20, whole.ids.len()));
    assert_eq!(removed, whole.ids.len() - 20);
    // The query was short: it is whole.
    assert_eq!(cut.ids[..first], whole.ids[..first]);
    assert_eq!(cut.ids[first..19], whole.ids[first..19]);
    assert_eq!(cut.ids.last(), whole.ids.last());
    // Both are halved when the shorter one is more than half; the second of two gets the odd token.
    let mut both = tokenizer.pair(&"world ".repeat(30), &"world ".repeat(29)).unwrap();
    both.truncate(16).unwrap();
    let second = both.types.iter().filter(|kind| **kind == 1).count() - 1;
    assert_eq!((both.ids.len() - 3 - second, second), (7, 6));
    // Nothing to do, twice to do, impossible.
    let mut short = tokenizer.pair("hello", "world").unwrap();
    assert_eq!(short.truncate(100).unwrap(), 0);
    let length = short.ids.len();
    assert_eq!(short.truncate(length - 1).unwrap() + short.truncate(length - 2).unwrap(), 2);
    assert_eq!(short.truncate(3).unwrap(), length - 5);
    assert!(short.truncate(2).unwrap_err().to_string().contains("3 special tokens"));
    let mut text = open("bert-mean").tokenizer().unwrap().text(&"Paris ".repeat(50), Some("query")).unwrap();
    let end = *text.ids.last().unwrap();
    let begin = text.ids[..10].to_vec();
    text.truncate(40).unwrap();
    assert_eq!((text.ids.len(), text.ids[39], &text.ids[..10]), (40, end, &begin[..]));
}

#[test]
fn inputs_that_the_network_cannot_read_are_refused() {
    let checkpoint = open("bert-rank-torch");
    let mut network = network(&checkpoint, Compute::Standard, 1);
    let long = vec![1; 49];
    let cases: [(&[u32], &[u8]); 5] =
        [(&[], &[]), (&long, &[0; 49]), (&[1, 9_999_999], &[0, 0]), (&[1, 2], &[0]), (&[1, 2], &[0, 7])];
    for (ids, types) in cases {
        let error = network.encode(&[EncoderInput { ids, types }]).unwrap_err();
        assert_eq!(error.kind(), byzerllm_core::ErrorKind::InvalidRequest, "{ids:?}: {error}");
    }
}
