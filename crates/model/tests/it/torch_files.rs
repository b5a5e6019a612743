//! Torch's own files: the numbers of their safetensors twins, and pickles that ask for more than numbers.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use byzerllm_core::ErrorKind;
use byzerllm_model::{Checkpoint, LoadError};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use crate::support::{Fixture, Runner, Setup, bits, copy_of, fixtures};

/// A fixture's directory with torch's files in the place of its safetensors.
fn with_bins(base: &str, bins: &str) -> tempfile::TempDir {
    let copy = copy_of(base);
    std::fs::remove_file(copy.path().join("model.safetensors")).unwrap();
    for entry in std::fs::read_dir(fixtures().join(bins)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

#[test]
fn the_bits_are_those_of_safetensors() {
    for (base, bins) in [("mistral-window-bf16", "bin-mistral"), ("llama-llama3-f16", "bin-llama-shards")] {
        let copy = with_bins(base, bins);
        let found = Checkpoint::open(copy.path()).unwrap();
        let twin = Fixture::directory(base);
        let prompt = &twin.expected.prompts[2];
        let expected = Runner::new(&twin.checkpoint, Setup::EXACT).step(&[(0, 0, prompt)]);
        let rows = Runner::new(&found, Setup::EXACT).step(&[(0, 0, prompt)]);
        assert!(bits(&rows) == bits(&expected), "{bins}");
        assert_eq!(found.tensors().len(), twin.checkpoint.tensors().len());
        assert_eq!(
            (found.weight_format(), twin.checkpoint.weight_format()),
            ("torch".into(), "safetensors".into())
        );
    }
}

#[test]
fn zephyr_opens_as_it_was_published() {
    let copy = with_bins("mistral-window-bf16", "bin-mistral");
    let config = serde_json::json!({
        "architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
        "hidden_size": 64, "initializer_range": 0.02, "intermediate_size": 128, "max_position_embeddings": 32768,
        "model_type": "mistral", "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2,
        "pad_token_id": 2, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.35.0",
        "use_cache": true, "vocab_size": 300,
    });
    std::fs::write(copy.path().join("config.json"), config.to_string()).unwrap();
    std::fs::remove_file(copy.path().join("tokenizer.json")).unwrap();
    std::fs::copy(fixtures().join("vocabularies/bpe.model"), copy.path().join("tokenizer.model")).unwrap();
    std::fs::write(copy.path().join("added_tokens.json"), r#"{"</s>": 2, "<s>": 1, "<unk>": 0}"#).unwrap();
    let tokenizer_config = serde_json::json!({
        "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "legacy": true,
        "added_tokens_decoder": {"2": {"content": "</s>", "special": true}},
        "chat_template": "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}{{ eos_token }}{% endfor %}",
    });
    std::fs::write(copy.path().join("tokenizer_config.json"), tokenizer_config.to_string()).unwrap();
    let checkpoint = Checkpoint::open(copy.path()).unwrap();
    assert_eq!(checkpoint.architecture(), "MistralForCausalLM");
    assert_eq!(checkpoint.config().layers[1].attention.window, Some(4096));
    assert_eq!(checkpoint.end_tokens(), [2, 0]);
    let template = checkpoint.chat_template().unwrap().unwrap();
    let message = byzerllm_core::Message::new(byzerllm_core::Role::User, "Hello");
    let prompt = template.render(&[message], None, true).unwrap();
    let ids = checkpoint.tokenizer().unwrap().encode(&prompt, true).unwrap();
    assert_eq!((ids[0], ids.last()), (1, Some(&2)));
    assert_eq!(Runner::new(&checkpoint, Setup::EXACT).step(&[(0, 0, &[1, 7, 9])]).len(), 3);
}

/// A zip archive of stored files.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in files {
        let offset = bytes.len() as u32;
        let sizes = [(data.len() as u32).to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
        let lengths = [(name.len() as u16).to_le_bytes(), [0, 0]].concat();
        bytes.extend([b"PK\x03\x04", &[0; 14][..], &sizes, &lengths, name.as_bytes(), data].concat());
        directory.extend(
            [b"PK\x01\x02", &[0; 16][..], &sizes, &lengths, &[0; 10], &offset.to_le_bytes(), name.as_bytes()]
                .concat(),
        );
    }
    let count = (files.len() as u16).to_le_bytes();
    let place = [(directory.len() as u32).to_le_bytes(), (bytes.len() as u32).to_le_bytes()].concat();
    [bytes, directory, [b"PK\x05\x06", &[0; 4][..], &count, &count, &place, &[0; 2]].concat()].concat()
}

/// Opens a checkpoint whose weights are these bytes.
fn open(weights: &[u8]) -> Result<Checkpoint, LoadError> {
    let copy = copy_of("mistral-window-bf16");
    std::fs::remove_file(copy.path().join("model.safetensors")).unwrap();
    std::fs::write(copy.path().join("pytorch_model.bin"), weights).unwrap();
    Checkpoint::open(copy.path())
}

fn refused(weights: &[u8], words: &[&str]) -> LoadError {
    let error = open(weights).unwrap_err();
    let message = error.to_string();
    for word in ["pytorch_model.bin"].iter().chain(words) {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
    error
}

fn pickled(pickle: &[u8]) -> Vec<u8> {
    archive(&[("a/data.pkl", pickle), ("a/data/0", &[0; 16])])
}

#[test]
fn a_pickle_that_runs_something_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let canary = folder.path().join("canary");
    let command = format!("touch {}", canary.display());
    let text = |text: &str| [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
    let call = |module: &str, name: &str| {
        let global = format!("\x02c{module}\n{name}\n(");
        [b"\x80", global.as_bytes(), &text(&command), b"tR."].concat()
    };
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("__builtin__", "eval"),
        ("subprocess", "Popen"),
        ("runpy", "run_path"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("torch._utils", "_rebuild_tensor"),
        ("torch.storage", "_load_from_bytes"),
        ("collections", "Counter"),
        ("_codecs", "encode"),
        ("numpy.core.multiarray", "_reconstruct"),
    ] {
        let error =
            refused(&pickled(&call(module, name)), &[&format!("{module}.{name}"), "nothing of it was run"]);
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        // The same name off the stack, as later protocols write it.
        let short = |text: &str| [&[0x8c, text.len() as u8], text.as_bytes()].concat();
        let stacked =
            [&b"\x80\x04"[..], &short(module), &short(name), b"\x93(", &text(&command), b"tR."].concat();
        refused(&pickled(&stacked), &[&format!("{module}.{name}")]);
    }
    // Operations that make or change objects in other ways.
    let inst = "(X\x05\0\0\0helloios\nsystem\n.";
    refused(&pickled(inst.as_bytes()), &["INST"]);
    for (pickle, word) in [
        (&b"\x80\x02)ccollections\nOrderedDict\n\x81."[..], "REDUCE|NEWOBJ"),
        (b"\x80\x02(ccollections\nOrderedDict\no.", "OBJ"),
        (b"\x80\x04ccollections\nOrderedDict\n)}\x92.", "NEWOBJ_EX"),
        (b"\x80\x02\x82\x01.", "EXT"),
        (b"\x80\x02Psomething\n.", "PERSID"),
        (b"\x80\x02S'os'\n.", "STRING"),
        (b"\x80\x02K\x01}b.", "BUILD"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "storage class"),
        (b"\x80\x01.", "protocol"),
    ] {
        let error = open(&pickled(pickle)).unwrap_err().to_string();
        assert!(word.split('|').any(|word| error.contains(word)), "{word}: {error}");
    }
    assert!(!canary.exists());
}

/// A pickle of one f32 tensor `w`.
fn one_tensor(storage: &str, values: u8, offset: u8, shape: [u8; 2], strides: [u8; 2]) -> Vec<u8> {
    let text = |text: &str| [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
    [
        &b"\x80\x02}"[..],
        &text("w"),
        b"ctorch._utils\n_rebuild_tensor_v2\n((",
        &text("storage"),
        format!("ctorch\n{storage}\n").as_bytes(),
        &text("0"),
        &text("cpu"),
        &[b'K', values],
        b"tQ",
        &[b'K', offset, b'K', shape[0], b'K', shape[1], 0x86, b'K', strides[0], b'K', strides[1], 0x86],
        b"\x89ccollections\nOrderedDict\n)RtRs.",
    ]
    .concat()
}

#[test]
fn tensors_must_lie_inside_of_their_storages() {
    // Well formed: what is missing is only the rest of the model.
    let error = open(&pickled(&one_tensor("FloatStorage", 4, 0, [2, 2], [2, 1]))).unwrap_err();
    assert!(matches!(error, LoadError::MissingTensor { .. }), "{error}");
    for (pickle, word) in [
        (one_tensor("FloatStorage", 5, 0, [2, 2], [2, 1]), "storage"),
        (one_tensor("HalfStorage", 4, 0, [2, 2], [2, 1]), "storage"),
        (one_tensor("FloatStorage", 4, 1, [2, 2], [2, 1]), "beyond"),
        (one_tensor("FloatStorage", 4, 0, [2, 3], [3, 1]), "beyond"),
        (one_tensor("FloatStorage", 4, 0, [255, 255], [0, 0]), "beyond"),
        (one_tensor("FloatStorage", 4, 0, [2, 2], [1, 2]), "strides"),
        (one_tensor("FloatStorage", 4, 0, [2, 2], [0, 1]), "strides"),
        (one_tensor("QUInt8Storage", 4, 0, [2, 2], [2, 1]), "torch.QUInt8Storage"),
    ] {
        refused(&pickled(&pickle), &[word]);
    }
    let good = one_tensor("FloatStorage", 4, 0, [2, 2], [2, 1]);
    refused(&archive(&[("a/data.pkl", &good)]), &["tensor w", "a/data/0"]);
    refused(
        &archive(&[("a/data.pkl", &good), ("a/data/0", &[0; 16]), ("a/byteorder", b"big")]),
        &["byteorder"],
    );
    refused(&archive(&[("a/data.pkl", &good), ("a/data.pkl", &good)]), &["twice"]);
    refused(&archive(&[("a/other", b"")]), &["data.pkl"]);
    let mut compressed = pickled(&good);
    let at = compressed.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
    compressed[at + 10] = 8;
    refused(&compressed, &["compressed"]);
    refused(b"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19.", &["archive", "1.6"]);
    for absurd in [
        &b"\x80\x02."[..],
        b"\x80\x02N.",
        b"\x80\x02h\x07.",
        b"\x80\x02r\xff\xff\xff\xff.",
        b"\x80\x02}(K\x01u.",
        b"\x80\x02K\x01K\x02a.",
        b"\x80\x02\x8a\xff.",
        b"\x80\x02X\xff\xff\xff\xff.",
        b"\x80\x02}",
        b"\x80\x02)R.",
        b"\x80\x02K\x01Q.",
    ] {
        refused(&pickled(absurd), &["data.pkl"]);
    }
    // Tuples in tuples, and tuples of remembered tuples, which double with every step.
    let deep = [&b"\x80\x02)"[..], &[0x85].repeat(1 << 20), b"."].concat();
    refused(&pickled(&deep), &["nests"]);
    let mut doubling = b"\x80\x02)".to_vec();
    for place in 0..30_u8 {
        doubling.extend([b'q', place, b'h', place, 0x86]);
    }
    refused(&pickled(&[&doubling[..], b"."].concat()), &["dictionary"]);
}

/// Asks an opened checkpoint everything that reads its tensors.
fn survives(path: &Path) {
    if let Ok(checkpoint) = Checkpoint::open(path) {
        assert!(!checkpoint.tensors().is_empty());
        assert!(checkpoint.memory_estimate(byzerllm_model::Compute::Exact) > 0);
    }
}

#[test]
fn damaged_files_never_panic() {
    let copy = with_bins("mistral-window-bf16", "bin-mistral");
    let weights = copy.path().join("pytorch_model.bin");
    let whole = std::fs::read(&weights).unwrap();
    let places = |name: &[u8]| whole.windows(name.len()).position(|bytes| bytes == name).unwrap();
    let pickle = places(b"data.pkl");
    let directory = places(b"PK\x01\x02");
    // Cut anywhere, the directory at the end is gone.
    for length in (0..whole.len()).step_by(whole.len() / 97).chain(whole.len() - 40..whole.len()) {
        std::fs::write(&weights, &whole[..length]).unwrap();
        assert!(Checkpoint::open(copy.path()).is_err(), "{length}");
    }
    std::fs::write(&weights, &whole).unwrap();
    let flips = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..5);
    let config = ProptestConfig {
        cases: 600,
        rng_seed: RngSeed::Fixed(77),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    TestRunner::new(config)
        .run(&flips, |flips| {
            let mut file = File::options().write(true).open(&weights).unwrap();
            let mut put = |at: usize, value: u8| {
                file.seek(SeekFrom::Start(at as u64)).unwrap();
                file.write_all(&[value]).unwrap();
            };
            let place = |index: &prop::sample::Index, in_pickle: bool| {
                if in_pickle {
                    pickle + index.index(6000)
                } else {
                    directory + index.index(whole.len() - directory)
                }
            };
            for (index, value, in_pickle) in &flips {
                put(place(index, *in_pickle), *value);
            }
            survives(copy.path());
            for (index, _, in_pickle) in &flips {
                let at = place(index, *in_pickle);
                put(at, whole[at]);
            }
            Ok(())
        })
        .unwrap();
    assert!(Checkpoint::open(copy.path()).is_ok());
}
