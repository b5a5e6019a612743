//! Answers kept for requests that come again, word for word. Off unless a deployment asks for it.
//!
//! An answer is kept when it is complete, and found by a keyed hash of everything that made it: the isolation domain,
//! the deployment, the request with its defaults filled in. The key is drawn when the deployment begins, so that nobody
//! can tell from outside which requests share an entry.

mod key;
mod record;
mod replay;
mod store;

use std::sync::Arc;
use std::time::Duration;

use byzerllm_core::{
    Attempt, ChatRequest, Domain, EmbeddingRequest, Embeddings, Ending, Error, Event, Notice, RequestContext,
    RerankRequest, RerankScores, Result, Settlement, Task, Usage,
};

use crate::spec::Limits;
pub(crate) use key::Key;
pub(crate) use record::Recorded;
pub(crate) use replay::Replay;
use store::{Kept, Store};

/// The kept answers of one deployment.
pub(crate) struct Answers {
    hash_key: [u8; 32],
    store: Store,
}

/// A chat's answer, without its first and its last event.
#[derive(Debug)]
pub(crate) struct Told {
    events: Vec<Event>,
    usage: Usage,
}

impl Answers {
    /// An empty cache of the size that these limits say; nothing when they say none.
    ///
    /// # Errors
    /// [`byzerllm_core::ErrorKind::Internal`] when the system has no random numbers.
    pub(crate) fn new(limits: &Limits) -> Result<Option<Arc<Self>>> {
        let wanted = limits.answer_cache_entries.is_some()
            || limits.answer_cache_bytes.is_some()
            || limits.answer_cache_seconds.is_some();
        if !wanted {
            return Ok(None);
        }
        let mut hash_key = [0; 32];
        getrandom::fill(&mut hash_key)
            .map_err(|error| Error::internal("the system has no random numbers").with_source(error))?;
        let entries = limits.answer_cache_entries.unwrap_or(Limits::ANSWER_CACHE_ENTRIES);
        let bytes = limits.answer_cache_bytes.unwrap_or(Limits::ANSWER_CACHE_BYTES);
        let seconds = limits.answer_cache_seconds.unwrap_or(Limits::ANSWER_CACHE_SECONDS);
        let store = Store::new(
            usize::try_from(entries).unwrap_or(usize::MAX),
            usize::try_from(bytes).unwrap_or(usize::MAX),
            Duration::from_secs(seconds),
        );
        Ok(Some(Arc::new(Self { hash_key, store })))
    }

    /// Where the answer to a request is kept.
    ///
    /// # Errors
    /// [`byzerllm_core::ErrorKind::Internal`] for a request that cannot be written down.
    pub(crate) fn chat_key(&self, domain: Domain, deployment: &str, request: &ChatRequest) -> Result<Key> {
        key::chat(&self.hash_key, domain, deployment, request)
    }

    /// Where the vectors of a request are kept.
    ///
    /// # Errors
    /// As [`Answers::chat_key`].
    pub(crate) fn embedding_key(
        &self,
        domain: Domain,
        deployment: &str,
        request: &EmbeddingRequest,
    ) -> Result<Key> {
        key::embedding(&self.hash_key, domain, deployment, request)
    }

    /// Where the scores of a request are kept.
    ///
    /// # Errors
    /// As [`Answers::chat_key`].
    pub(crate) fn rerank_key(
        &self,
        domain: Domain,
        deployment: &str,
        request: &RerankRequest,
    ) -> Result<Key> {
        key::rerank(&self.hash_key, domain, deployment, request)
    }

    /// The answer that is kept there, and its age.
    pub(crate) fn told(&self, key: &Key) -> Option<(Arc<Told>, Duration)> {
        match self.store.get(key)? {
            (Kept::Told(told), age) => Some((told, age)),
            (Kept::Vectors(_) | Kept::Scores(_), _) => None,
        }
    }

    /// The vectors that are kept there, as an answer of their own.
    pub(crate) fn vectors(&self, key: &Key) -> Option<Embeddings> {
        let (Kept::Vectors(kept), age) = self.store.get(key)? else { return None };
        let mut notices = kept.notices.clone();
        notices.push(cached(age));
        Some(Embeddings { vectors: kept.vectors.clone(), usage: repeated(&kept.usage), notices })
    }

    /// Keeps vectors.
    pub(crate) fn keep_vectors(&self, key: Key, embeddings: &Embeddings) {
        let numbers: usize =
            embeddings.vectors.iter().map(|vector| size_of_val(vector.as_slice()) + 24).sum();
        let notices = embeddings.notices.iter().filter(|notice| describes_answer(notice)).cloned().collect();
        let kept = Embeddings { notices, ..embeddings.clone() };
        self.store.put(key, Kept::Vectors(Arc::new(kept)), numbers);
    }

    /// The scores that are kept there, as an answer of their own.
    pub(crate) fn scores(&self, key: &Key) -> Option<RerankScores> {
        let (Kept::Scores(kept), age) = self.store.get(key)? else { return None };
        let mut scores = (*kept).clone();
        scores.notices.push(cached(age));
        scores.usage = repeated(&kept.usage);
        Some(scores)
    }

    /// Keeps scores.
    pub(crate) fn keep_scores(&self, key: Key, scores: &RerankScores) {
        let notices = scores.notices.iter().filter(|notice| describes_answer(notice)).cloned().collect();
        let kept = RerankScores { notices, ..scores.clone() };
        let numbers = size_of_val(kept.scores.as_slice()) + 24;
        self.store.put(key, Kept::Scores(Arc::new(kept)), numbers);
    }

    /// Keeps a whole answer that takes so many bytes.
    fn keep(&self, key: Key, told: Told, bytes: usize) {
        self.store.put(key, Kept::Told(Arc::new(told)), bytes);
    }

    /// The most bytes of one answer.
    fn most(&self) -> usize {
        self.store.most()
    }
}

/// Writes into the ledger that an answer was told again, for nothing.
///
/// # Errors
/// Why no record can be written.
pub(crate) async fn account(context: &RequestContext, deployment: &Arc<str>, task: Task) -> Result<()> {
    let Some(accounting) = &context.accounting else { return Ok(()) };
    let attempt = Attempt {
        request: context.id.clone(),
        principal: context.principal.clone(),
        deployment: Arc::clone(deployment),
        vendor: "local",
        model: Arc::clone(deployment),
        task,
        number: 1,
        prompt_tokens: 0,
        completion_tokens: Some(0),
    };
    let settlement =
        Settlement { ending: Ending::Cached, usage: None, vendor_request_id: None, first_event: None };
    accounting.begin(attempt).await?.settle(settlement);
    Ok(())
}

fn cached(age: Duration) -> Notice {
    Notice::Cached { age_seconds: age.as_secs() }
}

/// What an answer that is told again cost when it was made. All of its prompt came from a cache, this one.
fn repeated(usage: &Usage) -> Usage {
    Usage { cached_tokens: usage.prompt_tokens, cache_written_tokens: 0, ..usage.clone() }
}

/// Whether a notice is about the answer and not about the way it was made.
fn describes_answer(notice: &Notice) -> bool {
    match notice {
        Notice::Truncated { .. } | Notice::Ignored { .. } | Notice::InvalidToolCall { .. } => true,
        Notice::FailedOver { .. } | Notice::Restarted | Notice::Cached { .. } | Notice::CacheHit { .. } => {
            false
        }
    }
}
