//! A gateway over scripted models.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use byzerllm_core::Error;
use byzerllm_core::testing::ScriptedModel;
use byzerllm_runtime::testing::ScriptedLoader;
use byzerllm_runtime::{DeploymentSpec, Runtime, RuntimeOptions};
use byzerllm_server::{ServerOptions, router};
use serde_json::Value;
use tower::ServiceExt;

use crate::contract;

pub(crate) const TOKEN: &str = "admin-secret";

/// A router over one runtime.
pub(crate) struct App {
    pub(crate) model: Arc<ScriptedModel>,
    pub(crate) loader: Arc<ScriptedLoader>,
    pub(crate) runtime: Runtime,
    pub(crate) router: Router,
}

pub(crate) fn options() -> ServerOptions {
    ServerOptions {
        address: ([127, 0, 0, 1], 8000).into(),
        allowed_hosts: vec!["gateway.example".to_owned()],
        allowed_origins: vec!["https://app.example".to_owned()],
        admin_token: TOKEN.to_owned(),
        tls: None,
    }
}

impl App {
    /// With one deployment, `chat`, that answers `text`.
    pub(crate) async fn answering(text: &str) -> Self {
        Self::with(ScriptedModel::new(text)).await
    }

    /// With one deployment, `chat`. Every other deployment answers as it does, but for `broken`, which cannot load.
    pub(crate) async fn with(model: ScriptedModel) -> Self {
        let model = Arc::new(model);
        let shared = HashMap::from([("chat", model.clone())]);
        let loader = ScriptedLoader::new(move |spec: &DeploymentSpec| match spec.name.as_str() {
            "broken" => Err(Error::invalid("model", "the file is not a model")),
            _ => Ok(shared["chat"].clone()),
        });
        let options_ = RuntimeOptions { threads: Some(1), ..RuntimeOptions::default() };
        let runtime = Runtime::open_with(options_, loader.clone()).await.unwrap();
        runtime.deploy(DeploymentSpec::new("chat", "/")).await.unwrap();
        let router = router(runtime.clone(), &options());
        Self { model, loader, runtime, router }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 64 << 20).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let answer = Answer { status: parts.status, headers: parts.headers, text };
        contract::check_answer(&method, &path, &answer);
        answer
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(request(Method::GET, path, Body::empty())).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl ToString) -> Answer {
        let body = body.to_string();
        let answer = self.send(request(Method::POST, path, Body::from(body.clone()))).await;
        if answer.status.is_success() {
            contract::check_request(&Method::POST, path, &body);
        }
        answer
    }

    pub(crate) async fn chat(&self, body: impl ToString) -> Answer {
        self.post("/v1/chat/completions", body).await
    }

    pub(crate) async fn complete(&self, body: impl ToString) -> Answer {
        self.post("/v1/completions", body).await
    }

    pub(crate) async fn admin(&self, method: Method, path: &str, body: impl ToString) -> Answer {
        let body = body.to_string();
        let mut request = request(method.clone(), path, Body::from(body.clone()));
        request.headers_mut().insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
        let answer = self.send(request).await;
        if answer.status.is_success() {
            contract::check_request(&method, path, &body);
        }
        answer
    }
}

/// A request as a well-behaved client sends it.
pub(crate) fn request(method: Method, path: &str, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.uri_mut() = path.parse().unwrap();
    let headers = request.headers_mut();
    headers.insert("host", "127.0.0.1:8000".parse().unwrap());
    if method == Method::POST {
        headers.insert("content-type", "application/json".parse().unwrap());
    }
    *request.method_mut() = method;
    request
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The body, with what differs from run to run replaced.
    pub(crate) fn json(&self) -> Value {
        masked(serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text)))
    }

    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        self.json()
    }

    /// Status, parameter, code and message of an error.
    pub(crate) fn error(&self) -> (u16, Option<String>, String, String) {
        let body = self.json();
        let error = &body["error"];
        let text = |name: &str| error[name].as_str().map(str::to_owned);
        assert!(error["type"].is_string(), "{body}");
        (self.status.as_u16(), text("param"), text("code").unwrap(), text("message").unwrap())
    }

    /// The JSON of each `data:` line; the last one must be `[DONE]`.
    pub(crate) fn chunks(&self) -> Vec<Value> {
        let mut data = self.data();
        assert_eq!(data.pop().as_deref(), Some("[DONE]"), "{}", self.text);
        data.iter().map(|data| masked(serde_json::from_str(data).unwrap())).collect()
    }

    pub(crate) fn data(&self) -> Vec<String> {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        assert_eq!(self.header("content-type"), Some("text/event-stream"));
        assert_eq!(self.header("cache-control"), Some("no-cache"));
        assert!(self.text.ends_with("\n\n"), "an unfinished frame: {}", self.text);
        let frames = self.text.split_terminator("\n\n").filter(|frame| !frame.starts_with(':'));
        frames
            .map(|frame| {
                assert_eq!(frame.lines().filter(|line| line.starts_with("data: ")).count(), 1, "{frame}");
                frame.lines().find_map(|line| line.strip_prefix("data: ")).unwrap().to_owned()
            })
            .collect()
    }
}

fn masked(mut value: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        if let Some(Value::String(id)) = object.get_mut("id")
            && let Some((kind, rest)) = id.split_once('-')
            && rest.len() == 32
        {
            *id = format!("{kind}-ID");
        }
        if let Some(created) = object.get_mut("created") {
            assert!(created.as_u64().is_some_and(|created| created > 1_700_000_000), "{created}");
            *created = "TIME".into();
        }
    }
    value
}
