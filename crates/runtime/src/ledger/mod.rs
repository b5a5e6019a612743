//! The ledger: one append-only record per attempt, prices, and budgets that are drawn from leased blocks.
//!
//! ```text
//! begin ─► price, budgets: reserve from the leased block ─► an attempt is open ┐
//!                     │ block used up: lease the next one, synced              ├─► Inbox ─► writer ─► ledger.db
//! settle ─► outcome: reported, counted, or at the reservation ─► a record ─────┘   (3 ms, one commit)
//! ```
//!
//! The page `docs/concepts/ledger.md` says what is promised, and the schema.

mod attempt;
mod budget;
mod calendar;
mod database;
pub(crate) mod local;
mod money;
mod price;
mod report;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, mpsc};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use byzerllm_core::{Accounting, Attempt, Ending, Error, ErrorKind, Reservation, Result, Settlement};
use rusqlite::Connection;

use crate::lifecycle::State;
use attempt::{Info, Record, Source, outcome};
use budget::{Account, Budgets, Live, Take, Unit, Wanting};
use database::Place;
use price::{Prices, Pricing};
use writer::Inbox;

pub use budget::{Budget, BudgetLimit, NewBudget, Subject};
pub use calendar::Period;
pub use money::Micros;
pub use price::{NewPrice, Price, Tokens};
pub use report::{Flagged, TokensBySource, UsageBy, UsageReport, UsageRow};

/// Attempts that may be open or wait to be written. Beyond it new ones are refused, so that memory is bounded and no
/// record is ever dropped.
const MAX_WAITING: u64 = 100_000;

type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// What the ledger counts about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LedgerMetrics {
    /// Attempts that are open or wait to be written.
    pub waiting: u64,
    /// Records written with the vendor's own numbers.
    pub reported: u64,
    /// Records written with counted numbers.
    pub counted: u64,
    /// Records written at their reservation.
    pub estimated: u64,
    /// Records written without a cost, because a price or a bound was missing.
    pub without_cost: u64,
    /// Whether records cannot be written at present, so that attempts are refused.
    pub failing: bool,
}

