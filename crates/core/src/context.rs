//! Who asks, and until when.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Accounting, UsageHook};

/// The id of a request: time-ordered, unique, safe to log and to show.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct RequestId(pub String);

impl RequestId {
    /// A fresh id (UUID version 7 without dashes).
    #[must_use]
    pub fn generate() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let mut random = randomness();
        // A forked process has the same random bytes, but lives at other nanoseconds.
        for (byte, nanos) in random.iter_mut().rev().zip(since.subsec_nanos().to_le_bytes()) {
            *byte ^= nanos;
        }
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
        let mut text = [0; 32];
        Self(id.simple().encode_lower(&mut text).to_owned())
    }
}

/// Ten random bytes. The system is asked for those of many ids at once.
fn randomness() -> [u8; 10] {
    const IDS: usize = 64;
    struct Pool {
        used: usize,
        bytes: [[u8; 10]; IDS],
    }
    thread_local! {
        static POOL: RefCell<Pool> = const { RefCell::new(Pool { used: IDS, bytes: [[0; 10]; IDS] }) };
    }
    POOL.with_borrow_mut(|pool| {
        if pool.used >= IDS {
            if getrandom::fill(pool.bytes.as_flattened_mut()).is_err() {
                let [.., a, b, c, d, e, f, g, h, i, j] = uuid::Uuid::now_v7().into_bytes();
                return [a, b, c, d, e, f, g, h, i, j];
            }
            pool.used = 0;
        }
        let ten = pool.bytes[pool.used];
        pool.used += 1;
        ten
    })
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The isolation domain: cached prefixes and answers are shared only inside one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Domain(pub u64);

impl Domain {
    /// The one domain of a loopback server without keys and of an embedded runtime.
    pub const LOCAL: Domain = Domain(0);
}

/// On whose behalf a request runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Principal {
    /// What the principal may share a cache with.
    pub domain: Domain,
    /// The name of the API key, for logs and usage; never the key.
    pub key_name: Option<String>,
}

/// What may happen to an answer when a deployment that answers fails, from the least to the most that a reader notices.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Takeover {
    /// Nothing: the failure is the answer.
    Never,
    /// Another deployment may answer as long as nothing of the answer was sent.
    BeforeFirst,
    /// Another one may also go on from the text so far.
    Continue,
    /// Another one may also begin the answer again ([`crate::Notice::Restarted`]); what was sent is void then.
    #[default]
    Restart,
}

impl Takeover {
    /// Every word, from the least to the most.
    pub const ALL: [Takeover; 4] =
        [Takeover::Never, Takeover::BeforeFirst, Takeover::Continue, Takeover::Restart];

    /// The word in settings and headers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::BeforeFirst => "before_first",
            Self::Continue => "continue",
            Self::Restart => "restart",
        }
    }
}

impl std::str::FromStr for Takeover {
    type Err = crate::Error;

    fn from_str(word: &str) -> crate::Result<Self> {
        let known = Self::ALL.into_iter().find(|takeover| takeover.as_str() == word.trim());
        known.ok_or_else(|| {
            crate::Error::invalid("takeover", "takeover must be never, before_first, continue or restart")
        })
    }
}

/// What travels beside a request.
#[derive(Clone)]
pub struct RequestContext {
    /// The request's id.
    pub id: RequestId,
    /// When the work must be over.
    pub deadline: Option<Instant>,
    /// On whose behalf.
    pub principal: Principal,
    /// Told the usage at the end, also when the stream is dropped.
    pub on_usage: Option<UsageHook>,
    /// Asked before, and told after, every attempt at a vendor that answers for money.
    pub accounting: Option<Arc<dyn Accounting>>,
    /// Whether an answer kept from an earlier request will not do, and this one's is not to be kept.
    pub no_cache: bool,
    /// The most that may happen to the answer when a deployment that answers fails. It narrows what the deployment
    /// declares and never widens it.
    pub takeover: Takeover,
    /// How many routes it has come through.
    pub hops: u8,
}

impl RequestContext {
    /// A context without deadline in the local domain.
    #[must_use]
    pub fn local() -> Self {
        Self::new(RequestId::generate(), Principal::default())
    }

    /// The context of a request, without deadline.
    #[must_use]
    pub fn new(id: RequestId, principal: Principal) -> Self {
        Self {
            id,
            deadline: None,
            principal,
            on_usage: None,
            accounting: None,
            no_cache: false,
            takeover: Takeover::default(),
            hops: 0,
        }
    }
}

impl fmt::Debug for RequestContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestContext")
            .field("id", &self.id)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_of_version_7_and_none_comes_twice() {
        let many = || (0..1000).map(|_| RequestId::generate().0).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(many)).collect();
        let ids: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 4000);
        for id in ids {
            let read = uuid::Uuid::parse_str(&id).unwrap();
            assert_eq!((read.get_version_num(), read.get_variant()), (7, uuid::Variant::RFC4122), "{id}");
        }
    }
}
