//! Measures an encoder in this process: texts in, vectors or scores out, in each compute mode asked for, and how far its
//! rows are from those of the exact mode.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use byzerllm_core::Error;
use byzerllm_kernels::{Ceilings, ComputePool, PoolOptions};
use byzerllm_model::stages::{StepKind, begin_step, end_step, record, take};
use byzerllm_model::{Compute, Encoder, EncoderCheckpoint, EncoderInput, EncoderTokenizer, StepWork, Task};
use serde::Serialize;

use super::median;
use super::roofline::Row;
use super::stages::{self, StageTable};
use crate::arguments::BenchArguments;
use crate::machine::Machine;
use crate::output::{Failure, Outcome, Output, table};
use crate::version::VERSION;

/// How long each of the machine's ceilings is looked for.
const CEILING: Duration = Duration::from_millis(200);
/// Measurements of a single query, of which the median is told.
const QUERIES: usize = 200;

/// Everything that was found.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    task: &'static str,
    texts: usize,
    /// Of all texts, special tokens included.
    tokens: usize,
    /// Texts that were cut to the longest that the model reads.
    truncated: usize,
    threads: usize,
    modes: Vec<Mode>,
    ceilings: Ceilings,
    machine: Machine,
    version: &'static str,
}

/// A compute mode.
#[derive(Debug, Serialize)]
struct Mode {
    compute: Compute,
    /// The number formats and instructions that were used.
    kernels: String,
    weight_bytes: u64,
    /// From texts to rows, all texts at once; the median of the repeats.
    tokens_per_second: f64,
    milliseconds: f64,
    /// The network alone.
    network_tokens_per_second: f64,
    /// The shortest text by itself, from text to row.
    query_tokens: usize,
    query_ms: f64,
    /// Its rows beside those of the exact mode.
    likeness: Likeness,
    roofline: Option<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stages: Option<StageTable>,
}

/// How far rows are from those of the exact mode.
#[derive(Debug, Clone, Copy, Serialize)]
struct Likeness {
    mean_cosine: f64,
    least_cosine: f64,
    mean_difference: f64,
    greatest_difference: f64,
}

impl Likeness {
    fn new(rows: &[Vec<f32>], exact: &[Vec<f32>]) -> Self {
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let cosines = rows.iter().zip(exact).map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt());
        let differences =
            || rows.iter().flatten().zip(exact.iter().flatten()).map(|(a, b)| f64::from((a - b).abs()));
        let cosines: Vec<f64> = cosines.collect();
        Self {
            mean_cosine: cosines.iter().sum::<f64>() / cosines.len().max(1) as f64,
            least_cosine: cosines.iter().copied().fold(f64::INFINITY, f64::min),
            mean_difference: differences().sum::<f64>() / differences().count().max(1) as f64,
            greatest_difference: differences().fold(0.0, f64::max),
        }
    }
}

/// The texts of a file and what turns them into ids.
struct Texts {
    lines: Vec<String>,
    tokenizer: EncoderTokenizer,
    task: Task,
    longest: usize,
}

/// A text as ids with their types.
type Ids = (Vec<u32>, Vec<u8>);

impl Texts {
    /// One text a line; for a reranker query and passage with a tab between them.
    fn read(file: &Path, tokenizer: EncoderTokenizer, task: Task, longest: usize) -> Outcome<Self> {
        let problem = |what: String| Failure::new(what, "Give a UTF-8 file with one text a line.");
        let text = fs::read_to_string(file)
            .map_err(|error| problem(format!("{} could not be read: {error}", file.display())))?;
        let lines: Vec<String> =
            text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
        if lines.is_empty() {
            return Err(problem(format!("{} holds no text", file.display())));
        }
        Ok(Self { lines, tokenizer, task, longest })
    }

    /// Ids of one text, and whether it was cut.
    fn ids(&self, line: &str) -> Outcome<(Ids, bool)> {
        let mut input = match (self.task, line.split_once('\t')) {
            (Task::Rerank, Some((query, passage))) => self.tokenizer.pair(query, passage)?,
            (Task::Rerank, None) => self.tokenizer.pair(line, line)?,
            _ => self.tokenizer.text(line, None)?,
        };
        let cut = input.truncate(self.longest)?;
        Ok(((input.ids, input.types), cut > 0))
    }

