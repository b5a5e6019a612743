//! Which published prompt format a checkpoint was trained on, for those whose files have no template.

use serde_json::Value as Json;

use super::{Checkpoint, chat_format, vocabulary_files};
use crate::arch::source::Format;
use crate::template::published::{CHATGLM_6B, CHATGLM2, CHATGLM3, GLM4, PromptFormat};

/// The format of a checkpoint's family, when it has one.
pub(super) fn of(checkpoint: &Checkpoint) -> Option<&'static PromptFormat> {
    match checkpoint.class.as_str() {
        "ChatGLMModel" | "ChatGLMForConditionalGeneration" => Some(chatglm(checkpoint)),
        "GlmForCausalLM" | "Glm4ForCausalLM" => Some(&GLM4),
        _ => chat_format::of(checkpoint),
    }
}

/// All of them share their class: the network tells the first one, the vocabulary the last one, and only the name
/// the two between them.
fn chatglm(checkpoint: &Checkpoint) -> &'static PromptFormat {
    if checkpoint.config.prefix_context.is_some() {
        return &CHATGLM_6B;
    }
    let (ranks, name) = match &checkpoint.source.format {
        Format::Gguf { file, .. } => {
            (file.text("tokenizer.ggml.model") == Some("gpt2"), file.text("general.name").map(str::to_owned))
        }
        Format::HuggingFace { config, .. } => {
            let tokenizer = checkpoint.extras.as_ref().map(|extras| extras.tokenizer_config());
            let class = tokenizer.and_then(|config| config.get("tokenizer_class")).and_then(Json::as_str);
            let names =
                [config.get("_name_or_path"), tokenizer.and_then(|config| config.get("name_or_path"))];
            let names = names.into_iter().flatten().filter_map(Json::as_str).collect::<Vec<_>>().join(" ");
            (class == Some("ChatGLM4Tokenizer"), Some(names))
        }
    };
    match (ranks, name.is_some_and(|name| vocabulary_files::is_chatglm2(&name))) {
        (true, _) => &GLM4,
        (false, true) => &CHATGLM2,
        (false, false) => &CHATGLM3,
    }
}
