//! Matrices of 4-bit codes as GPTQ (arXiv:2210.17323) and AWQ (arXiv:2306.00978) pack them into safetensors.
//!
//! A weight is `scale * (code - zero)`, where scale and zero belong to a group of input columns and one output row.
//! Eight codes stand in an `i32`, the lowest bits first. The layouts are those that `AutoGPTQ`, `GPTQModel` and
//! `AutoAWQ` write:
//!
//! | layout | `qweight` | `qzeros` | `scales` |
//! |---|---|---|---|
//! | GPTQ | (K/8, N) | (G, N/8), version 1 less one | (G, N) |
//! | AWQ, `gemm` | (K, N/8), rows 0 2 4 6 1 3 5 7 | (G, N/8), the same order | (G, N) |
//!
//! with `N` output rows, `K` input columns and `G` groups. Codes and scales are kept as they are: where every zero is
//! in the middle, as [`TensorType::Q4_0`], otherwise as [`TensorType::Int4`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use byzerllm_kernels::{TensorType, dequantize};
use serde_json::{Map, Value as Json};

use super::TensorStore;
use super::safetensors::read_json;
use crate::arch::fields::Fields;
use crate::load_error::{LoadError, LoadResult};

/// The code that stands for zero in [`TensorType::Q4_0`].
const MIDDLE: u8 = 8;
/// Columns of a block of either encoding.
const BLOCK: usize = 32;
/// Codes in one word.
const PER_WORD: usize = 8;
/// Where the code of each of eight neighbouring rows stands in a word of AWQ.
const AWQ_PLACES: [usize; PER_WORD] = [0, 4, 1, 5, 2, 6, 3, 7];

/// Who packed the codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Zeros are stored less this number.
    Gptq {
        zero_offset: u8,
    },
    Awq,
}

/// What a checkpoint says about its quantized matrices.
#[derive(Debug, Clone)]
pub(crate) struct IntegerFormat {
    layout: Layout,
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
        if bits != 4 {
            let problem = format!("{bits} bits are not supported; 4 are");
            return Err(fields.unsupported(bits_name, problem));
        }
        let group = match fields.float(group_name)? {
            // A row is one group.
            Some(size) if size < 0.0 => None,
            None => Some(128),
            Some(_) => Some(fields.positive(group_name)?),
        };
        Ok(Self { layout, group, path: path.into() })
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
        if !rows.is_multiple_of(PER_WORD) || !columns.is_multiple_of(PER_WORD) {
            return Err(fields(format!(
                "a matrix of {rows} x {columns} is no whole number of words of 8 codes"
            )));
        }
        let group = self.group.unwrap_or(columns).min(columns);
        let groups = columns.div_ceil(group);
        let codes_shape = match self.layout {
            Layout::Gptq { .. } => [columns / PER_WORD, rows],
            Layout::Awq => [columns, rows / PER_WORD],
        };
        let codes = words(tensors, &name, &codes_shape)?;
        let zeros = words(tensors, &format!("{module}.qzeros"), &[groups, rows / PER_WORD])?;
        let scales = tensors.require(&format!("{module}.scales"), &[groups, rows])?;
        if !scales.kind.is_float() {
            return Err(fields(format!("its scales are {}, not floats", scales.kind)));
        }
        let layout = self.layout;
        let mut matrix = IntegerMatrix {
            layout,
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
            matrix.kind = if middle { TensorType::Q4_0 } else { TensorType::Int4 };
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

/// Little-endian 32-bit words without alignment.
#[derive(Debug, Clone, Copy)]
struct Words<'a>(&'a [u8]);

impl Words<'_> {
    fn get(self, index: usize) -> u32 {
        let bytes = &self.0[4 * index..4 * index + 4];
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    fn len(self) -> usize {
        self.0.len() / 4
    }
}

/// A matrix of 4-bit codes, or some of its rows, still as the file has it.
#[derive(Debug, Clone)]
pub struct IntegerMatrix<'a> {
    layout: Layout,
    /// Rows and columns of the whole matrix.
    shape: (usize, usize),
    /// The first of the chosen rows, and their number.
    range: (usize, usize),
    /// Columns per group.
    group: usize,
    codes: Words<'a>,
    zeros: Words<'a>,
    scales: (TensorType, &'a [u8]),
    /// For each place the column that stands there once columns of one group are neighbours, and the group of each
    /// column; `None` when they are neighbours already.
    order: Option<Arc<Order>>,
    kind: TensorType,
}

#[derive(Debug, PartialEq, Eq)]
struct Order {
    columns: Arc<[u32]>,
    groups: Vec<u32>,
}

impl<'a> IntegerMatrix<'a> {
    /// The encoding of [`Self::encode`].
    #[must_use]
    pub fn kind(&self) -> TensorType {
        self.kind
    }

    /// The order of the columns in [`Self::encode`], when it is not that of the matrix: products gather their input
    /// by it. GPTQ with activation order has it.
    #[must_use]
    pub fn order(&self) -> Option<&Arc<[u32]>> {
        self.order.as_ref().filter(|_| self.kind != TensorType::F32).map(|order| &order.columns)
    }

    /// Some of its rows; `first + count` is at most the number of rows.
    #[must_use]
    pub fn select(&self, first: usize, count: usize) -> Self {
        Self { range: (self.range.0 + first, count), ..self.clone() }
    }

