//! What a checkpoint says of itself, in both formats.

use std::sync::Arc;

use byzerllm_core::{ErrorKind, Message, Role};
use byzerllm_kernels::{ComputePool, PoolOptions, RopeKind};
use byzerllm_model::config::{NormKind, PositionEncoding, Residual};
use byzerllm_model::rope::{RopeConfig, RopeScaling};
use byzerllm_model::{Checkpoint, CheckpointFormat, Compute, CpuOptions, supported_architectures};
use serde_json::{Value, json};

use crate::support::{DIRECTORIES, Fixture, GGUF_FILES, copy_of, fixtures, gguf_path};

fn directory(name: &str) -> Checkpoint {
    Checkpoint::open(&fixtures().join(name)).unwrap()
}

fn gguf(stem: &str) -> Checkpoint {
    Checkpoint::open(&gguf_path(stem)).unwrap()
}

fn rope(checkpoint: &Checkpoint) -> &RopeConfig {
    match &checkpoint.config().layers[0].attention.position {
        PositionEncoding::Rope(rope) => rope,
        other => panic!("{other:?}"),
    }
}

#[test]
fn families_go_by_their_class_names() {
    for fixture in DIRECTORIES {
        let checkpoint = directory(fixture);
        let config = std::fs::read(fixtures().join(fixture).join("config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(Some(checkpoint.architecture()), config["architectures"][0].as_str(), "{fixture}");
        assert_eq!(checkpoint.format(), CheckpointFormat::HuggingFace);
    }
    let classes = [
        ("llama-", "LlamaForCausalLM"),
        ("qwen2-", "Qwen2ForCausalLM"),
        ("qwen-", "QWenLMHeadModel"),
        ("baichuan", "BaichuanForCausalLM"),
    ];
    for stem in GGUF_FILES {
        let checkpoint = gguf(stem);
        let class = checkpoint.architecture();
        assert!(supported_architectures().contains(&class), "{stem}");
        if let Some((_, expected)) = classes.iter().find(|(start, _)| stem.starts_with(start)) {
            assert_eq!(class, *expected, "{stem}");
        }
        assert_eq!(
            checkpoint.format(),
            CheckpointFormat::Gguf { version: if stem.ends_with("v2") { 2 } else { 3 } }
        );
        assert_eq!(checkpoint.path(), gguf_path(stem));
    }
}

#[test]
fn both_formats_of_a_model_have_one_configuration() {
    let from_directory = directory("llama-sharded-bf16");
    let from_file = gguf("llama-q8_0");
    let mut expected = from_directory.config().clone();
    for layer in &mut expected.layers {
        let PositionEncoding::Rope(rope) = &mut layer.attention.position else { panic!() };
        // The converter reorders the rows of queries and keys.
        rope.kind = RopeKind::Interleaved;
    }
    assert_eq!(*from_file.config(), expected);
    assert_eq!(*gguf("qwen2-mixed").config(), *directory("qwen2-bf16").config());
}

#[test]
fn rope_scaling_is_read_in_every_spelling() {
    assert_eq!(rope(&directory("llama-tied-f32")).scaling, RopeScaling::Linear { factor: 2.0 });
    assert_eq!(
        rope(&directory("llama-llama3-f16")).scaling,
        RopeScaling::Llama3 {
            factor: 8.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_context: 32.0
        }
    );
    let converted = gguf("llama-f16");
    let RopeScaling::Divisors { divisors, .. } = &rope(&converted).scaling else { panic!() };
    assert_eq!(divisors.len(), 24);
    let yarn = directory("llama-yarn-bf16");
    assert!(matches!(rope(&yarn).scaling, RopeScaling::Yarn { factor: 4.0, original_context: 64.0, .. }));
    assert_eq!(yarn.config().context_length, 256);
}

#[test]
fn rope_frequencies_are_those_of_transformers() {
    #[derive(serde::Deserialize)]
    struct Case {
        rope: Value,
        context: usize,
        head_dim: usize,
        factor: f32,
        frequencies: Vec<f32>,
    }
    let cases: Vec<Case> =
        serde_json::from_slice(&std::fs::read(fixtures().join("rope.json")).unwrap()).unwrap();
    assert_eq!(cases.len(), 6);
    for case in cases {
        let copy = copy_of("llama-yarn-bf16");
        edit(copy.path(), |config| {
            config.insert("rope_parameters".into(), case.rope.clone());
            config.insert("max_position_embeddings".into(), case.context.into());
        });
        let checkpoint = Checkpoint::open(copy.path()).unwrap();
        let (frequencies, factor) =
            RopeConfig { rotary_dim: case.head_dim, ..rope(&checkpoint).clone() }.frequencies();
        assert!((factor - case.factor).abs() < 1e-6, "{}: {factor}", case.rope);
        assert_eq!(frequencies.len(), case.frequencies.len());
        for (found, expected) in frequencies.iter().zip(&case.frequencies) {
            assert!((found - expected).abs() <= 1e-6 * expected.abs(), "{}: {found} {expected}", case.rope);
        }
    }
}

/// Changes `config.json` of a copy.
fn edit(directory: &std::path::Path, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let path = directory.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(config.as_object_mut().unwrap());
    std::fs::write(&path, serde_json::to_vec(&config).unwrap()).unwrap();
}

#[test]
fn dynamic_scaling_ends_where_it_would_begin() {
    let copy = copy_of("llama-yarn-bf16");
    edit(copy.path(), |config| {
        config.insert("rope_scaling".into(), serde_json::json!({"type": "dynamic", "factor": 2.0}));
        config.insert("rope_theta".into(), 5000.0.into());
    });
    let checkpoint = Checkpoint::open(copy.path()).unwrap();
    assert_eq!((rope(&checkpoint).base, &rope(&checkpoint).scaling), (5000.0, &RopeScaling::None));
    assert_eq!(checkpoint.config().context_length, 256);
}

#[test]
fn windows_are_per_layer() {
    let windows = |name: &str| -> Vec<Option<usize>> {
        directory(name).config().layers.iter().map(|layer| layer.attention.window).collect()
    };
    assert_eq!(windows("mistral-window-bf16"), [Some(8), Some(8)]);
    assert_eq!(windows("qwen2-tied-f16"), [None, None, Some(16)]);
    assert_eq!(directory("qwen2-tied-f16").config().cache_groups().len(), 2);
    // `sliding_window` has a value there, but `use_sliding_window` is false.
    assert_eq!(windows("qwen2-bf16"), [None, None]);
}

#[test]
fn other_families_differ_where_they_should() {
    let neox = directory("gpt-neox-f16");
    let layer = &neox.config().layers[0];
    assert_eq!(
        (layer.residual, layer.norm.kind, layer.mlp.gated),
        (Residual::Parallel, NormKind::Layer, false)
    );
    assert_eq!(rope(&neox).rotary_dim, 4);
    assert_eq!(directory("gpt-neox-serial-bf16").config().layers[0].residual, Residual::Serial);
    let falcon = directory("falcon-alibi-bf16");
    let attention = &falcon.config().layers[0].attention;
    let slopes = [0.25, 0.0625, 0.015_625, 0.003_906_25, 0.5, 0.125].map(|slope| slope * 0.25);
    assert_eq!(attention.position, PositionEncoding::Alibi(slopes.to_vec()));
    let kv_heads = |name: &str| directory(name).config().layers[0].attention.kv_heads;
    assert_eq!(kv_heads("falcon-multi-query-f16"), 1);
    assert_eq!(kv_heads("falcon-rope-gqa-bf16"), 2);
}

#[test]
fn end_tokens_come_from_every_file_once() {
    let checkpoint = directory("llama-sharded-bf16");
    assert_eq!(checkpoint.generation_defaults().eos_token_ids, [2, 0]);
    assert_eq!(checkpoint.generation_defaults().bos_token_id, Some(1));
    assert_eq!(checkpoint.end_tokens(), [2, 0]);
    assert_eq!(gguf("llama-q4_0").end_tokens(), [2]);

    let copy = copy_of("qwen2-bf16");
    std::fs::remove_file(copy.path().join("generation_config.json")).unwrap();
    edit(copy.path(), |config| {
        config.insert("eos_token_id".into(), serde_json::json!([7, -1]));
    });
    // 2 is what `tokenizer_config.json` calls the end.
    assert_eq!(Checkpoint::open(copy.path()).unwrap().end_tokens(), [7, 2]);
}

#[test]
fn generation_defaults_are_read() {
    let copy = copy_of("qwen2-bf16");
    let text = r#"{"do_sample": true, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0.1}"#;
    std::fs::write(copy.path().join("generation_config.json"), text).unwrap();
    let checkpoint = Checkpoint::open(copy.path()).unwrap();
    let sampling = &checkpoint.generation_defaults().sampling;
    assert_eq!((sampling.temperature, sampling.top_p), (Some(0.7), Some(0.8)));
    assert_eq!((sampling.top_k, sampling.min_p), (Some(20), Some(0.1)));
}

#[test]
fn listings_show_tensors_and_metadata() {
    let checkpoint = gguf("llama-q4_0");
    let tensors = checkpoint.tensors();
    let embedding = tensors.iter().find(|tensor| tensor.name == "token_embd.weight").unwrap();
    assert_eq!(
        (embedding.kind, &embedding.shape[..], embedding.bytes),
        ("Q4_0", &[300, 64][..], 300 * 2 * 18)
    );
    let metadata = checkpoint.metadata();
    let value = |key: &str| &metadata.iter().find(|(name, _)| name == key).unwrap().1;
    assert_eq!(value("llama.block_count"), "3");
    assert_eq!(value("general.languages"), "[2 values]");
    assert_eq!(value("tokenizer.ggml.tokens"), "[300 values]");
    assert!(value("tokenizer.chat_template").chars().count() <= 81);
    assert_eq!(checkpoint.languages(), Some(vec!["en".into(), "zh".into()]));

    let checkpoint = directory("llama-sharded-bf16");
    assert_eq!(checkpoint.languages(), None);
    assert_eq!(checkpoint.tensors().len(), 30);
    assert!(checkpoint.tensors().iter().all(|tensor| tensor.kind == "BF16"));
    assert!(checkpoint.metadata().contains(&("hidden_size".into(), "64".into())));
}

#[test]
fn the_memory_estimate_is_what_packing_takes() {
    let pool =
        Arc::new(ComputePool::new(PoolOptions { threads: Some(1), ..PoolOptions::default() }).unwrap());
    for Fixture { name, checkpoint, .. } in Fixture::all() {
        for compute in Compute::ALL {
            let network = checkpoint.network(&pool, &CpuOptions::new(compute)).unwrap();
            let estimate = checkpoint.memory_estimate(compute);
            assert_eq!(network.traits().weight_bytes, estimate, "{name} {compute}");
            assert_eq!(checkpoint.info(compute).weight_bytes, estimate);
        }
    }
}

#[test]
fn info_names_what_matters() {
    let info = gguf("qwen2-mixed").info(Compute::Exact);
    assert_eq!(info.architectures, ["Qwen2ForCausalLM"]);
    assert_eq!(
        (info.engine.as_str(), info.context_length, info.chat_template),
        ("byzerllm", Some(256), true)
    );
    assert_eq!(info.details["kv_heads"], 2);
    assert_eq!(info.details["tensor_types"]["Q5_0"], 3);
}

#[test]
fn both_formats_have_the_same_tokenizer_and_template() {
    let from_directory = directory("llama-sharded-bf16");
    let from_file = gguf("llama-q4_1");
    let text = "<|im_start|>user\nthe capital of France, 今天天气 🙂   x = 1<|im_end|>\n";
    let ids = from_directory.tokenizer().unwrap().encode(text, false).unwrap();
    assert_eq!(ids[0], 1);
    assert!(ids.len() < text.len());
    let tokenizer = from_file.tokenizer().unwrap();
    assert_eq!(tokenizer.encode(text, false).unwrap(), ids);
    assert_eq!(tokenizer.decode(&ids, false), text);
    for checkpoint in [from_directory, from_file] {
        let messages = [Message::new(Role::User, "hello")];
        let template = checkpoint.chat_template().unwrap().unwrap();
        let rendered = template.render(&messages, None, true).unwrap();
        assert_eq!(rendered, "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n");
    }
}

#[test]
fn requests_with_tools_use_the_template_for_them() {
    let messages = [Message::new(Role::User, "hello")];
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let both = |copy: &std::path::Path| {
        let template = Checkpoint::open(copy).unwrap().chat_template().unwrap().unwrap();
        let render = |tools| template.render(&messages, tools, true).unwrap();
        assert_eq!(template.source_for(false), template.source());
        (render(None), render(Some(&tools)), template.source_for(true).to_owned())
    };
    // Of a list of named templates.
    let copy = copy_of("qwen2-bf16");
    let path = copy.path().join("tokenizer_config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["chat_template"] = json!([
        {"name": "tool_use", "template": "tools {{ tools[0].function.name }}"},
        {"name": "default", "template": "plain {{ messages[0].content }}{{ tools }}"}
    ]);
    std::fs::write(&path, config.to_string()).unwrap();
    let (plain, with_tools, source) = both(copy.path());
    assert_eq!((plain.as_str(), with_tools.as_str()), ("plain helloNone", "tools f"));
    assert!(source.starts_with("tools"));
    // In files.
    let copy = copy_of("qwen2-bf16");
    std::fs::write(copy.path().join("chat_template.jinja"), "plain").unwrap();
    std::fs::create_dir(copy.path().join("additional_chat_templates")).unwrap();
    std::fs::write(copy.path().join("additional_chat_templates/tool_use.jinja"), "tools").unwrap();
    assert_eq!(both(copy.path()), ("plain".to_owned(), "tools".to_owned(), "tools".to_owned()));
    // Where there is one template, it serves both.
    std::fs::remove_file(copy.path().join("additional_chat_templates/tool_use.jinja")).unwrap();
    assert_eq!(both(copy.path()), ("plain".to_owned(), "plain".to_owned(), "plain".to_owned()));
}

#[test]
fn a_template_file_comes_before_the_tokenizers_template() {
    let copy = copy_of("qwen2-bf16");
    std::fs::write(copy.path().join("chat_template.jinja"), "{{ bos_token }}{{ messages[0].content }}")
        .unwrap();
    let template = Checkpoint::open(copy.path()).unwrap().chat_template().unwrap().unwrap();
    assert_eq!(
        template.render(&[Message::new(Role::User, "hello")], None, true).unwrap(),
        "<|im_start|>hello"
    );

    std::fs::write(copy.path().join("chat_template.jinja"), "{% if %}").unwrap();
    let error = Checkpoint::open(copy.path()).unwrap().chat_template().unwrap_err();
    assert!(error.to_string().contains("chat_template.jinja"), "{error}");
}

#[test]
fn errors_keep_their_kind_across_the_border() {
    let missing = Checkpoint::open(&fixtures().join("no-such-model")).unwrap_err();
    let error = byzerllm_core::Error::from(missing);
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("no-such-model"));
    let copy = copy_of("qwen2-bf16");
    edit(copy.path(), |config| {
        config.insert("architectures".into(), serde_json::json!(["WhisperForConditionalGeneration"]));
    });
    let error = byzerllm_core::Error::from(Checkpoint::open(copy.path()).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("architectures") && error.message().contains("LlamaForCausalLM"));
}
