//! The forward pass of a decoder on the CPU.
//!
//! Shapes: `T` tokens of the step, `H` hidden width, `R` returned rows. Every kernel computes each output row from
//! its own input row and, in attention, from its own cache, in an order fixed by constants; that makes a row bitwise
//! independent of its batch.

use std::sync::Arc;

use byzerllm_core::{Error, ErrorKind, Result};
use byzerllm_kernels::{
    AttentionSequence, CachePlane, ComputePool, KernelError, ProductInput, Scratch, Turn, activate, add,
    add_scaled, attend, attend_input, dequantize, gated, rope,
};

use super::adapters::Adapters;
use super::fused::{self, Rounded};
use super::layer::{Layer, Linear, Mlp, Norm, resize};
use super::rotary::Rotary;
use super::{CpuOptions, check, work};
use crate::adapter::{Adapter, Product};
use crate::batch::{Output, PackedBatch, Rows};
use crate::config::{DecoderConfig, ExpertsConfig, MlpConfig, PositionEncoding, Residual};
use crate::decoder_weights::{DecoderWeights, LinearWeights, LookupTable, MatrixPart};
use crate::network::{AdapterId, Network, NetworkTraits};
use crate::prefix::PromptContext;
use crate::rope::RopeConfig;
use crate::stages::{Stage, stage};
use crate::work::WorkModel;

/// Heads that consist of so many values, once or several times, can be rounded by attention.
const HEAD_GROUP: usize = 32;

/// A decoder with packed weights and its cache.
pub struct CpuDecoder {
    config: DecoderConfig,
    options: CpuOptions,
    traits: NetworkTraits,
    pool: Arc<ComputePool>,
    embedding: LookupTable,
    learned_positions: Option<LookupTable>,
    embedding_norm: Option<Norm>,
    rotaries: Vec<Rotary>,
    layers: Vec<Layer>,
    final_norm: Norm,
    head: Linear,
    /// Blocks per cache group, once allocated.
    blocks: Vec<usize>,
    /// One plane per layer.
    planes: Vec<CachePlane>,
    adapters: Adapters,
    work: Work,
    rounded: Rounded,
}

/// Buffers of a step, kept between steps.
#[derive(Default)]
struct Work {
    residual: Vec<f32>,
    normed: Vec<f32>,
    mlp_normed: Vec<f32>,
    qkv: Vec<f32>,
    attended: Vec<f32>,
    block_out: Vec<f32>,
    mlp_out: Vec<f32>,
    up: Vec<f32>,
    inner: Vec<f32>,
    heads: (Vec<f32>, Vec<f32>),
    experts: ExpertWork,
    selected: Vec<f32>,
    output: Vec<f32>,
    scratch: Scratch,
}

#[derive(Default)]
struct ExpertWork {
    scores: Vec<f32>,
    /// Per expert, its tokens and their weights.
    routes: Vec<Vec<(usize, f32)>>,
    input: Vec<f32>,
    output: Vec<f32>,
}

