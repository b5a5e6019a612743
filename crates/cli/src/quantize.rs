//! `byzerllm quantize`: a checkpoint with fewer bits, or in another format, and what that costs in quality.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use byzerllm_core::Error;
use byzerllm_kernels::{ComputePool, PoolOptions};
use byzerllm_model::{
    Checkpoint, Compute, CpuOptions, Importance, OutputFormat, QuantizeOptions, Summary, Tokenizer,
};
use serde::Serialize;

use crate::arguments::{FormatArgument, QuantizeArguments};
use crate::bench::perplexity::{Report as Quality, Subject, measure};
use crate::output::{Failure, Outcome, Output, bytes, table};
use crate::progress::Progress;

/// What was done and found.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    output: String,
    #[serde(rename = "type")]
    kind: String,
    /// Tokens of the calibration text that were computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    calibration_tokens: Option<usize>,
    #[serde(flatten)]
    summary: Summary,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    perplexity: Option<Quality>,
}

/// Writes the checkpoint and reports.
pub(crate) async fn quantize(arguments: QuantizeArguments, output: Output) -> Outcome {
    let path = match crate::models::resolve_model(&arguments.input, &arguments.hub).await? {
        Some(path) => path,
        None => std::path::absolute(&arguments.input)?,
    };
    let working = tokio::task::spawn_blocking(move || work(&path, &arguments, output));
    working.await.map_err(|error| Failure::new(format!("writing failed: {error}"), "Please report this."))?
}

/// The format that is asked for, or that the name of the output says.
fn format_of(arguments: &QuantizeArguments) -> OutputFormat {
    match arguments.format {
        Some(FormatArgument::Gguf) => OutputFormat::Gguf,
        Some(FormatArgument::Safetensors) => OutputFormat::Safetensors,
        None if arguments.output.extension().is_some_and(|extension| extension == "gguf") => {
            OutputFormat::Gguf
        }
        None => OutputFormat::Safetensors,
    }
}

fn work(path: &Path, arguments: &QuantizeArguments, output: Output) -> Outcome {
    let started = std::time::Instant::now();
    let checkpoint = Checkpoint::open(path).map_err(Error::from)?;
    let threads = arguments.threads.map(usize::from);
    let pool = Arc::new(ComputePool::new(PoolOptions { threads, pin: true, ..PoolOptions::default() })?);
    let to = std::path::absolute(&arguments.output)?;
    if to.exists() && !arguments.force {
        return Err(Failure::new(
            format!("'{}' exists already", to.display()),
            "Choose another place, or overwrite it with --force.",
        ));
    }
    let importance = match &arguments.calibration {
        Some(file) => Some(calibrate(&checkpoint, file, arguments, &pool)?),
        None => None,
    };
    let bar = Progress::new(format!("writing {}", to.display()));
    let options = QuantizeOptions {
        format: format_of(arguments),
        kind: arguments.kind,
        importance: importance.as_ref(),
        overwrite: arguments.force,
        requantize: arguments.requantize,
    };
    let written = checkpoint.quantize(&to, &options, &pool, &|share| bar.share(share));
    bar.clear();
    let summary = written.map_err(Error::from)?;
    let seconds = started.elapsed().as_secs_f64();
    drop(pool);
    let perplexity = match arguments.perplexity.is_empty() {
        true => None,
        false => Some(compare(path, &to, arguments, threads, output)?),
    };
    let report = Report {
        model: path.display().to_string(),
        output: to.display().to_string(),
        kind: arguments.kind.to_string(),
        calibration_tokens: importance.map(|importance| importance.tokens),
        summary,
        seconds,
        perplexity,
    };
    if arguments.json {
        return output.json(&report);
    }
    report.lines().into_iter().try_for_each(|line| output.line(line))
}

/// The weights of columns, from a text in windows.
fn calibrate(
    checkpoint: &Checkpoint,
    file: &PathBuf,
    arguments: &QuantizeArguments,
    pool: &Arc<ComputePool>,
) -> Outcome<Importance> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::new(format!("{} could not be read: {error}", file.display()), "Give a UTF-8 text file.")
    })?;
    let tokenizer: Tokenizer = checkpoint.tokenizer().map_err(Error::from)?;
    let mut tokens = tokenizer.encode_plain(&text).map_err(Error::from)?;
    tokens.truncate(arguments.calibration_tokens as usize);
    let windows: Vec<Vec<u32>> = tokens.chunks(arguments.context as usize).map(<[u32]>::to_vec).collect();
    if windows.is_empty() {
        let hint = "Give a text that is like what the model will read.";
        return Err(Failure::new(format!("{} is empty", file.display()), hint));
    }
    let bar = Progress::new(format!("calibrating on {} tokens", tokens.len()));
    let found = checkpoint.calibrate(&windows, pool, &|share| bar.share(share));
    bar.clear();
    Ok(found.map_err(Error::from)?)
}

/// The original in exact mode beside what was written, exact and as it is served.
fn compare(
    path: &Path,
    written: &Path,
    arguments: &QuantizeArguments,
    threads: Option<usize>,
    output: Output,
) -> Outcome<Quality> {
    let subject = |label: &str, path: &Path, compute| Subject {
        label: label.to_owned(),
        path: path.to_owned(),
        options: CpuOptions::new(compute),
    };
    let subjects = [
        subject("before, exact", path, Compute::Exact),
        subject("after, exact", written, Compute::Exact),
        subject("after, standard", written, Compute::Standard),
    ];
    measure(&subjects, &arguments.perplexity, arguments.context as usize, threads, output)
}

impl Report {
    fn lines(&self) -> Vec<String> {
        let summary = &self.summary;
        let kinds: Vec<String> =
            summary.tensors.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let mut rows = vec![
            vec!["written".to_owned(), self.output.clone()],
            vec!["tensors".to_owned(), kinds.join(", ")],
            vec![
                "size".to_owned(),
                format!("{} from {}", bytes(summary.bytes_after), bytes(summary.bytes_before)),
            ],
            vec!["bits per weight".to_owned(), format!("{:.2}", summary.bits_per_weight)],
            vec!["seconds".to_owned(), format!("{:.1}", self.seconds)],
        ];
        if let Some(tokens) = self.calibration_tokens {
            rows.push(vec!["calibrated on".to_owned(), format!("{tokens} tokens")]);
        }
        let mut lines = table(&rows);
        if let Some(perplexity) = &self.perplexity {
            lines.push(String::new());
            lines.extend(perplexity.lines());
        }
        lines
    }
}
