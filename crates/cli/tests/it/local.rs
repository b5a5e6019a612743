//! A path runs in this process, without a server.

use serde_json::Value;

use crate::harness::{World, fixture};

#[test]
fn generate_streams_the_same_text_that_json_holds() {
    let world = World::new();
    let model = fixture("llama-tied-f32");
    let base =
        ["generate", "--model", &model, "--prompt", "hello", "--temperature", "0", "--max-tokens", "8"];
    let text = world.run(&base).ok();
    let json: Value = serde_json::from_str(&world.run(&[&base[..], &["--json"]].concat()).ok()).unwrap();
    let whole = json["choices"][0]["text"].as_str().unwrap();
    assert_eq!(text.trim_end_matches('\n'), whole.trim_end_matches('\n'));
    assert!(json["usage"]["completion_tokens"].as_u64().unwrap() <= 8);
    let raw: Value =
        serde_json::from_str(&world.run(&[&base[..], &["--raw", "--json"]].concat()).ok()).unwrap();
    let tokens = |answer: &Value| answer["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(tokens(&raw) < tokens(&json), "the chat template adds tokens");
}

#[test]
fn a_prompt_can_come_from_standard_input() {
    let world = World::new();
    let model = fixture("llama-tied-f32");
    let options = ["--temperature", "0", "--max-tokens", "4", "--model", &model, "--prompt"];
    let typed = world.run(&[&["generate"][..], &options, &["hello"]].concat()).ok();
    let piped = world.run_with(&[&["generate"][..], &options, &["-"]].concat(), "hello").ok();
    assert_eq!(typed, piped);
}

#[test]
fn inspect_tells_what_a_checkpoint_is() {
    let world = World::new();
    let model = fixture("llama-tied-f32");
    let text = world.run(&["inspect", &model]).ok();
    for word in
        ["LlamaForCausalLM", "F32", "generation defaults", "from the front end", "chat template", "fits"]
    {
        assert!(text.contains(word), "{word} is missing in:\n{text}");
    }
    assert!(world.run(&["inspect", &model, "--tensors"]).ok().contains("model.embed_tokens.weight"));
    let json: Value = serde_json::from_str(&world.run(&["inspect", &model, "--json"]).ok()).unwrap();
    assert!(json["memory"]["weight_bytes"].as_u64().unwrap() > 0);
    let details = &json["info"]["details"];
    assert_eq!((&details["compute_mode"], &details["cache_type"]), (&"standard".into(), &"f16".into()));
    assert_eq!(details["weights"]["F32"], "8-bit codes, f32 scale per 32", "{details}");
    let isa = details["instruction_set"].as_str().unwrap();
    for words in [&["compute_mode", "standard"][..], &["instruction_set", isa], &["cache_type", "f16"]] {
        assert!(
            text.lines().any(|line| line.split_whitespace().eq(words.iter().copied())),
            "{words:?} in:\n{text}"
        );
    }
    assert!(
        json["tensors"]
            .as_array()
            .unwrap()
            .iter()
            .any(|tensor| tensor["name"] == "model.embed_tokens.weight")
    );
}

#[test]
fn bench_reports_what_scripts_read() {
    let world = World::new();
    let model = fixture("llama-tied-f32");
    let arguments = [
        "bench",
        "--model",
        &model,
        "--prompt-tokens",
        "16",
        "--decode-tokens",
        "8",
        "--decode-prompt-tokens",
        "4",
        "--streams",
        "1,4",
        "--repeat",
        "2",
        "--threads",
        "1",
        "--compute",
        "exact",
        "--stages",
    ];
    let table = world.run(&arguments).ok();
    for word in ["ROOFLINE", "ceilings", "ARITHMETIC", "STAGE (ms per step)", "gate and up", "sampling"] {
        assert!(table.contains(word), "{word} is missing in:\n{table}");
    }
    let text = world.run(&[&arguments[..], &["--json"]].concat()).ok();
    let report: Value = serde_json::from_str(&text).unwrap();
    check_roofline(&report);
    check_stages(&report);
    for key in ["prefill_tokens_per_second", "time_to_first_token_ms", "peak_memory_bytes"] {
        assert!(report[key].as_f64().unwrap() > 0.0, "{key} in {report}");
    }
    let decode = report["decode"].as_array().unwrap();
    assert_eq!(decode.iter().map(|entry| entry["streams"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 4]);
    assert!(decode.iter().all(|entry| entry["tokens_per_second"].as_f64().unwrap() > 0.0), "{report}");
    assert_eq!(report["compute"], "exact", "{report}");
    assert_eq!((&report["threads"], &report["prompt_tokens"]), (&Value::from(1), &Value::from(16)));
    assert!(report["machine"]["cores"].as_u64().unwrap() >= 1 && report["version"].is_string());
}

/// Percentages follow from the ceilings, the work per token and the speed.
fn check_roofline(report: &Value) {
    let number = |value: &Value, key: &str| value[key].as_f64().unwrap();
    let ceilings = &report["roofline"]["ceilings"];
    let rows = report["roofline"]["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["prefill", "decode, 1 at once", "decode, 4 at once"]);
    for row in rows {
        let speed = number(row, "tokens_per_second");
        let memory = number(row, "bytes_per_token") / number(ceilings, "read_bytes_per_second");
        assert_eq!(number(row, "int8_operations_per_token"), 0.0, "the exact mode computes with floats");
        let arithmetic =
            number(row, "f32_operations_per_token") / number(ceilings, "f32_operations_per_second");
        for (key, seconds) in [("memory_percent", memory), ("arithmetic_percent", arithmetic)] {
            assert!((number(row, key) / (100.0 * seconds * speed) - 1.0).abs() < 1e-6, "{key} in {row}");
        }
        assert_eq!(row["limit"], if memory >= arithmetic { "memory" } else { "arithmetic" }, "{row}");
        assert_eq!(
            number(row, "percent"),
            number(row, "memory_percent").max(number(row, "arithmetic_percent"))
        );
    }
    // Four streams read the weights once for all of them.
    assert!(number(&rows[2], "bytes_per_token") < 0.5 * number(&rows[1], "bytes_per_token"), "{report}");
}

/// Every stage of a dense decoder is there, and the shares are those of a whole.
fn check_stages(report: &Value) {
    let tables = report["stages"].as_array().unwrap();
    assert_eq!(tables.len(), 3, "{report}");
    for table in tables {
        let stages = table["stages"].as_array().unwrap();
        let names: Vec<&str> = stages.iter().map(|stage| stage["stage"].as_str().unwrap()).collect();
        let expected = [
            "planning",
            "embedding",
            "norms",
            "qkv",
            "rope and cache",
            "attention",
            "output",
            // The activation is made with gate and up.
            "gate and up",
            "down",
            "head",
            "sampling",
        ];
        assert_eq!(names, expected, "{table}");
        let sum = |key: &str| stages.iter().map(|stage| stage[key].as_f64().unwrap()).sum::<f64>();
        assert!((sum("percent") - 100.0).abs() < 1e-6, "{table}");
        let whole = table["milliseconds_per_step"].as_f64().unwrap();
        assert!((sum("milliseconds_per_step") / whole - 1.0).abs() < 1e-6, "{table}");
    }
    // Two repeats of one prompt; eight tokens of each stream, the first of which comes from its prompt.
    assert_eq!(tables[0]["steps"], 2, "{report}");
    assert!(tables[1]["steps"].as_u64().unwrap() >= 2 * 7, "{report}");
}

#[test]
fn bench_measures_the_quality_of_each_mode() {
    let world = World::new();
    let model = fixture("llama-tied-f32");
    let file = world.path("text.txt");
    let text = file.to_str().unwrap();
    std::fs::write(&file, "The hare ran over the hill, and hello to the world. ".repeat(40)).unwrap();
    let base = ["bench", "--model", &model, "--perplexity", text, "--context", "16", "--threads", "2"];
    let report: Value = serde_json::from_str(&world.run(&[&base[..], &["--json"]].concat()).ok()).unwrap();
    let windows = report["files"][0]["text_tokens"].as_u64().unwrap() / 16;
    assert_eq!(report["files"][0]["windows"], windows, "{report}");
    // The second half of a window less its last row, after which nothing is known.
    assert_eq!(report["tokens"], windows * 7, "{report}");
    let modes = report["modes"].as_array().unwrap();
    let names: Vec<&str> = modes.iter().map(|mode| mode["compute"].as_str().unwrap()).collect();
    assert_eq!(names, ["exact", "standard", "fast"]);
    let value = |mode: usize, key: &str| modes[mode][key].as_f64().unwrap();
    assert_eq!((value(0, "divergence"), value(0, "greedy_agreement")), (0.0, 1.0));
    assert!(value(1, "divergence") > 0.0 && value(1, "divergence") < 0.01, "{report}");
    for mode in 0..3 {
        assert!((value(mode, "loss").exp() / value(mode, "perplexity") - 1.0).abs() < 1e-9, "{report}");
        assert!((value(mode, "relative_perplexity") - 1.0).abs() < 0.05, "{report}");
    }
    // Random weights foretell nothing: about as many candidates as the vocabulary has tokens.
    assert!(value(0, "perplexity") > 50.0, "{report}");
    let table = world.run(&[&base[..], &["--compute", "fast"]].concat()).ok();
    assert!(table.contains("exact") && table.contains("fast") && !table.contains("standard"), "{table}");
    assert_eq!(world.run(&[&base[..], &["--streams", "2"]].concat()).code, 2);
    let long = world.run(&["bench", "--model", &model, "--perplexity", text, "--context", "100000"]);
    assert!(long.code == 1 && long.err.contains("--context"), "{long:?}");
}

#[test]
fn doctor_finds_an_open_state_directory() {
    let world = World::new();
    let state = world.path("open");
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let state = state.to_str().unwrap();
    let done = world.run(&["doctor", "--port", "0", "--state", state]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.out.contains("open to other users") && done.out.contains("fix: Run `chmod 700"), "{done:?}");
    let json = world.run(&["doctor", "--port", "0", "--json"]).ok();
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["ok"], true, "{report}");
    assert!(report["checks"].as_array().unwrap().len() >= 7);
}
