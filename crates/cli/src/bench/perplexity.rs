//! The quality of each compute mode on given texts: perplexity, and distance from the exact mode.
//!
//! A text is cut into windows of the context's length, and what is left over is dropped. In each window the tokens
//! of the second half are scored, so that each has at least half a window before it. All modes step through a
//! window together: their rows are compared at once and none has to be kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use byzerllm_core::{Error, ErrorKind};
use byzerllm_kernels::{ComputePool, Mask, PoolOptions};
use byzerllm_model::{
    Checkpoint, Compute, CpuOptions, Network, Output as Wanted, PackedBatch, Quantization, SequenceInput,
    Tokenizer,
};
use serde::Serialize;

use super::likeness::{Likeness, Reference};
use crate::arguments::BenchArguments;
use crate::machine::Machine;
use crate::output::{Failure, Outcome, Output, table};
use crate::version::VERSION;

/// Rows computed at once: large enough for the kernels, small enough that a row for each mode fits into memory.
const STEP: usize = 128;

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    model: String,
    /// Tokens per window.
    context: usize,
    /// Tokens scored, over all files.
    tokens: usize,
    files: Vec<File>,
    modes: Vec<Mode>,
    machine: Machine,
    version: &'static str,
}

/// A text.
#[derive(Debug, Serialize)]
struct File {
    name: String,
    bytes: usize,
    /// All its tokens.
    text_tokens: usize,
    windows: usize,
    /// Those scored.
    tokens: usize,
}

/// A compute mode over all texts.
#[derive(Debug, Serialize)]
struct Mode {
    /// What it is of several checkpoints or quantizations.
    name: String,
    compute: Compute,
    #[serde(skip_serializing_if = "Option::is_none")]
    quantization: Option<Quantization>,
    /// The number formats and instructions that were used.
    kernels: String,
    #[serde(flatten)]
    score: Score,
    /// Perplexity over that of the exact mode.
    relative_perplexity: f64,
    files: Vec<Score>,
    /// Time in the network alone.
    forward_seconds: f64,
}

/// What was found of a mode on one text, or on all.
#[derive(Debug, Clone, Serialize)]
struct Score {
    /// Mean negative logarithm of a token's probability.
    loss: f64,
    perplexity: f64,
    /// Mean Kullback-Leibler divergence from the exact mode.
    divergence: f64,
    divergence_99th_percentile: f64,
    /// Share of places at which the most likely token is that of the exact mode.
    greedy_agreement: f64,
}

impl Score {
    fn new(likenesses: &[Likeness]) -> Self {
        let count = likenesses.len().max(1) as f64;
        let loss = likenesses.iter().map(|likeness| likeness.loss).sum::<f64>() / count;
        let mut divergences: Vec<f64> = likenesses.iter().map(|likeness| likeness.divergence).collect();
        divergences.sort_by(f64::total_cmp);
        let agreeing = likenesses.iter().filter(|likeness| likeness.same_best).count();
        Self {
            loss,
            perplexity: loss.exp(),
            divergence: divergences.iter().sum::<f64>() / count,
            divergence_99th_percentile: divergences.get(divergences.len() * 99 / 100).copied().unwrap_or(0.0),
            greedy_agreement: agreeing as f64 / count,
        }
    }
}

/// A checkpoint and how it is computed. The first one of several is what the others are held against.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// What it is called in the report.
    pub(crate) label: String,
    /// The checkpoint.
    pub(crate) path: PathBuf,
    /// How it is computed.
    pub(crate) options: CpuOptions,
}

/// A network in one mode and what it has shown so far, per text.
struct Candidate {
    subject: Subject,
    network: Box<dyn Network>,
    likenesses: Vec<Vec<Likeness>>,
    forward: Duration,
}

/// A text as tokens.
struct Text {
    path: PathBuf,
    bytes: usize,
    tokens: Vec<u32>,
}