impl CpuDecoder {
    /// Packs the weights. `progress` is told the share that is done, from 0 to 1.
    ///
    /// # Errors
    /// When a shape contradicts the configuration.
    pub fn new(
        config: DecoderConfig,
        weights: &DecoderWeights<'_>,
        pool: Arc<ComputePool>,
        options: &CpuOptions,
        progress: &dyn Fn(f32),
    ) -> Result<Self, KernelError> {
        let turn = pool.turn();
        let groups = config.cache_groups();
        let mut rotaries: Vec<Rotary> = Vec::new();
        let mut layers = Vec::with_capacity(config.layers.len());
        for (index, (layer, packed)) in config.layers.iter().zip(&weights.layers).enumerate() {
            let rotary = match &layer.attention.position {
                PositionEncoding::Rope(rope) => {
                    Some(rotaries.iter().position(|known| known.config == *rope).unwrap_or_else(|| {
                        rotaries.push(Rotary::new(rope.clone()));
                        rotaries.len() - 1
                    }))
                }
                _ => None,
            };
            let group = groups.iter().position(|group| group.layers.contains(&index)).unwrap_or(0);
            let precision = (options.compute, options.cache);
            layers.push(Layer::pack(&turn, layer, packed, precision, (rotary, group))?);
            progress((index + 1) as f32 / (config.layers.len() + 1) as f32);
        }
        let mut head = match &weights.head {
            Some(head) => normalize_head(&config, head)?,
            None => normalize_head(&config, &tied_head(&weights.embedding))?,
        };
        options.quantization.mark_head(&mut head);
        let head = Linear::pack(&turn, &head, options.compute)?;
        drop(turn);
        let weight_bytes = layers.iter().map(Layer::bytes).sum::<usize>() + head.matrix.bytes();
        let block_bytes = groups.iter().map(|group| options.block_bytes(&config, group)).collect();
        let traits = NetworkTraits {
            vocab_size: config.vocab_size,
            hidden_size: config.hidden_size,
            context_length: config.context_length,
            position_width: config.position_width(),
            cache_groups: groups,
            // What a context's tokens leave in the cache depends on all of the context.
            chunkable_prefill: config.prefix_context.is_none(),
            shareable_prefix: config.prefix_context.is_none(),
            weight_bytes: weight_bytes as u64,
            block_bytes,
            block_tokens: options.block_tokens,
            compute: layers.first().map_or_else(|| head.matrix.path(), |layer| layer.qkv.matrix.path()),
        };
        progress(1.0);
        Ok(Self {
            final_norm: Norm::new(config.final_norm, &weights.final_norm),
            embedding_norm: config
                .embedding_norm
                .zip(weights.embedding_norm.as_ref())
                .map(|(norm, weights)| Norm::new(norm, weights)),
            embedding: weights.embedding.clone(),
            learned_positions: weights.positions.clone(),
            config,
            rounded: Rounded::new(options.compute),
            options: options.clone(),
            traits,
            pool,
            rotaries,
            layers,
            head,
            blocks: Vec::new(),
            planes: Vec::new(),
            adapters: Adapters::default(),
            work: Work::default(),
        })
    }

    /// Sums up the squares of what goes into each matrix from now on.
    pub(crate) fn watch(&mut self) {
        for layer in &mut self.layers {
            layer.qkv.watch();
            layer.out.watch();
            for mlp in &mut layer.mlp {
                mlp.up.watch();
                mlp.down.watch();
            }
        }
        self.head.watch();
    }

    /// The sums of squares of the inputs of each matrix, under its names in GGUF files. Experts are left out: each sees
    /// few of the tokens.
    pub(crate) fn watched(&self) -> Vec<(String, Vec<f64>)> {
        let mut found = Vec::new();
        let mut put = |names: &[String], linear: &Linear| {
            for name in names {
                found.extend(linear.squares().map(|squares| (name.clone(), squares)));
            }
        };
        for (index, layer) in self.layers.iter().enumerate() {
            let names = |parts: &[&str]| -> Vec<String> {
                parts.iter().map(|part| format!("blk.{index}.{part}.weight")).collect()
            };
            put(&names(&["attn_q", "attn_k", "attn_v"]), &layer.qkv);
            put(&names(&["attn_output"]), &layer.out);
            if let [mlp] = &layer.mlp[..] {
                put(&names(&["ffn_gate", "ffn_up"]), &mlp.up);
                put(&names(&["ffn_down"]), &mlp.down);
            }
        }
        put(&["output.weight".to_owned(), "token_embd.weight".to_owned()], &self.head);
        found
    }

