//! A byte tokenizer for the fake network, and short words for common requests.

use std::path::Path;
use std::sync::Arc;

use byzerllm_core::{ChatModel, ChatRequest, ChatResponse, Input, RequestContext, Sampling, collect};
use byzerllm_engine::{EngineOptions, LocalModel, ModelText};
use byzerllm_model::{ChatTemplate, SpecialTokens, Tokenizer};

use crate::fake::{BLOCK_BYTES, Control, END, HashNetwork, Shape};

/// The printable stand-in of a byte in byte-level vocabularies.
fn letter(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let index = (0..byte).filter(|&other| !printable(other)).count() as u32;
    char::from_u32(256 + index).unwrap()
}

/// One token per byte, `<s>` and `</s>`; a text gets `<s>` when special tokens are added.
pub(crate) fn tokenizer() -> Tokenizer {
    let mut vocabulary = serde_json::Map::new();
    for byte in 0..=255u8 {
        vocabulary.insert(letter(byte).to_string(), byte.into());
    }
    vocabulary.insert("<s>".into(), 256.into());
    vocabulary.insert("</s>".into(), 257.into());
    let special = |id: u32, content: &str| {
        serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let byte_level = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [special(256, "<s>"), special(257, "</s>")],
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}}},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": []}
    });
    Tokenizer::from_json(Path::new("tokenizer.json"), json.to_string().as_bytes()).unwrap()
}

pub(crate) fn model_text(template: bool) -> ModelText {
    let source = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
    ModelText {
        tokenizer: tokenizer(),
        template: template.then(|| ChatTemplate::new(source, SpecialTokens::default()).unwrap()),
        end_tokens: vec![END],
        name: "hash".to_owned(),
    }
}

/// A model over the hashing network with `blocks` cache blocks per group in all.
pub(crate) fn model(
    shape: &Shape,
    blocks: u64,
    change: impl FnOnce(&mut EngineOptions),
) -> (Arc<LocalModel>, Arc<Control>) {
    let control = Arc::new(Control::default());
    let network = HashNetwork::new(shape, control.clone());
    let mut options = EngineOptions {
        cache_bytes: blocks * BLOCK_BYTES * shape.windows.len() as u64,
        ..EngineOptions::default()
    };
    change(&mut options);
    let model = LocalModel::start(Box::new(network), model_text(true), options).unwrap();
    (Arc::new(model), control)
}

pub(crate) fn greedy(prompt: Input, max_tokens: u32) -> ChatRequest {
    let sampling = Sampling { temperature: Some(0.0), max_tokens: Some(max_tokens), ..Sampling::default() };
    ChatRequest { sampling, ..ChatRequest::new("hash", prompt) }
}

pub(crate) async fn ask(model: &LocalModel, request: ChatRequest) -> ChatResponse {
    collect(model.chat(request, RequestContext::local()).await.unwrap()).await.unwrap()
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Waits, without sleeping, until the engine has made something true.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed().as_secs() < 20, "waited too long until {what}");
        tokio::task::yield_now().await;
    }
}
