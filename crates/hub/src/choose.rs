//! Which files of a repository a model needs.

use reqwest::Url;

use crate::checksum::Sum;
use crate::names::{self, matches, nearest};
use crate::{Problem, Result};

/// Files of one repository at most.
const MAX_FILES: usize = 20_000;
/// What is taken of a GGUF repository when nothing is said.
const USUAL: &str = "q4_k_m";

/// A file at a hub.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    pub(crate) path: String,
    pub(crate) size: Option<u64>,
    pub(crate) sum: Option<Sum>,
    pub(crate) url: Url,
}

/// What a hub has of a model.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) revision: String,
    /// The commit that file requests must be answered from, where the hub says it.
    pub(crate) commit: Option<String>,
    pub(crate) files: Vec<Remote>,
}

/// The files to get, and the one to load when it is not the directory.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) files: Vec<Remote>,
    pub(crate) entry: Option<String>,
}

/// Refuses listings that no honest hub sends.
pub(crate) fn check_listing(place: &str, names: &[&str]) -> Result<()> {
    if names.len() > MAX_FILES {
        let why = format!("it lists {} files, more than {MAX_FILES}", names.len());
        return Err(Problem::Answer { place: place.to_owned(), why });
    }
    match names.iter().find(|name| names::is_hostile(name)) {
        Some(name) => {
            Err(Problem::Name { name: name.chars().take(200).collect(), why: "it would leave the cache" })
        }
        None => Ok(()),
    }
}

/// Chooses.
pub(crate) fn choose(what: &str, place: &str, files: &[Remote], pattern: Option<&str>) -> Result<Chosen> {
    let chosen = match pattern {
        Some(pattern) => by_pattern(what, place, files, pattern)?,
        None => by_need(what, place, files)?,
    };
    for file in &chosen.files {
        names::check(&file.path)?;
    }
    Ok(chosen)
}

fn by_pattern(what: &str, place: &str, files: &[Remote], pattern: &str) -> Result<Chosen> {
    let fits = |file: &Remote| matches(pattern, &file.path) || matches(pattern, base(&file.path));
    let chosen: Vec<Remote> = files.iter().filter(|file| fits(file)).cloned().collect();
    if chosen.is_empty() {
        let hint = nearest(pattern, files.iter().map(|file| base(&file.path))).map_or_else(
            || format!("It has {}.", listed(files.iter().filter(|file| is_weight(&file.path)))),
            |name| format!("Did you mean --file '{name}'?"),
        );
        return Err(Problem::Missing {
            what: format!("--file '{pattern}' of {what}"),
            place: place.to_owned(),
            hint,
        });
    }
    if chosen.iter().all(|file| is_gguf(&file.path)) {
        return one_model(what, chosen);
    }
    Ok(Chosen { files: chosen, entry: None })
}

fn by_need(what: &str, place: &str, files: &[Remote]) -> Result<Chosen> {
    let root = |file: &&Remote| !file.path.contains('/');
    let weights = |suffix: &str, exclude: &[&str]| -> Vec<Remote> {
        files
            .iter()
            .filter(root)
            .filter(|file| {
                file.path.ends_with(suffix) || file.path.ends_with(&format!("{suffix}.index.json"))
            })
            .filter(|file| !exclude.iter().any(|word| file.path.starts_with(word)))
            .cloned()
            .collect()
    };
    // Some repositories hold the same weights twice, in their author's own layout.
    let mut needed = weights(".safetensors", &["consolidated", "original"]);
    if needed.is_empty() {
        needed = weights(".bin", &["training_args", "optimizer", "scheduler", "consolidated"]);
    }
    if !needed.iter().any(|file| !file.path.ends_with(".json")) {
        let ggufs: Vec<Remote> = files
            .iter()
            .filter(|file| is_gguf(&file.path) && !base(&file.path).to_lowercase().contains("mmproj"))
            .cloned()
            .collect();
        if ggufs.is_empty() {
            let hint =
                "It has neither *.safetensors, *.bin nor *.gguf files; choose others with --file PATTERN.";
            return Err(Problem::Missing {
                what: format!("a model in {what}"),
                place: place.to_owned(),
                hint: hint.into(),
            });
        }
        return one_model(what, ggufs);
    }
    let modular = files.iter().any(|file| file.path == MODULES);
    let companion = |file: &&Remote| {
        let small = !file.path.contains('/') && is_companion(&file.path);
        small || (modular && is_module(&file.path))
    };
    needed.extend(files.iter().filter(companion).cloned());
    Ok(Chosen { files: needed, entry: None })
}

