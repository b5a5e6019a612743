//! GGUF files, versions 2 and 3, little endian: metadata and tensor directory over the memory map.
//!
//! Everything is checked while reading: counts against the bytes that are left, array nesting, alignment, shapes,
//! sizes and places of tensors, names that appear twice. Long arrays stay in the mapping until they are asked for.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use byzerllm_kernels::TensorType;

use super::reader::Reader;
use super::{Encoding, MappedFile, TensorEntry};
use crate::load_error::{LoadError, LoadResult};
use crate::tokenizer::GgufVocabulary;

const MAGIC: &[u8] = b"GGUF";
const DEFAULT_ALIGNMENT: usize = 32;
const MAX_NAME_BYTES: usize = 65_535;
const MAX_DIMENSIONS: u32 = 4;
const MAX_ARRAY_DEPTH: usize = 4;
/// A rendered text longer than this is cut.
const SHOWN_CHARACTERS: usize = 80;
/// Name, type and the shortest value.
const LEAST_PAIR_BYTES: usize = 8 + 4 + 1;
/// Name, dimension count, one dimension, type and offset.
const LEAST_TENSOR_BYTES: usize = 8 + 4 + 8 + 4 + 8;

/// A metadata value; texts and arrays are places in the file.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(Range<usize>),
    Array(Array),
}

/// A checked array: `length` elements of type `element` in `range`.
#[derive(Debug, Clone)]
pub(crate) struct Array {
    element: u32,
    pub(crate) length: usize,
    range: Range<usize>,
}

/// An opened file.
#[derive(Debug)]
pub(crate) struct GgufFile {
    file: Arc<MappedFile>,
    version: u32,
    keys: Keys,
    values: HashMap<String, Value>,
}

mod kind {
    pub(super) const U8: u32 = 0;
    pub(super) const I8: u32 = 1;
    pub(super) const U16: u32 = 2;
    pub(super) const I16: u32 = 3;
    pub(super) const U32: u32 = 4;
    pub(super) const I32: u32 = 5;
    pub(super) const F32: u32 = 6;
    pub(super) const BOOL: u32 = 7;
    pub(super) const TEXT: u32 = 8;
    pub(super) const ARRAY: u32 = 9;
    pub(super) const U64: u32 = 10;
    pub(super) const I64: u32 = 11;
    pub(super) const F64: u32 = 12;
}

/// Bytes of a value of fixed size.
fn fixed_bytes(element: u32) -> Option<usize> {
    Some(match element {
        kind::U8 | kind::I8 | kind::BOOL => 1,
        kind::U16 | kind::I16 => 2,
        kind::U32 | kind::I32 | kind::F32 => 4,
        kind::U64 | kind::I64 | kind::F64 => 8,
        _ => return None,
    })
}

/// A value of fixed size from exactly its bytes.
fn fixed_value(element: u32, bytes: &[u8]) -> Option<Value> {
    Some(match (element, bytes) {
        (kind::U8, &[value]) => Value::Unsigned(value.into()),
        (kind::I8, &[value]) => Value::Signed(i8::from_le_bytes([value]).into()),
        (kind::BOOL, &[value]) => Value::Bool(value != 0),
        (kind::U16, _) => Value::Unsigned(u16::from_le_bytes(bytes.try_into().ok()?).into()),
        (kind::I16, _) => Value::Signed(i16::from_le_bytes(bytes.try_into().ok()?).into()),
        (kind::U32, _) => Value::Unsigned(u32::from_le_bytes(bytes.try_into().ok()?).into()),
        (kind::I32, _) => Value::Signed(i32::from_le_bytes(bytes.try_into().ok()?).into()),
        (kind::F32, _) => Value::Float(f32::from_le_bytes(bytes.try_into().ok()?).into()),
        (kind::U64, _) => Value::Unsigned(u64::from_le_bytes(bytes.try_into().ok()?)),
        (kind::I64, _) => Value::Signed(i64::from_le_bytes(bytes.try_into().ok()?)),
        (kind::F64, _) => Value::Float(f64::from_le_bytes(bytes.try_into().ok()?)),
        _ => return None,
    })
}

/// The name of a tensor type that we do not compute with.
fn foreign_type(id: u32) -> &'static str {
    match id {
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => "unknown",
    }
}

