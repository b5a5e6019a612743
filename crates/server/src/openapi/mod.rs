//! The OpenAPI document of this server.
//!
//! Paths and classes of access come from the router's table, schemas from the types that parse and answer, limits
//! from [`crate::limits`]. Only words, examples and which types belong to a route stand in [`operations`].

mod adapters;
mod ledger;
mod operations;
mod schemas;

use std::sync::LazyLock;

use bytes::Bytes;
use byzerllm_core::ErrorKind;
use serde_json::{Map, Value, json};

use crate::limits;
use crate::router::{Access, routes};
use operations::{Answer, Operation, Tag, operation};
use schemas::Schemas;

/// The document that `GET /openapi.json` answers, as OpenAPI 3.1.
#[must_use]
pub fn openapi() -> Value {
    let mut schemas = Schemas::new();
    let mut paths: Map<String, Value> = Map::new();
    let mut responses = json!({});
    for route in routes() {
        let Some(operation) = operation(&route.method, route.path) else { continue };
        let described = describe(&operation, route.access, route.path, &mut schemas);
        let method = route.method.as_str().to_ascii_lowercase();
        responses[route.path][&method] = responses_of(&operation, route.access, route.path, &mut schemas);
        paths.entry(route.path).or_insert_with(|| json!({}))[&method] = described;
    }
    let tags: Vec<Value> =
        Tag::ALL.iter().map(|tag| json!({ "name": tag.name(), "description": tag.description() })).collect();
    let failures = failure_responses(&responses, &mut schemas);
    let components = schemas.finish(&mut responses);
    for (path, operations) in &mut paths {
        for (method, operation) in operations.as_object_mut().into_iter().flatten() {
            operation["responses"] = responses[path][method].take();
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "byzerllm",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Large language models over HTTP. An unknown field of a request is refused with the nearest \
                            name that exists; `null` is the same as leaving a field out.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" }
        },
        "servers": [{ "url": "/" }],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": failures,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key with a scope for the deployment, or the admin token. On loopback, before the \
                                    first key is made, no key is needed."
                },
                "apiKey": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "x-api-key",
                    "description": "The same, as Anthropic's clients send it. With `Authorization` beside it both must \
                                    be the same."
                },
                "admin": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The admin token of the running server, or a key with the scope `admin`; for metrics also one \
                                    with the scope `metrics`."
                }
            }
        },
        "x-byzerllm-limits": limits_table(),
        "x-byzerllm-errors": error_table()
    })
}

/// The document as it is sent, made once.
pub(crate) fn bytes() -> Bytes {
    static BYTES: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(openapi().to_string()));
    BYTES.clone()
}

fn describe(operation: &Operation, access: Access, path: &str, schemas: &mut Schemas) -> Value {
    let mut value = json!({
        "operationId": operation.id,
        "tags": [operation.tag.name()],
        "summary": operation.summary,
        "description": operation.description,
        "security": security(access),
        "x-byzerllm-access": word(access)
    });
    if operation.description.is_empty() {
        value.as_object_mut().map(|value| value.shift_remove("description"));
    }
    if operation.tag.unstable() {
        value["x-byzerllm-unstable"] = true.into();
    }
    let mut parameters: Vec<Value> = path
        .split('{')
        .skip(1)
        .filter_map(|rest| rest.split_once('}'))
        .map(|(name, _)| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    parameters.extend(operation.query.iter().map(|parameter| parameter()));
    if !parameters.is_empty() {
        value["parameters"] = parameters.into();
    }
    if let Some(body) = &operation.body {
        let content = json!({ "schema": (body.schema)(schemas.requests()), "example": (body.example)() });
        value["requestBody"] = json!({ "required": true, "content": { "application/json": content } });
    }
    value
}

fn responses_of(operation: &Operation, access: Access, path: &str, schemas: &mut Schemas) -> Value {
    let mut responses = Map::new();
    responses.insert("200".to_owned(), success(operation, schemas));
    for status in failures(operation, access, path) {
        let whose = if matches!(operation.tag, Tag::Anthropic) { "Messages" } else { "" };
        responses
            .insert(status.to_string(), json!({ "$ref": format!("#/components/responses/{whose}{status}") }));
    }
    responses.into()
}

fn success(operation: &Operation, schemas: &mut Schemas) -> Value {
    let mut content = Map::new();
    for answer in operation.answers {
        let (kind, schema) = match answer {
            Answer::Json(schema) => ("application/json", schema(schemas.answers())),
            Answer::Stream(schema) => ("text/event-stream", schema(schemas.answers())),
            Answer::Text(kind) => (*kind, schemars::json_schema!({ "type": "string" })),
        };
        content.insert(kind.to_owned(), json!({ "schema": schema }));
    }
    if content.is_empty() {
        json!({ "description": operation.answer })
    } else {
        json!({ "description": operation.answer, "content": content })
    }
}

fn security(access: Access) -> Value {
    match access {
        Access::Public => json!([]),
        Access::Inference => json!([{ "key": [] }, { "apiKey": [] }, {}]),
        Access::Admin | Access::Metrics => json!([{ "admin": [] }]),
    }
}

/// Who may call, in a word.
fn word(access: Access) -> &'static str {
    match access {
        Access::Public => "everyone",
        Access::Inference => "inference",
        Access::Admin => "admin",
        Access::Metrics => "metrics",
    }
}