/// The modules of an embedding model that sentence-transformers wrote: each one's settings, and weights where it has
/// some, lie in a folder that begins with its number.
pub(crate) const MODULES: &str = "modules.json";

/// Whether a path below the one of [`MODULES`] is part of a module.
pub(crate) fn is_module(path: &str) -> bool {
    let Some((folder, file)) = path.split_once('/') else { return false };
    let numbered = folder.split_once('_').is_some_and(|(number, name)| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty()
    });
    numbered
        && !file.contains('/')
        && (file == "config.json" || file.ends_with(".safetensors") || file == "pytorch_model.bin")
}

/// Settings, vocabulary and template.
fn is_companion(name: &str) -> bool {
    matches!(
        name,
        "config.json"
            | "generation_config.json"
            | "merges.txt"
            | "special_tokens_map.json"
            | "added_tokens.json"
            | MODULES
            | "sentence_bert_config.json"
            | "config_sentence_transformers.json"
    ) || name.starts_with("tokenizer")
        || name.starts_with("vocab")
        || name.starts_with("chat_template")
        || name.starts_with("sentencepiece")
        || name.starts_with("spiece")
        || name.ends_with(".tiktoken")
}

/// One GGUF model out of several files: the only one, or the usual one.
fn one_model(what: &str, files: Vec<Remote>) -> Result<Chosen> {
    let mut stems: Vec<&str> = files.iter().map(|file| stem(&file.path)).collect();
    stems.sort_unstable();
    stems.dedup();
    let usual: Vec<&str> = stems.iter().copied().filter(|stem| stem.to_lowercase().contains(USUAL)).collect();
    let stem_chosen = match (&stems[..], &usual[..]) {
        ([only], _) | (_, [only]) => (*only).to_owned(),
        _ => {
            let options = listed(files.iter());
            return Err(Problem::Choice { what: format!("{what} has several models"), options });
        }
    };
    let mut chosen: Vec<Remote> = files.into_iter().filter(|file| stem(&file.path) == stem_chosen).collect();
    chosen.sort_by(|left, right| left.path.cmp(&right.path));
    let entry = chosen.first().map(|file| file.path.clone());
    Ok(Chosen { files: chosen, entry })
}

/// The name without `.gguf` and `-00001-of-00003`.
fn stem(path: &str) -> &str {
    let stem = &path[..path.len().saturating_sub(".gguf".len())];
    let Some((head, count)) = stem.rsplit_once("-of-") else { return stem };
    let Some((name, number)) = head.rsplit_once('-') else { return stem };
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits(count) && digits(number) { name } else { stem }
}

pub(crate) fn is_gguf(path: &str) -> bool {
    path.len() > 5
        && path.is_char_boundary(path.len() - 5)
        && path[path.len() - 5..].eq_ignore_ascii_case(".gguf")
}

fn is_weight(path: &str) -> bool {
    is_gguf(path) || path.ends_with(".safetensors") || path.ends_with(".bin")
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Names with sizes, for messages.
fn listed<'a>(files: impl Iterator<Item = &'a Remote>) -> String {
    let mut names: Vec<String> = files
        .map(|file| match file.size {
            Some(size) => format!("{} ({} MiB)", shown(&file.path), size >> 20),
            None => shown(&file.path),
        })
        .collect();
    let more = names.len().saturating_sub(30);
    names.truncate(30);
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    if names.is_empty() { "no weights".to_owned() } else { names.join(", ") }
}

fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<Remote> {
        let url = Url::parse("http://hub/").unwrap();
        names
            .iter()
            .map(|name| Remote { path: (*name).to_owned(), size: Some(1 << 20), sum: None, url: url.clone() })
            .collect()
    }

    fn chosen(names: &[&str], pattern: Option<&str>) -> Result<(Vec<String>, Option<String>)> {
        choose("a/b", "hub", &files(names), pattern).map(|chosen| {
            let mut names: Vec<String> = chosen.files.into_iter().map(|file| file.path).collect();
            names.sort();
            (names, chosen.entry)
        })
    }

    #[test]
    fn only_what_is_needed() {
        let (names, entry) = chosen(
            &[
                "README.md",
                "config.json",
                "generation_config.json",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
                "pytorch_model.bin",
                "tokenizer.json",
                "tokenizer_config.json",
                "vocab.json",
                "merges.txt",
                "chat_template.jinja",
                "onnx/model.onnx",
                "original/consolidated.safetensors",
                "consolidated.safetensors",
                "training_args.bin",
                "flax_model.msgpack",
            ],
            None,
        )
        .unwrap();
        assert_eq!(names.len(), 10, "{names:?}");
        assert!(
            entry.is_none()
                && !names.iter().any(|name| name.contains("bin") || name.contains("consolidated"))
        );
        let (names, _) = chosen(&["config.json", "pytorch_model.bin", "training_args.bin"], None).unwrap();
        assert_eq!(names, ["config.json", "pytorch_model.bin"]);
        // What sentence-transformers wrote: its settings and the folders of its modules.
        let embedding = [
            "1_Pooling/config.json",
            "2_Dense/pytorch_model.bin",
            "config.json",
            "config_sentence_transformers.json",
            "model.safetensors",
            "modules.json",
            "sentence_bert_config.json",
            "vocab.txt",
        ];
        let more = ["onnx/config.json", "1_Pooling/deep/config.json", "2_Dense/code.py", "x_1/config.json"];
        let (names, _) = chosen(&[&embedding[..], &more[..]].concat(), None).unwrap();
        assert_eq!(names, embedding);
    }

    #[test]
    fn one_file_of_a_gguf_repository() {
        let names = ["m-Q2_K.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-f16.gguf", "config.json"];
        assert_eq!(
            chosen(&names, None).unwrap(),
            (vec!["m-Q4_K_M.gguf".into()], Some("m-Q4_K_M.gguf".into()))
        );
        assert_eq!(chosen(&names, Some("*q8_0*")).unwrap().1.as_deref(), Some("m-Q8_0.gguf"));
        let parts = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"];
        assert_eq!(chosen(&parts, None).unwrap().0, parts);
        let Err(Problem::Choice { options, .. }) = chosen(&["a.gguf", "b.gguf"], None) else {
            panic!("unclear")
        };
        assert!(options.contains("a.gguf (1 MiB), b.gguf"), "{options}");
        assert!(matches!(chosen(&["a.gguf", "b.gguf"], Some("*.gguf")), Err(Problem::Choice { .. })));
    }

    #[test]
    fn what_is_not_there_names_the_nearest() {
        let Err(Problem::Missing { hint, .. }) = chosen(&["model.gguf"], Some("modle.gguf")) else {
            panic!("missing")
        };
        assert!(hint.contains("model.gguf"), "{hint}");
        assert!(matches!(chosen(&["README.md"], None), Err(Problem::Missing { .. })));
        assert!(matches!(
            chosen(&["config.json", "model.safetensors", "tokenizer:x"], None),
            Err(Problem::Name { .. })
        ));
        assert!(check_listing("hub", &["ok", "a/../../b"]).is_err());
        assert!(check_listing("hub", &vec!["x"; MAX_FILES + 1]).is_err());
    }
}
