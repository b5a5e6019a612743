//! The one thread that writes: it collects what came within a few milliseconds and commits it at once.
//!
//! Records are committed without waiting for the disk (`synchronous = NORMAL`): they survive the death of the process,
//! and at most half a second later they are synced, too. A lease is committed with `FULL` and only then given out.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use byzerllm_core::Result;
use rusqlite::{Connection, TransactionBehavior, params};

use super::account::Account;
use super::attempt::{Info, Record};
use super::database::{Place, signed};
use super::rows::{BEGUN, ENDED, Records, insert_attempt};
use super::shared::Shared;

/// How long a record waits for others: a commit begins within it, well below the 5 ms that are promised.
const COLLECT: Duration = Duration::from_millis(3);
/// What was not yet synced is, after this time.
const SYNC: Duration = Duration::from_millis(500);
/// How long to wait before a commit that failed is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// Blocks of a budget that are kept when others are given back.
const KEEP: u64 = 2;
/// Records that a ledger in memory keeps.
pub(crate) const KEPT_IN_MEMORY: i64 = 10_000;

/// Gets the database, or why it cannot be written.
pub(crate) type Work = Box<dyn FnOnce(Result<&mut Connection>) + Send>;

/// What holds once a commit has succeeded.
#[derive(Default)]
struct Committed {
    /// Accounts and what they are granted.
    grants: Vec<(Arc<Account>, u64)>,
    /// Attempts that have a row in the table of open ones.
    opened: Vec<i64>,
}

/// What waits for the writer.
#[derive(Default)]
struct Batch {
    begun: Vec<Arc<Info>>,
    ended: Vec<Record>,
    accounts: Vec<Arc<Account>>,
    work: Vec<Work>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.begun.is_empty() && self.ended.is_empty() && self.accounts.is_empty() && self.work.is_empty()
    }

    fn extend(&mut self, other: Self) {
        self.begun.extend(other.begun);
        self.ended.extend(other.ended);
        self.accounts.extend(other.accounts);
        self.work.extend(other.work);
    }
}

#[derive(Default)]
struct State {
    batch: Batch,
    /// Somebody waits for the commit.
    urgent: bool,
    /// The writer sleeps until it is woken.
    idle: bool,
    closing: bool,
    /// The writer is gone.
    over: bool,
}

/// Where everyone leaves what the writer is to write.
#[derive(Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    wake: Condvar,
}