/// A name or text as an error or a listing may show it.
fn shown(text: &str) -> String {
    let mut shown: String = text.escape_debug().take(SHOWN_CHARACTERS).collect();
    if text.escape_debug().nth(SHOWN_CHARACTERS).is_some() {
        shown.push('…');
    }
    shown
}

impl GgufFile {
    /// Whether a file begins like one of these.
    pub(crate) fn recognizes(file: &MappedFile) -> bool {
        file.bytes().starts_with(MAGIC)
    }

    /// Reads and checks the header.
    pub(crate) fn open(file: &Arc<MappedFile>) -> LoadResult<(Self, Vec<TensorEntry>)> {
        let mut reader = Reader::new(file.path(), file.bytes());
        let magic = reader.take(4, "magic")?;
        if &file.bytes()[magic] != MAGIC {
            return Err(LoadError::malformed(file.path(), "magic", "is not GGUF"));
        }
        let version = reader.u32("version")?;
        match version {
            2 | 3 => {}
            _ if (1..=0xffff).contains(&version.swap_bytes()) => {
                return Err(LoadError::unsupported(
                    file.path(),
                    "version",
                    "big-endian files are not supported",
                ));
            }
            _ => {
                let problem =
                    format!("{version} is not supported, only 2 and 3 are: convert the model again");
                return Err(LoadError::unsupported(file.path(), "version", problem));
            }
        }
        let tensor_count = reader.count(LEAST_TENSOR_BYTES, "tensor_count")?;
        let pair_count = reader.count(LEAST_PAIR_BYTES, "metadata_kv_count")?;
        let (keys, values) = read_metadata(&mut reader, pair_count)?;
        let gguf = Self { file: Arc::clone(file), version, keys, values };
        let entries = gguf.read_tensors(&mut reader, tensor_count)?;
        Ok((gguf, entries))
    }

    /// The format's version.
    pub(crate) fn version(&self) -> u32 {
        self.version
    }

