//! Measures a model in this process: the engine alone, ids in and ids out.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use byzerllm_core::{Error, ErrorKind, Sampling};
use byzerllm_engine::{EngineOptions, LocalModel, ModelText, TokenRequest};
use byzerllm_kernels::{ComputePool, PoolOptions};
use byzerllm_model::{Checkpoint, Compute, CpuOptions, NetworkTraits};
use futures::StreamExt;

use super::report::Facts;
use super::{Run, Work, random};
use crate::arguments::BenchArguments;
use crate::output::{Failure, Outcome};

/// A loaded model.
pub(crate) struct Local {
    model: LocalModel,
    vocabulary: u32,
    facts: Facts,
}

impl Local {
    /// Loads the model with just the cache that the measurement needs.
    pub(crate) async fn load(arguments: &BenchArguments) -> Outcome<Self> {
        let path = match crate::models::resolve(&arguments.model, &arguments.load.hub).await? {
            Some(path) => path,
            None => std::path::absolute(&arguments.model)?,
        };
        let threads = arguments.load.threads.map(usize::from);
        let compute = arguments.load.compute.unwrap_or_default();
        // The warm-up asks for two tokens after a prompt of at most this length.
        let longest = (arguments.prompt_tokens.saturating_add(2))
            .max(arguments.decode_prompt_tokens.saturating_add(arguments.decode_tokens));
        let streams = arguments.streams.iter().copied().max().unwrap_or(1);
        let loading = tokio::task::spawn_blocking(move || load(&path, compute, threads, longest, streams));
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

    pub(super) fn close(self) -> Facts {
        self.model.shutdown();
        self.facts
    }
}

fn load(path: &Path, compute: Compute, threads: Option<usize>, longest: u32, streams: u32) -> Outcome<Local> {
    let checkpoint = Checkpoint::open(path).map_err(Error::from)?;
    let pool = ComputePool::new(PoolOptions { threads, pin: true, ..PoolOptions::default() })?;
    let threads = pool.threads();
    let network = checkpoint.network(&Arc::new(pool), &CpuOptions::new(compute)).map_err(Error::from)?;
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
        compute: Some(compute.to_string()),
        kernels: Some(kernels),
        threads: Some(threads),
    };
    Ok(Local { model, vocabulary, facts })
}

/// What every stream needs at its longest, and one block more for each.
fn cache_bytes(traits: &NetworkTraits, longest: u32, streams: u32) -> u64 {
    let blocks = (u64::from(longest)).div_ceil(traits.block_tokens.max(1) as u64) + 1;
    traits.block_bytes.iter().sum::<u64>().saturating_mul(blocks).saturating_mul(u64::from(streams) + 1)
}
