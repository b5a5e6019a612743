//! What is asked before, and told after, every attempt to get an answer: the seam between models and a ledger.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::{ErrorKind, Principal, RequestId, Result, Usage};

/// What an attempt serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Task {
    /// Text generation.
    Chat,
    /// Vectors for texts.
    Embedding,
    /// Scores for pairs of texts.
    Rerank,
}

impl Task {
    /// The word in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Embedding => "embedding",
            Self::Rerank => "rerank",
        }
    }
}

/// One attempt, before it is made. Retries and fallbacks of a request are attempts of their own.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The request that it serves.
    pub request: RequestId,
    /// On whose behalf.
    pub principal: Principal,
    /// The deployment that is to answer.
    pub deployment: Arc<str>,
    /// The vendor's name, or `local`.
    pub vendor: &'static str,
    /// The model's name at the vendor, which prices go by.
    pub model: Arc<str>,
    /// What it serves.
    pub task: Task,
    /// Counts from 1 within the deployment.
    pub number: u32,
    /// No bill can hold more prompt tokens than this.
    pub prompt_tokens: u64,
    /// No bill can hold more generated tokens than this; `None` when nothing bounds them.
    pub completion_tokens: Option<u64>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// With an answer, of which the usage is known as [`Usage::source`] says.
    Answered,
    /// The vendor refused before it did anything that it bills.
    Refused(ErrorKind),
    /// It failed when the vendor may already have worked for it.
    Failed(ErrorKind),
    /// The caller went away.
    Dropped,
    /// The answer came from our own cache; nobody was asked. Such an attempt begins with bounds of zero tokens, so
    /// that a spent budget does not refuse it.
    Cached,
}

/// What is known when an attempt is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// How it ended.
    pub ending: Ending,
    /// The tokens, with their source. An attempt that ended otherwise than answered may have some, too.
    pub usage: Option<Usage>,
    /// The vendor's id of it.
    pub vendor_request_id: Option<String>,
    /// From its start to its first piece of answer.
    pub first_event: Option<Duration>,
}

/// Decides whether an attempt may be made, and keeps what it cost.
#[async_trait]
pub trait Accounting: Send + Sync {
    /// Reserves what the attempt can cost at most. Ready at once nearly always; where a budget's leased block is used
    /// up it waits, without holding the thread, until the next block is on the disk. Dropping the future reserves
    /// nothing.
    ///
    /// # Errors
    /// [`ErrorKind::RateLimited`] when a budget is spent, [`ErrorKind::PermissionDenied`] when it forbids the attempt
    /// (a price that nobody knows), [`ErrorKind::InvalidRequest`] when it needs a bound on generated tokens and there
    /// is none, [`ErrorKind::Overloaded`] when records are not written fast enough, [`ErrorKind::Unavailable`] when
    /// they cannot be written at all. None of them is worth a retry by whoever asks: each says what to do.
    async fn begin(&self, attempt: Attempt) -> Result<Box<dyn Reservation>>;
}

/// What an attempt has reserved. Dropping it settles as [`Ending::Dropped`] without a usage: at the whole reservation.
pub trait Reservation: Send + Sync {
    /// Replaces the reservation by what is known now. Never waits.
    fn settle(self: Box<Self>, settlement: Settlement);
}
