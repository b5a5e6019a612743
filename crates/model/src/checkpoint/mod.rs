//! A checkpoint on disk: what it is, what it needs, and how it becomes a network.
//!
//! Opening maps the files and checks every header, field, name and shape; it packs nothing and takes milliseconds.

mod chat_format;
pub(crate) mod hugging_face;
mod prompt_format;
mod vocabulary_files;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use byzerllm_core::ModelInfo;
use byzerllm_kernels::{Compute, ComputePool, Isa, Matrix, TensorType};
use serde_json::{Value as Json, json};

use crate::adapter::{Adapter, AdapterFile};
use crate::arch::source::{Format, Source};
use crate::arch::{self, Architecture};
use crate::config::DecoderConfig;
use crate::cpu::{CpuDecoder, CpuOptions};
use crate::decoder_weights::{DecoderWeights, LinearWeights};
use crate::generation_config::GenerationConfig;
use crate::load_error::{LoadError, LoadResult};
use crate::network::Network;
use crate::quantize::{Quantization, QuantizationReport};
use crate::template::{ChatTemplate, SpecialTokens};
use crate::tokenizer::Tokenizer;
use crate::weights::gguf::{GgufFile, Value};
use crate::weights::integers::IntegerFormat;
use crate::weights::{MappedFile, TensorStore};
use hugging_face::Extras;

/// The format of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointFormat {
    /// One GGUF file.
    Gguf {
        /// The format's version.
        version: u32,
    },
    /// A directory as `transformers` writes it.
    HuggingFace,
}

/// One tensor of a checkpoint, for listings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSummary {
    /// Its name in the file.
    pub name: String,
    /// Its encoding.
    pub kind: &'static str,
    /// Its shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// Its size in the file.
    pub bytes: u64,
}

/// An opened checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    source: Source,
    architecture: &'static Architecture,
    /// The class name that the checkpoint itself gives.
    class: String,
    config: DecoderConfig,
    generation: GenerationConfig,
    /// The small files of a directory.
    extras: Option<Extras>,
}

impl Checkpoint {
    /// Opens a Hugging Face directory, the directory of a LoRA adapter with its model inside, or a GGUF file: maps files, reads headers and configurations and checks
    /// everything, including the shape of every tensor that the network needs.
    ///
    /// # Errors
    /// [`LoadError`] naming the file and the field at fault.
    pub fn open(path: &Path) -> Result<Checkpoint, LoadError> {
        let metadata = std::fs::metadata(path).map_err(|source| LoadError::io(path, source))?;
        let base = path.join(ADAPTER_BASE);
        if base.is_dir() {
            // An adapter with the model that it was trained on inside.
            Self { path: path.into(), ..Self::open_directory(&base, Some(path))? }.checked()
        } else if metadata.is_dir() {
            Self::open_directory(path, None)?.checked()
        } else {
            Self::from_gguf(MappedFile::open(path)?)
        }
    }

    /// A mapped GGUF file.
    pub(crate) fn from_gguf(file: Arc<MappedFile>) -> LoadResult<Self> {
        Self::read_gguf(file)?.checked()
    }

    /// The architecture's own reading of names and shapes is the check; the matrices stay in the mapping.
    fn checked(self) -> LoadResult<Self> {
        self.weights()?;
        Ok(self)
    }

    fn open_directory(path: &Path, adapter: Option<&Path>) -> LoadResult<Self> {
        let (config_path, config) = hugging_face::read_config(path)?;
        let (class, architecture) = hugging_face::architecture(&config_path, &config)?;
        let tensors = crate::weights::directory::open_model(path)?;
        let generation = hugging_face::generation_config(path)?;
        let extras = Extras::read(path)?;
        let adapter = adapter.map(AdapterFile::open).transpose()?;
        let integers = IntegerFormat::read(&config_path, &config)?;
        let format = Format::HuggingFace { path: config_path, config };
        let source = Source { format, tensors, integers, adapter };
        let config = (architecture.config)(&source)?;
        Ok(Self { path: path.into(), source, architecture, class, config, generation, extras: Some(extras) })
    }

