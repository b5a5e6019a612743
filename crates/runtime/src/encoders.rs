//! Embedding and reranking models of this machine: what they need, how they are loaded and shown.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use byzerllm_core::{Error, ErrorKind, ModelHandle, Result, Sampling};
use byzerllm_engine::{EncoderOptions, EncoderText, EngineMetrics, LocalEncoder, Matryoshka};
use byzerllm_model::encoder::{Encoder, EncoderCheckpoint, EncoderTokenizer, Task, task_of};
use byzerllm_model::{Compute, Quantization};
use serde_json::Value;

use crate::inspect::{Inspection, MemoryReport};
use crate::loader::{LoadContext, LoadedModel, MemoryNeed, Worker};
use crate::local::{parameters, summary, types_of};
use crate::memory;
use crate::spec::{DeploymentSpec, Limits};

/// Opens the checkpoint when it is an encoder's.
///
/// # Errors
/// Whatever is wrong with the files.
pub(crate) fn open(path: &Path) -> Result<Option<EncoderCheckpoint>> {
    match task_of(path)? {
        Task::Generate => Ok(None),
        Task::Embed | Task::Rerank => Ok(Some(EncoderCheckpoint::open(path)?)),
    }
}

fn options(limits: &Limits) -> EncoderOptions {
    EncoderOptions {
        queue_limit: limits.queue_limit.unwrap_or(Limits::QUEUE_LIMIT) as usize,
        max_length: limits.context_length,
        ..EncoderOptions::default()
    }
}

/// Refuses words that only models that write text understand.
fn check(spec: &DeploymentSpec) -> Result<()> {
    let name = &spec.name;
    let refuse = |param: &'static str, what: &str| {
        let message = format!("the model of '{name}' is an encoder and {what}; leave `{param}` out");
        Err(Error::new(ErrorKind::Unsupported, message).with_param(param))
    };
    if spec.limits.cache_bytes.is_some() {
        return refuse("limits.cache_bytes", "keeps no keys and values");
    }
    if !spec.adapters.is_empty() {
        return refuse("adapters", "takes no adapters");
    }
    if !matches!(spec.quantization, None | Some(Quantization::Off)) {
        return refuse("quantization", "computes in 8 bits with compute fast anyway");
    }
    Ok(())
}

/// What an encoder needs: its weights, and what the largest step holds at once.
pub(crate) fn need(checkpoint: &EncoderCheckpoint, compute: Compute, limits: &Limits) -> MemoryNeed {
    let config = checkpoint.config();
    let cap = limits.context_length.map_or(usize::MAX, |length| length as usize);
    let length = config.max_length.min(cap);
    let tokens = options(limits).max_batch_tokens.max(length) as u64;
    // The residual stream, its normalized copy, queries, keys, values and their sum, and the inner layer twice.
    let widths = 6_u64
        .saturating_mul(config.hidden_size as u64)
        .saturating_add(2_u64.saturating_mul(config.intermediate_size as u64));
    let step = tokens.saturating_mul(widths).saturating_mul(size_of::<f32>() as u64);
    MemoryNeed {
        weight_bytes: checkpoint.memory_estimate(compute).saturating_add(step),
        context_bytes: 0,
        context_length: u32::try_from(length).unwrap_or(u32::MAX),
    }
}

/// [`need`] of a deployment, once its words are known to make sense.
pub(crate) fn need_of(checkpoint: &EncoderCheckpoint, spec: &DeploymentSpec) -> Result<MemoryNeed> {
    check(spec)?;
    Ok(need(checkpoint, spec.compute, &spec.limits))
}

/// Loads an encoder and starts its thread.
pub(crate) fn load(
    checkpoint: &EncoderCheckpoint,
    spec: &DeploymentSpec,
    context: &LoadContext,
) -> Result<LoadedModel> {
    let started = Instant::now();
    check(spec)?;
    context.check()?;
    let (network, tokenizer) = prepare(checkpoint, spec, context)?;
    context.check()?;
    let mut info = checkpoint.info(spec.compute);
    let traits = network.traits();
    let task = traits.task;
    info.weight_bytes = traits.weight_bytes;
    info.compute = format!("{} {}", spec.compute.as_str(), traits.compute);
    let text = EncoderText {
        tokenizer,
        name: spec.name.clone(),
        normalized: checkpoint.config().head.normalize,
        matryoshka: matryoshka(&checkpoint.metadata()),
    };
    let model = Arc::new(LocalEncoder::start(network, text, options(&spec.limits))?);
    info.context_length = u32::try_from(model.max_length()).ok();
    tracing::info!(
        deployment = %spec.name,
        task = task.as_str(),
        milliseconds = started.elapsed().as_millis() as u64,
        weight_bytes = info.weight_bytes,
        "loaded"
    );
    let (mut embed, mut rerank): (Option<Arc<dyn byzerllm_core::EmbeddingModel>>, _) = (None, None);
    match task {
        Task::Rerank => rerank = Some(model.clone() as Arc<dyn byzerllm_core::RerankModel>),
        Task::Embed | Task::Generate => embed = Some(model.clone()),
    }
    Ok(LoadedModel {
        handle: ModelHandle {
            info: Arc::new(info),
            defaults: Sampling::default(),
            chat: None,
            embed,
            rerank,
        },
        worker: Arc::new(EncoderWorker(model)),
    })
}