/// What callers, reservations and the writer share.
pub(crate) struct Shared {
    place: Place,
    inbox: Inbox,
    clock: Clock,
    next: AtomicI64,
    waiting: AtomicU64,
    closed: AtomicBool,
    failing: AtomicBool,
    failure: Mutex<Option<Error>>,
    prices: RwLock<Arc<Prices>>,
    budgets: RwLock<Arc<Budgets>>,
    reported: AtomicU64,
    counted: AtomicU64,
    estimated: AtomicU64,
    without_cost: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn now_ms(&self) -> i64 {
        let since = (self.clock)().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn now(&self) -> i64 {
        self.now_ms() / 1000
    }

    fn next_id(&self) -> i64 {
        self.next.load(Ordering::SeqCst)
    }

    fn prices(&self) -> Arc<Prices> {
        Arc::clone(&self.prices.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn budgets(&self) -> Arc<Budgets> {
        Arc::clone(&self.budgets.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_failing(&self) -> bool {
        self.failing.load(Ordering::SeqCst)
    }

    /// Records cannot be written.
    fn failed(&self, error: &Error) {
        let mut failure = lock(&self.failure);
        if failure.is_none() {
            tracing::error!(%error, "attempts are refused until the ledger can be written");
        }
        *failure = Some(error.duplicate());
        self.failing.store(true, Ordering::SeqCst);
    }

    /// They can, again.
    fn mended(&self) {
        if self.is_failing() {
            *lock(&self.failure) = None;
            self.failing.store(false, Ordering::SeqCst);
            tracing::info!("the ledger is written again");
        }
    }

    fn recorded(&self, records: &[Record]) {
        for record in records {
            let counter = match record.outcome.source {
                Source::Reported => &self.reported,
                Source::Counted => &self.counted,
                Source::Estimated => &self.estimated,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            if record.outcome.cost.is_none() {
                self.without_cost.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.waiting.fetch_sub(records.len() as u64, Ordering::SeqCst);
    }

    /// Whether attempts are accounted for at present.
    fn check(&self) -> Result<()> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(closed());
        }
        if self.is_failing() {
            let failure = lock(&self.failure);
            return Err(failure.as_ref().map_or_else(closed, Error::duplicate));
        }
        Ok(())
    }

    /// Has the writer work on the database, and waits for it.
    fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(closed());
        }
        let (send, receive) = mpsc::channel();
        let place = self.place.clone();
        self.inbox.work(Box::new(move |connection| {
            let done =
                connection.and_then(|connection| work(connection).map_err(|error| place.error(error).into()));
            // Nobody waits any more for what was done all the same.
            let _gone = send.send(done);
        }));
        receive.recv().map_err(|_| closed())?
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the server is shutting down")
}

/// The ledger of a state directory, or of a runtime that keeps nothing: then in memory, the last 10,000 records.
///
/// Methods that read or change it wait for the disk: call them where a thread may block.
pub struct Ledger {
    shared: Arc<Shared>,
    accounting: Arc<dyn Accounting>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Changes of budgets and prices come one after another.
    changing: Mutex<()>,
    /// Holds the directory where no runtime does.
    _state: Option<State>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Ledger").field("place", &self.shared.place).finish_non_exhaustive()
    }
}

impl Ledger {
    /// Opens the ledger of a state directory that no server uses.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when one does, and whatever is wrong with the files.
    pub fn open(directory: &Path) -> Result<Self> {
        let state = State::open(directory)?;
        let mut ledger = Self::start(Place::in_directory(Some(directory)), Arc::new(SystemTime::now))?;
        ledger._state = Some(state);
        Ok(ledger)
    }

    /// The ledger of a runtime, which holds the directory.
    pub(crate) fn of_runtime(directory: Option<&Path>) -> Result<Self> {
        Self::start(Place::in_directory(directory), Arc::new(SystemTime::now))
    }

    fn start(place: Place, clock: Clock) -> Result<Self> {
        let now = clock().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let connection = place.open(now)?;
        let wrong = |error| Error::from(place.error(error));
        let next = database::next_id(&connection).map_err(wrong)?;
        let prices = Prices::new(database::prices(&connection).map_err(wrong)?);
        let mut budgets = Budgets::default();
        for stored in database::budgets(&connection).map_err(wrong)? {
            let (begun, drawn) = stored.latest.unwrap_or((stored.budget.period.start(now / 1000), 0));
            let account = Account::new(stored.id, begun, stored.limit, drawn);
            budgets.insert(Arc::new(Live::new(stored.id, &stored.budget, stored.unit, account)));
        }
        let shared = Arc::new(Shared {
            place,
            inbox: Inbox::default(),
            clock,
            next: AtomicI64::new(next),
            waiting: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            failure: Mutex::new(None),
            prices: RwLock::new(Arc::new(prices)),
            budgets: RwLock::new(Arc::new(budgets)),
            reported: AtomicU64::new(0),
            counted: AtomicU64::new(0),
            estimated: AtomicU64::new(0),
            without_cost: AtomicU64::new(0),
        });
        let writer = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || writer::run(&writer, connection))
            .map_err(|error| {
                Error::new(
                    ErrorKind::Unavailable,
                    format!("the system refuses a thread for the ledger: {error}"),
                )
                .with_source(error)
            })?;
        Ok(Self {
            accounting: Arc::new(Desk(Arc::clone(&shared))),
            shared,
            thread: Mutex::new(Some(thread)),
            changing: Mutex::new(()),
            _state: None,
        })
    }

    /// What models ask before each attempt.
    #[must_use]
    pub fn accounting(&self) -> Arc<dyn Accounting> {
        Arc::clone(&self.accounting)
    }

    /// Waits until everything that was settled so far is committed and on the disk.
    ///
    /// # Errors
    /// Why it cannot be written; it stays in memory and is tried again.
    pub fn flush(&self) -> Result<()> {
        self.shared.work(|_| Ok(()))
    }

    /// Sums over the records.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn usage(&self, by: UsageBy, since: Option<u64>) -> Result<UsageReport> {
        self.flush()?;
        match self.shared.place.reader()? {
            // Beside the writer, which goes on.
            Some(connection) => {
                report::report(&connection, by, since).map_err(|error| self.shared.place.error(error).into())
            }
            None => self.shared.work(move |connection| report::report(connection, by, since)),
        }
    }

    /// All budgets and where they stand, by subject and name.
    #[must_use]
    pub fn budgets(&self) -> Vec<Budget> {
        let now = self.shared.now();
        let mut all: Vec<Budget> = self.shared.budgets().all().map(|live| live.status(now)).collect();
        all.sort_by(|a, b| {
            let key = |it: &Budget| (it.budget.subject.as_str(), it.budget.name.clone(), it.id);
            key(a).cmp(&key(b))
        });
        all
    }

    /// Sets a budget, in place of one for the same subject, unit and period. What that one has spent stays spent.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] naming the field at fault, and what is wrong with the files.
    pub fn set_budget(&self, budget: &NewBudget) -> Result<Budget> {
        let (unit, limit) = budget.checked()?;
        let _alone = lock(&self.changing);
        let now = self.shared.now();
        let (stored, stored_unit) = (budget.clone(), unit.clone());
        let put = move |connection: &mut Connection| {
            database::put_budget(connection, &stored, &stored_unit, limit, now)
        };
        let id = self.shared.work(put)?;
        let mut budgets = Budgets::clone(&self.shared.budgets());
        let known = budgets.of(budget.subject, &budget.name).iter().find(|live| live.id == id).cloned();
        let live = match known {
            Some(live) => {
                live.latest().set_limit(limit);
                live.allow_unknown_price.store(budget.allow_unknown_price, Ordering::Relaxed);
                live
            }
            None => {
                let account = Account::new(id, budget.period.start(now), limit, 0);
                let live = Arc::new(Live::new(id, budget, unit, account));
                budgets.insert(Arc::clone(&live));
                self.install(budgets);
                live
            }
        };
        Ok(live.status(now))
    }

    /// Removes a budget, and what was spent of it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], and what is wrong with the files.
    pub fn remove_budget(&self, id: u64) -> Result<()> {
        let _alone = lock(&self.changing);
        let id = i64::try_from(id).unwrap_or(i64::MAX);
        if !self.shared.work(move |connection| database::remove_budget(connection, id))? {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no budget {id}")).with_param("id"));
        }
        let mut budgets = Budgets::clone(&self.shared.budgets());
        if let Some(live) = budgets.remove(id) {
            live.removed.store(true, Ordering::SeqCst);
            live.latest().changed.notify_waiters();
        }
        self.install(budgets);
        Ok(())
    }

    fn install(&self, budgets: Budgets) {
        *self.shared.budgets.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(budgets);
    }

    /// The prices in force, by vendor and model.
    #[must_use]
    pub fn prices(&self) -> Vec<Price> {
        self.shared.prices().list()
    }

    /// Sets prices, each in place of the one for the same vendor and model, all or none. Attempts that began before
    /// keep theirs.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] naming the field at fault, and what is wrong with the files.
    pub fn set_prices(&self, prices: Vec<NewPrice>) -> Result<Vec<Price>> {
        if prices.is_empty() || prices.len() > NewPrice::MAX_AT_ONCE {
            let most = NewPrice::MAX_AT_ONCE;
            return Err(Error::invalid("prices", format!("1 to {most} prices are set at once")));
        }
        let prices = prices.into_iter().map(NewPrice::checked).collect::<Result<Vec<_>>>()?;
        let now = self.shared.now();
        self.change_prices(move |connection| database::set_prices(connection, &prices, now))?;
        Ok(self.prices())
    }

    /// Takes a price out of force. Records that it was used for still name it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], and what is wrong with the files.
    pub fn remove_price(&self, id: u64) -> Result<()> {
        let now = self.shared.now();
        let number = i64::try_from(id).unwrap_or(i64::MAX);
        if !self.change_prices(move |connection| database::retire_price(connection, number, now))? {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no price {id}")).with_param("id"));
        }
        Ok(())
    }

    fn change_prices<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let _alone = lock(&self.changing);
        let (result, list) = self.shared.work(move |connection| {
            let result = change(connection)?;
            Ok((result, database::prices(connection)?))
        })?;
        *self.shared.prices.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Prices::new(list));
        Ok(result)
    }

