//! DashScope's own protocol, which `saas/qianwen` and `saas/qianwen_vl` speak.
//!
//! Source: Alibaba Cloud Model Studio, "DashScope API reference", "Text embedding synchronous API", "Error codes".

mod answer;

use byzerllm_core::{
    ChatRequest, EmbeddingRequest, Embeddings, Error, ErrorKind, Message, Part, ResponseFormat, Result, Role,
    ToolChoice, Usage,
};
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use url::Url;

use super::openai::retry_after;
use super::shared::{self, count_at, decimal};
use crate::refusal::header;
use crate::{Decode, Dialect, Features, Framing, Outbound, Parameters, Secret, Signing};

/// The vendor's name for people.
const NAME: &str = "DashScope";
/// Where the credential of a deployment is.
const CREDENTIALS: &str = "saas.api_key";
/// Its API, as the vendor's SDK names the base address.
const BASE: &str = "https://dashscope.aliyuncs.com";

const TAKES: &[&str] = &[
    "n",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "max_tokens",
    "stop",
    "presence_penalty",
    "repetition_penalty",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "json_object",
    "json_schema",
];
const TAKES_VISION: &[&str] = &[
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "max_tokens",
    "stop",
    "presence_penalty",
    "repetition_penalty",
    "tools",
    "tool_choice",
    "images",
    "json_object",
];
const EXTRA: &[&str] = &[
    "incremental_output",
    "enable_search",
    "enable_search_enhance",
    "search_options",
    "enable_thinking",
    "thinking_budget",
    "translation_options",
    "enable_code_interpreter",
];
const EXTRA_VISION: &[&str] = &[
    "incremental_output",
    "enable_search",
    "enable_thinking",
    "thinking_budget",
    "vl_high_resolution_images",
    "vl_enable_image_hw_output",
    "ocr_options",
];
const EXTRA_EMBEDDING: &[&str] = &["text_type", "output_type", "instruct"];

/// One deployment.
pub(crate) struct DashScope {
    vendor: &'static str,
    vision: bool,
    key: Secret,
    model: String,
    workspace: Option<HeaderValue>,
    chat: Url,
    embeddings: Url,
}

impl DashScope {
    /// Opens a deployment, of pictures and text when `vision`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] for parameters that make no URL or header.
    pub(crate) fn open(vendor: &'static str, vision: bool, parameters: &Parameters) -> Result<Self> {
        let service = if vision {
            "/services/aigc/multimodal-generation/generation"
        } else {
            "/services/aigc/text-generation/generation"
        };
        let embeddings = "/services/embeddings/text-embedding/text-embedding";
        let workspace = parameters.optional_text("workspace").map(HeaderValue::from_str).transpose();
        Ok(Self {
            vendor,
            vision,
            key: shared::secret(parameters, vendor, "api_key")?,
            model: parameters.text("model").to_owned(),
            workspace: workspace
                .map_err(|_| Error::invalid("saas.workspace", "saas.workspace is no id of a workspace"))?,
            chat: shared::endpoint(parameters, BASE, "/api/v1", service)?,
            embeddings: shared::endpoint(parameters, BASE, "/api/v1", embeddings)?,
        })
    }

    fn embeds(&self) -> bool {
        !self.vision && self.model.contains("embedding")
    }

    fn headers(&self) -> Result<HeaderMap> {
        let mut headers = shared::credential(AUTHORIZATION, "Bearer ", &self.key, CREDENTIALS)?;
        if let Some(workspace) = &self.workspace {
            headers.insert(HeaderName::from_static("x-dashscope-workspace"), workspace.clone());
        }
        Ok(headers)
    }

    /// Models that think answer in pieces only, so they are never asked for an answer in one piece.
    fn in_pieces(&self, request: &ChatRequest) -> bool {
        let thinks = match flag(request, "enable_thinking") {
            Some(thinks) => thinks,
            None => ["qwen3", "qwq", "qvq", "thinking"].iter().any(|word| self.model.contains(word)),
        };
        !request.whole || thinks
    }

