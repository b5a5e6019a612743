//! A cache of its own, settings without the user's environment, and a hub with a few files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use byzerllm_hub::{Hub, Problem, Pulled, Reference, Settings, Source};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::{Request, Response, Server};

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A cache directory in a directory where nothing else may appear.
pub(crate) struct World {
    directory: TempDir,
    pub(crate) settings: Settings,
}

impl World {
    pub(crate) fn new(endpoint: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cache = directory.path().join("cache").to_str().unwrap().to_owned();
        let mut settings = Settings::from_variables(&|name| match name {
            "BYZERLLM_CACHE" => Some(cache.clone()),
            "HF_ENDPOINT" | "MODELSCOPE_ENDPOINT" => Some(endpoint.to_owned()),
            "PIP_INDEX_URL" => Some(format!("{endpoint}/simple")),
            _ => None,
        })
        .unwrap();
        settings.chunk = 1000;
        settings.pause = Duration::from_millis(1);
        Self { directory, settings }
    }

    pub(crate) fn hub(&self) -> Hub {
        Hub::new(self.settings.clone())
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.settings.cache.clone()
    }

    pub(crate) async fn pull(&self, text: &str) -> Result<Pulled, Problem> {
        self.pull_file(text, None, None).await
    }

    pub(crate) async fn pull_file(
        &self,
        text: &str,
        from: Option<Source>,
        file: Option<&str>,
    ) -> Result<Pulled, Problem> {
        self.hub().pull(&Reference::parse(text, from, file)?, &()).await
    }

    /// Names of the files in a directory of the cache.
    pub(crate) fn names(&self, directory: &str) -> Vec<String> {
        names(&self.cache().join(directory))
    }

    /// Asserts that nothing was written beside the cache.
    #[track_caller]
    pub(crate) fn nothing_outside(&self) {
        let names = names(self.directory.path());
        assert!(names.iter().all(|name| name == "cache"), "{names:?}");
    }
}

fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Bytes that differ from place to place, the same in every run.
pub(crate) fn content(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

fn git(bytes: &[u8]) -> String {
    let mut all = format!("blob {}\0", bytes.len()).into_bytes();
    all.extend_from_slice(bytes);
    hex(ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &all).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The files of a small model; the weights are a large file as hubs see it.
pub(crate) fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("config.json", b"{\"model_type\":\"llama\"}".to_vec()),
        ("tokenizer.json", content(1500)),
        ("model.safetensors", content(10_500)),
        ("README.md", b"read".to_vec()),
        ("onnx/model.onnx", content(9)),
    ]
}

/// A listing of the Hugging Face form.
pub(crate) fn listing(files: &[(&str, Vec<u8>)]) -> Value {
    let siblings: Vec<Value> = files
        .iter()
        .map(|(name, bytes)| {
            let mut file = json!({"rfilename": name, "size": bytes.len(), "blobId": git(bytes)});
            if !name.ends_with(".json") {
                file["lfs"] = json!({"sha256": sha256(bytes), "size": bytes.len()});
            }
            file
        })
        .collect();
    json!({"id": "org/name", "sha": COMMIT, "siblings": siblings})
}

/// What an honest Hugging Face answers.
pub(crate) fn hugging_face(request: &Request, files: &[(&str, Vec<u8>)]) -> Response {
    if request.target.starts_with("/api/models/org/name/revision/") {
        return Response::json(&listing(files));
    }
    let prefix = format!("/org/name/resolve/{COMMIT}/");
    match files.iter().find(|(name, _)| request.target.strip_prefix(&prefix) == Some(name)) {
        Some((_, bytes)) => Response::file(request, bytes).with("X-Repo-Commit", COMMIT),
        None => Response::new(404).with("X-Error-Code", "RepoNotFound"),
    }
}

/// An honest Hugging Face with the small model.
pub(crate) fn honest() -> Server {
    let files = files();
    Server::start(move |request| hugging_face(request, &files))
}
