//! `saas/deepseek`.
//!
//! Source: <https://api-docs.deepseek.com/api/create-chat-completion>.

use crate::dialects::openai::{Credential, OpenAi, Quirks, Takes};
use crate::{Features, Kind, Parameter, Vendor};

/// The vendor.
pub static VENDOR: Vendor = Vendor {
    name: "deepseek",
    aliases: &[],
    title: "DeepSeek",
    documentation: "https://api-docs.deepseek.com/api/create-chat-completion",
    parameters: &[
        Parameter::new("api_key", Kind::Secret, "The API key").required(),
        Parameter::new("model", Kind::Text, "`deepseek-chat`, `deepseek-reasoner`, …").or("deepseek-chat"),
        Parameter::new(
            "base_url",
            Kind::Url,
            "Where the API is; https://api.deepseek.com/beta takes `prefix` and strict tools",
        ),
    ],
    open: |parameters| {
        let mut quirks = QUIRKS;
        if parameters.url("base_url").is_some_and(|url| url.path().trim_end_matches('/').ends_with("/beta")) {
            quirks.takes = quirks.takes.and(Takes::STRICT_TOOLS);
            quirks.message_extra = &["prefix"];
        }
        if parameters.text("model") == "deepseek-reasoner" {
            quirks = quirks.reasoning();
        }
        let credential = Credential::bearer(parameters.secret("api_key"))?;
        Ok(OpenAi::open(quirks, parameters, "https://api.deepseek.com")?.with_credential(credential).boxed())
    },
};

const QUIRKS: Quirks = Quirks {
    vendor: "DeepSeek",
    features: Features { embeddings: false, images: false, ..Quirks::OPENAI.features },
    takes: Takes::TEMPERATURE
        .and(Takes::TOP_P)
        .and(Takes::MAX_TOKENS)
        .and(Takes::STOP)
        .and(Takes::PRESENCE_PENALTY)
        .and(Takes::FREQUENCY_PENALTY)
        .and(Takes::LOGPROBS)
        .and(Takes::ALL_TOOLS)
        .and(Takes::JSON_OBJECT)
        .and(Takes::NAMES),
    embeddings: None,
    max_stop: 16,
    extra: &["reasoning_effort", "thinking"],
    reasoning_back: true,
    ..Quirks::OPENAI
};
