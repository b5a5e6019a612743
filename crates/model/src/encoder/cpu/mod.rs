//! The forward pass of an encoder on the CPU.
//!
//! Shapes: `T` tokens of a step, `H` hidden width. Texts lie one after the other without padding. Between two products
//! rows are rounded by the kernel that makes them, so that only three buffers of floats pass through the caches: the
//! residual stream, queries with keys and values, and the outcome of a block before it is added.

mod check;
mod embedding;
mod head;
mod layer;

use std::sync::Arc;

use byzerllm_core::Result;
use byzerllm_kernels::{
    Compute, ComputePool, DenseQueries, DenseShape, KernelError, ProductInput, Scratch, Turn, add_norm,
    attend_dense, gated, rope,
};

use self::embedding::Embedding;
use self::head::Head;
use self::layer::{Layer, Norm, resize};
use super::config::EncoderPositions;
use super::{Encoder, EncoderConfig, EncoderInput, EncoderTraits, EncoderWeights};
use crate::batch::Rows;
use crate::cpu::Rotary;
use crate::stages::{Stage, stage};
use crate::work::{EncoderWork, ProductWork};

/// Tokens of a step, about: enough that waiting for each other costs nothing, few enough that what a layer hands from one
/// kernel to the next stays in the caches.
const STEP_TOKENS: usize = 384;

/// An encoder with packed weights.
pub struct CpuEncoder {
    config: EncoderConfig,
    traits: EncoderTraits,
    pool: Arc<ComputePool>,
    embedding: Embedding,
    embedding_norm: Norm,
    rotary: Option<Rotary>,
    layers: Vec<Layer>,
    head: Head,
    work: Work,
    output: Vec<f32>,
}

/// Buffers of a step, kept between steps.
struct Work {
    lengths: Vec<usize>,
    positions: Vec<u32>,
    /// The residual stream, `(T, H)`.
    stream: Vec<f32>,
    /// The same, rounded.
    input: ProductInput,
    /// `(T, 3 * heads * head_dim)`.
    qkv: Vec<f32>,
    attended: ProductInput,
    /// What a block adds, `(T, H)`.
    block: Vec<f32>,
    /// Gate and up, where there is a gate.
    gate_up: Vec<f32>,
    gated: Vec<f32>,
    inner: ProductInput,
    scratch: Scratch,
}

impl CpuEncoder {
    /// Packs the weights. `progress` is told the share that is done, from 0 to 1.
    ///
    /// # Errors
    /// When a shape contradicts the configuration, or memory runs out.
    pub fn new(
        config: EncoderConfig,
        weights: &EncoderWeights<'_>,
        pool: Arc<ComputePool>,
        compute: Compute,
        progress: &dyn Fn(f32),
    ) -> std::result::Result<Self, KernelError> {
        let turn = pool.turn();
        let mut layers = Vec::with_capacity(weights.layers.len());
        for packed in &weights.layers {
            layers.push(Layer::pack(&turn, &config, packed, compute)?);
            progress(layers.len() as f32 / (weights.layers.len() + 1) as f32);
        }
        let embedding = Embedding::new(&config, weights)?;
        let embedding_norm = Norm::new(&config, &weights.embedding_norm)?;
        let head = Head::pack(&turn, &config, &weights.dense)?;
        drop(turn);
        let bytes = layers.iter().map(Layer::bytes).sum::<usize>() + embedding.bytes() + head.bytes();
        let traits = EncoderTraits {
            task: config.task,
            width: config.width(),
            max_length: config.max_length,
            vocab_size: config.vocab_size,
            weight_bytes: bytes as u64,
            compute: layers.first().map_or_else(|| compute.to_string(), Layer::path),
        };
        let rotary = match &config.positions {
            EncoderPositions::Rope(rope) => Some(Rotary::new(rope.clone())),
            EncoderPositions::Learned { .. } => None,
        };
        progress(1.0);
        Ok(Self {
            config,
            traits,
            pool,
            embedding,
            embedding_norm,
            rotary,
            layers,
            head,
            work: Work::new(compute),
            output: Vec::new(),
        })
    }

    /// One step: rows of `texts` to the end of `self.output`.
    fn step(&mut self, turn: &Turn<'_>, texts: &[EncoderInput<'_>]) -> std::result::Result<(), KernelError> {
        let work = &mut self.work;
        work.lengths.clear();
        work.lengths.extend(texts.iter().map(|text| text.ids.len()));
        stage(Stage::Embedding);
        self.embedding.look_up(turn, texts, &mut work.stream)?;
        stage(Stage::Norms);
        add_norm(turn, &mut work.stream, &[], self.embedding_norm.view(), &mut work.input);
        if let Some(rotary) = &mut self.rotary {
            work.positions.clear();
            work.positions.extend(texts.iter().flat_map(|text| 0..text.ids.len() as u32));
            rotary.prepare(&work.positions, 1);
        }
        let last = self.layers.len().saturating_sub(1);
        for (index, layer) in self.layers.iter().enumerate() {
            // Where only first tokens are asked for, the last layer computes nothing else of its queries.
            let first_only = index == last && self.head.reads_first_only();
            layer_step(turn, &self.config, layer, self.rotary.as_ref(), first_only, work);
        }
        stage(Stage::Head);
        if !self.layers.is_empty() && self.head.reads_first_only() {
            work.lengths.fill(1);
        }
        self.head.apply(turn, &work.stream, &work.lengths, &mut self.output, &mut work.scratch);
        Ok(())
    }
}

