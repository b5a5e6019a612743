//! The families that can be loaded, against the fixtures that prove them. The tables in docs/models.md are written here.

use std::collections::BTreeSet;
use std::fmt::Write;

use byzerllm_model::{
    Checkpoint, Compute, Family, decoder_families, encoder_families, supported_architectures,
};

use crate::support::{DIRECTORIES, GGUF_FILES, fixtures, gguf_path};

const BEGIN: &str = "<!-- tables: begin, written by the tests of the model crate -->";
const END: &str = "<!-- tables: end -->";

/// A fixture of a family's proof that has a configuration of its own, with the names of its tensors' types.
fn opened(name: &str) -> Option<(Checkpoint, BTreeSet<&'static str>)> {
    let path = match name.strip_prefix("gguf/") {
        Some(stem) => gguf_path(stem),
        None => fixtures().join(name),
    };
    assert!(path.exists(), "{name} is no fixture");
    // Torch's twins of other fixtures hold weights alone.
    if path.is_dir() && !path.join("config.json").exists() {
        return None;
    }
    let checkpoint = Checkpoint::open(&path).unwrap();
    let tensors = checkpoint.tensors();
    let matrices = tensors.iter().filter(|tensor| tensor.shape.len() > 1);
    // Words of codes say nothing: their method does.
    let method = match checkpoint.info(Compute::Exact).details.get("quantization_method") {
        Some(method) if method == "gptq" => "GPTQ",
        Some(_) => "AWQ",
        None => "I32",
    };
    let kinds = matrices.map(|tensor| if tensor.kind == "I32" { method } else { tensor.kind }).collect();
    Some((checkpoint, kinds))
}

/// Every family of decoders has fixtures, they are compared with their reference, and they are of that family.
#[test]
fn every_decoder_is_proven_by_fixtures_of_its_own() {
    for family in decoder_families() {
        assert!(!family.proof.is_empty(), "{}", family.title);
        for name in &family.proof {
            let Some((checkpoint, _)) = opened(name) else { continue };
            match name.strip_prefix("gguf/") {
                Some(stem) => assert!(GGUF_FILES.contains(&stem), "{name} is not compared"),
                None => {
                    assert!(DIRECTORIES.contains(name), "{name} is not compared");
                    let class = checkpoint.architecture();
                    assert!(family.classes.contains(&class), "{name}: {class} of {}", family.title);
                }
            }
        }
    }
}

#[test]
fn every_class_of_a_fixture_is_listed() {
    let listed = supported_architectures();
    for name in DIRECTORIES {
        let checkpoint = Checkpoint::open(&fixtures().join(name)).unwrap();
        assert!(listed.contains(&checkpoint.architecture()), "{name}");
    }
}

/// Names as code, one after the other.
fn codes(names: &[&str]) -> String {
    if names.is_empty() {
        return "–".into();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn table(families: &[Family]) -> String {
    let mut rows =
        "| family | tasks | classes of `config.json` | formats | Byzer-LLM's types |\n|---|---|---|---|---|"
            .to_owned();
    for family in families {
        let mut formats = String::new();
        if !family.classes.is_empty() {
            formats.push_str("safetensors, torch");
        }
        if !family.gguf.is_empty() {
            let comma = if formats.is_empty() { "" } else { ", " };
            write!(formats, "{comma}GGUF {}", codes(family.gguf)).unwrap();
        }
        let (classes, types) = (codes(&family.classes), codes(family.types));
        write!(
            rows,
            "\n| {} | {} | {classes} | {formats} | {types} |",
            family.title,
            family.tasks.join(", ")
        )
        .unwrap();
    }
    rows
}

/// Which fixtures hold a family to its reference, and in which types of weights.
fn proofs(families: &[Family]) -> String {
    let mut rows = "| family | types of weights | fixtures |\n|---|---|---|".to_owned();
    for family in families {
        let mut kinds = BTreeSet::new();
        for name in &family.proof {
            if let Some((_, found)) = opened(name) {
                kinds.extend(found);
            }
        }
        let kinds: Vec<&str> = kinds.into_iter().collect();
        write!(rows, "\n| {} | {} | {} |", family.title, kinds.join(", "), codes(&family.proof)).unwrap();
    }
    rows
}

#[test]
fn the_tables_of_models_are_true() {
    let (decoders, encoders) = (decoder_families(), encoder_families());
    let mut words = "| family | proof |\n|---|---|".to_owned();
    for family in &encoders {
        write!(words, "\n| {} | {} |", family.title, family.proof.join(", ")).unwrap();
    }
    let tables = format!(
        "{BEGIN}\n## Decoders\n\n{}\n\n## Encoders\n\n{}\n\n## Proof of the decoders\n\n{}\n\n## Proof of the encoders\n\n{words}\n{END}",
        table(&decoders),
        table(&encoders),
        proofs(&decoders),
    );
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/models.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let wanted = format!("{before}{tables}{after}");
    if std::env::var_os("BYZERLLM_UPDATE").is_some() {
        std::fs::write(path, &wanted).unwrap();
    } else {
        assert_eq!(page, wanted, "docs/models.md is old; run this test with BYZERLLM_UPDATE=1");
    }
}
