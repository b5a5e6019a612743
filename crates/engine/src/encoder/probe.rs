//! Is the encoder able to answer? Ordinary traffic proves it; an idle one computes one token, at most once a second.

use std::time::{Duration, Instant};

use byzerllm_core::{Error, Result};
use tokio::sync::Mutex;

use super::model::LocalEncoder;
use super::queue::Sequence;
use crate::error::EngineError;
use crate::intake::Life;

/// How long a step or a probe counts.
const RECENT: Duration = Duration::from_secs(1);

/// The last probe, shared by everyone who asks.
#[derive(Debug, Default)]
pub(super) struct ProbeState(Mutex<Option<(Instant, Result<()>)>>);

impl LocalEncoder {
    /// Whether the encoder makes progress: a step within the last second counts, a busy one is waited for, an idle one
    /// computes one token. Callers at the same time share one probe.
    ///
    /// # Errors
    /// [`byzerllm_core::ErrorKind::Unavailable`] when it has ended, [`byzerllm_core::ErrorKind::DeadlineExceeded`] when
    /// nothing happened until `deadline`, or the step's own error.
    pub async fn probe(&self, deadline: Instant) -> Result<()> {
        self.desk.alive()?;
        if self.recent_step() {
            return Ok(());
        }
        match tokio::time::timeout_at(deadline.into(), self.shared_probe()).await {
            Ok(result) => result,
            Err(_) => Err(EngineError::Late.into()),
        }
    }

    fn recent_step(&self) -> bool {
        self.desk.progress.borrow().is_some_and(|at| at.elapsed() < RECENT)
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
        let mut progress = self.desk.progress.subscribe();
        let mut life = self.desk.life.subscribe();
        let work = async {
            if self.desk.is_busy() {
                // A queue must never make a healthy encoder look dead: the next step is enough.
                let _ = progress.changed().await;
                return Ok(());
            }
            let sequence = Sequence { ids: vec![0], types: vec![0] };
            self.desk.submit(vec![sequence], None)?.rows(None).await.map(drop)
        };
        tokio::select! {
            result = work => result,
            _ = life.wait_for(|life| *life != Life::Running) => self.desk.alive(),
        }
    }
}
