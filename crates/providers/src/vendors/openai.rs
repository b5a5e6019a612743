//! `saas/openai`, `saas/official_openai`, `saas/reasoning_openai`: OpenAI, and every server that speaks its dialect.
//!
//! Source: <https://platform.openai.com/docs/api-reference/chat>,
//! <https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html>.

use std::sync::Arc;

use byzerllm_core::{Error, Result};

use crate::dialects::openai::{Credential, EmbeddingQuirks, OpenAi, Quirks, Takes};
use crate::{Dialect, Kind, Parameter, Parameters, Vendor};

const BASE: &str = "https://api.openai.com/v1";

const PARAMETERS: &[Parameter] = &[
    Parameter::new("api_key", Kind::Secret, "The API key; servers of your own may do without"),
    Parameter::new("model", Kind::Text, "The model's name").or("gpt-4o-mini"),
    Parameter::new("base_url", Kind::Url, "Where the API is, up to and with its version").also(&["api_base"]),
    Parameter::new("api_type", Kind::Choice(&["open_ai", "openai", "azure"]), "Of old programs; `open_ai`"),
    Parameter::new("api_version", Kind::Text, "Query parameter `api-version`, for servers that want one"),
    Parameter::new("organization", Kind::Text, "Header `OpenAI-Organization`"),
    Parameter::new("project", Kind::Text, "Header `OpenAI-Project`"),
    Parameter::new(
        "server",
        Kind::Choice(&["openai", "vllm"]),
        "What the server takes: OpenAI's parameters, or vLLM's, too",
    )
    .or("openai"),
    Parameter::new(
        "is_reasoning",
        Kind::Choice(&["auto", "true", "false"]),
        "Whether the model takes no sampling parameters; `auto` goes by the names of OpenAI's models",
    )
    .or("auto"),
    Parameter::new(
        "strict_schemas",
        Kind::Flag,
        "Whether a JSON Schema is sent with `strict`, so that it is enforced",
    )
    .or("true"),
];

/// OpenAI and its like.
pub static VENDOR: Vendor = Vendor {
    name: "openai",
    aliases: &["official_openai"],
    title: "OpenAI, and every server that speaks its dialect",
    documentation: "https://platform.openai.com/docs/api-reference/chat",
    parameters: PARAMETERS,
    open: |parameters| open(parameters, false),
};

/// The same for models that reason.
pub static REASONING: Vendor = Vendor {
    name: "reasoning_openai",
    aliases: &[],
    title: "Reasoning models of OpenAI, and of every server that speaks its dialect",
    documentation: "https://platform.openai.com/docs/guides/reasoning",
    parameters: PARAMETERS,
    open: |parameters| open(parameters, true),
};

/// What servers of other makers read beside OpenAI's own parameters.
const COMPATIBLE_EXTRA: &[&str] = &[
    "add_generation_prompt",
    "chat_template_kwargs",
    "continue_final_message",
    "enable_thinking",
    "include_stop_str_in_output",
    "length_penalty",
    "metadata",
    "mm_processor_kwargs",
    "models",
    "prediction",
    "priority",
    "prompt_cache_key",
    "prompt_cache_retention",
    "provider",
    "reasoning",
    "reasoning_effort",
    "safety_identifier",
    "service_tier",
    "skip_special_tokens",
    "store",
    "thinking",
    "thinking_budget",
    "truncate_prompt_tokens",
    "user",
    "verbosity",
    "web_search_options",
];

fn open(parameters: &Parameters, reasons: bool) -> Result<Arc<dyn Dialect>> {
    if parameters.text("api_type") == "azure" {
        return Err(Error::invalid(
            "saas.api_type",
            "saas.api_type=azure is a vendor of its own: deploy saas/azure_openai",
        ));
    }
    let own = parameters.url("base_url").is_none_or(|url| url.host_str() == Some("api.openai.com"));
    let model = parameters.text("model");
    let mut quirks = Quirks { strict_schemas: parameters.flag("strict_schemas"), ..Quirks::OPENAI };
    if !own {
        quirks.vendor = "the OpenAI-compatible server";
        quirks.extra = COMPATIBLE_EXTRA;
    }
    if parameters.text("server") == "vllm" {
        quirks.takes = quirks.takes.and(Takes::VLLM);
        quirks.max_stop = usize::MAX;
        quirks.reasoning_back = true;
        quirks.embeddings =
            Some(EmbeddingQuirks { extra: &["truncate_prompt_tokens", "user"], ..EmbeddingQuirks::OPENAI });
    }
    if names_reasoning(model) {
        quirks.max_tokens = "max_completion_tokens";
    }
    match parameters.text("is_reasoning") {
        "true" => quirks = quirks.reasoning(),
        "auto" if reasons || names_reasoning(model) => quirks = quirks.reasoning(),
        _ => {}
    }
    if own && parameters.secret("api_key").is_none() {
        return Err(Error::invalid(
            "saas.api_key",
            "saas/openai needs saas.api_key: the API key, as env:NAME or file:PATH",
        ));
    }
    let mut dialect = OpenAi::open(quirks, parameters, BASE)?
        .with_credential(Credential::bearer(parameters.secret("api_key"))?);
    for (name, header, shown) in [
        ("organization", "openai-organization", "saas.organization"),
        ("project", "openai-project", "saas.project"),
    ] {
        if let Some(value) = parameters.optional_text(name) {
            dialect = dialect.with_header(header, value, shown)?;
        }
    }
    if let Some(version) = parameters.optional_text("api_version") {
        dialect = dialect.with_query("api-version", version);
    }
    Ok(dialect.boxed())
}

/// Whether OpenAI names its reasoning models so: `o1`, `o3-mini`, `gpt-5`. `gpt-5-chat-latest` is none.
pub(super) fn names_reasoning(model: &str) -> bool {
    let numbered = model.strip_prefix('o').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    numbered || (model.starts_with("gpt-5") && !model.contains("-chat"))
}
