//! GGUF files from a checkpoint: metadata as converters write it, tensors under GGUF's names.

use std::path::Path;

use byzerllm_kernels::{ComputePool, RopeKind, TensorType};

use super::atomic::AtomicFile;
use super::calibrate::Importance;
use super::error::QuantizeError;
use super::families::{Family, Rows, Target, is_derived, to_gguf};
use super::gguf_values::Metadata;
use super::tensors::Planned;
use super::types::{file_type, matrix_type};
use super::{Summary, vocabulary};
use crate::arch::source::Format;
use crate::checkpoint::Checkpoint;
use crate::config::{DecoderConfig, LayerConfig, PositionEncoding};
use crate::rope::{RopeConfig, RopeScaling};
use crate::weights::gguf::GgufFile;

const ALIGNMENT: u64 = 32;
const VERSION: u32 = 3;

/// Writes the file. `progress` is told the share that is done, from 0 to 1.
pub(super) fn write(
    checkpoint: &Checkpoint,
    path: &Path,
    kind: TensorType,
    (overwrite, importance): (bool, Option<&Importance>),
    pool: &ComputePool,
    progress: &dyn Fn(f32),
) -> Result<Summary, QuantizeError> {
    let mut file = AtomicFile::create(path, overwrite)?;
    let mut plan = match &checkpoint.source().format {
        Format::Gguf { file, .. } => kept(checkpoint, file, kind)?,
        Format::HuggingFace { .. } => converted(checkpoint, kind)?,
    };
    let tensors = &checkpoint.source().tensors;
    let mut header = b"GGUF".to_vec();
    header.extend(VERSION.to_le_bytes());
    header.extend((plan.tensors.len() as u64 + u64::from(plan.frequencies.is_some())).to_le_bytes());
    header.extend(plan.metadata.count().to_le_bytes());
    header.extend(plan.metadata.bytes());
    let mut offset = 0_u64;
    let mut entry = |name: &str, shape: &[usize], kind: TensorType, bytes: u64| {
        header.extend((name.len() as u64).to_le_bytes());
        header.extend(name.as_bytes());
        header.extend((shape.len() as u32).to_le_bytes());
        header.extend(shape.iter().rev().flat_map(|size| (*size as u64).to_le_bytes()));
        header.extend(kind.gguf_id().to_le_bytes());
        header.extend(offset.to_le_bytes());
        offset = (offset + bytes).next_multiple_of(plan.alignment);
    };
    if let Some(divisors) = &plan.frequencies {
        entry("rope_freqs.weight", &[divisors.len()], TensorType::F32, 4 * divisors.len() as u64);
    }
    for tensor in &plan.tensors {
        entry(&tensor.name, &tensor.shape, tensor.kind, tensor.bytes());
    }
    file.write(&header)?;
    file.pad(plan.alignment)?;
    if let Some(divisors) = plan.frequencies.take() {
        file.write(&divisors.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?;
        file.pad(plan.alignment)?;
    }
    let total: u64 = plan.tensors.iter().map(Planned::bytes).sum::<u64>().max(1);
    let mut done = 0;
    for tensor in &plan.tensors {
        let importance = importance.and_then(|importance| importance.of(&tensor.name));
        file.write(&tensor.encode(tensors, pool, importance)?)?;
        file.pad(plan.alignment)?;
        done += tensor.bytes();
        progress(done as f32 / total as f32);
    }
    let summary = Summary::new(checkpoint, &plan.tensors, file.written());
    file.finish()?;
    Ok(summary)
}

/// What a file will hold.
struct Plan {
    metadata: Metadata,
    tensors: Vec<Planned>,
    /// Divisors of the rotary frequencies, as a tensor of their own.
    frequencies: Option<Vec<f32>>,
    alignment: u64,
}

/// What becomes of a tensor: matrices are encoded when they have more bits than asked for, the rest stays.
fn planned(tensor: &crate::weights::TensorRef<'_>, target: Target, kind: TensorType) -> Planned {
    let outer = matches!(target.name.as_str(), "token_embd.weight" | "output.weight");
    let matrix = |from: TensorType, columns: usize| {
        let to = matrix_type(kind, columns, outer);
        let bits = |kind: TensorType| kind.block_bytes() * 8 * 256 / kind.block_len();
        if from.is_float() || bits(from) > bits(to) { to } else { from }
    };
    // Norms and biases are read as they are by every engine only as f32.
    Planned::new(tensor, target, matrix, |_| TensorType::F32)
}

/// A GGUF file's own metadata and names, with other encodings.
fn kept(checkpoint: &Checkpoint, source: &GgufFile, kind: TensorType) -> Result<Plan, QuantizeError> {
    let mut metadata = Metadata::default();
    for (key, pair) in source.pairs() {
        if !matches!(key, "general.file_type" | "general.quantization_version" | "general.alignment") {
            metadata.raw(pair);
        }
    }
    metadata.number("general.quantization_version", 2);
    metadata.number("general.file_type", file_type(kind));
    let store = &checkpoint.source().tensors;
    let mut tensors = Vec::new();
    for entry in store.entries() {
        let target = Target { name: entry.name.clone(), rows: Rows::Same };
        if let Some(tensor) = store.get(&entry.name)? {
            // Stacked matrices of experts are encoded like others; what is read as f32 by name stays.
            let planned = match entry.shape.len() >= 2 && !entry.name.contains("ffn_gate_inp") {
                true => planned(&tensor, target, kind),
                false => Planned::new(&tensor, target, |kind, _| kind, |kind| kind),
            };
            tensors.push(planned);
        }
    }
    Ok(Plan { metadata, tensors, frequencies: None, alignment: ALIGNMENT })
}

/// A directory's checkpoint in GGUF's words.
fn converted(checkpoint: &Checkpoint, kind: TensorType) -> Result<Plan, QuantizeError> {
    let path = checkpoint.path();
    let family = Family::of_class(checkpoint.architecture()).ok_or_else(|| {
        let problem = format!(
            "{} cannot be written as GGUF by this version; possible are {}, and every GGUF file",
            checkpoint.architecture(),
            Family::classes()
        );
        QuantizeError::unsupported(path, problem)
    })?;
    let config = checkpoint.config();
    let first = config.layers.first().ok_or_else(|| QuantizeError::unsupported(path, "has no layers"))?;
    if config.layers.iter().any(|layer| layer != first) {
        let problem = "its layers differ (windows in some of them), for which these files have no field";
        return Err(QuantizeError::unsupported(path, problem));
    }
    let mut metadata = Metadata::default();
    let frequencies = describe(&mut metadata, checkpoint, family, config, first)?;
    metadata.number("general.file_type", file_type(kind));
    metadata.number("general.quantization_version", 2);
    vocabulary::write(checkpoint, &mut metadata)?;
    let heads = (first.attention.heads, first.attention.kv_heads);
    let store = &checkpoint.source().tensors;
    let mut tensors = Vec::new();
    for entry in store.entries() {
        // A tied head is the table.
        if is_derived(&entry.name) || (config.head.tied && entry.name == "lm_head.weight") {
            continue;
        }
        let target = to_gguf(family, &entry.name, heads).ok_or_else(|| {
            let problem = format!("tensor {} has no name in GGUF files of {}", entry.name, family.gguf);
            QuantizeError::unsupported(path, problem)
        })?;
        if let Some(tensor) = store.get(&entry.name)? {
            tensors.push(planned(&tensor, target, kind));
        }
    }
    Ok(Plan { metadata, tensors, frequencies, alignment: ALIGNMENT })
}

/// Writes what the family's configuration says. Returns the divisors of rotary frequencies that need a tensor.
fn describe(
    metadata: &mut Metadata,
    checkpoint: &Checkpoint,
    family: &Family,
    config: &DecoderConfig,
    layer: &LayerConfig,
) -> Result<Option<Vec<f32>>, QuantizeError> {
    let path = checkpoint.path();
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let attention = &layer.attention;
    let key = |word: &str| format!("{}.{word}", family.gguf);
    metadata.text("general.architecture", family.gguf);
    metadata.text("general.type", "model");
    metadata.text("general.name", &name);
    metadata.size(&key("block_count"), config.layers.len());
    metadata.size(&key("context_length"), config.context_length);
    metadata.size(&key("embedding_length"), config.hidden_size);
    metadata.size(&key("feed_forward_length"), layer.mlp.intermediate_size);
    metadata.size(&key("attention.head_count"), attention.heads);
    metadata.size(&key("attention.head_count_kv"), attention.kv_heads);
    metadata.size(&key("attention.key_length"), attention.head_dim);
    metadata.size(&key("attention.value_length"), attention.head_dim);
    metadata.float(&key("attention.layer_norm_rms_epsilon"), layer.norm.epsilon);
    metadata.size(&key("vocab_size"), config.vocab_size);
    if let Some(window) = attention.window {
        metadata.size(&key("attention.sliding_window"), window);
    }
    let PositionEncoding::Rope(rope) = &attention.position else {
        return Err(QuantizeError::unsupported(path, "has no rotary positions"));
    };
    if rope.kind != RopeKind::Half {
        return Err(QuantizeError::unsupported(path, "rotates neighbours, which its family's files do not"));
    }
    metadata.size(&key("rope.dimension_count"), rope.rotary_dim);
    metadata.float(&key("rope.freq_base"), rope.base);
    match &rope.scaling {
        RopeScaling::None => Ok(None),
        RopeScaling::Linear { factor } => {
            metadata.text(&key("rope.scaling.type"), "linear");
            metadata.float(&key("rope.scaling.factor"), *factor);
            Ok(None)
        }
        RopeScaling::Yarn { factor, beta_fast, beta_slow, original_context, attention_factor } => {
            let derived = if *factor <= 1.0 { 1.0 } else { 0.1 * factor.ln() + 1.0 };
            metadata.text(&key("rope.scaling.type"), "yarn");
            metadata.float(&key("rope.scaling.factor"), *factor);
            metadata.size(&key("rope.scaling.original_context_length"), *original_context as usize);
            metadata.float(&key("rope.scaling.yarn_beta_fast"), *beta_fast);
            metadata.float(&key("rope.scaling.yarn_beta_slow"), *beta_slow);
            if let Some(given) = attention_factor {
                metadata.float(&key("rope.scaling.attn_factor"), given / derived);
            }
            Ok(None)
        }
        RopeScaling::Llama3 { .. } => Ok(Some(divisors(rope))),
        RopeScaling::Divisors { divisors, .. } => Ok(Some(divisors.clone())),
    }
}

/// What each plain frequency was divided by.
fn divisors(rope: &RopeConfig) -> Vec<f32> {
    let plain = RopeConfig { scaling: RopeScaling::None, ..rope.clone() };
    plain.frequencies().0.iter().zip(rope.frequencies().0).map(|(plain, scaled)| plain / scaled).collect()
}