    /// Where it came from.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    fn alignment(&self) -> LoadResult<usize> {
        let field = "general.alignment";
        match self.values.get(field) {
            None => Ok(DEFAULT_ALIGNMENT),
            Some(Value::Unsigned(value)) => match usize::try_from(*value) {
                Ok(value) if value.is_power_of_two() && value <= 1 << 30 => Ok(value),
                _ => Err(LoadError::malformed(
                    self.path(),
                    field,
                    format!("must be a power of two, is {value}"),
                )),
            },
            Some(_) => Err(LoadError::malformed(self.path(), field, "must be an unsigned integer")),
        }
    }

    fn read_tensors(&self, reader: &mut Reader<'_>, count: usize) -> LoadResult<Vec<TensorEntry>> {
        let alignment = self.alignment()?;
        let mut entries = Vec::new();
        let mut names = HashSet::new();
        let mut offsets = Vec::new();
        for index in 0..count {
            let name = read_name(reader, &format!("tensor {index}: name"))?;
            let field = format!("tensor {}", shown(name));
            if !names.insert(name) {
                return Err(reader.error(&field, "appears twice"));
            }
            let shape = read_shape(reader, &field)?;
            let id = reader.u32(&field)?;
            let kind = TensorType::from_gguf_id(id).ok_or_else(|| {
                let problem = format!("has type {} ({id}), which is not supported", foreign_type(id));
                LoadError::unsupported(self.path(), &field, problem)
            })?;
            let size = tensor_bytes(kind, &shape).map_err(|problem| reader.error(&field, problem))?;
            let offset = reader.u64(&field)?;
            offsets.push((offset, size));
            let encoding = Encoding::Known(kind);
            entries.push(TensorEntry { name: name.to_owned(), encoding, shape, range: 0..0, file: 0 });
        }
        let total = self.file.bytes().len();
        let data = reader.position().next_multiple_of(alignment);
        for (entry, (offset, size)) in entries.iter_mut().zip(offsets) {
            let place = usize::try_from(offset).ok().and_then(|offset| data.checked_add(offset));
            let end = place.and_then(|start| start.checked_add(size)).filter(|&end| end <= total);
            let (Some(start), Some(end)) = (place, end) else {
                let field = format!("tensor {}", shown(&entry.name));
                let problem = format!(
                    "offset {offset} and size {size} reach beyond the file of {total} bytes: is it whole?"
                );
                return Err(LoadError::malformed(self.path(), field, problem));
            };
            if !offset.is_multiple_of(alignment as u64) {
                let field = format!("tensor {}", shown(&entry.name));
                let problem = format!("offset {offset} is not a multiple of the alignment {alignment}");
                return Err(LoadError::malformed(self.path(), field, problem));
            }
            entry.range = start..end;
        }
        Ok(entries)
    }

    /// The metadata as it is written: each key with the bytes of the whole pair, in file order. Files of version 2 write
    /// them as those of version 3 do.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let bytes = self.file.bytes();
        self.keys.iter().map(|(key, range)| (key.as_str(), bytes.get(range.clone()).unwrap_or_default()))
    }

    /// A value by its key.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// The text at a checked place.
    pub(crate) fn text_at(&self, range: &Range<usize>) -> &str {
        let bytes = self.file.bytes().get(range.clone()).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// A text by its key; `None` when there is none or it is something else.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match self.values.get(key) {
            Some(Value::Text(range)) => Some(self.text_at(range)),
            _ => None,
        }
    }

    /// An array of texts.
    pub(crate) fn texts(&self, key: &str) -> LoadResult<Option<Vec<String>>> {
        let Some(array) = self.array(key, kind::TEXT, "an array of texts")? else { return Ok(None) };
        let bytes = self.file.bytes().get(array.range.clone()).unwrap_or_default();
        let mut reader = Reader::new(self.path(), bytes);
        let mut texts = Vec::with_capacity(array.length);
        for index in 0..array.length {
            texts
                .push(reader.string(key).map_err(|error| self.element_error(key, index, &error))?.to_owned());
        }
        Ok(Some(texts))
    }

    /// One text of an array of texts.
    pub(crate) fn text_in(&self, key: &str, index: usize) -> LoadResult<Option<String>> {
        let Some(array) = self.array(key, kind::TEXT, "an array of texts")? else { return Ok(None) };
        if index >= array.length {
            return Ok(None);
        }
        let bytes = self.file.bytes().get(array.range.clone()).unwrap_or_default();
        let mut reader = Reader::new(self.path(), bytes);
        for _ in 0..index {
            let length = reader.u64(key)?;
            reader.take(length, key)?;
        }
        let text = reader.string(key).map_err(|error| self.element_error(key, index, &error))?;
        Ok(Some(text.to_owned()))
    }

    fn element_error(&self, key: &str, index: usize, error: &LoadError) -> LoadError {
        let problem = match error {
            LoadError::Malformed { problem, .. } => problem.clone(),
            other => other.to_string(),
        };
        LoadError::malformed(self.path(), format!("{key}[{index}]"), problem)
    }

    /// An array of 32-bit integers.
    pub(crate) fn integers(&self, key: &str) -> LoadResult<Option<Vec<i32>>> {
        let Some(array) = self.array(key, kind::I32, "an array of 32-bit integers")? else { return Ok(None) };
        let bytes = self.file.bytes().get(array.range.clone()).unwrap_or_default();
        let values = bytes.as_chunks::<4>().0.iter().map(|chunk| i32::from_le_bytes(*chunk));
        Ok(Some(values.collect()))
    }

    /// An array of 32-bit floats.
    fn floats(&self, key: &str) -> LoadResult<Option<Vec<f32>>> {
        let Some(array) = self.array(key, kind::F32, "an array of 32-bit floats")? else { return Ok(None) };
        let bytes = self.file.bytes().get(array.range.clone()).unwrap_or_default();
        let values = bytes.as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk));
        Ok(Some(values.collect()))
    }

    /// An array of bytes; some writers call them signed.
    fn bytes(&self, key: &str) -> LoadResult<Option<Vec<u8>>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Array(array))
                if matches!(array.element, kind::U8 | kind::I8) || array.length == 0 =>
            {
                Ok(Some(self.file.bytes().get(array.range.clone()).unwrap_or_default().to_vec()))
            }
            Some(_) => Err(LoadError::malformed(self.path(), key, "must be an array of bytes")),
        }
    }

    fn array(&self, key: &str, element: u32, wanted: &str) -> LoadResult<Option<&Array>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) if array.element == element || array.length == 0 => Ok(Some(array)),
            // Token types are signed in most files and unsigned in some.
            Some(Value::Array(array)) if element == kind::I32 && array.element == kind::U32 => {
                Ok(Some(array))
            }
            Some(_) => Err(LoadError::malformed(self.path(), key, format!("must be {wanted}"))),
        }
    }

    /// The numbers of a short array, for fields that may be given per layer.
    pub(crate) fn numbers(&self, array: &Array, most: usize) -> Option<Vec<Value>> {
        let size = fixed_bytes(array.element)?;
        if array.length > most {
            return None;
        }
        let bytes = self.file.bytes().get(array.range.clone())?;
        bytes.chunks_exact(size).map(|chunk| fixed_value(array.element, chunk)).collect()
    }

    /// A token id; values that no vocabulary has (such as -1) mean none.
    pub(crate) fn token_id(&self, key: &str) -> LoadResult<Option<u32>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Unsigned(value)) => Ok(u32::try_from(*value).ok().filter(|&id| id != u32::MAX)),
            Some(Value::Signed(value)) => Ok(u32::try_from(*value).ok()),
            Some(_) => Err(LoadError::malformed(self.path(), key, "must be a token id")),
        }
    }

    fn flag(&self, key: &str) -> LoadResult<Option<bool>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(LoadError::malformed(self.path(), key, "must be true or false")),
        }
    }

    /// The tokenizer's data.
    pub(crate) fn vocabulary(&self) -> LoadResult<GgufVocabulary> {
        let missing =
            |key: &str| LoadError::malformed(self.path(), key, "is missing: the file has no tokenizer");
        let model = self.text("tokenizer.ggml.model").ok_or_else(|| missing("tokenizer.ggml.model"))?;
        let tokens = self.texts("tokenizer.ggml.tokens")?.ok_or_else(|| missing("tokenizer.ggml.tokens"))?;
        let token_types = self.integers("tokenizer.ggml.token_type")?.unwrap_or_default();
        if !token_types.is_empty() && token_types.len() != tokens.len() {
            let problem = format!("has {} entries for {} tokens", token_types.len(), tokens.len());
            return Err(LoadError::malformed(self.path(), "tokenizer.ggml.token_type", problem));
        }
        Ok(GgufVocabulary {
            model: model.to_owned(),
            pre: self.text("tokenizer.ggml.pre").unwrap_or_default().to_owned(),
            tokens,
            token_types,
            scores: self.floats("tokenizer.ggml.scores")?.unwrap_or_default(),
            merges: self.texts("tokenizer.ggml.merges")?.unwrap_or_default(),
            bos: self.token_id("tokenizer.ggml.bos_token_id")?,
            eos: self.token_id("tokenizer.ggml.eos_token_id")?,
            unk: self.token_id("tokenizer.ggml.unknown_token_id")?,
            pad: self.token_id("tokenizer.ggml.padding_token_id")?,
            add_bos: self.flag("tokenizer.ggml.add_bos_token")?,
            add_eos: self.flag("tokenizer.ggml.add_eos_token")?,
            add_space_prefix: self.flag("tokenizer.ggml.add_space_prefix")?,
            remove_extra_whitespaces: self.flag("tokenizer.ggml.remove_extra_whitespaces")?,
            precompiled_charsmap: self.bytes("tokenizer.ggml.precompiled_charsmap")?.unwrap_or_default(),
            file: self.path().into(),
        })
    }

    /// All keys with a short rendering of their values, in file order.
    pub(crate) fn rendered(&self) -> Vec<(String, String)> {
        self.keys
            .iter()
            .filter_map(|(key, _)| Some((key.clone(), self.render(self.values.get(key)?))))
            .collect()
    }

    fn render(&self, value: &Value) -> String {
        match value {
            Value::Unsigned(value) => value.to_string(),
            Value::Signed(value) => value.to_string(),
            Value::Float(value) => (*value as f32).to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Text(range) => shown(self.text_at(range)),
            Value::Array(array) => match self.numbers(array, 8) {
                Some(values) => {
                    let values: Vec<String> = values.iter().map(|value| self.render(value)).collect();
                    format!("[{}]", values.join(", "))
                }
                None => format!("[{} values]", array.length),
            },
        }
    }
}

