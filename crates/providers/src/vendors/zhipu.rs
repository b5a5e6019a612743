//! `saas/zhipu`: GLM at Zhipu's open platform.
//!
//! Source: <https://docs.bigmodel.cn/api-reference> (chat completions, embeddings), <https://docs.bigmodel.cn/cn/api/api-code>
//! (error codes), and `zhipuai` 2.1.5.20250825, `core/_jwt_token.py`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use byzerllm_core::{Error, Result};
use ring::hmac;
use serde_json::{Value, json};

use crate::dialects::openai::{Body, Credential, EmbeddingQuirks, Meaning, OpenAi, Quirks, Sign, Takes};
use crate::{Dialect, Kind, Parameter, Parameters, Secret, Vendor};

const BASE: &str = "https://open.bigmodel.cn/api/paas/v4";

/// How long a token is used, and how much longer it lives.
const USED: Duration = Duration::from_secs(180);
const SPARE: Duration = Duration::from_secs(30);

/// The vendor.
pub static VENDOR: Vendor = Vendor {
    name: "zhipu",
    aliases: &[],
    title: "Zhipu AI (GLM)",
    documentation: "https://docs.bigmodel.cn/cn/guide/start/introduction",
    parameters: &[
        Parameter::new("api_key", Kind::Secret, "The API key, `ID.SECRET`").required(),
        Parameter::new(
            "model",
            Kind::Text,
            "`glm-4`, `glm-4-plus`, `glm-4v`, `embedding-2`, `embedding-3`, …",
        )
        .or("glm-4"),
        Parameter::new(
            "base_url",
            Kind::Url,
            "Where the API is; https://api.z.ai/api/paas/v4 outside of China",
        ),
        Parameter::new(
            "auth",
            Kind::Choice(&["auto", "jwt", "key"]),
            "What is sent: a token signed with the key, or the key; `auto` signs when the key is `ID.SECRET`",
        )
        .or("auto"),
    ],
    open: |parameters| open(parameters),
};

/// Opens the dialect; [`super::chatglm`] does it, too.
pub(super) fn open(parameters: &Parameters) -> Result<Arc<dyn Dialect>> {
    let model = parameters.text("model");
    let mut quirks = QUIRKS;
    if model == "embedding-2" {
        quirks.embeddings = Some(EmbeddingQuirks { dimensions: false, ..EMBEDDINGS });
    }
    let key = parameters.secret("api_key").ok_or_else(|| Error::internal("a required key is missing"))?;
    let pair = key
        .expose()
        .split_once('.')
        .filter(|(id, secret)| !id.is_empty() && !secret.is_empty() && !secret.contains('.'));
    let credential = match (parameters.text("auth"), pair) {
        ("key", _) | ("" | "auto", None) => Credential::bearer(Some(key))?,
        (_, Some((id, secret))) => Credential::Signed(Box::new(Token::new(id, secret))),
        (_, None) => {
            let message = "saas.auth=jwt needs a saas.api_key of the form ID.SECRET";
            return Err(Error::invalid("saas.api_key", message));
        }
    };
    Ok(OpenAi::open(quirks, parameters, BASE)?.with_credential(credential).boxed())
}

const EMBEDDINGS: EmbeddingQuirks = EmbeddingQuirks {
    base64: false,
    tokens: false,
    batch: 64,
    extra: &["request_id", "sensitive_word_check"],
    ..EmbeddingQuirks::OPENAI
};

const QUIRKS: Quirks = Quirks {
    vendor: "Zhipu",
    takes: Takes::TEMPERATURE
        .and(Takes::TOP_P)
        .and(Takes::MAX_TOKENS)
        .and(Takes::SEED)
        .and(Takes::STOP)
        .and(Takes::TOOLS)
        .and(Takes::JSON_OBJECT)
        .and(Takes::IMAGES),
    embeddings: Some(EMBEDDINGS),
    max_stop: 1,
    temperature: (0.0, 1.0),
    // The last chunk holds the usage.
    stream_options: false,
    extra: &[
        "do_sample",
        "meta",
        "reasoning_effort",
        "request_id",
        "retrieval",
        "sensitive_word_check",
        "thinking",
        "tool_stream",
        "user_id",
        "web_search",
    ],
    extra_tools: &["retrieval", "web_search"],
    reasoning_back: true,
    bare_images: true,
    codes: CODES,
    adjust: Some(adjust),
    ..Quirks::OPENAI
};

