//! Matrices of 4-bit and 8-bit codes as GPTQ (arXiv:2210.17323) and AWQ (arXiv:2306.00978) pack them into safetensors.
//!
//! A weight is `scale * (code - zero)`, where scale and zero belong to a group of input columns and one output row.
//! `P = 32 / bits` codes stand in an `i32`, the lowest bits first. The layouts are those that `AutoGPTQ`, `GPTQModel` and
//! `AutoAWQ` write:
//!
//! | layout | bits | `qweight` | `qzeros` | `scales` |
//! |---|---|---|---|---|
//! | GPTQ | 4, 8 | (K/P, N) | (G, N/P), version 1 less one | (G, N) |
//! | AWQ, `gemm` | 4 | (K, N/8), rows 0 2 4 6 1 3 5 7 | (G, N/8), the same order | (G, N) |
//!
//! with `N` output rows, `K` input columns and `G` groups. Codes and scales are kept as they are: where every zero is
//! in the middle, as [`TensorType::Q4_0`] and [`TensorType::Q8_0`], otherwise 4 bits as [`TensorType::Int4`]. 8 bits with
//! other zeros become floats.

use std::path::{Path, PathBuf};

use byzerllm_kernels::TensorType;
use serde_json::{Map, Value as Json};

use super::TensorStore;
use super::integer_matrix::{BLOCK, IntegerMatrix, Layout, Words};
use super::safetensors::read_json;
use crate::arch::fields::Fields;
use crate::load_error::{LoadError, LoadResult};

/// What a checkpoint says about its quantized matrices.
#[derive(Debug, Clone)]
pub(crate) struct IntegerFormat {
    layout: Layout,
    /// Bits of a code: 4 or 8.
    bits: u32,
    /// Columns per group; `None` when a row is one group.
    group: Option<usize>,
    /// The file that says so.
    path: PathBuf,
}

impl IntegerFormat {
    /// Reads `quantization_config` of `config.json`, or `quantize_config.json` and `quant_config.json`, which older
    /// packers write beside it.
    pub(crate) fn read(path: &Path, config: &Map<String, Json>) -> LoadResult<Option<Self>> {
        if let Some(fields) = Fields::json(path, config).object("quantization_config")? {
            return Self::from_fields(path, &fields, None).map(Some);
        }
        let directory = path.parent().unwrap_or(path);
        for (name, method) in [("quantize_config.json", "gptq"), ("quant_config.json", "awq")] {
            let path = directory.join(name);
            if path.is_file() {
                let Json::Object(values) = read_json(&path)? else {
                    return Err(LoadError::malformed(&path, "JSON", "must be an object"));
                };
                return Self::from_fields(&path, &Fields::json(&path, &values), Some(method)).map(Some);
            }
        }
        Ok(None)
    }

    fn from_fields(path: &Path, fields: &Fields<'_>, method: Option<&str>) -> LoadResult<Self> {
        let method = fields.text("quant_method")?.or(method).unwrap_or("absent").to_ascii_lowercase();
        let (bits_name, group_name) = match fields.has("w_bit") {
            true => ("w_bit", "q_group_size"),
            false => ("bits", "group_size"),
        };
        let layout = match method.as_str() {
            "gptq" => {
                let version = fields.text("checkpoint_format")?.unwrap_or("gptq");
                match version {
                    "gptq" => Layout::Gptq { zero_offset: 1 },
                    "gptq_v2" => Layout::Gptq { zero_offset: 0 },
                    other => {
                        let problem = format!("{other:?} is not supported; gptq and gptq_v2 are");
                        return Err(fields.unsupported("checkpoint_format", problem));
                    }
                }
            }
            "awq" => {
                let version = fields.text("version")?.unwrap_or("gemm").to_ascii_lowercase();
                if version != "gemm" {
                    let problem = format!("{version:?} is not supported; the layout gemm is");
                    return Err(fields.unsupported("version", problem));
                }
                Layout::Awq
            }
            other => {
                let problem = format!(
                    "{other:?} is not supported; gptq and awq are. A GGUF file of the model runs, and so do its \
                     unquantized weights with quantization at load"
                );
                return Err(fields.unsupported("quant_method", problem));
            }
        };
        let bits = fields.positive(bits_name)?;
        let bits = match (bits, layout) {
            (4, _) => 4,
            (8, Layout::Gptq { .. }) => 8,
            _ => {
                let known = if layout == Layout::Awq { "4" } else { "4 and 8" };
                let problem = format!("{bits} bits are not supported; {known} are");
                return Err(fields.unsupported(bits_name, problem));
            }
        };
        let group = match fields.float(group_name)? {
            // A row is one group.
            Some(size) if size < 0.0 => None,
            None => Some(128),
            Some(_) => Some(fields.positive(group_name)?),
        };
        Ok(Self { layout, bits, group, path: path.into() })
    }

