//! Requests whose answer comes in one piece: vectors for texts, scores for pairs.

use std::future::pending;
use std::sync::Arc;

use async_trait::async_trait;
use byzerllm_core::{
    EmbeddingInput, EmbeddingModel, EmbeddingRequest, Embeddings, Error, ErrorKind, ModelHandle, ModelInfo,
    RequestContext, RerankModel, RerankRequest, RerankScores, Result, Task, Usage,
};

use crate::admission::removed;
use crate::answers::{self, Answers, Key};
use crate::deployment::Deployment;
use crate::ledger::local;
use crate::limits;
use crate::metrics::Measured;

/// Tokens that a model may put around a text.
const MARKS: u64 = 16;
/// Bytes of all texts of a request for scores, a query counted with each of its passages.
pub(crate) const MAX_RERANK_BYTES: u64 = 256 << 20;

/// A request whose answer comes in one piece.
#[async_trait]
pub(crate) trait Whole: Send + Sync + Sized {
    type Model: ?Sized + Send + Sync;
    type Answer: Send;
    const TASK: Task;
    /// The operation's name in traces.
    const OPERATION: &'static str;

    fn model_name(&self) -> &str;

    /// The part of a deployment's model that answers, when it has one.
    fn model(handle: &ModelHandle) -> Option<Arc<Self::Model>>;

    /// What is wrong with the request whoever answers it.
    fn check(&self) -> Result<()>;

    /// Tokens at most, for limits of rates.
    fn tokens(&self) -> u64;

    /// Tokens at most, for the ledger.
    fn bound(&self, info: &ModelInfo) -> u64;

    /// How many vectors or scores the answer must have.
    fn expected(&self) -> usize;

    fn accounts(model: &Self::Model) -> bool;

    async fn ask(self, model: &Self::Model, context: RequestContext) -> Result<Self::Answer>;

    fn usage(answer: &Self::Answer) -> &Usage;

    fn count(answer: &Self::Answer) -> usize;

    fn key(&self, answers: &Answers, context: &RequestContext, deployment: &str) -> Result<Key>;

    fn kept(answers: &Answers, key: &Key) -> Option<Self::Answer>;

    fn keep(answers: &Answers, key: Key, answer: &Self::Answer);

    /// What the answer is made of, for messages.
    const PIECES: &'static str;
    /// What a model that cannot answer does not do, for messages.
    const ABILITY: &'static str;
}

#[async_trait]
impl Whole for EmbeddingRequest {
    type Model = dyn EmbeddingModel;
    type Answer = Embeddings;
    const TASK: Task = Task::Embedding;
    const OPERATION: &'static str = "embeddings";
    const PIECES: &'static str = "vectors";
    const ABILITY: &'static str = "makes no embeddings";

    fn model_name(&self) -> &str {
        &self.model
    }

    fn model(handle: &ModelHandle) -> Option<Arc<Self::Model>> {
        handle.embed.clone()
    }

    fn check(&self) -> Result<()> {
        if self.inputs.is_empty() {
            return Err(Error::invalid("input", "input is empty; send at least one text"));
        }
        Ok(())
    }

    fn tokens(&self) -> u64 {
        limits::embedding_tokens(self)
    }

    fn bound(&self, info: &ModelInfo) -> u64 {
        let length = info.context_length.map_or(u64::MAX, u64::from);
        let bound = |input: &EmbeddingInput| match input {
            EmbeddingInput::Text(text) => length.min(text.len() as u64 + MARKS),
            EmbeddingInput::Tokens(ids) => length.min(ids.len() as u64 + MARKS),
        };
        self.inputs.iter().map(bound).fold(0, u64::saturating_add)
    }

    fn expected(&self) -> usize {
        self.inputs.len()
    }

    fn accounts(model: &Self::Model) -> bool {
        model.accounts()
    }

    async fn ask(self, model: &Self::Model, context: RequestContext) -> Result<Embeddings> {
        model.embed(self, context).await
    }

    fn usage(answer: &Embeddings) -> &Usage {
        &answer.usage
    }

    fn count(answer: &Embeddings) -> usize {
        answer.vectors.len()
    }

    fn key(&self, answers: &Answers, context: &RequestContext, deployment: &str) -> Result<Key> {
        answers.embedding_key(context.principal.domain, deployment, self)
    }

    fn kept(answers: &Answers, key: &Key) -> Option<Embeddings> {
        answers.vectors(key)
    }

    fn keep(answers: &Answers, key: Key, answer: &Embeddings) {
        answers.keep_vectors(key, answer);
    }
}

#[async_trait]
impl Whole for RerankRequest {
    type Model = dyn RerankModel;
    type Answer = RerankScores;
    const TASK: Task = Task::Rerank;
    const OPERATION: &'static str = "rerank";
    const PIECES: &'static str = "scores";
    const ABILITY: &'static str = "does not score pairs of texts";

