//! Real encoders, when their files are at hand: golden cosines and logits of public weights, and rank correlation with
//! people on the Lee corpus.
//!
//! `BYZERLLM_TEST_MODELS` names a directory with `minilm` (all-MiniLM-L6-v2), `onnx/bge-small-en` and
//! `onnx/ms-marco-minilm` (int8 graphs) and `lee` (`lee.cor` and `similarities0-1.txt` of gensim).

use std::path::{Path, PathBuf};

use byzerllm_model::encoder::{OnnxOptions, Pooling, convert_onnx_bert};
use byzerllm_model::{Compute, Encoder, EncoderCheckpoint, Task};

use crate::encoders::{network, rows};

const QUESTION: &str = "What is the capital of France?";
const PASSAGES: [&str; 4] = [
    "Paris is the capital and most populous city of France.",
    "The Eiffel Tower is in Paris.",
    "Berlin is the capital of Germany.",
    "Bananas are yellow.",
];

/// A model of the directory, or a printed word that it is not there.
fn model(name: &str) -> Option<PathBuf> {
    let found = std::env::var_os("BYZERLLM_TEST_MODELS").map(|folder| Path::new(&folder).join(name));
    let found = found.filter(|path| path.exists());
    if found.is_none() {
        println!("skipped: no {name} in BYZERLLM_TEST_MODELS");
    }
    found
}

fn vectors(checkpoint: &EncoderCheckpoint, network: &mut dyn Encoder, texts: &[&str]) -> Vec<Vec<f32>> {
    let tokenizer = checkpoint.tokenizer().unwrap();
    let inputs: Vec<_> = texts
        .iter()
        .map(|text| {
            let mut input = tokenizer.text(text, None).unwrap();
            input.truncate(256.min(checkpoint.config().max_length)).unwrap();
            input
        })
        .collect();
    rows(network, &inputs)
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The cosines of the question with the passages.
fn cosines(checkpoint: &EncoderCheckpoint, compute: Compute) -> (Vec<f32>, Vec<f32>) {
    let mut texts = vec![QUESTION];
    texts.extend(PASSAGES);
    let found = vectors(checkpoint, &mut *network(checkpoint, compute, 2), &texts);
    let cosines = found[1..].iter().map(|passage| cosine(&found[0], passage)).collect();
    (found[0].clone(), cosines)
}

fn near(found: &[f32], golden: &[f32], tolerance: f32) {
    println!("{found:?}");
    for (found, golden) in found.iter().zip(golden) {
        assert!((found - golden).abs() <= tolerance, "{found} is not {golden} (tolerance {tolerance})");
    }
}

/// The int8 graph of this name as a directory of floats.
fn converted(name: &str, pooling: Option<Pooling>) -> Option<(tempfile::TempDir, EncoderCheckpoint)> {
    let source = model(&format!("onnx/{name}"))?;
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model");
    let options = OnnxOptions { pooling, ..OnnxOptions::default() };
    let report = convert_onnx_bert(&source, &target, &options).unwrap();
    assert!(report.quantized >= 75 && report.bytes > 100 << 20, "{report:?}");
    let checkpoint = EncoderCheckpoint::open(&target).unwrap();
    Some((folder, checkpoint))
}

#[test]
fn minilm_has_its_golden_vector_and_cosines() {
    let Some(path) = model("minilm") else { return };
    let checkpoint = EncoderCheckpoint::open(&path).unwrap();
    assert_eq!((checkpoint.config().max_length, checkpoint.config().width()), (256, 384));
    let golden = [0.7546, 0.4120, 0.4034, -0.0068];
    let (vector, found) = cosines(&checkpoint, Compute::Exact);
    near(&vector[..4], &[0.08205, 0.03606, -0.00389, -0.00488], 0.000_006);
    near(&found, &golden, 0.000_06);
    for compute in [Compute::Standard, Compute::Fast] {
        near(&cosines(&checkpoint, compute).1, &golden, 0.01);
    }
}

#[test]
fn bge_of_an_int8_graph_has_its_golden_cosines() {
    let Some((_folder, checkpoint)) = converted("bge-small-en", Some(Pooling::Cls)) else { return };
    assert_eq!(checkpoint.config().task, Task::Embed);
    let golden = [0.809, 0.667, 0.647, 0.280];
    near(&cosines(&checkpoint, Compute::Exact).1, &golden, 0.0006);
    for compute in [Compute::Standard, Compute::Fast] {
        near(&cosines(&checkpoint, compute).1, &golden, 0.01);
    }
}

#[test]
fn a_reranker_of_an_int8_graph_has_its_golden_logits() {
    let Some((_folder, checkpoint)) = converted("ms-marco-minilm", None) else { return };
    assert_eq!((checkpoint.config().task, checkpoint.config().width()), (Task::Rerank, 1));
    let tokenizer = checkpoint.tokenizer().unwrap();
    let pairs: Vec<_> = PASSAGES.iter().map(|passage| tokenizer.pair(QUESTION, passage).unwrap()).collect();
    let golden = [7.799, -4.212, -2.052, -11.154];
    for (compute, tolerance) in [(Compute::Exact, 0.0006), (Compute::Standard, 0.15), (Compute::Fast, 0.3)] {
        let found = rows(&mut *network(&checkpoint, compute, 2), &pairs);
        near(&found.concat(), &golden, tolerance);
    }
}

/// Ranks, equal values sharing the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let end =
            (start..order.len()).find(|i| values[order[*i]] > values[order[start]]).unwrap_or(order.len());
        let rank = (start + end - 1) as f64 / 2.0;
        order[start..end].iter().for_each(|index| ranks[*index] = rank);
        start = end;
    }
    ranks
}

