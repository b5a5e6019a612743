//! What needs a clock of its own, a disk that fails, or a look into the file.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use byzerllm_core::{
    Attempt, Ending, Principal, RequestId, Reservation, Settlement, Task, Usage, UsageSource,
};
use tempfile::TempDir;

use super::*;

/// 2026-11-30T23:59:00Z.
const LATE: u64 = 1_796_083_140;

struct World {
    directory: TempDir,
    seconds: Arc<AtomicU64>,
}

impl World {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), seconds: Arc::new(AtomicU64::new(LATE)) }
    }

    fn set(&self, seconds: u64) {
        self.seconds.store(seconds, Ordering::SeqCst);
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("ledger.db")
    }

    fn start(&self) -> Result<Ledger> {
        let seconds = Arc::clone(&self.seconds);
        let clock = move || UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::SeqCst));
        Ledger::start(Place::in_directory(Some(self.directory.path())), Arc::new(clock))
    }

    fn count(&self, sql: &str) -> i64 {
        let connection = Connection::open(self.path()).unwrap();
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }
}

fn attempt(key: &str, tokens: u64) -> Attempt {
    Attempt {
        request: RequestId::generate(),
        principal: Principal { key_name: Some(key.to_owned()), ..Principal::default() },
        deployment: "chat".into(),
        vendor: "openai",
        model: "gpt".into(),
        task: Task::Chat,
        number: 1,
        prompt_tokens: 0,
        completion_tokens: Some(tokens),
    }
}

fn begin(ledger: &Ledger, attempt: Attempt) -> Result<Box<dyn Reservation>> {
    let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
    tokio.block_on(ledger.accounting().begin(attempt))
}

fn answered(tokens: u32) -> Settlement {
    let usage = Usage { completion_tokens: tokens, source: UsageSource::Reported, ..Usage::default() };
    Settlement { ending: Ending::Answered, usage: Some(usage), vendor_request_id: None, first_event: None }
}

fn refused() -> Settlement {
    let ending = Ending::Refused(ErrorKind::RateLimited);
    Settlement { ending, usage: None, vendor_request_id: None, first_event: None }
}

fn tokens_per(period: Period, tokens: u64) -> NewBudget {
    NewBudget {
        subject: Subject::Key,
        name: "app".to_owned(),
        period,
        limit: BudgetLimit::Tokens(tokens),
        allow_unknown_price: true,
    }
}

#[test]
fn a_period_begins_anew_and_never_again() {
    let world = World::new();
    let ledger = world.start().unwrap();
    ledger.set_budget(&tokens_per(Period::Month, 100)).unwrap();
    begin(&ledger, attempt("app", 100)).unwrap().settle(answered(100));
    let error = begin(&ledger, attempt("app", 1)).err().unwrap();
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::RateLimited, Some(Duration::from_secs(60))));
    // Over midnight: the new month is free, what began in the old one settles there.
    world.set(LATE - 30);
    ledger.set_budget(&tokens_per(Period::Month, 150)).unwrap();
    let old = begin(&ledger, attempt("app", 50)).unwrap();
    world.set(LATE + 61);
    let new = begin(&ledger, attempt("app", 150)).unwrap();
    old.settle(answered(50));
    assert_eq!(begin(&ledger, attempt("app", 1)).err().unwrap().kind(), ErrorKind::RateLimited);
    new.settle(refused());
    begin(&ledger, attempt("app", 150)).unwrap().settle(answered(150));
    // A clock that steps back a little stays in the new month; far back is refused, with what to do.
    world.set(LATE);
    assert_eq!(begin(&ledger, attempt("app", 1)).err().unwrap().kind(), ErrorKind::RateLimited);
    world.set(LATE - 10_000);
    let error = begin(&ledger, attempt("app", 1)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("clock"), "{error}");
    begin(&ledger, attempt("free", 1)).unwrap();
    // The same after a restart.
    drop(ledger);
    let ledger = world.start().unwrap();
    assert!(begin(&ledger, attempt("app", 1)).err().unwrap().message().contains("clock"));
}

