//! The vocabularies and templates of real models, when `BYZERLLM_TEST_MODELS` names a directory with their files.

use std::path::{Path, PathBuf};
use std::time::Instant;

use byzerllm_core::{Message, Role};
use byzerllm_model::Checkpoint;
use serde_json::Value;

/// The model file, or nothing and a line that says so.
fn model(file: &str) -> Option<PathBuf> {
    let directory = std::env::var_os("BYZERLLM_TEST_MODELS");
    let path = directory.map(|directory| Path::new(&directory).join(file)).filter(|path| path.exists());
    if path.is_none() {
        println!("skipped: BYZERLLM_TEST_MODELS names no directory with {file}");
    }
    path
}

fn check(file: &str, vectors: &str, vocab_size: usize) {
    let Some(path) = model(file) else { return };
    let checkpoint = Checkpoint::open(&path).unwrap();
    let start = Instant::now();
    let tokenizer = checkpoint.tokenizer().unwrap();
    println!("{file}: loaded in {:?}", start.elapsed());
    assert_eq!(tokenizer.vocab_size(), vocab_size);
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer").join(vectors);
    let rows: Value = serde_json::from_slice(&std::fs::read(fixture).unwrap()).unwrap();
    for row in rows.as_array().unwrap() {
        let text = row["text"].as_str().unwrap();
        let ids = |name: &str| -> Vec<u32> { serde_json::from_value(row[name].clone()).unwrap() };
        let expected = ids("ids");
        assert_eq!(tokenizer.encode(text, false).unwrap(), expected, "{text:?}");
        assert_eq!(tokenizer.encode(text, true).unwrap(), expected, "neither model adds tokens: {text:?}");
        let plain = if row.get("plain").is_some() { ids("plain") } else { expected.clone() };
        assert_eq!(tokenizer.encode_plain(text).unwrap(), plain, "special tokens as text: {text:?}");
        assert_eq!(tokenizer.decode(&expected, true), row["decoded"], "{text:?}");
        let mut decoder = tokenizer.decoder(true);
        let mut streamed: String = expected.iter().filter_map(|id| decoder.push(*id)).collect();
        streamed.extend(decoder.finish());
        assert_eq!(streamed, row["decoded"], "{text:?}");
    }
}

#[test]
fn smollm2_encodes_as_hugging_face() {
    check("smollm2.gguf", "smollm2.vectors.json", 49_152);
}

#[test]
fn qwen_encodes_as_hugging_face() {
    check("qwen.gguf", "qwen.vectors.json", 151_936);
}

#[test]
fn prompts_have_the_known_ids() {
    let prompts = [
        (
            "smollm2.gguf",
            vec![Message::new(Role::User, "What is the capital of France?")],
            "1 9690 198 2683 359 253 5356 5646 11173 3365 3511 308 34519 28 7018 411 407 19712 8182 2 198 1 4093 198 1780 \
             314 260 3575 282 4649 47 2 198 1 520 9531 198",
        ),
        (
            "qwen.gguf",
            vec![Message::new(Role::User, "法国的首都是哪里？")],
            "151644 8948 198 2610 525 1207 16948 11 3465 553 54364 14817 13 1446 525 264 10950 17847 13 151645 198 151644 \
             872 198 104328 9370 59975 100132 101314 11319 151645 198 151644 77091 198",
        ),
    ];
    for (file, messages, expected) in prompts {
        let Some(path) = model(file) else { continue };
        let checkpoint = Checkpoint::open(&path).unwrap();
        let text = checkpoint.chat_template().unwrap().unwrap().render(&messages, None, true).unwrap();
        let ids = checkpoint.tokenizer().unwrap().encode(&text, false).unwrap();
        let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
        assert_eq!(ids.join(" "), expected, "{file}: {text}");
    }
}
