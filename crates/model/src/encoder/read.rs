//! The parts of an encoder's checkpoint, read from its files.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use byzerllm_kernels::dequantize;
use serde_json::{Map, Value as Json};

use super::families::{self, EncoderFamily};
use super::sentence::{self, Modules, Prompts};
use super::{DenseConfig, EncoderConfig, EncoderSettings, Origin, Pooling, Task};
use crate::arch::fields::Fields;
use crate::arch::source::{Format, Source};
use crate::checkpoint::hugging_face;
use crate::decoder_weights::{LinearWeights, MatrixPart};
use crate::load_error::{LoadError, LoadResult};
use crate::weights::gguf::{GgufFile, Value};
use crate::weights::{MappedFile, TensorStore, directory::open_model};

/// Labels whose names are read.
const MAX_LABELS: usize = 1 << 16;

/// The parts of a checkpoint.
pub(super) struct Parts {
    pub(super) source: Source,
    pub(super) family: &'static EncoderFamily,
    pub(super) class: String,
    pub(super) config: EncoderConfig,
    pub(super) settings: EncoderSettings,
    pub(super) dense: Vec<TensorStore>,
}

/// The family of a `config.json`, by the first of its class names that is known; `None` when none is an encoder's.
pub(super) fn class<'a>(
    path: &Path,
    config: &'a Map<String, Json>,
) -> LoadResult<Option<(&'a str, &'static EncoderFamily, Task)>> {
    let names = match config.get("architectures") {
        Some(Json::Array(names)) => names.iter().filter_map(Json::as_str).collect(),
        None | Some(Json::Null) => Vec::new(),
        Some(_) => return Err(LoadError::malformed(path, "architectures", "must be a list of texts")),
    };
    Ok(names.iter().find_map(|name| families::by_class(name).map(|(family, task)| (*name, family, task))))
}

/// The directory of the network: older files of sentence-transformers have it in a folder of its own.
pub(super) fn network_directory(path: &Path) -> LoadResult<PathBuf> {
    const FOLDER: &str = "0_Transformer";
    let inner = path.join(FOLDER);
    Ok(if !path.join("config.json").is_file() && inner.is_dir() { inner } else { path.into() })
}

/// What a GGUF file of an encoder is for.
pub(super) fn gguf_task(file: &GgufFile, architecture: &str) -> Task {
    let fields = Fields::gguf(file, architecture);
    match fields.number("pooling_type") {
        Ok(Some(families::RANK)) => Task::Rerank,
        _ => Task::Embed,
    }
}

/// Reads a directory.
pub(super) fn directory(path: &Path) -> LoadResult<Parts> {
    let modules = Modules::read(path)?;
    let network =
        modules.as_ref().map_or_else(|| network_directory(path), |modules| Ok(modules.network.clone()))?;
    let (config_path, fields) = hugging_face::read_config(&network)?;
    let (class, family, task) = class(&config_path, &fields)?.ok_or_else(|| {
        let given = hugging_face::render(fields.get("architectures").unwrap_or(&Json::Null));
        let problem = format!("{given} is no encoder; supported are {}", families::classes().join(", "));
        LoadError::unsupported(&config_path, "architectures", problem)
    })?;
    let class = class.to_owned();
    if fields.get("quantization_config").is_some_and(Json::is_object) {
        let problem = "quantized weights of encoders are not supported: use the model's own floats, or GGUF";
        return Err(LoadError::unsupported(&config_path, "quantization_config", problem));
    }
    let tensors = open_model(&network)?;
    let source = Source {
        format: Format::HuggingFace { path: config_path, config: fields },
        tensors,
        integers: None,
        adapter: None,
    };
    let mut config = (family.config)(&source, task)?;
    let mut dense = Vec::new();
    let (mut pooling_origin, mut normalize_origin) = (Origin::Assumed(FIRST_TOKEN), Origin::Assumed(LOGITS));
    if task == Task::Embed {
        let chosen = pooling(path, &source, modules);
        config.head.pooling = chosen.pooling;
        config.head.normalize = chosen.normalize;
        (pooling_origin, normalize_origin) = (chosen.pooling_origin, chosen.normalize_origin);
        let mut width = config.head.width(config.hidden_size);
        for (layer, store) in chosen.dense {
            if layer.inputs != width {
                let problem = format!("reads {} values, the step before it writes {width}", layer.inputs);
                let place = store.entries().first().map_or(path, |entry| store.file(entry).path());
                return Err(LoadError::malformed(place, "in_features", problem));
            }
            width = layer.outputs;
            config.head.dense.push(layer);
            dense.push(store);
        }
    }
    let Prompts { prompts, default, similarity } = Prompts::read(path)?;
    let (length, lowercase) = max_length(path, &network, &mut config)?;
    let settings = EncoderSettings {
        prompts,
        default_prompt: default,
        lowercase,
        similarity,
        labels: labels(&source, &config)?,
        probabilities: probabilities(&source.fields(), &source)?,
        pooling_origin,
        normalize_origin,
        max_length_origin: length,
    };
    Ok(Parts { source, family, class, config, settings, dense })
}

