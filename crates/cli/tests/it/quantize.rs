//! `quantize` writes what other commands read.

use serde_json::Value;

use crate::harness::{World, fixture};

#[test]
fn a_directory_becomes_a_file_with_a_report_of_its_quality() {
    let world = World::new();
    let place = tempfile::tempdir().unwrap();
    let (out, text) = (place.path().join("model.gguf"), place.path().join("text.txt"));
    std::fs::write(&text, "The quick brown fox jumps over the lazy dog. ".repeat(40)).unwrap();
    let (out, text) = (out.to_str().unwrap(), text.to_str().unwrap());
    let model = fixture("llama-tied-f32");
    let base = ["quantize", &model, out, "--type", "q8_0"];
    let more = ["--calibration", text, "--perplexity", text, "--context", "32", "--json"];
    let report: Value = serde_json::from_str(&world.run(&[&base[..], &more].concat()).ok()).unwrap();
    assert_eq!(report["type"], "q8_0");
    assert!(report["bytes_after"].as_u64() < report["bytes_before"].as_u64(), "{report}");
    assert!(report["calibration_tokens"].as_u64().unwrap() > 32, "{report}");
    let modes = report["perplexity"]["modes"].as_array().unwrap();
    let names: Vec<&str> = modes.iter().map(|mode| mode["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["before, exact", "after, exact", "after, standard"]);
    for mode in modes {
        assert!(mode["relative_perplexity"].as_f64().unwrap() < 1.1, "{mode}");
    }
    assert!(world.run(&["inspect", out]).ok().contains("Q8_0"));
    let again = world.run(&base);
    assert!(again.code != 0 && again.err.contains("--force"), "{}", again.err);
    assert!(world.run(&[&base[..], &["--force"]].concat()).ok().contains("bits per weight"));
}

#[test]
fn wrong_words_are_named() {
    let world = World::new();
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("model.gguf");
    let out = out.to_str().unwrap();
    let model = fixture("llama-tied-f32");
    for (kind, words) in [("q3_k", "q4_k"), ("gptq4", "q8_0")] {
        let answer = world.run(&["quantize", &model, out, "--type", kind]);
        assert!(answer.code != 0 && answer.err.contains(words), "{kind}: {}", answer.err);
    }
    let answer = world.run(&["generate", "--model", &model, "--prompt", "a", "--quantization", "5"]);
    assert!(answer.code != 0 && answer.err.contains("use 4, 8"), "{}", answer.err);
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}
