//! Fixtures, and a network driven by hand.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use byzerllm_kernels::{ComputePool, PoolOptions};
use byzerllm_model::{Checkpoint, Compute, CpuOptions, Mask, Network, Output, PackedBatch, SequenceInput};
use serde::Deserialize;

/// A copy of a fixture's directory, for tests that damage it.
pub(crate) fn copy_of(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixtures().join(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// The directories with fixtures in Hugging Face layout.
pub(crate) const DIRECTORIES: [&str; 12] = [
    "llama-tied-f32",
    "llama-sharded-bf16",
    "llama-llama3-f16",
    "llama-yarn-bf16",
    "mistral-window-bf16",
    "qwen2-tied-f16",
    "qwen2-bf16",
    "gpt-neox-f16",
    "gpt-neox-serial-bf16",
    "falcon-alibi-bf16",
    "falcon-multi-query-f16",
    "falcon-rope-gqa-bf16",
];

/// The GGUF fixtures.
pub(crate) const GGUF_FILES: [&str; 7] =
    ["llama-q4_0", "llama-q4_1", "llama-q8_0", "llama-f16", "qwen2-mixed", "llama-k-quants", "llama-q5-v2"];

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

pub(crate) fn gguf_path(stem: &str) -> PathBuf {
    fixtures().join("gguf").join(format!("{stem}.gguf"))
}

/// What Hugging Face's code computed.
#[derive(Deserialize)]
pub(crate) struct Expected {
    pub(crate) prompts: Vec<Vec<u32>>,
    pub(crate) greedy_prompt: usize,
    pub(crate) greedy: Vec<u32>,
    /// Per prompt, per position, the logits.
    #[serde(skip)]
    pub(crate) logits: Vec<Vec<Vec<f32>>>,
}

/// A fixture's checkpoint with what is expected of it.
pub(crate) struct Fixture {
    pub(crate) name: String,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) expected: Expected,
}

impl Fixture {
    pub(crate) fn read(name: &str, path: &Path, expected: &Path, logits: &Path) -> Self {
        let checkpoint = Checkpoint::open(path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut expected: Expected = serde_json::from_slice(&std::fs::read(expected).unwrap()).unwrap();
        let bytes = std::fs::read(logits).unwrap();
        let values = bytes.as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk));
        let values: Vec<f32> = values.collect();
        let mut rows = values.chunks_exact(checkpoint.config().vocab_size).map(<[f32]>::to_vec);
        expected.logits =
            expected.prompts.iter().map(|ids| rows.by_ref().take(ids.len()).collect()).collect();
        assert!(rows.next().is_none(), "{name}: more logits than prompts");
        Self { name: name.to_owned(), checkpoint, expected }
    }

    pub(crate) fn directory(name: &str) -> Self {
        let path = fixtures().join(name);
        Self::read(name, &path, &path.join("expected.json"), &path.join("logits.bin"))
    }

    pub(crate) fn gguf(stem: &str) -> Self {
        let folder = fixtures().join("gguf");
        let expected = folder.join(format!("{stem}.expected.json"));
        Self::read(stem, &gguf_path(stem), &expected, &folder.join(format!("{stem}.logits.bin")))
    }

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        DIRECTORIES
            .iter()
            .map(|name| Self::directory(name))
            .chain(GGUF_FILES.iter().map(|stem| Self::gguf(stem)))
    }
}

/// A network with cache for a few sequences, each in blocks of its own.
pub(crate) struct Runner {
    network: Box<dyn Network>,
    /// Per sequence, per cache group, its blocks.
    tables: Vec<Vec<Vec<u32>>>,
}

/// How a runner is built.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) compute: Compute,
    pub(crate) threads: usize,
    pub(crate) block_tokens: usize,
    pub(crate) sequences: usize,
    /// Tokens per sequence at most.
    pub(crate) length: usize,
    /// Whether a sequence's blocks lie in reverse order.
    pub(crate) reversed: bool,
}

impl Setup {
    pub(crate) const EXACT: Setup = Setup {
        compute: Compute::Exact,
        threads: 2,
        block_tokens: 16,
        sequences: 1,
        length: 128,
        reversed: false,
    };
}

/// Tokens of one sequence in a step: its slot, how many it has already, and the new ones.
pub(crate) type Part<'a> = (usize, usize, &'a [u32]);

impl Runner {
    pub(crate) fn new(checkpoint: &Checkpoint, setup: Setup) -> Self {
        let pool =
            ComputePool::new(PoolOptions { threads: Some(setup.threads), ..PoolOptions::default() }).unwrap();
        let options = CpuOptions { block_tokens: setup.block_tokens, ..CpuOptions::new(setup.compute) };
        let mut network = checkpoint.network(&Arc::new(pool), &options).unwrap();
        let groups = network.traits().cache_groups.len();
        let each = setup.length.div_ceil(setup.block_tokens);
        network.allocate_cache(&vec![each * setup.sequences; groups]).unwrap();
        let blocks = |slot: usize| {
            let mut blocks: Vec<u32> = (slot * each..(slot + 1) * each).map(|block| block as u32).collect();
            if setup.reversed {
                blocks.reverse();
            }
            blocks
        };
        let tables = (0..setup.sequences).map(|slot| vec![blocks(slot); groups]).collect();
        Self { network, tables }
    }

    /// One step; returns the logits of every token of every part.
    pub(crate) fn step(&mut self, parts: &[Part<'_>]) -> Vec<Vec<f32>> {
        let ids: Vec<u32> = parts.iter().flat_map(|(_, _, ids)| *ids).copied().collect();
        let positions: Vec<u32> =
            parts.iter().flat_map(|(_, past, ids)| *past as u32..(past + ids.len()) as u32).collect();
        let tables: Vec<Vec<&[u32]>> =
            parts.iter().map(|(slot, ..)| self.tables[*slot].iter().map(Vec::as_slice).collect()).collect();
        let mut start = 0;
        let mut sequences = Vec::new();
        for ((_, past, ids), tables) in parts.iter().zip(&tables) {
            sequences.push(SequenceInput {
                start,
                count: ids.len(),
                past: *past,
                block_tables: tables,
                mask: Mask::Causal,
                adapter: None,
                cross_cache: None,
            });
            start += ids.len();
        }
        let rows: Vec<u32> = (0..ids.len() as u32).collect();
        let batch = PackedBatch {
            ids: &ids,
            embeddings: None,
            positions: &positions,
            sequences: &sequences,
            rows: &rows,
            output: Output::Logits,
        };
        let rows = self.network.forward(&batch).unwrap();
        (0..rows.len()).map(|index| rows.row(index).to_vec()).collect()
    }

    /// Greedy continuation of a prompt in slot 0.
    pub(crate) fn greedy(&mut self, prompt: &[u32], count: usize) -> Vec<u32> {
        let mut out = Vec::new();
        let mut row = self.step(&[(0, 0, prompt)]).pop().unwrap();
        loop {
            let best = argmax(&row);
            out.push(best);
            if out.len() == count {
                return out;
            }
            row = self.step(&[(0, prompt.len() + out.len() - 1, &[best])]).pop().unwrap();
        }
    }
}

pub(crate) fn argmax(row: &[f32]) -> u32 {
    let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
    best.0 as u32
}

pub(crate) fn bits(rows: &[Vec<f32>]) -> Vec<Vec<u32>> {
    rows.iter().map(|row| row.iter().map(|value| value.to_bits()).collect()).collect()
}
