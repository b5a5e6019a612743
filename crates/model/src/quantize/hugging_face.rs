//! The small files of a directory: configuration, tokenizer, chat template, generation defaults.

use byzerllm_kernels::TensorType;
use serde_json::{Map, Value as Json, json};

use super::atomic::AtomicDirectory;
use super::error::QuantizeError;
use super::families::Family;
use super::sentencepiece;
use crate::arch::source::Format;
use crate::checkpoint::Checkpoint;
use crate::config::PositionEncoding;
use crate::load_error::LoadError;
use crate::rope::{RopeConfig, RopeScaling};

/// Files of weights, which are not copied.
const WEIGHTS: [&str; 9] = ["safetensors", "bin", "gguf", "pt", "pth", "onnx", "h5", "msgpack", "ot"];
/// Larger files beside a model are not its tokenizer.
const MAX_COPIED: u64 = 256 << 20;

/// The family of a GGUF file.
pub(super) fn family(checkpoint: &Checkpoint) -> Result<&'static Family, QuantizeError> {
    Family::of_class(checkpoint.architecture()).ok_or_else(|| {
        let problem = format!(
            "{} cannot be written as a directory by this version; possible are {}, and every directory",
            checkpoint.architecture(),
            Family::classes()
        );
        QuantizeError::unsupported(checkpoint.path(), problem)
    })
}

/// Writes all but `config.json`, which is returned.
pub(super) fn write(
    checkpoint: &Checkpoint,
    directory: &AtomicDirectory,
    kind: TensorType,
) -> Result<Map<String, Json>, QuantizeError> {
    let dtype = match kind {
        TensorType::F16 => "float16",
        TensorType::BF16 => "bfloat16",
        _ => "float32",
    };
    let mut config = match &checkpoint.source().format {
        Format::HuggingFace { config, .. } => {
            copy(checkpoint, directory)?;
            config.clone()
        }
        Format::Gguf { .. } => {
            tokenizer(checkpoint, directory)?;
            config(checkpoint)?
        }
    };
    config.remove("dtype");
    config.insert("torch_dtype".to_owned(), dtype.into());
    Ok(config)
}

/// Copies what is neither weights nor the configuration.
fn copy(checkpoint: &Checkpoint, directory: &AtomicDirectory) -> Result<(), QuantizeError> {
    let from = checkpoint.directory();
    let failed = |source| QuantizeError::Load(LoadError::io(from, source));
    for entry in std::fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let extension = name.rsplit('.').next().unwrap_or_default();
        let weights = WEIGHTS.contains(&extension) || name.ends_with(".index.json");
        let metadata = entry.path().metadata().map_err(failed)?;
        let own = matches!(name.as_str(), "config.json" | "quantize_config.json");
        if weights || own || name.starts_with('.') || !metadata.is_file() || metadata.len() > MAX_COPIED {
            continue;
        }
        let bytes = std::fs::read(entry.path()).map_err(failed)?;
        directory.write(&name, &bytes)?;
    }
    Ok(())
}

/// `config.json` of a GGUF file's model.
fn config(checkpoint: &Checkpoint) -> Result<Map<String, Json>, QuantizeError> {
    let family = family(checkpoint)?;
    let path = checkpoint.path();
    let config = checkpoint.config();
    let layer = config.layers.first().ok_or_else(|| QuantizeError::unsupported(path, "has no layers"))?;
    let attention = &layer.attention;
    let PositionEncoding::Rope(rope) = &attention.position else {
        return Err(QuantizeError::unsupported(path, "has no rotary positions"));
    };
    let ends = checkpoint.end_tokens();
    let has = |name: &str| checkpoint.source().tensors.contains(&format!("blk.0.{name}.bias"));
    let mut json = json!({
        "architectures": [family.class],
        "model_type": family.model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": layer.mlp.intermediate_size,
        "num_hidden_layers": config.layers.len(),
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        "head_dim": attention.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.context_length,
        "rms_norm_eps": plain(layer.norm.epsilon),
        "rope_theta": plain(rope.base),
        "rope_scaling": scaling(checkpoint, rope)?,
        "tie_word_embeddings": config.head.tied,
        "bos_token_id": checkpoint.generation_defaults().bos_token_id,
        "eos_token_id": if ends.len() == 1 { json!(ends[0]) } else { json!(ends) },
    });
    match family.model_type {
        "llama" => {
            json["attention_bias"] = has("attn_q").into();
            json["mlp_bias"] = has("ffn_up").into();
        }
        "qwen2" | "qwen3" => json["use_sliding_window"] = false.into(),
        _ => {}
    }
    match json {
        Json::Object(fields) => Ok(fields),
        _ => Ok(Map::new()),
    }
}

