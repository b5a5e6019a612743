//! Models of the first version of the API: each has a path of its own, and parameters of its own.
//!
//! Source: `qianfan` 0.4.12.3, `resources/llm/chat_completion.py` and `resources/llm/embedding.py`.

/// A model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Model {
    /// Its name, and the older ones.
    name: &'static str,
    /// The last part of its path.
    pub(super) path: &'static str,
    takes: u8,
}

const FUNCTIONS: u8 = 1;
const CHOICE: u8 = 2;
const MAX: u8 = 4;
const FORMAT: u8 = 8;
const PENALTIES: u8 = 16;
const TOP_K: u8 = 32;

impl Model {
    /// The words of what it takes, for [`crate::dialects::shared::refuse_others`].
    pub(super) fn takes(&self) -> Vec<&'static str> {
        let mut words = vec!["temperature", "top_p", "stop", "repetition_penalty"];
        for (bit, names) in [
            (FUNCTIONS, ["tools"].as_slice()),
            (CHOICE, &["tool_choice"]),
            (MAX, &["max_tokens"]),
            (FORMAT, &["json_object"]),
            (PENALTIES, &["presence_penalty", "frequency_penalty"]),
            (TOP_K, &["top_k"]),
        ] {
            if self.takes & bit != 0 {
                words.extend(names);
            }
        }
        words
    }

    /// Whether new tokens can be bounded.
    pub(super) fn has_bound(&self) -> bool {
        self.takes & MAX != 0
    }

    /// Whether it calls functions.
    pub(super) fn has_functions(&self) -> bool {
        self.takes & FUNCTIONS != 0
    }
}

/// A model that the table does not know, with a path of its own: the vendor says what it does not take.
pub(super) const OTHER: Model = m("", "", FUNCTIONS | CHOICE | MAX | FORMAT | PENALTIES | TOP_K);

/// The chat model of that name.
pub(super) fn chat(name: &str) -> Option<&'static Model> {
    CHAT.iter().find(|model| model.name.eq_ignore_ascii_case(name))
}

/// The path of the embedding model of that name.
pub(super) fn embedding(name: &str) -> Option<&'static str> {
    EMBEDDING.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, path)| *path)
}

const EMBEDDING: &[(&str, &str)] = &[
    ("Embedding-V1", "embedding-v1"),
    ("bge-large-en", "bge_large_en"),
    ("bge-large-zh", "bge_large_zh"),
    ("tao-8k", "tao_8k"),
];

const fn m(name: &'static str, path: &'static str, takes: u8) -> Model {
    Model { name, path, takes }
}

