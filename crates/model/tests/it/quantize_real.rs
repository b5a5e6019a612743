//! Real weights: SmolLM2 becomes floats in a directory, and from there files of every kind that other programs read.
//!
//! `BYZERLLM_TEST_MODELS` names the directory with `smollm2.gguf`; `BYZERLLM_LLAMA_PERPLEXITY` llama.cpp's program, which
//! then reads what was written. Without them the tests say that they are skipped.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use byzerllm_kernels::{ComputePool, PoolOptions};
use byzerllm_model::{Checkpoint, Compute, OutputFormat, QuantizeOptions};

use crate::support::{Runner, Setup};

fn smollm2() -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("BYZERLLM_TEST_MODELS")?).join("smollm2.gguf");
    path.is_file().then_some(path)
}

/// Perplexity of the second half of each window.
fn perplexity(path: &Path, windows: &[Vec<u32>], compute: Compute) -> f64 {
    let checkpoint = Checkpoint::open(path).unwrap();
    let (mut loss, mut count) = (0.0, 0);
    let length = windows[0].len();
    let mut runner = Runner::new(&checkpoint, Setup { compute, length, ..Setup::EXACT });
    for window in windows {
        let rows = runner.step(&[(0, 0, window)]);
        for place in length / 2..length - 1 {
            let row = &rows[place];
            let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = row.iter().map(|logit| f64::from(logit - most).exp()).sum();
            loss += sum.ln() - f64::from(row[window[place + 1] as usize] - most);
            count += 1;
        }
    }
    (loss / f64::from(count)).exp()
}

#[test]
fn smollm2_is_written_in_every_format_and_stays_the_same_model() {
    let Some(model) = smollm2() else {
        println!("skipped: BYZERLLM_TEST_MODELS does not name a directory with smollm2.gguf");
        return;
    };
    let pool =
        Arc::new(ComputePool::new(PoolOptions { threads: Some(2), ..PoolOptions::default() }).unwrap());
    let place = tempfile::tempdir().unwrap();
    let write = |from: &Path, name: &str, format: OutputFormat, kind: &str| {
        let to = place.path().join(name);
        let kind = kind.parse().unwrap();
        let options = QuantizeOptions { format, kind, importance: None, overwrite: false, requantize: false };
        let summary = Checkpoint::open(from).unwrap().quantize(&to, &options, &pool, &|_| {}).unwrap();
        (to, summary)
    };
    let (floats, _) = write(&model, "floats", OutputFormat::Safetensors, "bf16");
    let text = include_str!("../../../../ARCHITECTURE.md");
    let tokenizer = Checkpoint::open(&floats).unwrap().tokenizer().unwrap();
    let ids = tokenizer.encode(text, false).unwrap();
    let own = Checkpoint::open(&model).unwrap().tokenizer().unwrap();
    assert_eq!(ids, own.encode(text, false).unwrap(), "the tokenizer is the same");
    let windows: Vec<Vec<u32>> = ids.chunks_exact(256).take(4).map(<[u32]>::to_vec).collect();
    let before = perplexity(&floats, &windows, Compute::Exact);
    let original = perplexity(&model, &windows, Compute::Exact);
    println!("tokens scored: {}", windows.len() * 127);
    println!("file {original:.3}, bf16 {before:.3}");
    assert!((before / original - 1.0).abs() < 0.02, "{before} against {original}");
    for (kind, most) in [("q8_0", 1.01), ("q6_k", 1.02), ("q4_k", 1.10), ("q4_0", 1.25)] {
        let (path, summary) = write(&floats, &format!("{kind}.gguf"), OutputFormat::Gguf, kind);
        let found = perplexity(&path, &windows, Compute::Exact);
        let relative = found / before;
        let bits = summary.bits_per_weight;
        println!(
            "{kind}: {found:.3} ({:+.2} %), {bits:.2} bits, {} bytes",
            (relative - 1.0) * 100.0,
            summary.bytes_after
        );
        assert!(relative < most, "{kind}: {relative}");
        if let Some(program) = std::env::var_os("BYZERLLM_LLAMA_PERPLEXITY") {
            let input = place.path().join("text.txt");
            std::fs::write(&input, text).unwrap();
            let mut command = Command::new(program);
            command.args(["-t", "2", "-c", "256", "-b", "256", "--chunks", "4", "-m"]).arg(&path);
            let output = command.arg("-f").arg(&input).output().unwrap();
            let log = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            let line =
                log.lines().find(|line| line.contains("Final estimate")).unwrap_or_else(|| panic!("{log}"));
            println!("{kind} by llama.cpp: {line}");
            let value: f64 =
                line.split("PPL = ").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
            assert!((value / found - 1.0).abs() < 0.03, "{kind}: llama.cpp {value}, here {found}");
        }
    }
}
