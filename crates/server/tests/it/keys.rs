//! Keys over HTTP: who gets in where, what is hidden, and what nobody ever sees.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Method};
use byzerllm_core::Error;
use byzerllm_core::testing::ScriptedModel;
use byzerllm_runtime::testing::ScriptedLoader;
use byzerllm_runtime::{DeploymentSpec, Runtime, RuntimeOptions, Scopes};
use byzerllm_server::{Access, router, routes};
use serde_json::{Value, json};

use crate::support::{Answer, App, TOKEN, options, request};

const KEYS: &str = "/byzerllm/v1/keys";

fn scopes(text: &str) -> Scopes {
    text.split_whitespace().map(|scope| scope.parse().unwrap()).collect()
}

/// A key of these scopes, named after them.
fn key(app: &App, text: &str) -> String {
    let name = text.replace(['*', ':', ' '], "-");
    app.runtime.keys().create(&Scopes::all(), &name, &scopes(text), None).unwrap().key
}

async fn send(app: &App, method: &Method, path: &str, credential: Option<&str>, body: &Value) -> Answer {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let mut request = request(method.clone(), path, Body::from(text));
    if let Some(credential) = credential {
        let value = HeaderValue::from_bytes(format!("Bearer {credential}").as_bytes()).unwrap();
        request.headers_mut().insert("authorization", value);
    }
    app.send(request).await
}

