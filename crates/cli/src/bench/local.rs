//! Measures a model in this process.

use std::time::{Duration, Instant};

use byzerllm_core::{Event, Input, RequestContext, Sampling};
use byzerllm_runtime::{DeploymentSpec, Runtime, RuntimeOptions};
use futures::StreamExt;

use super::report::Facts;
use super::{Run, Work, random};
use crate::arguments::BenchArguments;
use crate::deploy::compute;
use crate::output::{Failure, Outcome};

const NAME: &str = "bench";

/// A loaded model.
pub(crate) struct Local {
    runtime: Runtime,
    vocabulary: u32,
    facts: Facts,
}

impl Local {
    pub(crate) async fn load(arguments: &BenchArguments) -> Outcome<Self> {
        let path = std::path::absolute(&arguments.model)?;
        let mut spec = DeploymentSpec::new(NAME, &path);
        if let Some(argument) = arguments.load.compute {
            spec.compute = compute(argument);
        }
        let threads = arguments.load.threads.map(usize::from);
        let runtime = Runtime::open(RuntimeOptions { state: None, threads, pin: true }).await?;
        let status = runtime.deploy(spec).await?;
        let facts = Facts {
            target: "in process".to_owned(),
            model: path.display().to_string(),
            compute: status.info.map(|info| info.compute),
            threads: Some(threads.unwrap_or_else(byzerllm_kernels::usable_cores)),
        };
        Ok(Self { runtime, vocabulary: 1000, facts })
    }

    pub(super) async fn run(&self, work: Work) -> Outcome<Run> {
        let prompt: Vec<u32> = random(work.number)
            .take(work.prompt_tokens as usize)
            .map(|value| value % self.vocabulary)
            .collect();
        let mut request = byzerllm_core::ChatRequest::new(NAME, Input::Tokens(prompt));
        request.sampling =
            Sampling { temperature: Some(0.0), max_tokens: Some(work.new_tokens), ..Sampling::default() };
        let started = Instant::now();
        let mut stream = self.runtime.chat(RequestContext::local(), request).await?;
        let (mut first, mut last, mut tokens) = (None, Duration::ZERO, 0);
        while let Some(event) = stream.next().await {
            match event? {
                Event::Text { .. } => {
                    last = started.elapsed();
                    first.get_or_insert(last);
                }
                Event::Usage { usage } => tokens = usage.completion_tokens,
                _ => {}
            }
        }
        let first = first.ok_or_else(|| Failure::new("the model generated no text", "Use another model."))?;
        Ok(Run { started, prompt_tokens: work.prompt_tokens, completion_tokens: tokens, first, last })
    }

    pub(super) fn close(self) -> Facts {
        self.facts
    }
}