    fn read_gguf(file: Arc<MappedFile>) -> LoadResult<Self> {
        let path = &file.path().to_owned();
        if !GgufFile::recognizes(&file) {
            let problem = "is neither a GGUF file nor a directory with config.json and safetensors";
            return Err(LoadError::malformed(path, "magic", problem));
        }
        let (gguf, entries) = GgufFile::open(&file)?;
        let mut tensors = TensorStore::new(path);
        tensors.add(file, entries)?;
        let key = "general.architecture";
        let name = gguf.text(key).ok_or_else(|| LoadError::malformed(path, key, "is missing"))?.to_owned();
        let architecture = arch::by_gguf_name(&name).ok_or_else(|| {
            let known: Vec<&str> = arch::ARCHITECTURES.iter().flat_map(|known| known.gguf).copied().collect();
            let problem = format!("{:?} is not supported; supported are {}", name, known.join(", "));
            LoadError::unsupported(path, key, problem)
        })?;
        let generation = GenerationConfig {
            eos_token_ids: gguf.token_id("tokenizer.ggml.eos_token_id")?.into_iter().collect(),
            bos_token_id: gguf.token_id("tokenizer.ggml.bos_token_id")?,
            ..GenerationConfig::default()
        };
        let source = Source {
            format: Format::Gguf { file: gguf, architecture: name },
            tensors,
            integers: None,
            adapter: None,
        };
        let config = (architecture.config)(&source)?;
        check_vocabulary(&source, &config)?;
        let class = architecture.names[0].to_owned();
        Ok(Self { path: path.into(), source, architecture, class, config, generation, extras: None })
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its format.
    #[must_use]
    pub fn format(&self) -> CheckpointFormat {
        match &self.source.format {
            Format::HuggingFace { .. } => CheckpointFormat::HuggingFace,
            Format::Gguf { file, .. } => CheckpointFormat::Gguf { version: file.version() },
        }
    }

    /// The format of its weights: `gguf v3`, `safetensors` or `torch`.
    #[must_use]
    pub fn weight_format(&self) -> String {
        if let CheckpointFormat::Gguf { version } = self.format() {
            return format!("gguf v{version}");
        }
        let tensors = &self.source.tensors;
        let file = tensors.entries().first().map(|entry| tensors.file(entry).path());
        let torch = file.and_then(Path::extension).is_some_and(|extension| extension == "bin");
        if torch { "torch".to_owned() } else { "safetensors".to_owned() }
    }

    /// The class name of its family, such as `LlamaForCausalLM`, for GGUF files too.
    #[must_use]
    pub fn architecture(&self) -> &str {
        &self.class
    }

    /// The network's shape.
    #[must_use]
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    fn weights(&self) -> LoadResult<DecoderWeights<'_>> {
        let mut weights = (self.architecture.weights)(&self.config, &self.source)?;
        if let Some(adapter) = &self.source.adapter {
            adapter.merge_into(&self.source, &mut weights)?;
        }
        Ok(weights)
    }

    /// Bytes at most that an adapter takes beside a network of this checkpoint, from the headers of its files.
    ///
    /// # Errors
    /// As [`Self::adapter`].
    pub fn adapter_memory_estimate(&self, directory: &Path) -> Result<u64, LoadError> {
        let weights = (self.architecture.weights)(&self.config, &self.source)?;
        AdapterFile::open(directory)?.memory_estimate(&self.source, &weights)
    }

    /// Opens a LoRA adapter in PEFT's format and packs it for networks of this checkpoint
    /// ([`Network::load_adapter`]).
    ///
    /// # Errors
    /// [`LoadError`] naming the file and the field at fault: settings that are not supported, matrices that the model
    /// does not have, shapes that do not fit.
    pub fn adapter(&self, directory: &Path, pool: &ComputePool) -> Result<Adapter, LoadError> {
        let file = AdapterFile::open(directory)?;
        Adapter::pack(&file, &self.source, &(self.architecture.weights)(&self.config, &self.source)?, pool)
    }

