//! Measures a model in this process: the engine alone, ids in and ids out.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use byzerllm_core::{Error, ErrorKind, Sampling};
use byzerllm_engine::{EngineOptions, LocalModel, ModelText, TokenRequest};
use byzerllm_kernels::{Ceilings, ComputePool, PoolOptions};
use byzerllm_model::{Checkpoint, CpuOptions, NetworkTraits, Quantization, WorkModel};
use futures::StreamExt;

use super::report::Facts;
use super::{Run, Work, random};
use crate::arguments::BenchArguments;
use crate::output::{Failure, Outcome};

/// How long each of the machine's ceilings is looked for.
const CEILING: Duration = Duration::from_millis(200);

/// A loaded model.
pub(crate) struct Local {
    model: LocalModel,
    pool: Arc<ComputePool>,
    work: Option<WorkModel>,
    vocabulary: u32,
    facts: Facts,
}

impl Local {
    /// Loads the model with just the cache that the measurement needs.
    pub(crate) async fn load(arguments: &BenchArguments) -> Outcome<Self> {
        let path = match crate::models::resolve_model(&arguments.model, &arguments.load.hub).await? {
            Some(path) => path,
            None => std::path::absolute(&arguments.model)?,
        };
        let threads = arguments.load.threads.map(usize::from);
        let compute = arguments.load.compute.unwrap_or_default();
        let cpu =
            CpuOptions::new(compute).quantized(arguments.load.quantization.unwrap_or(Quantization::Off));
        // The warm-up asks for two tokens after a prompt of at most this length.
        let longest = (arguments.prompt_tokens.saturating_add(2))
            .max(arguments.decode_prompt_tokens.saturating_add(arguments.decode_tokens));
        let streams = arguments.streams.iter().copied().max().unwrap_or(1);
        let loading = tokio::task::spawn_blocking(move || load(&path, &cpu, threads, longest, streams));
        loading
            .await
            .map_err(|error| Failure::new(format!("loading failed: {error}"), "Please report this."))?
    }

    pub(super) async fn run(&self, work: Work) -> Outcome<Run> {
        let prompt: Vec<u32> = random(work.number)
            .take(work.prompt_tokens as usize)
            .map(|value| value % self.vocabulary)
            .collect();
        let sampling =
            Sampling { temperature: Some(0.0), max_tokens: Some(work.new_tokens), ..Sampling::default() };
        let request = TokenRequest { prompt, sampling, ignore_end: true, ..TokenRequest::default() };
        let started = Instant::now();
        let mut stream = self.model.token_stream(request)?;
        let mut pieces = Vec::with_capacity(work.new_tokens as usize);
        while let Some(token) = stream.next().await {
            token?;
            pieces.push(started.elapsed());
        }
        if pieces.is_empty() {
            return Err(Failure::new("the model generated nothing", "Use another model."));
        }
        let completion_tokens = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
        Ok(Run { started, prompt_tokens: work.prompt_tokens, completion_tokens, pieces })
    }

    /// Waits until the engine is done with its last step: a token is told before its step ends.
    pub(super) async fn idle(&self) {
        while self.model.metrics().running > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What the steps need, and what the machine could do at best: measured on the threads that computed the steps,
    /// while the model does nothing.
    pub(super) async fn ceilings(&self) -> Outcome<Option<(WorkModel, Ceilings)>> {
        let Some(work) = self.work.clone() else { return Ok(None) };
        let pool = self.pool.clone();
        let room = crate::machine::system_memory().map_or(u64::MAX, |bytes| bytes / 4);
        let buffer = Ceilings::buffer_bytes().min(usize::try_from(room).unwrap_or(usize::MAX));
        let measuring = move || Ceilings::measure(&pool.turn(), buffer, CEILING);
        let measured = tokio::task::spawn_blocking(measuring).await;
        let broken = |error: String| {
            Failure::new(
                format!("measuring the machine failed: {error}"),
                "Close other programs and try again.",
            )
        };
        let ceilings = measured
            .map_err(|error| broken(error.to_string()))?
            .map_err(|error| broken(error.to_string()))?;
        Ok(Some((work, ceilings)))
    }

    pub(super) fn close(self) -> Facts {
        self.model.shutdown();
        self.facts
    }
}

fn load(path: &Path, cpu: &CpuOptions, threads: Option<usize>, longest: u32, streams: u32) -> Outcome<Local> {
    let checkpoint = Checkpoint::open(path).map_err(Error::from)?;
    let pool = Arc::new(ComputePool::new(PoolOptions { threads, pin: true, ..PoolOptions::default() })?);
    let threads = pool.threads();
    let network = checkpoint.network(&pool, cpu).map_err(Error::from)?;
    let work = network.work();
    let traits = network.traits();
    if traits.context_length < longest as usize {
        let message = format!(
            "the model's context has {} tokens, the measurement needs {longest}",
            traits.context_length
        );
        return Err(Error::new(ErrorKind::TooLarge, message).into());
    }
    let vocabulary = u32::try_from(traits.vocab_size).unwrap_or(u32::MAX);
    let kernels = traits.compute.clone();
    let options = EngineOptions {
        cache_bytes: cache_bytes(traits, longest, streams),
        context_length: Some(longest),
        ..EngineOptions::default()
    };
    let text = ModelText {
        tokenizer: checkpoint.tokenizer().map_err(Error::from)?,
        template: None,
        end_tokens: checkpoint.end_tokens(),
        name: "bench".to_owned(),
    };
    let model = LocalModel::start(network, text, options)?;
    let facts = Facts {
        target: "in process".to_owned(),
        model: path.display().to_string(),
        compute: Some(cpu.compute.to_string()),
        kernels: Some(kernels),
        threads: Some(threads),
    };
    Ok(Local { model, pool, work, vocabulary, facts })
}

/// What every stream needs at its longest, and one block more for each.
fn cache_bytes(traits: &NetworkTraits, longest: u32, streams: u32) -> u64 {
    let blocks = (u64::from(longest)).div_ceil(traits.block_tokens.max(1) as u64) + 1;
    traits.block_bytes.iter().sum::<u64>().saturating_mul(blocks).saturating_mul(u64::from(streams) + 1)
}
