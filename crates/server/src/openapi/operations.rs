//! What belongs to each route beside its path and its class of access: words, types and an example.

use axum::http::Method;
use byzerllm_core::Event;
use byzerllm_runtime::{DeploymentSpec, DeploymentStatus, Inspection, KeyInfo, NewKey};
use serde_json::{Value, json};

use super::schemas::{Describe, of};
use crate::limits;
use crate::wire::anthropic::answer::{CountAnswer, MessageAnswer};
use crate::wire::anthropic::request::{CountBody, MessagesBody};
use crate::wire::anthropic::stream::MessageEvent;
use crate::wire::chat::ChatBody;
use crate::wire::chat_answer::{ChatAnswer, ChatChunk};
use crate::wire::completions::CompletionBody;
use crate::wire::completions_answer::CompletionAnswer;
use crate::wire::embeddings::{EmbeddingAnswer, EmbeddingBody};
use crate::wire::health::{HealthAnswer, VersionAnswer};
use crate::wire::keys::{CreateKeyBody, RevokeKeyAnswer, RotateKeyBody};
use crate::wire::models::{Model, ModelList};
use crate::wire::rerank::{self, RerankAnswer, RerankBody};
use crate::wire::responses::answer::ResponseAnswer;
use crate::wire::responses::request::ResponseBody;
use crate::wire::responses::stream::ResponseEvent;
use crate::wire::score::{self, ScoreAnswer, ScoreBody};
use crate::wire::{native, tokens};

/// Which part of the server a route belongs to.
#[derive(Clone, Copy)]
pub(super) enum Tag {
    OpenAi,
    Anthropic,
    Encoders,
    Tokens,
    Native,
    Admin,
    Health,
}

impl Tag {
    pub(super) const ALL: [Tag; 7] =
        [Tag::OpenAi, Tag::Anthropic, Tag::Encoders, Tag::Tokens, Tag::Native, Tag::Admin, Tag::Health];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "OpenAI",
            Self::Anthropic => "Anthropic",
            Self::Encoders => "Rerankers",
            Self::Tokens => "Tokens",
            Self::Native => "Inference of our own clients",
            Self::Admin => "Administration",
            Self::Health => "Health",
        }
    }

    pub(super) fn description(self) -> &'static str {
        match self {
            Self::OpenAi => "OpenAI's API, with the fields that vLLM and Byzer-LLM add to it.",
            Self::Anthropic => "Anthropic's Messages API. Its errors have a shape of their own.",
            Self::Encoders => "Scores for pairs of texts, as Jina, Cohere and vLLM ask for them.",
            Self::Tokens => "Text to tokens and back.",
            Self::Native => "What our command line and Python class use. It may change with every version.",
            Self::Admin => {
                "Deployments and keys, as our own clients use them. It may change with every version."
            }
            Self::Health => "Whether the server works, and which it is.",
        }
    }

    /// Whether a version may change the route without notice.
    pub(super) fn unstable(self) -> bool {
        matches!(self, Self::Native | Self::Admin)
    }
}

/// What a route answers with.
pub(super) enum Answer {
    Json(Describe),
    /// Server-sent events: the schema is that of each event's data.
    Stream(Describe),
    /// Text of this type.
    Text(&'static str),
}

/// What a route reads.
pub(super) struct Body {
    pub(super) schema: Describe,
    pub(super) example: fn() -> Value,
}

pub(super) struct Operation {
    pub(super) id: &'static str,
    pub(super) tag: Tag,
    pub(super) summary: &'static str,
    pub(super) description: &'static str,
    pub(super) query: &'static [fn() -> Value],
    pub(super) body: Option<Body>,
    /// What the answer is.
    pub(super) answer: &'static str,
    pub(super) answers: &'static [Answer],
    /// Whether a model answers, with all the ways in which it may fail.
    pub(super) model: bool,
    /// Statuses of failures that other routes do not have.
    pub(super) failures: &'static [u16],
}

impl Operation {
    pub(super) fn new(
        id: &'static str,
        tag: Tag,
        summary: &'static str,
        answer: &'static str,
        answers: &'static [Answer],
    ) -> Self {
        let (description, query, failures) = ("", &[] as &[fn() -> Value], &[] as &[u16]);
        Self { id, tag, summary, description, query, body: None, answer, answers, model: false, failures }
    }

    pub(super) fn says(self, description: &'static str) -> Self {
        Self { description, ..self }
    }