#[tokio::test]
async fn every_route_demands_what_its_class_demands() {
    let app = App::answering("hello").await;
    let keys = app.runtime.keys();
    let all = Scopes::all();
    let expired = keys.create(&all, "expired", &all, Some(Duration::ZERO)).unwrap().key;
    let revoked = keys.create(&all, "revoked", &all, None).unwrap().key;
    keys.revoke(&all, "revoked").unwrap();
    let replaced = keys.create(&all, "replaced", &all, None).unwrap().key;
    keys.rotate(&all, "replaced", Duration::ZERO).unwrap();
    let wrong = format!("bz-{}-{}", "0".repeat(16), "0".repeat(64));
    let (admin, chat, other) =
        (key(&app, "admin"), key(&app, "inference:chat"), key(&app, "inference:other"));
    let (every, metrics) = (key(&app, "inference:*"), key(&app, "metrics"));
    let body = json!({"model": "chat"});
    for route in routes() {
        let target = if route.access == Access::Admin { "nothing" } else { "chat" };
        let path = route.path.replace("{id}", target).replace("{name}", target);
        let shown = format!("{} {path}", route.method);
        let nobody = [None, Some(&wrong), Some(&expired), Some(&revoked), Some(&replaced)];
        for credential in nobody {
            let answer = send(&app, &route.method, &path, credential.map(String::as_str), &body).await;
            if route.access == Access::Public {
                assert_eq!(answer.status, 200, "{shown}");
                continue;
            }
            let (status, _, code, message) = answer.error();
            let expected = if credential == Some(&expired) { "key_expired" } else { "unauthenticated" };
            assert_eq!((status, code.as_str()), (401, expected), "{shown}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            assert!(credential.is_none_or(|key| !message.contains(&key[4..])), "{message}");
        }
        for (credential, inference, manager, scraper) in [
            (&admin, Some(403), None, 200),
            (&metrics, Some(403), Some(403), 200),
            (&chat, None, Some(403), 403),
            (&every, None, Some(403), 403),
            (&other, Some(404), Some(403), 403),
            (&TOKEN.to_owned(), None, None, 200),
        ] {
            let answer = send(&app, &route.method, &path, Some(credential), &body).await;
            let status = answer.status.as_u16();
            let expected = match route.access {
                Access::Public => Some(200),
                Access::Inference if path == "/v1/models" && credential == &other => Some(200),
                Access::Inference => inference,
                Access::Admin => manager,
                Access::Metrics => Some(scraper),
            };
            match expected {
                Some(expected) => assert_eq!(status, expected, "{shown}: {}", answer.text),
                None => {
                    assert!(![401, 403].contains(&status), "{shown}: {}", answer.text);
                    assert!(route.access == Access::Admin || status != 404, "{shown}: {}", answer.text);
                }
            }
        }
    }
    assert_eq!(app.runtime.list().len(), 1);
}

#[tokio::test]
async fn deployments_of_others_are_invisible() {
    let app = App::answering("hello").await;
    app.runtime.deploy(DeploymentSpec::new("secret-project", "/")).await.unwrap();
    let chat = key(&app, "inference:chat inference:missing");
    let list = send(&app, &Method::GET, "/v1/models", Some(&chat), &Value::Null).await.ok();
    assert_eq!(list["data"].as_array().unwrap().len(), 1, "{list}");
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let mut answers = Vec::new();
    // One that exists, one that does not, and one that would be allowed and does not exist.
    for name in ["secret-project", "nothing", "missing"] {
        for (method, path, body) in [
            (Method::GET, format!("/v1/models/{name}"), Value::Null),
            (Method::GET, format!("/byzerllm/v1/models/{name}"), Value::Null),
            (Method::POST, "/v1/chat/completions".to_owned(), json!({"model": name, "messages": messages})),
            (
                Method::POST,
                "/v1/chat/completions".to_owned(),
                json!({"model": name, "messages": messages, "stream": true}),
            ),
            (Method::POST, "/v1/completions".to_owned(), json!({"model": name, "prompt": ["a", "b"]})),
            (
                Method::POST,
                "/v1/completions".to_owned(),
                json!({"model": name, "prompt": ["a", "b"], "stream": true}),
            ),
            (
                Method::POST,
                "/byzerllm/v1/chat".to_owned(),
                json!({"model": name, "input": {"kind": "text", "value": "x"}}),
            ),
            (Method::POST, "/byzerllm/v1/tokenize".to_owned(), json!({"model": name, "text": "x"})),
            (Method::POST, "/byzerllm/v1/template".to_owned(), json!({"model": name, "messages": messages})),
        ] {
            let answer = send(&app, &method, &path, Some(&chat), &body).await;
            let (status, _, code, message) = answer.error();
            assert_eq!((status, code.as_str()), (404, "not_found"), "{path} {name}: {}", answer.text);
            assert!(!answer.text.contains("secret-project"), "{path} {name}: {}", answer.text);
            answers.push(message);
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "all look the same: {answers:?}");
    assert!(app.model.requests().is_empty());
    let body = json!({"model": "chat", "messages": messages});
    let answer = send(&app, &Method::POST, "/v1/chat/completions", Some(&chat), &body).await.ok();
    assert_eq!(answer["choices"][0]["message"]["content"], "hello");
    // Mistakes in a body are still explained.
    let body = json!({"model": "chat", "messages": messages, "temprature": 1});
    let answer = send(&app, &Method::POST, "/v1/chat/completions", Some(&chat), &body).await;
    assert!(answer.error().3.contains("temperature"));
}

#[tokio::test]
async fn no_set_of_scopes_reaches_or_mints_more_than_itself() {
    let app = App::answering("hello").await;
    app.runtime.deploy(DeploymentSpec::new("b", "/")).await.unwrap();
    let words = ["admin", "metrics", "inference:*", "inference:chat", "inference:b"];
    let subset =
        |bits: usize| -> Vec<&str> { (0..5).filter(|at| bits >> at & 1 == 1).map(|at| words[at]).collect() };
    // What a set allows, without the server's own arithmetic.
    let asks = |held: &[&str], name: &str| {
        held.contains(&"inference:*") || held.contains(&format!("inference:{name}").as_str())
    };
    let mut made = Vec::new();
    for bits in 1..32 {
        made.push((subset(bits), key(&app, &subset(bits).join(" "))));
    }
    for (held, key) in &made {
        for name in ["chat", "b"] {
            let body = json!({"model": name, "prompt": "x"});
            let status = send(&app, &Method::POST, "/v1/completions", Some(key), &body).await.status;
            assert_eq!(status == 200, asks(held, name), "{held:?} asks {name}: {status}");
        }
        let status = send(&app, &Method::GET, KEYS, Some(key), &Value::Null).await.status;
        assert_eq!(status == 200, held.contains(&"admin"), "{held:?}");
        let scrapes = held.contains(&"metrics") || held.contains(&"admin");
        let status = send(&app, &Method::GET, "/metrics", Some(key), &Value::Null).await.status;
        assert_eq!(status == 200, scrapes, "{held:?}");
        for bits in 1..32 {
            let wanted = subset(bits);
            let allowed = held.contains(&"admin")
                && wanted.iter().all(|word| match *word {
                    "inference:chat" => asks(held, "chat"),
                    "inference:b" => asks(held, "b"),
                    "metrics" => scrapes,
                    word => held.contains(&word),
                });
            let body = json!({"name": "minted", "scopes": wanted});
            let answer = send(&app, &Method::POST, KEYS, Some(key), &body).await;
            assert_eq!(answer.status == 200, allowed, "{held:?} mints {wanted:?}: {}", answer.text);
            if allowed {
                assert_eq!(answer.header("cache-control"), Some("no-store"));
                app.runtime.keys().revoke(&Scopes::all(), "minted").unwrap();
            } else {
                assert_eq!(answer.status, 403);
            }
            // The keys of others are neither taken over nor ended.
            let target = wanted.join(" ").replace(['*', ':', ' '], "-");
            let path = format!("{KEYS}/{target}/rotate");
            if !allowed {
                assert_eq!(send(&app, &Method::POST, &path, Some(key), &json!({})).await.status, 403);
                let path = format!("{KEYS}/{target}");
                assert_eq!(send(&app, &Method::DELETE, &path, Some(key), &Value::Null).await.status, 403);
            }
        }
    }
}

#[tokio::test]
async fn keys_live_and_end_over_http() {
    let app = App::answering("hello").await;
    let prompt = json!({"model": "chat", "prompt": "x"});
    let asks = |key: Option<String>| {
        let (app, prompt) = (&app, &prompt);
        async move { send(app, &Method::POST, "/v1/completions", key.as_deref(), prompt).await.status.as_u16() }
    };
    assert_eq!(asks(None).await, 200, "open before the first key");
    assert_eq!(asks(Some("sk-anything".to_owned())).await, 200);
    let body = json!({"name": "app", "expires_seconds": 3600});
    let made = app.admin(Method::POST, KEYS, body).await.ok();
    let first = made["key"].as_str().unwrap().to_owned();
    assert_eq!(made["info"]["scopes"], json!(["inference:*"]));
    assert!(made["info"]["expires"].as_u64().unwrap() > made["info"]["created"].as_u64().unwrap());
    assert_eq!((asks(None).await, asks(Some(first.clone())).await), (401, 200));
    assert_eq!(asks(Some(TOKEN.to_owned())).await, 200);
    let rotated =
        app.admin(Method::POST, &format!("{KEYS}/app/rotate"), json!({"grace_seconds": 60})).await.ok();
    let second = rotated["key"].as_str().unwrap().to_owned();
    assert_eq!((asks(Some(first.clone())).await, asks(Some(second.clone())).await), (200, 200));
    let rotated = app.admin(Method::POST, &format!("{KEYS}/app/rotate"), json!({})).await.ok();
    let third = rotated["key"].as_str().unwrap().to_owned();
    assert_eq!(
        (asks(Some(first)).await, asks(Some(second)).await, asks(Some(third.clone())).await),
        (401, 401, 200)
    );
    let list = app.admin(Method::GET, KEYS, "").await;
    assert!(!list.text.contains(third.rsplit('-').next().unwrap()), "{}", list.text);
    assert_eq!(list.ok()[0]["name"], "app");
    assert_eq!(app.admin(Method::DELETE, &format!("{KEYS}/app"), "").await.ok()["revoked"], true);
    assert_eq!((asks(Some(third)).await, asks(None).await), (401, 401), "closed after the last key");
    for (body, param) in [
        (json!({"name": "a b"}), "name"),
        (json!({"name": "x", "scopes": []}), "scopes"),
        (json!({"name": "x", "scopes": ["root"]}), "scopes[0]"),
        (json!({"name": "x", "expires_seconds": u64::MAX}), "expires_seconds"),
        (json!({"name": "x", "scope": "admin"}), "scope"),
    ] {
        let (status, named, ..) = app.admin(Method::POST, KEYS, &body).await.error();
        assert_eq!((status, named.as_deref()), (400, Some(param)), "{body}");
    }
    assert_eq!(app.admin(Method::DELETE, &format!("{KEYS}/none"), "").await.status, 404);
}

#[tokio::test]
async fn hostile_credentials_are_nobodys() {
    let app = App::answering("hello").await;
    let good = key(&app, "inference:* admin");
    let body = json!({"model": "chat", "prompt": "x"});
    let (long, spaced, twice) = ("x".repeat(60_000), format!(" {good}"), format!("{good}, Bearer {good}"));
    let (doubled, cut) = (format!("{good}{good}"), &good[..good.len() - 1]);
    let values: Vec<Vec<u8>> = [
        "Bearer",
        "Bearer ",
        "Bearer  ",
        "Basic Zm9v",
        "' OR '1'='1",
        "Bearer ' OR '1'='1' --",
        "Bearer bz-'; DROP TABLE keys; ---x",
        "Bearer bz-%00-%00",
        &long,
        &good,
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .chain([&long, &spaced, &twice, &doubled, cut].iter().map(|key| format!("Bearer {key}").into_bytes()))
    .chain([b"Bearer \xff\xfe".to_vec(), format!("Bearer {}", good.to_uppercase()).into_bytes()])
    .collect();
    for value in values {
        for path in ["/v1/completions", KEYS] {
            let mut request = request(Method::POST, path, Body::from(body.to_string()));
            request.headers_mut().insert("authorization", HeaderValue::from_bytes(&value).unwrap());
            let answer = app.send(request).await;
            assert_eq!(answer.status, 401, "{path} {:?}", String::from_utf8_lossy(&value));
            assert!(answer.text.len() < 1000, "nothing is echoed");
        }
    }
    let mut request = request(Method::POST, "/v1/completions", Body::from(body.to_string()));
    for _ in 0..2 {
        request.headers_mut().append("authorization", format!("Bearer {good}").parse().unwrap());
    }
    assert_eq!(app.send(request).await.status, 401, "two credentials are none");
    assert_eq!(send(&app, &Method::POST, "/v1/completions", Some(&good), &body).await.status, 200);
    assert_eq!(app.runtime.keys().list().len(), 1);
}

/// What the server logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_key_is_in_no_file_no_log_and_no_error() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("trace")
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // With one subscriber alone, what another test logs first would be decided by that test's thread, which has none.
    let _other = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    let _logging = tracing::subscriber::set_default(subscriber);
    let state = tempfile::tempdir().unwrap();
    let model = Arc::new(ScriptedModel::new("hello"));
    let given = model.clone();
    let loader = ScriptedLoader::new(move |_: &DeploymentSpec| Ok::<_, Error>(given.clone()));
    let directory = state.path().join("state");
    let runtime_options =
        RuntimeOptions { threads: Some(1), state: Some(directory.clone()), ..RuntimeOptions::default() };
    let runtime = Runtime::open_with(runtime_options, loader.clone()).await.unwrap();
    runtime.deploy(DeploymentSpec::new("chat", "/")).await.unwrap();
    let app = App { model, loader, router: router(runtime.clone(), &options()), runtime };
    let mut secrets = vec![TOKEN.to_owned()];
    let made = app.admin(Method::POST, KEYS, json!({"name": "app", "scopes": ["inference:chat"]})).await.ok();
    let over = app.admin(Method::POST, KEYS, json!({"name": "over", "expires_seconds": 0})).await.ok();
    let again =
        app.admin(Method::POST, &format!("{KEYS}/app/rotate"), json!({"grace_seconds": 9})).await.ok();
    for answer in [made, over, again] {
        secrets.push(answer["key"].as_str().unwrap().to_owned());
    }
    let mut errors = String::new();
    for secret in &secrets {
        let wrong = format!("{secret}0");
        for (path, body) in [
            ("/v1/completions", json!({"model": "chat", "prompt": "x"})),
            ("/v1/completions", json!({"model": "other", "prompt": "x"})),
            (KEYS, json!({"name": "bad name"})),
            ("/nothing", Value::Null),
        ] {
            for credential in [secret, &wrong] {
                let answer = send(&app, &Method::POST, path, Some(credential), &body).await;
                errors.push_str(&format!("{} {:?}\n", answer.text, answer.headers));
            }
        }
    }
    errors.push_str(&app.admin(Method::GET, KEYS, "").await.text);
    app.admin(Method::DELETE, &format!("{KEYS}/app"), "").await.ok();
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("a key was made") && log.contains("request"), "{log}");
    let mut places = vec![("log", log.into_bytes()), ("answers", errors.into_bytes())];
    for entry in std::fs::read_dir(&directory).unwrap() {
        places.push(("state", std::fs::read(entry.unwrap().path()).unwrap()));
    }
    assert!(places.len() > 3, "the database and its side files are looked at");
    for secret in &secrets {
        let secret = secret
            .rsplit_once('-')
            .filter(|_| secret.starts_with("bz-"))
            .map_or(secret.as_str(), |(_, end)| end);
        for (place, bytes) in &places {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} is in the {place}");
        }
    }
}
