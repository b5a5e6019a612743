//! LoRA adapters as PEFT saves them: added to the weights while these are packed, or kept apart and added to the
//! products of the rows that name them.
//!
//! What would change the result and is not computed here (DoRA, trained embeddings, biases) is refused by name.

mod packed;
mod place;
mod settings;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use byzerllm_kernels::{Compute, Matrix, TensorType};
use serde_json::{Value as Json, json};

pub use packed::Adapter;
pub(crate) use place::{Product, RowOrder};

use crate::arch::source::Source;
use crate::decoder_weights::{DecoderWeights, LowRank};
use crate::load_error::{LoadError, LoadResult};
use crate::weights::directory::open_adapter;
use crate::weights::{TensorRef, TensorStore};
use place::{Module, modules};
use settings::Settings;

/// Names of modules that a refusal shows.
const SHOWN_MODULES: usize = 8;

/// An opened adapter, not yet held against a model.
#[derive(Debug)]
pub(crate) struct AdapterFile {
    path: PathBuf,
    tensors: TensorStore,
    settings: Settings,
    /// Per module of the model, the names of its two matrices.
    pairs: BTreeMap<String, Pair>,
}

#[derive(Debug, Default)]
struct Pair {
    down: Option<String>,
    up: Option<String>,
}

/// The two matrices of a module, their shapes checked.
struct Matrices<'a> {
    module: &'a Module,
    rank: usize,
    scale: f32,
    /// `A`, `(rank, columns)`.
    down: TensorRef<'a>,
    /// `B`, `(rows, rank)`.
    up: TensorRef<'a>,
}

impl AdapterFile {
    /// Opens the adapter of a directory.
    pub(crate) fn open(directory: &Path) -> LoadResult<Self> {
        let settings = Settings::read(directory)?;
        let tensors = open_adapter(directory)?;
        let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
        for entry in tensors.entries() {
            let field = || format!("tensor {}", entry.name.escape_debug());
            let file = tensors.file(entry).path();
            let Some((module, is_up)) = module_of(&entry.name) else {
                let problem = "is not supported in an adapter: lora_A and lora_B of matrices are, such as those of q_proj";
                return Err(LoadError::unsupported(file, field(), problem));
            };
            let pair = pairs.entry(module.to_owned()).or_default();
            let place = if is_up { &mut pair.up } else { &mut pair.down };
            if place.replace(entry.name.clone()).is_some() {
                return Err(LoadError::malformed(file, field(), "is there under two names"));
            }
        }
        if pairs.is_empty() {
            return Err(LoadError::malformed(directory, "adapter", "changes nothing: it has no tensors"));
        }
        Ok(Self { path: directory.into(), tensors, settings, pairs })
    }

    /// All pairs with the modules of the model that they belong to.
    fn matrices<'m>(&'m self, modules: &'m BTreeMap<String, Module>) -> LoadResult<Vec<Matrices<'m>>> {
        let find = |(name, pair): (&String, &'m Pair)| {
            let tensor = pair.down.as_ref().or(pair.up.as_ref()).unwrap_or(name);
            let module = find_module(modules, name).ok_or_else(|| self.unknown(tensor, name, modules))?;
            let (Some(down), Some(up)) = (&pair.down, &pair.up) else {
                return Err(LoadError::malformed(
                    &self.path,
                    name.escape_debug().to_string(),
                    "only one of lora_A and lora_B is there",
                ));
            };
            let covered: usize = module.places.iter().map(|place| place.outputs.len()).sum();
            if covered != module.rows {
                let problem = "is not kept as the file has it, so that no adapter can be added to it";
                return Err(LoadError::unsupported(&self.path, name.escape_debug().to_string(), problem));
            }
            let (rank, scale) = self.settings.of(name);
            Ok(Matrices {
                module,
                rank,
                scale,
                down: self.tensors.require(down, &[rank, module.columns])?,
                up: self.tensors.require(up, &[module.rows, rank])?,
            })
        };
        self.pairs.iter().map(find).collect()
    }