    /// Looks up, scales and normalizes the embeddings into the residual stream `(T, H)`.
    fn embed(&mut self, turn: &Turn<'_>, batch: &PackedBatch<'_>) -> Result<(), KernelError> {
        let hidden = self.config.hidden_size;
        let work = &mut self.work;
        resize(&mut work.residual, batch.ids.len() * hidden);
        for (&id, row) in batch.ids.iter().zip(work.residual.chunks_exact_mut(hidden)) {
            look_up(&self.embedding, id as usize, row)?;
        }
        if let Some(given) = &batch.embeddings {
            for (&row, values) in given.rows.iter().zip(given.values.chunks_exact(hidden)) {
                work.residual[row as usize * hidden..][..hidden].copy_from_slice(values);
            }
        }
        if self.config.embedding_scale != 1.0 {
            work.residual.iter_mut().for_each(|value| *value *= self.config.embedding_scale);
        }
        if let Some(table) = &self.learned_positions {
            resize(&mut work.normed, hidden);
            let width = self.traits.position_width;
            for (position, row) in
                batch.positions.chunks_exact(width).zip(work.residual.chunks_exact_mut(hidden))
            {
                look_up(table, position[0] as usize, &mut work.normed)?;
                row.iter_mut().zip(&work.normed).for_each(|(value, position)| *value += position);
            }
        }
        if let Some(norm) = &self.embedding_norm {
            norm.apply(turn, &work.residual, &mut work.normed);
            std::mem::swap(&mut work.residual, &mut work.normed);
        }
        Ok(())
    }

    /// One layer: reads and updates the residual stream, writes the layer's cache.
    fn layer(&mut self, turn: &Turn<'_>, index: usize, batch: &PackedBatch<'_>) {
        // Adapters read floats.
        if self.adapters.are_active() || !fused::suits(&self.layers[index]) {
            return self.layer_of_floats(turn, index, batch);
        }
        let layer = &self.layers[index];
        let (work, rounded) = (&mut self.work, &mut self.rounded);
        let scale = layer.config.residual_scale;
        if let Some(norm) = &layer.attention_norm {
            rounded.normalize(turn, &mut work.residual, (&[], 1.0), norm);
        }
        stage(Stage::Qkv);
        layer.qkv.apply_input(turn, &rounded.input, &mut work.qkv);
        let attended = Some(&mut rounded.attended);
        self_attention(turn, layer, &self.rotaries, &mut self.planes[index], batch, work, attended);
        stage(Stage::Output);
        layer.out.apply_input(turn, &rounded.attended, &mut work.block_out);
        stage(Stage::Norms);
        post_norm(turn, layer.attention_post_norm.as_ref(), &mut work.block_out, &mut work.inner);
        if let Some(norm) = &layer.mlp_norm {
            rounded.normalize(turn, &mut work.residual, (&work.block_out, scale), norm);
        }
        rounded.feed_forward(turn, layer, &mut work.mlp_out);
        stage(Stage::Norms);
        post_norm(turn, layer.mlp_post_norm.as_ref(), &mut work.mlp_out, &mut work.inner);
        accumulate(turn, &mut work.residual, &work.mlp_out, scale);
    }

    /// Any layer, and with adapters.
    fn layer_of_floats(&mut self, turn: &Turn<'_>, index: usize, batch: &PackedBatch<'_>) {
        let layer = &self.layers[index];
        let adapters = &mut self.adapters;
        let work = &mut self.work;
        let scale = layer.config.residual_scale;
        stage(Stage::Norms);
        let attention_in = normalized(turn, layer.attention_norm.as_ref(), &work.residual, &mut work.normed);
        stage(Stage::Qkv);
        layer.qkv.apply(turn, attention_in, &mut work.qkv, &mut work.scratch);
        if adapters.are_active() {
            let rows = (attention_in, &mut work.qkv[..]);
            adapters.add(turn, Product::Qkv(index), |row| row, rows, &mut work.scratch);
        }
        self_attention(turn, layer, &self.rotaries, &mut self.planes[index], batch, work, None);
        stage(Stage::Output);
        layer.out.apply(turn, &work.attended, &mut work.block_out, &mut work.scratch);
        if adapters.are_active() {
            let rows = (&work.attended[..], &mut work.block_out[..]);
            adapters.add(turn, Product::Out(index), |row| row, rows, &mut work.scratch);
        }
        stage(Stage::Norms);
        post_norm(turn, layer.attention_post_norm.as_ref(), &mut work.block_out, &mut work.inner);

        let parallel = layer.config.residual == Residual::Parallel;
        if !parallel {
            if let Residual::Normed(factor) = layer.config.residual {
                take_scaled(&mut work.residual, &work.normed, factor);
            }
            accumulate(turn, &mut work.residual, &work.block_out, scale);
        }
        // A parallel feed-forward part without a norm of its own shares the attention's.
        let shared = layer.attention_norm.as_ref().filter(|_| parallel);
        let mut input = std::mem::take(&mut work.mlp_normed);
        copy_normalized(turn, layer.mlp_norm.as_ref().or(shared), &work.residual, &mut input);
        feed_forward(turn, (index, layer), &input, work, adapters);
        if let Residual::Normed(factor) = layer.config.residual {
            take_scaled(&mut work.residual, &input, factor);
        }
        work.mlp_normed = input;
        stage(Stage::Norms);
        if parallel {
            accumulate(turn, &mut work.residual, &work.block_out, scale);
        }
        post_norm(turn, layer.mlp_post_norm.as_ref(), &mut work.mlp_out, &mut work.inner);
        accumulate(turn, &mut work.residual, &work.mlp_out, scale);
    }