const FIRST_TOKEN: &str = "classifiers of this family read the first token";
const LOGITS: &str = "logits are not scaled";
const MEAN: &str = "no modules.json, so the mean, as sentence-transformers does";
const NOT_NORMALIZED: &str = "no modules.json, so vectors keep their length, as in sentence-transformers";
const BGE: &str = "no modules.json; models of the BGE family read the first token";
const BGE_NORMALIZED: &str = "no modules.json; models of the BGE family have vectors of unit length";
const GGUF_MEAN: &str = "no pooling_type in the file, so the mean";
const GGUF_NORMALIZED: &str =
    "GGUF files do not say; vectors have unit length as llama.cpp's tools make them";

/// How an embedding model ends.
struct Ending {
    pooling: Vec<Pooling>,
    pooling_origin: Origin,
    dense: Vec<(DenseConfig, TensorStore)>,
    normalize: bool,
    normalize_origin: Origin,
}

fn pooling(path: &Path, source: &Source, modules: Option<Modules>) -> Ending {
    if let Some(Modules { pooling, dense, normalize, .. }) = modules {
        let (pooling, pooling_origin) = pooling.unwrap_or((vec![Pooling::Mean], Origin::Assumed(MEAN)));
        let normalize_origin = Origin::Given("modules.json".to_owned());
        return Ending { pooling, pooling_origin, dense, normalize, normalize_origin };
    }
    let bge = is_bge(path, source);
    Ending {
        pooling: vec![if bge { Pooling::Cls } else { Pooling::Mean }],
        pooling_origin: Origin::Assumed(if bge { BGE } else { MEAN }),
        dense: Vec::new(),
        normalize: bge,
        normalize_origin: Origin::Assumed(if bge { BGE_NORMALIZED } else { NOT_NORMALIZED }),
    }
}

/// Whether the name of the directory, or the one that `config.json` remembers, is that of a BGE model.
fn is_bge(path: &Path, source: &Source) -> bool {
    let has = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == "bge")
    };
    let remembered = source.fields().text("_name_or_path").ok().flatten().unwrap_or_default();
    let folder = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    has(remembered) || has(&folder)
}

/// Sets the longest input: what a file says, as far as there are positions for it. Returns where it is from, and
/// whether texts become lower case.
fn max_length(path: &Path, network: &Path, config: &mut EncoderConfig) -> LoadResult<(Origin, bool)> {
    let mut lowercase = false;
    let mut stated = None;
    // Either place is used: the file belongs to the network, and newer releases write all into one directory.
    for directory in [network, path] {
        let (length, lower) = sentence::length_and_case(directory)?;
        lowercase |= lower;
        stated = stated.or(length);
    }
    let given = |file: &str| Origin::Given(file.to_owned());
    let (length, origin) = match stated {
        Some(length) => (length, given(sentence::length_file())),
        None => {
            const TOKENIZER: &str = "tokenizer_config.json";
            let tokenizer = sentence::object(&network.join(TOKENIZER))?.unwrap_or_default();
            // Absent is written as an enormous number.
            let length = tokenizer.get("model_max_length").and_then(Json::as_u64);
            match length.and_then(|length| usize::try_from(length).ok()) {
                Some(length) if length < config.max_length => (length, given(TOKENIZER)),
                _ => (config.max_length, given("config.json")),
            }
        }
    };
    if length < 3 {
        let problem = format!("is {length}, too short for a text with its special tokens");
        return Err(LoadError::malformed(path, "max_seq_length", problem));
    }
    if length < config.max_length {
        config.max_length = length;
        return Ok((origin, lowercase));
    }
    // What a file promises beyond the table of positions cannot be kept.
    Ok((if length == config.max_length { origin } else { given("config.json") }, lowercase))
}

/// The names of a classifier's labels.
fn labels(source: &Source, config: &EncoderConfig) -> LoadResult<Vec<String>> {
    if config.task != Task::Rerank {
        return Ok(Vec::new());
    }
    let count = config.width();
    let fields = source.fields();
    let stated = match &source.format {
        Format::HuggingFace { config, .. } => match config.get("id2label") {
            Some(Json::Object(names)) => Some(names),
            _ => None,
        },
        Format::Gguf { .. } => None,
    };
    let total = match stated {
        Some(names) => Some(names.len()),
        None => fields.positive_or_absent("num_labels")?,
    };
    if let Some(total) = total.filter(|total| *total != count) {
        let field = if stated.is_some() { "id2label" } else { "num_labels" };
        let problem = format!("names {total} labels, the classifier has {count}");
        return Err(fields.malformed(field, problem));
    }
    let name = |index: usize| {
        let given = stated.and_then(|names| names.get(&index.to_string())).and_then(Json::as_str);
        given.map_or_else(|| format!("LABEL_{index}"), str::to_owned)
    };
    Ok((0..count).map(name).collect())
}

