//! The words of Byzer-LLM about deployments, turned into ours once: its command line and its Python programs both
//! come through here, so that one table knows them.
//!
//! What our engine cannot do is refused by name. What asks for nothing that we do differently is kept as a label and
//! told in one sentence.

mod families;
mod parameters;
mod workers;

use std::fmt;
use std::path::PathBuf;

use byzerllm_core::{Error, ErrorKind, Result};
use byzerllm_runtime::{DeploymentSpec, SecretText, Source};
use serde::Deserialize;
use serde_json::{Map, Value};

pub use families::Family;

use self::parameters::Effect;
use crate::secrets;

/// A deployment in Byzer-LLM's words.
#[derive(Clone, Deserialize)]
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
    /// Refuse what has no effect here instead of telling it.
    #[serde(default)]
    pub strict: bool,
    /// Drop keys of `infer_params` that nobody knows, as Byzer-LLM does.
    #[serde(default)]
    pub ignore_unknown: bool,
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
    /// What is told about secrets that are not kept secret.
    literal: Option<String>,
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
        let vendor = families::is_vendor(family.word());
        let mut spec = if vendor {
            // Programs write a path here that nobody reads.
            DeploymentSpec::of_provider(self.name, family.word())
        } else if self.model.as_os_str().is_empty() {
            return Err(Error::invalid(
                "model_path",
                "model_path is required: a checkpoint's file or folder",
            ));
        } else {
            DeploymentSpec::new(self.name, self.model)
        };
        if let Some(slots) = workers::slots(&self.sys_conf)? {
            spec.limits.concurrency = Some(slots.at_once);
            spec.limits.queue_limit = Some(slots.waiting);
        }
        let given: Vec<(&str, SecretText)> = self
            .infer_params
            .iter()
            .map(|(key, value)| (key.as_str(), parameters::text(value).into()))
            .collect();
        let literal = secrets::warning(family.word(), given.iter().map(|(key, value)| (*key, value)));
        let mut ignored = Vec::new();
        for (key, value) in &self.infer_params {
            match parameters::apply(&mut spec, key, value)? {
                Effect::Applied => {}
                Effect::None => ignored.push(shown(key, value)),
                Effect::Unknown(_) if self.ignore_unknown => {}
                Effect::Unknown(error) => return Err(error),
            }
        }
        let asking = self.sys_conf.iter().filter(|(key, value)| asks(key, value));
        ignored.extend(asking.map(|(key, value)| shown(key, value)));
        if self.strict && !ignored.is_empty() {
            let message = format!(
                "strict: '{}' would {}, where this has no effect: {}; leave it out, or do not ask for strict",
                spec.name,
                if vendor {
                    "be answered by a vendor"
                } else {
                    "run on byzerllm's own engine, as one instance on the CPU"
                },
                ignored.join(", ")
            );
            return Err(Error::new(ErrorKind::Unsupported, message).with_param("strict"));
        }
        let backend =
            self.sys_conf.get("infer_backend").and_then(Value::as_str).filter(|word| !word.is_empty());
        let backend = if vendor { "saas" } else { backend.unwrap_or("transformers") };
        spec.labels.insert("backend".to_owned(), backend.into());
        spec.labels.insert("pretrained_model_type".to_owned(), family.word().into());
        spec.labels.insert("sys_conf".to_owned(), Value::Object(self.sys_conf));
        if !ignored.is_empty() {
            spec.labels.insert(WITHOUT_EFFECT.to_owned(), ignored.clone().into());
        }
        Ok(Translated { spec, family, ignored, literal })
    }
}

/// The label that keeps what was asked for and has no effect.
const WITHOUT_EFFECT: &str = "without_effect";

impl Translated {
    /// What is told about the things that have no effect, and about secrets that are not kept secret.
    #[must_use]
    pub fn notice(&self) -> Option<String> {
        let notices: Vec<String> = notice(&self.spec).into_iter().chain(self.literal.clone()).collect();
        (!notices.is_empty()).then(|| notices.join("\n"))
    }
}

impl fmt::Debug for LegacyDeployment {
    /// Without the values of `infer_params`, among which are secrets.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("LegacyDeployment")
            .field("name", &self.name)
            .field("pretrained_model_type", &self.pretrained_model_type)
            .field("infer_params", &self.infer_params.keys().collect::<Vec<_>>())
            .field("sys_conf", &self.sys_conf)
            .finish_non_exhaustive()
    }
}

