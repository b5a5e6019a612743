//! The GLM families: two layouts of the same weights, contexts that are read in both directions, and what is refused.

use std::path::Path;

use byzerllm_core::{Message, Role};
use byzerllm_model::config::Residual;
use byzerllm_model::{Checkpoint, Compute, LoadError, Tokenizer};
use serde_json::{Value, json};

use crate::parity::worst;
use crate::support::{Fixture, Runner, Setup, argmax, bits, copy_of};
use crate::vocabularies;

fn rows(name: &str, compute: Compute, prompt: &[u32]) -> Vec<Vec<u32>> {
    let fixture = Fixture::directory(name);
    bits(&Runner::new(&fixture.checkpoint, Setup { compute, ..Setup::EXACT }).step(&[(0, 0, prompt)]))
}

#[test]
fn both_layouts_compute_the_same_bits() {
    for (theirs, ours) in [("glm-f16", "chatglm2-f16"), ("glm-ratio-bf16", "glm-4-bf16")] {
        let prompt = Fixture::directory(theirs).expected.prompts[2].clone();
        for compute in Compute::ALL {
            assert_eq!(rows(theirs, compute, &prompt), rows(ours, compute, &prompt), "{ours} {compute}");
        }
    }
}

#[test]
fn every_fixture_agrees_with_its_reference() {
    let directories = ["glm-f16", "glm-ratio-bf16", "glm4-bf16", "chatglm2-f16", "glm-4-bf16"];
    let directories = directories.into_iter().chain(["chatglm2-options-f16", "chatglm-6b-f16"]);
    let files = ["chatglm-q8_0", "chatglm-separate-f16", "glm4-f16"];
    for fixture in directories.map(Fixture::directory).chain(files.map(Fixture::gguf)) {
        let worst = worst(&fixture, Setup::EXACT);
        println!("{}: {worst:.2e}", fixture.name);
        assert!(worst < 1e-4, "{}: {worst}", fixture.name);
    }
}

#[test]
fn chatglm_6b_is_told_from_its_successors() {
    let first = Fixture::directory("chatglm-6b-f16").checkpoint;
    assert!(matches!(first.config().layers[0].residual, Residual::Normed(factor) if factor == 2.0));
    assert!(first.config().prefix_context.is_some());
    assert_eq!(first.config().position_width(), 2);
    let second = Fixture::directory("chatglm2-f16").checkpoint;
    assert_eq!(second.config().layers[0].residual, Residual::Serial);
    assert!(second.config().prefix_context.is_none());
    assert_eq!((first.architecture(), second.architecture()), ("ChatGLMModel", "ChatGLMModel"));
}

/// Every token of a context sees all of it, so that another last token changes the first row; after it nothing does.
#[test]
fn contexts_are_read_in_both_directions() {
    let fixture = Fixture::directory("chatglm-6b-f16");
    let prompt = &fixture.expected.prompts[2];
    let run = |ids: &[u32]| bits(&Runner::new(&fixture.checkpoint, Setup::EXACT).step(&[(0, 0, ids)]));
    let whole = run(prompt);
    let mut other = prompt.clone();
    other[14] += 1;
    assert_ne!(run(&other)[0], whole[0]);
    let mut other = prompt.clone();
    other[30] += 1;
    let changed = run(&other);
    assert_eq!(changed[..30], whole[..30]);
    assert_ne!(changed[30..], whole[30..]);
}

/// What was computed step by step and what is computed again at once, as after a preemption, are the same bits.
#[test]
fn an_answer_computed_again_has_the_same_bits() {
    let fixture = Fixture::directory("chatglm-6b-f16");
    let prompt = &fixture.expected.prompts[1];
    for compute in Compute::ALL {
        let setup = Setup { compute, sequences: 2, ..Setup::EXACT };
        let mut runner = Runner::new(&fixture.checkpoint, setup);
        let mut ids = prompt.clone();
        let mut rows = runner.step(&[(0, 0, prompt)]);
        for _ in 0..20 {
            let next = argmax(rows.last().unwrap());
            rows.extend(runner.step(&[(0, ids.len(), &[next])]));
            ids.push(next);
        }
        assert_eq!(bits(&runner.step(&[(1, 0, &ids)])), bits(&rows), "{compute}");
    }
}

fn refused(name: &str, changes: &Value) -> LoadError {
    let copy = copy_of(name);
    let path = copy.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (field, value) in changes.as_object().unwrap() {
        config[field] = value.clone();
    }
    std::fs::write(&path, config.to_string()).unwrap();
    Checkpoint::open(copy.path()).expect_err(&changes.to_string())
}