/// Temperature 0 is greedy with us; Zhipu has a word of its own for it, beside which randomness means nothing.
fn adjust(body: &mut Body<'_>) -> Result<()> {
    if body.temperature == Some(0.0) {
        body.temperature = None;
        body.top_p = None;
        body.rest.insert("do_sample".to_owned(), Value::Bool(false));
    }
    Ok(())
}

const CODES: &[(&str, Meaning)] = &[
    ("500", Meaning::Failed),
    ("1000", Meaning::Credential),
    ("1001", Meaning::Credential),
    ("1002", Meaning::Credential),
    ("1003", Meaning::Credential),
    ("1004", Meaning::Credential),
    ("1100", Meaning::Failed),
    ("1110", Meaning::Permission),
    ("1111", Meaning::Permission),
    ("1112", Meaning::Permission),
    ("1113", Meaning::Balance),
    ("1120", Meaning::Failed),
    ("1121", Meaning::Permission),
    ("1200", Meaning::Failed),
    ("1210", Meaning::Invalid),
    ("1211", Meaning::NotFound),
    ("1212", Meaning::Unsupported),
    ("1213", Meaning::Invalid),
    ("1214", Meaning::Invalid),
    ("1215", Meaning::Invalid),
    ("1220", Meaning::Permission),
    ("1221", Meaning::NotFound),
    ("1222", Meaning::NotFound),
    ("1230", Meaning::Failed),
    ("1231", Meaning::Invalid),
    ("1234", Meaning::Failed),
    ("1261", Meaning::TooLarge),
    ("1300", Meaning::Filtered),
    ("1301", Meaning::Filtered),
    ("1302", Meaning::RateLimited),
    ("1303", Meaning::RateLimited),
    // Used up for today, this week or this month.
    ("1304", Meaning::Balance),
    ("1305", Meaning::RateLimited),
    ("1308", Meaning::Balance),
    ("1309", Meaning::Balance),
    ("1310", Meaning::Balance),
    ("1311", Meaning::Permission),
    ("1312", Meaning::Overloaded),
    ("1313", Meaning::RateLimited),
];

/// A token that the key signs: HS256, with times in milliseconds, and `sign_type` in its header.
struct Token {
    id: String,
    key: hmac::Key,
    last: Mutex<Option<(SystemTime, Secret)>>,
}

impl Token {
    fn new(id: &str, secret: &str) -> Self {
        Self {
            id: id.to_owned(),
            key: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()),
            last: Mutex::new(None),
        }
    }

    fn make(&self, now: SystemTime) -> Result<Secret> {
        let millis = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        };
        let payload =
            json!({"api_key": self.id, "exp": millis(now + USED + SPARE), "timestamp": millis(now)});
        let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","sign_type":"SIGN","typ":"JWT"}"#);
        let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(payload.to_string()));
        let tag = hmac::sign(&self.key, signed.as_bytes());
        Ok(Secret::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))))
    }
}

impl Sign for Token {
    fn token(&self, now: SystemTime) -> Result<Secret> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, token)) = &*last
            && now.duration_since(*made).is_ok_and(|age| age < USED)
        {
            return Ok(token.clone());
        }
        let token = self.make(now)?;
        *last = Some((now, token.clone()));
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// The vector was made with Python's `hmac` and `hashlib` from the same three texts.
    #[test]
    fn a_token_is_a_json_web_token_with_the_key_s_signature() {
        let token = Token::new("abc123", "s3cr3t").token(at(1_700_000_000)).unwrap();
        assert_eq!(
            token.expose(),
            "eyJhbGciOiJIUzI1NiIsInNpZ25fdHlwZSI6IlNJR04iLCJ0eXAiOiJKV1QifQ.eyJhcGlfa2V5IjoiYWJjMTIzIiwiZXhwIjoxNzAwMDAwMjEwMDAwLCJ0aW1lc3RhbXAiOjE3MDAwMDAwMDAwMDB9._K2gtdhzH3PlWIjz8ZDcBonOcO_i9VrqgfkspR0pbOc"
        );
    }

    #[test]
    fn a_token_is_used_for_three_minutes_and_never_before_it_was_made() {
        let signer = Token::new("abc123", "s3cr3t");
        let first = signer.token(at(1000)).unwrap();
        assert_eq!(signer.token(at(1179)).unwrap().expose(), first.expose());
        let second = signer.token(at(1180)).unwrap();
        assert_ne!(second.expose(), first.expose());
        assert_ne!(signer.token(at(1100)).unwrap().expose(), second.expose(), "the clock was set back");
    }
}
