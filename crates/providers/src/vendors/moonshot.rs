//! `saas/moonshot`: Kimi.
//!
//! Source: <https://platform.moonshot.cn/docs/api/chat>.

use byzerllm_core::{Error, Result};
use serde_json::{Value, json};

use crate::dialects::openai::{Body, Credential, OpenAi, Quirks, Takes, WireTool};
use crate::{Features, Kind, Parameter, Vendor};

/// The vendor.
pub static VENDOR: Vendor = Vendor {
    name: "moonshot",
    aliases: &["kimi"],
    title: "Moonshot AI (Kimi)",
    documentation: "https://platform.moonshot.cn/docs/api/chat",
    parameters: &[
        Parameter::new("api_key", Kind::Secret, "The API key").required(),
        Parameter::new("model", Kind::Text, "The model's name").required(),
        Parameter::new(
            "base_url",
            Kind::Url,
            "Where the API is; https://api.moonshot.ai/v1 outside of China",
        ),
    ],
    open: |parameters| {
        let credential = Credential::bearer(parameters.secret("api_key"))?;
        Ok(OpenAi::open(QUIRKS, parameters, "https://api.moonshot.cn/v1")?
            .with_credential(credential)
            .boxed())
    },
};

const QUIRKS: Quirks = Quirks {
    vendor: "Moonshot",
    features: Features { embeddings: false, ..Quirks::OPENAI.features },
    takes: Takes::TEMPERATURE
        .and(Takes::TOP_P)
        .and(Takes::MAX_TOKENS)
        .and(Takes::STOP)
        .and(Takes::PRESENCE_PENALTY)
        .and(Takes::FREQUENCY_PENALTY)
        .and(Takes::N)
        .and(Takes::TOOLS)
        .and(Takes::CHOICE_NONE)
        .and(Takes::JSON_OBJECT)
        .and(Takes::JSON_SCHEMA)
        .and(Takes::IMAGES)
        .and(Takes::NAMES),
    embeddings: None,
    max_stop: 5,
    temperature: (0.0, 1.0),
    extra: &["builtin_functions", "prompt_cache_key", "safety_identifier", "thinking"],
    message_extra: &["partial"],
    reasoning_back: true,
    adjust: Some(adjust),
    ..Quirks::OPENAI
};

/// Functions that Moonshot runs itself (`$web_search`) stand among the tools by their names.
fn adjust(body: &mut Body<'_>) -> Result<()> {
    let Some(names) = body.rest.remove("builtin_functions") else { return Ok(()) };
    let names: Option<Vec<&str>> =
        names.as_array().and_then(|names| names.iter().map(Value::as_str).collect());
    let names = names.ok_or_else(|| {
        Error::invalid(
            "builtin_functions",
            r#"builtin_functions must be a list of names, like ["$web_search"]"#,
        )
    })?;
    for name in names {
        body.tools.push(WireTool::Own(json!({"type": "builtin_function", "function": {"name": name}})));
    }
    Ok(())
}
