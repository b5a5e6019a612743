//! The words of `pretrained_model_type`, and which checkpoints they stand for.

use byzerllm_core::nearest;
use byzerllm_core::{Error, ErrorKind, Result};

/// A word, and what the name of the file's architecture then contains; nothing means that the file decides.
static KNOWN: &[(&str, &[&str])] = &[
    ("auto", &[]),
    ("llama", &["llama"]),
    ("llama2", &["llama", "mistral", "yi"]),
    ("zephyr", &["mistral", "llama"]),
    ("qwen", &["qwen"]),
    ("baichuan", &["baichuan"]),
    ("baichuan2", &["baichuan"]),
    ("falcon", &["falcon", "rw"]),
    ("starcode", &["bigcode", "starcoder"]),
    ("chatglm2", &["chatglm"]),
    ("chatglm6b", &["chatglm"]),
    ("moss", &["moss"]),
    ("alpha_moss", &["moss"]),
    ("dolly", &["neox", "gpt"]),
    ("bge", &["bert"]),
    ("m3e", &["bert"]),
    ("bge_rerank", &["bert"]),
];

/// Words for models that neither chat nor embed nor rerank.
static OTHER_TASKS: &[(&str, &str)] = &[
    ("qwen_vl_chat", "vision"),
    ("visualglm", "vision"),
    ("stable_diffusion", "image"),
    ("bark", "speech"),
    ("qwen_voice", "speech"),
    ("sensevoice", "transcription"),
    ("whisper", "transcription"),
];

const PARAM: &str = "pretrained_model_type";

/// What a `pretrained_model_type` says. `saas/…` is a vendor's model.
#[derive(Debug, Clone)]
pub struct Family {
    word: String,
    architectures: &'static [&'static str],
}

/// Whether a `pretrained_model_type` is a vendor's.
pub(super) fn is_vendor(word: &str) -> bool {
    word.starts_with("saas/")
}

impl Family {
    /// Checks the word; none is `custom/auto`.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for models of tasks that are not there yet, [`ErrorKind::NotFound`] for unknown vendors,
    /// [`ErrorKind::InvalidRequest`] for other words that nobody knows.
    pub fn of(word: &str) -> Result<Self> {
        let word = if word.is_empty() { "custom/auto" } else { word };
        let shown: String = word.chars().take(64).collect();
        let unsupported = |what: &str| {
            Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{PARAM} '{shown}': {what} models are not supported by this version; deploy a model that \
                     chats, for example with custom/auto"
                ),
            )
            .with_param(PARAM)
        };
        if is_vendor(word) {
            byzerllm_providers::find(word).map_err(|error| error.with_param(PARAM))?;
            return Ok(Self { word: word.to_owned(), architectures: &[] });
        }
        let name = word.strip_prefix("custom/").unwrap_or(word);
        if let Some((_, task)) = OTHER_TASKS.iter().find(|(other, _)| *other == name) {
            return Err(unsupported(task));
        }
        if let Some((_, architectures)) = KNOWN.iter().find(|(known, _)| *known == name) {
            return Ok(Self { word: word.to_owned(), architectures });
        }
        let near = nearest(
            name,
            KNOWN.iter().map(|(word, _)| *word).chain(OTHER_TASKS.iter().map(|(word, _)| *word)),
        );
        Err(Error::invalid(
            PARAM,
            format!(
                "unknown {PARAM} '{}'; did you mean 'custom/{}'?",
                shown.escape_debug(),
                near.unwrap_or("auto")
            ),
        ))
    }

    /// The word as it was given.
    #[must_use]
    pub fn word(&self) -> &str {
        &self.word
    }

    /// Says what is odd when the file is of another family than the word; the file decides all the same.
    #[must_use]
    pub fn mismatch<T: AsRef<str>>(&self, architectures: &[T]) -> Option<String> {
        let found: Vec<&str> =
            architectures.iter().map(AsRef::as_ref).filter(|name| !name.is_empty()).collect();
        let fits = |name: &&str| {
            let name = name.to_lowercase();
            self.architectures.iter().any(|word| name.contains(word))
        };
        if self.architectures.is_empty() || found.is_empty() || found.iter().any(fits) {
            return None;
        }
        Some(format!(
            "{PARAM} says '{}', but the model is a {}; it runs as what it is",
            self.word,
            found.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_known_with_and_without_custom() {
        for (name, _) in KNOWN {
            assert_eq!(Family::of(&format!("custom/{name}")).unwrap().word(), format!("custom/{name}"));
            assert!(Family::of(name).is_ok());
        }
        assert_eq!(Family::of("").unwrap().word(), "custom/auto");
    }

    #[test]
    fn a_family_is_compared_with_the_file() {
        let mismatch = |word: &str, found: &[&str]| Family::of(word).unwrap().mismatch(found);
        assert_eq!(mismatch("custom/llama2", &["LlamaForCausalLM"]), None);
        assert_eq!(mismatch("auto", &["Qwen2ForCausalLM"]), None);
        assert_eq!(mismatch("qwen", &[""]), None);
        assert_eq!(mismatch("custom/bge_rerank", &["XLMRobertaForSequenceClassification"]), None);
        assert_eq!(mismatch("custom/bge", &["BertModel"]), None);
        assert!(mismatch("llama2", &["Qwen2ForCausalLM"]).unwrap().contains("Qwen2ForCausalLM"));
    }
}
