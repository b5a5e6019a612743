//! `saas/siliconflow`: chat and embeddings of open models.
//!
//! Source: <https://docs.siliconflow.cn/cn/api-reference/chat-completions/chat-completions>,
//! <https://docs.siliconflow.cn/cn/api-reference/embeddings/create-embeddings>.

use crate::dialects::openai::{Credential, EmbeddingQuirks, Meaning, OpenAi, Quirks, Takes};
use crate::{Kind, Parameter, Vendor};

/// The vendor.
pub static VENDOR: Vendor = Vendor {
    name: "siliconflow",
    aliases: &[],
    title: "SiliconFlow",
    documentation: "https://docs.siliconflow.cn/cn/api-reference/chat-completions/chat-completions",
    parameters: &[
        Parameter::new("api_key", Kind::Secret, "The API key").required(),
        Parameter::new("model", Kind::Text, "The model's name, with its maker: `Qwen/Qwen3-8B`").required(),
        Parameter::new(
            "base_url",
            Kind::Url,
            "Where the API is; https://api.siliconflow.com/v1 outside of China",
        ),
    ],
    open: |parameters| {
        let credential = Credential::bearer(parameters.secret("api_key"))?;
        Ok(OpenAi::open(QUIRKS, parameters, "https://api.siliconflow.cn/v1")?
            .with_credential(credential)
            .boxed())
    },
};

const QUIRKS: Quirks = Quirks {
    vendor: "SiliconFlow",
    takes: Takes::TEMPERATURE
        .and(Takes::TOP_P)
        .and(Takes::TOP_K)
        .and(Takes::MIN_P)
        .and(Takes::MAX_TOKENS)
        .and(Takes::STOP)
        .and(Takes::FREQUENCY_PENALTY)
        .and(Takes::N)
        .and(Takes::TOOLS)
        .and(Takes::STRICT_TOOLS)
        .and(Takes::JSON_OBJECT)
        .and(Takes::IMAGES),
    embeddings: Some(EmbeddingQuirks { batch: 32, extra: &[], ..EmbeddingQuirks::OPENAI }),
    // `max_tokens` does not bound the reasoning, which `thinking_budget` does, at most at this.
    reasoning_beyond: 32_768,
    // Every chunk holds the usage so far.
    stream_options: false,
    extra: &["enable_thinking", "reasoning_effort", "thinking_budget"],
    codes: CODES,
    ..Quirks::OPENAI
};

const CODES: &[(&str, Meaning)] = &[
    ("20012", Meaning::NotFound),
    ("20015", Meaning::Invalid),
    ("30001", Meaning::Balance),
    ("30003", Meaning::NotFound),
    ("50505", Meaning::Overloaded),
    ("50603", Meaning::Overloaded),
];