    fn all(&self) -> Outcome<(Vec<Ids>, usize)> {
        let found = self.lines.iter().map(|line| self.ids(line)).collect::<Outcome<Vec<_>>>()?;
        let cut = found.iter().filter(|(_, cut)| *cut).count();
        Ok((found.into_iter().map(|(ids, _)| ids).collect(), cut))
    }
}

fn inputs(ids: &[Ids]) -> Vec<EncoderInput<'_>> {
    ids.iter().map(|(ids, types)| EncoderInput { ids, types }).collect()
}

/// Measures and reports.
pub(super) async fn encoder(arguments: &BenchArguments, texts: PathBuf, output: Output) -> Outcome {
    let path = match crate::models::resolve_model(&arguments.model, &arguments.load.hub).await? {
        Some(path) => path,
        None => std::path::absolute(&arguments.model)?,
    };
    let threads = arguments.load.threads.map(usize::from);
    let modes = arguments.load.compute.map_or_else(|| Compute::ALL.to_vec(), |mode| vec![mode]);
    let (repeat, json, staged) = (arguments.repeat as usize, arguments.json, arguments.stages);
    let rows = arguments.rows.clone();
    let measuring = tokio::task::spawn_blocking(move || {
        measure(&path, (&texts, rows.as_deref()), threads, &modes, (repeat, staged), output)
    });
    let report = measuring
        .await
        .map_err(|error| Failure::new(format!("measuring failed: {error}"), "Please report this."))??;
    if json {
        return output.json(&report);
    }
    report.lines().into_iter().try_for_each(|line| output.line(line))
}

fn measure(
    path: &Path,
    (file, rows_to): (&Path, Option<&Path>),
    threads: Option<usize>,
    modes: &[Compute],
    (repeat, staged): (usize, bool),
    output: Output,
) -> Outcome<Report> {
    let checkpoint = EncoderCheckpoint::open(path).map_err(Error::from)?;
    let config = checkpoint.config();
    let tokenizer = checkpoint.tokenizer().map_err(Error::from)?;
    let texts = Texts::read(file, tokenizer, config.task, config.max_length)?;
    let pool = Arc::new(ComputePool::new(PoolOptions { threads, pin: true, ..PoolOptions::default() })?);
    let load = |compute| checkpoint.network(&pool, compute, &|_| ()).map_err(Error::from);
    let (ids, truncated) = texts.all()?;
    output.note("exact rows");
    let exact = rows(&mut *load(Compute::Exact)?, &inputs(&ids))?;
    let mut found = Vec::new();
    for &compute in modes {
        output.note(format_args!("measuring, {compute}"));
        let mut network = load(compute)?;
        if let Some(file) = rows_to.filter(|_| modes.last() == Some(&compute)) {
            write_rows(file, &rows(&mut *network, &inputs(&ids))?)?;
        }
        found.push((mode(&mut *network, compute, &texts, &exact, repeat, staged)?, network.work()));
    }
    let buffer = Ceilings::buffer_bytes();
    let ceilings = Ceilings::measure(&pool.turn(), buffer, CEILING)
        .map_err(|error| Failure::new(format!("the ceilings: {error}"), "Free some memory."))?;
    let tokens: usize = ids.iter().map(|(ids, _)| ids.len()).sum();
    let lengths: Vec<usize> = ids.iter().map(|(ids, _)| ids.len()).collect();
    let modes = found.into_iter().map(|(mut mode, work)| {
        let steps: Option<StepWork> = work.map(|work| work.step(&lengths));
        let count = u32::try_from(tokens).unwrap_or(u32::MAX);
        let speed = mode.network_tokens_per_second;
        mode.roofline = steps.map(|work| Row::new(mode.compute.to_string(), &work, count, speed, &ceilings));
        mode
    });
    Ok(Report {
        model: path.display().to_string(),
        task: config.task.as_str(),
        texts: ids.len(),
        tokens,
        truncated,
        threads: pool.threads(),
        modes: modes.collect(),
        ceilings,
        machine: Machine::read(),
        version: VERSION,
    })
}

fn write_rows(file: &Path, rows: &[Vec<f32>]) -> Outcome {
    let bytes: Vec<u8> = rows.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    fs::write(file, bytes).map_err(|error| {
        Failure::new(format!("{} could not be written: {error}", file.display()), "Give another --rows.")
    })
}

