//! The words of Byzer-LLM about deployments, turned into ours once: its command line and its Python programs both
//! come through here, so that one table knows them.
//!
//! What our engine cannot do is refused by name. What asks for nothing that we do differently is kept as a label and
//! told in one sentence.

mod families;
mod parameters;

use std::path::PathBuf;

use byzerllm_core::{Error, Result};
use byzerllm_runtime::DeploymentSpec;
use serde::Deserialize;
use serde_json::{Map, Value};

pub use families::Family;

/// A deployment in Byzer-LLM's words.
#[derive(Debug, Clone, Deserialize)]
pub struct LegacyDeployment {
    /// `udf_name`.
    pub name: String,
    /// `model_path`, absolute.
    pub model: PathBuf,
    /// `pretrained_model_type`; empty lets the file decide.
    pub pretrained_model_type: String,
    /// `infer_params`, native or written as text.
    pub infer_params: Map<String, Value>,
    /// The keys of `sys_conf` that somebody chose.
    pub sys_conf: Map<String, Value>,
}

/// The same deployment in our words.
#[derive(Debug, Clone)]
pub struct Translated {
    /// What to deploy.
    pub spec: DeploymentSpec,
    /// What the type promised about the file.
    pub family: Family,
    /// What was asked for and has no effect here, as `key=value`.
    pub ignored: Vec<String>,
}

impl LegacyDeployment {
    /// Turns it into our words.
    ///
    /// # Errors
    /// [`byzerllm_core::ErrorKind::Unsupported`] for kinds of models that this version does not run, and
    /// [`byzerllm_core::ErrorKind::InvalidRequest`] for words that nobody knows and values that do not fit.
    pub fn translate(self) -> Result<Translated> {
        let family = Family::of(&self.pretrained_model_type)?;
        if self.name.is_empty() {
            return Err(Error::invalid("udf_name", "udf_name is required: the name to deploy under"));
        }
        if self.model.as_os_str().is_empty() {
            return Err(Error::invalid(
                "model_path",
                "model_path is required: a checkpoint's file or folder",
            ));
        }
        let mut spec = DeploymentSpec::new(self.name, self.model);
        if let Some(concurrency) = concurrency(&self.sys_conf)? {
            spec.limits.concurrency = Some(concurrency);
        }
        let mut ignored = Vec::new();
        for (key, value) in &self.infer_params {
            if parameters::apply(&mut spec, key, value)? == parameters::Effect::None {
                ignored.push(shown(key, value));
            }
        }
        // These two became the limit above.
        let limits = |key: &str| {
            key == "workerMaxConcurrency"
                || key == "maxConcurrency" && self.sys_conf.contains_key("workerMaxConcurrency")
        };
        let asking = self.sys_conf.iter().filter(|(key, value)| !limits(key) && asks(key, value));
        ignored.extend(asking.map(|(key, value)| shown(key, value)));
        let backend =
            self.sys_conf.get("infer_backend").and_then(Value::as_str).filter(|word| !word.is_empty());
        spec.labels.insert("backend".to_owned(), backend.unwrap_or("transformers").into());
        spec.labels.insert("pretrained_model_type".to_owned(), family.word().into());
        spec.labels.insert("sys_conf".to_owned(), Value::Object(self.sys_conf));
        Ok(Translated { spec, family, ignored })
    }
}

impl Translated {
    /// What is told about the things that have no effect.
    #[must_use]
    pub fn notice(&self) -> Option<String> {
        (!self.ignored.is_empty()).then(|| {
            format!(
                "{} runs on byzerllm's own engine, as one instance on the CPU; without effect here: {}",
                self.spec.name,
                self.ignored.join(", ")
            )
        })
    }
}

/// Requests that run at once: the slots of all workers, when somebody chose the slots.
fn concurrency(sys_conf: &Map<String, Value>) -> Result<Option<u32>> {
    let count = |key: &str, name: &'static str| -> Result<Option<u32>> {
        let Some(value) = sys_conf.get(key) else { return Ok(None) };
        let text = parameters::text(value);
        let number = text.trim().parse::<u32>().ok().filter(|number| *number > 0);
        let wrong =
            || Error::invalid(name, format!("{name} must be a whole number of at least 1, got '{text}'"));
        number.map(Some).ok_or_else(wrong)
    };
    let Some(slots) = count("workerMaxConcurrency", "worker_concurrency")? else { return Ok(None) };
    let workers = count("maxConcurrency", "num_workers")?.unwrap_or(1);
    Ok(Some(slots.saturating_mul(workers)))
}

/// Whether the value of a `sys_conf` key asks for something.
fn asks(key: &str, value: &Value) -> bool {
    let nothing: &[&str] = match key {
        "pythonMode" => &["ray"],
        "maxConcurrency" => &["1"],
        "num_gpus" | "num_cpus" => &["0"],
        "infer_backend" => &["", "transformers"],
        "load_balance" => &["lru", "round_robin"],
        _ => &[],
    };
    !value.is_null() && !nothing.contains(&parameters::text(value).as_str())
}

/// A key and its value, as messages show them; secrets never come this far.
fn shown(key: &str, value: &Value) -> String {
    match value {
        Value::String(text) => format!("{key}='{text}'"),
        value => format!("{key}={value}"),
    }
}

