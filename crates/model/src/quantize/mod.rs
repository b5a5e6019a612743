//! Fewer bits per weight: while a checkpoint is loaded, or once and for all into another file.

mod at_load;
mod atomic;
mod calibrate;
mod error;
mod families;
mod gguf_values;
mod gptq;
mod hugging_face;
mod sentencepiece;
mod tensors;
mod types;
mod vocabulary;
mod write_gguf;
mod write_safetensors;

use std::collections::BTreeMap;
use std::path::Path;

use byzerllm_kernels::{ComputePool, TensorType};
use serde::Serialize;

pub(crate) use at_load::encoded;
pub use at_load::{Quantization, QuantizationReport};
pub use calibrate::Importance;
pub use error::QuantizeError;
pub use types::{OutputFormat, OutputType};

use crate::checkpoint::Checkpoint;
use tensors::Planned;

/// How a checkpoint is written.
#[derive(Debug, Clone, Copy)]
pub struct QuantizeOptions<'a> {
    /// The format.
    pub format: OutputFormat,
    /// The type of its matrices.
    pub kind: OutputType,
    /// How much each column matters.
    pub importance: Option<&'a Importance>,
    /// Whether something that is there already is replaced.
    pub overwrite: bool,
    /// Whether weights of fewer than 8 bits may be quantized again.
    pub requantize: bool,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Bytes of the tensors in the checkpoint.
    pub bytes_before: u64,
    /// Bytes that were written.
    pub bytes_after: u64,
    /// Bits per weight of what was written.
    pub bits_per_weight: f64,
    /// Tensors by encoding.
    pub tensors: BTreeMap<String, usize>,
}

impl Summary {
    fn new(checkpoint: &Checkpoint, tensors: &[Planned], bytes_after: u64) -> Self {
        let weights: f64 = tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>() as f64).sum();
        let bytes: u64 = tensors.iter().map(Planned::bytes).sum();
        let mut kinds = BTreeMap::new();
        for tensor in tensors {
            *kinds.entry(tensor.kind.name().to_owned()).or_insert(0) += 1;
        }
        Self {
            bytes_before: checkpoint.tensors().iter().map(|tensor| tensor.bytes).sum(),
            bytes_after,
            bits_per_weight: bytes as f64 * 8.0 / weights.max(1.0),
            tensors: kinds,
        }
    }
}

impl Checkpoint {
    /// Writes the checkpoint in another format or with fewer bits. `progress` is told the share that is done, from 0 to
    /// 1. What is written appears whole or not at all.
    ///
    /// # Errors
    /// When the place is taken, the disk full, the checkpoint has values that are no numbers, or something that the
    /// format cannot express.
    pub fn quantize(
        &self,
        path: &Path,
        options: &QuantizeOptions<'_>,
        pool: &ComputePool,
        progress: &dyn Fn(f32),
    ) -> Result<Summary, QuantizeError> {
        let unsupported = |problem: String| Err(QuantizeError::unsupported(self.path(), problem));
        if !options.kind.fits(options.format) {
            let formats = |format| {
                OutputType::words()
                    .filter(move |word| word.parse().is_ok_and(|kind: OutputType| kind.fits(format)))
            };
            let words: Vec<&str> = formats(options.format).collect();
            return unsupported(format!(
                "{} is no type of this format: use {}",
                options.kind,
                words.join(", ")
            ));
        }
        if self.source().integers.is_some() || self.source().adapter.is_some() {
            let problem = "only checkpoints of floats and GGUF files are written in other formats, not those of GPTQ or AWQ \
                           and not adapters";
            return unsupported(problem.to_owned());
        }
        let floats = matches!(options.kind, OutputType::Tensor(kind) if kind.is_float());
        if !floats && !options.requantize {
            let narrow = |kind: &str| kind.starts_with('Q') && kind != TensorType::Q8_0.name();
            if let Some(tensor) = self.tensors().iter().find(|tensor| narrow(tensor.kind)) {
                return unsupported(format!(
                    "{} is {} already: start from floats or 8 bits, or accept the loss with --requantize",
                    tensor.name, tensor.kind
                ));
            }
        }
        let how = (options.overwrite, options.importance);
        match (options.format, options.kind) {
            (OutputFormat::Gguf, OutputType::Tensor(kind)) => {
                write_gguf::write(self, path, kind, how, pool, progress)
            }
            (_, kind) => write_safetensors::write(self, path, kind, how, pool, progress),
        }
    }
}