    fn gguf(&self) -> Option<&GgufFile> {
        match &self.source.format {
            Format::Gguf { file, .. } => Some(file),
            Format::HuggingFace { .. } => None,
        }
    }

    /// Builds the tokenizer, which takes a while for large vocabularies.
    ///
    /// # Errors
    /// When the checkpoint has none, or one that cannot be run.
    pub fn tokenizer(&self) -> Result<Tokenizer, LoadError> {
        match self.gguf() {
            Some(file) => Ok(Tokenizer::from_gguf(file.vocabulary()?)?),
            None => vocabulary_files::tokenizer(self.source.directory()),
        }
    }

    /// The checkpoint's chat template, or the prompt format that its family was published with, as a template.
    ///
    /// # Errors
    /// When the template is not valid.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>, LoadError> {
        let own = match (self.gguf(), &self.extras) {
            (Some(file), _) => gguf_template(file)?,
            (None, Some(extras)) => extras.chat_template()?,
            (None, None) => None,
        };
        match (own, prompt_format::of(self)) {
            (None, Some(format)) => {
                let template = ChatTemplate::new(format.template, SpecialTokens::default());
                template.map(Some).map_err(|source| LoadError::Template {
                    path: self.path.clone(),
                    field: "published prompt format",
                    source,
                })
            }
            (own, _) => Ok(own),
        }
    }

    /// What the checkpoint says about generation.
    #[must_use]
    pub fn generation_defaults(&self) -> &GenerationConfig {
        &self.generation
    }

    /// All tokens that the checkpoint's files name as ends of a text or of a turn, without repetition.
    #[must_use]
    pub fn end_tokens(&self) -> Vec<u32> {
        let mut ids = self.generation.eos_token_ids.clone();
        ids.extend(self.source.fields().token_ids("eos_token_id").unwrap_or_default());
        if let Some(file) = self.gguf() {
            for key in ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
                ids.extend(file.token_id(key).ok().flatten());
            }
        }
        ids.extend(self.extras.as_ref().and_then(Extras::eos_token_id));
        let mut seen = std::collections::HashSet::new();
        ids.retain(|&id| seen.insert(id));
        ids
    }

    /// The directory of its configuration.
    pub(crate) fn directory(&self) -> &Path {
        self.source.directory()
    }

    /// What it is read from.
    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// The ids of the tokens that its files name for special uses.
    pub(crate) fn special_ids(&self, tokenizer: &Tokenizer) -> SpecialIds {
        let fields = self.source.fields();
        let first = |name: &str| fields.token_ids(name).unwrap_or_default().first().copied();
        let tokens = self.extras.as_ref().map(Extras::special_tokens).unwrap_or_default();
        let id = |text: Option<String>| text.and_then(|text| tokenizer.id(&text));
        let from_gguf = |name: &str| {
            self.gguf()
                .and_then(|file| file.token_id(&format!("tokenizer.ggml.{name}_token_id")).ok().flatten())
        };
        SpecialIds {
            bos: id(tokens.bos).or_else(|| from_gguf("bos")).or_else(|| first("bos_token_id")),
            eos: id(tokens.eos).or_else(|| from_gguf("eos")).or_else(|| first("eos_token_id")),
            unk: id(tokens.unk).or_else(|| from_gguf("unknown")),
            pad: id(tokens.pad).or_else(|| from_gguf("padding")).or_else(|| first("pad_token_id")),
        }
    }

    /// The end tokens, and those that the family's published prompt format ends an answer with.
    #[must_use]
    pub fn stop_tokens(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        let mut ids = self.end_tokens();
        let stops = prompt_format::of(self).map(|format| format.stops).unwrap_or_default();
        for id in stops.iter().filter_map(|token| tokenizer.id(token)) {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids
    }

    /// All tensors, in file order.
    #[must_use]
    pub fn tensors(&self) -> Vec<TensorSummary> {
        let summary = |entry: &crate::weights::TensorEntry| TensorSummary {
            name: entry.name.clone(),
            kind: entry.encoding.name(),
            shape: entry.shape.clone(),
            bytes: entry.range.len() as u64,
        };
        self.source.tensors.entries().iter().map(summary).collect()
    }

    /// The metadata of the file or the fields of `config.json`, each shortened to a line.
    #[must_use]
    pub fn metadata(&self) -> Vec<(String, String)> {
        match &self.source.format {
            Format::Gguf { file, .. } => file.rendered(),
            Format::HuggingFace { config, .. } => {
                config.iter().map(|(name, value)| (name.clone(), hugging_face::render(value))).collect()
            }
        }
    }

    /// The languages that the model speaks, as far as the file says.
    #[must_use]
    pub fn languages(&self) -> Option<Vec<String>> {
        let file = self.gguf()?;
        match file.get("general.languages") {
            Some(Value::Array(array)) if array.length <= 1000 => {
                file.texts("general.languages").ok().flatten()
            }
            _ => None,
        }
    }

    /// Bytes that the packed weights need in memory.
    #[must_use]
    pub fn memory_estimate(&self, compute: Compute) -> u64 {
        self.memory_estimate_for(&CpuOptions::new(compute))
    }

    /// Bytes that the weights need in memory when they are packed with these options.
    #[must_use]
    pub fn memory_estimate_for(&self, options: &CpuOptions) -> u64 {
        let Ok(weights) = self.marked_weights(options.quantization) else { return 0 };
        let packed = |kind, rows, columns| Matrix::packed_bytes(kind, rows, columns, options.compute);
        let linear = |linear: &LinearWeights<'_>| -> u64 {
            let parts = linear.parts.iter().zip(linear.packed_kinds());
            parts.map(|(part, kind)| packed(kind, part.rows, part.columns)).sum()
        };
        // Routers are exact in every mode.
        let router = |router: &LinearWeights<'_>| -> u64 {
            let parts = router.parts.iter().zip(router.packed_kinds());
            parts
                .map(|(part, kind)| Matrix::packed_bytes(kind, part.rows, part.columns, Compute::Exact))
                .sum()
        };
        let mut total = 0;
        for layer in &weights.layers {
            total += linear(&layer.qkv) + linear(&layer.out) + layer.router.as_ref().map_or(0, router);
            total += layer.mlp.iter().map(|mlp| linear(&mlp.up) + linear(&mlp.down)).sum::<u64>();
        }
        total
            + match &weights.head {
                // Rows that were scaled to unit length are f32.
                Some(head) if self.config.head.normalized => {
                    head.parts.iter().map(|part| packed(TensorType::F32, part.rows, part.columns)).sum()
                }
                Some(head) => linear(head),
                None => {
                    let table = &weights.embedding;
                    let target = options.quantization.head_target(table.kind, table.columns);
                    packed(target.unwrap_or(table.kind), table.rows, table.columns)
                }
            }
    }

    /// Packs the weights into a network on the CPU.
    ///
    /// # Errors
    /// When a tensor cannot be packed or the memory cannot be had.
    pub fn network(
        &self,
        pool: &Arc<ComputePool>,
        options: &CpuOptions,
    ) -> Result<Box<dyn Network>, LoadError> {
        self.network_with_progress(pool, options, &|_| {})
    }

    /// Like [`Self::network`]; `progress` is told the share that is done, from 0 to 1.
    ///
    /// # Errors
    /// When a tensor cannot be packed or the memory cannot be had.
    pub fn network_with_progress(
        &self,
        pool: &Arc<ComputePool>,
        options: &CpuOptions,
        progress: &dyn Fn(f32),
    ) -> Result<Box<dyn Network>, LoadError> {
        Ok(Box::new(self.decoder(pool, options, progress)?))
    }

    /// Packs the weights.
    pub(crate) fn decoder(
        &self,
        pool: &Arc<ComputePool>,
        options: &CpuOptions,
        progress: &dyn Fn(f32),
    ) -> LoadResult<CpuDecoder> {
        let weights = self.marked_weights(options.quantization)?;
        CpuDecoder::new(self.config.clone(), &weights, Arc::clone(pool), options, progress)
            .map_err(|source| LoadError::Network { path: self.path.clone(), source })
    }

    /// The weights, those marked that quantization at load changes.
    fn marked_weights(&self, quantization: Quantization) -> LoadResult<DecoderWeights<'_>> {
        if let Some(declared) = quantization.declared() {
            let found = self.source.integers.as_ref().map(IntegerFormat::method);
            if found != Some(declared) {
                let problem = match found {
                    Some(found) => {
                        format!("the checkpoint is one of {found}, not of {declared}: write {found}")
                    }
                    None => format!("the checkpoint is not one of {declared}: leave it out, or write 4 or 8"),
                };
                return Err(LoadError::unsupported(&self.path, "quantization", problem));
            }
        }
        let mut weights = self.weights()?;
        quantization.mark(&mut weights);
        Ok(weights)
    }

    /// What quantization at load makes of the matrices.
    ///
    /// # Errors
    /// When a tensor that the network needs is missing or of another shape.
    pub fn quantization_report(&self, asked: Quantization) -> Result<QuantizationReport, LoadError> {
        Ok(QuantizationReport::new(asked, &self.marked_weights(asked)?))
    }

    /// What is known of the model before it is loaded.
    #[must_use]
    pub fn info(&self, compute: Compute) -> ModelInfo {
        self.info_for(&CpuOptions::new(compute))
    }

    /// What is known of the model before it is loaded with these options.
    #[must_use]
    pub fn info_for(&self, options: &CpuOptions) -> ModelInfo {
        let compute = options.compute;
        let config = &self.config;
        let mut details = serde_json::Map::new();
        let mut put = |name: &str, value: Json| details.insert(name.to_owned(), value);
        put(
            "format",
            match self.format() {
                CheckpointFormat::Gguf { version } => json!(format!("gguf v{version}")),
                CheckpointFormat::HuggingFace => json!("huggingface"),
            },
        );
        if let Some(adapter) = &self.source.adapter {
            put("adapter", adapter.summary());
        }
        if let Some(format) = prompt_format::of(self).filter(|_| !self.has_chat_template()) {
            put("prompt_format", json!(format.name));
        }
        put("vocab_size", json!(config.vocab_size));
        put("hidden_size", json!(config.hidden_size));
        put("layers", json!(config.layers.len()));
        if let Some(layer) = config.layers.first() {
            put("heads", json!(layer.attention.heads));
            put("kv_heads", json!(layer.attention.kv_heads));
            put("head_dim", json!(layer.attention.head_dim));
            put("intermediate_size", json!(layer.mlp.intermediate_size));
        }
        put("tied_embeddings", json!(config.head.tied));
        put("tensor_types", Json::Object(self.tensor_types()));
        put("compute_mode", json!(compute));
        put("arithmetic", json!(compute.arithmetic()));
        put("instruction_set", json!(compute.instructions(Isa::active())));
        put("weights", Json::Object(self.representations(options)));
        put("cache_type", json!(options.cache.as_str()));
        if let Some(format) = &self.source.integers {
            put("quantization_method", json!(format.method()));
        }
        if options.quantization.changes()
            && let Ok(report) = self.quantization_report(options.quantization)
        {
            put("quantization", report.json());
        }
        ModelInfo {
            architectures: vec![self.class.clone()],
            engine: "byzerllm".into(),
            context_length: u32::try_from(config.context_length).ok(),
            chat_template: self.has_chat_template() || prompt_format::of(self).is_some(),
            weight_bytes: self.memory_estimate_for(options),
            compute: compute.as_str().into(),
            languages: self.languages(),
            details,
        }
    }

    /// How the weights that products read are kept, by their encoding in the file or that of quantization at load.
    fn representations(&self, options: &CpuOptions) -> serde_json::Map<String, Json> {
        let compute = options.compute;
        let Ok(weights) = self.marked_weights(options.quantization) else { return serde_json::Map::new() };
        let layers = weights.layers.iter().flat_map(|layer| {
            let mlp = layer.mlp.iter().flat_map(|mlp| [&mlp.up, &mlp.down]);
            [&layer.qkv, &layer.out].into_iter().chain(mlp)
        });
        let table = &weights.embedding;
        let target = options.quantization.head_target(table.kind, table.columns);
        let tied = weights.head.is_none().then_some(target.unwrap_or(table.kind));
        let kinds = layers.chain(&weights.head).flat_map(LinearWeights::packed_kinds).chain(tied);
        kinds.map(|kind| (kind.name().to_owned(), json!(Matrix::representation(kind, compute)))).collect()
    }

    fn has_chat_template(&self) -> bool {
        match (self.gguf(), &self.extras) {
            (Some(file), _) => file.text(GGUF_TEMPLATE).is_some(),
            (None, extras) => extras.as_ref().is_some_and(Extras::has_chat_template),
        }
    }

    /// How many tensors there are of each encoding.
    fn tensor_types(&self) -> serde_json::Map<String, Json> {
        let mut counts: Vec<(&str, u64)> = Vec::new();
        for entry in self.source.tensors.entries() {
            let name = entry.encoding.name();
            match counts.iter_mut().find(|(known, _)| *known == name) {
                Some((_, count)) => *count += 1,
                None => counts.push((name, 1)),
            }
        }
        counts.into_iter().map(|(name, count)| (name.to_owned(), json!(count))).collect()
    }
}

