//! What an architecture file reads from: the configuration's fields and the tensors, whatever the format.

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use byzerllm_kernels::{TensorType, dequantize};
use serde_json::{Map, Value as Json};

use super::fields::Fields;
use crate::adapter::AdapterFile;
use crate::decoder_weights::{LinearWeights, LookupTable, LowRank, MatrixPart, NormWeights, SharedBytes};
use crate::load_error::{LoadError, LoadResult};
use crate::weights::gguf::GgufFile;
use crate::weights::integers::IntegerFormat;
use crate::weights::{TensorRef, TensorStore};

/// A checkpoint's configuration and tensors.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) format: Format,
    pub(crate) tensors: TensorStore,
    /// How matrices of 4-bit codes lie in the files, where there are some.
    pub(crate) integers: Option<IntegerFormat>,
    /// What is added to the matrices once they are known.
    pub(crate) adapter: Option<AdapterFile>,
}

/// Where the configuration comes from.
#[derive(Debug)]
pub(crate) enum Format {
    /// `config.json`.
    HuggingFace {
        /// The file.
        path: PathBuf,
        /// Its contents.
        config: Map<String, Json>,
    },
    /// The metadata of a GGUF file.
    Gguf {
        /// The file.
        file: GgufFile,
        /// `general.architecture`.
        architecture: String,
    },
}