    /// Final normalization and head of the selected rows.
    fn finish(&mut self, turn: &Turn<'_>, batch: &PackedBatch<'_>) -> Rows<'_> {
        let hidden = self.config.hidden_size;
        let work = &mut self.work;
        stage(Stage::Norms);
        work.normed.clear();
        for &row in batch.rows {
            work.normed.extend_from_slice(&work.residual[row as usize * hidden..][..hidden]);
        }
        self.final_norm.apply(turn, &work.normed, &mut work.selected);
        if batch.output == Output::Hidden {
            return Rows::new(&work.selected, hidden);
        }
        stage(Stage::Head);
        self.head.apply(turn, &work.selected, &mut work.output, &mut work.scratch);
        if self.adapters.are_active() {
            let rows = (&work.selected[..], &mut work.output[..]);
            let token = |row: usize| batch.rows.get(row).map_or(usize::MAX, |&row| row as usize);
            self.adapters.add(turn, Product::Head, token, rows, &mut work.scratch);
        }
        let head = &self.config.head;
        if head.scale != 1.0 {
            work.output.iter_mut().for_each(|logit| *logit *= head.scale);
        }
        if let Some(cap) = head.soft_cap {
            work.output.iter_mut().for_each(|logit| *logit = cap * (*logit / cap).tanh());
        }
        Rows::new(&work.output, self.config.vocab_size)
    }
}

impl Network for CpuDecoder {
    fn traits(&self) -> &NetworkTraits {
        &self.traits
    }

    fn prompt_context(&self, prompt: &[u32]) -> Option<PromptContext> {
        self.config.prefix_context.map(|tokens| tokens.read(prompt))
    }

    fn work(&self) -> Option<WorkModel> {
        Some(work::model(&self.options, &self.layers, &self.head, &self.embedding))
    }

    fn allocate_cache(&mut self, blocks: &[usize]) -> Result<()> {
        if blocks.len() != self.traits.cache_groups.len() {
            return Err(Error::internal("one number of blocks per cache group is needed"));
        }
        self.planes.clear();
        for layer in &self.layers {
            let shape = self.options.cache_shape(&layer.config.attention, blocks[layer.cache_group]);
            let plane = CachePlane::new(shape).map_err(|error| {
                let message = "the key/value cache could not be allocated; deploy with a smaller cache_bytes";
                Error::new(ErrorKind::Unavailable, message).with_source(error)
            })?;
            self.planes.push(match &layer.key_balance {
                Some(factors) => plane.balanced(factors),
                None => plane,
            });
        }
        self.blocks = blocks.to_vec();
        Ok(())
    }

    fn copy_block(&mut self, group: usize, from: u32, to: u32) {
        for &layer in &self.traits.cache_groups[group].layers {
            self.planes[layer].copy_block(from, to);
        }
    }