    pub(super) fn takes(self, schema: Describe, example: fn() -> Value) -> Self {
        Self { body: Some(Body { schema, example }), ..self }
    }

    fn asks_a_model(self) -> Self {
        Self { model: true, ..self }
    }

    pub(super) fn fails(self, failures: &'static [u16]) -> Self {
        Self { failures, ..self }
    }
}

const STREAM: &str = "The whole answer, or with `stream: true` server-sent events: each `data:` line holds a chunk, \
                      the last one `[DONE]`. What fails after the first event is a `data:` line with `error`, and \
                      then no `[DONE]` follows.";

const EVENTS: &str = "The whole answer, or with `stream: true` server-sent events, each with its name. What fails after the \
                      first event is an event, too, and the last one.";

/// What belongs to a route; nothing for a route that is not described.
pub(super) fn operation(method: &Method, path: &str) -> Option<Operation> {
    let described = match (method.as_str(), path) {
        ("GET", "/healthz") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<HealthAnswer>)];
            Operation::new("alive", Tag::Health, "Say that the process answers.", "It does.", ANSWERS)
        }
        ("GET", "/readyz") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<HealthAnswer>)];
            Operation::new(
                "ready",
                Tag::Health,
                "Say whether every engine makes progress.",
                "They do.",
                ANSWERS,
            )
            .fails(&[503])
        }
        ("GET", "/health") => Operation::new(
            "health",
            Tag::Health,
            "Say that the process answers, as Byzer-LLM's server does: with an empty body.",
            "It does.",
            &[],
        ),
        ("GET", "/version") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<VersionAnswer>)];
            Operation::new("version", Tag::Health, "Tell the version.", "The version.", ANSWERS)
        }
        ("GET", "/openapi.json") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<serde_json::Map<String, Value>>)];
            Operation::new(
                "openapi",
                Tag::Health,
                "Tell what this document tells.",
                "This document.",
                ANSWERS,
            )
        }
        ("GET", "/metrics") => {
            const ANSWERS: &[Answer] = &[Answer::Text("text/plain")];
            Operation::new(
                "metrics",
                Tag::Health,
                "Tell counts and times in Prometheus' text format.",
                "The metrics.",
                ANSWERS,
            )
        }
        ("GET", "/v1/models") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<ModelList>)];
            Operation::new(
                "listModels",
                Tag::OpenAi,
                "List the deployments that take requests.",
                "The list; a key sees the deployments of its scopes.",
                ANSWERS,
            )
        }
        ("GET", "/v1/models/{id}") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<Model>)];
            Operation::new("getModel", Tag::OpenAi, "Show one of them.", "The deployment.", ANSWERS)
                .fails(&[503])
        }
        ("POST", "/v1/chat/completions") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<ChatAnswer>), Answer::Stream(of::<ChatChunk>)];
            Operation::new("createChatCompletion", Tag::OpenAi, "Answer a conversation.", STREAM, ANSWERS)
                .takes(of::<ChatBody>, || {
                    let message = json!({ "role": "user", "content": "What is the capital of France?" });
                    json!({ "model": "chat", "messages": [message], "temperature": 0 })
                })
                .asks_a_model()
        }
        ("POST", "/v1/completions") => {
            const ANSWERS: &[Answer] =
                &[Answer::Json(of::<CompletionAnswer>), Answer::Stream(of::<CompletionAnswer>)];
            Operation::new("createCompletion", Tag::OpenAi, "Continue prompts.", STREAM, ANSWERS)
                .says("Choice `c` of prompt `p` has the index `p * n + c`.")
                .takes(
                    of::<CompletionBody>,
                    || json!({ "model": "chat", "prompt": "The capital of France is", "max_tokens": 16 }),
                )
                .asks_a_model()
        }
        _ => return borrowed(method, path),
    };
    Some(described)
}

