//! `saas/azure_openai`: OpenAI's models at Microsoft.
//!
//! Source: <https://learn.microsoft.com/en-us/azure/ai-services/openai/reference>.

use std::sync::Arc;

use byzerllm_core::{Error, Result};
use url::Url;

use super::openai::names_reasoning;
use crate::dialects::openai::{Credential, Meaning, OpenAi, Quirks};
use crate::{Dialect, Kind, Parameter, Parameters, Vendor};

/// The vendor.
pub static VENDOR: Vendor = Vendor {
    name: "azure_openai",
    aliases: &[],
    title: "OpenAI's models at Microsoft Azure",
    documentation: "https://learn.microsoft.com/en-us/azure/ai-services/openai/reference",
    parameters: &[
        Parameter::new("api_key", Kind::Secret, "The resource's key").required(),
        Parameter::new("azure_endpoint", Kind::Url, "The resource, https://NAME.openai.azure.com")
            .required()
            .also(&["api_base", "base_url"]),
        Parameter::new(
            "azure_deployment",
            Kind::Text,
            "The deployment's name at Azure; `saas.model` when not given",
        )
        .also(&["deployment_id"]),
        Parameter::new(
            "model",
            Kind::Text,
            "The model's name, which prices go by; the deployment's when not given",
        ),
        Parameter::new("api_version", Kind::Text, "Version of the API").or("2024-10-21"),
        Parameter::new("api_type", Kind::Choice(&["azure"]), "Of old programs; `azure`"),
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
    ],
    open,
};

const CODES: &[(&str, Meaning)] = &[
    ("401", Meaning::Credential),
    ("RateLimitReached", Meaning::RateLimited),
    ("NoCapacity", Meaning::Overloaded),
    ("OperationNotSupported", Meaning::Unsupported),
];

const EXTRA: &[&str] = &[
    "data_sources",
    "metadata",
    "prediction",
    "prompt_cache_key",
    "reasoning_effort",
    "safety_identifier",
    "store",
    "user",
    "verbosity",
];

fn open(parameters: &Parameters) -> Result<Arc<dyn Dialect>> {
    let given = parameters.optional_text("model");
    let deployment = parameters.optional_text("azure_deployment").or(given).ok_or_else(|| {
        let message =
            "saas/azure_openai needs saas.azure_deployment (or saas.deployment_id): the deployment's name";
        Error::invalid("saas.azure_deployment", message)
    })?;
    let model = given.unwrap_or(deployment);
    let mut quirks = Quirks {
        vendor: "Azure OpenAI",
        extra: EXTRA,
        codes: CODES,
        strict_schemas: parameters.flag("strict_schemas"),
        ..Quirks::OPENAI
    };
    if names_reasoning(model) {
        quirks.max_tokens = "max_completion_tokens";
    }
    let reasons = match parameters.text("is_reasoning") {
        "auto" => names_reasoning(model),
        word => word == "true",
    };
    if reasons {
        quirks = quirks.reasoning();
    }
    let endpoint =
        parameters.url("azure_endpoint").ok_or_else(|| Error::internal("a required URL is missing"))?;
    let dialect = OpenAi::at(quirks, model, &base(endpoint, deployment)?)?
        .with_query("api-version", parameters.text("api_version"))
        .with_credential(Credential::header("api-key", parameters.secret("api_key"))?);
    Ok(dialect.boxed())
}

/// `RESOURCE/openai/deployments/NAME`. An address that already names a deployment is taken as it is.
fn base(endpoint: &Url, deployment: &str) -> Result<Url> {
    let mut url = endpoint.clone();
    url.set_query(None);
    if url.path().contains("/openai/deployments/") {
        return Ok(url);
    }
    let path = url.path().trim_end_matches('/').trim_end_matches("/openai").to_owned();
    url.set_path(&path);
    url.path_segments_mut()
        .map_err(|()| {
            Error::invalid(
                "saas.azure_endpoint",
                "saas.azure_endpoint must be an address like https://NAME.openai.azure.com",
            )
        })?
        .pop_if_empty()
        .extend(["openai", "deployments", deployment]);
    Ok(url)
}