#[test]
fn leases_go_back_at_the_end_and_stay_spent_without_one() {
    let world = World::new();
    let ledger = world.start().unwrap();
    ledger.set_budget(&tokens_per(Period::Total, 6400)).unwrap();
    begin(&ledger, attempt("app", 500)).unwrap().settle(answered(10));
    let open = begin(&ledger, attempt("app", 500)).unwrap();
    ledger.flush().unwrap();
    assert_eq!(world.count("SELECT COUNT(*) FROM attempts"), 1);
    let drawn = u64::try_from(world.count("SELECT amount FROM drawn")).unwrap();
    assert!((510..=6400).contains(&drawn), "{drawn}");
    let status = &ledger.budgets()[0];
    assert_eq!(
        (status.spent.as_str(), status.reserved.as_str(), status.left.as_str()),
        ("10", "500", "5890")
    );
    // A copy of the files is what a process that died leaves behind.
    let dead = World::new();
    for file in ["ledger.db", "ledger.db-wal"] {
        std::fs::copy(world.directory.path().join(file), dead.directory.path().join(file)).unwrap();
    }
    let revived = dead.start().unwrap();
    assert_eq!(revived.budgets()[0].spent, drawn.to_string());
    let report = revived.usage(UsageBy::Key, None).unwrap();
    assert_eq!((report.total.attempts, report.total.flagged.lost), (2, 1));
    assert_eq!(report.total.tokens.estimated.completion, 500);
    // One that ends in order counts what was settled and what is still open.
    ledger.close();
    assert_eq!(begin(&ledger, attempt("app", 1)).err().unwrap().kind(), ErrorKind::Unavailable);
    open.settle(answered(1));
    assert!(ledger.flush().is_err());
    assert_eq!(world.count("SELECT amount FROM drawn"), 510);
    let ledger = world.start().unwrap();
    assert_eq!(ledger.budgets()[0].spent, "510");
    assert_eq!(ledger.usage(UsageBy::Key, None).unwrap().rows[0].flagged.lost, 1);
}