/// Measures and reports.
pub(super) async fn perplexity(arguments: &BenchArguments, output: Output) -> Outcome {
    let path = match crate::models::resolve_model(&arguments.model, &arguments.load.hub).await? {
        Some(path) => path,
        None => std::path::absolute(&arguments.model)?,
    };
    let texts = arguments.perplexity.clone();
    let (context, json) = (arguments.context as usize, arguments.json);
    let threads = arguments.load.threads.map(usize::from);
    let modes = match arguments.load.compute {
        None => Compute::ALL.to_vec(),
        Some(Compute::Exact) => vec![Compute::Exact],
        Some(other) => vec![Compute::Exact, other],
    };
    let subjects = subjects(&path, &modes, arguments.load.quantization);
    let measuring = tokio::task::spawn_blocking(move || measure(&subjects, &texts, context, threads, output));
    let report = measuring
        .await
        .map_err(|error| Failure::new(format!("measuring failed: {error}"), "Please report this."))??;
    if json {
        return output.json(&report);
    }
    report.lines().into_iter().try_for_each(|line| output.line(line))
}

/// The modes, and with quantization at load the exact one without it before them.
fn subjects(path: &Path, modes: &[Compute], quantization: Option<Quantization>) -> Vec<Subject> {
    let subject = |label: String, options| Subject { label, path: path.to_owned(), options };
    let plain = |compute: Compute| subject(compute.to_string(), CpuOptions::new(compute));
    match quantization.filter(|bits| *bits != Quantization::Off) {
        None => modes.iter().map(|compute| plain(*compute)).collect(),
        Some(bits) => {
            let quantized = modes.iter().map(|compute| {
                subject(format!("{compute}, {bits} bits"), CpuOptions::new(*compute).quantized(bits))
            });
            std::iter::once(plain(Compute::Exact)).chain(quantized).collect()
        }
    }
}

/// Scores texts with every subject; all must have one vocabulary.
pub(crate) fn measure(
    subjects: &[Subject],
    files: &[PathBuf],
    context: usize,
    threads: Option<usize>,
    output: Output,
) -> Outcome<Report> {
    let path = subjects.first().map(|subject| subject.path.as_path()).unwrap_or(Path::new(""));
    let checkpoint = Checkpoint::open(path).map_err(Error::from)?;
    let tokenizer = checkpoint.tokenizer().map_err(Error::from)?;
    let texts = files.iter().map(|file| read(file, &tokenizer, context)).collect::<Outcome<Vec<_>>>()?;
    let begin = begin_token(&tokenizer)?;
    let pool = Arc::new(ComputePool::new(PoolOptions { threads, pin: true, ..PoolOptions::default() })?);
    let mut candidates = Vec::new();
    for subject in subjects {
        output.note(format_args!("loading, {}", subject.label));
        candidates.push(Candidate::load(subject, &pool, context)?);
    }
    for text in &texts {
        for candidate in &mut candidates {
            candidate.likenesses.push(Vec::new());
        }
        let windows = text.tokens.chunks_exact(context);
        let count = windows.len();
        for (number, window) in windows.enumerate() {
            output.note(format_args!("{} {}/{count}", text.path.display(), number + 1));
            let mut ids = window.to_vec();
            if let Some(begin) = begin {
                ids[0] = begin;
            }
            score(&mut candidates, &ids, pool.threads())?;
        }
    }
    Ok(Report::new(path, context, &texts, &candidates))
}

/// Reads a text that fills at least one window.
fn read(path: &Path, tokenizer: &Tokenizer, context: usize) -> Outcome<Text> {
    let text = fs::read_to_string(path).map_err(|error| {
        Failure::new(format!("{} could not be read: {error}", path.display()), "Give a UTF-8 text file.")
    })?;
    let tokens = tokenizer.encode_plain(&text).map_err(Error::from)?;
    if tokens.len() < context {
        return Err(Failure::new(
            format!("{} has {} tokens, a window {context}", path.display(), tokens.len()),
            "Give a longer text or a smaller --context.",
        ));
    }
    Ok(Text { path: path.to_owned(), bytes: text.len(), tokens })
}

/// The token that the model's tokenizer puts before a text, if any; it takes the place of each window's first.
fn begin_token(tokenizer: &Tokenizer) -> Outcome<Option<u32>> {
    let without = tokenizer.encode("a", false).map_err(Error::from)?;
    let with = tokenizer.encode("a", true).map_err(Error::from)?;
    Ok(with.first().copied().filter(|_| with.len() > without.len() && with[1..].starts_with(&without)))
}