/// Packs the weights on the pool while another thread builds the tokenizer.
fn prepare(
    checkpoint: &EncoderCheckpoint,
    spec: &DeploymentSpec,
    context: &LoadContext,
) -> Result<(Box<dyn Encoder>, EncoderTokenizer)> {
    std::thread::scope(|scope| {
        let tokenizer = scope.spawn(|| checkpoint.tokenizer());
        let network = checkpoint.network(&context.pool, spec.compute, &|fraction| context.progress(fraction));
        let tokenizer = tokenizer
            .join()
            .map_err(|_| Error::internal("reading the tokenizer failed; please report this"))?;
        Ok((network?, tokenizer?))
    })
}

/// To which lengths the vectors may be cut, as `config.json` says in vLLM's words: `matryoshka_dimensions`, a list, or
/// `is_matryoshka`.
fn matryoshka(metadata: &[(String, String)]) -> Matryoshka {
    let field = |name: &str| {
        let value = metadata.iter().find(|(field, _)| field == name)?.1.as_str();
        serde_json::from_str::<Value>(value).ok()
    };
    let lengths = field("matryoshka_dimensions");
    let lengths = lengths.as_ref().and_then(Value::as_array).into_iter().flatten();
    let lengths: Vec<u32> = lengths
        .filter_map(|length| u32::try_from(length.as_u64()?).ok().filter(|length| *length > 0))
        .collect();
    match (lengths.is_empty(), field("is_matryoshka")) {
        (false, _) => Matryoshka::Lengths(lengths),
        (true, Some(Value::Bool(true))) => Matryoshka::Any,
        (true, _) => Matryoshka::None,
    }
}

/// Describes an encoder's checkpoint.
pub(crate) fn inspect(
    checkpoint: &EncoderCheckpoint,
    path: &Path,
    available: Option<u64>,
) -> Result<Inspection> {
    let tensors: Vec<_> = checkpoint.tensors().into_iter().map(summary).collect();
    let limits = Limits::default();
    let need = need(checkpoint, Compute::default(), &limits);
    let info = checkpoint.info(Compute::default());
    let format = match info.details.get("format").and_then(Value::as_str) {
        Some(format) if format.starts_with("gguf") => format.to_owned(),
        _ if holds(path, "safetensors") => "safetensors".to_owned(),
        _ => "torch".to_owned(),
    };
    Ok(Inspection {
        path: path.to_path_buf(),
        format,
        parameters: tensors.iter().map(parameters).fold(0, u64::saturating_add),
        types: types_of(&tensors),
        tensors,
        chat_template: None,
        memory: MemoryReport {
            weight_bytes: need.weight_bytes,
            context_bytes: 0,
            cache_bytes: 0,
            available_bytes: available,
            fits: memory::plan(&limits, &need, available).is_ok(),
        },
        info,
        effective: Vec::new(),
        effective_legacy: Vec::new(),
    })
}

/// Whether the directory has files that end so, at its top or in the folder of the network.
fn holds(directory: &Path, extension: &str) -> bool {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    files.into_iter().any(|file| {
        let path = file.path();
        path.extension().is_some_and(|found| found == extension)
            || (path.join("config.json").is_file() && holds(&path, extension))
    })
}

struct EncoderWorker(Arc<LocalEncoder>);

#[async_trait]
impl Worker for EncoderWorker {
    async fn probe(&self, deadline: Instant) -> Result<()> {
        self.0.probe(deadline).await
    }

    fn metrics(&self) -> Option<EngineMetrics> {
        Some(self.0.metrics())
    }

    fn shutdown(&self) {
        self.0.shutdown();
        // The memory is free for the next model only when the thread has ended.
        if let Ok(handle) = tokio::runtime::Handle::try_current() {
            handle.block_on(self.0.closed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_vectors_are_declared_or_not_there() {
        let of = |fields: &[(&str, &str)]| {
            let fields: Vec<_> = fields.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            matryoshka(&fields)
        };
        assert_eq!(of(&[("hidden_size", "384")]), Matryoshka::None);
        assert_eq!(of(&[("is_matryoshka", "false")]), Matryoshka::None);
        assert_eq!(of(&[("is_matryoshka", "true")]), Matryoshka::Any);
        let fields = [("is_matryoshka", "true"), ("matryoshka_dimensions", "[64, 128, -1, 0]")];
        assert_eq!(of(&fields), Matryoshka::Lengths(vec![64, 128]));
        assert_eq!(of(&[("matryoshka_dimensions", "[80 values]")]), Matryoshka::None);
    }
}
