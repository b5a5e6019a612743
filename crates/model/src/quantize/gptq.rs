//! GPTQ's layout (that of AutoGPTQ, "v1"): symmetric codes of 4 or 8 bits, a scale per output and group of inputs.
//!
//! Codes are packed along the inputs into 32-bit words, zeros along the outputs; `g_idx` names the group of each input. The
//! codes are rounded with the best scale per group, not by GPTQ's own error feedback.

use std::path::Path;

use byzerllm_kernels::{TensorType, dequantize, symmetric_scale};
use half::f16;
use serde_json::{Value as Json, json};

use super::Summary;
use super::atomic::AtomicFile;
use super::error::QuantizeError;
use super::tensors::Planned;
use crate::weights::TensorStore;

/// How matrices are packed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gptq {
    bits: u32,
    group: usize,
}

/// Whether a tensor is packed: the matrices of layers are, tables and the head stay floats.
pub(super) fn is_packed(name: &str) -> bool {
    name.ends_with("_proj.weight")
}

impl Gptq {
    /// The largest group of 128, 64 and 32 that divides the inputs of every matrix.
    pub(super) fn new(path: &Path, bits: u32, tensors: &[Planned]) -> Result<Self, QuantizeError> {
        let packed = || tensors.iter().filter(|tensor| is_packed(&tensor.name));
        let fits = |group: usize| {
            packed().all(|tensor| {
                matches!(tensor.shape[..], [rows, columns] if columns.is_multiple_of(group) && rows.is_multiple_of(32))
            })
        };
        match [128, 64, 32].into_iter().find(|group| fits(*group)) {
            Some(group) if packed().next().is_some() => Ok(Self { bits, group }),
            _ => {
                let problem =
                    "has no matrices named *_proj whose sides are multiples of 32, which this layout needs";
                Err(QuantizeError::unsupported(path, problem))
            }
        }
    }

    fn per_word(&self) -> usize {
        32 / self.bits as usize
    }

    /// `quantization_config` of `config.json`.
    pub(super) fn config(&self) -> Json {
        json!({
            "quant_method": "gptq", "bits": self.bits, "group_size": self.group, "desc_act": false, "sym": true,
            "checkpoint_format": "gptq", "lm_head": false,
        })
    }

    /// Names, types, shapes and sizes of what a matrix is written as.
    pub(super) fn parts(&self, tensor: &Planned) -> Vec<(String, &'static str, Vec<usize>, u64)> {
        let (outputs, inputs) = (tensor.shape[0], tensor.shape[1]);
        let groups = inputs / self.group;
        let module = tensor.name.trim_end_matches(".weight");
        let part = |name: &str, dtype: &'static str, shape: Vec<usize>| {
            let size = if dtype == "F16" { 2 } else { 4 };
            let bytes = size * shape.iter().product::<usize>() as u64;
            (format!("{module}.{name}"), dtype, shape, bytes)
        };
        vec![
            part("qweight", "I32", vec![inputs / self.per_word(), outputs]),
            part("qzeros", "I32", vec![groups, outputs / self.per_word()]),
            part("scales", "F16", vec![groups, outputs]),
            part("g_idx", "I32", vec![inputs]),
        ]
    }

    /// Counts packed matrices as what they are.
    pub(super) fn count(&self, tensors: &[Planned], summary: &mut Summary) {
        let packed: Vec<&Planned> = tensors.iter().filter(|tensor| is_packed(&tensor.name)).collect();
        let floats: u64 = tensors.iter().filter(|tensor| !is_packed(&tensor.name)).map(Planned::bytes).sum();
        let bytes: u64 =
            packed.iter().flat_map(|tensor| self.parts(tensor)).map(|(.., bytes)| bytes).sum::<u64>()
                + floats;
        let weights: f64 = tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>() as f64).sum();
        summary.bits_per_weight = bytes as f64 * 8.0 / weights.max(1.0);
        if let Some(count) = summary.tensors.get_mut(TensorType::F16.name()) {
            *count -= packed.len();
        }
        summary.tensors.insert(format!("GPTQ {} bits, groups of {}", self.bits, self.group), packed.len());
    }

    /// Writes a matrix: its four parts in the order of [`Self::parts`].
    pub(super) fn write(
        &self,
        tensor: &Planned,
        tensors: &TensorStore,
        importance: Option<&[f32]>,
        file: &mut AtomicFile,
    ) -> Result<(), QuantizeError> {
        let (outputs, inputs) = (tensor.shape[0], tensor.shape[1]);
        let bits = self.bits as usize;
        let (groups, per_word) = (inputs / self.group, self.per_word());
        let source = tensors.require(&tensor.source, &tensor.shape)?;
        let failed = |source_error| QuantizeError::Tensor {
            path: tensors.file(source.entry).path().into(),
            tensor: tensor.source.clone(),
            source: source_error,
        };
        let order: Option<Vec<usize>> = tensor.rows.order(&tensor.shape).map(Iterator::collect);
        let row_bytes = source.data.len() / outputs;
        let middle = 1_i32 << (self.bits - 1);
        let mut words = vec![0_u32; inputs / per_word * outputs];
        let mut scales = vec![f16::ZERO; groups * outputs];
        let mut values = vec![0.0; inputs];
        for output in 0..outputs {
            let from = order.as_ref().map_or(output, |order| order[output]);
            dequantize(source.kind, &source.data[from * row_bytes..(from + 1) * row_bytes], &mut values)
                .map_err(failed)?;
            for (group, values) in values.chunks_exact(self.group).enumerate() {
                let start = group * self.group;
                let importance = importance.and_then(|importance| importance.get(start..start + self.group));
                let scale = symmetric_scale(values, importance, middle as f32).map_err(failed)?;
                scales[group * outputs + output] = scale;
                let inverse = 1.0 / scale.to_f32();
                let inverse = if inverse.is_finite() { inverse } else { 0.0 };
                for (index, value) in values.iter().enumerate() {
                    let code = ((value * inverse).round() as i32).clamp(-middle, middle - 1) + middle;
                    let input = start + index;
                    words[input / per_word * outputs + output] |=
                        (code as u32) << (bits * (input % per_word));
                }
            }
        }
        // This layout keeps zeros less one.
        let zero = (0..per_word).fold(0_u32, |word, place| word | ((middle - 1) as u32) << (bits * place));
        file.write(&words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>())?;
        file.write(&zero.to_le_bytes().repeat(groups * outputs / per_word))?;
        file.write(&scales.iter().flat_map(|scale| scale.to_le_bytes()).collect::<Vec<u8>>())?;
        let index = (0..inputs).flat_map(|input| ((input / self.group) as u32).to_le_bytes());
        file.write(&index.collect::<Vec<u8>>())
    }
}
