//! `saas/volcengine`: Doubao and others at Volcano Engine Ark.
//!
//! Source: <https://www.volcengine.com/docs/82379/1494384> (chat), <https://www.volcengine.com/docs/82379/1521766>
//! (embeddings), <https://www.volcengine.com/docs/82379/1299023> (errors).

use crate::dialects::openai::{Credential, EmbeddingQuirks, Meaning, OpenAi, Quirks, Takes};
use crate::{Kind, Parameter, Vendor};

/// The vendor.
pub static VENDOR: Vendor = Vendor {
    name: "volcengine",
    aliases: &["ark"],
    title: "Volcano Engine Ark (Doubao)",
    documentation: "https://www.volcengine.com/docs/82379/1494384",
    parameters: &[
        Parameter::new("api_key", Kind::Secret, "The API key of Ark").required(),
        Parameter::new("model", Kind::Text, "The model's name, or an inference endpoint's id (`ep-…`)")
            .required(),
        Parameter::new("base_url", Kind::Url, "Where the API is"),
        Parameter::new(
            "output_limit",
            Kind::Choice(&["max_completion_tokens", "max_tokens"]),
            "What bounds new tokens: the former counts reasoning, too; older models know only the latter",
        )
        .or("max_completion_tokens"),
    ],
    open: |parameters| {
        let mut quirks = QUIRKS;
        if parameters.text("output_limit") == "max_tokens" {
            quirks.max_tokens = "max_tokens";
        }
        let credential = Credential::bearer(parameters.secret("api_key"))?;
        let base = "https://ark.cn-beijing.volces.com/api/v3";
        Ok(OpenAi::open(quirks, parameters, base)?.with_credential(credential).boxed())
    },
};

const QUIRKS: Quirks = Quirks {
    vendor: "Volcengine",
    takes: Takes::TEMPERATURE
        .and(Takes::TOP_P)
        .and(Takes::MAX_TOKENS)
        .and(Takes::STOP)
        .and(Takes::PRESENCE_PENALTY)
        .and(Takes::FREQUENCY_PENALTY)
        .and(Takes::LOGIT_BIAS)
        .and(Takes::LOGPROBS)
        .and(Takes::ALL_TOOLS)
        .and(Takes::ONE_CALL)
        .and(Takes::JSON_OBJECT)
        .and(Takes::JSON_SCHEMA)
        .and(Takes::IMAGES),
    // `max_tokens` does not bound the reasoning, which is billed.
    max_tokens: "max_completion_tokens",
    embeddings: Some(EmbeddingQuirks {
        dimensions: false,
        tokens: false,
        batch: 256,
        extra: &[],
        ..EmbeddingQuirks::OPENAI
    }),
    extra: &["reasoning_effort", "service_tier", "thinking"],
    reasoning_back: true,
    codes: CODES,
    ..Quirks::OPENAI
};

const CODES: &[(&str, Meaning)] = &[
    ("AuthenticationError*", Meaning::Credential),
    ("AccountOverdueError", Meaning::Balance),
    ("QuotaExceeded*", Meaning::Balance),
    ("SetLimitExceeded", Meaning::Balance),
    ("AccessDenied*", Meaning::Permission),
    ("OperationDenied*", Meaning::Permission),
    ("ModelNotOpen", Meaning::Permission),
    ("InvalidEndpoint.ClosedEndpoint", Meaning::NotFound),
    ("InvalidEndpointOrModel*", Meaning::NotFound),
    ("UnsupportedModel", Meaning::NotFound),
    ("NotFound*", Meaning::NotFound),
    ("SensitiveContentDetected*", Meaning::Filtered),
    ("InputTextSensitiveContentDetected*", Meaning::Filtered),
    ("InputImageSensitiveContentDetected*", Meaning::Filtered),
    ("OutputTextSensitiveContentDetected*", Meaning::Filtered),
    ("InvalidParameter.OversizedImage", Meaning::TooLarge),
    ("InvalidParameter*", Meaning::Invalid),
    ("MissingParameter*", Meaning::Invalid),
    ("RateLimitExceeded*", Meaning::RateLimited),
    ("ModelAccountRpmRateLimitExceeded", Meaning::RateLimited),
    ("ModelAccountTpmRateLimitExceeded", Meaning::RateLimited),
    ("APIAccountRpmRateLimitExceeded", Meaning::RateLimited),
    ("RequestBurstTooFast", Meaning::RateLimited),
    ("InflightBatchsizeExceeded", Meaning::RateLimited),
    ("ServerOverloaded", Meaning::Overloaded),
    ("ModelLoadingError", Meaning::Overloaded),
    ("InternalServiceError*", Meaning::Failed),
];
