//! Models by name: `pull`, `models`, and `--model ORG/NAME`, against a hub on this machine.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::harness::{Done, World, fixture};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub with one model: the files of a fixture as `org/tiny`.
struct Hub {
    url: String,
    asked: Arc<AtomicUsize>,
}

impl Hub {
    fn start() -> Self {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(fixture("llama-tied-f32")).unwrap() {
            let path = entry.unwrap().path();
            files
                .insert(path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap());
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let target = lines.next().unwrap().unwrap().split(' ').nth(1).unwrap().to_owned();
                let _headers: Vec<String> =
                    lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                let (status, body) = answer(&target, &files);
                let head = format!(
                    "HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                let _gone = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            }
        });
        Self { url, asked }
    }

    fn command(&self, world: &World, arguments: &[&str]) -> Command {
        let mut command = world.command(arguments);
        command.env("HF_ENDPOINT", &self.url).env("HF_TOKEN", "hf_secret");
        command
    }

    fn run(&self, world: &World, arguments: &[&str]) -> Done {
        let output = self.command(world, arguments).output().unwrap();
        Done::new(&output)
    }
}

fn answer(target: &str, files: &BTreeMap<String, Vec<u8>>) -> (u16, Vec<u8>) {
    if target.starts_with("/api/models/org/tiny/revision/main") {
        let siblings: Vec<Value> =
            files.iter().map(|(name, bytes)| json!({"rfilename": name, "size": bytes.len()})).collect();
        return (200, serde_json::to_vec(&json!({"sha": COMMIT, "siblings": siblings})).unwrap());
    }
    let name = target.strip_prefix(&format!("/org/tiny/resolve/{COMMIT}/"));
    name.and_then(|name| files.get(name)).map_or((404, Vec::new()), |bytes| (200, bytes.clone()))
}

#[test]
fn pull_prints_the_path_and_models_looks_after_it() {
    let (hub, world) = (Hub::start(), World::new());
    let path = hub.run(&world, &["pull", "org/tiny"]).ok();
    let path = Path::new(path.trim()).to_owned();
    assert_eq!(path, world.path("home/.cache/byzerllm/models/huggingface/org/tiny").join(COMMIT));
    assert!(path.join("config.json").is_file());

    let listed = world.run(&["models"]).ok();
    assert!(listed.contains("org/tiny") && listed.contains("huggingface"), "{listed}");
    let json: Value = serde_json::from_str(&world.run(&["models", "list", "--json"]).ok()).unwrap();
    assert_eq!(json["models"][0]["revision"], COMMIT);
    assert_eq!(world.run(&["models", "path", "org/tiny"]).ok().trim(), path.to_str().unwrap());
    assert!(world.run(&["models", "verify"]).ok().contains("org/tiny ok"));
    assert!(world.run(&["models", "size"]).ok().contains("iB in "));

    std::fs::write(path.join("config.json"), "{}").unwrap();
    let done = world.run(&["models", "verify", "org/tiny"]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.out.contains("config.json") && done.err.contains("models remove org/tiny"), "{done:?}");

    let done = world.run(&["models", "remove", "org/tniy"]);
    assert!(done.code == 1 && done.err.contains("Did you mean org/tiny?"), "{done:?}");
    world.run(&["models", "remove", "org/tiny"]).ok();
    assert!(!path.exists());
    assert!(world.run(&["models"]).err.contains("byzerllm pull"));
}

#[test]
fn a_model_is_named_where_a_path_is() {
    let (hub, world) = (Hub::start(), World::new());
    let ask = ["generate", "--model", "org/tiny", "--prompt", "a", "--max-tokens", "2", "--temperature", "0"];
    let offline = [&ask[..], &["--offline"]].concat();
    let done = hub.run(&world, &offline);
    assert_eq!((done.code, hub.asked.load(Ordering::SeqCst)), (1, 0), "{done:?}");
    assert!(
        done.err.contains("org/tiny is not in the cache") && done.err.contains("byzerllm pull"),
        "{done:?}"
    );

    hub.run(&world, &ask).ok();
    let asked = hub.asked.load(Ordering::SeqCst);
    assert!(asked > 0);
    hub.run(&world, &offline).ok();
    let mut command = hub.command(&world, &ask);
    assert!(command.env("BYZERLLM_OFFLINE", "1").status().unwrap().success());
    assert_eq!(hub.asked.load(Ordering::SeqCst), asked, "the cache is enough");

    let serving = world.serve();
    let deploy = ["deploy", "--name", "chat", "--model", "org/tiny", "--url", &serving.url, "--json"];
    let status: Value = serde_json::from_str(&hub.run(&world, &deploy).ok()).unwrap();
    assert!(status["spec"]["model"].as_str().unwrap().ends_with(COMMIT), "{status}");
    let done =
        hub.run(&world, &["deploy", "--name", "x", "--model", "org/tiny", "--url", "http://192.0.2.1:9"]);
    assert!(done.code == 2 && done.err.contains("byzerllm pull"), "{done:?}");
}

#[test]
fn failures_are_two_lines_without_secrets() {
    let (hub, world) = (Hub::start(), World::new());
    for (arguments, code, words) in [
        (&["pull", "org/nothing"][..], 1, "was not found"),
        (&["pull", "chat"], 2, "ORG/NAME"),
        (&["pull", "org/tiny", "--file", "tokenizr.json"], 1, "tokenizer.json"),
        (&["pull", "http://example.org/m.gguf"], 2, "sha256"),
        (&["pull", "org/tiny", "--from", "elsewhere"], 2, "huggingface"),
        (&["-vv", "pull", "org/nothing"], 1, "was not found"),
    ] {
        let done = hub.run(&world, arguments);
        assert_eq!(done.code, code, "{done:?}");
        assert!(done.err.contains(words) && done.out.is_empty(), "{done:?}");
        assert!(!done.err.contains("hf_secret"), "{done:?}");
    }
}
