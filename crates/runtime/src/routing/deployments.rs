//! The deployments of a runtime, as its routes see them.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use byzerllm_core::{
    ChatRequest, EmbeddingRequest, Embeddings, Error, ErrorKind, EventStream, ModelHandle, RequestContext,
    RerankRequest, RerankScores, Result,
};

use byzerllm_providers::BreakerState;

use super::{Standing, Targets};
use crate::lifecycle::Lifecycle;
use crate::runtime::Runtime;

/// A runtime's deployments. A route is one of them, so that it must not keep them alive.
pub(crate) struct Deployments(Weak<Lifecycle>);

impl Deployments {
    pub(crate) fn of(lifecycle: &Arc<Lifecycle>) -> Self {
        Self(Arc::downgrade(lifecycle))
    }

    fn runtime(&self) -> Result<Runtime> {
        let gone = || Error::new(ErrorKind::Unavailable, "the server is shutting down");
        self.0.upgrade().map(Runtime::over).ok_or_else(gone)
    }
}

#[async_trait]
impl Targets for Deployments {
    fn standing(&self, name: &str) -> Standing {
        let deployment = self.0.upgrade().and_then(|lifecycle| lifecycle.get(name));
        let Some(running) = deployment.and_then(|deployment| deployment.running().ok()) else {
            return Standing::Absent;
        };
        let breaker = running.model.worker.provider_metrics().map(|metrics| metrics.breaker);
        match (breaker, running.admission.has_room()) {
            (Some(BreakerState::Open), _) => Standing::Broken,
            (_, true) => Standing::Free,
            (_, false) => Standing::Full,
        }
    }

    fn model(&self, name: &str) -> Result<ModelHandle> {
        self.runtime()?.model(name)
    }

    async fn chat(
        &self,
        name: &str,
        mut request: ChatRequest,
        context: RequestContext,
    ) -> Result<EventStream> {
        name.clone_into(&mut request.model);
        self.runtime()?.chat(context, request).await
    }

    async fn embed(
        &self,
        name: &str,
        mut request: EmbeddingRequest,
        context: RequestContext,
    ) -> Result<Embeddings> {
        name.clone_into(&mut request.model);
        self.runtime()?.embed(context, request).await
    }

    async fn rerank(
        &self,
        name: &str,
        mut request: RerankRequest,
        context: RequestContext,
    ) -> Result<RerankScores> {
        name.clone_into(&mut request.model);
        self.runtime()?.rerank(context, request).await
    }
}