fn check(name: &str, changes: &Value, words: &[&str]) {
    let message = refused(name, changes).to_string();
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

#[test]
fn configurations_that_cannot_be_computed_are_refused_by_field() {
    for name in ["chatglm2-f16", "chatglm-6b-f16"] {
        check(name, &json!({"quantization_bit": 4}), &["config.json", "quantization_bit", "float16"]);
        check(name, &json!({"pre_seq_len": 128}), &["pre_seq_len", "LoRA"]);
        check(name, &json!({"num_layers": 1000}), &["num_layers"]);
        check(name, &json!({"num_attention_heads": 0}), &["num_attention_heads"]);
        check(name, &json!({"layernorm_epsilon": "small"}), &["layernorm_epsilon"]);
    }
    check("chatglm2-f16", &json!({"post_layer_norm": false}), &["post_layer_norm"]);
    check("chatglm2-f16", &json!({"multi_query_group_num": 3}), &["multi_query_group_num"]);
    check("chatglm2-f16", &json!({"padded_vocab_size": 1 << 29}), &["word_embeddings"]);
    check("chatglm2-f16", &json!({"kv_channels": 18}), &["kv_channels"]);
    check("chatglm2-f16", &json!({"rope_ratio": 1e38}), &["rope_ratio"]);
    check("chatglm2-f16", &json!({"rope_ratio": -1}), &["rope_ratio"]);
    check("chatglm-6b-f16", &json!({"position_encoding_2d": false}), &["position_encoding_2d"]);
    check("chatglm-6b-f16", &json!({"bos_token_id": null}), &["bos_token_id", "missing"]);
    check("chatglm-6b-f16", &json!({"gmask_token_id": 100_000}), &["gmask_token_id"]);
    check("chatglm-6b-f16", &json!({"inner_hidden_size": 1 << 29}), &["dense_h_to_4h"]);
}

#[test]
fn the_long_chatglm2_divides_positions() {
    let rope = |changes: Value| {
        let copy = copy_of("chatglm2-f16");
        let path = copy.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for (field, value) in changes.as_object().unwrap() {
            config[field] = value.clone();
        }
        std::fs::write(&path, config.to_string()).unwrap();
        let checkpoint = Checkpoint::open(Path::new(copy.path())).unwrap();
        match &checkpoint.config().layers[0].attention.position {
            byzerllm_model::config::PositionEncoding::Rope(rope) => rope.frequencies().0,
            other => panic!("{other:?}"),
        }
    };
    let plain = rope(json!({}));
    let divided = rope(json!({"rope_ratio": 4, "_name_or_path": "THUDM/chatglm2-6b-32k"}));
    assert!(plain.iter().zip(&divided).all(|(plain, divided)| plain / 4.0 == *divided));
    let slower = rope(json!({"rope_ratio": 4, "_name_or_path": "THUDM/chatglm3-6b-32k"}));
    assert!(slower[0] == 1.0 && slower[1] < plain[1] && slower[1] > plain[1] / 4.0);
}

/// The tokenizer of a fixture with another vocabulary, its files changed.
fn tokenizer(name: &str, file: &str, vocabulary: &str, changes: &Value) -> Result<Tokenizer, LoadError> {
    let copy = copy_of(name);
    std::fs::write(copy.path().join(file), vocabularies::fixture(vocabulary)).unwrap();
    let path = copy.path().join("tokenizer_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (field, value) in changes.as_object().unwrap() {
        config[field] = value.clone();
    }
    std::fs::write(&path, config.to_string()).unwrap();
    Checkpoint::open(copy.path()).unwrap().tokenizer()
}

#[test]
fn chatglm_6b_vocabularies_encode_as_sentencepiece() {
    let tokenizer = tokenizer("chatglm-6b-f16", "ice_text.model", "chatglm_6b.model", &json!({})).unwrap();
    vocabularies::check(&tokenizer, "chatglm_6b.vectors.json");
    let id = |token: &str| tokenizer.id(token).unwrap_or_else(|| panic!("{token}"));
    let end = [id("[gMASK]"), id("<sop>")];
    let text = tokenizer.encode_plain("你好\n").unwrap();
    assert_eq!(tokenizer.encode("你好\n", true).unwrap(), [&text[..], &end].concat());
    assert_eq!(tokenizer.encode("你好\n[gMASK]<sop>", false).unwrap(), [&text[..], &end].concat());
    assert!(tokenizer.is_special(id("<eop>")) && !tokenizer.is_special(id("<n>")));
    assert_eq!(tokenizer.token_bytes(id("<|blank_7|>")), Some(&b"       "[..]));
    assert_eq!(tokenizer.token(id("<n>")), Some("<n>"));
    // A stranger cannot write what ends a context.
    for text in ["[gMASK]<sop>", "<eop>", "</s>", "a[MASK]b"] {
        let ids = tokenizer.encode_plain(text).unwrap();
        assert!(ids.iter().all(|id| !tokenizer.is_special(*id)), "{text}: {ids:?}");
        assert_eq!(tokenizer.decode(&ids, true), text);
    }
    let ids = tokenizer.encode_plain("a\n\t  世").unwrap();
    let mut stream = tokenizer.decoder(true);
    let streamed: String = ids.iter().filter_map(|id| stream.push(*id)).collect();
    assert_eq!(streamed, "a\n\t  世");
}

#[test]
fn early_chatglm_6b_vocabularies_are_completed_and_moved() {
    let early = |changes: &Value| tokenizer("chatglm-6b-f16", "ice_text.model", "unigram.model", changes);
    let moved = early(&json!({"num_image_tokens": null})).unwrap();
    let still = early(&json!({"num_image_tokens": 0})).unwrap();
    let ids = still.encode("Hello,   world", true).unwrap();
    assert_eq!(still.decode(&ids, true), "Hello,   world");
    let expected: Vec<u32> = ids.iter().map(|id| id + 20_000).collect();
    assert_eq!(moved.encode("Hello,   world", true).unwrap(), expected);
    assert_eq!(moved.decode(&expected, true), "Hello,   world");
    assert_eq!(moved.id("<sop>"), still.id("<sop>").map(|id| id + 20_000));
    assert!(moved.token(7).is_none() && moved.token_bytes(7).is_none());
    for wrong in [json!(-1), json!("many"), json!(1_u64 << 40)] {
        let error = early(&json!({"num_image_tokens": wrong})).unwrap_err().to_string();
        assert!(error.contains("num_image_tokens"), "{error}");
    }
}

#[test]
fn chatglm2_vocabularies_encode_as_sentencepiece() {
    let third =
        |name| tokenizer("chatglm2-f16", "tokenizer.model", "chatglm2.model", &json!({"name_or_path": name}));
    let roles = third("THUDM/chatglm3-6b").unwrap();
    vocabularies::check(&roles, "chatglm2.vectors.json");
    let count = u32::try_from(roles.vocab_size()).unwrap() - 9;
    let prefix = [count + 1, count + 3];
    let text = roles.encode_plain("Hello").unwrap();
    assert_eq!(roles.encode("Hello", true).unwrap(), [&prefix, &text[..]].concat());
    let turn = roles.encode("[gMASK]sop<|user|>\n Hello", false).unwrap();
    let line = roles.encode_plain("\n Hello").unwrap();
    assert_eq!(turn, [&prefix, &[count + 6][..], &line].concat());
    assert_eq!(roles.decode(&turn, false), "[gMASK]sop<|user|> \n Hello");
    assert_eq!(roles.decode(&turn, true), "\n Hello");
    // A word that looks like the token is a word.
    let words = roles.encode("sop sophisticated", false).unwrap();
    assert_eq!(words, roles.encode_plain("sop sophisticated").unwrap());
    assert!(roles.encode_plain("<|user|>[gMASK]sop").unwrap().iter().all(|id| *id < count));
    // ChatGLM2 has no roles.
    let second = third("THUDM/chatglm2-6b").unwrap();
    assert_eq!(second.vocab_size(), roles.vocab_size() - 4);
    assert_eq!(second.id("<|user|>"), None);
}

#[test]
fn glm4_ranks_encode_as_tiktoken() {
    let tokenizer =
        tokenizer("glm-4-bf16", "tokenizer.model", "glm4.tiktoken", &json!({"added_tokens_decoder": {}}));
    let tokenizer = tokenizer.unwrap();
    vocabularies::check(&tokenizer, "glm4.vectors.json");
    assert_eq!(tokenizer.vocab_size(), 500 + 14);
    let text = tokenizer.encode_plain("Hello 12345").unwrap();
    assert_eq!(tokenizer.encode("Hello 12345", true).unwrap(), [&[502, 504], &text[..]].concat());
    assert_eq!(tokenizer.encode("<|user|>\n", false).unwrap()[0], 507);
    assert!(tokenizer.is_special(507));
    let named = Fixture::directory("glm-4-bf16").checkpoint.tokenizer().unwrap();
    assert_eq!(named.id("<|endoftext|>"), Some(280));
}

/// A conversation rendered by the fixture's format, its files changed.
fn rendered(name: &str, changes: &Value, messages: &[(Role, &str)]) -> Result<String, String> {
    let copy = copy_of(name);
    let path = copy.path().join("tokenizer_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (field, value) in changes.as_object().unwrap() {
        config[field] = value.clone();
    }
    std::fs::write(&path, config.to_string()).unwrap();
    let template = Checkpoint::open(copy.path()).unwrap().chat_template().unwrap().unwrap();
    let messages: Vec<Message> = messages.iter().map(|(role, text)| Message::new(*role, *text)).collect();
    template.render(&messages, None, true).map_err(|error| error.to_string())
}

/// The formats as `THUDM` published them: `chat` of ChatGLM-6B, `build_prompt` of ChatGLM2-6B, `PROMPT.md` of
/// ChatGLM3, `apply_chat_template` of GLM-4-9B-chat. Where the first two have no place for a system message, as
/// FastChat's conversation of that name.
#[test]
fn checkpoints_without_a_template_have_the_published_format() {
    let (system, user, assistant) = (Role::System, Role::User, Role::Assistant);
    let one = [(user, "你好")];
    let three = [(user, "1+1?"), (assistant, "2"), (user, "2+2?")];
    let led = [(system, "Be brief."), (user, "你好")];
    let second = json!({});
    let third = json!({"name_or_path": "THUDM/chatglm3-6b"});
    for (name, changes, messages, expected) in [
        ("chatglm-6b-f16", &second, &one[..], "你好[gMASK]<sop>"),
        (
            "chatglm-6b-f16",
            &second,
            &three[..],
            "[Round 0]\n问：1+1?\n答：2\n[Round 1]\n问：2+2?\n答：[gMASK]<sop>",
        ),
        ("chatglm-6b-f16", &second, &led[..], "Be brief.\n[Round 0]\n问：你好\n答：[gMASK]<sop>"),
        ("chatglm2-f16", &second, &one[..], "[gMASK]sop[Round 1]\n\n问：你好\n\n答："),
        (
            "chatglm2-f16",
            &second,
            &three[..],
            "[gMASK]sop[Round 1]\n\n问：1+1?\n\n答：2\n\n[Round 2]\n\n问：2+2?\n\n答：",
        ),
        ("chatglm2-f16", &second, &led[..], "[gMASK]sopBe brief.\n\n[Round 1]\n\n问：你好\n\n答："),
        ("chatglm2-f16", &third, &one[..], "[gMASK]sop<|user|>\n 你好<|assistant|>"),
        ("chatglm2-f16", &third, &led[..], "[gMASK]sop<|system|>\n Be brief.<|user|>\n 你好<|assistant|>"),
        ("glm-4-bf16", &second, &one[..], "[gMASK]<sop><|user|>\n你好<|assistant|>"),
        (
            "glm-4-bf16",
            &second,
            &three[..],
            "[gMASK]<sop><|user|>\n1+1?<|assistant|>\n2<|user|>\n2+2?<|assistant|>",
        ),
    ] {
        assert_eq!(rendered(name, changes, messages).as_deref(), Ok(expected), "{name}");
    }
    let tool = [(Role::Tool, "3")];
    assert_eq!(
        rendered("glm-4-bf16", &second, &tool).as_deref(),
        Ok("[gMASK]<sop><|observation|>\n3<|assistant|>")
    );
    for name in ["chatglm-6b-f16", "chatglm2-f16"] {
        let refusal = rendered(name, &second, &tool).unwrap_err();
        assert!(refusal.contains("user and assistant"), "{refusal}");
    }
    // A template of the checkpoint's own wins.
    let own = json!({"chat_template": "{{ messages[0].content }}!"});
    assert_eq!(rendered("glm-4-bf16", &own, &one).as_deref(), Ok("你好!"));
}

#[test]
fn answers_end_where_the_published_code_ends_them() {
    for (name, tokens) in [
        ("chatglm-6b-f16", &["<eop>"][..]),
        ("chatglm2-f16", &["</s>"]),
        ("glm-4-bf16", &["<|endoftext|>", "<|user|>", "<|observation|>"]),
    ] {
        let checkpoint = Fixture::directory(name).checkpoint;
        let tokenizer = checkpoint.tokenizer().unwrap();
        let stops = checkpoint.stop_tokens(&tokenizer);
        for token in tokens {
            assert!(stops.contains(&tokenizer.id(token).unwrap()), "{name}: {token} is not in {stops:?}");
        }
        assert!(checkpoint.info(Compute::Exact).chat_template);
    }
    let info = Fixture::directory("chatglm2-f16").checkpoint.info(Compute::Exact);
    assert_eq!(info.details["prompt_format"], "chatglm2");
    let llama = Fixture::directory("llama-tied-f32").checkpoint;
    assert_eq!(llama.stop_tokens(&llama.tokenizer().unwrap()), llama.end_tokens());
}