impl Work {
    fn new(compute: Compute) -> Self {
        Self {
            lengths: Vec::new(),
            positions: Vec::new(),
            stream: Vec::new(),
            input: ProductInput::new(compute),
            qkv: Vec::new(),
            attended: ProductInput::new(compute),
            block: Vec::new(),
            gate_up: Vec::new(),
            gated: Vec::new(),
            inner: ProductInput::new(compute),
            scratch: Scratch::default(),
        }
    }
}

impl Encoder for CpuEncoder {
    fn traits(&self) -> &EncoderTraits {
        &self.traits
    }

    fn work(&self) -> Option<EncoderWork> {
        Some(EncoderWork {
            layers: self.layers.iter().map(|layer| ProductWork::of(layer.matrices())).collect(),
            width: (self.config.heads * self.config.head_dim) as u64,
            embedding_bytes: self.embedding.row_bytes() as u64,
            integer_scores: self.work.attended.compute() == Compute::Fast,
        })
    }

    fn encode(&mut self, sequences: &[EncoderInput<'_>]) -> Result<Rows<'_>> {
        check::texts(sequences, &self.config)?;
        self.output.clear();
        let pool = Arc::clone(&self.pool);
        let mut rest = sequences;
        while !rest.is_empty() {
            let mut tokens = 0;
            let count = rest
                .iter()
                .take_while(|text| {
                    tokens += text.ids.len();
                    tokens <= STEP_TOKENS
                })
                .count()
                .max(1);
            let (texts, later) = rest.split_at(count);
            // Others may have their turn between two steps.
            let turn = pool.turn();
            self.step(&turn, texts).map_err(check::internal)?;
            rest = later;
        }
        Ok(Rows::new(&self.output, self.traits.width))
    }
}

/// One layer: attention, then the feed-forward part, each added to its input and normalized.
fn layer_step(
    turn: &Turn<'_>,
    config: &EncoderConfig,
    layer: &Layer,
    rotary: Option<&Rotary>,
    first_only: bool,
    work: &mut Work,
) {
    let Work {
        lengths,
        stream,
        input,
        qkv,
        attended,
        block,
        gate_up,
        gated: inner_values,
        inner,
        scratch,
        ..
    } = work;
    let (heads, head_dim) = (config.heads, config.head_dim);
    stage(Stage::Qkv);
    layer.qkv.apply(turn, input, qkv);
    if let Some(rotary) = rotary {
        stage(Stage::RopeAndCache);
        let (cos, sin) = rotary.axis(0);
        let config = &rotary.config;
        let stride = 3 * heads * head_dim;
        rope(turn, qkv, stride, 0, 2 * heads, head_dim, config.rotary_dim, cos, sin, config.kind);
    }
    stage(Stage::Attention);
    let shape = DenseShape { heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt() };
    let queries = if first_only { DenseQueries::First } else { DenseQueries::All };
    attend_dense(turn, shape, qkv, lengths, queries, attended, scratch);
    if first_only {
        keep_first(stream, lengths, config.hidden_size);
    }
    stage(Stage::Output);
    layer.out.apply(turn, attended, block);
    stage(Stage::Norms);
    add_norm(turn, stream, block, layer.attention_norm.view(), input);
    stage(Stage::GateUp);
    if config.gated {
        layer.up.apply(turn, input, gate_up);
        stage(Stage::Activation);
        resize(inner_values, gate_up.len() / 2);
        gated(turn, gate_up, config.activation, config.intermediate_size, inner_values);
        inner.fill(turn, inner_values, config.intermediate_size);
    } else {
        layer.up.apply_activated(turn, input, config.activation, inner);
    }
    stage(Stage::Down);
    layer.down.apply(turn, inner, block);
    stage(Stage::Norms);
    add_norm(turn, stream, block, layer.output_norm.view(), input);
}

/// Leaves the first row of each text.
fn keep_first(stream: &mut Vec<f32>, lengths: &[usize], width: usize) {
    let mut from = 0;
    for (text, length) in lengths.iter().enumerate() {
        stream.copy_within(from * width..(from + 1) * width, text * width);
        from += length;
    }
    stream.truncate(lengths.len() * width);
}
