//! Torch's own weight files: a zip archive of a pickle and of one uncompressed file per storage, which stay mapped.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use super::pickle::{self, Refusal};
use super::pickle_value::Tensor;
use super::{MappedFile, TensorEntry};
use crate::load_error::{LoadError, LoadResult};

const END_SIGNATURE: &[u8] = b"PK\x05\x06";
const END_BYTES: usize = 22;
const LONG_END_SIGNATURE: &[u8] = b"PK\x06\x06";
const LONG_END_LOCATOR: &[u8] = b"PK\x06\x07";
const ENTRY_SIGNATURE: &[u8] = b"PK\x01\x02";
const ENTRY_BYTES: usize = 46;
const LOCAL_SIGNATURE: &[u8] = b"PK\x03\x04";
const LOCAL_BYTES: usize = 30;
const MAX_COMMENT_BYTES: usize = 0xffff;
const MAX_DIMENSIONS: usize = 8;

/// Reads the archive's directory and its pickle. Nothing of the pickle is executed.
pub(crate) fn read_header(file: &MappedFile) -> LoadResult<Vec<TensorEntry>> {
    let path = file.path();
    let archive = Archive::read(path, file.bytes())?;
    let pickle = archive
        .places
        .iter()
        .filter(|(name, _)| name.ends_with("/data.pkl") || **name == "data.pkl")
        .min_by_key(|(name, _)| **name);
    let Some((name, range)) = pickle else {
        return Err(LoadError::malformed(path, "archive", "has no data.pkl: was it written by torch.save?"));
    };
    let prefix = name.strip_suffix("data.pkl").unwrap_or_default();
    if let Some(order) = archive.places.get(format!("{prefix}byteorder").as_str())
        && &file.bytes()[order.clone()] != b"little"
    {
        return Err(LoadError::unsupported(path, "byteorder", "only little-endian values are read"));
    }
    let tensors = pickle::read(&file.bytes()[range.clone()]).map_err(|refusal| match refusal {
        Refusal::Malformed(problem) => LoadError::malformed(path, "data.pkl", problem),
        Refusal::Unsupported(what) => {
            let problem = format!(
                "{what} is not part of a state dictionary of tensors: the file is refused, nothing of it was run"
            );
            LoadError::unsupported(path, "data.pkl", problem)
        }
    })?;
    let mut entries = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let field = format!("tensor {}", name.escape_debug());
        let key = format!("{prefix}data/{}", tensor.storage.key);
        let Some(storage) = archive.places.get(key.as_str()) else {
            let problem = format!("its values {} are not in the archive", key.escape_debug());
            return Err(LoadError::malformed(path, field, problem));
        };
        let range = place(&tensor, storage).map_err(|problem| LoadError::malformed(path, &field, problem))?;
        if !is_contiguous(&tensor) {
            let problem = format!(
                "its strides {:?} are not those of rows one after another: save a contiguous copy",
                tensor.strides
            );
            return Err(LoadError::unsupported(path, field, problem));
        }
        entries.push(TensorEntry {
            name: name.as_ref().to_owned(),
            encoding: tensor.storage.element.encoding(),
            shape: tensor.shape.clone(),
            range,
            file: 0,
        });
    }
    if entries.is_empty() {
        return Err(LoadError::malformed(path, "data.pkl", "has no tensors"));
    }
    Ok(entries)
}

/// The bytes of a contiguous tensor inside of its storage.
fn place(tensor: &Tensor, storage: &Range<usize>) -> Result<Range<usize>, String> {
    if tensor.shape.len() > MAX_DIMENSIONS {
        return Err(format!("has {} dimensions", tensor.shape.len()));
    }
    let size = tensor.storage.element.size;
    if tensor.storage.values.checked_mul(size) != Some(storage.len()) {
        let values = tensor.storage.values;
        return Err(format!("its storage should have {values} values, but has {} bytes", storage.len()));
    }
    let values = tensor.shape.iter().try_fold(1_usize, |product, &next| product.checked_mul(next));
    let bytes = values.and_then(|values| values.checked_mul(size));
    let start = tensor.offset.checked_mul(size);
    match start.zip(bytes).and_then(|(start, bytes)| Some((start, start.checked_add(bytes)?))) {
        Some((start, end)) if end <= storage.len() => Ok(storage.start + start..storage.start + end),
        _ => Err(format!("shape {:?} at {} reaches beyond its storage", tensor.shape, tensor.offset)),
    }
}

fn is_contiguous(tensor: &Tensor) -> bool {
    let mut expected = 1_usize;
    for (&dimension, &stride) in tensor.shape.iter().zip(&tensor.strides).rev() {
        if dimension > 1 && stride != expected {
            return false;
        }
        expected = expected.saturating_mul(dimension.max(1));
    }
    true
}

/// Where the files of an archive lie; all of them are stored as they are.
struct Archive<'a> {
    places: HashMap<&'a str, Range<usize>>,
}

fn short(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?).into())
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?).into())
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The part of `bytes` that begins at `at`.
fn from(bytes: &[u8], at: u64) -> Option<&[u8]> {
    bytes.get(usize::try_from(at).ok()?..)
}