impl Candidate {
    fn load(subject: &Subject, pool: &Arc<ComputePool>, context: usize) -> Outcome<Self> {
        let checkpoint = Checkpoint::open(&subject.path).map_err(Error::from)?;
        let mut network = checkpoint.network(pool, &subject.options).map_err(Error::from)?;
        let traits = network.traits();
        if traits.context_length < context {
            let message =
                format!("the model's context has {} tokens, a window {context}", traits.context_length);
            return Err(Error::new(ErrorKind::TooLarge, message).into());
        }
        let blocks = vec![context.div_ceil(traits.block_tokens); traits.cache_groups.len()];
        network.allocate_cache(&blocks)?;
        Ok(Self { subject: subject.clone(), network, likenesses: Vec::new(), forward: Duration::ZERO })
    }

    /// The rows of the next tokens of a window, of which those from `scored` on are wanted.
    fn forward(&mut self, ids: &[u32], past: usize, scored: usize) -> Outcome<Vec<&[f32]>> {
        let traits = self.network.traits();
        let table: Vec<u32> = (0u32..).take((past + ids.len()).div_ceil(traits.block_tokens)).collect();
        let tables = vec![&table[..]; traits.cache_groups.len()];
        let width = traits.position_width;
        let positions: Vec<u32> = (past as u32..)
            .take(ids.len())
            .flat_map(|position| std::iter::repeat_n(position, width))
            .collect();
        let rows: Vec<u32> = (scored as u32..ids.len() as u32).collect();
        let started = Instant::now();
        let rows = self.network.forward(&PackedBatch {
            ids,
            embeddings: None,
            positions: &positions,
            sequences: &[SequenceInput {
                start: 0,
                count: ids.len(),
                past,
                block_tables: &tables,
                mask: Mask::Causal,
                adapter: None,
                cross_cache: None,
            }],
            rows: &rows,
            output: Wanted::Logits,
        })?;
        self.forward += started.elapsed();
        Ok((0..rows.len()).map(|row| rows.row(row)).collect())
    }
}

/// Scores the second half of a window in every mode.
fn score(candidates: &mut [Candidate], window: &[u32], threads: usize) -> Outcome {
    let half = window.len() / 2;
    for past in (0..window.len()).step_by(STEP) {
        let ids = &window[past..window.len().min(past + STEP)];
        let scored = half.saturating_sub(past).min(ids.len());
        // A row foretells the token after it; the window's last row foretells nothing that is known.
        let targets = window.get(past + scored + 1..).unwrap_or_default();
        let targets = &targets[..targets.len().min(ids.len() - scored)];
        let mut rows = Vec::new();
        for candidate in candidates.iter_mut() {
            rows.push(candidate.forward(ids, past, scored)?);
        }
        let found = compare(&rows, targets, threads);
        for (candidate, found) in candidates.iter_mut().zip(found) {
            if let Some(likenesses) = candidate.likenesses.last_mut() {
                likenesses.extend(found);
            }
        }
    }
    Ok(())
}

