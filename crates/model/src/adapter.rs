//! A LoRA adapter as PEFT saves it, added to the weights while they are packed.
//!
//! What would change the result and is not computed here (DoRA, trained embeddings, other modules) is refused by name.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};

use crate::arch::fields::Fields;
use crate::decoder_weights::LowRank;
use crate::load_error::{LoadError, LoadResult};
use crate::weights::TensorStore;
use crate::weights::directory::open_adapter;
use crate::weights::safetensors::read_json;

const CONFIG: &str = "adapter_config.json";
/// Matrices that may have an adapter, of Llama, Mistral and Qwen2.
const MODULES: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];
/// Settings that must be absent, null, false or empty, because they change what the matrices mean.
const NEUTRAL: [&str; 18] = [
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "fan_in_fan_out",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "arrow_config",
    "corda_config",
    "loftq_config",
    "kasa_config",
    "lora_ga_config",
    "velora_config",
];

/// An opened adapter.
#[derive(Debug)]
pub(crate) struct Adapter {
    path: PathBuf,
    tensors: TensorStore,
    rank: usize,
    scale: f32,
    /// Per weight of the model, the names of its two matrices.
    pairs: BTreeMap<String, Pair>,
}

#[derive(Debug, Default)]
struct Pair {
    down: Option<String>,
    up: Option<String>,
}

impl Adapter {
    /// Opens the adapter of a directory for a model of these tensors.
    pub(crate) fn open(directory: &Path, model: &TensorStore) -> LoadResult<Self> {
        let path = directory.join(CONFIG);
        if !path.is_file() {
            let problem = format!("has no {CONFIG}, which an adapter with a model inside needs");
            return Err(LoadError::not_found(directory, problem));
        }
        let config: Json = read_json(&path)?;
        let Json::Object(config) = config else {
            return Err(LoadError::malformed(&path, "JSON", "must be an object"));
        };
        let (rank, scale) = read_config(&path, &config)?;
        let tensors = open_adapter(directory)?;
        let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
        for entry in tensors.entries() {
            let field = || format!("tensor {}", entry.name.escape_debug());
            let file = tensors.file(entry).path();
            let Some((module, is_up)) = module_of(&entry.name) else {
                let problem = format!(
                    "is not supported in an adapter; supported are lora_A and lora_B of {}",
                    MODULES.join(", ")
                );
                return Err(LoadError::unsupported(file, field(), problem));
            };
            let weight = format!("{module}.weight");
            if !model.contains(&weight) {
                return Err(LoadError::malformed(file, field(), format!("the model has no {weight}")));
            }
            let pair = pairs.entry(weight).or_default();
            let place = if is_up { &mut pair.up } else { &mut pair.down };
            if place.replace(entry.name.clone()).is_some() {
                return Err(LoadError::malformed(file, field(), "is there under two names"));
            }
        }
        if pairs.is_empty() {
            return Err(LoadError::malformed(&path, "adapter", "changes nothing: it has no tensors"));
        }
        Ok(Self { path, tensors, rank, scale, pairs })
    }

    /// What is added to a weight of the model.
    pub(crate) fn low_rank(
        &self,
        weight: &str,
        rows: usize,
        columns: usize,
    ) -> LoadResult<Option<LowRank<'_>>> {
        let Some(pair) = self.pairs.get(weight) else { return Ok(None) };
        let matrix = |name: &Option<String>, shape: [usize; 2]| match name {
            Some(name) => {
                let tensor = self.tensors.require(name, &shape)?;
                Ok((tensor.kind, Cow::Borrowed(tensor.data)))
            }
            None => {
                let problem = "only one of lora_A and lora_B is there";
                Err(LoadError::malformed(&self.path, weight, problem))
            }
        };
        Ok(Some(LowRank {
            rank: self.rank,
            scale: self.scale,
            down: matrix(&pair.down, [self.rank, columns])?,
            up: matrix(&pair.up, [rows, self.rank])?,
        }))
    }

    /// For listings.
    pub(crate) fn summary(&self) -> Json {
        json!({"kind": "lora", "rank": self.rank, "scale": self.scale, "matrices": self.pairs.len()})
    }
}

/// Rank and factor.
fn read_config(path: &Path, config: &Map<String, Json>) -> LoadResult<(usize, f32)> {
    let fields = Fields::json(path, config);
    match fields.text("peft_type")? {
        Some("LORA") => {}
        other => {
            let problem = format!("{:?} is not supported, only LORA is", other.unwrap_or("absent"));
            return Err(fields.unsupported("peft_type", problem));
        }
    }
    for name in NEUTRAL {
        let neutral = match config.get(name) {
            None | Some(Json::Null | Json::Bool(false)) => true,
            Some(Json::Array(values)) => values.is_empty(),
            Some(Json::Object(values)) => values.is_empty(),
            Some(_) => false,
        };
        if !neutral {
            return Err(fields.unsupported(name, "is not supported: merge the adapter with PEFT first"));
        }
    }
    if !matches!(fields.text("bias")?, None | Some("none")) {
        return Err(fields.unsupported("bias", "trained biases are not supported"));
    }
    match config.get("init_lora_weights") {
        None | Some(Json::Null | Json::Bool(_)) => {}
        Some(Json::String(kind)) if matches!(kind.as_str(), "gaussian" | "eva" | "orthogonal") => {}
        Some(kind) => {
            let problem =
                format!("{kind} changes the model's own weights: merge the adapter with PEFT first");
            return Err(fields.unsupported("init_lora_weights", problem));
        }
    }
    let rank = fields.positive("r")?;
    let alpha = fields.float("lora_alpha")?.ok_or_else(|| fields.malformed("lora_alpha", "is missing"))?;
    let divisor = if fields.flag("use_rslora", false)? { (rank as f32).sqrt() } else { rank as f32 };
    Ok((rank, alpha / divisor))
}

/// The module of the model that a tensor belongs to, and whether it is `B`.
fn module_of(name: &str) -> Option<(&str, bool)> {
    let name = name.strip_prefix("base_model.model.")?.strip_suffix(".weight")?;
    // Older files name the adapter too.
    let name = name.strip_suffix(".default").unwrap_or(name);
    let (module, is_up) = match name.strip_suffix(".lora_A") {
        Some(module) => (module, false),
        None => (name.strip_suffix(".lora_B")?, true),
    };
    let (layer, part) = module.strip_prefix("model.layers.")?.split_once('.')?;
    let known = layer.bytes().all(|byte| byte.is_ascii_digit()) && MODULES.contains(&part);
    known.then_some((module, is_up))
}

#[cfg(test)]
mod tests {
    use super::module_of;

    #[test]
    fn tensors_belong_to_known_modules() {
        let name = |part: &str| format!("base_model.model.model.layers.3.{part}.weight");
        let module = "model.layers.3.self_attn.q_proj";
        assert_eq!(module_of(&name("self_attn.q_proj.lora_A")), Some((module, false)));
        assert_eq!(module_of(&name("self_attn.q_proj.lora_B.default")), Some((module, true)));
        for other in ["self_attn.q_proj.lora_C", "self_attn.qkv_proj.lora_A", "q_proj.lora_A", "lora_A"] {
            assert_eq!(module_of(&name(other)), None, "{other}");
        }
        assert_eq!(module_of("base_model.model.lm_head.lora_A.weight"), None);
        assert_eq!(module_of("model.layers.3.self_attn.q_proj.lora_A.weight"), None);
    }
}
