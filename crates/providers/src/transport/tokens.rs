//! Tokens that a vendor hands out for a credential: fetched once, shared, renewed before they expire.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Failure;
use crate::Secret;

/// A token is renewed so long before it expires, or at half of its life if that is shorter.
const MARGIN: Duration = Duration::from_secs(60);
/// The longest life that is believed: 30 days.
const LONGEST: u64 = 30 * 24 * 3600;

/// The token of a deployment.
#[derive(Default)]
pub(crate) struct Tokens {
    current: RwLock<Option<Token>>,
    /// Held by whoever fetches one; the failure of the last fetch, for those who waited for it.
    fetching: Mutex<Option<(Instant, Arc<Failure>)>>,
}

#[derive(Clone)]
struct Token {
    secret: Arc<Secret>,
    renew: Instant,
}

impl Tokens {
    /// The token, if there is a fresh one.
    pub(crate) fn current(&self) -> Option<Arc<Secret>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().filter(|token| Instant::now() < token.renew).map(|token| Arc::clone(&token.secret))
    }

    /// The token, fresh or fetched. Of several that ask at once one fetches, and all get what it got, its failure too.
    pub(crate) async fn get<F>(&self, fetch: impl FnOnce() -> F) -> Result<Arc<Secret>, Failure>
    where
        F: Future<Output = Result<(Secret, u64), Failure>> + Send,
    {
        if let Some(secret) = self.current() {
            return Ok(secret);
        }
        let asked = Instant::now();
        let mut last = self.fetching.lock().await;
        if let Some(secret) = self.current() {
            return Ok(secret);
        }
        if let Some((at, failure)) = &*last
            && *at > asked
        {
            return Err(failure.duplicate());
        }
        match fetch().await {
            Ok((secret, seconds)) => {
                let life = Duration::from_secs(seconds.min(LONGEST));
                let secret = Arc::new(secret);
                let renew = Instant::now() + (life - MARGIN.min(life / 2));
                let token = Token { secret: Arc::clone(&secret), renew };
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(token);
                *last = None;
                Ok(secret)
            }
            Err(failure) => {
                *last = Some((Instant::now(), Arc::new(failure.duplicate())));
                Err(failure)
            }
        }
    }

    /// Forgets a token that the vendor calls wrong; whether it was the current one.
    pub(crate) fn forget(&self, wrong: &Arc<Secret>) -> bool {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let is_current = current.as_ref().is_some_and(|token| Arc::ptr_eq(&token.secret, wrong));
        if is_current {
            *current = None;
        }
        is_current
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use byzerllm_core::{Error, ErrorKind};

    use super::*;

    struct Vendor {
        tokens: Tokens,
        asked: AtomicU32,
    }

    impl Vendor {
        fn new() -> Self {
            Self { tokens: Tokens::default(), asked: AtomicU32::new(0) }
        }

        async fn get(&self, well: bool) -> Result<String, Failure> {
            let fetch = || async {
                let number = self.asked.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(1)).await;
                if well {
                    Ok((Secret::new(format!("token {number}")), 600))
                } else {
                    Err(Failure::unreachable(Error::new(ErrorKind::Unavailable, "no")))
                }
            };
            self.tokens.get(fetch).await.map(|secret| secret.expose().to_owned())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_fetches_for_all_until_shortly_before_the_end() {
        let vendor = Vendor::new();
        let (one, two, three) = tokio::join!(vendor.get(true), vendor.get(true), vendor.get(true));
        assert_eq!([one.unwrap(), two.unwrap(), three.unwrap()], ["token 0"; 3]);
        tokio::time::advance(Duration::from_secs(538)).await;
        assert_eq!(vendor.get(true).await.unwrap(), "token 0");
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(vendor.get(true).await.unwrap(), "token 1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_shared_by_those_who_waited_and_not_kept() {
        let vendor = Vendor::new();
        let (one, two) = tokio::join!(vendor.get(false), vendor.get(false));
        assert!(one.is_err() && two.is_err());
        assert_eq!(vendor.asked.load(Ordering::Relaxed), 1);
        assert_eq!(vendor.get(true).await.unwrap(), "token 1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_token_is_forgotten_once() {
        let vendor = Vendor::new();
        vendor.get(true).await.unwrap();
        let wrong = vendor.tokens.current().unwrap();
        assert!(vendor.tokens.forget(&wrong));
        assert_eq!(vendor.get(true).await.unwrap(), "token 1");
        assert!(!vendor.tokens.forget(&wrong), "the new one stays");
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_while_fetching_leaves_it_to_the_next() {
        let vendor = Vendor::new();
        let cut = tokio::time::timeout(Duration::from_millis(1), vendor.get(true)).await;
        assert!(cut.is_err());
        assert_eq!(vendor.get(true).await.unwrap(), "token 1");
    }
}