/// Holds the rows of every mode against those of the first, on several threads. The result has the order of the
/// modes, then that of the targets.
fn compare(rows: &[Vec<&[f32]>], targets: &[u32], threads: usize) -> Vec<Vec<Likeness>> {
    let places: Vec<usize> = (0..targets.len()).collect();
    let share = places.len().div_ceil(threads.max(1)).max(1);
    let one = |&place: &usize| -> Vec<Likeness> {
        let target = targets[place] as usize;
        let reference = Reference::new(rows[0][place]);
        let others = rows[1..].iter().map(|rows| reference.of(rows[place], target));
        std::iter::once(reference.own(target)).chain(others).collect()
    };
    let mut found: Vec<Vec<Likeness>> = Vec::with_capacity(places.len());
    std::thread::scope(|scope| {
        let one = &one;
        let parts: Vec<_> = places
            .chunks(share)
            .map(|part| scope.spawn(move || part.iter().map(one).collect::<Vec<_>>()))
            .collect();
        for part in parts {
            match part.join() {
                Ok(part) => found.extend(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    (0..rows.len()).map(|mode| found.iter().map(|place| place[mode]).collect()).collect()
}

impl Report {
    fn new(path: &Path, context: usize, texts: &[Text], candidates: &[Candidate]) -> Self {
        let scored = |file: usize| candidates.first().map_or(0, |candidate| candidate.likenesses[file].len());
        let files: Vec<File> = texts
            .iter()
            .enumerate()
            .map(|(index, text)| File {
                name: text.path.display().to_string(),
                bytes: text.bytes,
                text_tokens: text.tokens.len(),
                windows: text.tokens.len() / context,
                tokens: scored(index),
            })
            .collect();
        let whole: Vec<Score> =
            candidates.iter().map(|candidate| Score::new(&candidate.likenesses.concat())).collect();
        let exact = whole.first().map_or(1.0, |score| score.perplexity);
        let modes = candidates
            .iter()
            .zip(whole)
            .map(|(candidate, score)| Mode {
                name: candidate.subject.label.clone(),
                compute: candidate.subject.options.compute,
                quantization: Some(candidate.subject.options.quantization)
                    .filter(|bits| *bits != Quantization::Off),
                kernels: candidate.network.traits().compute.clone(),
                relative_perplexity: score.perplexity / exact,
                score,
                files: candidate.likenesses.iter().map(|part| Score::new(part)).collect(),
                forward_seconds: candidate.forward.as_secs_f64(),
            })
            .collect();
        Self {
            model: path.display().to_string(),
            context,
            tokens: files.iter().map(|file| file.tokens).sum(),
            files,
            modes,
            machine: Machine::read(),
            version: VERSION,
        }
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines =
            vec![format!("{}: {} tokens scored in windows of {}", self.model, self.tokens, self.context)];
        let mut header = vec!["mode".to_owned()];
        header.extend(self.files.iter().map(|file| {
            Path::new(&file.name)
                .file_name()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
        }));
        header.extend(["perplexity", "over exact", "divergence", "same best token"].map(str::to_owned));
        let mut rows = vec![header];
        for mode in &self.modes {
            let mut row = vec![mode.name.clone()];
            row.extend(mode.files.iter().map(|score| format!("{:.4}", score.perplexity)));
            row.extend([
                format!("{:.4}", mode.score.perplexity),
                format!("{:+.3} %", (mode.relative_perplexity - 1.0) * 100.0),
                format!("{:.6}", mode.score.divergence),
                format!("{:.2} %", mode.score.greedy_agreement * 100.0),
            ]);
            rows.push(row);
        }
        lines.extend(table(&rows));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_compared_in_order_whatever_the_threads() {
        let rows: Vec<Vec<f32>> = (0..5).map(|row| vec![row as f32, 1.0, 2.0]).collect();
        let shifted: Vec<Vec<f32>> = rows.iter().map(|row| vec![row[0] + 0.5, 1.0, 2.0]).collect();
        let modes: Vec<Vec<&[f32]>> =
            vec![rows.iter().map(Vec::as_slice).collect(), shifted.iter().map(Vec::as_slice).collect()];
        let targets = [0, 1, 2, 0, 1];
        let alone = compare(&modes, &targets, 1);
        assert_eq!(alone, compare(&modes, &targets, 3));
        assert_eq!(alone.iter().map(Vec::len).collect::<Vec<_>>(), [5, 5]);
        assert_eq!(alone[0][3], Reference::new(&rows[3]).own(0));
        assert_eq!(alone[1][4], Reference::new(&rows[4]).of(&shifted[4], 1));
        assert!(compare(&modes, &[], 2).iter().all(Vec::is_empty));
    }

    #[test]
    fn a_score_sums_up() {
        let likeness = |loss, divergence, same_best| Likeness { loss, divergence, same_best };
        let score = Score::new(&[likeness(1.0, 0.0, true), likeness(3.0, 0.5, false)]);
        assert!((score.perplexity - 2f64.exp()).abs() < 1e-12);
        assert_eq!((score.divergence, score.greedy_agreement), (0.25, 0.5));
        assert_eq!(score.divergence_99th_percentile, 0.5);
    }
}