const CHAT: &[Model] = &[
    m("ERNIE-4.0-8K-Latest", "ernie-4.0-8k-latest", MAX | FORMAT),
    m("ERNIE-4.0-8K-0613", "ernie-4.0-8k-0613", MAX | FORMAT),
    m("ERNIE-4.0-Turbo-8K", "ernie-4.0-turbo-8k", MAX | FORMAT),
    m("ERNIE-4.0-Turbo-8K-Latest", "ernie-4.0-turbo-8k-latest", MAX | FORMAT),
    m("ERNIE-4.0-Turbo-8K-Preview", "ernie-4.0-turbo-8k-preview", MAX | FORMAT),
    m("ERNIE-Lite-AppBuilder-8K-0614", "ai_apaas_lite", MAX | PENALTIES),
    m("ERNIE-3.5-8K-0701", "ernie-3.5-8k-0701", FUNCTIONS | CHOICE | MAX | FORMAT),
    m("ERNIE-3.5-8K-0613", "ernie-3.5-8k-0613", FUNCTIONS | CHOICE | MAX | FORMAT),
    m("ERNIE-Lite-Pro-8K", "ernie-lite-pro-8k", 0),
    m("ERNIE-Lite-8K-0922", "eb-instant", 0),
    m("ERNIE-Lite-8K-0308", "ernie-lite-8k", MAX | PENALTIES),
    m("ERNIE-Lite-V", "ernie-lite-v", MAX | PENALTIES),
    m("ERNIE-3.5-8K", "completions", FUNCTIONS | CHOICE | MAX | FORMAT),
    m("ERNIE-4.0-8K", "completions_pro", FUNCTIONS | MAX | FORMAT),
    m("ERNIE-4.0-8K-0329", "ernie-4.0-8k-0329", FUNCTIONS | MAX | FORMAT),
    m("ERNIE-4.0-8K-0104", "ernie-4.0-8k-0104", FUNCTIONS | MAX | FORMAT),
    m("ERNIE-4.0-8K-Preview-0518", "completions_adv_pro", FUNCTIONS | MAX | FORMAT),
    m("ERNIE-4.0-8K-preview", "ernie-4.0-8k-preview", FUNCTIONS | MAX | FORMAT),
    m("ERNIE-3.5-128K", "ernie-3.5-128k", FUNCTIONS | CHOICE | MAX | FORMAT),
    m("ERNIE-3.5-8K-preview", "ernie-3.5-8k-preview", FUNCTIONS | CHOICE | MAX | FORMAT),
    m("ERNIE-3.5-8K-0205", "ernie-3.5-8k-0205", FUNCTIONS | CHOICE | MAX | FORMAT),
    m("ERNIE-3.5-8K-0329", "ernie-3.5-8k-0329", FUNCTIONS | CHOICE | MAX | FORMAT),
    m("ERNIE-Speed-Pro-8K", "ernie-speed-pro-8k", MAX | PENALTIES),
    m("ERNIE-Speed-8K", "ernie_speed", MAX | PENALTIES),
    m("ERNIE-Speed-Pro-128K", "ernie-speed-pro-128k", MAX | PENALTIES),
    m("ERNIE-Speed-128K", "ernie-speed-128k", MAX | PENALTIES),
    m("ERNIE Speed-AppBuilder", "ai_apaas", 0),
    m("ERNIE-Tiny-8K", "ernie-tiny-8k", MAX | PENALTIES),
    m("ERNIE-Novel-8K", "ernie-novel-8k", MAX | PENALTIES),
    m("ERNIE-Function-8K", "ernie-func-8k", MAX),
    m("Qianfan-Dynamic-8K", "qianfan-dynamic-8k", FUNCTIONS | CHOICE | MAX | FORMAT),
    m("ERNIE-Character-8K", "ernie-char-8k", MAX),
    m("ERNIE-Character-Fiction-8K", "ernie-char-fiction-8k", MAX),
    m("BLOOMZ-7B", "bloomz_7b1", TOP_K),
    m("Llama-2-7B-Chat", "llama_2_7b", TOP_K),
    m("Llama-2-13B-Chat", "llama_2_13b", TOP_K),
    m("Llama-2-70B-Chat", "llama_2_70b", TOP_K),
    m("Meta-Llama-3-8B", "llama_3_8b", TOP_K),
    m("Meta-Llama-3-70B", "llama_3_70b", TOP_K),
    m("Qianfan-BLOOMZ-7B-compressed", "qianfan_bloomz_7b_compressed", TOP_K),
    m("Qianfan-Chinese-Llama-2-7B", "qianfan_chinese_llama_2_7b", TOP_K),
    m("ChatGLM2-6B-32K", "chatglm2_6b_32k", TOP_K),
    m("AquilaChat-7B", "aquilachat_7b", TOP_K),
    m("XuanYuan-70B-Chat-4bit", "xuanyuan_70b_chat", TOP_K),
    m("Qianfan-Chinese-Llama-2-13B", "qianfan_chinese_llama_2_13b", TOP_K),
    m("Qianfan-Chinese-Llama-2-70B", "qianfan_chinese_llama_2_70b", TOP_K),
    m("ChatLaw", "chatlaw", 0),
    m("Yi-34B-Chat", "yi_34b_chat", TOP_K),
    m("Mixtral-8x7B-Instruct", "mixtral_8x7b_instruct", TOP_K),
    m("Gemma-7B-it", "gemma_7b_it", TOP_K),
    m("ERNIE-Speed", "ernie_speed", MAX | PENALTIES),
    m("ERNIE 3.5", "completions", FUNCTIONS | CHOICE | MAX | FORMAT),
    m("ERNIE-Lite-8K", "ernie-lite-8k", MAX | PENALTIES),
    m("ERNIE-4.0-preview", "ernie-4.0-8k-preview", FUNCTIONS | MAX | FORMAT),
    m("ERNIE-3.5-preview", "ernie-3.5-8k-preview", FUNCTIONS | CHOICE | MAX | FORMAT),
    m("ERNIE-Functions-8K", "ernie-func-8k", MAX),
    m("ERNIE-Bot-4", "completions_pro", FUNCTIONS | MAX | FORMAT),
    m("ERNIE-Bot", "completions", FUNCTIONS | CHOICE | MAX | FORMAT),
    m("ERNIE-Bot-turbo", "eb-instant", 0),
    m("EB-turbo-AppBuilder", "ai_apaas", 0),
    m("ERNIE-Bot-turbo-AI", "ai_apaas", 0),
];