    /// What the ledger counts about itself. Never waits.
    #[must_use]
    pub fn metrics(&self) -> LedgerMetrics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LedgerMetrics {
            waiting: read(&self.shared.waiting),
            reported: read(&self.shared.reported),
            counted: read(&self.shared.counted),
            estimated: read(&self.shared.estimated),
            without_cost: read(&self.shared.without_cost),
            failing: self.shared.is_failing(),
        }
    }

    /// Writes everything, gives leases back and lets go of the file. Attempts that are still open settle at their
    /// reservation when the ledger is opened next.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.inbox.close();
        let thread = lock(&self.thread).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the ledger's thread ended by a bug; please report this");
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.close();
    }
}

/// Where attempts are announced.
struct Desk(Arc<Shared>);

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
                reserve(shared, budgets.of(budget::Subject::Key, key), &info, &mut shares).await?;
            }
            let deployment = budgets.of(budget::Subject::Deployment, &info.attempt.deployment);
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
        if let Some(account) = draw(shared, live, amount).await? {
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
async fn draw(shared: &Arc<Shared>, live: &Live, amount: u64) -> Result<Option<Arc<Account>>> {
    let mut wanting: Option<Wanting> = None;
    loop {
        shared.check()?;
        if live.removed.load(Ordering::SeqCst) {
            return Ok(None);
        }
        let account = live.account(shared.now())?;
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
