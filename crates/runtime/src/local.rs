//! The loader of checkpoints on this machine, run by our own engine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use byzerllm_core::{
    Error, ErrorKind, GenerationDefaults, LEGACY_DEFAULTS, ModelHandle, OPENAI_DEFAULTS, Origin, Result,
};
use byzerllm_engine::{AdapterStatus, EngineMetrics, EngineOptions, LocalModel, ModelText};
use byzerllm_kernels::ComputePool;
use byzerllm_model::{Checkpoint, Compute, CpuOptions, Network, Quantization, type_contradiction};
use serde_json::Value;

use crate::deployment::effective_values;
use crate::encoders;
use crate::inspect::{Inspection, MemoryReport, TensorSummary, TypeSummary};
use crate::lifecycle::check_path;
use crate::loader::{LoadContext, LoadedModel, Loader, MemoryNeed, Worker};
use crate::memory;
use crate::size::format_bytes;
use crate::spec::{DeploymentSpec, Limits};

/// Loads checkpoints of this machine into our own engine.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalLoader;

fn cpu_options(spec: &DeploymentSpec) -> CpuOptions {
    CpuOptions::new(spec.compute).quantized(spec.quantization.unwrap_or(Quantization::Off))
}

fn engine_options(limits: &Limits, cache_bytes: u64) -> EngineOptions {
    EngineOptions {
        max_sequences: limits.max_sequences.unwrap_or(Limits::MAX_SEQUENCES) as usize,
        queue_limit: limits.queue_limit.unwrap_or(Limits::QUEUE_LIMIT) as usize,
        cache_bytes,
        context_length: limits.context_length,
        ..EngineOptions::default()
    }
}

/// What a checkpoint needs, from its shape: whole cache blocks, and for layers with a window the window, the chunk
/// in work and a block for the rest.
fn need(checkpoint: &Checkpoint, options: &CpuOptions, limits: &Limits) -> MemoryNeed {
    let config = checkpoint.config();
    let cap = limits.context_length.map_or(usize::MAX, |length| length as usize);
    let context = config.context_length.min(cap);
    let engine = engine_options(limits, 0);
    let chunk = engine.max_batch_tokens.max(engine.max_sequences);
    let context_bytes = config.cache_groups().iter().fold(0_u64, |sum, group| {
        let block = options.block_tokens;
        let whole = context.div_ceil(block);
        let blocks = group.window.map_or(whole, |window| {
            whole.min(window.saturating_add(chunk).div_ceil(block).saturating_add(1))
        });
        sum.saturating_add(options.block_bytes(config, group).saturating_mul(blocks as u64))
    });
    MemoryNeed {
        weight_bytes: checkpoint.memory_estimate_for(options),
        context_bytes,
        context_length: u32::try_from(context).unwrap_or(u32::MAX),
    }
}

/// The label that keeps the `pretrained_model_type` under which a program of Byzer-LLM deployed.
const TYPE: &str = "pretrained_model_type";

/// Refuses a checkpoint of another family than its type says, before anything is loaded.
fn check_type(spec: &DeploymentSpec, class: &str) -> Result<()> {
    let word = spec.labels.get(TYPE).and_then(Value::as_str);
    match word.filter(|_| !class.is_empty()).and_then(|word| type_contradiction(word, class)) {
        Some(problem) => Err(Error::invalid(TYPE, format!("{}: {problem}", spec.model.display()))),
        None => Ok(()),
    }
}

impl Loader for LocalLoader {
    fn need(&self, spec: &DeploymentSpec) -> Result<MemoryNeed> {
        if let Some(encoder) = encoders::open(&spec.model)? {
            return encoders::need_of(&encoder, spec);
        }
        let checkpoint = Checkpoint::open(&spec.model)?;
        let mut need = need(&checkpoint, &cpu_options(spec), &spec.limits);
        for path in spec.adapters.values() {
            let adapter = checkpoint.adapter_memory_estimate(path)?;
            need.weight_bytes = need.weight_bytes.saturating_add(adapter);
        }
        Ok(need)
    }

    fn load(&self, spec: &DeploymentSpec, context: &LoadContext) -> Result<LoadedModel> {
        if let Some(encoder) = encoders::open(&spec.model)? {
            let info = encoder.info(spec.compute);
            check_type(spec, info.architectures.first().map_or("", String::as_str))?;
            return encoders::load(&encoder, spec, context);
        }
        let started = Instant::now();
        let checkpoint = Checkpoint::open(&spec.model)?;
        check_type(spec, checkpoint.architecture())?;
        context.check()?;
        let (network, text) = prepare(&checkpoint, spec, context)?;
        context.check()?;
        let mut info = checkpoint.info_for(&cpu_options(spec));
        let traits = network.traits();
        info.weight_bytes = traits.weight_bytes;
        info.compute = format!("{} {}", spec.compute.as_str(), traits.compute);
        let defaults: GenerationDefaults = checkpoint.generation_defaults().sampling.clone();
        let model =
            Arc::new(LocalModel::start(network, text, engine_options(&spec.limits, context.cache_bytes))?);
        for (name, path) in &spec.adapters {
            context.check()?;
            let adapter = checkpoint.adapter(path, &context.pool)?;
            model.load_adapter(name, adapter)?;
        }
        info.context_length = u32::try_from(model.context_length()).ok();
        tracing::info!(
            deployment = %spec.name,
            milliseconds = started.elapsed().as_millis() as u64,
            weight_bytes = info.weight_bytes,
            cache_bytes = context.cache_bytes,
            "loaded"
        );
        Ok(LoadedModel {
            handle: ModelHandle {
                info: Arc::new(info),
                defaults,
                chat: Some(model.clone()),
                embed: None,
                rerank: None,
            },
            worker: Arc::new(LocalWorker {
                model,
                checkpoint: spec.model.clone(),
                pool: Arc::clone(&context.pool),
            }),
        })
    }