/// Whether the files of a cross-encoder name the logistic function, or none, for its scores.
fn probabilities(fields: &Fields<'_>, source: &Source) -> LoadResult<Option<bool>> {
    let Format::HuggingFace { config, .. } = &source.format else { return Ok(None) };
    let inner = match config.get("sentence_transformers") {
        Some(Json::Object(inner)) => inner.get("activation_fn").and_then(Json::as_str),
        _ => None,
    };
    // The name before version 4 of sentence-transformers.
    let name = match inner {
        Some(name) => Some(name),
        None => fields.text("sbert_ce_default_activation_function")?,
    };
    Ok(match name.and_then(|name| name.rsplit('.').next()) {
        Some("Sigmoid") => Some(true),
        Some("Identity") => Some(false),
        _ => None,
    })
}

/// The dense layer of a folder of its own.
pub(super) fn dense<'a>(store: &'a TensorStore, layer: &DenseConfig) -> LoadResult<LinearWeights<'a>> {
    let DenseConfig { inputs, outputs, .. } = *layer;
    let weight = store.require("linear.weight", &[outputs, inputs])?;
    let data = Cow::Borrowed(weight.data);
    let part = MatrixPart::new(weight.kind, outputs, inputs, data);
    let bias = match store.contains("linear.bias") {
        false => None,
        true => {
            let bias = store.require("linear.bias", &[outputs])?;
            let mut values = vec![0.0; outputs];
            dequantize(bias.kind, bias.data, &mut values).map_err(|error| {
                LoadError::malformed(store.file(bias.entry).path(), "tensor linear.bias", error.to_string())
            })?;
            Some(values)
        }
    };
    Ok(LinearWeights { parts: vec![part], bias })
}

/// Reads a mapped GGUF file.
pub(super) fn gguf(file: Arc<MappedFile>) -> LoadResult<Parts> {
    let path = file.path().to_owned();
    if !GgufFile::recognizes(&file) {
        let problem = "is neither a GGUF file nor a directory with config.json and weights";
        return Err(LoadError::malformed(&path, "magic", problem));
    }
    let (gguf, entries) = GgufFile::open(&file)?;
    let mut tensors = TensorStore::new(&path);
    tensors.add(file, entries)?;
    let key = "general.architecture";
    let name = gguf.text(key).ok_or_else(|| LoadError::malformed(&path, key, "is missing"))?.to_owned();
    let family = families::by_gguf_name(&name).ok_or_else(|| {
        let known: Vec<&str> = families::FAMILIES.iter().flat_map(|family| family.gguf).copied().collect();
        LoadError::unsupported(
            &path,
            key,
            format!("{name:?} is no encoder; supported are {}", known.join(", ")),
        )
    })?;
    let task = gguf_task(&gguf, &name);
    let vocabulary = match gguf.get("tokenizer.ggml.tokens") {
        Some(Value::Array(tokens)) => tokens.length,
        _ => 0,
    };
    let source = Source {
        format: Format::Gguf { file: gguf, architecture: name.clone() },
        tensors,
        integers: None,
        adapter: None,
    };
    if source.fields().flag("attention.causal", false)? {
        return Err(source.fields().unsupported("attention.causal", "an encoder that reads only backwards"));
    }
    let mut config = (family.config)(&source, task)?;
    if vocabulary > config.vocab_size {
        let problem = format!("has {vocabulary} entries for {} embeddings", config.vocab_size);
        return Err(LoadError::malformed(&path, "tokenizer.ggml.tokens", problem));
    }
    let pooling_key = || Origin::Given(format!("{name}.pooling_type"));
    let (pooling_origin, normalize_origin) = match task {
        Task::Rerank => (pooling_key(), Origin::Assumed(LOGITS)),
        _ => {
            config.head.normalize = true;
            let origin = match families::gguf_pooling(&source)? {
                Some(pooling) => {
                    config.head.pooling = vec![pooling];
                    pooling_key()
                }
                None => Origin::Assumed(GGUF_MEAN),
            };
            (origin, Origin::Assumed(GGUF_NORMALIZED))
        }
    };
    let settings = EncoderSettings {
        prompts: std::collections::BTreeMap::new(),
        default_prompt: None,
        lowercase: false,
        similarity: None,
        labels: gguf_labels(&source, &config),
        probabilities: None,
        pooling_origin,
        normalize_origin,
        max_length_origin: Origin::Given(format!("{name}.context_length")),
    };
    let class = family.embed.first().copied().unwrap_or(family.title).to_owned();
    Ok(Parts { source, family, class, config, settings, dense: Vec::new() })
}

fn gguf_labels(source: &Source, config: &EncoderConfig) -> Vec<String> {
    if config.task != Task::Rerank {
        return Vec::new();
    }
    let count = config.width().min(MAX_LABELS);
    let named = match &source.format {
        Format::Gguf { file, architecture } => {
            file.texts(&format!("{architecture}.classifier.output_labels")).ok().flatten()
        }
        Format::HuggingFace { .. } => None,
    };
    match named.filter(|names| names.len() == count) {
        Some(names) => names,
        None => (0..count).map(|index| format!("LABEL_{index}")).collect(),
    }
}
