//! Is the engine able to answer? Ordinary traffic proves it; an idle engine computes one token, at most once a second.

use std::time::{Duration, Instant};

use byzerllm_core::{Domain, Error, Result, Sampling};
use futures::StreamExt;
use tokio::sync::Mutex;

use crate::error::EngineError;
use crate::intake::Life;
use crate::model::LocalModel;
use crate::token_stream::TokenRequest;

/// How long a step or a probe counts.
const RECENT: Duration = Duration::from_secs(1);

/// The domain of probes, which shares its cache with nobody.
const PROBE_DOMAIN: Domain = Domain(u64::MAX);

/// The last probe, shared by everyone who asks.
#[derive(Debug, Default)]
pub(crate) struct ProbeState(Mutex<Option<(Instant, Result<()>)>>);

impl LocalModel {
    /// Whether the engine makes progress: a step within the last second counts, a busy engine is waited for, an idle
    /// one computes one token. Callers at the same time share one probe.
    ///
    /// # Errors
    /// [`byzerllm_core::ErrorKind::Unavailable`] when the engine has ended,
    /// [`byzerllm_core::ErrorKind::DeadlineExceeded`] when nothing happened until `deadline`, or the step's own error.
    pub async fn probe(&self, deadline: Instant) -> Result<()> {
        self.shared.alive()?;
        if self.recent_step() {
            return Ok(());
        }
        match tokio::time::timeout_at(deadline.into(), self.shared_probe()).await {
            Ok(result) => result,
            Err(_) => Err(EngineError::Late.into()),
        }
    }

    fn recent_step(&self) -> bool {
        self.shared.progress.borrow().is_some_and(|at| at.elapsed() < RECENT)
    }

    async fn shared_probe(&self) -> Result<()> {
        let mut last = self.probe.0.lock().await;
        if self.recent_step() {
            return Ok(());
        }
        if let Some((at, result)) = &*last
            && at.elapsed() < RECENT
        {
            return result.as_ref().copied().map_err(Error::duplicate);
        }
        let result = self.new_probe().await;
        *last = Some((Instant::now(), result.as_ref().copied().map_err(Error::duplicate)));
        result
    }

    async fn new_probe(&self) -> Result<()> {
        let mut progress = self.shared.progress.subscribe();
        let mut life = self.shared.life.subscribe();
        let work = async {
            if self.shared.is_busy() {
                // A queue must never make a healthy engine look dead: the next step is enough.
                let _ = progress.changed().await;
                return Ok(());
            }
            let sampling = Sampling { temperature: Some(0.0), max_tokens: Some(1), ..Sampling::default() };
            let request = TokenRequest {
                prompt: vec![0],
                sampling,
                ignore_end: true,
                domain: PROBE_DOMAIN,
                adapter: None,
            };
            match self.token_stream(request)?.next().await {
                Some(Err(error)) => Err(error),
                Some(Ok(_)) | None => Ok(()),
            }
        };
        tokio::select! {
            result = work => result,
            _ = life.wait_for(|life| *life != Life::Running) => Ok(self.shared.alive()?),
        }
    }
}
