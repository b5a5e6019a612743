//! `saas/qianfan`: Baidu's Qianfan, with the keys of its first API (AK and SK, exchanged for a token) or of its second
//! (`bce-v3/…`), which speaks OpenAI's dialect.
//!
//! Source: Qianfan documentation, "ERNIE-4.0-8K", "Embedding-V1", "Error codes", "Authentication by access_token", "V2";
//! `qianfan` 0.4.12.3.

mod answer;
mod first;
mod models;

use std::sync::Arc;

use byzerllm_core::{Error, Result};

use crate::dialects::openai::{Credential, EmbeddingQuirks, Meaning, OpenAi, Quirks, Takes};
use crate::{Dialect, Kind, Parameter, Parameters, Vendor};

/// The vendor.
pub static VENDOR: Vendor = Vendor {
    name: "qianfan",
    aliases: &["wenxin"],
    title: "Baidu Qianfan (ERNIE)",
    documentation: "https://cloud.baidu.com/doc/WENXINWORKSHOP/index.html",
    parameters: &[
        Parameter::new(
            "api_key",
            Kind::Secret,
            "The AK of an application, or a key of the second API (bce-v3/…)",
        ),
        Parameter::new("secret_key", Kind::Secret, "The SK that belongs to the AK"),
        Parameter::new("access_token", Kind::Secret, "A token, when you exchange AK and SK yourself"),
        Parameter::new("model", Kind::Text, "The model; without one ERNIE-Bot-turbo, with AK and SK"),
        Parameter::new(
            "endpoint",
            Kind::Text,
            "The last part of the path of a service of your own, with AK and SK",
        ),
        Parameter::new("app_id", Kind::Text, "Header `appid`, with a key of the second API"),
    ],
    open,
};

fn open(parameters: &Parameters) -> Result<Arc<dyn Dialect>> {
    if parameters.secret("access_token").is_some() || parameters.secret("secret_key").is_some() {
        return Ok(Arc::new(first::Qianfan::open(parameters)?));
    }
    let Some(key) = parameters.secret("api_key") else {
        let message = "saas/qianfan needs saas.api_key with saas.secret_key (AK and SK), saas.access_token, or a \
                       saas.api_key of the second API (bce-v3/…)";
        return Err(Error::invalid("saas.api_key", message));
    };
    if parameters.optional_text("endpoint").is_some() {
        let message = "saas.endpoint goes with AK and SK: set saas.secret_key, or leave out saas.endpoint";
        return Err(Error::invalid("saas.endpoint", message));
    }
    let mut dialect = OpenAi::open(SECOND, parameters, "https://qianfan.baidubce.com/v2")?
        .with_credential(Credential::bearer(Some(key))?);
    if let Some(app) = parameters.optional_text("app_id") {
        dialect = dialect.with_header("appid", app, "saas.app_id")?;
    }
    Ok(dialect.boxed())
}

/// The second API.
const SECOND: Quirks = Quirks {
    vendor: "Qianfan",
    takes: Takes::OPENAI
        .and(Takes::TOP_K)
        .and(Takes::REPETITION_PENALTY)
        .without(Takes::LOGIT_BIAS)
        .without(Takes::LOGPROBS)
        .without(Takes::N)
        .without(Takes::STRICT_TOOLS),
    embeddings: Some(EmbeddingQuirks {
        base64: false,
        tokens: false,
        dimensions: false,
        batch: 16,
        ..EmbeddingQuirks::OPENAI
    }),
    extra: &["penalty_score", "web_search", "enable_thinking", "thinking_budget", "user", "metadata"],
    strict_schemas: false,
    codes: &[
        ("invalid_iam_token", Meaning::Credential),
        ("invalid_appId", Meaning::Credential),
        ("invalid_appid", Meaning::Credential),
        ("iam_sign_error", Meaning::Credential),
        ("no_parameter_permission", Meaning::Permission),
        ("access_denied", Meaning::Permission),
        ("account_overdue*", Meaning::Balance),
        ("tokens_too_long", Meaning::TooLarge),
        ("characters_too_long", Meaning::TooLarge),
        ("invalid_model", Meaning::NotFound),
        ("model_offline", Meaning::NotFound),
        ("image_url_unsafe", Meaning::Filtered),
        ("system_unsafe", Meaning::Filtered),
        ("user_setting_unsafe", Meaning::Filtered),
        ("functions_unsafe", Meaning::Filtered),
        ("unsafe_request", Meaning::Filtered),
        ("rpm_rate_limit_exceeded", Meaning::RateLimited),
        ("tpm_rate_limit_exceeded", Meaning::RateLimited),
        ("qps_rate_limit_exceeded", Meaning::RateLimited),
        ("preemptible_rate_limit_exceeded", Meaning::RateLimited),
        ("user_rate_limit_exceeded", Meaning::RateLimited),
        ("input_tpm_rate_limit_exceeded", Meaning::RateLimited),
        ("output_tpm_rate_limit_exceeded", Meaning::RateLimited),
        ("cluster_*", Meaning::RateLimited),
        ("Offline_batch_reasoning_refused", Meaning::RateLimited),
        ("daily_limit_exceeded", Meaning::RateLimited),
        ("server_high_load", Meaning::Overloaded),
        ("method_not_supported", Meaning::Invalid),
        ("malformed_json", Meaning::Invalid),
        ("invalid_*", Meaning::Invalid),
        ("internal_error", Meaning::Failed),
        ("dispatch_internal_error", Meaning::Failed),
    ],
    ..Quirks::OPENAI
};
