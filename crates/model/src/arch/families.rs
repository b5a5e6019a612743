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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// Its name and those of well-known models that it covers.
    pub title: &'static str,
    /// Its class names in `architectures` of `config.json`; the first one is the family's own.
    pub classes: &'static [&'static str],
    /// Its names in `general.architecture` of GGUF files.
    pub gguf: &'static [&'static str],
    /// The `pretrained_model_type`s under which Byzer-LLM deployed such models, beside `custom/auto`.
    pub types: &'static [&'static str],
    /// The fixtures that hold it to its reference: directories of `tests/fixtures`, GGUF files as `gguf/STEM`.
    pub proof: &'static [&'static str],
}

/// All families of decoders, in the order of the registry.
#[must_use]
pub fn decoder_families() -> Vec<Family> {
    let family = |known: &&'static super::Architecture| Family {
        title: known.about.title,
        classes: known.names,
        gguf: known.gguf,
        types: known.about.types,
        proof: known.about.proof,
    };
    ARCHITECTURES.iter().map(family).collect()
}
