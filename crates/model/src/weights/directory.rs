//! The weights of a directory: one file, or the shards that an index names, as safetensors or in torch's own format.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::safetensors::{self, read_json};
use super::{MappedFile, TensorEntry, TensorStore, torch};
use crate::load_error::{LoadError, LoadResult};

/// A format and the names of its files.
#[derive(Debug)]
pub(crate) struct Layout {
    single: &'static str,
    index: &'static str,
    read: fn(&MappedFile) -> LoadResult<Vec<TensorEntry>>,
}

/// The weights of a model, best format first.
static MODEL: [Layout; 2] = [
    Layout {
        single: "model.safetensors",
        index: "model.safetensors.index.json",
        read: safetensors::read_header,
    },
    Layout { single: "pytorch_model.bin", index: "pytorch_model.bin.index.json", read: torch::read_header },
];

/// The weights of an adapter.
static ADAPTER: [Layout; 2] = [
    Layout {
        single: "adapter_model.safetensors",
        index: "adapter_model.safetensors.index.json",
        read: safetensors::read_header,
    },
    Layout { single: "adapter_model.bin", index: "adapter_model.bin.index.json", read: torch::read_header },
];

/// Opens the weights of a model.
pub(crate) fn open_model(directory: &Path) -> LoadResult<TensorStore> {
    open(directory, &MODEL)
}

/// Opens the weights of an adapter.
pub(crate) fn open_adapter(directory: &Path) -> LoadResult<TensorStore> {
    open(directory, &ADAPTER)
}

fn open(directory: &Path, layouts: &[Layout]) -> LoadResult<TensorStore> {
    for layout in layouts {
        let single = directory.join(layout.single);
        let index = directory.join(layout.index);
        if single.is_file() {
            return open_single(&single, layout.read);
        }
        if index.is_file() {
            return open_shards(directory, &index, layout);
        }
    }
    let names: Vec<&str> = layouts.iter().flat_map(|layout| [layout.single, layout.index]).collect();
    Err(LoadError::not_found(directory, format!("has no weights: none of {}", names.join(", "))))
}

fn open_single(
    path: &Path,
    read: fn(&MappedFile) -> LoadResult<Vec<TensorEntry>>,
) -> LoadResult<TensorStore> {
    let mut store = TensorStore::new(path);
    let file = MappedFile::open(path)?;
    let entries = read(&file)?;
    store.add(file, entries)?;
    Ok(store)
}

fn open_shards(directory: &Path, index: &Path, layout: &Layout) -> LoadResult<TensorStore> {
    let value: serde_json::Value = read_json(index)?;
    let Some(map) = value.get("weight_map").and_then(serde_json::Value::as_object) else {
        return Err(LoadError::malformed(
            index,
            "weight_map",
            "must be an object of tensor names and file names",
        ));
    };
    let mut shards: Vec<&str> = Vec::new();
    let mut known = HashSet::new();
    for (name, shard) in map {
        let field = || format!("weight_map.{}", name.escape_debug());
        let shard =
            shard.as_str().ok_or_else(|| LoadError::malformed(index, field(), "must be a file name"))?;
        if !is_plain_name(shard) {
            let problem = format!("{shard:?} is not the name of a file in this directory");
            return Err(LoadError::malformed(index, field(), problem));
        }
        if known.insert(shard) {
            shards.push(shard);
        }
    }
    let mut store = TensorStore::new(directory);
    for shard in shards {
        let path: PathBuf = directory.join(shard);
        if !path.is_file() {
            return Err(LoadError::not_found(&path, format!("is missing, {} names it", layout.index)));
        }
        let file = MappedFile::open(&path)?;
        let entries = (layout.read)(&file)?;
        store.add(file, entries)?;
    }
    for (name, shard) in map {
        let holder = store.place_of(name);
        if holder.and_then(Path::file_name) != shard.as_str().map(AsRef::as_ref) {
            let problem = format!("the index places it in {shard}, but it is not there");
            return Err(LoadError::malformed(index, format!("tensor {}", name.escape_debug()), problem));
        }
    }
    Ok(store)
}

fn is_plain_name(name: &str) -> bool {
    let plain = !name.is_empty() && name != "." && name != ".." && name.len() <= 255;
    plain && !name.contains(['/', '\\', ':', '\0'])
}