    fn model_name(&self) -> &str {
        &self.model
    }

    fn model(handle: &ModelHandle) -> Option<Arc<Self::Model>> {
        handle.rerank.clone()
    }

    fn check(&self) -> Result<()> {
        if self.pairs.is_empty() {
            return Err(Error::invalid("documents", "there is nothing to score; send at least one document"));
        }
        let bytes = self.pairs.iter().map(|pair| (pair.query.len() + pair.passage.len()) as u64);
        if bytes.fold(0, u64::saturating_add) > MAX_RERANK_BYTES {
            let message = format!(
                "the pairs have more than {MAX_RERANK_BYTES} bytes together, the query counted with each document; \
                 send fewer documents at a time or a shorter query"
            );
            return Err(Error::new(ErrorKind::TooLarge, message).with_param("documents"));
        }
        Ok(())
    }

    fn tokens(&self) -> u64 {
        limits::rerank_tokens(self)
    }

    fn bound(&self, info: &ModelInfo) -> u64 {
        let length = info.context_length.map_or(u64::MAX, u64::from);
        let bytes = self.pairs.iter().map(|pair| (pair.query.len() + pair.passage.len()) as u64 + MARKS);
        bytes.map(|bound| bound.min(length)).fold(0, u64::saturating_add)
    }

    fn expected(&self) -> usize {
        self.pairs.len()
    }

    fn accounts(model: &Self::Model) -> bool {
        model.accounts()
    }

    async fn ask(self, model: &Self::Model, context: RequestContext) -> Result<RerankScores> {
        model.rerank(self, context).await
    }

    fn usage(answer: &RerankScores) -> &Usage {
        &answer.usage
    }

    fn count(answer: &RerankScores) -> usize {
        answer.scores.len()
    }

    fn key(&self, answers: &Answers, context: &RequestContext, deployment: &str) -> Result<Key> {
        answers.rerank_key(context.principal.domain, deployment, self)
    }

    fn kept(answers: &Answers, key: &Key) -> Option<RerankScores> {
        answers.scores(key)
    }

    fn keep(answers: &Answers, key: Key, answer: &RerankScores) {
        answers.keep_scores(key, answer);
    }
}

/// Asks a deployment: waits for a place, and hands the request over.
pub(crate) async fn ask<R: Whole>(
    deployment: &Deployment,
    measured: &mut Measured,
    context: RequestContext,
    request: R,
) -> Result<R::Answer> {
    let name = &deployment.name;
    let (running, _token) = deployment.enter()?;
    let handle = &running.model.handle;
    let info = Arc::clone(&handle.info);
    let model = R::model(handle).ok_or_else(|| cannot(handle, name, R::ABILITY))?;
    request.check()?;
    let keep = match running.answers(&context) {
        Some(answers) => {
            let key = request.key(answers, &context, name)?;
            let kept = R::kept(answers, &key);
            deployment.numbers.looked_for_kept(kept.is_some());
            if let Some(answer) = kept {
                answers::account(&context, name, R::TASK).await?;
                measured.admitted();
                return Ok(answer);
            }
            Some((answers, key))
        }
        None => None,
    };
    let (expected, deadline) = (request.expected(), context.deadline);
    let place = running.admission.admit(name, deadline, &deployment.stop, || request.tokens()).await?;
    measured.admitted();
    let passed = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
            None => pending().await,
        }
    };
    let answer = tokio::select! {
        biased;
        () = deployment.stop.cancelled() => return Err(removed(name)),
        answer = local::whole(&*model, &info, name, request, context) => answer,
        () = passed => {
            let message = format!("the deadline passed while '{name}' made {}", R::PIECES);
            return Err(Error::new(ErrorKind::DeadlineExceeded, message));
        }
    };
    if let Some(ticket) = place.ticket() {
        match &answer {
            Ok(answer) => ticket.spent(R::usage(answer)),
            Err(error) => ticket.failed(error),
        }
    }
    let answer = answer?;
    let got = R::count(&answer);
    if got != expected {
        let message =
            format!("'{name}' made {got} {} of {expected} inputs; try again, or ask who runs it", R::PIECES);
        return Err(Error::new(ErrorKind::Upstream, message).with_usage(R::usage(&answer).clone()));
    }
    if let Some((answers, key)) = keep {
        R::keep(answers, key, &answer);
    }
    Ok(answer)
}

/// The refusal of a deployment that does something else.
pub(crate) fn cannot(handle: &ModelHandle, name: &str, ability: &str) -> Error {
    let message = format!("'{name}' {ability}: it {}", handle.ability());
    Error::new(ErrorKind::Unsupported, message).with_param("model")
}