/// The same for embeddings, responses, Anthropic's routes and tokens.
fn borrowed(method: &Method, path: &str) -> Option<Operation> {
    let described = match (method.as_str(), path) {
        ("POST", "/v1/embeddings") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<EmbeddingAnswer>)];
            Operation::new(
                "createEmbedding",
                Tag::OpenAi,
                "Turn texts into vectors.",
                "The vectors.",
                ANSWERS,
            )
            .takes(of::<EmbeddingBody>, || json!({ "model": "chat", "input": "Paris is" }))
            .asks_a_model()
        }
        ("POST", "/v1/rerank" | "/v2/rerank" | "/rerank") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<RerankAnswer>)];
            let id = match path {
                "/v1/rerank" => "rerank",
                "/v2/rerank" => "rerankCohere",
                _ => "rerankShort",
            };
            let summary = "Put documents in the order in which they answer a query.";
            Operation::new(id, Tag::Encoders, summary, "The best documents first.", ANSWERS)
                .says("`scale` of the answer says what the scores mean. `/v2/rerank` and `/rerank` are the same.")
                .takes(of::<RerankBody>, rerank::example)
                .asks_a_model()
        }
        ("POST", "/v1/score" | "/score") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<ScoreAnswer>)];
            let id = if path == "/v1/score" { "score" } else { "scoreShort" };
            Operation::new(id, Tag::Encoders, "Score pairs of texts.", "The scores, in order.", ANSWERS)
                .says("`scale` of the answer says what the scores mean. `/score` is the same.")
                .takes(of::<ScoreBody>, score::example)
                .asks_a_model()
        }
        ("POST", "/v1/responses") => {
            const ANSWERS: &[Answer] =
                &[Answer::Json(of::<ResponseAnswer>), Answer::Stream(of::<ResponseEvent>)];
            Operation::new("createResponse", Tag::OpenAi, "Answer a conversation of items.", EVENTS, ANSWERS)
                .says("Nothing is kept between requests.")
                .takes(
                    of::<ResponseBody>,
                    || json!({ "model": "chat", "input": "What is the capital of France?", "temperature": 0 }),
                )
                .asks_a_model()
        }
        ("POST", "/v1/messages") => {
            const ANSWERS: &[Answer] =
                &[Answer::Json(of::<MessageAnswer>), Answer::Stream(of::<MessageEvent>)];
            Operation::new("createMessage", Tag::Anthropic, "Answer a conversation.", EVENTS, ANSWERS)
                .takes(of::<MessagesBody>, || {
                    let message = json!({ "role": "user", "content": "What is the capital of France?" });
                    json!({ "model": "chat", "max_tokens": 100, "messages": [message], "temperature": 0 })
                })
                .asks_a_model()
        }
        ("POST", "/v1/messages/count_tokens") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<CountAnswer>)];
            let id = "countMessageTokens";
            Operation::new(id, Tag::Anthropic, "Count the tokens of a prompt.", "The number.", ANSWERS)
                .says("Only for models whose tokenizer is here.")
                .takes(of::<CountBody>, || {
                    let message = json!({ "role": "user", "content": "What is the capital of France?" });
                    json!({ "model": "chat", "messages": [message] })
                })
        }
        ("POST", "/tokenize") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<tokens::TokenizeAnswer>)];
            Operation::new(
                "tokenize",
                Tag::Tokens,
                "Turn a text or a conversation into tokens.",
                "The tokens.",
                ANSWERS,
            )
            .says("Exactly one of `prompt` and `messages`. Special tokens in a prompt are parsed, and none are added.")
            .takes(of::<tokens::TokenizeBody>, || json!({ "model": "chat", "prompt": "Paris is" }))
        }
        ("POST", "/detokenize") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<tokens::DetokenizeAnswer>)];
            Operation::new("detokenize", Tag::Tokens, "Turn tokens into text.", "The text.", ANSWERS)
                .takes(of::<tokens::DetokenizeBody>, || json!({ "model": "chat", "tokens": [1, 2, 3] }))
        }
        _ => return ours(method, path),
    };
    Some(described)
}