    fn load_adapter(&mut self, adapter: Adapter) -> Result<AdapterId> {
        Ok(self.adapters.load(adapter))
    }

    fn unload_adapter(&mut self, id: AdapterId) -> bool {
        self.adapters.unload(id)
    }

    fn forward(&mut self, batch: &PackedBatch<'_>) -> Result<Rows<'_>> {
        check::batch(batch, &self.traits, &self.blocks, &self.adapters)?;
        self.adapters.prepare(batch.ids.len(), batch.sequences);
        let pool = Arc::clone(&self.pool);
        let turn = pool.turn();
        stage(Stage::Embedding);
        self.embed(&turn, batch).map_err(internal)?;
        stage(Stage::RopeAndCache);
        for rotary in &mut self.rotaries {
            rotary.prepare(batch.positions, self.traits.position_width);
        }
        for index in 0..self.layers.len() {
            self.layer(&turn, index, batch);
        }
        Ok(self.finish(&turn, batch))
    }
}

/// Rotates queries and keys, writes the cache and attends: `work.qkv` `(T, heads + 2 kv)` to `rounded`, or to
/// `work.attended`.
fn self_attention(
    turn: &Turn<'_>,
    layer: &Layer,
    rotaries: &[Rotary],
    plane: &mut CachePlane,
    batch: &PackedBatch<'_>,
    work: &mut Work,
    rounded: Option<&mut ProductInput>,
) {
    let shape = &layer.attention;
    let (query_width, kv_width) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    let stride = query_width + 2 * kv_width;
    let qkv = &mut work.qkv;
    stage(Stage::Norms);
    if let Some(norm) = &layer.query_norm {
        norm.apply_heads(turn, qkv, (stride, 0, shape.heads), &mut work.heads);
    }
    if let Some(norm) = &layer.key_norm {
        norm.apply_heads(turn, qkv, (stride, query_width, shape.kv_heads), &mut work.heads);
    }
    stage(Stage::RopeAndCache);
    if let Some(rotary) = layer.rotary.map(|index| &rotaries[index]) {
        let RopeConfig { rotary_dim, kind, .. } = rotary.config;
        for axis in 0..rotary.axes() {
            let (cos, sin) = rotary.axis(axis);
            // The second axis rotates the second half of each head; queries and keys lie side by side.
            let offset = axis * shape.head_dim / 2;
            let heads = shape.heads + shape.kv_heads;
            rope(turn, qkv, stride, offset, heads, shape.head_dim, rotary_dim, cos, sin, kind);
        }
    }
    let mut sequences = Vec::with_capacity(batch.sequences.len());
    for sequence in batch.sequences {
        let table = sequence.block_tables[layer.cache_group];
        sequences.push(AttentionSequence {
            rows: sequence.start..sequence.start + sequence.count,
            first_position: sequence.past,
            length: sequence.past + sequence.count,
            blocks: table,
            mask: sequence.mask,
        });
    }
    plane.write(turn, qkv, stride, query_width, &sequences);
    stage(Stage::Attention);
    let rounded = match rounded {
        Some(rounded) if shape.head_dim.is_multiple_of(HEAD_GROUP) => {
            let output = (batch.ids.len(), rounded);
            return attend_input(turn, shape, plane, qkv, stride, &sequences, output, &mut work.scratch);
        }
        rounded => rounded,
    };
    resize(&mut work.attended, batch.ids.len() * query_width);
    attend(turn, shape, plane, qkv, stride, &sequences, &mut work.attended, &mut work.scratch);
    if let Some(rounded) = rounded {
        rounded.fill(turn, &work.attended, query_width);
    }
}

/// The feed-forward part of a layer: `input` `(T, H)` to `work.mlp_out` `(T, H)`.
fn feed_forward(
    turn: &Turn<'_>,
    (index, layer): (usize, &Layer),
    input: &[f32],
    work: &mut Work,
    adapters: &mut Adapters,
) {
    match (&layer.config.mlp.experts, &layer.router) {
        (Some(experts), Some(router)) => {
            mixture(turn, (index, layer), (experts, router), input, work, adapters);
        }
        _ => {
            let Work { up, inner, mlp_out, scratch, .. } = work;
            let mut added = ExpertAdapters { adapters, place: (index, 0), token: |row| row };
            let buffers = (up, inner, mlp_out);
            dense(turn, &layer.config.mlp, &layer.mlp[0], input, buffers, scratch, &mut added);
        }
    }
}

/// What adapters add to a feed-forward network: its layer and expert, and which row of the step each of its rows is.
struct ExpertAdapters<'a, F> {
    adapters: &'a mut Adapters,
    place: (usize, usize),
    token: F,
}

