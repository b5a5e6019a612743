//! `saas/baichuan`: chat and Baichuan-Text-Embedding.
//!
//! Source: <https://platform.baichuan-ai.com/docs/api> (chat), <https://platform.baichuan-ai.com/docs/text-Embedding>.

use std::sync::Arc;

use byzerllm_core::{Error, Result};

use crate::dialects::openai::{Body, Credential, EmbeddingQuirks, OpenAi, Quirks, Takes};
use crate::{Dialect, Features, Kind, Parameter, Parameters, Vendor};

/// The vendor.
pub static VENDOR: Vendor = Vendor {
    name: "baichuan",
    aliases: &[],
    title: "Baichuan",
    documentation: "https://platform.baichuan-ai.com/docs/api",
    parameters: &[
        Parameter::new("api_key", Kind::Secret, "The API key").required(),
        Parameter::new("model", Kind::Text, "`Baichuan4-Turbo`, `Baichuan-Text-Embedding`, …")
            .or("Baichuan2-Turbo"),
        Parameter::new("base_url", Kind::Url, "Where the API is"),
        Parameter::new("baichuan_api_url", Kind::Url, "The endpoint in full, as old programs name it"),
    ],
    open,
};

fn open(parameters: &Parameters) -> Result<Arc<dyn Dialect>> {
    let credential = Credential::bearer(parameters.secret("api_key"))?;
    let dialect = match (parameters.url("baichuan_api_url"), parameters.url("base_url")) {
        (Some(_), Some(_)) => {
            let message = "saas.baichuan_api_url and saas.base_url say the same; give one of them";
            return Err(Error::invalid("saas.baichuan_api_url", message));
        }
        (Some(url), None) => OpenAi::at(QUIRKS, parameters.text("model"), url)?,
        (None, _) => OpenAi::open(QUIRKS, parameters, "https://api.baichuan-ai.com/v1")?,
    };
    Ok(dialect.with_credential(credential).boxed())
}

const QUIRKS: Quirks = Quirks {
    vendor: "Baichuan",
    features: Features { reasoning: false, images: false, ..Quirks::OPENAI.features },
    takes: Takes::TEMPERATURE
        .and(Takes::TOP_P)
        .and(Takes::TOP_K)
        .and(Takes::MAX_TOKENS)
        .and(Takes::TOOLS)
        .and(Takes::CHOICE_NONE)
        .and(Takes::CHOICE_NAMED)
        .and(Takes::JSON_OBJECT),
    embeddings: Some(EmbeddingQuirks {
        dimensions: false,
        base64: false,
        tokens: false,
        batch: 16,
        extra: &[],
        ..EmbeddingQuirks::OPENAI
    }),
    temperature: (0.0, 1.0),
    top_p: (1.0, true),
    // The last chunk holds the usage.
    stream_options: false,
    extra: &["knowledge_base", "retrieval", "web_search", "with_search_enhance"],
    extra_tools: &["retrieval", "web_search"],
    adjust: Some(adjust),
    ..Quirks::OPENAI
};

/// Baichuan takes more than 20 as 20, without a word.
fn adjust(body: &mut Body<'_>) -> Result<()> {
    match body.rest.get("top_k").and_then(serde_json::Value::as_u64) {
        Some(top_k) if top_k > 20 => {
            Err(Error::invalid("top_k", format!("Baichuan takes a top_k of at most 20, got {top_k}")))
        }
        _ => Ok(()),
    }
}
