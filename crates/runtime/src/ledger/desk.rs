//! Where attempts are announced: budgets are drawn from before, and settled after.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use byzerllm_core::{Accounting, Attempt, Ending, Error, ErrorKind, Reservation, Result, Settlement};

use super::account::{Account, Take, Wanting};
use super::attempt::{Info, Record, outcome};
use super::budget::{Subject, Unit};
use super::live::Live;
use super::price::Pricing;
use super::shared::Shared;

/// Attempts that may be open or wait to be written. Beyond it new ones are refused, so that memory is bounded and no
/// record is ever dropped.
const MAX_WAITING: u64 = 100_000;

/// Where attempts are announced.
pub(crate) struct Desk(pub(crate) Arc<Shared>);

#[async_trait]
impl Accounting for Desk {
    async fn begin(&self, attempt: Attempt) -> Result<Box<dyn Reservation>> {
        let shared = &self.0;
        shared.check()?;
        let slot = Slot::take(shared)?;
        let pricing = shared.prices().find(attempt.vendor, &attempt.model);
        let id = shared.next.fetch_add(1, Ordering::SeqCst);
        let info = Info { id, begun: shared.now_ms(), attempt, pricing };
        let mut shares = Shares(Vec::new());
        // What costs nothing needs no room: an answer from a cache.
        if info.attempt.prompt_tokens > 0 || info.attempt.completion_tokens != Some(0) {
            let budgets = shared.budgets();
            if let Some(key) = &info.attempt.principal.key_name {
                reserve(shared, budgets.of(Subject::Key, key), &info, &mut shares).await?;
            }
            let deployment = budgets.of(Subject::Deployment, &info.attempt.deployment);
            reserve(shared, deployment, &info, &mut shares).await?;
        }
        let info = Arc::new(info);
        shared.inbox.begun(Arc::clone(&info));
        slot.keep();
        Ok(Box::new(Held { shared: Arc::clone(shared), info, shares, over: false }))
    }
}

/// A place among the attempts that are open or wait to be written.
struct Slot<'a>(&'a Shared);

impl<'a> Slot<'a> {
    fn take(shared: &'a Shared) -> Result<Self> {
        let slot = Self(shared);
        let waiting = shared.waiting.fetch_add(1, Ordering::SeqCst);
        if waiting >= MAX_WAITING {
            let message = format!(
                "{waiting} attempts are open or wait to be written into the ledger; try again later, and look at \
                 the disk of the state directory"
            );
            return Err(Error::new(ErrorKind::Overloaded, message));
        }
        Ok(slot)
    }

    /// The writer gives it back.
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What one attempt holds of one account.
struct Share {
    account: Arc<Account>,
    reserved: u64,
    tokens: bool,
}

/// What an attempt holds of its accounts; given back when it never began.
struct Shares(Vec<Share>);

impl Drop for Shares {
    fn drop(&mut self) {
        for share in self.0.drain(..) {
            share.account.settle(share.reserved, 0);
        }
    }
}

/// Reserves from all budgets of one subject.
async fn reserve(
    shared: &Arc<Shared>,
    budgets: &[Arc<Live>],
    info: &Info,
    shares: &mut Shares,
) -> Result<()> {
    let (_, currency) = info.price();
    let free = matches!(info.pricing, Pricing::Free);
    let mut covered = free;
    for live in budgets {
        let amount = match &live.unit {
            Unit::Tokens => {
                let attempt = &info.attempt;
                attempt.completion_tokens.map(|completion| attempt.prompt_tokens.saturating_add(completion))
            }
            Unit::Money(unit) if currency == Some(unit.as_str()) => {
                covered = true;
                info.most()
            }
            Unit::Money(_) => continue,
        };
        let amount = amount.ok_or_else(|| live.unbounded())?;
        if let Some(account) = draw(shared, live, amount, info.begun).await? {
            let tokens = live.unit == Unit::Tokens;
            shares.0.push(Share { account, reserved: amount, tokens });
        }
    }
    // A limit in one currency would be none at all if another currency passed by it.
    let strict = budgets
        .iter()
        .find(|live| live.unit != Unit::Tokens && !live.allow_unknown_price.load(Ordering::Relaxed));
    match strict {
        Some(live) if !covered => Err(live.unpriced(info.attempt.vendor, &info.attempt.model, currency)),
        _ => Ok(()),
    }
}

/// Reserves from one budget; nothing when it was removed meanwhile.
async fn draw(shared: &Arc<Shared>, live: &Live, amount: u64, begun: i64) -> Result<Option<Arc<Account>>> {
    let mut now = begun / 1000;
    let mut wanting: Option<Wanting> = None;
    loop {
        shared.check()?;
        if live.removed.load(Ordering::SeqCst) {
            return Ok(None);
        }
        let account = live.account(now)?;
        let mut lease = false;
        if let Some(done) = taken(shared, live, &account, amount, &mut lease) {
            return done.map(|()| Some(account));
        }
        let mut changed = pin!(account.changed.notified());
        changed.as_mut().enable();
        // What changed before somebody listened was not heard.
        if let Some(done) = taken(shared, live, &account, amount, &mut lease) {
            return done.map(|()| Some(Arc::clone(&account)));
        }
        wanting = match wanting {
            Some(wanting) if wanting.is_for(&account) => Some(wanting),
            _ => Some(account.want(amount)),
        };
        if lease {
            shared.inbox.account(Arc::clone(&account));
        }
        // The ledger may have failed or closed before the change was awaited.
        shared.check()?;
        changed.await;
        now = shared.now();
    }
}

/// Reserves, or says that there is nothing; `None` when a lease is needed first. Once `lease` is true somebody must ask
/// for it.
fn taken(
    shared: &Shared,
    live: &Live,
    account: &Arc<Account>,
    amount: u64,
    lease: &mut bool,
) -> Option<Result<()>> {
    let done = match account.take(amount) {
        Take::Taken { lease: more } => {
            *lease |= more;
            Ok(())
        }
        Take::Spent { settled, reserved } => {
            Err(live.spent(account, amount, settled, reserved, shared.now()))
        }
        Take::Wait { lease: more } => {
            *lease |= more;
            return None;
        }
    };
    if *lease {
        shared.inbox.account(Arc::clone(account));
    }
    Some(done)
}

/// An attempt that is open.
struct Held {
    shared: Arc<Shared>,
    info: Arc<Info>,
    shares: Shares,
    over: bool,
}

impl Held {
    fn finish(&mut self, settlement: Settlement) {
        self.over = true;
        let outcome = outcome(&self.info, &settlement);
        for share in self.shares.0.drain(..) {
            let actual = match share.tokens {
                true if outcome.unbounded => share.reserved,
                true => outcome.tokens.total(),
                false => outcome.cost.unwrap_or(share.reserved),
            };
            if share.account.settle(share.reserved, actual) {
                self.shared.inbox.account(share.account);
            }
        }
        let ended = self.shared.now_ms();
        self.shared.inbox.ended(Record::new(Arc::clone(&self.info), ended, settlement, outcome));
    }
}

impl Reservation for Held {
    fn settle(mut self: Box<Self>, settlement: Settlement) {
        self.finish(settlement);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.over {
            let ending = Ending::Dropped;
            self.finish(Settlement { ending, usage: None, vendor_request_id: None, first_event: None });
        }
    }
}
