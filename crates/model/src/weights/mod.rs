//! Files of weights: memory-mapped, their headers checked, their tensors found by name.
//!
//! Nothing here copies a matrix. What a header says is checked against the file before it is believed.

pub(crate) mod directory;
pub(crate) mod gguf;
pub(crate) mod integer_matrix;
pub(crate) mod integers;
pub(crate) mod pickle;
mod pickle_value;
mod reader;
pub(crate) mod safetensors;
pub(crate) mod torch;

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use byzerllm_kernels::TensorType;
use memmap2::Mmap;

use crate::load_error::{LoadError, LoadResult};

/// A file in the address space, read only.
#[derive(Debug)]
pub(crate) struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    /// Maps a regular file.
    pub(crate) fn open(path: &Path) -> LoadResult<Arc<Self>> {
        let metadata = std::fs::metadata(path).map_err(|source| LoadError::io(path, source))?;
        if !metadata.is_file() {
            return Err(LoadError::malformed(path, "file", "is not a regular file"));
        }
        if metadata.len() == 0 {
            return Err(LoadError::malformed(path, "file", "is empty"));
        }
        let file = File::open(path).map_err(|source| LoadError::io(path, source))?;
        #[expect(unsafe_code, reason = "a mapping of a file is outside of what the compiler can check")]
        // SAFETY: the mapping is private and read only, and all slices borrow from it. Its contents may still change
        // when another process writes the file, and a page beyond a later truncation faults: a checkpoint must not
        // be modified in place while it is loaded, only replaced by renaming. Values are never trusted twice: sizes
        // and offsets are copied out of the mapping when they are checked.
        let map = unsafe { Mmap::map(&file) }.map_err(|source| LoadError::io(path, source))?;
        Ok(Arc::new(Self { path: path.into(), map }))
    }

    /// Bytes of a test as if they were a file.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn of_bytes(path: &Path, bytes: &[u8]) -> LoadResult<Arc<Self>> {
        if bytes.is_empty() {
            return Err(LoadError::malformed(path, "file", "is empty"));
        }
        let mut map =
            memmap2::MmapMut::map_anon(bytes.len()).map_err(|source| LoadError::io(path, source))?;
        map.copy_from_slice(bytes);
        let map = map.make_read_only().map_err(|source| LoadError::io(path, source))?;
        Ok(Arc::new(Self { path: path.into(), map }))
    }

    /// Where it came from.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// All bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

/// The encoding of a tensor as its file names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// One that we can compute with.
    Known(TensorType),
    /// One that is only listed.
    Other(&'static str),
}

impl Encoding {
    /// Its usual name.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Known(kind) => kind.name(),
            Self::Other(name) => name,
        }
    }
}

/// Where a tensor lies. The range was checked to be inside of the file and to fit its shape.
#[derive(Debug, Clone)]
pub(crate) struct TensorEntry {
    pub(crate) name: String,
    pub(crate) encoding: Encoding,
    /// Outermost dimension first.
    pub(crate) shape: Vec<usize>,
    pub(crate) range: Range<usize>,
    pub(crate) file: usize,
}

/// A tensor that we can compute with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TensorRef<'a> {
    pub(crate) kind: TensorType,
    pub(crate) shape: &'a [usize],
    pub(crate) data: &'a [u8],
    pub(crate) entry: &'a TensorEntry,
}

/// The tensors of a checkpoint, over one file or several.
#[derive(Debug)]
pub(crate) struct TensorStore {
    /// The file, or the directory when there are several.
    root: PathBuf,
    files: Vec<Arc<MappedFile>>,
    entries: Vec<TensorEntry>,
    by_name: HashMap<String, usize>,
}

impl TensorStore {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.into(), files: Vec::new(), entries: Vec::new(), by_name: HashMap::new() }
    }

    /// Adds a file and its tensors; a name that another file has is an error.
    pub(crate) fn add(&mut self, file: Arc<MappedFile>, entries: Vec<TensorEntry>) -> LoadResult<()> {
        let number = self.files.len();
        for mut entry in entries {
            entry.file = number;
            if let Some(&other) = self.by_name.get(&entry.name) {
                let other = self.entries.get(other).and_then(|other| self.files.get(other.file));
                let place = match other {
                    Some(other) => format!("is also in {}", other.path().display()),
                    None => "appears twice".into(),
                };
                return Err(LoadError::malformed(file.path(), format!("tensor {}", entry.name), place));
            }
            self.by_name.insert(entry.name.clone(), self.entries.len());
            self.entries.push(entry);
        }
        self.files.push(file);
        Ok(())
    }

    /// All tensors in file order.
    pub(crate) fn entries(&self) -> &[TensorEntry] {
        &self.entries
    }

    /// Whether there is a tensor of this name, whatever its type.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The path of the file that holds a tensor.
    pub(crate) fn place_of(&self, name: &str) -> Option<&Path> {
        let entry = self.entries.get(*self.by_name.get(name)?)?;
        Some(self.file(entry).path())
    }

    /// The file of a tensor.
    pub(crate) fn file(&self, entry: &TensorEntry) -> &Arc<MappedFile> {
        &self.files[entry.file]
    }

    /// The tensor of this name; an error when its type is not supported.
    pub(crate) fn get(&self, name: &str) -> LoadResult<Option<TensorRef<'_>>> {
        let Some(&index) = self.by_name.get(name) else { return Ok(None) };
        let entry = &self.entries[index];
        let file = self.file(entry);
        let kind = match entry.encoding {
            Encoding::Known(kind) => kind,
            Encoding::Other(type_name) => {
                return Err(LoadError::unsupported(
                    file.path(),
                    format!("tensor {name}"),
                    format!("type {type_name} cannot hold weights"),
                ));
            }
        };
        let data = &file.bytes()[entry.range.clone()];
        Ok(Some(TensorRef { kind, shape: &entry.shape, data, entry }))
    }

    /// Type name and bytes of a tensor of any type with the given shape.
    pub(crate) fn require_bytes(&self, name: &str, shape: &[usize]) -> LoadResult<(&'static str, &[u8])> {
        let missing = || LoadError::MissingTensor { path: self.root.clone(), tensor: name.into() };
        let entry = self.by_name.get(name).and_then(|&index| self.entries.get(index)).ok_or_else(missing)?;
        let file = self.file(entry);
        if entry.shape != shape {
            return Err(LoadError::Shape {
                path: file.path().into(),
                tensor: name.into(),
                expected: shape.into(),
                found: entry.shape.clone(),
            });
        }
        Ok((entry.encoding.name(), &file.bytes()[entry.range.clone()]))
    }

    /// The tensor of this name with the given shape.
    pub(crate) fn require(&self, name: &str, shape: &[usize]) -> LoadResult<TensorRef<'_>> {
        let tensor = self
            .get(name)?
            .ok_or_else(|| LoadError::MissingTensor { path: self.root.clone(), tensor: name.into() })?;
        if tensor.shape != shape {
            return Err(LoadError::Shape {
                path: self.file(tensor.entry).path().into(),
                tensor: name.into(),
                expected: shape.into(),
                found: tensor.shape.into(),
            });
        }
        Ok(tensor)
    }
}