impl Source {
    /// The configuration's fields.
    pub(crate) fn fields(&self) -> Fields<'_> {
        match &self.format {
            Format::HuggingFace { path, config } => Fields::json(path, config),
            Format::Gguf { file, architecture } => Fields::gguf(file, architecture),
        }
    }

    /// Whether names and layouts are those of GGUF.
    pub(crate) fn is_gguf(&self) -> bool {
        matches!(self.format, Format::Gguf { .. })
    }

    /// The file that the configuration is in.
    pub(crate) fn config_path(&self) -> &Path {
        match &self.format {
            Format::HuggingFace { path, .. } => path,
            Format::Gguf { file, .. } => file.path(),
        }
    }

    /// The directory of the configuration.
    pub(crate) fn directory(&self) -> &Path {
        self.config_path().parent().unwrap_or(self.config_path())
    }

    /// Values as f32.
    pub(crate) fn vector(&self, name: &str, length: usize) -> LoadResult<Vec<f32>> {
        let tensor = self.tensors.require(name, &[length])?;
        self.decode(&tensor)
    }

    /// All values of a small tensor as f32.
    pub(crate) fn decode(&self, tensor: &TensorRef<'_>) -> LoadResult<Vec<f32>> {
        let mut values = vec![0.0; tensor.shape.iter().product()];
        dequantize(tensor.kind, tensor.data, &mut values).map_err(|error| {
            let field = format!("tensor {}", tensor.entry.name);
            LoadError::malformed(self.tensors.file(tensor.entry).path(), field, error.to_string())
        })?;
        Ok(values)
    }

    /// A whole matrix.
    pub(crate) fn matrix(&self, name: &str, rows: usize, columns: usize) -> LoadResult<MatrixPart<'_>> {
        let module = name.strip_suffix(".weight").unwrap_or(name);
        let integers = match &self.integers {
            Some(format) => format.matrix(&self.tensors, module, rows, columns)?,
            None => None,
        };
        let (kind, data) = match &integers {
            Some(integers) => (integers.kind(), &[][..]),
            None => {
                let tensor = self.tensors.require(name, &[rows, columns])?;
                (tensor.kind, tensor.data)
            }
        };
        let data = Cow::Borrowed(data);
        Ok(MatrixPart { integers, ..MatrixPart::new(kind, rows, columns, data) })
    }

    /// The matrices `(rows, columns)` of a tensor that holds `count` of them.
    pub(crate) fn stack(
        &self,
        name: &str,
        count: usize,
        rows: usize,
        columns: usize,
    ) -> LoadResult<Vec<MatrixPart<'_>>> {
        let tensor = self.tensors.require(name, &[count, rows, columns])?;
        let each = tensor.data.len() / count;
        let part = |data| MatrixPart::new(tensor.kind, rows, columns, Cow::Borrowed(data));
        Ok(tensor.data.chunks_exact(each).map(part).collect())
    }

    /// Matrices stacked, as `(weight, rows)`, with all their biases or none.
    pub(crate) fn linear(
        &self,
        names: &[(&str, usize)],
        columns: usize,
        bias: bool,
    ) -> LoadResult<LinearWeights<'_>> {
        let mut parts = Vec::with_capacity(names.len());
        let mut values = Vec::new();
        for &(name, rows) in names {
            parts.push(self.matrix(&format!("{name}.weight"), rows, columns)?);
            if bias {
                values.extend(self.vector(&format!("{name}.bias"), rows)?);
            }
        }
        Ok(LinearWeights { parts, bias: bias.then_some(values) })
    }

    /// Like [`Self::linear`] for matrices of floats that the file holds as `(columns, rows)`.
    pub(crate) fn transposed(
        &self,
        names: &[(&str, usize)],
        columns: usize,
        bias: bool,
    ) -> LoadResult<LinearWeights<'_>> {
        let mut parts = Vec::with_capacity(names.len());
        let mut values = Vec::new();
        for &(name, rows) in names {
            let tensor = self.tensors.require(&format!("{name}.weight"), &[columns, rows])?;
            if !matches!(tensor.kind, TensorType::F32 | TensorType::F16 | TensorType::BF16) {
                return Err(LoadError::unsupported(
                    self.tensors.file(tensor.entry).path(),
                    format!("tensor {name}.weight"),
                    format!("type {} cannot be stored transposed", tensor.kind.name()),
                ));
            }
            let part = MatrixPart::new(tensor.kind, rows, columns, Cow::Borrowed(tensor.data));
            parts.push(MatrixPart { transposed: true, ..part });
            if bias {
                values.extend(self.vector(&format!("{name}.bias"), rows)?);
            }
        }
        Ok(LinearWeights { parts, bias: bias.then_some(values) })
    }

    /// A matrix whose rows interleave queries, keys and values in groups, taken apart without a copy: all queries,
    /// then all keys, then all values. Each of the `groups` has `queries` heads of queries, one of keys, one of
    /// values, each of `head_dim` rows.
    pub(crate) fn fused_qkv(
        &self,
        name: &str,
        layout: &FusedQkv,
        bias: bool,
    ) -> LoadResult<LinearWeights<'_>> {
        let FusedQkv { groups, queries, head_dim, columns } = *layout;
        let rows = groups * (queries + 2) * head_dim;
        let mut ranges = Vec::with_capacity(3 * groups);
        for (first, heads) in [(0, queries), (queries, 1), (queries + 1, 1)] {
            for group in 0..groups {
                let start = (group * (queries + 2) + first) * head_dim;
                ranges.push(start..start + heads * head_dim);
            }
        }
        self.row_ranges(name, (rows, columns), &ranges, bias)
    }

    /// Rows of one fused matrix in another order, taken apart without a copy: the `ranges` of its `(rows, columns)`
    /// stacked as given, with their part of the bias and of an adapter.
    pub(crate) fn row_ranges(
        &self,
        name: &str,
        (rows, columns): (usize, usize),
        ranges: &[Range<usize>],
        bias: bool,
    ) -> LoadResult<LinearWeights<'_>> {
        let whole = self.matrix(&format!("{name}.weight"), rows, columns)?;
        let all = if bias { Some(self.vector(&format!("{name}.bias"), rows)?) } else { None };
        let mut parts = Vec::with_capacity(ranges.len());
        let mut values = Vec::with_capacity(if bias { rows } else { 0 });
        for range in ranges {
            let low_rank = whole.low_rank.as_ref().map(|adapter| LowRank {
                up: (adapter.up.0, rows_of(&adapter.up.1, rows, range)),
                ..adapter.clone()
            });
            let data = rows_of(&whole.data, rows, range);
            let integers = whole.integers.as_ref().map(|matrix| matrix.select(range.start, range.len()));
            let (kind, rows) = (whole.kind, range.len());
            parts.push(MatrixPart { integers, low_rank, ..MatrixPart::new(kind, rows, columns, data) });
            if let Some(all) = &all {
                values.extend_from_slice(&all[range.clone()]);
            }
        }
        Ok(LinearWeights { parts, bias: all.map(|_| values) })
    }

    /// A normalization layer.
    pub(crate) fn norm(&self, name: &str, width: usize, bias: bool) -> LoadResult<NormWeights> {
        let weight = self.vector(&format!("{name}.weight"), width)?;
        let bias = if bias { Some(self.vector(&format!("{name}.bias"), width)?) } else { None };
        Ok(NormWeights { weight, bias })
    }

    /// A table that stays mapped.
    pub(crate) fn table(&self, name: &str, rows: usize, columns: usize) -> LoadResult<LookupTable> {
        let tensor = self.tensors.require(name, &[rows, columns])?;
        let file = self.tensors.file(tensor.entry);
        let data =
            SharedBytes::new(Arc::<crate::weights::MappedFile>::clone(file), tensor.entry.range.clone())
                .ok_or_else(|| {
                    LoadError::malformed(file.path(), format!("tensor {name}"), "is outside of the file")
                })?;
        Ok(LookupTable { kind: tensor.kind, rows, columns, data })
    }
}

/// The bytes of some of a matrix's rows.
fn rows_of<'a>(data: &Cow<'a, [u8]>, rows: usize, range: &Range<usize>) -> Cow<'a, [u8]> {
    let bytes = data.len() / rows;
    let range = range.start * bytes..range.end * bytes;
    match data {
        Cow::Borrowed(data) => Cow::Borrowed(&data[range]),
        Cow::Owned(data) => Cow::Owned(data[range].to_vec()),
    }
}

/// The layout of a fused matrix of queries, keys and values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FusedQkv {
    pub(crate) groups: usize,
    /// Query heads per group.
    pub(crate) queries: usize,
    pub(crate) head_dim: usize,
    pub(crate) columns: usize,
}