impl<'a> Archive<'a> {
    fn read(path: &Path, bytes: &'a [u8]) -> LoadResult<Self> {
        let malformed = |problem: String| LoadError::malformed(path, "archive", problem);
        if !bytes.starts_with(LOCAL_SIGNATURE) {
            let problem = "is no zip archive: files of torch before 1.6 must be saved again with a newer one";
            return Err(LoadError::unsupported(path, "archive", problem));
        }
        let (count, start) = directory(bytes)
            .ok_or_else(|| malformed("has no directory at its end: is the file whole?".to_owned()))?;
        let mut rest = from(bytes, start)
            .filter(|rest| count <= (rest.len() / ENTRY_BYTES) as u64)
            .ok_or_else(|| malformed(format!("its directory of {count} files reaches beyond its end")))?;
        let mut places = HashMap::new();
        for index in 0..count {
            let (name, range, next) =
                entry(bytes, rest).map_err(|problem| malformed(format!("file {index} {problem}")))?;
            if places.insert(name, range).is_some() {
                return Err(malformed(format!("has {name:?} twice")));
            }
            rest = next;
        }
        Ok(Self { places })
    }
}

/// Number of files and where their directory begins.
fn directory(bytes: &[u8]) -> Option<(u64, u64)> {
    let last = bytes.len().checked_sub(END_BYTES)?;
    let first = last.saturating_sub(MAX_COMMENT_BYTES);
    let end = (first..=last).rev().find(|&at| {
        bytes.get(at..).is_some_and(|rest| rest.starts_with(END_SIGNATURE))
            && short(bytes, at + 20) == Some(last - at)
    })?;
    let count = short(bytes, end + 10)? as u64;
    let start = word(bytes, end + 16)?;
    if count != 0xffff && start != 0xffff_ffff {
        return Some((count, start));
    }
    let locator = end.checked_sub(20)?;
    if !bytes.get(locator..)?.starts_with(LONG_END_LOCATOR) {
        return Some((count, start));
    }
    let record = from(bytes, long(bytes, locator + 8)?)?;
    record.starts_with(LONG_END_SIGNATURE).then_some(())?;
    Some((long(record, 32)?, long(record, 48)?))
}

/// One file of the directory: its name, where its bytes lie, and the rest of the directory.
fn entry<'a>(bytes: &'a [u8], record: &'a [u8]) -> Result<(&'a str, Range<usize>, &'a [u8]), String> {
    let cut = || "is cut off".to_owned();
    if !record.starts_with(ENTRY_SIGNATURE) || record.len() < ENTRY_BYTES {
        return Err("has no entry in the directory".to_owned());
    }
    let flags = short(record, 8).ok_or_else(cut)?;
    let method = short(record, 10).ok_or_else(cut)?;
    let mut packed = word(record, 20).ok_or_else(cut)?;
    let mut size = word(record, 24).ok_or_else(cut)?;
    let name_length = short(record, 28).ok_or_else(cut)?;
    let extra_length = short(record, 30).ok_or_else(cut)?;
    let comment_length = short(record, 32).ok_or_else(cut)?;
    let mut offset = word(record, 42).ok_or_else(cut)?;
    let extra_at = ENTRY_BYTES + name_length;
    let name = record.get(ENTRY_BYTES..extra_at).ok_or_else(cut)?;
    let name = std::str::from_utf8(name).map_err(|_| "has a name that is not valid UTF-8".to_owned())?;
    let mut extra = record.get(extra_at..extra_at + extra_length).ok_or_else(cut)?;
    // Sizes and offsets that do not fit stand in an extra field, in this order.
    while let (Some(id), Some(length)) = (short(extra, 0), short(extra, 2)) {
        let field = extra.get(4..4 + length).ok_or_else(cut)?;
        if id == 1 {
            let mut at = 0;
            for value in [&mut size, &mut packed, &mut offset] {
                if *value == 0xffff_ffff {
                    *value = long(field, at).ok_or_else(cut)?;
                    at += 8;
                }
            }
        }
        extra = &extra[4 + length..];
    }
    if method != 0 || packed != size {
        return Err(format!("{name:?} is compressed, which torch never does"));
    }
    if flags & 1 != 0 {
        return Err(format!("{name:?} is encrypted"));
    }
    let local = from(bytes, offset).filter(|local| local.starts_with(LOCAL_SIGNATURE)).ok_or_else(cut)?;
    let skipped = LOCAL_BYTES + short(local, 26).ok_or_else(cut)? + short(local, 28).ok_or_else(cut)?;
    let start = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(skipped));
    let end = start.and_then(|start| start.checked_add(usize::try_from(size).ok()?));
    match start.zip(end) {
        Some((start, end)) if end <= bytes.len() => {
            let next = record.get(extra_at + extra_length + comment_length..).ok_or_else(cut)?;
            Ok((name, start..end, next))
        }
        _ => Err(format!("{name:?} reaches beyond the end: is the file whole?")),
    }
}