    fn unknown(&self, tensor: &str, module: &str, modules: &BTreeMap<String, Module>) -> LoadError {
        // The last two words of a name tell the kinds of modules apart.
        let mut kinds: Vec<String> = Vec::new();
        for name in modules.keys() {
            let mut words: Vec<&str> = name.rsplit('.').take(2).collect();
            words.reverse();
            let kind = words.join(".");
            if !kinds.contains(&kind) && kinds.len() < SHOWN_MODULES {
                kinds.push(kind);
            }
        }
        let problem = format!(
            "the model has no matrix {} that an adapter may change; it has {}",
            module.escape_debug(),
            kinds.join(", ")
        );
        let place = self.tensors.place_of(tensor).unwrap_or(&self.path);
        LoadError::malformed(place, format!("tensor {}", tensor.escape_debug()), problem)
    }

    /// Adds the adapter to the parts of a model's weights, which sum it up when they are packed.
    pub(crate) fn merge_into<'a>(
        &'a self,
        source: &'a Source,
        weights: &mut DecoderWeights<'a>,
    ) -> LoadResult<()> {
        let modules = modules(source, weights);
        for matrices in self.matrices(&modules)? {
            let Matrices { module, rank, scale, down, up, .. } = matrices;
            if module.order != RowOrder::Published {
                let problem =
                    "cannot be merged into a GGUF file: deploy the file and load the adapter beside it";
                return Err(LoadError::unsupported(&self.path, "pretrained_model", problem));
            }
            let row_bytes = up.data.len() / module.rows;
            for place in &module.places {
                let rows = place.first * row_bytes..(place.first + place.outputs.len()) * row_bytes;
                let part = place::product(weights, place.product)
                    .and_then(|linear| linear.parts.get_mut(place.part));
                if let Some(part) = part {
                    part.low_rank = Some(LowRank {
                        rank,
                        scale,
                        down: (down.kind, Cow::Borrowed(self.data(down.entry))),
                        up: (up.kind, Cow::Borrowed(&self.data(up.entry)[rows])),
                    });
                }
            }
        }
        Ok(())
    }

    /// Bytes at most that its matrices take once packed.
    pub(crate) fn memory_estimate(&self, source: &Source, weights: &DecoderWeights<'_>) -> LoadResult<u64> {
        let modules = modules(source, weights);
        let packed = |rows, columns| Matrix::packed_bytes(TensorType::F32, rows, columns, Compute::Exact);
        let bytes = |matrices: &Matrices<'_>| {
            let Matrices { module, rank, .. } = matrices;
            packed(*rank, module.columns).saturating_add(packed(module.rows, *rank))
        };
        Ok(self.matrices(&modules)?.iter().map(bytes).fold(0, u64::saturating_add))
    }

    /// The mapped bytes of a tensor.
    fn data(&self, entry: &crate::weights::TensorEntry) -> &[u8] {
        &self.tensors.file(entry).bytes()[entry.range.clone()]
    }

    /// For listings.
    pub(crate) fn summary(&self) -> Json {
        let (rank, scale) = self.settings.usual();
        json!({"kind": "lora", "rank": rank, "scale": scale, "matrices": self.pairs.len()})
    }
}

/// A module by its name, or by the name without the class around the layers, which some files leave out.
fn find_module<'a>(modules: &'a BTreeMap<String, Module>, name: &str) -> Option<&'a Module> {
    modules.get(name).or_else(|| modules.get(name.split_once('.')?.1))
}

/// The module of the model that a tensor belongs to, and whether it is `B`.
fn module_of(name: &str) -> Option<(&str, bool)> {
    let name = name.strip_prefix("base_model.model.")?.strip_suffix(".weight")?;
    // Older files name the adapter too.
    let name = name.strip_suffix(".default").unwrap_or(name);
    match name.strip_suffix(".lora_A") {
        Some(module) => Some((module, false)),
        None => Some((name.strip_suffix(".lora_B")?, true)),
    }
}

#[cfg(test)]
mod tests {
    use super::module_of;

    #[test]
    fn tensors_name_their_modules() {
        let name = |part: &str| format!("base_model.model.model.layers.3.{part}.weight");
        let module = "model.layers.3.self_attn.q_proj";
        assert_eq!(module_of(&name("self_attn.q_proj.lora_A")), Some((module, false)));
        assert_eq!(module_of(&name("self_attn.q_proj.lora_B.default")), Some((module, true)));
        assert_eq!(module_of(&name("self_attn.q_proj.lora_C")), None);
        assert_eq!(module_of("base_model.model.model.embed_tokens.lora_embedding_A"), None);
        assert_eq!(module_of("model.layers.3.self_attn.q_proj.lora_A.weight"), None);
    }
}