impl<F: Fn(usize) -> usize> ExpertAdapters<'_, F> {
    fn add(
        &mut self,
        turn: &Turn<'_>,
        product: fn(usize, usize) -> Product,
        rows: (&[f32], &mut [f32]),
        scratch: &mut Scratch,
    ) {
        if self.adapters.are_active() {
            let (layer, expert) = self.place;
            self.adapters.add(turn, product(layer, expert), &self.token, rows, scratch);
        }
    }
}

/// One feed-forward network: up, nonlinearity, down.
fn dense(
    turn: &Turn<'_>,
    config: &MlpConfig,
    mlp: &Mlp,
    input: &[f32],
    (up, inner, output): (&mut Vec<f32>, &mut Vec<f32>, &mut Vec<f32>),
    scratch: &mut Scratch,
    adapters: &mut ExpertAdapters<'_, impl Fn(usize) -> usize>,
) {
    stage(Stage::GateUp);
    mlp.up.apply(turn, input, up, scratch);
    adapters.add(turn, Product::Up, (input, up), scratch);
    stage(Stage::Activation);
    if config.gated {
        resize(inner, up.len() / 2);
        gated(turn, up, config.activation, config.intermediate_size, inner);
        stage(Stage::Down);
        mlp.down.apply(turn, inner, output, scratch);
        adapters.add(turn, Product::Down, (inner, output), scratch);
    } else {
        activate(turn, up, config.activation);
        stage(Stage::Down);
        mlp.down.apply(turn, up, output, scratch);
        adapters.add(turn, Product::Down, (up, output), scratch);
    }
}

/// Mixture of experts: each token's chosen experts, weighted, summed in the order of the experts.
fn mixture(
    turn: &Turn<'_>,
    (index, layer): (usize, &Layer),
    (config, router): (&ExpertsConfig, &Linear),
    input: &[f32],
    work: &mut Work,
    adapters: &mut Adapters,
) {
    let Work { up, inner, mlp_out, experts, scratch, .. } = work;
    let hidden = router.matrix.cols();
    stage(Stage::Routing);
    router.apply(turn, input, &mut experts.scores, scratch);
    if adapters.are_active() {
        let rows = (input, &mut experts.scores[..]);
        adapters.add(turn, Product::Router(index), |row| row, rows, scratch);
    }
    experts.routes.resize(config.count, Vec::new());
    experts.routes.iter_mut().for_each(Vec::clear);
    for (token, scores) in experts.scores.chunks_exact(config.count).enumerate() {
        let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f32 = scores.iter().map(|score| (score - max).exp()).sum();
        let mut order: Vec<usize> = (0..config.count).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        let chosen = &order[..config.per_token.min(config.count)];
        let weight = |expert: usize| (scores[expert] - max).exp() / total;
        let norm: f32 =
            if config.normalize { chosen.iter().map(|&expert| weight(expert)).sum() } else { 1.0 };
        for &expert in chosen {
            experts.routes[expert].push((token, weight(expert) / norm));
        }
    }
    resize(mlp_out, input.len());
    mlp_out.fill(0.0);
    for (expert, route) in experts.routes.iter().enumerate() {
        if route.is_empty() {
            continue;
        }
        experts.input.clear();
        for &(token, _) in route {
            experts.input.extend_from_slice(&input[token * hidden..][..hidden]);
        }
        let buffers = (&mut *up, &mut *inner, &mut experts.output);
        let token = |row: usize| route.get(row).map_or(usize::MAX, |&(token, _)| token);
        let mut added = ExpertAdapters { adapters: &mut *adapters, place: (index, expert), token };
        dense(turn, &layer.config.mlp, &layer.mlp[expert], &experts.input, buffers, scratch, &mut added);
        stage(Stage::Routing);
        for (&(token, weight), values) in route.iter().zip(experts.output.chunks_exact(hidden)) {
            let row = &mut mlp_out[token * hidden..][..hidden];
            row.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
        }
    }
}

