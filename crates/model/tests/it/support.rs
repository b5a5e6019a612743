//! Fixtures, and a network driven by hand.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use byzerllm_kernels::{ComputePool, PoolOptions};
use byzerllm_model::{
    Adapter, AdapterId, Checkpoint, Compute, CpuOptions, Mask, Network, Output, PackedBatch, PromptContext,
    Quantization, SequenceInput,
};
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
pub(crate) const DIRECTORIES: &[&str] = &[
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
    "baichuan-7b-bf16",
    "baichuan-13b-bf16",
    "baichuan2-7b-f16",
    "qwen-bf16",
    "codegen-f16",
    "moss-bf16",
    "gptj-bf16",
    "glm-f16",
    "glm-ratio-bf16",
    "glm4-bf16",
    "chatglm2-f16",
    "glm-4-bf16",
    "chatglm2-options-f16",
    "chatglm-6b-f16",
    "gptq-symmetric",
    "gptq-activation-order",
    "gptq-small-groups",
    "gptq-v2-whole-rows",
    "gptq-8-activation-order",
    "gptq-8-asymmetric",
    "awq-gemm",
    "qwen3-bf16",
    "qwen3-window-f16",
    "qwen3-moe-bf16",
    "qwen3-moe-norm-f16",
    "mixtral-bf16",
    "mixtral-fused-f16",
    "gemma-bf16",
    "gemma2-bf16",
    "gemma3-bf16",
    "gemma3-old-f16",
    "gemma3-pattern-bf16",
    "gpt2-f16",
    "gpt2-inverse-bf16",
    "gpt-bigcode-bf16",
    "gpt-bigcode-heads-f16",
    "starcoder2-bf16",
    "starcoder2-plain-f16",
    "phi-bf16",
    "phi-norms-f16",
    "phi3-bf16",
    "phi3-longrope-f16",
    "falcon-7b-bf16",
];

/// The GGUF fixtures.
pub(crate) const GGUF_FILES: &[&str] = &[
    "llama-q4_0",
    "llama-q4_1",
    "llama-q8_0",
    "llama-f16",
    "qwen2-mixed",
    "llama-k-quants",
    "llama-q5-v2",
    "baichuan-7b",
    "baichuan-13b",
    "qwen-q8_0",
    "chatglm-q8_0",
    "chatglm-separate-f16",
    "glm4-f16",
    "qwen3-q8_0",
    "qwen3moe-f16",
    "mixtral-q8_0",
    "mixtral-split-f16",
    "gemma-q8_0",
    "gemma2-q8_0",
    "gemma3-mixed",
    "gpt2-q8_0",
    "starcoder-q8_0",
    "starcoder2-q8_0",
    "phi2-q8_0",
    "phi3-q8_0",
    "phi3-longrope",
    "falcon-q8_0",
    "falcon-40b-f16",
    "gptneox-q8_0",
    "gptneox-serial-f16",
];

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
    /// Per sequence, what its prompt is, for networks that read prompts in both directions.
    contexts: Vec<Option<PromptContext>>,
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
    /// What floats are brought to.
    pub(crate) quantization: Quantization,
}

impl Setup {
    pub(crate) const EXACT: Setup = Setup {
        compute: Compute::Exact,
        threads: 2,
        block_tokens: 16,
        sequences: 1,
        length: 128,
        reversed: false,
        quantization: Quantization::Off,
    };
}

/// Tokens of one sequence in a step: its slot, how many it has already, and the new ones.
pub(crate) type Part<'a> = (usize, usize, &'a [u32]);

impl Runner {
    pub(crate) fn new(checkpoint: &Checkpoint, setup: Setup) -> Self {
        let pool =
            ComputePool::new(PoolOptions { threads: Some(setup.threads), ..PoolOptions::default() }).unwrap();
        let options = CpuOptions {
            block_tokens: setup.block_tokens,
            ..CpuOptions::new(setup.compute).quantized(setup.quantization)
        };
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
        let contexts = vec![None; setup.sequences];
        Self { network, contexts, tables }
    }

    /// The tokens of a prompt that its first step must have: all that are read in both directions, and the one after.
    pub(crate) fn first_step(&self, prompt: &[u32]) -> usize {
        self.network.prompt_context(prompt).map_or(0, |context| context.length + 1).min(prompt.len())
    }

    /// Takes an adapter; its slot.
    pub(crate) fn load(&mut self, adapter: Adapter) -> AdapterId {
        self.network.load_adapter(adapter).unwrap()
    }

    pub(crate) fn unload(&mut self, id: AdapterId) -> bool {
        self.network.unload_adapter(id)
    }

    /// One step; returns the logits of every token of every part.
    pub(crate) fn step(&mut self, parts: &[Part<'_>]) -> Vec<Vec<f32>> {
        self.step_with(parts, &[]).unwrap()
    }

    /// One step with adapters of the parts, in their order.
    pub(crate) fn step_with(
        &mut self,
        parts: &[Part<'_>],
        adapters: &[Option<AdapterId>],
    ) -> byzerllm_core::Result<Vec<Vec<f32>>> {
        let ids: Vec<u32> = parts.iter().flat_map(|(_, _, ids)| *ids).copied().collect();
        let mut positions: Vec<u32> = Vec::new();
        for (slot, past, ids) in parts {
            if *past == 0 {
                self.contexts[*slot] = self.network.prompt_context(ids);
            }
            for place in *past..past + ids.len() {
                match &self.contexts[*slot] {
                    Some(context) => positions.extend(context.position(place)),
                    None => positions.push(place as u32),
                }
            }
        }
        let tables: Vec<Vec<&[u32]>> =
            parts.iter().map(|(slot, ..)| self.tables[*slot].iter().map(Vec::as_slice).collect()).collect();
        let mut start = 0;
        let mut sequences = Vec::new();
        for (place, ((slot, past, ids), tables)) in parts.iter().zip(&tables).enumerate() {
            sequences.push(SequenceInput {
                start,
                count: ids.len(),
                past: *past,
                block_tables: tables,
                mask: self.contexts[*slot].map_or(Mask::Causal, |context| context.mask()),
                adapter: adapters.get(place).copied().flatten().map(|id| id.0),
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
        let rows = self.network.forward(&batch)?;
        Ok((0..rows.len()).map(|index| rows.row(index).to_vec()).collect())
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