#[cfg(test)]
mod tests {
    use byzerllm_core::ErrorKind;
    use byzerllm_runtime::Compute;
    use serde_json::json;

    use super::*;

    fn of(word: &str, infer_params: Value, sys_conf: Value) -> LegacyDeployment {
        let map = |value: Value| value.as_object().cloned().unwrap_or_default();
        LegacyDeployment {
            name: "chat".to_owned(),
            model: "/models/chat".into(),
            pretrained_model_type: word.to_owned(),
            infer_params: map(infer_params),
            sys_conf: map(sys_conf),
        }
    }

    fn translated(infer_params: Value, sys_conf: Value) -> Translated {
        of("custom/auto", infer_params, sys_conf).translate().unwrap()
    }

    #[test]
    fn parameters_become_defaults_limits_and_a_notice() {
        let done = translated(
            json!({
                "generation.temperature": "0.25",
                "max_length": 9,
                "compute": "exact",
                "queue_limit": "3",
                "backend.max_model_len": 8192,
                "backend.max_num_seqs": 16.0,
                "gen.top_k": -1,
                "gen.seed": -1,
                "stopping_sequences": "a, b",
                "backend.gpu_memory_utilization": 0.9,
                "quatization": "false",
                "infer.bool.load_in_4bit": "true",
                "top_p": null,
            }),
            json!({}),
        );
        let spec = &done.spec;
        assert_eq!((spec.defaults.temperature, spec.defaults.max_tokens), (Some(0.25), Some(9)));
        assert_eq!((spec.defaults.top_k, spec.defaults.seed, spec.defaults.top_p), (Some(0), None, None));
        assert_eq!(spec.defaults.stop, Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!((spec.limits.queue_limit, spec.limits.context_length), (Some(3), Some(8192)));
        assert_eq!((spec.limits.max_sequences, spec.compute), (Some(16), Compute::Exact));
        assert_eq!(done.ignored, ["backend.gpu_memory_utilization=0.9", "infer.bool.load_in_4bit='true'"]);
    }

    #[test]
    fn workers_become_a_limit_only_when_somebody_chose_their_slots() {
        let limit = |sys_conf| translated(json!({}), sys_conf).spec.limits.concurrency;
        assert_eq!(limit(json!({"maxConcurrency": 2})), None);
        assert_eq!(limit(json!({"maxConcurrency": "2", "workerMaxConcurrency": 3})), Some(6));
        let own = translated(json!({"concurrency": 4}), json!({"workerMaxConcurrency": 3}));
        assert_eq!(own.spec.limits.concurrency, Some(4), "our own word wins");
        let wrong = of("", json!({}), json!({"workerMaxConcurrency": 0})).translate().unwrap_err();
        assert_eq!(wrong.param(), Some("worker_concurrency"));
    }

    #[test]
    fn one_sentence_tells_what_has_no_effect() {
        let silent = json!({"num_gpus": 0.0, "maxConcurrency": 1, "infer_backend": "transformers"});
        assert_eq!(translated(json!({}), silent).notice(), None);
        let combined = json!({"maxConcurrency": 2, "workerMaxConcurrency": 3, "load_balance": "lru"});
        assert_eq!(translated(json!({}), combined).notice(), None, "they became a limit");
        let loud = json!({"num_gpus": 4, "num_cpus": 0, "maxConcurrency": "2", "infer_backend": "ray/vllm"});
        let notice = translated(json!({}), loud).notice().unwrap();
        assert!(notice.ends_with("num_gpus=4, maxConcurrency='2', infer_backend='ray/vllm'"), "{notice}");
    }

    #[test]
    fn labels_keep_the_words() {
        let done = of("llama", json!({}), json!({"num_gpus": 1})).translate().unwrap();
        assert_eq!(
            Value::Object(done.spec.labels),
            json!({"backend": "transformers", "pretrained_model_type": "llama", "sys_conf": {"num_gpus": 1}})
        );
    }

    #[test]
    fn wrong_words_are_refused_by_name() {
        for (word, params, kind, message) in [
            ("saas/openai", json!({}), ErrorKind::Unsupported, "saas/openai"),
            ("custom/bge", json!({}), ErrorKind::Unsupported, "embedding"),
            ("custom/lama2", json!({}), ErrorKind::InvalidRequest, "'custom/llama2'"),
            (
                "",
                json!({"backend.max_model_length": 1}),
                ErrorKind::InvalidRequest,
                "'backend.max_model_len'",
            ),
            ("", json!({"quantisation": "4"}), ErrorKind::InvalidRequest, "'quantization'"),
            ("", json!({"gen.temprature": 1}), ErrorKind::InvalidRequest, "'gen.temperature'"),
            ("", json!({"compute": "slow"}), ErrorKind::InvalidRequest, "exact"),
            ("", json!({"n_ctx": "many"}), ErrorKind::InvalidRequest, "n_ctx"),
            ("", json!({"temperature": true}), ErrorKind::InvalidRequest, "temperature"),
        ] {
            let error = of(word, params, json!({})).translate().unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.message().contains(message), "{error}");
        }
    }

    #[test]
    fn a_secret_stays_out_of_the_message() {
        let error = of("", json!({"saas.api_key": "sk-12345"}), json!({})).translate().unwrap_err();
        assert!(error.message().contains("saas.api_key") && !error.message().contains("12345"), "{error}");
    }
}