/// What is told about the things that a deployment was asked for and that have no effect.
#[must_use]
pub fn notice(spec: &DeploymentSpec) -> Option<String> {
    let listed = spec.labels.get(WITHOUT_EFFECT)?.as_array()?;
    let words: Vec<&str> = listed.iter().filter_map(Value::as_str).collect();
    (!words.is_empty()).then(|| {
        let what = match spec.source() {
            Source::Provider(_) => "is answered by a vendor",
            _ => "runs on byzerllm's own engine, as one instance on the CPU",
        };
        format!("{} {what}; without effect here: {}", spec.name, words.join(", "))
    })
}

/// Whether the value of a `sys_conf` key asks for something that has no effect.
fn asks(key: &str, value: &Value) -> bool {
    let nothing: &[&str] = match key {
        // These became limits.
        "maxConcurrency" | "workerMaxConcurrency" | "masterMaxConcurrency" => return false,
        "pythonMode" => &["ray"],
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
    use byzerllm_runtime::{Compute, Quantization};
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
            strict: false,
            ignore_unknown: false,
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
                "embedding": "false",
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
    fn quantization_is_read_in_both_spellings() {
        let of = |value: Value| translated(value, json!({})).spec.quantization;
        for (value, expected) in [
            (json!("4"), Some(Quantization::Four)),
            (json!(4), Some(Quantization::Four)),
            (json!("true"), Some(Quantization::Four)),
            (json!(true), Some(Quantization::Four)),
            (json!("8"), Some(Quantization::Eight)),
            (json!(8.0), Some(Quantization::Eight)),
            (json!("GPTQ"), Some(Quantization::Gptq)),
            (json!("AWQ"), Some(Quantization::Awq)),
            (json!("false"), Some(Quantization::Off)),
            (json!(false), Some(Quantization::Off)),
            (json!(""), None),
            (json!(null), None),
        ] {
            assert_eq!(of(json!({"quatization": value})), expected, "{value}");
            assert_eq!(of(json!({"quantization": value})), expected, "{value}");
            assert_eq!(of(json!({"backend.quantization": value})), expected, "{value}");
        }
        assert_eq!(translated(json!({"quatization": "4"}), json!({})).ignored, [""; 0]);
    }

    #[test]
    fn workers_times_their_slots_become_a_limit() {
        let limit = |sys_conf| translated(json!({}), sys_conf).spec.limits.concurrency;
        assert_eq!(limit(json!({"num_gpus": 0})), None, "nobody spoke of workers");
        assert_eq!(limit(json!({"maxConcurrency": 2})), Some(2));
        assert_eq!(limit(json!({"maxConcurrency": 2, "infer_backend": "ray/vllm"})), Some(200));
        assert_eq!(limit(json!({"maxConcurrency": "2", "workerMaxConcurrency": 3})), Some(6));
        let waiting = |sys_conf| translated(json!({}), sys_conf).spec.limits.queue_limit;
        assert_eq!(waiting(json!({"num_gpus": 0})), None);
        assert_eq!(waiting(json!({"maxConcurrency": 2})), Some(1000));
        assert_eq!(waiting(json!({"maxConcurrency": 2, "masterMaxConcurrency": 7})), Some(7));
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
        assert!(notice.ends_with("num_gpus=4, infer_backend='ray/vllm'"), "{notice}");
    }

    #[test]
    fn what_has_no_effect_is_kept_with_the_deployment_and_refused_under_strict() {
        let conf = json!({"num_gpus": 4, "infer_backend": "ray/deepspeed", "maxConcurrency": 1});
        let spec = translated(json!({"use_cache": "4"}), conf.clone()).spec;
        assert_eq!(
            spec.labels["without_effect"],
            json!(["use_cache='4'", "num_gpus=4", "infer_backend='ray/deepspeed'"])
        );
        assert!(notice(&spec).is_some_and(|text| text.contains("num_gpus=4")));
        assert_eq!(notice(&DeploymentSpec::new("chat", "/m")), None);
        let strict = |conf| LegacyDeployment { strict: true, ..of("", json!({}), conf) }.translate();
        let error = strict(conf).unwrap_err();
        assert_eq!((error.kind(), error.param()), (ErrorKind::Unsupported, Some("strict")));
        assert!(error.message().contains("num_gpus=4, infer_backend='ray/deepspeed'"), "{error}");
        assert!(strict(json!({"num_gpus": 0, "maxConcurrency": 2, "workerMaxConcurrency": 2})).is_ok());
    }

    #[test]
    fn unknown_keys_can_be_dropped_as_byzer_llm_does() {
        let params = json!({"gen.temprature": 1, "max_tokens": 3, "quantisation": "4"});
        let asked = LegacyDeployment { ignore_unknown: true, ..of("", params, json!({})) };
        let done = asked.translate().unwrap();
        assert_eq!((done.spec.defaults.max_tokens, done.ignored), (Some(3), vec![]));
    }

    #[test]
    fn a_vendors_model_is_deployed_with_its_parameters() {
        let params = json!({
            "saas.api_key": "env:KEY", "saas.model": "m-1", "saas.timeout": 30, "saas.https_verify": false,
            "saas.proxies": "", "generation.temperature": 0.5, "backend.max_num_batched_tokens": 4,
        });
        let conf = json!({"num_gpus": 0, "maxConcurrency": 4, "workerMaxConcurrency": 5});
        let done = of("saas/openai", params, conf).translate().unwrap();
        let spec = &done.spec;
        let provider = spec.provider.as_ref().unwrap();
        let set: Vec<_> =
            provider.parameters.iter().map(|(key, value)| (key.as_str(), value.expose())).collect();
        assert_eq!(
            set,
            [("api_key", "env:KEY"), ("https_verify", "false"), ("model", "m-1"), ("timeout", "30")]
        );
        assert!(spec.model.as_os_str().is_empty());
        assert_eq!((spec.defaults.temperature, spec.limits.concurrency), (Some(0.5), Some(20)));
        assert_eq!(spec.labels["backend"], "saas");
        assert_eq!(done.ignored, ["backend.max_num_batched_tokens=4"]);
        assert!(done.notice().unwrap().contains("answered by a vendor"));
        spec.validate().unwrap();
    }

    #[test]
    fn a_literal_secret_is_told_without_its_value() {
        let asked = of("saas/openai", json!({"saas.api_key": "sk-canary", "saas.model": "m"}), json!({}));
        assert!(!format!("{asked:?}").contains("canary"));
        let done = asked.translate().unwrap();
        let notice = done.notice().unwrap();
        assert!(notice.contains("saas.api_key") && notice.contains("env:NAME"), "{notice}");
        assert!(!notice.contains("canary") && !format!("{done:?}").contains("canary"));
    }

    #[test]
    fn unknown_parameters_of_a_vendor_can_be_dropped_as_byzer_llm_does() {
        let params = json!({"saas.api_key": "env:KEY", "saas.modle": "m"});
        let asked = LegacyDeployment { ignore_unknown: true, ..of("saas/openai", params, json!({})) };
        let done = asked.translate().unwrap();
        assert_eq!(done.spec.provider.unwrap().parameters.len(), 1);
    }

    #[test]
    fn labels_keep_the_words() {
        let done = of("llama", json!({}), json!({"num_gpus": 0})).translate().unwrap();
        assert_eq!(
            Value::Object(done.spec.labels),
            json!({"backend": "transformers", "pretrained_model_type": "llama", "sys_conf": {"num_gpus": 0}})
        );
    }

    #[test]
    fn wrong_words_are_refused_by_name() {
        for (word, params, kind, message) in [
            ("saas/opneai", json!({}), ErrorKind::NotFound, "'saas/openai'"),
            ("saas/openai", json!({"saas.api_kye": "k"}), ErrorKind::InvalidRequest, "'saas.api_key'"),
            ("saas/openai", json!({"temprature": "1"}), ErrorKind::InvalidRequest, "'temperature'"),
            ("custom/whisper", json!({}), ErrorKind::Unsupported, "transcription"),
            ("custom/lama2", json!({}), ErrorKind::InvalidRequest, "'custom/llama2'"),
            (
                "",
                json!({"backend.max_model_length": 1}),
                ErrorKind::InvalidRequest,
                "'backend.max_model_len'",
            ),
            ("", json!({"quantisation": "4"}), ErrorKind::InvalidRequest, "'quantization'"),
            ("", json!({"lora_path": "/adapter"}), ErrorKind::Unsupported, "lora_path"),
            ("", json!({"embedding": true}), ErrorKind::Unsupported, "embedding"),
            ("", json!({"rope_freq_base": 1e6}), ErrorKind::Unsupported, "rotated"),
            ("", json!({"gen.temprature": 1}), ErrorKind::InvalidRequest, "'gen.temperature'"),
            ("", json!({"compute": "slow"}), ErrorKind::InvalidRequest, "exact"),
            ("", json!({"quatization": "5"}), ErrorKind::InvalidRequest, "use 4, 8, true"),
            ("", json!({"quantization": "int4"}), ErrorKind::InvalidRequest, "use 4, 8, true"),
            ("", json!({"backend.quantization": "SqueezeLLM"}), ErrorKind::InvalidRequest, "gptq or awq"),
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
