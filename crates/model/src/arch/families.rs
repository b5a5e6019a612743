//! What the page of supported models (`docs/models.md`) says of each family: its data stand beside its code.

use super::ARCHITECTURES;

/// A family in words, for the table of models.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About {
    /// Its name and those of well-known models that it covers.
    pub(crate) title: &'static str,
    /// The `pretrained_model_type`s under which Byzer-LLM deployed such models, beside `custom/auto`.
    pub(crate) types: &'static [&'static str],
    /// The fixtures of `tests/fixtures` that hold it to its reference; GGUF ones as `gguf/STEM`.
    pub(crate) proof: &'static [&'static str],
}

/// A family of models that can be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// Its name and those of well-known models that it covers.
    pub title: String,
    /// Its class names in `architectures` of `config.json`; the first one is the family's own.
    pub classes: Vec<&'static str>,
    /// Its names in `general.architecture` of GGUF files.
    pub gguf: &'static [&'static str],
    /// The `pretrained_model_type`s under which Byzer-LLM deployed such models, beside `custom/auto`.
    pub types: &'static [&'static str],
    /// What its models can do: `chat`, `embed`, `rerank`.
    pub tasks: Vec<&'static str>,
    /// What holds it to its reference: directories of `tests/fixtures`, GGUF files there as `gguf/STEM`, or words.
    pub proof: Vec<&'static str>,
}

/// All families of decoders, in the order of the registry.
#[must_use]
pub fn decoder_families() -> Vec<Family> {
    let family = |known: &&'static super::Architecture| Family {
        title: known.about.title.to_owned(),
        classes: known.names.to_vec(),
        gguf: known.gguf,
        types: known.about.types,
        tasks: vec!["chat"],
        proof: known.about.proof.to_vec(),
    };
    ARCHITECTURES.iter().map(family).collect()
}

/// All families of encoders, in the order of their registry.
#[must_use]
pub fn encoder_families() -> Vec<Family> {
    let family = |known: &&'static crate::encoder::EncoderFamily| {
        let mut tasks = Vec::new();
        // Families that exist only as GGUF have no class; the file says what it is for.
        if !known.embed.is_empty() || known.rerank.is_empty() {
            tasks.push("embed");
        }
        if !known.rerank.is_empty() {
            tasks.push("rerank");
        }
        Family {
            title: format!("{}: {}", known.title, known.models),
            classes: [known.embed, known.rerank].concat(),
            gguf: known.gguf,
            types: known.old_types,
            tasks,
            proof: vec![known.proof],
        }
    };
    crate::encoder::FAMILIES.iter().map(family).collect()
}
