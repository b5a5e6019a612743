//! The families of encoders. Each file translates one family's own words and tensor names into
//! [`EncoderConfig`] and [`EncoderWeights`]; to add a family, write such a file and list it in [`FAMILIES`].

mod bert;
mod distilbert;
mod gguf;
mod names;
mod roberta;

pub(super) use gguf::{RANK, pooling as gguf_pooling};

use super::{EncoderConfig, EncoderWeights, Task};
use crate::arch::source::Source;
use crate::load_error::LoadResult;

/// A family.
#[derive(Debug)]
pub(crate) struct EncoderFamily {
    /// What people call it.
    pub(crate) title: &'static str,
    /// Models of it that are known by name.
    pub(crate) models: &'static str,
    /// Its class names in `architectures` of `config.json` for embeddings; the first one is the family's own.
    pub(crate) embed: &'static [&'static str],
    /// Its class names for classifiers, which score pairs.
    pub(crate) rerank: &'static [&'static str],
    /// Its names in `general.architecture` of GGUF files.
    pub(crate) gguf: &'static [&'static str],
    /// What Byzer-LLM called deployments of it (`pretrained_model_type`).
    pub(crate) old_types: &'static [&'static str],
    /// How its results are proven.
    pub(crate) proof: &'static str,
    /// Reads and checks the configuration. The head of an embedding model is replaced by what other files say.
    pub(crate) config: fn(&Source, Task) -> LoadResult<EncoderConfig>,
    /// Finds the tensors and checks their shapes, without the dense layers of other files.
    pub(crate) weights: for<'a> fn(&EncoderConfig, &'a Source) -> LoadResult<EncoderWeights<'a>>,
}

/// All families.
pub(crate) static FAMILIES: &[&EncoderFamily] =
    &[&bert::BERT, &roberta::ROBERTA, &distilbert::DISTILBERT, &gguf::NOMIC_BERT];

/// The family of a class name and what the class is for.
pub(crate) fn by_class(name: &str) -> Option<(&'static EncoderFamily, Task)> {
    FAMILIES.iter().find_map(|family| {
        let is = |names: &[&str]| names.contains(&name);
        let task = is(family.embed).then_some(Task::Embed).or(is(family.rerank).then_some(Task::Rerank))?;
        Some((*family, task))
    })
}

/// The family of a GGUF file.
pub(crate) fn by_gguf_name(name: &str) -> Option<&'static EncoderFamily> {
    FAMILIES.iter().find(|family| family.gguf.contains(&name)).copied()
}

/// All class names, for messages.
pub(crate) fn classes() -> Vec<&'static str> {
    FAMILIES.iter().flat_map(|family| family.embed.iter().chain(family.rerank)).copied().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        let mut seen = HashSet::new();
        for family in FAMILIES {
            let names = family.embed.iter().chain(family.rerank).chain(family.gguf);
            assert!(names.clone().all(|name| seen.insert(*name)), "{family:?}");
            assert!(names.count() > 0 && !family.title.is_empty() && !family.proof.is_empty());
        }
        assert!(classes().iter().all(|class| by_class(class).is_some()));
    }
}
