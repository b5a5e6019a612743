//! Tokenizers against Hugging Face's, on small ones always and on real vocabularies when the files are there.

use std::path::{Path, PathBuf};

use byzerllm_model::{GgufVocabulary, Tokenizer, TokenizerError};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn from_json(name: &str) -> Tokenizer {
    Tokenizer::from_json(Path::new(name), &fixture(name)).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

/// Text decoded token by token, as a stream would be.
fn streamed(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> String {
    let mut decoder = tokenizer.decoder(skip_special);
    let mut text: String = ids.iter().filter_map(|id| decoder.push(*id)).collect();
    text.extend(decoder.finish());
    text
}

fn check_vectors(tokenizer: &Tokenizer, name: &str) {
    let rows: Value = serde_json::from_slice(&fixture(name)).unwrap();
    for row in rows.as_array().unwrap() {
        let text = row["text"].as_str().unwrap();
        let expected = ids(&row["ids"]);
        assert_eq!(tokenizer.encode(text, false).unwrap(), expected, "{name}: {text:?}");
        let added = row.get("added").map_or_else(|| expected.clone(), ids);
        assert_eq!(tokenizer.encode(text, true).unwrap(), added, "{name}, special tokens added: {text:?}");
        let plain = row.get("plain").map_or_else(|| expected.clone(), ids);
        assert_eq!(tokenizer.encode_plain(text).unwrap(), plain, "{name}, special tokens as text: {text:?}");
        assert_eq!(tokenizer.decode(&expected, true), row["decoded"], "{name}: {text:?}");
        assert_eq!(streamed(tokenizer, &expected, true), row["decoded"], "{name}: {text:?}");
    }
    assert!(rows.as_array().unwrap().len() >= 60, "{name}");
}

#[test]
fn byte_level_json_encodes_as_hugging_face() {
    let tokenizer = from_json("byte_level.json");
    check_vectors(&tokenizer, "byte_level.vectors.json");
    assert_eq!(tokenizer.vocab_size(), 701);
    assert_eq!((tokenizer.id("<|im_end|>"), tokenizer.token(2)), (Some(2), Some("<|im_end|>")));
    assert!(tokenizer.is_special(2) && !tokenizer.is_special(3) && !tokenizer.is_special(9_999));
    let space = tokenizer.id("Ġ").unwrap();
    assert_eq!(tokenizer.token_bytes(space), Some(&b" "[..]));
    assert_eq!(tokenizer.token_bytes(2), Some(&b"<|im_end|>"[..]));
    assert_eq!((tokenizer.token_bytes(9_999), tokenizer.token(u32::MAX)), (None, None));
    assert_eq!(tokenizer.id("no such token"), None);
    assert_eq!(tokenizer.decode(&[space, 9_999, 2, space], false), " <|im_end|> ");
    assert_eq!(tokenizer.decode(&[space, 9_999, 2, space], true), "  ");
}

#[test]
fn byte_fallback_json_encodes_as_hugging_face() {
    let tokenizer = from_json("fallback.json");
    check_vectors(&tokenizer, "fallback.vectors.json");
    assert_eq!(tokenizer.token_bytes(tokenizer.id("<0xE4>").unwrap()), Some(&b"\xe4"[..]));
    assert_eq!(tokenizer.token_bytes(tokenizer.id("▁").unwrap()), Some(&b" "[..]));
    let ids = tokenizer.encode("a b", true).unwrap();
    assert_eq!(ids.first(), Some(&1));
    assert_eq!(tokenizer.decode(&ids, true), "a b");
    assert_eq!(tokenizer.decode(&ids, false), "<s> a b");
}

/// The vocabulary of `byte_level.json` as a GGUF file would hold it.
fn small_vocabulary() -> GgufVocabulary {
    let json: Value = serde_json::from_slice(&fixture("byte_level.json")).unwrap();
    let mut tokens = vec![String::new(); 701];
    for (token, id) in json["model"]["vocab"].as_object().unwrap() {
        tokens[usize::try_from(id.as_u64().unwrap()).unwrap()].clone_from(token);
    }
    tokens[700] = "<tool_call>".to_owned();
    let mut token_types = vec![1; 701];
    token_types[..3].fill(3);
    token_types[700] = 4;
    let merges = json["model"]["merges"].as_array().unwrap().iter();
    let merges =
        merges.map(|pair| format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap())).collect();
    GgufVocabulary {
        model: "gpt2".to_owned(),
        pre: "qwen2".to_owned(),
        tokens,
        token_types,
        merges,
        bos: Some(1),
        eos: Some(2),
        unk: None,
        pad: Some(0),
        add_bos: Some(true),
        add_eos: Some(true),
        file: PathBuf::from("small.gguf"),
        ..GgufVocabulary::default()
    }
}

#[test]
fn a_gguf_vocabulary_encodes_as_its_json() {
    let tokenizer = Tokenizer::from_gguf(small_vocabulary()).unwrap();
    check_vectors(&tokenizer, "byte_level.vectors.json");
    assert_eq!(tokenizer.vocab_size(), 701);
    assert_eq!(tokenizer.token_bytes(700), Some(&b"<tool_call>"[..]));
    assert!(tokenizer.is_special(1) && !tokenizer.is_special(700));
}

#[test]
fn special_tokens_are_added_as_the_file_says() {
    let encode = |pre: &str, add_bos, add_eos| {
        let vocabulary = GgufVocabulary { pre: pre.to_owned(), add_bos, add_eos, ..small_vocabulary() };
        Tokenizer::from_gguf(vocabulary).unwrap().encode("", true).unwrap()
    };
    assert_eq!(encode("qwen2", None, None), Vec::<u32>::new());
    assert_eq!(encode("qwen2", Some(true), None), [1]);
    assert_eq!(encode("qwen2", Some(false), Some(true)), [2]);
    assert_eq!(encode("llama-bpe", None, None), [1]);
    assert_eq!(encode("llama-bpe", Some(false), None), Vec::<u32>::new());
}

/// Asserts that a vocabulary is refused with a message that contains the words.
fn assert_refused(vocabulary: GgufVocabulary, words: &[&str]) {
    let error = Tokenizer::from_gguf(vocabulary).unwrap_err();
    let message = error.to_string();
    for word in ["small.gguf"].iter().chain(words) {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

#[test]
fn contradictory_vocabularies_are_refused_by_field() {
    let with = |change: fn(&mut GgufVocabulary)| {
        let mut vocabulary = small_vocabulary();
        change(&mut vocabulary);
        vocabulary
    };
    assert_refused(with(|v| v.model = "bert".into()), &["tokenizer.ggml.model", "bert", "gpt2"]);
    assert_refused(with(|v| v.pre = "unheard-of".into()), &["tokenizer.ggml.pre", "unheard-of", "smollm"]);
    assert_refused(with(|v| v.tokens.clear()), &["tokenizer.ggml.tokens", "empty"]);
    assert_refused(with(|v| v.token_types.truncate(9)), &["tokenizer.ggml.token_type", "9", "701"]);
    assert_refused(
        with(|v| v.tokens[5] = v.tokens[4].clone()),
        &["tokenizer.ggml.tokens", "token 5", "token 4"],
    );
    assert_refused(with(|v| v.tokens[5].clear()), &["tokenizer.ggml.tokens", "token 5"]);
    assert_refused(with(|v| v.tokens[5] = "x".repeat(1 << 20)), &["tokenizer.ggml.tokens", "token 5"]);
    assert_refused(with(|v| v.bos = Some(701)), &["tokenizer.ggml.bos_token_id", "701"]);
    assert_refused(with(|v| v.pad = Some(u32::MAX)), &["tokenizer.ggml.padding_token_id"]);
    assert_refused(with(|v| v.eos = None), &["tokenizer.ggml.add_eos_token", "tokenizer.ggml.eos_token_id"]);
    for merge in [
        "",
        " ",
        "a",
        "a ",
        " b",
        "ab",
        "no such",
        "Ġ Ġ中国",
        "a b c",
        "中 国国国国国国国国国国国国国国国国国国国国国国",
    ] {
        let mut vocabulary = small_vocabulary();
        vocabulary.merges[7] = merge.to_owned();
        assert_refused(vocabulary, &["tokenizer.ggml.merges"]);
    }
}

#[test]
fn a_vocabulary_without_types_knows_its_named_special_tokens() {
    let vocabulary = GgufVocabulary { token_types: Vec::new(), ..small_vocabulary() };
    let tokenizer = Tokenizer::from_gguf(vocabulary).unwrap();
    assert_eq!(tokenizer.encode("<|im_end|>", false).unwrap(), [2]);
    assert!(tokenizer.is_special(0) && !tokenizer.is_special(700));
}

#[test]
fn absurd_json_is_refused() {
    let valid: Value = serde_json::from_slice(&fixture("byte_level.json")).unwrap();
    let changed = |pointer: &str, value: Value| {
        let mut json = valid.clone();
        *json.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        serde_json::to_vec(&json).unwrap()
    };
    let fallback: Value = serde_json::from_slice(&fixture("fallback.json")).unwrap();
    let mut prefixed = valid.clone();
    prefixed["model"]["continuing_subword_prefix"] = json!("#".repeat(40));
    let hostile = [
        b"".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"{}".to_vec(),
        b"\xff\xfe{".to_vec(),
        "[".repeat(100_000).into_bytes(),
        fixture("byte_level.json")[..5_000].to_vec(),
        json!({"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}})
            .to_string()
            .into_bytes(),
        changed("/model/type", json!("Unheard")),
        changed("/model/merges", json!([["a", "no such token"]])),
        changed("/model/merges", json!([["<tool", "<tool_call>".repeat(1_000)]])),
        changed("/model", json!({"type": "BPE", "vocab": {"a": u32::MAX}, "merges": []})),
        changed("/model", json!({"type": "BPE", "vocab": {"a": -1}, "merges": []})),
        changed("/model", json!({"type": "BPE", "vocab": {"a": 1e30}, "merges": []})),
        changed(
            "/pre_tokenizer",
            json!({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false}),
        ),
        changed(
            "/decoder",
            json!({"type": "CTC", "pad_token": "p", "word_delimiter_token": "|", "cleanup": true}),
        ),
        changed(
            "/decoder",
            json!({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]}),
        ),
        serde_json::to_vec(&prefixed).unwrap(),
    ];
    for (index, json) in hostile.iter().enumerate() {
        let outcome = Tokenizer::from_json(Path::new("dir/tokenizer.json"), json);
        let error = outcome.map(|_| ()).expect_err(&format!("file {index}"));
        assert!(error.to_string().contains("dir/tokenizer.json"), "{index}: {error}");
        assert!(!matches!(error, TokenizerError::Encode(_)), "{index}: {error}");
    }
    // Gaps between ids are no fault.
    let mut gaps = fallback;
    let last = gaps["model"]["vocab"].as_object().unwrap().len();
    gaps["model"]["vocab"]["zzz"] = json!(last + 50);
    let tokenizer = Tokenizer::from_json(Path::new("gaps"), &serde_json::to_vec(&gaps).unwrap()).unwrap();
    assert_eq!(tokenizer.vocab_size(), last + 51);
    assert_eq!(tokenizer.token_bytes(u32::try_from(last + 49).unwrap()), None);
}

#[test]
fn incomplete_characters_wait_and_invalid_ones_are_replaced() {
    let tokenizer = from_json("fallback.json");
    let bytes = |bytes: &[u8]| -> Vec<u32> {
        bytes.iter().map(|byte| tokenizer.id(&format!("<0x{byte:02X}>")).unwrap()).collect()
    };
    let mut decoder = tokenizer.decoder(true);
    let pieces: Vec<_> = bytes("é世👍".as_bytes()).into_iter().map(|id| decoder.push(id)).collect();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(pieces, [None, text("é"), None, None, text("世"), None, None, None, text("👍")]);
    assert_eq!(decoder.finish(), None);

    assert_eq!(decoder.push(bytes(b"\xe4")[0]), None);
    assert!(decoder.has_pending());
    assert_eq!(decoder.finish(), text("\u{fffd}"));
    for invalid in [
        &b"\xff"[..],
        b"\xe4a",
        b"\xe4\xb8",
        b"\xf0\x9f\x91",
        b"\xc0\x80",
        b"a\xe4\xff\xb8\x96b",
        b"\x80\x80",
    ] {
        let ids = bytes(invalid);
        assert_eq!(tokenizer.decode(&ids, true), String::from_utf8_lossy(invalid));
        assert_eq!(streamed(&tokenizer, &ids, true), String::from_utf8_lossy(invalid));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        rng_seed: RngSeed::Fixed(20),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_stream_says_what_decoding_all_at_once_says(
        ids in prop::collection::vec(0u32..720, 0..60),
        skip_special in any::<bool>(),
        byte_level in any::<bool>(),
    ) {
        let tokenizer = from_json(if byte_level { "byte_level.json" } else { "fallback.json" });
        prop_assert_eq!(streamed(&tokenizer, &ids, skip_special), tokenizer.decode(&ids, skip_special));
    }

    #[test]
    fn text_survives_the_round_trip(text in "\\PC{0,40}") {
        // NFC changes text before it is encoded; what it leaves alone must come back.
        let tokenizer = from_json("byte_level.json");
        let ids = tokenizer.encode_plain(&text).unwrap();
        let back = tokenizer.decode(&ids, false);
        prop_assert_eq!(tokenizer.encode_plain(&back).unwrap(), ids);
        if text.is_ascii() {
            prop_assert_eq!(back, text);
        }
    }
}

#[test]
fn long_runs_take_linear_time() {
    let tokenizer = from_json("byte_level.json");
    let start = std::time::Instant::now();
    for text in [" ".repeat(300_000) + "x", "\n".repeat(300_000), "a".repeat(300_000), "<|".repeat(150_000)] {
        let ids = tokenizer.encode(&text, false).unwrap();
        assert_eq!(tokenizer.decode(&ids, false), text);
    }
    assert!(start.elapsed() < std::time::Duration::from_secs(30), "{:?}", start.elapsed());
}