/// The same for our own routes.
fn ours(method: &Method, path: &str) -> Option<Operation> {
    let described = match (method.as_str(), path) {
        ("POST", "/byzerllm/v1/chat") => {
            const ANSWERS: &[Answer] = &[Answer::Stream(of::<Event>)];
            Operation::new(
                "nativeChat",
                Tag::Native,
                "Answer as a stream of events.",
                "Server-sent events, one per `data:` line. An error after the first is an event of the name `error`.",
                ANSWERS,
            )
            .takes(of::<native::NativeChat>, || {
                let message = json!({ "role": "user", "content": "What is the capital of France?" });
                json!({ "model": "chat", "input": { "kind": "messages", "value": [message] } })
            })
            .asks_a_model()
        }
        ("POST", "/byzerllm/v1/template") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<native::TemplateAnswer>)];
            Operation::new("template", Tag::Native, "Render a conversation.", "The text.", ANSWERS).takes(
                of::<native::TemplateBody>,
                || json!({ "model": "chat", "messages": [{ "role": "user", "content": "Hello" }] }),
            )
        }
        ("POST", "/byzerllm/v1/tokenize") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<native::TokenizeAnswer>)];
            Operation::new("nativeTokenize", Tag::Native, "Turn a text into tokens.", "Their ids.", ANSWERS)
                .takes(of::<native::TokenizeBody>, || json!({ "model": "chat", "text": "Paris is" }))
        }
        ("GET", "/byzerllm/v1/models/{name}") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<native::ModelAnswer>)];
            Operation::new("describeModel", Tag::Native, "Tell what a model is.", "What is known.", ANSWERS)
        }
        ("GET", "/byzerllm/v1/deployments") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<Vec<DeploymentStatus>>)];
            Operation::new("listDeployments", Tag::Admin, "List all deployments.", "The list.", ANSWERS)
        }
        ("POST", "/byzerllm/v1/deployments") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<DeploymentStatus>)];
            Operation::new(
                "deploy",
                Tag::Admin,
                "Load a model and wait until it answers.",
                "The deployment.",
                ANSWERS,
            )
            .says("A deployment of the same name is replaced; when the new model does not load, the old one stays.")
            .takes(of::<DeploymentSpec>, || json!({ "name": "chat", "model": "/models/model.gguf" }))
            .fails(&[409])
        }
        ("GET", "/byzerllm/v1/deployments/{name}") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<DeploymentStatus>)];
            Operation::new("showDeployment", Tag::Admin, "Show a deployment.", "The deployment.", ANSWERS)
        }
        ("DELETE", "/byzerllm/v1/deployments/{name}") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<native::UndeployAnswer>)];
            let undeploy = Operation::new(
                "undeploy",
                Tag::Admin,
                "Finish what a deployment is doing and remove it.",
                "It is gone.",
                ANSWERS,
            );
            Operation { query: &[drain], ..undeploy.fails(&[409]) }
        }
        ("POST", "/byzerllm/v1/inspect") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<Inspection>)];
            Operation::new(
                "inspect",
                Tag::Admin,
                "Show what a checkpoint is, without loading it.",
                "What its headers say.",
                ANSWERS,
            )
            .takes(of::<native::InspectBody>, || json!({ "path": "/models/model.gguf" }))
        }
        _ => return super::adapters::operation(method, path).or_else(|| keys(method, path)),
    };
    Some(described)
}

/// The same for keys.
fn keys(method: &Method, path: &str) -> Option<Operation> {
    let described = match (method.as_str(), path) {
        ("GET", "/byzerllm/v1/keys") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<Vec<KeyInfo>>)];
            Operation::new(
                "listKeys",
                Tag::Admin,
                "List all keys, never their secrets.",
                "The list.",
                ANSWERS,
            )
        }
        ("POST", "/byzerllm/v1/keys") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<NewKey>)];
            Operation::new(
                "createKey",
                Tag::Admin,
                "Make a key.",
                "The key; its secret is seen this once.",
                ANSWERS,
            )
            .says("Nobody makes a key that may do more than they may.")
            .takes(of::<CreateKeyBody>, || json!({ "name": "app", "scopes": ["inference:chat"] }))
            .fails(&[409])
        }
        ("POST", "/byzerllm/v1/keys/{name}/rotate") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<NewKey>)];
            Operation::new(
                "rotateKey",
                Tag::Admin,
                "Replace a key's secret.",
                "The key; its secret is seen this once.",
                ANSWERS,
            )
            .takes(of::<RotateKeyBody>, || json!({ "grace_seconds": 3600 }))
            .fails(&[409])
        }
        ("DELETE", "/byzerllm/v1/keys/{name}") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<RevokeKeyAnswer>)];
            Operation::new("revokeKey", Tag::Admin, "End a key at once.", "It is ended.", ANSWERS)
                .fails(&[409])
        }
        _ => return super::ledger::operation(method, path),
    };
    Some(described)
}

/// The query of an undeploy.
fn drain() -> Value {
    json!({
        "name": "drain_seconds",
        "in": "query",
        "required": false,
        "description": "How long requests in flight may go on.",
        "schema": { "type": "integer", "minimum": 0, "maximum": limits::DRAIN_SECONDS, "default": 30 }
    })
}
