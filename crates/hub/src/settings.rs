//! What the environment says: where the cache lies, which hubs to ask, which tokens to show them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;

use crate::{Problem, Result};

/// A token or password. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How models are got.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The cache directory.
    pub cache: PathBuf,
    /// Base address of Hugging Face or a mirror.
    pub hugging_face: String,
    /// Token for it.
    pub hugging_face_token: Option<Secret>,
    /// Base address of ModelScope or a mirror.
    pub model_scope: String,
    /// Token for it.
    pub model_scope_token: Option<Secret>,
    /// Base address of the package index; without it packages cannot be had.
    pub index: Option<Secret>,
    /// Whether the network must not be used.
    pub offline: bool,
    /// Requests at once.
    pub connections: usize,
    /// Bytes per request.
    pub chunk: u64,
    /// Failures in a row without any progress after which a request is given up.
    pub attempts: u32,
    /// The first pause before another try; it doubles each time.
    pub pause: Duration,
    /// Bytes that a directory's disk has free.
    pub free_space: fn(&Path) -> io::Result<u64>,
}

impl Settings {
    /// Reads the environment and pip's settings files.
    ///
    /// # Errors
    /// [`Problem::Setting`] when there is no cache directory.
    pub fn from_environment() -> Result<Self> {
        Self::from_variables(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// As [`Settings::from_environment`], with another environment.
    ///
    /// # Errors
    /// The same.
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let first = |names: &[&str]| names.iter().find_map(|name| variable(name));
        let endpoint = |names: &[&str], default: &str| {
            first(names).map_or_else(|| default.to_owned(), |text| text.trim_end_matches('/').to_owned())
        };
        let secret = |names: &[&str]| first(names).map(|text| Secret::new(text.trim()));
        Ok(Self {
            cache: cache_directory(variable)?,
            hugging_face: endpoint(&["BYZERLLM_HF_ENDPOINT", "HF_ENDPOINT"], "https://huggingface.co"),
            hugging_face_token: secret(&["BYZERLLM_HF_TOKEN", "HF_TOKEN"]),
            model_scope: endpoint(
                &["BYZERLLM_MODELSCOPE_ENDPOINT", "MODELSCOPE_ENDPOINT"],
                "https://www.modelscope.cn",
            ),
            model_scope_token: secret(&["BYZERLLM_MODELSCOPE_API_TOKEN", "MODELSCOPE_API_TOKEN"]),
            index: first(&["BYZERLLM_INDEX_URL", "PIP_INDEX_URL"])
                .or_else(|| index_of_pip(variable))
                .map(Secret::new),
            offline: first(&["BYZERLLM_OFFLINE"]).is_some_and(|value| value != "0" && value != "false"),
            connections: 4,
            chunk: 16 << 20,
            attempts: 6,
            pause: Duration::from_millis(500),
            free_space,
        })
    }
}

fn cache_directory(variable: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf> {
    let path = variable("BYZERLLM_CACHE")
        .map(PathBuf::from)
        .or_else(|| variable("XDG_CACHE_HOME").map(|base| Path::new(&base).join("byzerllm")))
        .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".cache/byzerllm")));
    let Some(path) = path else {
        return Err(Problem::Setting {
            what: "there is no home directory for the cache".into(),
            remedy: "Set BYZERLLM_CACHE to a directory.".into(),
        });
    };
    std::path::absolute(&path).map_err(|error| Problem::disk("find", &path, error))
}

fn free_space(path: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(path)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// The index of pip's settings files, in pip's order of precedence.
fn index_of_pip(variable: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let mut files = Vec::new();
    files.extend(variable("PIP_CONFIG_FILE").map(PathBuf::from));
    files.extend(variable("VIRTUAL_ENV").map(|directory| Path::new(&directory).join("pip.conf")));
    if let Some(home) = variable("HOME").map(PathBuf::from) {
        let config = variable("XDG_CONFIG_HOME").map_or_else(|| home.join(".config"), PathBuf::from);
        files.push(config.join("pip/pip.conf"));
        files.push(home.join(".pip/pip.conf"));
    }
    files.push("/etc/pip.conf".into());
    files.iter().filter_map(|file| std::fs::read_to_string(file).ok()).find_map(|text| index_url(&text))
}

/// `index-url` of the `[global]` or `[download]` section.
fn index_url(text: &str) -> Option<String> {
    let mut section = "";
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else if matches!(section, "global" | "download")
            && let Some((key, value)) = line.split_once('=')
            && key.trim().replace('_', "-") == "index-url"
            && Url::parse(value.trim()).is_ok()
        {
            return Some(value.trim().to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_variables_come_first_and_secrets_are_not_printed() {
        let settings = Settings::from_variables(&|name| {
            Some(match name {
                "BYZERLLM_CACHE" => "/cache".to_owned(),
                "HF_ENDPOINT" => "http://mirror/".to_owned(),
                "HF_TOKEN" => "hf_secret".to_owned(),
                "BYZERLLM_HF_TOKEN" => "ours_secret".to_owned(),
                "PIP_INDEX_URL" => "http://user:secret@index/simple".to_owned(),
                "BYZERLLM_OFFLINE" => "1".to_owned(),
                _ => return None,
            })
        })
        .unwrap();
        assert_eq!((settings.hugging_face.as_str(), settings.offline), ("http://mirror", true));
        assert_eq!(settings.hugging_face_token, Some(Secret::new("ours_secret")));
        assert!(!format!("{settings:?}").contains("secret"));
    }

    #[test]
    fn the_index_is_read_from_pips_files() {
        let text =
            "[install]\nindex-url = http://wrong/\n[global]\ncert = x\nindex_url = http://right/simple\n";
        assert_eq!(index_url(text).as_deref(), Some("http://right/simple"));
        assert_eq!(index_url("[global]\nindex-url =\n"), None);
    }
}
