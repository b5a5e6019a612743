//! Is the encoder able to answer?

use std::time::Instant;

use byzerllm_core::Result;
use tokio::sync::watch;

use super::model::LocalEncoder;
use super::queue::Sequence;
use crate::intake::Life;
use crate::probe::{ProbeState, Probed, probe};

impl LocalEncoder {
    /// Whether the encoder makes progress: a step within the last second counts, a busy one is waited for, an idle one
    /// computes one token. Callers at the same time share one probe.
    ///
    /// # Errors
    /// [`byzerllm_core::ErrorKind::Unavailable`] when it has ended, [`byzerllm_core::ErrorKind::DeadlineExceeded`] when
    /// nothing happened until `deadline`, or the step's own error.
    pub async fn probe(&self, deadline: Instant) -> Result<()> {
        probe(self, deadline).await
    }
}

impl Probed for LocalEncoder {
    fn state(&self) -> &ProbeState {
        &self.probe
    }

    fn progress(&self) -> &watch::Sender<Option<Instant>> {
        &self.desk.progress
    }

    fn life(&self) -> &watch::Sender<Life> {
        &self.desk.life
    }

    fn alive(&self) -> Result<()> {
        self.desk.alive()
    }

    fn is_busy(&self) -> bool {
        self.desk.is_busy()
    }

    async fn compute(&self) -> Result<()> {
        let sequence = Sequence { ids: vec![0], types: vec![0] };
        self.desk.submit(vec![sequence], None)?.rows(None).await.map(drop)
    }
}
