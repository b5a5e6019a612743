//! `saas/minimax`: MiniMax, over `chatcompletion_pro` or over its later API, which speaks OpenAI's dialect.
//!
//! Source: MiniMax API reference, "ChatCompletion Pro", "ChatCompletion v2", "Embeddings", "Error codes".

mod pro;
mod second;

use std::sync::Arc;
use std::time::Duration;

use byzerllm_core::{Error, Result};
use http::HeaderMap;
use serde_json::Value;
use url::Url;

use crate::dialects::openai::Meaning;
use crate::dialects::shared::{self, Refusal, text_at};
use crate::{Dialect, Kind, Parameter, Parameters, Vendor};

/// The vendor's name for people.
const NAME: &str = "MiniMax";
const BASE: &str = "https://api.minimax.chat";
const PRO: &str = "/text/chatcompletion_pro";

/// The vendor.
pub static VENDOR: Vendor = Vendor {
    name: "minimax",
    aliases: &[],
    title: "MiniMax",
    documentation: "https://platform.minimaxi.com/docs/api-reference/text-post",
    parameters: &[
        Parameter::new("api_key", Kind::Secret, "The API key").required(),
        Parameter::new(
            "group_id",
            Kind::Text,
            "The group of the account, for chatcompletion_pro and for embeddings",
        ),
        Parameter::new("model", Kind::Text, "The model, for chat or for embeddings (embo-01)")
            .or("abab5.5-chat"),
        Parameter::new(
            "api_url",
            Kind::Url,
            "The whole address; its end says which API: chatcompletion_pro, chatcompletion_v2 or chat/completions",
        ),
        Parameter::new("base_url", Kind::Url, "Where the API is, when not at the vendor's own address"),
    ],
    open,
};

fn open(parameters: &Parameters) -> Result<Arc<dyn Dialect>> {
    if parameters.url("api_url").is_some() && parameters.url("base_url").is_some() {
        return Err(Error::invalid("saas.api_url", "give saas.api_url or saas.base_url, not both"));
    }
    let embeds = parameters.text("model").starts_with("embo-");
    let group = parameters.optional_text("group_id");
    let url = match parameters.url("api_url") {
        Some(url) => url.clone(),
        None if embeds => shared::endpoint(parameters, BASE, "/v1", "/embeddings")?,
        None => shared::endpoint(parameters, BASE, "/v1", PRO)?,
    };
    let path = url.path().trim_end_matches('/');
    if !embeds && path.ends_with("/chatcompletion_v2") {
        return second::open(parameters, &url, "text/chatcompletion_v2");
    }
    if !embeds && path.ends_with("/chat/completions") {
        return second::open(parameters, &url, "chat/completions");
    }
    if !embeds && !path.ends_with(PRO) {
        let message = "saas.api_url must end with chatcompletion_pro, chatcompletion_v2 or chat/completions";
        return Err(Error::invalid("saas.api_url", message));
    }
    let Some(group) = group else {
        let message = format!(
            "this API of MiniMax needs saas.group_id; with an account that has none set \
             saas.api_url={BASE}/v1/text/chatcompletion_v2"
        );
        return Err(Error::invalid("saas.group_id", message));
    };
    pro::open(parameters, url, group, embeds)
}

/// What the vendor's codes mean. They come with status 200.
///
/// Source: <https://platform.minimax.io/docs/api-reference/errorcode.md>; for 1028, 1030 and 2061, which stand for a plan's
/// limits, the vendor's own `MiniMax-AI/cli`, `src/errors/api.ts`.
fn meaning(code: i64, message: &str) -> Meaning {
    match code {
        1002 | 1039 | 1041 | 2045 | 2056 => Meaning::RateLimited,
        1004 | 2049 => Meaning::Credential,
        1008 | 1028 | 1030 => Meaning::Balance,
        2061 => Meaning::Permission,
        1026 | 1027 => Meaning::Filtered,
        1042 | 2013 | 20132 if shared::is_too_long(message) => Meaning::TooLarge,
        1042 | 2013 | 20132 => Meaning::Invalid,
        _ => Meaning::Failed,
    }
}

/// The error in `base_resp`, if it is one.
fn error_in(status: u16, value: &Value, id: Option<&str>, retry_after: Option<Duration>) -> Option<Error> {
    let code = value.pointer("/base_resp/status_code").and_then(Value::as_i64).filter(|code| *code != 0)?;
    let message = text_at(value, "/base_resp/status_msg");
    let said = format!("{code}: {message}");
    let own =
        ["/id", "/request_id", "/trace_id"].iter().map(|at| text_at(value, at)).find(|id| !id.is_empty());
    let refusal = Refusal {
        vendor: NAME,
        status,
        meaning: Some(meaning(code, message)),
        message: &said,
        credentials: "saas.api_key and saas.group_id",
        request_id: id.or(own),
        retry_after,
    };
    Some(refusal.error())
}

/// The vendor's id of a request, in its header.
fn trace(headers: &HeaderMap) -> Option<&str> {
    crate::refusal::header(headers, &["trace-id", "x-request-id", "minimax-request-id"])
}

/// A URL for people.
fn without_query(url: &Url) -> Url {
    let mut url = url.clone();
    url.set_query(None);
    url
}