fn rows(network: &mut dyn Encoder, inputs: &[EncoderInput<'_>]) -> Outcome<Vec<Vec<f32>>> {
    let rows = network.encode(inputs)?;
    Ok((0..rows.len()).map(|row| rows.row(row).to_vec()).collect())
}

fn mode(
    network: &mut dyn Encoder,
    compute: Compute,
    texts: &Texts,
    exact: &[Vec<f32>],
    repeat: usize,
    staged: bool,
) -> Outcome<Mode> {
    let (ids, _) = texts.all()?;
    let tokens = ids.iter().map(|(ids, _)| ids.len()).sum::<usize>() as f64;
    // The first run pays for page faults and the growth of buffers.
    let likeness = Likeness::new(&rows(network, &inputs(&ids))?, exact);
    let (mut whole, mut alone) = (Vec::new(), Vec::new());
    record(staged);
    for _ in 0..repeat {
        let started = Instant::now();
        let (ids, _) = texts.all()?;
        let tokenized = Instant::now();
        begin_step();
        network.encode(&inputs(&ids))?;
        end_step(StepKind::Prompt);
        whole.push(started.elapsed().as_secs_f64());
        alone.push(tokenized.elapsed().as_secs_f64());
    }
    let stages = StageTable::new(compute.to_string(), &take(StepKind::Prompt));
    record(false);
    let shortest = texts.lines.iter().min_by_key(|line| line.len());
    let (mut queries, mut query_tokens) = (Vec::new(), 0);
    if let Some(line) = shortest {
        for _ in 0..QUERIES {
            let started = Instant::now();
            let (ids, _) = texts.ids(line)?;
            query_tokens = ids.0.len();
            network.encode(&inputs(&[ids]))?;
            queries.push(started.elapsed().as_secs_f64() * 1000.0);
        }
    }
    let traits = network.traits();
    Ok(Mode {
        compute,
        kernels: traits.compute.clone(),
        weight_bytes: traits.weight_bytes,
        tokens_per_second: tokens / median(&whole),
        milliseconds: median(&whole) * 1000.0,
        network_tokens_per_second: tokens / median(&alone),
        query_tokens,
        query_ms: median(&queries),
        likeness,
        roofline: None,
        stages,
    })
}

impl Report {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("{}, {}", self.model, self.task),
            format!(
                "{} texts, {} tokens, {} cut, {} threads",
                self.texts, self.tokens, self.truncated, self.threads
            ),
        ];
        let heading = [
            "MODE",
            "TOKENS/S",
            "NETWORK",
            "ALL TEXTS",
            "ONE QUERY",
            "COSINE",
            "LEAST",
            "DIFFERENCE",
            "OF CEILING",
        ];
        let rows = self.modes.iter().map(|mode| {
            vec![
                mode.compute.to_string(),
                format!("{:.0}", mode.tokens_per_second),
                format!("{:.0}", mode.network_tokens_per_second),
                format!("{:.1} ms", mode.milliseconds),
                format!("{:.2} ms, {} tokens", mode.query_ms, mode.query_tokens),
                format!("{:.6}", mode.likeness.mean_cosine),
                format!("{:.6}", mode.likeness.least_cosine),
                format!("{:.4}", mode.likeness.greatest_difference),
                mode.roofline.as_ref().map_or_else(String::new, Row::share),
            ]
        });
        lines.extend(table(
            &std::iter::once(heading.map(str::to_owned).to_vec()).chain(rows).collect::<Vec<_>>(),
        ));
        for mode in &self.modes {
            lines.push(format!("{}: {}", mode.compute, mode.kernels));
        }
        let stages: Vec<StageTable> = self.modes.iter().filter_map(|mode| mode.stages.clone()).collect();
        if !stages.is_empty() {
            lines.extend(stages::lines(&stages));
        }
        lines.push(format!(
            "ceilings: {:.0} Gop/s int8, {:.0} Gop/s f32, {:.1} GB/s",
            self.ceilings.int8_operations_per_second / 1e9,
            self.ceilings.f32_operations_per_second / 1e9,
            self.ceilings.read_bytes_per_second / 1e9
        ));
        lines
    }
}