fn read_name<'a>(reader: &mut Reader<'a>, field: &str) -> LoadResult<&'a str> {
    let name = reader.string(field)?;
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err(reader.error(field, format!("must have 1 to {MAX_NAME_BYTES} bytes, has {}", name.len())));
    }
    Ok(name)
}

/// Keys in file order, with the bytes of each whole pair.
type Keys = Vec<(String, Range<usize>)>;

fn read_metadata(reader: &mut Reader<'_>, count: usize) -> LoadResult<(Keys, HashMap<String, Value>)> {
    let mut keys = Vec::new();
    let mut values = HashMap::new();
    for index in 0..count {
        let start = reader.position();
        let key = read_name(reader, &format!("metadata {index}: key"))?;
        let field = shown(key);
        let element = reader.u32(&field)?;
        let value = read_value(reader, element, &field)?;
        if values.insert(key.to_owned(), value).is_some() {
            return Err(reader.error(&field, "appears twice"));
        }
        keys.push((key.to_owned(), start..reader.position()));
    }
    Ok((keys, values))
}

fn read_value(reader: &mut Reader<'_>, element: u32, field: &str) -> LoadResult<Value> {
    if let Some(size) = fixed_bytes(element) {
        let bytes = reader.slice(size, field)?;
        if element == kind::BOOL && bytes.iter().any(|&value| value > 1) {
            return Err(reader.error(field, "is a truth value other than 0 and 1"));
        }
        return fixed_value(element, bytes).ok_or_else(|| reader.error(field, "cannot be read"));
    }
    match element {
        kind::TEXT => {
            let length = reader.string(field)?.len();
            Ok(Value::Text(reader.position() - length..reader.position()))
        }
        kind::ARRAY => Ok(Value::Array(read_array(reader, field, 1)?)),
        _ => Err(reader.error(field, format!("has the unknown value type {element}"))),
    }
}