/// A float with the digits that its 32 bits have, not those that 64 bits would add.
fn plain(value: f32) -> Json {
    value.to_string().parse::<f64>().map_or(Json::Null, Json::from)
}

/// `rope_scaling` of `config.json`.
fn scaling(checkpoint: &Checkpoint, rope: &RopeConfig) -> Result<Json, QuantizeError> {
    Ok(match &rope.scaling {
        RopeScaling::None => Json::Null,
        RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
        RopeScaling::Yarn { factor, beta_fast, beta_slow, original_context, attention_factor } => json!({
            "rope_type": "yarn", "factor": factor, "beta_fast": beta_fast, "beta_slow": beta_slow,
            "original_max_position_embeddings": *original_context as u64, "attention_factor": attention_factor,
        }),
        RopeScaling::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_context } => {
            llama3(*factor, *low_frequency_factor, *high_frequency_factor, *original_context)
        }
        RopeScaling::Divisors { divisors, .. } => {
            // Files keep what Llama 3's rule gives; its parameters are those of the published models.
            let factor = divisors.iter().copied().fold(1.0_f32, f32::max).round();
            let scaling = RopeScaling::Llama3 {
                factor,
                low_frequency_factor: 1.0,
                high_frequency_factor: 4.0,
                original_context: 8192.0,
            };
            let (ruled, _) = RopeConfig { scaling, ..rope.clone() }.frequencies();
            let (found, _) = rope.frequencies();
            if ruled.iter().zip(&found).any(|(ruled, found)| (ruled - found).abs() > 1e-4 * found) {
                let problem = "divides its rotary frequencies in a way that config.json has no words for";
                return Err(QuantizeError::unsupported(checkpoint.path(), problem));
            }
            llama3(factor, 1.0, 4.0, 8192.0)
        }
    })
}

fn llama3(factor: f32, low: f32, high: f32, original: f32) -> Json {
    json!({
        "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
        "original_max_position_embeddings": original as u64,
    })
}

/// The tokenizer of a GGUF file as `tokenizer.json` and `tokenizer_config.json`, and the generation defaults.
fn tokenizer(checkpoint: &Checkpoint, directory: &AtomicDirectory) -> Result<(), QuantizeError> {
    let tokenizer = checkpoint.tokenizer()?;
    if let Format::Gguf { file, .. } = &checkpoint.source().format
        && let Some(model) = sentencepiece::model(&file.vocabulary()?)
    {
        directory.write("tokenizer.model", &model)?;
    }
    let json = tokenizer.to_json().map_err(LoadError::from)?;
    directory.write("tokenizer.json", json.to_string().as_bytes())?;
    let ids = checkpoint.special_ids(&tokenizer);
    let token = |id: Option<u32>| id.and_then(|id| tokenizer.token(id)).map(str::to_owned);
    let mut config = Map::new();
    config.insert("tokenizer_class".to_owned(), "PreTrainedTokenizerFast".into());
    config.insert("clean_up_tokenization_spaces".to_owned(), false.into());
    config.insert("model_max_length".to_owned(), checkpoint.config().context_length.into());
    for (name, id) in [("bos", ids.bos), ("eos", ids.eos), ("unk", ids.unk), ("pad", ids.pad)] {
        if let Some(text) = token(id) {
            config.insert(format!("{name}_token"), text.into());
        }
    }
    if let Some(template) = checkpoint.chat_template()? {
        config.insert("chat_template".to_owned(), template.source().into());
        if template.source_for(true) != template.source() {
            directory.write("chat_template.jinja", template.source().as_bytes())?;
            std::fs::create_dir(directory.join("additional_chat_templates"))
                .map_err(|source| QuantizeError::write(checkpoint.path(), source))?;
            directory
                .write("additional_chat_templates/tool_use.jinja", template.source_for(true).as_bytes())?;
        }
    }
    directory.write("tokenizer_config.json", Json::Object(config).to_string().as_bytes())?;
    let ends = checkpoint.end_tokens();
    let generation = json!({"bos_token_id": ids.bos, "eos_token_id": ends, "pad_token_id": ids.pad});
    directory.write("generation_config.json", generation.to_string().as_bytes())
}
