//! Published prompt formats by class, where the class says enough, and by what else the files say, where it does not.

use serde_json::Value as Json;

use super::Checkpoint;
use crate::arch::source::Format;
use crate::template::formats::{BAICHUAN, BAICHUAN2, DOLLY, LLAMA2, MOSS, QWEN, STARCHAT, VICUNA, YI};
use crate::template::published::PromptFormat;

/// The format of a checkpoint, when it is certain. Classes such as Llama's cover models of many formats: there the
/// published name, the pipeline or the special tokens that the files mention decide.
pub(super) fn of(checkpoint: &Checkpoint) -> Option<&'static PromptFormat> {
    match checkpoint.class.as_str() {
        "BaichuanForCausalLM" if !chats(checkpoint) => None,
        "BaichuanForCausalLM" if checkpoint.config.head.normalized => Some(&BAICHUAN2),
        // The 7B model of the first generation was not published as one that chats.
        "BaichuanForCausalLM" if !has_rope(checkpoint) => Some(&BAICHUAN),
        "QWenLMHeadModel" => Some(&QWEN),
        "MossForCausalLM" => Some(&MOSS),
        "YiForCausalLM" => Some(&YI),
        "GPTNeoXForCausalLM" if mentions(checkpoint, "custom_pipelines", "instruct_pipeline") => Some(&DOLLY),
        "GPTBigCodeForCausalLM" | "Starcoder2ForCausalLM" if has_turns(checkpoint) => Some(&STARCHAT),
        "LlamaForCausalLM" | "LLaMAForCausalLM" => llama(&names(checkpoint)),
        _ => None,
    }
}

fn llama(names: &str) -> Option<&'static PromptFormat> {
    if names.contains("vicuna") {
        Some(&VICUNA)
    } else if names.contains("llama-2") && names.contains("chat") {
        Some(&LLAMA2)
    } else {
        None
    }
}

/// Whether it is a chat model and not the base of one, which has the same class: by the tokens of turns in
/// `generation_config.json`, or by its name.
fn chats(checkpoint: &Checkpoint) -> bool {
    checkpoint.generation.marks_turns || names(checkpoint).contains("chat")
}

fn has_rope(checkpoint: &Checkpoint) -> bool {
    let rope = |position: &_| matches!(position, crate::config::PositionEncoding::Rope(_));
    checkpoint.config.layers.first().is_some_and(|layer| rope(&layer.attention.position))
}

/// The names under which the files were published, in small letters.
fn names(checkpoint: &Checkpoint) -> String {
    match &checkpoint.source.format {
        Format::Gguf { file, .. } => {
            let keys = ["general.name", "general.basename", "general.finetune"];
            let known = keys.iter().filter_map(|key| file.text(key));
            known.collect::<Vec<_>>().join(" ").to_lowercase().replace(' ', "-")
        }
        Format::HuggingFace { config, .. } => {
            let tokenizer = checkpoint.extras.as_ref().map(|extras| extras.tokenizer_config());
            let names =
                [config.get("_name_or_path"), tokenizer.and_then(|config| config.get("name_or_path"))];
            let names = names.into_iter().flatten().filter_map(Json::as_str);
            names.collect::<Vec<_>>().join(" ").to_lowercase()
        }
    }
}

/// Whether a field of `config.json` mentions a word.
fn mentions(checkpoint: &Checkpoint, field: &str, word: &str) -> bool {
    match &checkpoint.source.format {
        Format::HuggingFace { config, .. } => {
            config.get(field).is_some_and(|value| value.to_string().contains(word))
        }
        Format::Gguf { .. } => false,
    }
}

/// Whether the tokenizer has StarChat's marks of turns.
fn has_turns(checkpoint: &Checkpoint) -> bool {
    let Some(extras) = &checkpoint.extras else { return false };
    let config = extras.tokenizer_config();
    let fields = ["additional_special_tokens", "added_tokens_decoder"];
    let text: String = fields.iter().filter_map(|name| Some(config.get(name)?.to_string())).collect();
    ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"].iter().all(|token| text.contains(token))
}