    fn parameters(&self, request: &ChatRequest, in_pieces: bool) -> Result<Value> {
        let s = &request.sampling;
        let mut out = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                out.insert(name.to_owned(), value);
            }
        };
        put("result_format", Some(json!("message")));
        put("temperature", s.temperature.map(decimal));
        put("top_p", s.top_p.map(decimal));
        put("top_k", s.top_k.map(Value::from));
        put("seed", s.seed.map(Value::from));
        put("max_tokens", s.max_tokens.map(Value::from));
        put("stop", s.stop.as_ref().filter(|stop| !stop.is_empty()).map(|stop| json!(stop)));
        put("presence_penalty", s.presence_penalty.filter(|p| *p != 0.0).map(decimal));
        put("repetition_penalty", s.repetition_penalty.map(decimal));
        put("n", (request.n > 1).then(|| json!(request.n)));
        put(
            "response_format",
            match &request.format {
                ResponseFormat::JsonObject => Some(json!({"type": "json_object"})),
                ResponseFormat::JsonSchema(schema) => Some(json!({
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": schema, "strict": true},
                })),
                _ => None,
            },
        );
        if !request.tools.is_empty() {
            let tool = |tool| json!({"type": "function", "function": shared::function(tool)});
            put("tools", Some(request.tools.iter().map(tool).collect()));
            put(
                "tool_choice",
                match &request.tool_choice {
                    ToolChoice::Auto => None,
                    ToolChoice::None => Some(json!("none")),
                    ToolChoice::Named(name) => Some(json!({"type": "function", "function": {"name": name}})),
                    ToolChoice::Required => {
                        let message = format!(
                            "saas/{} cannot be made to call a tool of its choice: name one",
                            self.vendor
                        );
                        return Err(Error::new(ErrorKind::Unsupported, message).with_param("tool_choice"));
                    }
                },
            );
            if !self.vision {
                put("parallel_tool_calls", Some(json!(request.parallel_tool_calls)));
            }
        }
        if in_pieces {
            put("incremental_output", Some(json!(true)));
        }
        for (name, value) in &request.extra {
            if name == "incremental_output" && !in_pieces {
                continue;
            }
            let value = flag(request, name).map_or_else(|| value.clone(), Value::from);
            put(name, Some(value));
        }
        Ok(Value::Object(out))
    }

    fn message(&self, message: &Message, last: bool) -> Result<Value> {
        let mut out = Map::new();
        out.insert("role".to_owned(), json!(message.role.as_str()));
        let content = if self.vision {
            Value::Array(shared::parts(message).iter().map(part).collect::<Result<_>>()?)
        } else {
            json!(message.content)
        };
        out.insert("content".to_owned(), content);
        let calls = shared::calls(message)?;
        if !calls.is_empty() {
            let call = |call: &shared::Call<'_>| {
                let function = json!({"name": call.name, "arguments": call.arguments_text()});
                json!({"id": call.id, "type": "function", "function": function})
            };
            out.insert("tool_calls".to_owned(), calls.iter().map(call).collect());
        } else if last && message.role == Role::Assistant {
            // The answer goes on from this text.
            out.insert("partial".to_owned(), json!(true));
        }
        for name in ["name", "tool_call_id"] {
            if let Some(text) = shared::extra(message, name) {
                out.insert(name.to_owned(), json!(text));
            }
        }
        Ok(Value::Object(out))
    }
}

/// A flag of the vendor's own parameters, which old programs write as a text.
fn flag(request: &ChatRequest, name: &str) -> Option<bool> {
    match request.extra.get(name)? {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) => text.to_ascii_lowercase().parse().ok(),
        _ => None,
    }
}

fn part(part: &Part) -> Result<Value> {
    Ok(match part {
        Part::Text { text } => json!({"text": text}),
        Part::Image { url, .. } => {
            shared::data_url(url)?;
            json!({"image": url})
        }
    })
}

impl Dialect for DashScope {
    fn features(&self) -> Features {
        let chat = !self.embeds();
        Features {
            chat,
            stream: chat,
            tools: chat,
            reasoning: chat,
            usage: true,
            embeddings: !chat,
            images: chat && self.vision,
        }
    }

    fn model(&self) -> &str {
        &self.model
    }

    fn base_url(&self) -> Option<&Url> {
        Some(if self.embeds() { &self.embeddings } else { &self.chat })
    }

