//! Is an engine able to answer? Ordinary traffic proves it; an idle one computes one token, at most once a second.

use std::time::{Duration, Instant};

use byzerllm_core::{Domain, Error, Result, Sampling};
use futures::StreamExt;
use tokio::sync::{Mutex, watch};

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

/// What can be probed: an engine's side for callers.
pub(crate) trait Probed {
    /// The last probe.
    fn state(&self) -> &ProbeState;
    /// When the last step ended.
    fn progress(&self) -> &watch::Sender<Option<Instant>>;
    /// Whether the engine's thread goes on.
    fn life(&self) -> &watch::Sender<Life>;
    /// An error once it does not.
    fn alive(&self) -> Result<()>;
    /// Whether there is work.
    fn is_busy(&self) -> bool;
    /// Computes one token.
    fn compute(&self) -> impl Future<Output = Result<()>> + Send;
}

/// Whether an engine makes progress: a step within the last second counts, a busy engine is waited for, an idle one
/// computes one token. Callers at the same time share one probe.
///
/// # Errors
/// [`byzerllm_core::ErrorKind::Unavailable`] when the engine has ended,
/// [`byzerllm_core::ErrorKind::DeadlineExceeded`] when nothing happened until `deadline`, or the step's own error.
pub(crate) async fn probe(engine: &(impl Probed + Sync), deadline: Instant) -> Result<()> {
    engine.alive()?;
    if recent_step(engine) {
        return Ok(());
    }
    match tokio::time::timeout_at(deadline.into(), shared(engine)).await {
        Ok(result) => result,
        Err(_) => Err(EngineError::Late.into()),
    }
}

fn recent_step(engine: &impl Probed) -> bool {
    engine.progress().borrow().is_some_and(|at| at.elapsed() < RECENT)
}

async fn shared(engine: &(impl Probed + Sync)) -> Result<()> {
    let mut last = engine.state().0.lock().await;
    if recent_step(engine) {
        return Ok(());
    }
    if let Some((at, result)) = &*last
        && at.elapsed() < RECENT
    {
        return result.as_ref().copied().map_err(Error::duplicate);
    }
    let result = fresh(engine).await;
    *last = Some((Instant::now(), result.as_ref().copied().map_err(Error::duplicate)));
    result
}

async fn fresh(engine: &(impl Probed + Sync)) -> Result<()> {
    let mut progress = engine.progress().subscribe();
    let mut life = engine.life().subscribe();
    let work = async {
        if engine.is_busy() {
            // A queue must never make a healthy engine look dead: the next step is enough.
            let _ = progress.changed().await;
            return Ok(());
        }
        engine.compute().await
    };
    tokio::select! {
        result = work => result,
        _ = life.wait_for(|life| *life != Life::Running) => engine.alive(),
    }
}

impl LocalModel {
    /// Whether the engine makes progress: a step within the last second counts, a busy engine is waited for, an idle
    /// one computes one token. Callers at the same time share one probe.
    ///
    /// # Errors
    /// [`byzerllm_core::ErrorKind::Unavailable`] when the engine has ended,
    /// [`byzerllm_core::ErrorKind::DeadlineExceeded`] when nothing happened until `deadline`, or the step's own error.
    pub async fn probe(&self, deadline: Instant) -> Result<()> {
        probe(self, deadline).await
    }
}

impl Probed for LocalModel {
    fn state(&self) -> &ProbeState {
        &self.probe
    }

    fn progress(&self) -> &watch::Sender<Option<Instant>> {
        &self.shared.progress
    }

    fn life(&self) -> &watch::Sender<Life> {
        &self.shared.life
    }

    fn alive(&self) -> Result<()> {
        Ok(self.shared.alive()?)
    }

    fn is_busy(&self) -> bool {
        self.shared.is_busy()
    }

    async fn compute(&self) -> Result<()> {
        let sampling = Sampling { temperature: Some(0.0), max_tokens: Some(1), ..Sampling::default() };
        let request =
            TokenRequest { prompt: vec![0], sampling, ignore_end: true, domain: PROBE_DOMAIN, adapter: None };
        match self.token_stream(request)?.next().await {
            Some(Err(error)) => Err(error),
            Some(Ok(_)) | None => Ok(()),
        }
    }
}
