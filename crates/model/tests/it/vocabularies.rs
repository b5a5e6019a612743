//! SentencePiece, `tiktoken` and GPT-2 vocabularies against their own libraries.

use std::path::Path;

use byzerllm_model::{Checkpoint, GgufVocabulary, Tokenizer, TokenizerError};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::Value;

use crate::support::{copy_of, fixtures, gguf_path};

pub(crate) fn fixture(name: &str) -> Vec<u8> {
    let path = fixtures().join("vocabularies").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn spm(name: &str) -> Tokenizer {
    Tokenizer::from_sentencepiece(Path::new(name), &fixture(name)).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

/// Compares with what the vocabulary's own library made of the texts.
pub(crate) fn check(tokenizer: &Tokenizer, name: &str) {
    let rows: Value = serde_json::from_slice(&fixture(name)).unwrap();
    let mut wrong = Vec::new();
    for row in rows.as_array().unwrap() {
        let text = row["text"].as_str().unwrap();
        let expected = ids(&row["ids"]);
        let found = tokenizer.encode_plain(text).unwrap();
        let decoded = tokenizer.decode(&expected, true);
        // The library writes unknown text as two question marks; here it is a special token, which is left out.
        let known = expected.iter().all(|id| tokenizer.token(*id) != Some("<unk>"));
        if found != expected || (known && decoded != row["decoded"].as_str().unwrap()) {
            wrong.push(format!(
                "{text:?}\n found {found:?}\n wants {expected:?}\n decoded {decoded:?} wants {}",
                row["decoded"]
            ));
        }
    }
    assert!(wrong.is_empty(), "{name}: {}\n{}", wrong.len(), wrong.join("\n"));
    assert!(rows.as_array().unwrap().len() >= 60, "{name}");
}

#[test]
fn sentencepiece_byte_pairs_encode_as_the_library() {
    let tokenizer = spm("bpe.model");
    check(&tokenizer, "bpe.vectors.json");
    assert!(tokenizer.is_special(1) && !tokenizer.is_special(3));
    assert_eq!(tokenizer.token_bytes(tokenizer.id("<0xE4>").unwrap()), Some(&b"\xe4"[..]));
}

#[test]
fn sentencepiece_unigrams_encode_as_the_library() {
    check(&spm("unigram.model"), "unigram.vectors.json");
    check(&spm("unigram_bytes.model"), "unigram_bytes.vectors.json");
}

fn gguf_vocabulary(model: &str) -> GgufVocabulary {
    let json: Value = serde_json::from_slice(&fixture("bpe.gguf.json")).unwrap();
    let list = |name: &str| json[name].as_array().unwrap().clone();
    GgufVocabulary {
        model: model.to_owned(),
        pre: "default".to_owned(),
        tokens: list("tokens").iter().map(|token| token.as_str().unwrap().to_owned()).collect(),
        scores: list("scores").iter().map(|score| score.as_f64().unwrap() as f32).collect(),
        token_types: list("types").iter().map(|kind| kind.as_i64().unwrap() as i32).collect(),
        bos: Some(1),
        eos: Some(2),
        unk: Some(0),
        file: "small.gguf".into(),
        ..GgufVocabulary::default()
    }
}

#[test]
fn a_gguf_file_holds_the_same_pieces() {
    let tokenizer = Tokenizer::from_gguf(gguf_vocabulary("llama")).unwrap();
    check(&tokenizer, "bpe.vectors.json");
    let without_types = GgufVocabulary { token_types: Vec::new(), ..gguf_vocabulary("llama") };
    check(&Tokenizer::from_gguf(without_types).unwrap(), "bpe.vectors.json");
    // The beginning is added when the file does not say, as llama.cpp does.
    let plain = tokenizer.encode("Hello", false).unwrap();
    assert_eq!(tokenizer.encode("Hello", true).unwrap(), [&[1], &plain[..]].concat());
    let parsed = tokenizer.encode("</s>Hello", false).unwrap();
    assert_eq!(parsed, [&[2], &plain[..]].concat());
    // Rows without a token, which early files of Phi-3 call unknown beside the one that is.
    let mut padded = gguf_vocabulary("llama");
    let (last, text) = (padded.tokens.len() - 1, "[PAD]".to_owned());
    (padded.tokens[last], padded.token_types[last]) = (text, 2);
    let padded = Tokenizer::from_gguf(padded).unwrap();
    assert_eq!(padded.encode("Hello", false).unwrap(), plain);
    let silent = GgufVocabulary { add_bos: Some(false), ..gguf_vocabulary("llama") };
    assert_eq!(Tokenizer::from_gguf(silent).unwrap().encode("Hello", true).unwrap(), plain);
    let unigram = Tokenizer::from_gguf(gguf_vocabulary("t5")).unwrap();
    assert_eq!(unigram.encode("", true).unwrap(), [2]);
}

#[test]
fn gguf_checkpoints_carry_sentencepiece() {
    for stem in ["llama-k-quants", "llama-q5-v2"] {
        let tokenizer = Checkpoint::open(&gguf_path(stem)).unwrap().tokenizer().unwrap();
        let ids = tokenizer.encode("a tiny text: 世界", true).unwrap();
        assert_eq!(ids[0], 1);
        assert_eq!(tokenizer.decode(&ids, true), "a tiny text: 世界");
        let extra = tokenizer.id("<extra3>").unwrap();
        assert_eq!(tokenizer.encode_plain("a<extra3>").unwrap().last(), Some(&extra));
    }
}

#[test]
fn contradictory_pieces_are_refused_by_field() {
    let refused = |change: fn(&mut GgufVocabulary), words: &[&str]| {
        let mut vocabulary = gguf_vocabulary("llama");
        change(&mut vocabulary);
        let message = Tokenizer::from_gguf(vocabulary).unwrap_err().to_string();
        for word in ["small.gguf"].iter().chain(words) {
            assert!(message.contains(word), "`{word}` is not in: {message}");
        }
    };
    refused(|v| v.scores.clear(), &["tokenizer.ggml.scores", "0", "700"]);
    refused(|v| v.scores[9] = f32::NAN, &["tokenizer.ggml.tokens", "score", "9"]);
    refused(|v| v.token_types[9] = 7, &["tokenizer.ggml.token_type", "9"]);
    refused(|v| v.token_types[300] = 6, &["tokenizer.ggml.tokens", "300"]);
    refused(|v| (v.token_types[300], v.unk) = (2, None), &["tokenizer.ggml.tokens", "unknown"]);
    refused(|v| v.tokens[300] = v.tokens[301].clone(), &["tokenizer.ggml.tokens", "300", "301"]);
    refused(|v| v.tokens[300].clear(), &["tokenizer.ggml.tokens", "300"]);
    refused(|v| v.tokens[300] = "x".repeat(60_000), &["tokenizer.ggml.tokens", "large"]);
    refused(|v| v.precompiled_charsmap = vec![0xff; 40], &["tokenizer.ggml.precompiled_charsmap"]);
    refused(|v| v.precompiled_charsmap = vec![0; 4], &["tokenizer.ggml.precompiled_charsmap"]);
}

#[test]
fn ranks_encode_as_tiktoken() {
    for (pre, vectors) in [("llama-bpe", "ranks.llama3.vectors.json"), ("qwen2", "ranks.qwen.vectors.json")] {
        let tokenizer = Tokenizer::from_tiktoken(Path::new("r"), &fixture("ranks.tiktoken"), pre).unwrap();
        check(&tokenizer, vectors);
    }
    let unknown =
        Tokenizer::from_tiktoken(Path::new("r"), &fixture("ranks.tiktoken"), "unheard-of").unwrap_err();
    assert!(matches!(unknown, TokenizerError::Unsupported { .. }), "{unknown}");
    for (file, words) in [
        ("", "empty"),
        ("YQ== 1\n", "line 1"),
        ("YQ== 0\nYQ== 1\n", "twice"),
        ("YQ== 0\nYg== 3\n", "line 2"),
        ("YQ== 0\nY~== 1\n", "line 2"),
        ("YQ=== 0\n", "line 1"),
        ("YQ== 99999999999999999999\n", "line 1"),
        ("YQ==\n", "line 1"),
        (" 0\n", "line 1"),
    ] {
        let error = Tokenizer::from_tiktoken(Path::new("dir/r"), file.as_bytes(), "qwen2").unwrap_err();
        assert!(
            error.to_string().contains(words) && error.to_string().contains("dir/r"),
            "{file:?}: {error}"
        );
    }
}

/// A checkpoint's directory with other tokenizer files.
fn directory(files: &[(&str, &[u8])], config: &Value) -> tempfile::TempDir {
    let copy = copy_of("llama-tied-f32");
    std::fs::remove_file(copy.path().join("tokenizer.json")).unwrap();
    std::fs::write(copy.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    for (name, bytes) in files {
        std::fs::write(copy.path().join(name), bytes).unwrap();
    }
    copy
}

fn tokenizer_of(directory: &tempfile::TempDir) -> Result<Tokenizer, byzerllm_model::LoadError> {
    Checkpoint::open(directory.path()).unwrap().tokenizer()
}

#[test]
fn directories_without_tokenizer_json_have_their_other_files_read() {
    // SentencePiece with tokens behind its own, as chat models add them.
    let added = serde_json::json!({
        "tokenizer_class": "LlamaTokenizer", "bos_token": {"content": "<s>"}, "eos_token": "</s>",
        "added_tokens_decoder": {
            "1": {"content": "<s>", "special": true}, "2": {"content": "</s>", "special": true},
            "700": {"content": "<|im_start|>", "special": true}, "701": {"content": "<think>", "special": false},
        },
    });
    let tokenizer = tokenizer_of(&directory(&[("tokenizer.model", &fixture("bpe.model"))], &added)).unwrap();
    let plain = tokenizer.encode_plain("Hello 世界").unwrap();
    assert_eq!(plain, spm("bpe.model").encode_plain("Hello 世界").unwrap());
    assert_eq!(tokenizer.vocab_size(), 702);
    assert_eq!(tokenizer.encode("", true).unwrap(), [1]);
    assert_eq!(tokenizer.encode("<|im_start|><think>", false).unwrap(), [700, 701]);
    assert!(!tokenizer.encode_plain("<|im_start|>").unwrap().contains(&700));
    assert!(tokenizer.is_special(700) && !tokenizer.is_special(701));
    assert_eq!(tokenizer.token_bytes(701), Some(&b"<think>"[..]));
    // Ids from the older file; a gap is refused, and so is another text for a known id.
    let plain = serde_json::json!({"tokenizer_class": "LlamaTokenizer", "add_bos_token": false, "add_eos_token": true});
    let model = fixture("bpe.model");
    let with = |added: &[u8]| {
        tokenizer_of(&directory(&[("tokenizer.model", &model), ("added_tokens.json", added)], &plain))
    };
    assert_eq!(with(br#"{"<x>": 700}"#).unwrap().encode("<x>", true).unwrap(), [700, 2]);
    for (added, words) in
        [(&br#"{"<x>": 702}"#[..], "702"), (br#"{"<x>": 5}"#, "<x>"), (br#"{"<x>": -1}"#, "<x>")]
    {
        let error = with(added).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }

    // The files of GPT-2.
    let (vocab, merges) = (fixture("vocab.json"), fixture("merges.txt"));
    let files = [("vocab.json", &vocab[..]), ("merges.txt", &merges[..])];
    let class = serde_json::json!({"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": {
        "0": {"content": "<|endoftext|>", "special": true}, "1": {"content": "<|im_start|>", "special": true},
        "2": {"content": "<|im_end|>", "special": true}, "700": {"content": "<tool_call>", "special": false},
    }});
    let tokenizer = tokenizer_of(&directory(&files, &class)).unwrap();
    let json = Tokenizer::from_json(
        Path::new("j"),
        &std::fs::read(fixtures().join("tokenizer/byte_level.json")).unwrap(),
    )
    .unwrap();
    for text in ["Hello 世界", "<|im_start|>user\n1234", "  x\n\n <tool_call>", "nai\u{308}ve"] {
        assert_eq!(tokenizer.encode(text, false).unwrap(), json.encode(text, false).unwrap(), "{text:?}");
    }
    let error = tokenizer_of(&directory(&files, &serde_json::json!({"tokenizer_class": "MvpTokenizer"})))
        .unwrap_err();
    assert!(error.to_string().contains("MvpTokenizer"), "{error}");

    // Ranks, with Llama 3's special tokens from its configuration.
    let class = serde_json::json!({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>", "add_bos_token": true,
        "added_tokens_decoder": {"696": {"content": "<|begin_of_text|>", "special": true}}});
    let ranks = fixture("ranks.tiktoken");
    let tokenizer = tokenizer_of(&directory(&[("tokenizer.model", &ranks)], &class)).unwrap();
    check(&tokenizer, "ranks.llama3.vectors.json");
    assert_eq!(tokenizer.encode("", true).unwrap(), [696]);
    let qwen = tokenizer_of(&directory(&[("qwen.tiktoken", &ranks)], &serde_json::json!({}))).unwrap();
    check(&qwen, "ranks.qwen.vectors.json");
    assert_eq!(qwen.id("<|im_start|>"), Some(697));
    assert!(qwen.is_special(697));

    let error = tokenizer_of(&directory(&[], &class)).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json") && error.contains("tokenizer.model"), "{error}");
    let error = tokenizer_of(&directory(&[("tokenizer.model", b"%PDF")], &class)).unwrap_err().to_string();
    assert!(error.contains("tokenizer.model"), "{error}");
}

/// Compares conversations, whose control tokens are parsed, and makes sure that strangers cannot write them.
fn check_chats(tokenizer: &Tokenizer, name: &str, controls: &[&str]) {
    let rows: Value = serde_json::from_slice(&fixture(name)).unwrap();
    let rows = rows.as_array().unwrap();
    assert!(rows.len() >= 4, "{name}");
    let control: Vec<u32> = controls.iter().map(|text| tokenizer.id(text).unwrap()).collect();
    assert!(control.iter().all(|id| tokenizer.is_special(*id)), "{name}");
    for row in rows {
        let text = row["text"].as_str().unwrap();
        let expected = ids(&row["ids"]);
        assert_eq!(tokenizer.encode(text, false).unwrap(), expected, "{text:?}");
        assert!(control.iter().any(|id| expected.contains(id)));
        let plain = tokenizer.encode_plain(text).unwrap();
        assert!(!plain.iter().any(|id| control.contains(id)), "{text:?}");
    }
}

#[test]
fn baichuan_reads_its_sentencepiece_and_reserved_tokens() {
    let config = serde_json::json!({
        "tokenizer_class": "BaichuanTokenizer", "add_bos_token": false, "add_eos_token": false,
        "auto_map": {"AutoTokenizer": ["tokenization_baichuan.BaichuanTokenizer", null]},
        "bos_token": {"content": "<s>"}, "eos_token": {"content": "</s>"}, "pad_token": {"content": "<unk>"},
    });
    let files = [("tokenizer.model", &fixture("baichuan.model")[..])];
    let tokenizer = tokenizer_of(&directory(&files, &config)).unwrap();
    check(&tokenizer, "baichuan.vectors.json");
    check_chats(&tokenizer, "baichuan.chats.json", &["<reserved_106>", "<reserved_107>"]);
    assert!(tokenizer.encode("", true).unwrap().is_empty());
}

#[test]
fn qwen_reads_its_ranks_and_special_tokens() {
    let config = serde_json::json!({"tokenizer_class": "QWenTokenizer", "model_max_length": 8192,
        "auto_map": {"AutoTokenizer": ["tokenization_qwen.QWenTokenizer", null]}});
    let tokenizer =
        tokenizer_of(&directory(&[("qwen.tiktoken", &fixture("ranks.tiktoken"))], &config)).unwrap();
    check(&tokenizer, "ranks.qwen.vectors.json");
    check_chats(
        &tokenizer,
        "qwen.chats.json",
        &["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|extra_204|>"],
    );
    assert_eq!(tokenizer.vocab_size(), 696 + 208);
}

#[test]
fn moss_reads_its_merges_and_marks_of_turns() {
    let files = ["vocab.json", "merges.txt", "added_tokens.json"];
    let files = files.map(|name| (name, fixture(&format!("moss/{name}"))));
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, &bytes[..])).collect();
    let config = serde_json::from_slice(&fixture("moss/tokenizer_config.json")).unwrap();
    let tokenizer = tokenizer_of(&directory(&files, &config)).unwrap();
    check(&tokenizer, "moss/vectors.json");
    check_chats(&tokenizer, "moss/chats.json", &["<eoh>", "<eom>"]);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        rng_seed: RngSeed::Fixed(31),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever is done to the files, there is a tokenizer or an error, and the tokenizer answers.
    #[test]
    fn damaged_files_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        which in 0_usize..3,
    ) {
        let name = ["bpe.model", "unigram.model", "ranks.tiktoken"][which];
        let mut bytes = fixture(name);
        for (place, value) in flips {
            let place = place.index(bytes.len());
            bytes[place] ^= value;
        }
        if let Some(cut) = cut {
            let length = cut.index(bytes.len());
            bytes.truncate(length);
        }
        let path = Path::new("damaged");
        let made = match which {
            2 => Tokenizer::from_tiktoken(path, &bytes, "qwen2"),
            _ => Tokenizer::from_sentencepiece(path, &bytes),
        };
        match made {
            Ok(tokenizer) => {
                let _ = tokenizer.encode("Hello 世界  ﬁ １２ <tool>", true).map(|ids| tokenizer.decode(&ids, false));
            }
            Err(error) => prop_assert!(error.to_string().contains("damaged"), "{error}"),
        }
    }
}

#[test]
fn long_runs_take_linear_time() {
    let start = std::time::Instant::now();
    for name in ["bpe.model", "unigram.model", "unigram_bytes.model"] {
        let tokenizer = spm(name);
        for text in
            [" ".repeat(100_000) + "x", "a ".repeat(50_000), "世".repeat(50_000), "</s>".repeat(30_000)]
        {
            assert!(!tokenizer.encode_plain(&text).unwrap().is_empty());
        }
    }
    assert!(start.elapsed() < std::time::Duration::from_secs(30), "{:?}", start.elapsed());
}
