//! The vendors whose protocol is OpenAI's with differences.

use serde_json::Value;

use super::errors;
use crate::refusal::Refusal;

/// How a credential comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Auth {
    /// `Authorization: Bearer KEY`.
    Bearer,
    /// `api-key: KEY`, with the API's version in the query.
    Azure,
    /// `Authorization: Bearer KEY`, or a token signed with the key's second half.
    Zhipu,
}

/// Where a stream says what it cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In an event of its own before the end, if `stream_options.include_usage` asks for it.
    OwnEvent,
    /// In the event with the finish reason.
    LastEvent,
    /// In the choice with the finish reason.
    Choice,
    /// In every event, of what was sent so far.
    EveryEvent,
    /// Not in OpenAI's events.
    Nowhere,
}

/// What asks for reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thinks {
    /// Nothing: only a script has some.
    Never,
    /// `thinking: {"type": "enabled"}`, or a model with such a word in its name.
    Object(&'static str),
    /// `enable_thinking: true`.
    Flag,
}

/// One vendor's differences.
#[derive(Debug)]
pub(crate) struct Flavour {
    pub(crate) name: &'static str,
    pub(crate) base: &'static str,
    /// What ids of requests begin with.
    pub(crate) id: &'static str,
    /// The header field with the id.
    pub(crate) header: &'static str,
    pub(crate) auth: Auth,
    /// Beginnings of models' names.
    pub(crate) models: &'static [&'static str],
    /// Models for vectors, with their lengths.
    pub(crate) embeddings: &'static [(&'static str, usize)],
    /// The most texts of one request for vectors.
    pub(crate) batch: usize,
    /// Request fields beyond OpenAI's common ones.
    pub(crate) fields: &'static [&'static str],
    pub(crate) temperature: f64,
    pub(crate) thinks: Thinks,
    pub(crate) images: bool,
    pub(crate) place: Place,
    /// The word for a filtered answer.
    pub(crate) filtered: &'static str,
    /// Comments that keep the connection alive.
    pub(crate) comments: bool,
    /// Status and body of a refusal.
    pub(crate) refuse: fn(&Refusal, &str) -> (u16, Value),
}

const OPENAI_FIELDS: &[&str] = &[
    "audio",
    "function_call",
    "functions",
    "logit_bias",
    "metadata",
    "modalities",
    "parallel_tool_calls",
    "prediction",
    "prompt_cache_key",
    "reasoning_effort",
    "safety_identifier",
    "service_tier",
    "store",
    "verbosity",
    "web_search_options",
];

