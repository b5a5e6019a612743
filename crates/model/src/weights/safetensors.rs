//! Safetensors files: a JSON header of names, types, shapes and places, then the values.
//!
//! Names that appear twice are refused, which a plain map would hide, and places must cover the data without holes.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use byzerllm_kernels::TensorType;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::reader::Reader;
use super::{Encoding, MappedFile, TensorEntry};
use crate::load_error::{LoadError, LoadResult};

const MAX_HEADER_BYTES: u64 = 100_000_000;
const MAX_DIMENSIONS: usize = 8;
/// The largest JSON file that is read whole.
pub(crate) const MAX_JSON_BYTES: u64 = 64 << 20;

/// What the header says of one tensor.
#[derive(Deserialize)]
struct Info {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// The header in file order.
struct Header(Vec<(String, Info)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut seen = HashSet::new();
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format_args!(
                            "tensor {} appears twice",
                            name.escape_debug()
                        )));
                    }
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Type and bytes of a value.
fn encoding(dtype: &str) -> Option<(Encoding, u64)> {
    Some(match dtype {
        "F32" => (Encoding::Known(TensorType::F32), 4),
        "F16" => (Encoding::Known(TensorType::F16), 2),
        "BF16" => (Encoding::Known(TensorType::BF16), 2),
        "F64" => (Encoding::Other("F64"), 8),
        "I64" => (Encoding::Other("I64"), 8),
        "U64" => (Encoding::Other("U64"), 8),
        "I32" => (Encoding::Other("I32"), 4),
        "U32" => (Encoding::Other("U32"), 4),
        "I16" => (Encoding::Other("I16"), 2),
        "U16" => (Encoding::Other("U16"), 2),
        "I8" => (Encoding::Other("I8"), 1),
        "U8" => (Encoding::Other("U8"), 1),
        "BOOL" => (Encoding::Other("BOOL"), 1),
        "F8_E4M3" => (Encoding::Other("F8_E4M3"), 1),
        "F8_E5M2" => (Encoding::Other("F8_E5M2"), 1),
        _ => return None,
    })
}

/// Reads the header of one file.
pub(crate) fn read_header(file: &MappedFile) -> LoadResult<Vec<TensorEntry>> {
    let path = file.path();
    let mut reader = Reader::new(path, file.bytes());
    let length = reader.u64("header length")?;
    if length > MAX_HEADER_BYTES {
        return Err(reader.error("header length", format!("is {length}, more than {MAX_HEADER_BYTES}")));
    }
    let header = reader.take(length, "header")?;
    let Header(infos) = serde_json::from_slice(&file.bytes()[header])
        .map_err(|error| LoadError::malformed(path, "header", error.to_string()))?;
    let data = reader.position();
    let available = reader.remaining() as u64;
    let mut entries = Vec::with_capacity(infos.len());
    for (name, info) in infos {
        let field = format!("tensor {}", name.escape_debug());
        let malformed = |problem: String| LoadError::malformed(path, &field, problem);
        let (encoding, bytes) = encoding(&info.dtype).ok_or_else(|| {
            let problem = format!("dtype {} is not supported", info.dtype.escape_debug());
            LoadError::unsupported(path, &field, problem)
        })?;
        if info.shape.len() > MAX_DIMENSIONS {
            return Err(malformed(format!("has {} dimensions", info.shape.len())));
        }
        let size = info.shape.iter().try_fold(bytes, |size, &next| size.checked_mul(next));
        let [begin, end] = info.data_offsets;
        if begin > end || end > available {
            return Err(malformed(format!(
                "data_offsets {begin}..{end} reach beyond the {available} bytes of data"
            )));
        }
        if size != Some(end - begin) {
            let shape = &info.shape;
            return Err(malformed(format!(
                "shape {shape:?} of {} does not fill its data_offsets {begin}..{end}",
                info.dtype
            )));
        }
        // Offsets lie inside of the file and the product of the shape equals a size inside of it, except when some
        // dimension is 0; then another one may be anything.
        let shape: Option<Vec<usize>> = info.shape.iter().map(|&next| usize::try_from(next).ok()).collect();
        let shape =
            shape.ok_or_else(|| malformed("has a dimension that does not fit this machine".into()))?;
        let range = data + begin as usize..data + end as usize;
        entries.push(TensorEntry { name, encoding, shape, range, file: 0 });
    }
    check_places(path, &entries, data, file.bytes().len())?;
    Ok(entries)
}

/// The format allows neither holes nor overlaps.
fn check_places(path: &Path, entries: &[TensorEntry], data: usize, total: usize) -> LoadResult<()> {
    let mut order: Vec<&TensorEntry> = entries.iter().collect();
    order.sort_by_key(|entry| (entry.range.start, entry.range.end));
    let mut position = data;
    for entry in order {
        if entry.range.start != position {
            let field = format!("tensor {}", entry.name.escape_debug());
            let problem = format!(
                "data_offsets begin at {} where {} was expected: tensors overlap or leave a hole",
                entry.range.start - data,
                position - data
            );
            return Err(LoadError::malformed(path, field, problem));
        }
        position = entry.range.end;
    }
    if position != total {
        let problem = format!("{} bytes follow the last tensor", total - position);
        return Err(LoadError::malformed(path, "data", problem));
    }
    Ok(())
}

/// Reads a JSON file of bounded size.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> LoadResult<T> {
    let bytes = read_bounded(path)?;
    serde_json::from_slice(&bytes).map_err(|error| LoadError::malformed(path, "JSON", error.to_string()))
}

/// Reads a regular file of bounded size.
pub(crate) fn read_bounded(path: &Path) -> LoadResult<Vec<u8>> {
    let metadata = std::fs::metadata(path).map_err(|source| LoadError::io(path, source))?;
    if !metadata.is_file() {
        return Err(LoadError::malformed(path, "file", "is not a regular file"));
    }
    if metadata.len() > MAX_JSON_BYTES {
        let problem = format!("has {} bytes, more than {MAX_JSON_BYTES}", metadata.len());
        return Err(LoadError::malformed(path, "file", problem));
    }
    std::fs::read(path).map_err(|source| LoadError::io(path, source))
}
