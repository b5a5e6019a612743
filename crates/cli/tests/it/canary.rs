//! A vendor's key is looked for wherever a user or an operator might see it, and found nowhere.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use crate::harness::{Serving, World};

const CANARY: &str = "sk-canary-4f1e9b7a2c";

/// How the vendor gives the key back that it was sent.
#[derive(Debug, Clone, Copy)]
enum Echo {
    /// It answers.
    Not,
    /// In an error of OpenAI's form, and in the id of the request.
    Json,
    /// In an error that is text.
    Text,
    /// In an error after the answer began.
    Stream,
    /// In something that is no HTTP.
    Noise,
    /// In the address that it sends the client to.
    Redirect,
}

const ECHOES: [Echo; 6] = [Echo::Not, Echo::Json, Echo::Text, Echo::Stream, Echo::Noise, Echo::Redirect];

/// A server that keeps the keys that it is sent, and answers as it is told.
struct Vendor {
    url: String,
    echo: Arc<Mutex<Echo>>,
    keys: Arc<Mutex<Vec<String>>>,
}

impl Vendor {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let (echo, keys) = (Arc::new(Mutex::new(Echo::Not)), Arc::<Mutex<Vec<String>>>::default());
        let (told, seen) = (Arc::clone(&echo), Arc::clone(&keys));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (told, seen) = (Arc::clone(&told), Arc::clone(&seen));
                thread::spawn(move || serve(stream, &told, &seen));
            }
        });
        Self { url, echo, keys }
    }

    fn echoes(&self, echo: Echo) {
        *self.echo.lock().unwrap() = echo;
    }
}

fn serve(mut stream: TcpStream, echo: &Mutex<Echo>, keys: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut length, mut key) = (0, String::new());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let line = line.trim();
        if line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(':') else { continue };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap(),
            "authorization" => key = value.trim().trim_start_matches("Bearer ").to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let streams = serde_json::from_slice::<Value>(&body).unwrap()["stream"] == true;
    keys.lock().unwrap().push(key.clone());
    let _gone = stream.write_all(&answer(*echo.lock().unwrap(), &key, streams));
}

fn answer(echo: Echo, key: &str, streams: bool) -> Vec<u8> {
    let whole = |status: &str, headers: &str, kind: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}")
            .into_bytes()
    };
    const EVENTS: &str = "text/event-stream";
    let chunk = r#"data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"Hello"},"finish_reason":null}]}"#;
    match echo {
        Echo::Not if !streams => {
            let body = r#"{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#;
            whole("200 OK", "", "application/json", body)
        }
        Echo::Not => {
            let end = r#"data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#;
            whole("200 OK", "", EVENTS, &format!("{chunk}\n\n{end}\n\ndata: [DONE]\n\n"))
        }
        Echo::Json => {
            let body = format!(
                r#"{{"error":{{"message":"Incorrect API key provided: {key}. Bearer {key}","type":"invalid_request_error","param":"{key}","code":"invalid_api_key"}}}}"#
            );
            whole("401 Unauthorized", &format!("x-request-id: req-{key}\r\n"), "application/json", &body)
        }
        Echo::Text => whole("400 Bad Request", "", "text/plain", &format!("I do not know {key}, go away")),
        Echo::Stream => {
            let error = format!(
                r#"data: {{"error":{{"message":"lost {key}","type":"server_error","code":"{key}"}}}}"#
            );
            whole("200 OK", "", EVENTS, &format!("{chunk}\n\n{error}\n\n"))
        }
        Echo::Noise => format!("{key} {key}\r\n\r\n{key}").into_bytes(),
        Echo::Redirect => {
            whole("302 Found", &format!("Location: http://127.0.0.1:1/{key}\r\n"), "text/plain", "elsewhere")
        }
    }
}

/// Asks the server as a client would, and returns all of the answer.
fn http(serving: &Serving, token: &str, request: &str, body: &str) -> String {
    let address = serving.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn admin_token(world: &World) -> String {
    let directory = world.path("runtime").join("byzerllm");
    let record = fs::read_dir(directory)
        .unwrap()
        .flatten()
        .find(|entry| entry.path().extension().is_some_and(|extension| extension == "json"));
    let text = fs::read_to_string(record.unwrap().path()).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["token"].as_str().unwrap().to_owned()
}

#[track_caller]
fn clean(what: &str, text: &str) {
    assert!(!text.contains(CANARY) && !text.contains("sk-canary"), "{what}: {text}");
}

fn clean_files(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            clean_files(&path);
        } else if path.is_file() {
            let bytes = fs::read(&path).unwrap();
            clean(&path.display().to_string(), &String::from_utf8_lossy(&bytes));
        }
    }
}