/// The input of a block: normalized into `buffer`, or the residual stream itself.
fn normalized<'a>(
    turn: &Turn<'_>,
    norm: Option<&Norm>,
    residual: &'a [f32],
    buffer: &'a mut Vec<f32>,
) -> &'a [f32] {
    match norm {
        Some(norm) => {
            norm.apply(turn, residual, buffer);
            buffer
        }
        None => residual,
    }
}

/// Like [`normalized`], but always into the buffer, for callers that change the residual stream meanwhile.
fn copy_normalized(turn: &Turn<'_>, norm: Option<&Norm>, residual: &[f32], buffer: &mut Vec<f32>) {
    match norm {
        Some(norm) => norm.apply(turn, residual, buffer),
        None => {
            buffer.clear();
            buffer.extend_from_slice(residual);
        }
    }
}

fn post_norm(turn: &Turn<'_>, norm: Option<&Norm>, values: &mut Vec<f32>, buffer: &mut Vec<f32>) {
    if let Some(norm) = norm {
        norm.apply(turn, values, buffer);
        std::mem::swap(values, buffer);
    }
}

fn accumulate(turn: &Turn<'_>, into: &mut [f32], from: &[f32], scale: f32) {
    if scale == 1.0 { add(turn, into, from) } else { add_scaled(turn, into, from, scale) }
}

/// Replaces the residual stream by so many times a block's normalized input.
fn take_scaled(residual: &mut [f32], normed: &[f32], factor: f32) {
    residual.iter_mut().zip(normed).for_each(|(value, input)| *value = factor * input);
}

/// One row of a table, decoded.
fn look_up(table: &LookupTable, row: usize, into: &mut [f32]) -> Result<(), KernelError> {
    let bytes = table.kind.row_bytes(table.columns).unwrap_or(0);
    let data = table.data.as_slice().get(row * bytes..(row + 1) * bytes).unwrap_or(&[]);
    dequantize(table.kind, data, into)
}

fn tied_head(embedding: &LookupTable) -> LinearWeights<'_> {
    let LookupTable { kind, rows, columns, data } = embedding;
    let data = std::borrow::Cow::Borrowed(data.as_slice());
    LinearWeights { parts: vec![MatrixPart::new(*kind, *rows, *columns, data)], bias: None }
}

/// The head with rows of unit length where the family asks for it, else as it is.
fn normalize_head<'a>(
    config: &DecoderConfig,
    head: &LinearWeights<'a>,
) -> Result<LinearWeights<'a>, KernelError> {
    if !config.head.normalized {
        return Ok(head.clone());
    }
    let mut parts = Vec::with_capacity(head.parts.len());
    for part in &head.parts {
        let mut values = vec![0.0; part.rows * part.columns];
        dequantize(part.packed_kind(), &part.merged()?, &mut values)?;
        for row in values.chunks_exact_mut(part.columns) {
            let length = row.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-12);
            row.iter_mut().for_each(|value| *value /= length);
        }
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into();
        let kind = byzerllm_kernels::TensorType::F32;
        parts.push(MatrixPart::new(kind, part.rows, part.columns, data));
    }
    Ok(LinearWeights { parts, bias: head.bias.clone() })
}

fn internal(error: KernelError) -> Error {
    Error::new(ErrorKind::Internal, "the step could not be computed").with_source(error)
}