    /// Brings columns of one group together. Whether each group then has whole blocks; `None` when a number of a
    /// group is out of range.
    fn set_order(&mut self, index: &Words<'a>, groups: usize) -> Option<bool> {
        let (_, columns) = self.shape;
        let of: Vec<u32> = (0..columns).map(|column| index.get(column)).collect();
        let mut counts = vec![0_usize; groups];
        for &group in &of {
            *counts.get_mut(group as usize)? += 1;
        }
        if of.iter().enumerate().all(|(column, &group)| column / self.group == group as usize) {
            return Some(columns == self.group || self.group.is_multiple_of(BLOCK));
        }
        let mut order: Vec<u32> = (0..columns as u32).collect();
        order.sort_by_key(|&column| of[column as usize]);
        self.order = Some(Arc::new(Order { columns: order.into(), groups: of }));
        Some(counts.iter().all(|count| count.is_multiple_of(BLOCK)))
    }

    fn zeros_in_the_middle(&self) -> bool {
        let stored = match self.layout {
            Layout::Gptq { zero_offset } => MIDDLE - zero_offset,
            Layout::Awq => MIDDLE,
        };
        let word = (0..PER_WORD).fold(0, |word, place| word | u32::from(stored) << (4 * place));
        (0..self.zeros.len()).all(|index| self.zeros.get(index) == word)
    }

    fn code(&self, row: usize, column: usize) -> u8 {
        let (rows, _) = self.shape;
        let word = match self.layout {
            Layout::Gptq { .. } => {
                self.codes.get(column / PER_WORD * rows + row) >> (4 * (column % PER_WORD))
            }
            Layout::Awq => {
                let word = self.codes.get(column * (rows / PER_WORD) + row / PER_WORD);
                word >> (4 * AWQ_PLACES[row % PER_WORD])
            }
        };
        (word & 15) as u8
    }

    fn zero(&self, row: usize, group: usize) -> u8 {
        let word = self.zeros.get(group * (self.shape.0 / PER_WORD) + row / PER_WORD);
        match self.layout {
            Layout::Gptq { zero_offset } => {
                ((word >> (4 * (row % PER_WORD))) as u8 & 15).wrapping_add(zero_offset) & 15
            }
            Layout::Awq => (word >> (4 * AWQ_PLACES[row % PER_WORD])) as u8 & 15,
        }
    }

    fn scale(&self, row: usize, group: usize) -> f32 {
        let (kind, bytes) = self.scales;
        let width = kind.block_bytes();
        let at = (group * self.shape.0 + row) * width;
        let mut value = [0.0];
        // One value of a float type always fits.
        let _ = dequantize(kind, &bytes[at..at + width], &mut value);
        value[0]
    }

    fn group_of(&self, column: usize) -> usize {
        match &self.order {
            Some(order) => order.groups[column] as usize,
            None => column / self.group,
        }
    }

    /// The chosen rows in the encoding [`Self::kind`], columns in the order [`Self::order`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.encode_as(self.kind)
    }

    /// The chosen rows as f32, columns in the matrix's own order.
    #[must_use]
    pub fn values(&self) -> Vec<u8> {
        self.encode_as(TensorType::F32)
    }

    fn encode_as(&self, kind: TensorType) -> Vec<u8> {
        let (first, count) = self.range;
        // The columns are a whole number of blocks of any kind that is chosen.
        let row_bytes = kind.row_bytes(self.shape.1).unwrap_or(0);
        let mut bytes = vec![0; count * row_bytes];
        // Words hold eight rows or eight columns, and neighbours of them share cache lines.
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let rows_each = count.div_ceil(4 * threads).next_multiple_of(2 * PER_WORD);
        let mut chunks = bytes.chunks_mut((rows_each * row_bytes).max(1)).enumerate().collect::<Vec<_>>();
        let queue = std::sync::Mutex::new(&mut chunks);
        let next = || queue.lock().ok().and_then(|mut chunks| chunks.pop());
        std::thread::scope(|scope| {
            for _ in 0..threads.min(count.div_ceil(rows_each.max(1))) {
                scope.spawn(|| {
                    while let Some((chunk, bytes)) = next() {
                        self.encode_rows(kind, first + chunk * rows_each, row_bytes, bytes);
                    }
                });
            }
        });
        bytes
    }

    fn encode_rows(&self, kind: TensorType, first: usize, row_bytes: usize, bytes: &mut [u8]) {
        let count = bytes.len() / row_bytes;
        let block_bytes = kind.block_bytes();
        if kind == TensorType::F32 {
            for column in 0..self.shape.1 {
                let group = self.group_of(column);
                for row in 0..count {
                    let code = f32::from(self.code(first + row, column));
                    let zero = f32::from(self.zero(first + row, group));
                    let value = self.scale(first + row, group) * (code - zero);
                    bytes[row * row_bytes + 4 * column..][..4].copy_from_slice(&value.to_le_bytes());
                }
            }
            return;
        }
        let mut columns = [0_usize; BLOCK];
        for block in 0..self.shape.1 / BLOCK {
            for (place, column) in columns.iter_mut().enumerate() {
                let place = block * BLOCK + place;
                *column = self.order.as_ref().map_or(place, |order| order.columns[place] as usize);
            }
            let group = self.group_of(columns[0]);
            for row in 0..count {
                let to = &mut bytes[row * row_bytes + block * block_bytes..][..block_bytes];
                let (front, codes) = to.split_at_mut(block_bytes - BLOCK / 2);
                let scale = self.scale(first + row, group);
                if kind == TensorType::Q4_0 {
                    front.copy_from_slice(&half::f16::from_f32(scale).to_le_bytes());
                } else {
                    let minimum = -scale * f32::from(self.zero(first + row, group));
                    front[..4].copy_from_slice(&scale.to_le_bytes());
                    front[4..].copy_from_slice(&minimum.to_le_bytes());
                }
                for (place, code) in codes.iter_mut().enumerate() {
                    let low = self.code(first + row, columns[place]);
                    let high = self.code(first + row, columns[place + BLOCK / 2]);
                    *code = low | high << 4;
                }
            }
        }
    }
}