impl Inbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, urgent: bool, put: impl FnOnce(&mut Batch)) {
        let mut state = self.state();
        put(&mut state.batch);
        let wake = state.idle || (urgent && !state.urgent);
        state.urgent |= urgent;
        state.idle = false;
        drop(state);
        // One call of the system per commit, not per record.
        if wake {
            self.wake.notify_one();
        }
    }

    pub(crate) fn begun(&self, info: Arc<Info>) {
        self.push(false, |batch| batch.begun.push(info));
    }

    pub(crate) fn ended(&self, record: Record) {
        self.push(false, |batch| batch.ended.push(record));
    }

    /// Writes what is drawn from an account, and the lease that it asks for.
    pub(crate) fn account(&self, account: Arc<Account>) {
        self.push(true, |batch| batch.accounts.push(account));
    }

    /// Work on the database after everything that came before is committed.
    pub(crate) fn work(&self, work: Work) {
        self.push(true, |batch| batch.work.push(work));
        // The writer may have gone in between.
        if self.state().over {
            self.end();
        }
    }

    /// The writer is gone: who waits for work learns that it was dropped.
    fn end(&self) {
        let mut state = self.state();
        state.over = true;
        let forgotten = std::mem::take(&mut state.batch.work);
        drop(state);
        drop(forgotten);
    }

    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closing = true;
        drop(state);
        self.wake.notify_one();
    }

    /// The next batch, or nothing when `patience` is over; and whether it is the last.
    fn next(&self, patience: Option<Duration>) -> (Batch, bool) {
        let mut state = self.state();
        if state.batch.is_empty() && !state.closing {
            state.idle = true;
            let sleeping = |state: &mut State| state.idle && !state.closing;
            state = match patience {
                None => self.wake.wait_while(state, sleeping).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let woken = self.wake.wait_timeout_while(state, patience, sleeping);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.idle = false;
        }
        if !state.batch.is_empty() {
            let collecting = |state: &mut State| !state.urgent && !state.closing;
            let woken = self.wake.wait_timeout_while(state, COLLECT, collecting);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.urgent = false;
        (std::mem::take(&mut state.batch), state.closing)
    }

    /// Waits before another try and takes what came meanwhile.
    fn pause(&self) -> (Batch, bool) {
        let state = self.state();
        let woken = self.wake.wait_timeout_while(state, RETRY, |state| !state.closing);
        let mut state = woken.unwrap_or_else(PoisonError::into_inner).0;
        state.urgent = false;
        (std::mem::take(&mut state.batch), state.closing)
    }
}

/// The writer's own.
struct Writer {
    shared: Arc<Shared>,
    connection: Connection,
    /// Attempts whose row is in the table of open ones.
    open: HashSet<i64>,
    /// Whether commits wait for the disk at present.
    full: bool,
    /// Since when there is something that the disk need not have.
    unsynced: Option<Instant>,
    /// The oldest record that a ledger in memory keeps.
    oldest: i64,
}

/// The thread's body: until the ledger is closed and everything is written.
pub(crate) fn run(shared: &Arc<Shared>, connection: Connection) {
    give_way();
    write(shared, connection);
    shared.inbox.end();
}

/// Requests go first where cores are few. A quarter of a core that they want, too, is still this thread's: several times
/// what it needs. Anywhere but on Linux it would be the whole process that gives way.
#[cfg(target_os = "linux")]
fn give_way() {
    const STEPS: i32 = 5;
    if let Err(error) = rustix::process::setpriority_process(None, STEPS) {
        tracing::debug!(%error, "the ledger's thread keeps its priority");
    }
}

#[cfg(not(target_os = "linux"))]
fn give_way() {}

fn write(shared: &Arc<Shared>, connection: Connection) {
    let shared = Arc::clone(shared);
    let mut writer =
        Writer { shared, connection, open: HashSet::new(), full: true, unsynced: None, oldest: 0 };
    let mut waiting = Batch::default();
    loop {
        let patience = writer.unsynced.map(|since| SYNC.saturating_sub(since.elapsed()));
        let (batch, mut closing) = writer.shared.inbox.next(patience);
        waiting.extend(batch);
        loop {
            if closing {
                writer.return_leases(&mut waiting);
            } else if writer.is_due() {
                waiting.accounts.extend(writer.surplus(KEEP));
            }
            match writer.commit(&waiting, closing) {
                Ok(committed) => {
                    writer.committed(std::mem::take(&mut waiting), committed);
                    break;
                }
                Err(error) => writer.failed(error, &mut waiting),
            }
            if closing {
                let records = waiting.ended.len();
                tracing::error!(records, "the ledger was closed with records that it could not write");
                return;
            }
            let (batch, last) = writer.shared.inbox.pause();
            waiting.extend(batch);
            closing = last;
        }
        if closing {
            writer.finish();
            return;
        }
    }
}

impl Writer {
    /// Writes a batch, all or nothing.
    fn commit(&mut self, batch: &Batch, closing: bool) -> rusqlite::Result<Committed> {
        let full = self.is_due() || closing || self.shared.is_failing() || !batch.accounts.is_empty();
        let mut committed = Committed::default();
        if batch.begun.is_empty() && batch.ended.is_empty() && !full {
            return Ok(committed);
        }
        self.wait_for_disk(full)?;
        let next = self.shared.next_id();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            // What began and ended within one commit needs no row among the open ones.
            let mut ended: Vec<i64> = batch.ended.iter().map(|record| record.info.id).collect();
            ended.sort_unstable();
            let mut begin = transaction.prepare_cached(BEGUN)?;
            for info in batch.begun.iter().filter(|info| ended.binary_search(&info.id).is_err()) {
                insert_attempt(&mut begin, info)?;
                committed.opened.push(info.id);
            }
            let mut end = transaction.prepare_cached(ENDED)?;
            let mut records = Records::new(&mut end);
            let mut forget = transaction.prepare_cached("DELETE FROM attempts WHERE id = ?1")?;
            for record in &batch.ended {
                records.insert(record)?;
                if self.open.contains(&record.info.id) {
                    forget.execute(params![record.info.id])?;
                }
            }
        }
        if full {
            let mut draw = transaction.prepare_cached(DRAWN)?;
            for account in &batch.accounts {
                if !committed.grants.iter().any(|(known, _)| Arc::ptr_eq(known, account)) {
                    let (drawn, grant) = account.lease();
                    draw.execute(params![account.budget, account.period, signed(drawn)])?;
                    committed.grants.push((Arc::clone(account), grant));
                }
            }
            let mut state = transaction.prepare_cached("UPDATE state SET synced = ?1, next = ?2")?;
            state.execute(params![self.shared.now_ms(), next])?;
        }
        let oldest = next - KEPT_IN_MEMORY;
        if matches!(self.shared.place, Place::Memory) && oldest >= self.oldest + KEPT_IN_MEMORY / 10 {
            transaction.execute("DELETE FROM records WHERE id < ?1", params![oldest])?;
            self.oldest = oldest;
        }
        transaction.commit()?;
        Ok(committed)
    }

    /// Whether commits wait for the disk.
    fn wait_for_disk(&mut self, full: bool) -> rusqlite::Result<()> {
        if self.full != full {
            let word = if full { "FULL" } else { "NORMAL" };
            self.connection.execute_batch(&format!("PRAGMA synchronous = {word}"))?;
            self.full = full;
        }
        Ok(())
    }

    /// Whether the disk must have what was committed without waiting for it.
    fn is_due(&self) -> bool {
        self.unsynced.is_some_and(|since| since.elapsed() >= SYNC)
    }

    /// Tells everyone that a batch is written.
    fn committed(&mut self, batch: Batch, committed: Committed) {
        self.shared.mended();
        for (account, grant) in committed.grants {
            account.granted(grant);
        }
        if !self.open.is_empty() {
            for record in &batch.ended {
                self.open.remove(&record.info.id);
            }
        }
        self.open.extend(committed.opened);
        self.shared.recorded(&batch.ended);
        self.unsynced = if self.full { None } else { self.unsynced.or_else(|| Some(Instant::now())) };
        for work in batch.work {
            let ready = self.wait_for_disk(true);
            match ready {
                Ok(()) => work(Ok(&mut self.connection)),
                Err(error) => work(Err(self.shared.place.error(error).into())),
            }
        }
    }

    /// Tells everyone that nothing is written. Records stay, to be tried again.
    fn failed(&mut self, error: rusqlite::Error, waiting: &mut Batch) {
        let error = self.shared.place.error(error).into();
        self.shared.failed(&error);
        // A commit may have been made all the same: these rows are to go with their records.
        self.open.extend(waiting.begun.iter().map(|info| info.id));
        for account in &waiting.accounts {
            account.refused();
        }
        for work in waiting.work.drain(..) {
            work(Err(error.duplicate()));
        }
    }

    /// Accounts with more leased than `keep` blocks, which is given back.
    fn surplus(&self, keep: u64) -> Vec<Arc<Account>> {
        let budgets = self.shared.budgets();
        budgets.all().map(|live| live.latest()).filter(|account| account.give_back(keep)).collect()
    }

    /// At the end nobody waits for a lease, and what is not reserved goes back.
    fn return_leases(&self, waiting: &mut Batch) {
        waiting.accounts.extend(self.shared.budgets().all().map(|live| live.latest()));
        for account in &waiting.accounts {
            account.refused();
            account.give_back(0);
        }
    }

    fn finish(&mut self) {
        if let Err(error) = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
            tracing::warn!(%error, "the ledger's log was not folded into its file; that happens at the next start");
        }
    }
}

/// Nothing for a budget that was removed meanwhile.
const DRAWN: &str = "
INSERT INTO drawn SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM budgets WHERE id = ?1) ON CONFLICT (budget, begun) DO UPDATE SET amount = excluded.amount";