/// Nobody asks for a commit here: what waits is written because its time has come.
#[test]
fn an_attempt_that_stays_open_gets_its_row_by_itself_and_loses_it_with_its_record() {
    let world = World::new();
    let ledger = world.start().unwrap();
    let until = |query: &str, wanted: i64| {
        for _ in 0..5000 {
            if world.count(query) == wanted {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("{query} is never {wanted}");
    };
    let (rows, records) = ("SELECT COUNT(*) FROM attempts", "SELECT COUNT(*) FROM records");
    let open = begin(&ledger, attempt("app", 5)).unwrap();
    until(rows, 1);
    begin(&ledger, attempt("app", 5)).unwrap().settle(answered(5));
    until(records, 1);
    assert_eq!(world.count(rows), 1);
    open.settle(answered(5));
    until(records, 2);
    assert_eq!(world.count(rows), 0);
}

#[test]
fn while_records_cannot_be_written_attempts_are_refused() {
    let world = World::new();
    let ledger = world.start().unwrap();
    ledger.set_budget(&tokens_per(Period::Total, 1000)).unwrap();
    begin(&ledger, attempt("app", 10)).unwrap().settle(answered(10));
    let kept = begin(&ledger, attempt("app", 10)).unwrap();
    ledger.flush().unwrap();
    let other = Connection::open(world.path()).unwrap();
    other
        .execute_batch("CREATE TRIGGER broken BEFORE INSERT ON records BEGIN SELECT RAISE(ABORT, 'no'); END")
        .unwrap();
    kept.settle(answered(10));
    assert!(ledger.flush().is_err());
    assert!(ledger.metrics().failing);
    let error = begin(&ledger, attempt("app", 10)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("cannot be written"), "{error}");
    other.execute_batch("DROP TRIGGER broken").unwrap();
    // It goes on by itself and nothing is lost.
    while ledger.flush().is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!ledger.metrics().failing);
    begin(&ledger, attempt("app", 10)).unwrap().settle(answered(10));
    let report = ledger.usage(UsageBy::Key, None).unwrap();
    assert_eq!((report.total.attempts, report.total.tokens.reported.completion), (3, 30));
    assert_eq!(ledger.budgets()[0].spent, "30");
}

#[test]
fn a_full_disk_is_said_so() {
    let world = World::new();
    let ledger = world.start().unwrap();
    ledger.flush().unwrap();
    let limit = |connection: &mut Connection| {
        let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
    };
    ledger.shared.work(limit).unwrap();
    let error = loop {
        match begin(&ledger, attempt(&"k".repeat(1000), 1)) {
            Ok(attempt) => attempt.settle(answered(1)),
            Err(error) => break error,
        }
        let _full = ledger.flush();
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("full") && error.message().contains("free space"), "{error}");
    assert_eq!(ledger.set_budget(&tokens_per(Period::Day, 1)).unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn a_limit_can_change_while_it_is_used() {
    let world = World::new();
    let ledger = world.start().unwrap();
    let id = ledger.set_budget(&tokens_per(Period::Total, 1000)).unwrap().id;
    let open = begin(&ledger, attempt("app", 600)).unwrap();
    assert_eq!(ledger.set_budget(&tokens_per(Period::Total, 700)).unwrap().id, id);
    assert!(begin(&ledger, attempt("app", 101)).is_err());
    begin(&ledger, attempt("app", 100)).unwrap().settle(answered(100));
    let lowered = ledger.set_budget(&tokens_per(Period::Total, 50)).unwrap();
    assert_eq!(
        (lowered.spent.as_str(), lowered.reserved.as_str(), lowered.left.as_str()),
        ("100", "600", "0")
    );
    open.settle(refused());
    assert!(begin(&ledger, attempt("app", 1)).is_err());
    ledger.set_budget(&tokens_per(Period::Total, 110)).unwrap();
    begin(&ledger, attempt("app", 10)).unwrap();
    ledger.remove_budget(id).unwrap();
    assert_eq!(ledger.remove_budget(id).unwrap_err().kind(), ErrorKind::NotFound);
    begin(&ledger, attempt("app", 1_000_000)).unwrap();
    assert!(ledger.budgets().is_empty());
}

/// A commit that was made although it was reported as failed leaves an open attempt beside its record.
#[test]
fn an_attempt_that_has_its_record_is_not_settled_twice() {
    let world = World::new();
    let ledger = world.start().unwrap();
    let held = begin(&ledger, attempt("app", 5)).unwrap();
    ledger.flush().unwrap();
    let other = Connection::open(world.path()).unwrap();
    other.execute_batch("CREATE TEMP TABLE kept AS SELECT * FROM attempts").unwrap();
    held.settle(answered(5));
    ledger.close();
    assert_eq!(world.count("SELECT COUNT(*) FROM attempts"), 0);
    other.execute_batch("INSERT INTO attempts SELECT * FROM kept").unwrap();
    let total = world.start().unwrap().usage(UsageBy::Key, None).unwrap().total;
    assert_eq!((total.attempts, total.flagged.lost), (1, 0));
    assert_eq!(world.count("SELECT COUNT(*) FROM attempts"), 0);
}

#[test]
fn a_removed_budget_leaves_nothing_to_the_next() {
    let world = World::new();
    let ledger = world.start().unwrap();
    let first = ledger.set_budget(&tokens_per(Period::Total, 100)).unwrap().id;
    let held = begin(&ledger, attempt("app", 100)).unwrap();
    ledger.remove_budget(first).unwrap();
    // Beyond its bound: the account wants to be written.
    held.settle(answered(120));
    ledger.flush().unwrap();
    assert_eq!(world.count("SELECT COUNT(*) FROM drawn"), 0);
    assert_ne!(ledger.set_budget(&tokens_per(Period::Total, 100)).unwrap().id, first);
    begin(&ledger, attempt("app", 100)).unwrap();
}

#[test]
fn the_file_is_private_and_only_grows() {
    let world = World::new();
    let ledger = world.start().unwrap();
    begin(&ledger, attempt("app", 5)).unwrap().settle(answered(5));
    ledger.flush().unwrap();
    for file in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        let mode = std::fs::metadata(world.directory.path().join(file)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let connection = Connection::open(world.path()).unwrap();
    for change in ["UPDATE records SET cost = 0", "DELETE FROM records"] {
        let error = connection.execute(change, []).unwrap_err();
        assert!(error.to_string().contains("append-only"), "{error}");
    }
}

#[test]
fn a_damaged_or_newer_file_is_reported_and_kept() {
    let world = World::new();
    let junk = b"this is no database, and long enough to be looked at as a header of one".repeat(20);
    std::fs::write(world.path(), &junk).unwrap();
    let error = world.start().unwrap_err();
    assert!(error.message().contains("damaged") && error.message().contains("move it"), "{error}");
    assert_eq!(std::fs::read(world.path()).unwrap(), junk);

    let world = World::new();
    drop(world.start().unwrap());
    Connection::open(world.path()).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    let error = world.start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("99"), "{error}");
}

#[test]
fn an_older_file_gets_its_index_and_keeps_its_records() {
    let world = World::new();
    let ledger = world.start().unwrap();
    begin(&ledger, attempt("app", 5)).unwrap().settle(answered(5));
    ledger.flush().unwrap();
    drop(ledger);
    // As the first version left it.
    let older = "DROP INDEX records_by_time; PRAGMA user_version = 1";
    Connection::open(world.path()).unwrap().execute_batch(older).unwrap();
    let ledger = world.start().unwrap();
    begin(&ledger, attempt("app", 5)).unwrap().settle(answered(5));
    ledger.flush().unwrap();
    for since in [None, Some(1), Some(u64::MAX)] {
        let attempts = ledger.usage(UsageBy::Key, since).unwrap().total.attempts;
        assert_eq!(attempts, if since == Some(u64::MAX) { 0 } else { 2 }, "{since:?}");
    }
    assert_eq!(world.count("SELECT user_version FROM pragma_user_version"), 2);
    let plan = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'index' AND name = 'records_by_time'";
    assert_eq!(world.count(plan), 1);
}

#[test]
fn a_ledger_in_memory_keeps_the_last_records() {
    let ledger = Ledger::of_runtime(None).unwrap();
    let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let accounting = ledger.accounting();
    for _ in 0..25_000 {
        tokio.block_on(accounting.begin(attempt("app", 1))).unwrap().settle(answered(1));
    }
    let kept = ledger.usage(UsageBy::Key, None).unwrap().total.attempts;
    assert!((10_000..=12_500).contains(&kept), "{kept}");
    assert_eq!(ledger.metrics().reported, 25_000);
}