/// The ids of the tokens for special uses.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SpecialIds {
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) unk: Option<u32>,
    pub(crate) pad: Option<u32>,
}

/// Where an adapter's directory holds the model that it was trained on.
pub(crate) const ADAPTER_BASE: &str = "pretrained_model";

/// Every token that the tokenizer may give must have an embedding.
fn check_vocabulary(source: &Source, config: &DecoderConfig) -> LoadResult<()> {
    let Format::Gguf { file, .. } = &source.format else { return Ok(()) };
    match file.get(GGUF_TOKENS) {
        Some(Value::Array(tokens)) if tokens.length > config.vocab_size => {
            let problem = format!("has {} entries for {} embeddings", tokens.length, config.vocab_size);
            Err(LoadError::malformed(file.path(), GGUF_TOKENS, problem))
        }
        _ => Ok(()),
    }
}

const GGUF_TOKENS: &str = "tokenizer.ggml.tokens";
const GGUF_TEMPLATE: &str = "tokenizer.chat_template";
const GGUF_TOOL_TEMPLATE: &str = "tokenizer.chat_template.tool_use";

fn gguf_template(file: &GgufFile) -> LoadResult<Option<ChatTemplate>> {
    let Some(template) = file.text(GGUF_TEMPLATE) else { return Ok(None) };
    let token = |key: &str| -> LoadResult<Option<String>> {
        match file.token_id(key)? {
            Some(id) => file.text_in(GGUF_TOKENS, id as usize),
            None => Ok(None),
        }
    };
    let tokens = SpecialTokens {
        bos: token("tokenizer.ggml.bos_token_id")?,
        eos: token("tokenizer.ggml.eos_token_id")?,
        unk: token("tokenizer.ggml.unknown_token_id")?,
        pad: token("tokenizer.ggml.padding_token_id")?,
    };
    let checked = |text: &str, field| {
        ChatTemplate::new(text, tokens.clone()).map_err(|source| LoadError::Template {
            path: file.path().into(),
            field,
            source,
        })
    };
    let template = checked(template, GGUF_TEMPLATE)?;
    Ok(Some(match file.text(GGUF_TOOL_TEMPLATE) {
        Some(tool_use) => template.with_tool_use(&checked(tool_use, GGUF_TOOL_TEMPLATE)?),
        None => template,
    }))
}