    fn extra_parameters(&self) -> &'static [&'static str] {
        match (self.vision, self.embeds()) {
            (true, _) => EXTRA_VISION,
            (_, true) => EXTRA_EMBEDDING,
            _ => EXTRA,
        }
    }

    fn chat(&self, request: &ChatRequest, _: &Signing<'_>) -> Result<Outbound> {
        if self.embeds() {
            let message = format!("'{}' makes embeddings and does not chat", self.model);
            return Err(Error::new(ErrorKind::Unsupported, message).with_param("model"));
        }
        let takes = if self.vision { TAKES_VISION } else { TAKES };
        shared::refuse_others(self.vendor, request, takes)?;
        let in_pieces = self.in_pieces(request);
        if flag(request, "enable_thinking") == Some(true)
            && flag(request, "incremental_output") == Some(false)
        {
            let message = "a model that thinks has no cumulative output: leave out incremental_output, or set it to true";
            return Err(Error::invalid("incremental_output", message));
        }
        // Read wrongly, it would decide how the answer is read.
        if request.extra.contains_key("incremental_output") && flag(request, "incremental_output").is_none() {
            return Err(Error::invalid("incremental_output", "incremental_output must be true or false"));
        }
        let messages = shared::conversation(self.vendor, request)?;
        let count = messages.len();
        let messages = messages.iter().enumerate().map(|(i, message)| self.message(message, i + 1 == count));
        let body = json!({
            "model": self.model,
            "input": {"messages": messages.collect::<Result<Vec<_>>>()?},
            "parameters": self.parameters(request, in_pieces)?,
        });
        let mut headers = self.headers()?;
        let framing = if in_pieces { Framing::Sse } else { Framing::Whole };
        if in_pieces {
            headers.insert(HeaderName::from_static("x-dashscope-sse"), HeaderValue::from_static("enable"));
        }
        Ok(shared::post(self.chat.clone(), headers, &body, framing))
    }

    fn decoder(&self, request: &ChatRequest) -> Box<dyn Decode> {
        let incremental = flag(request, "incremental_output").unwrap_or(true);
        let cumulative = self.in_pieces(request) && !incremental;
        Box::new(answer::Reader::new(cumulative))
    }

    fn embed(&self, request: &EmbeddingRequest, _: &Signing<'_>) -> Result<Outbound> {
        if !self.embeds() {
            let message =
                format!("'{}' makes no embeddings; set saas.model to text-embedding-v3", self.model);
            return Err(Error::new(ErrorKind::Unsupported, message).with_param("model"));
        }
        let mut parameters = request.extra.clone();
        if let Some(dimensions) = request.dimensions {
            if self.model.ends_with("-v1") || self.model.ends_with("-v2") {
                let message = format!("the vectors of '{}' have one size: leave out dimensions", self.model);
                return Err(Error::new(ErrorKind::Unsupported, message).with_param("dimensions"));
            }
            parameters.insert("dimension".to_owned(), json!(dimensions));
        }
        let texts = shared::texts(self.vendor, request)?;
        let body = json!({"model": self.model, "input": {"texts": texts}, "parameters": parameters});
        Ok(shared::post(self.embeddings.clone(), self.headers()?, &body, Framing::Whole))
    }

    fn embedding_batch(&self) -> usize {
        if self.model.ends_with("-v1") || self.model.ends_with("-v2") { 25 } else { 10 }
    }

    fn embedded(&self, body: &[u8]) -> Result<Embeddings> {
        let body = shared::json(NAME, &String::from_utf8_lossy(body))?;
        let mut items: Vec<&Value> =
            body.pointer("/output/embeddings").and_then(Value::as_array).into_iter().flatten().collect();
        items.sort_by_key(|item| item.get("text_index").and_then(Value::as_u64));
        let vectors = items.iter().map(|item| shared::vector(NAME, item.get("embedding")));
        let vectors = vectors.collect::<Result<Vec<_>>>()?;
        let tokens =
            count_at(&body, "/usage/total_tokens").or_else(|| count_at(&body, "/usage/input_tokens"));
        let usage = tokens.map_or_else(unknown, |tokens| shared::reported(tokens, 0));
        Ok(Embeddings { vectors, usage, notices: Vec::new() })
    }

    fn error(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Error {
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        answer::error(status, &value, header(headers, &["x-request-id"]), retry_after(headers))
    }
}

fn unknown() -> Usage {
    Usage { source: byzerllm_core::UsageSource::Unknown, ..Usage::default() }
}
