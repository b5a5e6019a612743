//! Real vocabularies against llama.cpp's own test vectors.
//!
//! `BYZERLLM_LLAMA_VOCABULARIES` names the folder `models` of its source, which holds `ggml-vocab-NAME.gguf` with texts in
//! `.inp` and their ids in `.out`. Together they have 60 MB, so that they are not part of this repository.

use std::path::{Path, PathBuf};

use super::Tokenizer;
use crate::weights::MappedFile;
use crate::weights::gguf::GgufFile;

/// What divides the texts.
const BETWEEN: &str = "\n__ggml_vocab_test__\n";
/// Those of families that are supported.
const NAMES: [&str; 13] = [
    "bert-bge",
    "command-r",
    "deepseek-coder",
    "deepseek-llm",
    "falcon",
    "gpt-2",
    "llama-bpe",
    "llama-spm",
    "mpt",
    "phi-3",
    "qwen2",
    "refact",
    "starcoder",
];

fn tokenizer(path: &Path) -> Tokenizer {
    let file = MappedFile::open(path).unwrap();
    let (gguf, _) = GgufFile::open(&file).unwrap();
    Tokenizer::encoder_from_gguf(gguf.vocabulary().unwrap()).unwrap()
}

#[test]
fn texts_have_the_ids_of_llama_cpp() {
    let Some(directory) = std::env::var_os("BYZERLLM_LLAMA_VOCABULARIES").map(PathBuf::from) else {
        println!("skipped: BYZERLLM_LLAMA_VOCABULARIES names no folder with llama.cpp's vocabularies");
        return;
    };
    let mut wrong = Vec::new();
    for name in NAMES {
        let path = directory.join(format!("ggml-vocab-{name}.gguf"));
        let read = |end: &str| std::fs::read_to_string(format!("{}.{end}", path.display())).unwrap();
        let (texts, lines) = (read("inp"), read("out"));
        // The last separator ends the file.
        let texts: Vec<&str> = texts.strip_suffix(BETWEEN).unwrap().split(BETWEEN).collect();
        let ids = lines
            .lines()
            .map(|line| -> Vec<u32> { line.split_whitespace().map(|id| id.parse().unwrap()).collect() });
        let ids: Vec<Vec<u32>> = ids.collect();
        assert!(texts.len() >= 40 && ids.len() == texts.len(), "{name}: {} {}", texts.len(), ids.len());
        let tokenizer = tokenizer(&path);
        let mut good = 0;
        for (text, expected) in texts.iter().zip(&ids) {
            let found = tokenizer.encode_plain(text).unwrap();
            if found == *expected {
                good += 1;
            } else {
                wrong.push(format!("{name} {text:?}\n found {found:?}\n wants {expected:?}"));
            }
        }
        println!("{name}: {good} of {}", texts.len());
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.len(), wrong.join("\n"));
}