/// The answers of failures, by status and by whose words they are in.
fn failure_responses(responses: &Value, schemas: &mut Schemas) -> Map<String, Value> {
    let used = responses.to_string();
    let mut failures = Map::new();
    for (whose, schema) in [("", schemas.error()), ("Messages", schemas.messages_error())] {
        let content = json!({ "application/json": { "schema": schema } });
        for (status, what) in FAILURES {
            let name = format!("{whose}{status}");
            if whose.is_empty() || used.contains(&format!("/{name}\"")) {
                failures.insert(name, json!({ "description": what, "content": content }));
            }
        }
    }
    failures
}

/// What each status of a failure means.
const FAILURES: &[(u16, &str)] = &[
    (400, "The request is wrong, or this version cannot do it."),
    (401, "A key or the admin token is missing, unknown or expired."),
    (403, "The key does not allow this, or the Host or Origin header is refused."),
    (404, "There is no such thing, or it is hidden from the key."),
    (408, "The body did not arrive in time."),
    (409, "The thing exists already or is being changed."),
    (413, "The body is too large."),
    (415, "The body is not declared as JSON."),
    (429, "The server or the deployment is full; `Retry-After` says when to come back."),
    (499, "The request was cancelled."),
    (500, "A bug in byzerllm."),
    (502, "A model elsewhere failed."),
    (503, "The model is loading, draining or gone, or the server is short of memory for bodies."),
    (504, "The deadline passed."),
];

/// With which statuses an operation can fail.
fn failures(operation: &Operation, access: Access, path: &str) -> Vec<u16> {
    let mut statuses = vec![403, 500];
    if access != Access::Public {
        statuses.push(401);
    }
    if path.contains('{') {
        statuses.extend([400, 404]);
    }
    if operation.body.is_some() {
        statuses.extend([400, 404, 408, 413, 415, 503]);
    }
    if operation.model {
        statuses.extend(ErrorKind::ALL.map(ErrorKind::http_status));
    }
    statuses.extend(operation.failures);
    statuses.sort_unstable();
    statuses.dedup();
    statuses
}

/// Every error code with its status, its type and whether a retry may help.
fn error_table() -> Value {
    let row = |kind: &ErrorKind| {
        json!({
            "code": kind.code(), "status": kind.http_status(), "type": kind.openai_type(), "retry": kind.is_retryable()
        })
    };
    ErrorKind::ALL.iter().map(row).collect()
}

/// What may be sent, at most.
fn limits_table() -> Value {
    let row = |what: &str, most: String| json!({ "what": what, "most": most });
    let bytes = |bytes: usize| match bytes {
        bytes if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        bytes if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} bytes"),
    };
    let number = |number: usize| number.to_string();
    json!([
        row("a body", bytes(limits::BODY_BYTES)),
        row("all bodies at once", bytes(limits::BODY_MEMORY)),
        row("a request's head", format!("{}, {} headers", bytes(limits::HEAD_BYTES), limits::HEADERS)),
        row("open connections", number(limits::CONNECTIONS)),
        row("messages of a conversation", number(limits::MESSAGES)),
        row(
            "parts of a message, its tool calls",
            format!("{}, {}", limits::CONTENT_PARTS, limits::TOOL_CALLS)
        ),
        row("`n`, `best_of`", number(limits::CHOICES as usize)),
        row("prompts in a call", number(limits::PROMPTS)),
        row("inputs of `/v1/embeddings`", number(limits::EMBEDDING_INPUTS)),
        row("documents of `/v1/rerank`, pairs of `/v1/score`", number(limits::DOCUMENTS)),
        row("arguments of a call that a message tells", bytes(limits::CALL_BYTES)),
        row("a parameter of a vendor's own", bytes(limits::EXTRA_BYTES)),
        row(
            "`metadata` of `/v1/responses`",
            format!(
                "{} entries, names of {} bytes, texts of {}",
                limits::METADATA,
                limits::METADATA_NAME,
                limits::METADATA_TEXT
            )
        ),
        row("prompts times choices", number(limits::CHOICES_PER_CALL)),
        row("`top_logprobs`, `logprobs` of `/v1/completions`", number(limits::TOP_LOGPROBS as usize)),
        row(
            "stop strings, each",
            format!("{}, {} bytes", limits::STOP, byzerllm_core::Sampling::MAX_STOP_BYTES)
        ),
        row("`stop_token_ids`", number(limits::STOP_TOKEN_IDS)),
        row("`logit_bias`", format!("{} tokens", limits::LOGIT_BIAS)),
        row("tools, the schema of each", format!("{}, {}", limits::TOOLS, bytes(limits::TOOL_BYTES))),
        row(
            "a schema for the answer",
            format!("{}, {} levels", bytes(limits::SCHEMA_BYTES), limits::SCHEMA_DEPTH)
        ),
        row("a regular expression or grammar", bytes(limits::GRAMMAR_BYTES)),
        row("`guided_choice`", format!("{} texts", limits::GUIDED_CHOICES)),
        row("`tokens` of `/detokenize`", number(limits::TOKENS)),
        row("scopes of a key", number(byzerllm_runtime::Scopes::MAX)),
        row(
            "`drain_seconds` of an undeploy",
            number(usize::try_from(limits::DRAIN_SECONDS).unwrap_or(usize::MAX))
        ),
    ])
}