#[test]
fn a_key_is_found_nowhere_in_whatever_form_it_was_given() {
    let (world, vendor) = (World::new(), Vendor::start());
    let log = world.path("log");
    let environment = [("BYZERLLM_LOG", "trace"), ("CANARY_KEY", CANARY)];
    let serving = world.serve_logging(&log, &environment);
    // Outside of the state directory, which is searched.
    let file = world.path("key");
    fs::write(&file, format!("{CANARY}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let by_file = format!("saas.api_key=file:{}", file.display());
    let literal = format!("saas.api_key={CANARY}");
    let base = format!("saas.base_url={}", vendor.url);
    let plain = ["--set", &base, "--set", "saas.model=m", "--set", "saas.max_retries=0"];
    let deploy = |name: &str, key: &str, input: &str| {
        let arguments =
            ["deploy", "--url", &serving.url, "--name", name, "--type", "saas/openai", "--set", key];
        world.run_with(&[&arguments[..], &plain].concat(), input)
    };
    let mut said = Vec::new();
    said.push(("env", deploy("env", "saas.api_key=env:CANARY_KEY", "")));
    said.push(("file", deploy("file", &by_file, "")));
    said.push(("stdin", deploy("stdin", "saas.api_key=-", &format!("{CANARY}\n"))));
    said.push(("literal", deploy("literal", &literal, "")));
    let legacy = [
        "deploy",
        "--url",
        &serving.url,
        "--verbose",
        "--udf_name",
        "legacy",
        "--pretrained_model_type",
        "saas/openai",
        "--infer_params",
        &literal,
        &base,
        "saas.model=m",
        "saas.max_retries=0",
    ];
    said.push(("legacy", world.run(&legacy)));
    for (name, done) in &said {
        assert_eq!(done.code, 0, "{name}: {done:?}");
        clean(name, &format!("{done:?}"));
        let warns = done.err.contains("warning: saas.api_key holds the secret itself");
        assert_eq!(warns, matches!(*name, "literal" | "legacy"), "{name}: {done:?}");
    }
    let refused = deploy("refused", &format!("saas.api_kye={CANARY}"), "");
    assert!(refused.code != 0 && refused.err.contains("did you mean 'saas.api_key'"), "{refused:?}");
    clean("a misspelt parameter", &format!("{refused:?}"));
    let token = admin_token(&world);
    for (name, _) in &said {
        for echo in ECHOES {
            vendor.echoes(echo);
            for stream in [false, true] {
                let body = format!(
                    r#"{{"model":"{name}","stream":{stream},"messages":[{{"role":"user","content":"hi"}}]}}"#
                );
                let answer = http(&serving, &token, "POST /v1/chat/completions", &body);
                clean(&format!("{name}, {echo:?}"), &answer);
                let good = answer.starts_with("HTTP/1.1 200");
                assert!(!matches!(echo, Echo::Not) || good && answer.contains("Hello"), "{name}: {answer}");
                assert!(
                    !matches!(echo, Echo::Json | Echo::Text | Echo::Noise | Echo::Redirect) || !good,
                    "{echo:?}: {answer}"
                );
            }
        }
    }
    let keys = vendor.keys.lock().unwrap().clone();
    assert!(keys.iter().all(|key| key == CANARY) && keys.len() >= 2 * said.len() * 5, "{} keys", keys.len());
    for path in ["/openapi.json", "/metrics", "/v1/models", "/byzerllm/v1/deployments"] {
        let answer = http(&serving, &token, &format!("GET {path}"), "");
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        clean(path, &answer);
        if path == "/metrics" {
            for series in [
                r#"byzerllm_provider_attempts_total{deployment="env"}"#,
                r#"byzerllm_provider_failures_total{deployment="file",code="upstream"}"#,
                r#"byzerllm_provider_breaker{deployment="stdin",state="closed"}"#,
            ] {
                assert!(answer.contains(series), "{series}: {answer}");
            }
        }
    }
    let listed = world.run(&["list", "--url", &serving.url, "--json"]).ok();
    clean("list --json", &listed);
    assert!(
        listed.contains("env:CANARY_KEY") && listed.contains("\"***\"") && !listed.contains("sealed:"),
        "{listed}"
    );
    let inspected = world.run(&["inspect", "literal", "--url", &serving.url]).ok();
    assert!(inspected.contains("saas/openai m") && inspected.contains("***"), "{inspected}");
    clean("inspect", &inspected);
    let table = world.run(&["list", "--url", &serving.url]).ok();
    assert!(table.contains("saas/openai m"), "{table}");
    clean("list", &table);
    // The journal is still beside the database while the server runs.
    assert!(world.path("state/byzerllm.db-wal").exists());
    clean_files(&world.path("state"));
    clean_files(&world.path("home"));
    assert_eq!(serving.signal("TERM"), Some(0));
    clean_files(&world.path("state"));
    let log = fs::read_to_string(&log).unwrap();
    clean("the log", &log);
    assert!(log.contains("was given literally"), "{log}");
}

#[test]
fn sealed_keys_answer_again_after_a_restart() {
    let (world, vendor) = (World::new(), Vendor::start());
    let serving = world.serve();
    let (base, key) = (format!("saas.base_url={}", vendor.url), format!("saas.api_key={CANARY}"));
    let deploy = [
        "deploy",
        "--url",
        &serving.url,
        "--name",
        "m",
        "--type",
        "saas/openai",
        "--set",
        &base,
        "--set",
        &key,
        "--set",
        "saas.model=m",
    ];
    world.run(&deploy).ok();
    serving.kill();
    clean_files(&world.path("state"));
    let serving = world.serve();
    let answer = loop {
        let body = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
        let answer = http(&serving, &admin_token(&world), "POST /v1/chat/completions", body);
        if !answer.contains("is still loading") {
            break answer;
        }
    };
    assert!(answer.contains("Hello"), "{answer}");
    assert_eq!(vendor.keys.lock().unwrap().as_slice(), [CANARY]);
}

#[test]
fn vendors_and_their_parameters_are_listed() {
    let world = World::new();
    let all = world.run(&["vendors"]).ok();
    assert!(all.contains("saas/openai"), "{all}");
    let one = world.run(&["vendors", "saas/official_openai"]).ok();
    assert!(
        one.contains("saas.api_key") && one.contains("saas.https_verify") && one.contains("secret"),
        "{one}"
    );
    let json: Value = serde_json::from_str(&world.run(&["vendors", "openai", "--json"]).ok()).unwrap();
    let names: Vec<&str> =
        json["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"saas.base_url") && names.contains(&"saas.timeout"), "{names:?}");
    let unknown = world.run(&["vendors", "opneai"]);
    assert!(unknown.code != 0 && unknown.err.contains("saas/openai"), "{unknown:?}");
}