fn read_array(reader: &mut Reader<'_>, field: &str, depth: usize) -> LoadResult<Array> {
    if depth > MAX_ARRAY_DEPTH {
        return Err(reader.error(field, format!("nests arrays deeper than {MAX_ARRAY_DEPTH}")));
    }
    let element = reader.u32(field)?;
    let least = match element {
        kind::TEXT => 8,
        kind::ARRAY => 12,
        _ => fixed_bytes(element)
            .ok_or_else(|| reader.error(field, format!("is an array of the unknown type {element}")))?,
    };
    let length = reader.count(least, field)?;
    let start = reader.position();
    match element {
        kind::TEXT => {
            for _ in 0..length {
                let bytes = reader.u64(field)?;
                reader.take(bytes, field)?;
            }
        }
        kind::ARRAY => {
            for _ in 0..length {
                read_array(reader, field, depth + 1)?;
            }
        }
        _ => {
            reader.take((length * least) as u64, field)?;
        }
    }
    Ok(Array { element, length, range: start..reader.position() })
}

/// The dimensions, outermost first. The format stores the innermost first.
fn read_shape(reader: &mut Reader<'_>, field: &str) -> LoadResult<Vec<usize>> {
    let count = reader.u32(field)?;
    if count == 0 || count > MAX_DIMENSIONS {
        return Err(reader.error(field, format!("has {count} dimensions, 1 to {MAX_DIMENSIONS} are allowed")));
    }
    let mut shape = Vec::new();
    for _ in 0..count {
        match usize::try_from(reader.u64(field)?) {
            Ok(0) => return Err(reader.error(field, "has a dimension of 0")),
            Ok(dimension) => shape.push(dimension),
            Err(_) => return Err(reader.error(field, "has a dimension that does not fit this machine")),
        }
    }
    shape.reverse();
    Ok(shape)
}

/// The bytes of a tensor.
fn tensor_bytes(kind: TensorType, shape: &[usize]) -> Result<usize, String> {
    let columns = shape.last().copied().unwrap_or(1);
    let block = kind.block_len();
    if !columns.is_multiple_of(block) {
        return Err(format!("{kind} needs rows of a multiple of {block} values, has {columns}"));
    }
    let rows = shape.iter().rev().skip(1).try_fold(1_usize, |rows, &next| rows.checked_mul(next));
    rows.zip(kind.row_bytes(columns))
        .and_then(|(rows, bytes)| rows.checked_mul(bytes))
        .ok_or_else(|| format!("the shape {shape:?} is too large for this machine"))
}