    /// The method, as deployments declare it.
    pub(crate) fn method(&self) -> &'static str {
        match self.layout {
            Layout::Gptq { .. } => "gptq",
            Layout::Awq => "awq",
        }
    }

    /// The matrix of a module, `(rows, columns)`; `None` when the module is not quantized.
    pub(crate) fn matrix<'a>(
        &self,
        tensors: &'a TensorStore,
        module: &str,
        rows: usize,
        columns: usize,
    ) -> LoadResult<Option<IntegerMatrix<'a>>> {
        let name = format!("{module}.qweight");
        if !tensors.contains(&name) {
            return Ok(None);
        }
        let fields = |problem: String| LoadError::unsupported(&self.path, format!("tensor {name}"), problem);
        let per_word = 32 / self.bits as usize;
        if !rows.is_multiple_of(per_word) || !columns.is_multiple_of(per_word) {
            return Err(fields(format!(
                "a matrix of {rows} x {columns} is no whole number of words of {per_word} codes"
            )));
        }
        let group = self.group.unwrap_or(columns).min(columns);
        let groups = columns.div_ceil(group);
        let codes_shape = match self.layout {
            Layout::Gptq { .. } => [columns / per_word, rows],
            Layout::Awq => [columns, rows / per_word],
        };
        let codes = words(tensors, &name, &codes_shape)?;
        let zeros = words(tensors, &format!("{module}.qzeros"), &[groups, rows / per_word])?;
        let scales = tensors.require(&format!("{module}.scales"), &[groups, rows])?;
        if !scales.kind.is_float() {
            return Err(fields(format!("its scales are {}, not floats", scales.kind)));
        }
        let layout = self.layout;
        let mut matrix = IntegerMatrix {
            layout,
            bits: self.bits,
            shape: (rows, columns),
            range: (0, rows),
            group,
            codes,
            zeros,
            scales: (scales.kind, scales.data),
            order: None,
            kind: TensorType::F32,
        };
        let index = format!("{module}.g_idx");
        let whole_blocks = match matches!(layout, Layout::Gptq { .. }) && tensors.contains(&index) {
            true => matrix.set_order(&words(tensors, &index, &[columns])?, groups).ok_or_else(|| {
                LoadError::malformed(
                    &self.path,
                    format!("tensor {index}"),
                    format!("names a group beyond {groups}"),
                )
            })?,
            false => columns == group || group.is_multiple_of(BLOCK),
        };
        if whole_blocks && columns.is_multiple_of(BLOCK) {
            let middle = scales.kind == TensorType::F16 && matrix.zeros_in_the_middle();
            matrix.kind = match (self.bits, middle) {
                (4, true) => TensorType::Q4_0,
                (4, false) => TensorType::Int4,
                (_, true) => TensorType::Q8_0,
                (_, false) => TensorType::F32,
            };
        }
        Ok(Some(matrix))
    }
}

/// The 32-bit words of an integer tensor of this shape.
fn words<'a>(tensors: &'a TensorStore, name: &str, shape: &[usize]) -> LoadResult<Words<'a>> {
    let (dtype, data) = tensors.require_bytes(name, shape)?;
    if !matches!(dtype, "I32" | "U32") {
        let path = tensors.place_of(name).unwrap_or(Path::new(name));
        return Err(LoadError::unsupported(path, format!("tensor {name}"), format!("is {dtype}, not I32")));
    }
    Ok(Words(data))
}