    fn inspect(&self, path: &Path) -> Result<Inspection> {
        if let Some(encoder) = encoders::open(path)? {
            return encoders::inspect(&encoder, path, self.available_memory(0));
        }
        let checkpoint = Checkpoint::open(path)?;
        let tensors: Vec<TensorSummary> = checkpoint.tensors().into_iter().map(summary).collect();
        let mut info = checkpoint.info(Compute::default());
        let chat_template = match checkpoint.chat_template() {
            Ok(template) => template.map(|template| template.source().to_owned()),
            Err(error) => {
                // The rest is worth showing all the same.
                info.details.insert("chat_template_error".to_owned(), Value::String(error.to_string()));
                None
            }
        };
        let need = need(&checkpoint, &CpuOptions::new(Compute::default()), &Limits::default());
        let available = self.available_memory(0);
        let defaults = &checkpoint.generation_defaults().sampling;
        let effective =
            |front_end| effective_values(&[(Origin::Checkpoint, defaults), (Origin::FrontEnd, front_end)]);
        Ok(Inspection {
            path: path.to_path_buf(),
            format: checkpoint.weight_format(),
            parameters: tensors.iter().map(parameters).fold(0, u64::saturating_add),
            memory: MemoryReport {
                weight_bytes: need.weight_bytes,
                context_bytes: need.context_bytes,
                cache_bytes: memory::cache_bytes(&Limits::default(), &need, available),
                available_bytes: available,
                fits: memory::plan(&Limits::default(), &need, available).is_ok(),
            },
            effective: effective(&OPENAI_DEFAULTS)?,
            effective_legacy: effective(&LEGACY_DEFAULTS)?,
            info,
            types: types_of(&tensors),
            tensors,
            chat_template,
        })
    }
}

/// Tensors by encoding.
pub(crate) fn types_of(tensors: &[TensorSummary]) -> BTreeMap<String, TypeSummary> {
    let mut types: BTreeMap<String, TypeSummary> = BTreeMap::new();
    for tensor in tensors {
        let entry = types.entry(tensor.kind.clone()).or_default();
        entry.tensors += 1;
        entry.bytes = entry.bytes.saturating_add(tensor.bytes);
    }
    types
}

pub(crate) fn summary(tensor: byzerllm_model::TensorSummary) -> TensorSummary {
    TensorSummary {
        name: tensor.name,
        kind: tensor.kind.to_owned(),
        shape: tensor.shape.into_iter().map(|size| size as u64).collect(),
        bytes: tensor.bytes,
    }
}

pub(crate) fn parameters(tensor: &TensorSummary) -> u64 {
    tensor.shape.iter().fold(1, |product, size| product.saturating_mul(*size))
}

/// Packs the weights on the pool while another thread builds the tokenizer.
fn prepare(
    checkpoint: &Checkpoint,
    spec: &DeploymentSpec,
    context: &LoadContext,
) -> Result<(Box<dyn Network>, ModelText)> {
    std::thread::scope(|scope| {
        let text = scope.spawn(|| -> Result<ModelText> {
            let tokenizer = checkpoint.tokenizer()?;
            Ok(ModelText {
                end_tokens: checkpoint.stop_tokens(&tokenizer),
                tokenizer,
                template: checkpoint.chat_template()?,
                name: spec.name.clone(),
            })
        });
        let progress = |fraction| context.progress(fraction);
        let options = cpu_options(spec);
        let network = checkpoint.network_with_progress(&context.pool, &options, &progress);
        let text =
            text.join().map_err(|_| Error::internal("reading the tokenizer failed; please report this"))?;
        Ok((network?, text?))
    })
}

struct LocalWorker {
    model: Arc<LocalModel>,
    /// Where the model lies, for adapters that come later.
    checkpoint: PathBuf,
    pool: Arc<ComputePool>,
}

#[async_trait]
impl Worker for LocalWorker {
    async fn probe(&self, deadline: Instant) -> Result<()> {
        self.model.probe(deadline).await
    }

    fn metrics(&self) -> Option<EngineMetrics> {
        Some(self.model.metrics())
    }

    fn load_adapter(&self, name: &str, path: &Path, available: Option<u64>) -> Result<()> {
        check_path(path)?;
        let checkpoint = Checkpoint::open(&self.checkpoint)?;
        let needed = checkpoint.adapter_memory_estimate(path)?;
        if let Some(available) = available.filter(|&available| needed > available) {
            let message = format!(
                "the adapter '{name}' needs {} of memory, and {} are available; unload something first",
                format_bytes(needed),
                format_bytes(available)
            );
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        let adapter = checkpoint.adapter(path, &self.pool)?;
        self.model.load_adapter(name, adapter)
    }

    async fn unload_adapter(&self, name: &str) -> Result<()> {
        self.model.unload_adapter(name).await
    }

    fn adapters(&self) -> Vec<AdapterStatus> {
        self.model.adapters()
    }

    fn shutdown(&self) {
        self.model.shutdown();
        // The memory is free for the next model only when the thread has ended.
        if let Ok(handle) = tokio::runtime::Handle::try_current() {
            handle.block_on(self.model.closed());
        }
    }
}
