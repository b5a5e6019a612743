//! The `pretrained_model_type`s under which Byzer-LLM deployed models, checked against the checkpoint's own class.

use super::{ARCHITECTURES, Architecture};

/// Classes that a type was used for beside those of the families that name it: Byzer-LLM's modules for Llama 2 loaded
/// whatever `AutoModelForCausalLM` did, a Mistral model is a `llama` in GGUF files, and the first Dolly was a GPT-J.
const ALSO: [(&str, &[&str]); 6] = [
    ("llama", &["MistralForCausalLM"]),
    ("llama2", &["MistralForCausalLM", "MixtralForCausalLM"]),
    ("zephyr", &["LlamaForCausalLM"]),
    ("qwen", &["Qwen3MoeForCausalLM"]),
    ("dolly", &["GPTJForCausalLM"]),
    ("chatglm2", &["Glm4ForCausalLM"]),
];

/// Types of models that make vectors or scores.
const ENCODERS: [&str; 3] = ["bge", "m3e", "bge_rerank"];

/// What is wrong with deploying a checkpoint of a class under a `pretrained_model_type`, and what to write instead.
/// Nothing is for `custom/auto`, for a vendor's type and for types that no family names.
#[must_use]
pub fn type_contradiction(word: &str, class: &str) -> Option<String> {
    let name = bare(word);
    let named = |known: &&&Architecture| known.about.types.iter().any(|other| bare(other) == name);
    let mut expected: Vec<&str> =
        ARCHITECTURES.iter().filter(named).flat_map(|known| known.names).copied().collect();
    let also = ALSO.iter().filter(|(other, _)| *other == name).flat_map(|(_, classes)| *classes);
    expected.extend(also);
    let family = super::by_name(class);
    let encoder = ENCODERS.contains(&name);
    let fits = if encoder { family.is_none() } else { expected.is_empty() || expected.contains(&class) };
    if fits {
        return None;
    }
    let stands_for = if encoder { "encoders for vectors and scores".to_owned() } else { expected.join(", ") };
    let own = family.and_then(|known| known.about.types.first().copied());
    let instead = own.map_or_else(|| "'custom/auto'".to_owned(), |own| format!("'{own}' or 'custom/auto'"));
    Some(format!(
        "pretrained_model_type '{}' stands for {stands_for}, but the checkpoint is a {}: write {instead}",
        word.escape_debug(),
        class.escape_debug()
    ))
}

/// The type without the folder that some of them were written with.
fn bare(word: &str) -> &str {
    word.strip_prefix("custom/").unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_a_family_fit_its_classes_with_and_without_custom() {
        for known in ARCHITECTURES {
            for (word, class) in
                known.about.types.iter().flat_map(|word| known.names.iter().map(move |c| (word, c)))
            {
                assert_eq!(type_contradiction(word, class), None);
                assert_eq!(type_contradiction(bare(word), class), None);
                assert_eq!(type_contradiction(&format!("custom/{}", bare(word)), class), None);
            }
            for class in known.names {
                assert_eq!(type_contradiction("custom/auto", class), None);
                assert_eq!(type_contradiction("saas/openai", class), None);
            }
        }
        for (word, classes) in ALSO {
            assert!(classes.iter().all(|class| type_contradiction(word, class).is_none()), "{word}");
            assert!(classes.iter().all(|class| super::super::by_name(class).is_some()), "{word}");
        }
        assert_eq!(type_contradiction("custom/bge", "XLMRobertaModel"), None);
        assert_eq!(type_contradiction("custom/bge_rerank", "BertForSequenceClassification"), None);
    }

    #[test]
    fn a_contradiction_names_both_and_what_to_write() {
        for (word, class, words) in [
            (
                "custom/llama2",
                "Qwen2ForCausalLM",
                &["'custom/llama2'", "LlamaForCausalLM", "'custom/qwen'"][..],
            ),
            ("custom/baichuan2", "LlamaForCausalLM", &["BaichuanForCausalLM", "'llama' or 'custom/auto'"]),
            ("chatglm6b", "MossForCausalLM", &["ChatGLMModel", "'moss'"]),
            ("custom/bge", "LlamaForCausalLM", &["encoders", "LlamaForCausalLM", "'llama'"]),
            ("custom/qwen", "BertModel", &["QWenLMHeadModel", "BertModel", "write 'custom/auto'"]),
            ("dolly", "GPT2LMHeadModel", &["GPTNeoXForCausalLM", "GPT2LMHeadModel", "write 'custom/auto'"]),
        ] {
            let message = type_contradiction(word, class).unwrap();
            for word in words.iter().chain([&class]) {
                assert!(message.contains(word), "{word}: {message}");
            }
        }
    }
}
