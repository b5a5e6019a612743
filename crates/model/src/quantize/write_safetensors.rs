//! Directories as `transformers` reads them: safetensors of floats or in GPTQ's layout, the configuration, the tokenizer.

use std::path::Path;

use byzerllm_kernels::{ComputePool, TensorType};
use serde_json::{Map, Value as Json, json};

use super::atomic::{AtomicDirectory, AtomicFile};
use super::calibrate::Importance;
use super::error::QuantizeError;
use super::families::{Family, Rows, Target, is_derived, to_gguf, to_hugging_face};
use super::gptq::{self, Gptq};
use super::tensors::Planned;
use super::types::OutputType;
use super::{Summary, hugging_face};
use crate::arch::source::Format;
use crate::checkpoint::Checkpoint;

const WEIGHTS: &str = "model.safetensors";

/// Writes the directory. `progress` is told the share that is done, from 0 to 1.
pub(super) fn write(
    checkpoint: &Checkpoint,
    path: &Path,
    kind: OutputType,
    (overwrite, importance): (bool, Option<&Importance>),
    pool: &ComputePool,
    progress: &dyn Fn(f32),
) -> Result<Summary, QuantizeError> {
    let directory = AtomicDirectory::create(path, overwrite)?;
    let float = match kind {
        OutputType::Tensor(kind) => kind,
        OutputType::Gptq(_) => TensorType::F16,
    };
    let tensors = plan(checkpoint, float)?;
    let gptq = match kind {
        OutputType::Tensor(_) => None,
        OutputType::Gptq(bits) => Some(Gptq::new(checkpoint.path(), bits, &tensors)?),
    };
    let mut config = hugging_face::write(checkpoint, &directory, float)?;
    match &gptq {
        Some(gptq) => drop(config.insert("quantization_config".to_owned(), gptq.config())),
        None => drop(config.remove("quantization_config")),
    }
    let config =
        serde_json::to_vec_pretty(&config).map_err(|error| QuantizeError::write(path, error.into()))?;
    directory.write("config.json", &config)?;
    if let Some(gptq) = &gptq {
        directory.write("quantize_config.json", gptq.config().to_string().as_bytes())?;
    }

    let file = directory.join(WEIGHTS);
    let mut file = AtomicFile::create(&file, false)?;
    file.write(&header(&tensors, gptq.as_ref()))?;
    let total: u64 = tensors.iter().map(Planned::bytes).sum::<u64>().max(1);
    let mut done = 0;
    for tensor in &tensors {
        match gptq.as_ref().filter(|_| gptq::is_packed(&tensor.name)) {
            Some(gptq) => {
                let name = gguf_name(checkpoint, &tensor.name);
                let importance = importance.zip(name).and_then(|(importance, name)| importance.of(&name));
                gptq.write(tensor, &checkpoint.source().tensors, importance, &mut file)?;
            }
            None => file.write(&tensor.encode(&checkpoint.source().tensors, pool, None)?)?,
        }
        done += tensor.bytes();
        progress(done as f32 / total as f32);
    }
    let mut summary = Summary::new(checkpoint, &tensors, file.written());
    if let Some(gptq) = &gptq {
        gptq.count(&tensors, &mut summary);
    }
    file.finish()?;
    directory.finish()?;
    Ok(summary)
}

/// The name in GGUF files of a tensor of Hugging Face's, by which importance goes.
fn gguf_name(checkpoint: &Checkpoint, name: &str) -> Option<String> {
    let family = Family::of_class(checkpoint.architecture())?;
    to_gguf(family, name, (1, 1)).map(|target| target.name)
}

/// The tensors under Hugging Face's names.
fn plan(checkpoint: &Checkpoint, kind: TensorType) -> Result<Vec<Planned>, QuantizeError> {
    let store = &checkpoint.source().tensors;
    let attention = checkpoint.config().layers.first().map(|layer| &layer.attention);
    let heads = attention.map_or((1, 1), |attention| (attention.heads, attention.kv_heads));
    let tied = checkpoint.config().head.tied;
    let mut tensors = Vec::new();
    for entry in store.entries() {
        if is_derived(&entry.name) || (tied && entry.name == "lm_head.weight") {
            continue;
        }
        let target = match &checkpoint.source().format {
            Format::HuggingFace { .. } => Target { name: entry.name.clone(), rows: Rows::Same },
            Format::Gguf { .. } => {
                let family = hugging_face::family(checkpoint)?;
                to_hugging_face(family, &entry.name, heads).ok_or_else(|| {
                    let problem =
                        format!("tensor {} has no name in directories of {}", entry.name, family.class);
                    QuantizeError::unsupported(checkpoint.path(), problem)
                })?
            }
        };
        if let Some(tensor) = store.get(&entry.name)? {
            tensors.push(Planned::new(&tensor, target, |_, _| kind, |_| kind));
        }
    }
    Ok(tensors)
}

/// The length and the JSON of names, types, shapes and places.
fn header(tensors: &[Planned], gptq: Option<&Gptq>) -> Vec<u8> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut place = 0_u64;
    let mut add = |name: String, dtype: &str, shape: &[usize], bytes: u64| {
        let end = place + bytes;
        header.insert(name, json!({"dtype": dtype, "shape": shape, "data_offsets": [place, end]}));
        place = end;
    };
    for tensor in tensors {
        match gptq.filter(|_| gptq::is_packed(&tensor.name)) {
            Some(gptq) => gptq
                .parts(tensor)
                .into_iter()
                .for_each(|(name, dtype, shape, bytes)| add(name, dtype, &shape, bytes)),
            None => add(tensor.name.clone(), tensor.kind.name(), &tensor.shape, tensor.bytes()),
        }
    }
    let mut json = Json::Object(header).to_string().into_bytes();
    // Readers map the values: they begin at a multiple of 8.
    json.resize((json.len() + 8).next_multiple_of(8) - 8, b' ');
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut json);
    bytes
}