fn spearman(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() - 1) as f64 / 2.0;
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>();
    product(&a, &b) / (product(&a, &a) * product(&b, &b)).sqrt()
}

/// The correlation of cosines with what people said of the 1,225 pairs of 50 texts.
fn lee(checkpoint: &EncoderCheckpoint, compute: Compute) -> Option<f64> {
    let folder = model("lee")?;
    // The file is Latin-1.
    let bytes = std::fs::read(folder.join("lee.cor")).unwrap();
    let texts: String = bytes.into_iter().map(char::from).collect();
    let texts: Vec<&str> = texts.lines().filter(|line| !line.trim().is_empty()).collect();
    let people: Vec<Vec<f64>> = std::fs::read_to_string(folder.join("similarities0-1.txt"))
        .unwrap()
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| line.split_whitespace().map(|value| value.parse().unwrap()).collect())
        .collect();
    assert_eq!((texts.len(), people.len()), (50, 50));
    let found = vectors(checkpoint, &mut *network(checkpoint, compute, 2), &texts);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for first in 0..50 {
        for second in first + 1..50 {
            ours.push(f64::from(cosine(&found[first], &found[second])));
            theirs.push(people[first][second]);
        }
    }
    let correlation = spearman(&ours, &theirs);
    println!("{compute:?}: Spearman {correlation:.4}");
    Some(correlation)
}

#[test]
fn rank_correlation_with_people_is_reproduced() {
    if let Some(path) = model("minilm") {
        let checkpoint = EncoderCheckpoint::open(&path).unwrap();
        for compute in [Compute::Exact, Compute::Standard, Compute::Fast] {
            let Some(found) = lee(&checkpoint, compute) else { return };
            assert!((found - 0.507).abs() < 0.006, "{compute:?}: {found}");
        }
    }
    if let Some((_folder, checkpoint)) = converted("bge-small-en", Some(Pooling::Cls)) {
        for compute in [Compute::Exact, Compute::Standard, Compute::Fast] {
            let Some(found) = lee(&checkpoint, compute) else { return };
            assert!((found - 0.521).abs() < 0.012, "{compute:?}: {found}");
        }
    }
}

#[test]
fn a_graph_without_a_tokenizer_takes_another_ones() {
    let (Some(graph), Some(minilm)) = (model("onnx/minilm-int8"), model("minilm")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model");
    let alone = convert_onnx_bert(&graph, &target, &OnnxOptions::default()).unwrap_err().to_string();
    assert!(alone.contains("tokenizer") && !target.exists(), "{alone}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let options = OnnxOptions { tokenizer: Some(minilm), pooling: Some(Pooling::Mean), heads: None };
    let report = convert_onnx_bert(&graph, &target, &options).unwrap();
    assert!(report.quantized >= 37, "{report:?}");
    let checkpoint = EncoderCheckpoint::open(&target).unwrap();
    assert_eq!(checkpoint.config().heads, 12);
    near(&cosines(&checkpoint, Compute::Exact).1, &[0.754, 0.419, 0.401, -0.004], 0.002);
}
