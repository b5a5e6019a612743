//! BERT in an ONNX file turned into a Hugging Face directory of 32-bit floats.
//!
//! Files whose weights are 8-bit integers are read as their quantizers wrote them: `(code - zero) * scale`. The result
//! computes what the file computes, less the rounding of activations that ONNX Runtime adds.

mod config;
mod constants;
mod graph;
mod weights;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};

use self::graph::Graph;
use self::weights::{Weights, values};
use super::sentence::object;
use super::{EncoderCheckpoint, Pooling, Task};
use crate::load_error::{LoadError, LoadResult};
use crate::weights::MappedFile;

const MODEL: &str = "model.onnx";
const CONFIG: &str = "config.json";
/// Files that are taken over as they are.
const COPIED: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "special_tokens_map.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "modules.json",
    "1_Pooling/config.json",
];

/// What a graph does not say.
#[derive(Debug, Clone, Default)]
pub struct OnnxOptions {
    /// Attention heads, when neither `config.json` nor the graph shows them.
    pub heads: Option<usize>,
    /// Writes the files of sentence-transformers for this pooling, with vectors of unit length.
    pub pooling: Option<Pooling>,
    /// Where the tokenizer's files are, when not beside the graph.
    pub tokenizer: Option<PathBuf>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnnxReport {
    /// What the model is for.
    pub task: Task,
    /// Tensors.
    pub tensors: usize,
    /// How many of them were stored as integers.
    pub quantized: usize,
    /// Bytes of weights.
    pub bytes: u64,
    /// Files that were taken over.
    pub copied: Vec<String>,
}

/// Converts `input`, a directory with `model.onnx` or an ONNX file, into the new directory `output`.
///
/// # Errors
/// [`LoadError`] when a file cannot be read or written, the graph is no BERT, or `output` exists.
pub fn convert_onnx_bert(
    input: &Path,
    output: &Path,
    options: &OnnxOptions,
) -> Result<OnnxReport, LoadError> {
    let (directory, model) = match input.is_dir() {
        true => (input, input.join(MODEL)),
        false => (input.parent().unwrap_or(input), input.to_owned()),
    };
    if output.exists() {
        let exists =
            std::io::Error::new(std::io::ErrorKind::AlreadyExists, "it exists; name a new directory");
        return Err(LoadError::write(output, exists));
    }
    let name = output.file_name().ok_or_else(|| {
        LoadError::write(output, std::io::Error::new(std::io::ErrorKind::InvalidInput, "it has no name"))
    })?;
    let file = MappedFile::open(&model)?;
    // Written aside, so that a directory of this name is always whole.
    let partial =
        output.with_file_name(format!(".{}.partial-{}", name.to_string_lossy(), std::process::id()));
    fs::create_dir_all(&partial).map_err(|source| LoadError::write(&partial, source))?;
    let outcome = write(directory, &file, &partial, options).and_then(|report| {
        fs::rename(&partial, output).map_err(|source| LoadError::write(output, source))?;
        Ok(report)
    });
    if outcome.is_err() {
        // The reason to report is the first one.
        let _ = fs::remove_dir_all(&partial);
    }
    outcome
}

fn write(
    directory: &Path,
    file: &MappedFile,
    output: &Path,
    options: &OnnxOptions,
) -> LoadResult<OnnxReport> {
    let wrong = |problem: String| LoadError::malformed(file.path(), "graph", problem);
    let graph = Graph::read(file.bytes()).map_err(wrong)?;
    let weights = Weights::find(&graph).map_err(wrong)?;
    let mut shapes = BTreeMap::new();
    for (name, place) in &weights.places {
        shapes.insert(name.clone(), values(&graph, *place).map_err(wrong)?.shape);
    }
    let given = object(&directory.join(CONFIG))?.unwrap_or_default();
    let config = config::config(&graph, &shapes, given, options.heads).map_err(wrong)?;
    json_file(&output.join(CONFIG), &Json::Object(config))?;
    let bytes = safetensors(&output.join("model.safetensors"), &shapes, |name| {
        let place = weights.places.get(name).ok_or_else(|| wrong(format!("has no weight {name:?}")))?;
        Ok(values(&graph, *place).map_err(wrong)?.data)
    })?;
    let mut copied = Vec::new();
    for name in COPIED {
        let from = [Some(directory), options.tokenizer.as_deref()];
        let Some(from) = from.into_iter().flatten().map(|place| place.join(name)).find(|path| path.is_file())
        else {
            continue;
        };
        copy(&from, &output.join(name))?;
        copied.push(name.to_owned());
    }
    if let Some(pooling) = options.pooling {
        let hidden = shapes.iter().find(|(name, _)| name.ends_with("word_embeddings.weight"));
        let width = hidden.and_then(|(_, shape)| shape.get(1).copied()).unwrap_or_default();
        write_modules(output, pooling, width)?;
    }
    // Opening checks every name and shape.
    let checkpoint = EncoderCheckpoint::open(output)?;
    checkpoint.tokenizer()?;
    let task = checkpoint.config().task;
    Ok(OnnxReport { task, tensors: shapes.len(), quantized: weights.quantized, bytes, copied })
}

fn copy(from: &Path, to: &Path) -> LoadResult<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(|source| LoadError::write(parent, source))?;
    }
    let bytes = crate::weights::safetensors::read_bounded(from)?;
    fs::write(to, bytes).map_err(|source| LoadError::write(to, source))
}

fn json_file(path: &Path, value: &Json) -> LoadResult<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|source| LoadError::write(parent, source))?;
    }
    fs::write(path, format!("{value:#}\n")).map_err(|source| LoadError::write(path, source))
}

fn write_modules(output: &Path, pooling: Pooling, width: usize) -> LoadResult<()> {
    let module = |index: usize, path: &str, class: &str| {
        json!({
            "idx": index,
            "name": index.to_string(),
            "path": path,
            "type": format!("sentence_transformers.models.{class}"),
        })
    };
    let modules = json!([
        module(0, "", "Transformer"),
        module(1, "1_Pooling", "Pooling"),
        module(2, "2_Normalize", "Normalize"),
    ]);
    json_file(&output.join("modules.json"), &modules)?;
    let config = json!({
        "word_embedding_dimension": width,
        "pooling_mode_cls_token": pooling == Pooling::Cls,
        "pooling_mode_mean_tokens": pooling == Pooling::Mean,
        "pooling_mode_max_tokens": pooling == Pooling::Max,
        "pooling_mode_mean_sqrt_len_tokens": pooling == Pooling::MeanSqrtLength,
        "pooling_mode_lasttoken": pooling == Pooling::LastToken,
    });
    json_file(&output.join("1_Pooling/config.json"), &config)
}

/// Writes 32-bit floats in the order of their names; returns the bytes of values.
fn safetensors(
    path: &Path,
    shapes: &BTreeMap<String, Vec<usize>>,
    values: impl Fn(&str) -> LoadResult<Vec<f32>>,
) -> LoadResult<u64> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut end = 0_u64;
    for (name, shape) in shapes {
        let start = end;
        end += 4 * shape.iter().product::<usize>() as u64;
        header.insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}));
    }
    let mut header = Json::Object(header).to_string();
    // Values begin at a multiple of 8 bytes.
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    let failed = |source| LoadError::write(path, source);
    let mut file = BufWriter::new(File::create(path).map_err(failed)?);
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
    file.write_all(header.as_bytes()).map_err(failed)?;
    for name in shapes.keys() {
        for value in values(name)? {
            file.write_all(&value.to_le_bytes()).map_err(failed)?;
        }
    }
    file.flush().map_err(failed)?;
    Ok(end)
}
