//! `adapter_config.json`: ranks and factors, and what is refused by name.

use std::path::Path;

use serde_json::{Map, Value as Json};

use crate::arch::fields::Fields;
use crate::load_error::{LoadError, LoadResult};
use crate::weights::safetensors::read_json;

pub(super) const CONFIG: &str = "adapter_config.json";
/// The largest rank of a matrix.
pub(super) const MAX_RANK: usize = 512;
/// Settings that must be absent, null, false or empty, because they change what the matrices mean.
const NEUTRAL: [&str; 15] = [
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "modules_to_save",
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
/// Entries of a pattern at most: one per matrix of a large mixture of experts would fit.
const MAX_PATTERNS: usize = 100_000;

/// Rank and factor of every module. `fan_in_fan_out` says how the model's own weight lies and changes neither.
#[derive(Debug)]
pub(super) struct Settings {
    rank: usize,
    alpha: f32,
    stabilized: bool,
    ranks: Vec<(String, usize)>,
    alphas: Vec<(String, f32)>,
}

impl Settings {
    /// Reads the file of an adapter's directory.
    pub(super) fn read(directory: &Path) -> LoadResult<Self> {
        let path = directory.join(CONFIG);
        if !path.is_file() {
            let problem = format!("has no {CONFIG}: is it a LoRA adapter as PEFT saves it?");
            return Err(LoadError::not_found(directory, problem));
        }
        let Json::Object(config) = read_json(&path)? else {
            return Err(LoadError::malformed(&path, "JSON", "must be an object"));
        };
        let fields = Fields::json(&path, &config);
        refuse_others(&fields, &config)?;
        let rank = fields.positive("r")?;
        let alpha =
            fields.float("lora_alpha")?.ok_or_else(|| fields.malformed("lora_alpha", "is missing"))?;
        let ranks = pattern(&fields, &config, "rank_pattern", |value| {
            value.as_u64().and_then(|rank| usize::try_from(rank).ok()).filter(|&rank| rank > 0)
        })?;
        let alphas = pattern(&fields, &config, "alpha_pattern", |value| {
            value.as_f64().map(|alpha| alpha as f32).filter(|alpha| alpha.is_finite())
        })?;
        for (field, rank) in ranks.iter().map(|(_, rank)| ("rank_pattern", *rank)).chain([("r", rank)]) {
            if rank > MAX_RANK {
                let problem = format!("is {rank}, more than {MAX_RANK}: merge the adapter with PEFT first");
                return Err(fields.unsupported(field, problem));
            }
        }
        Ok(Self { rank, alpha, stabilized: fields.flag("use_rslora", false)?, ranks, alphas })
    }

    /// The rank of a module's matrices and the factor on their product.
    pub(super) fn of(&self, module: &str) -> (usize, f32) {
        let rank = find(&self.ranks, module).unwrap_or(self.rank);
        let alpha = find(&self.alphas, module).unwrap_or(self.alpha);
        (rank, alpha / if self.stabilized { (rank as f32).sqrt() } else { rank as f32 })
    }

    /// The rank of modules without one of their own, and their factor.
    pub(super) fn usual(&self) -> (usize, f32) {
        self.of("")
    }
}

/// The value of the first key that names a module: all of it, or its end from a dot on.
fn find<T: Copy>(patterns: &[(String, T)], module: &str) -> Option<T> {
    let names = |key: &str| match key.strip_prefix('^') {
        Some(whole) => whole == module,
        None => module.strip_suffix(key).is_some_and(|before| before.is_empty() || before.ends_with('.')),
    };
    patterns.iter().find(|(key, _)| names(key)).map(|&(_, value)| value)
}

fn pattern<T>(
    fields: &Fields<'_>,
    config: &Map<String, Json>,
    name: &str,
    read: impl Fn(&Json) -> Option<T>,
) -> LoadResult<Vec<(String, T)>> {
    let entries = match config.get(name) {
        None | Some(Json::Null) => return Ok(Vec::new()),
        Some(Json::Object(entries)) if entries.len() <= MAX_PATTERNS => entries,
        Some(_) => return Err(fields.malformed(name, "must be an object of module names and numbers")),
    };
    let plain = |key: &str| {
        let key = key.strip_prefix('^').unwrap_or(key);
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
    };
    let entry = |(key, value): (&String, &Json)| {
        if !plain(key) {
            let problem = format!(
                "{key:?} is a regular expression: only names of modules, or their ends, are supported"
            );
            return Err(fields.unsupported(name, problem));
        }
        let value = read(value)
            .ok_or_else(|| fields.malformed(name, format!("{key:?} must have a positive number")))?;
        Ok((key.clone(), value))
    };
    entries.iter().map(entry).collect()
}

fn refuse_others(fields: &Fields<'_>, config: &Map<String, Json>) -> LoadResult<()> {
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
        None | Some(Json::Null | Json::Bool(_)) => Ok(()),
        Some(Json::String(kind)) if matches!(kind.as_str(), "gaussian" | "eva" | "orthogonal") => Ok(()),
        Some(kind) => {
            let problem =
                format!("{kind} changes the model's own weights: merge the adapter with PEFT first");
            Err(fields.unsupported("init_lora_weights", problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_modules_or_their_ends() {
        let settings = Settings {
            rank: 4,
            alpha: 8.0,
            stabilized: false,
            ranks: vec![("layers.1.q_proj".into(), 2), ("q_proj".into(), 16), ("^k_proj".into(), 8)],
            alphas: vec![("layers.1.q_proj".into(), 5.0)],
        };
        assert_eq!(settings.of("model.layers.1.q_proj"), (2, 2.5));
        assert_eq!(settings.of("model.layers.11.q_proj"), (16, 0.5));
        assert_eq!(settings.of("model.layers.11.xq_proj"), (4, 2.0), "not from the middle of a name");
        assert_eq!(settings.of("k_proj"), (8, 1.0));
        assert_eq!(settings.of("model.k_proj"), (4, 2.0));
        let stabilized = Settings { stabilized: true, ..settings };
        assert_eq!(stabilized.of("model.layers.11.q_proj"), (16, 2.0));
    }
}