pub(crate) static ALL: &[Flavour] = &[
    Flavour {
        name: "openai",
        base: "/v1",
        id: "chatcmpl-",
        header: "x-request-id",
        auth: Auth::Bearer,
        models: &["gpt-", "o1", "o3", "o4", "chatgpt-"],
        embeddings: &[
            ("text-embedding-3-small", 1536),
            ("text-embedding-3-large", 3072),
            ("text-embedding-ada-002", 1536),
        ],
        batch: 2048,
        fields: OPENAI_FIELDS,
        temperature: 2.0,
        thinks: Thinks::Never,
        images: true,
        place: Place::OwnEvent,
        filtered: "content_filter",
        comments: false,
        refuse: errors::openai,
    },
    Flavour {
        name: "azure_openai",
        base: "",
        id: "chatcmpl-",
        header: "apim-request-id",
        auth: Auth::Azure,
        models: &["gpt-", "o1", "o3", "o4"],
        embeddings: &[
            ("text-embedding-3-small", 1536),
            ("text-embedding-3-large", 3072),
            ("text-embedding-ada-002", 1536),
        ],
        batch: 2048,
        fields: OPENAI_FIELDS,
        temperature: 2.0,
        thinks: Thinks::Never,
        images: true,
        place: Place::OwnEvent,
        filtered: "content_filter",
        comments: false,
        refuse: errors::azure,
    },
    Flavour {
        name: "zhipu",
        base: "/api/paas/v4",
        id: "2026",
        header: "x-log-id",
        auth: Auth::Zhipu,
        models: &["glm-", "chatglm", "charglm", "codegeex"],
        embeddings: &[("embedding-2", 1024), ("embedding-3", 2048)],
        batch: 64,
        fields: &[
            "do_sample",
            "meta",
            "request_id",
            "sensitive_word_check",
            "thinking",
            "tool_stream",
            "user_id",
        ],
        temperature: 1.0,
        thinks: Thinks::Object("glm-z1"),
        images: true,
        place: Place::LastEvent,
        filtered: "sensitive",
        comments: false,
        refuse: errors::zhipu,
    },
    Flavour {
        name: "baichuan",
        base: "/v1",
        id: "chatcmpl-",
        header: "x-bc-request-id",
        auth: Auth::Bearer,
        models: &["Baichuan"],
        embeddings: &[("Baichuan-Text-Embedding", 1024)],
        batch: 16,
        fields: &["metadata", "top_k", "with_search_enhance"],
        temperature: 2.0,
        thinks: Thinks::Never,
        images: false,
        place: Place::LastEvent,
        filtered: "content_filter",
        comments: false,
        refuse: errors::baichuan,
    },
    Flavour {
        name: "deepseek",
        base: "",
        id: "",
        header: "x-ds-trace-id",
        auth: Auth::Bearer,
        models: &["deepseek-"],
        embeddings: &[],
        batch: 0,
        fields: &["thinking"],
        temperature: 2.0,
        thinks: Thinks::Object("reasoner"),
        images: false,
        place: Place::OwnEvent,
        filtered: "content_filter",
        comments: true,
        refuse: errors::deepseek,
    },
    Flavour {
        name: "moonshot",
        base: "/v1",
        id: "chatcmpl-",
        header: "msh-request-id",
        auth: Auth::Bearer,
        models: &["moonshot-", "kimi-"],
        embeddings: &[],
        batch: 0,
        fields: &["prompt_cache_key", "safety_identifier", "thinking"],
        temperature: 1.0,
        thinks: Thinks::Object("thinking"),
        images: true,
        place: Place::Choice,
        filtered: "content_filter",
        comments: false,
        refuse: errors::moonshot,
    },
    Flavour {
        name: "siliconflow",
        base: "/v1",
        id: "",
        header: "x-siliconcloud-trace-id",
        auth: Auth::Bearer,
        models: &[
            "Qwen/",
            "deepseek-ai/",
            "THUDM/",
            "zai-org/",
            "moonshotai/",
            "Pro/",
            "internlm/",
            "tencent/",
            "baidu/",
        ],
        embeddings: &[
            ("BAAI/bge-m3", 1024),
            ("BAAI/bge-large-zh-v1.5", 1024),
            ("Qwen/Qwen3-Embedding-8B", 4096),
        ],
        batch: 32,
        fields: &["enable_thinking", "min_p", "thinking_budget", "top_k"],
        temperature: 2.0,
        thinks: Thinks::Flag,
        images: true,
        place: Place::EveryEvent,
        filtered: "content_filter",
        comments: false,
        refuse: errors::siliconflow,
    },
    Flavour {
        name: "volcengine",
        base: "/api/v3",
        id: "021",
        header: "x-request-id",
        auth: Auth::Bearer,
        models: &["doubao-", "ep-", "deepseek-", "kimi-"],
        embeddings: &[("doubao-embedding", 2560)],
        batch: 256,
        fields: &[
            "logit_bias",
            "max_completion_tokens",
            "parallel_tool_calls",
            "reasoning_effort",
            "repetition_penalty",
            "service_tier",
            "thinking",
        ],
        temperature: 2.0,
        thinks: Thinks::Object("thinking"),
        images: true,
        place: Place::OwnEvent,
        filtered: "content_filter",
        comments: false,
        refuse: errors::volcengine,
    },
];

/// `chatcompletion_v2`, below another path.
pub(crate) static MINIMAX: Flavour = Flavour {
    name: "minimax",
    base: "/v1",
    id: "",
    header: "trace-id",
    auth: Auth::Bearer,
    models: &["abab", "MiniMax-"],
    embeddings: &[],
    batch: 0,
    fields: &["mask_sensitive_info"],
    temperature: 1.0,
    thinks: Thinks::Object("M1"),
    images: true,
    place: Place::Nowhere,
    filtered: "content_filter",
    comments: false,
    refuse: super::minimax::error,
};

/// The second API.
pub(crate) static QIANFAN: Flavour = Flavour {
    name: "qianfan",
    base: "/v2",
    id: "as-",
    header: "x-bce-request-id",
    auth: Auth::Bearer,
    models: &["ernie-", "deepseek-", "qwen"],
    embeddings: &[("embedding-v1", 384), ("bge-large-zh", 1024), ("bge-large-en", 1024), ("tao-8k", 1024)],
    batch: 16,
    fields: &[
        "enable_thinking",
        "metadata",
        "penalty_score",
        "repetition_penalty",
        "safety",
        "user_setting",
        "web_search",
    ],
    temperature: 2.0,
    thinks: Thinks::Flag,
    images: true,
    place: Place::OwnEvent,
    filtered: "content_filter",
    comments: false,
    refuse: errors::qianfan,
};
