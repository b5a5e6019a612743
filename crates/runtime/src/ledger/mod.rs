//! The ledger: one append-only record per attempt, prices, and budgets that are drawn from leased blocks.
//!
//! ```text
//! begin ─► price, budgets: reserve from the leased block ─► an attempt is open ┐
//!                     │ block used up: lease the next one, synced              ├─► Inbox ─► writer ─► ledger.db
//! settle ─► outcome: reported, counted, or at the reservation ─► a record ─────┘   (3 ms, one commit)
//! ```
//!
//! The page `docs/concepts/ledger.md` says what is promised, and the schema.

mod account;
mod attempt;
mod budget;
mod calendar;
mod database;
mod desk;
mod live;
pub(crate) mod local;
mod money;
mod price;
mod report;
mod rows;
mod shared;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use byzerllm_core::{Accounting, Error, ErrorKind, Result};
use rusqlite::Connection;

use crate::lifecycle::State;
use account::Account;
use database::Place;
use desk::Desk;
use live::{Budgets, Live};
use price::Prices;
use shared::{Clock, Shared, lock};
use writer::Inbox;

pub use budget::{Budget, BudgetLimit, NewBudget, Subject};
pub use calendar::Period;
pub use money::Micros;
pub use price::{NewPrice, Price, Tokens};
pub use report::{Flagged, TokensBySource, UsageBy, UsageReport, UsageRow};

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
