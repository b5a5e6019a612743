//! The families that a checkpoint may be of. Each file translates one family's own words and tensor names into
//! [`DecoderConfig`] and [`DecoderWeights`]; to add a family, write such a file and list it in [`ARCHITECTURES`].

mod alibi;
mod assemble;
mod baichuan;
mod chatglm;
mod chatglm_6b;
mod codegen;
mod experts;
mod falcon;
mod families;
pub(crate) mod fields;
mod gemma;
mod gguf;
mod glm;
mod gpt2;
mod gpt_neox;
mod llama;
mod mixtral;
mod old_types;
mod phi;
mod phi3;
pub(crate) mod published;
mod qwen;
mod qwen2;
mod qwen3;
pub(crate) mod rope;
pub(crate) mod shape;
pub(crate) mod source;
mod starcoder2;

use crate::config::DecoderConfig;
use crate::decoder_weights::DecoderWeights;
use crate::load_error::LoadResult;
use families::About;
pub use families::{Family, decoder_families, encoder_families};
pub use old_types::type_contradiction;
use source::Source;

/// A family.
#[derive(Debug)]
pub(crate) struct Architecture {
    /// What the table of models says of it.
    pub(crate) about: About,
    /// Its class names in `architectures` of `config.json`; the first one is the family's own.
    pub(crate) names: &'static [&'static str],
    /// Its names in `general.architecture` of GGUF files.
    pub(crate) gguf: &'static [&'static str],
    /// Reads and checks the configuration.
    pub(crate) config: fn(&Source) -> LoadResult<DecoderConfig>,
    /// Finds the tensors and checks their shapes. Matrices are borrowed from the mapping.
    pub(crate) weights: for<'a> fn(&DecoderConfig, &'a Source) -> LoadResult<DecoderWeights<'a>>,
}

/// All families.
pub(crate) static ARCHITECTURES: &[&Architecture] = &[
    &llama::LLAMA,
    &llama::MISTRAL,
    &mixtral::MIXTRAL,
    &qwen2::QWEN2,
    &qwen3::QWEN3,
    &qwen3::QWEN3_MOE,
    &gemma::GEMMA,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &phi::PHI,
    &phi3::PHI3,
    &gpt2::GPT2,
    &gpt2::GPT_BIGCODE,
    &starcoder2::STARCODER2,
    &gpt_neox::GPT_NEOX,
    &falcon::FALCON,
    &baichuan::BAICHUAN,
    &qwen::QWEN,
    &codegen::CODEGEN,
    &codegen::MOSS,
    &codegen::GPT_J,
    &chatglm::CHATGLM,
    &glm::GLM,
    &glm::GLM4,
];

/// The class names of the families that can be loaded.
#[must_use]
pub fn supported_architectures() -> Vec<&'static str> {
    ARCHITECTURES.iter().flat_map(|architecture| architecture.names).copied().collect()
}

/// The family of a class name.
pub(crate) fn by_name(name: &str) -> Option<&'static Architecture> {
    ARCHITECTURES.iter().find(|architecture| architecture.names.contains(&name)).copied()
}

/// The family of a GGUF file.
pub(crate) fn by_gguf_name(name: &str) -> Option<&'static Architecture> {
    ARCHITECTURES.iter().find(|architecture| architecture.gguf.contains(&name)).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names = HashSet::new();
        let mut gguf = HashSet::new();
        for architecture in ARCHITECTURES {
            assert!(!architecture.names.is_empty());
            assert!(architecture.names.iter().all(|name| names.insert(name)), "{architecture:?}");
            assert!(architecture.gguf.iter().all(|name| gguf.insert(name)), "{architecture:?}");
        }
    }
}
