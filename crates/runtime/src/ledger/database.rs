//! The file `ledger.db`: its tables, and how what is in them comes back.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use byzerllm_core::{Error, ErrorKind};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, params};
use thiserror::Error as ThisError;

use super::budget::{BudgetLimit, NewBudget, Subject, Unit};
use super::calendar::Period;
use super::money::Micros;
use super::price::{NewPrice, Price};

/// The version of the tables that this program reads and writes.
const SCHEMA: i64 = 2;

/// The name of the file in the state directory.
const FILE: &str = "ledger.db";

/// Documented in `docs/concepts/ledger.md`, column by column.
const CREATE: &str = "
CREATE TABLE prices (
    id INTEGER PRIMARY KEY, vendor TEXT NOT NULL, model TEXT NOT NULL, currency TEXT NOT NULL,
    input INTEGER NOT NULL, cached_input INTEGER, cache_write INTEGER, output INTEGER NOT NULL, reasoning INTEGER,
    since INTEGER NOT NULL, retired INTEGER
) STRICT;
CREATE TABLE records (
    id INTEGER PRIMARY KEY, begun INTEGER NOT NULL, ended INTEGER NOT NULL,
    request TEXT NOT NULL, attempt INTEGER NOT NULL, key TEXT, deployment TEXT NOT NULL,
    vendor TEXT NOT NULL, model TEXT NOT NULL, task TEXT NOT NULL,
    ending TEXT NOT NULL, error TEXT, source TEXT NOT NULL,
    prompt INTEGER NOT NULL, cached INTEGER NOT NULL, cache_written INTEGER NOT NULL,
    completion INTEGER, reasoning INTEGER NOT NULL,
    reserved_prompt INTEGER NOT NULL, reserved_completion INTEGER,
    price INTEGER REFERENCES prices (id), currency TEXT, cost INTEGER,
    unknown_price INTEGER NOT NULL, unbounded INTEGER NOT NULL, over_reserved INTEGER NOT NULL,
    vendor_request TEXT, first_event INTEGER
) STRICT;
CREATE TABLE attempts (
    id INTEGER PRIMARY KEY, begun INTEGER NOT NULL,
    request TEXT NOT NULL, attempt INTEGER NOT NULL, key TEXT, deployment TEXT NOT NULL,
    vendor TEXT NOT NULL, model TEXT NOT NULL, task TEXT NOT NULL,
    prompt INTEGER NOT NULL, completion INTEGER,
    price INTEGER, currency TEXT, cost INTEGER, unknown_price INTEGER NOT NULL
) STRICT;
CREATE TABLE budgets (
    id INTEGER PRIMARY KEY AUTOINCREMENT, subject TEXT NOT NULL, name TEXT NOT NULL, unit TEXT NOT NULL, period TEXT NOT NULL,
    amount INTEGER NOT NULL, allow_unknown_price INTEGER NOT NULL, created INTEGER NOT NULL,
    UNIQUE (subject, name, unit, period)
) STRICT;
CREATE TABLE drawn (
    budget INTEGER NOT NULL, begun INTEGER NOT NULL, amount INTEGER NOT NULL, PRIMARY KEY (budget, begun)
) STRICT, WITHOUT ROWID;
CREATE TABLE state (one INTEGER PRIMARY KEY CHECK (one = 1), synced INTEGER NOT NULL, next INTEGER NOT NULL) STRICT;
INSERT INTO state VALUES (1, 0, 1);";

/// New in version 2: sums over the last days need not read the years before them.
const INDEX: &str = "CREATE INDEX records_by_time ON records (begun);";

/// Not for a ledger in memory, which forgets.
const APPEND_ONLY: &str = "
CREATE TRIGGER records_are_not_changed BEFORE UPDATE ON records
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER records_are_not_removed BEFORE DELETE ON records
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;";

/// Attempts that a process which died had begun: settled at their reservation.
const LOST: &str = "
INSERT INTO records
    SELECT id, begun, MAX(begun, ?1), request, attempt, key, deployment, vendor, model, task,
        'lost', NULL, 'estimated', prompt, 0, 0, completion, 0, prompt, completion,
        price, currency, cost, unknown_price, completion IS NULL, 0, NULL, NULL
    FROM attempts WHERE NOT EXISTS (SELECT 1 FROM records WHERE records.id = attempts.id) ORDER BY id";

/// What can go wrong with the file.
#[derive(Debug, ThisError)]
pub(crate) enum LedgerError {
    #[error(
        "the ledger '{}' is damaged ({detail}). Nothing was changed: restore a copy of it, or move it away with its \
         -wal and -shm files; a new one is made, in which prices and budgets must be set again", path.display()
    )]
    Corrupt { path: PathBuf, detail: String },
    #[error(
        "the ledger '{}' has version {found} and this program knows version {SCHEMA}: use the newer program, or \
         another state directory", path.display()
    )]
    Newer { path: PathBuf, found: i64 },
    #[error(
        "the disk that holds the ledger '{}' is full, and nothing is asked that cannot be accounted for; free space \
         there, requests go on by themselves", path.display()
    )]
    Full { path: PathBuf },
    #[error(
        "the ledger '{}' cannot be written, and nothing is asked that cannot be accounted for; mend what the system \
         says: {source}", path.display()
    )]
    Sqlite { path: PathBuf, source: rusqlite::Error },
    #[error("the ledger '{}' cannot be opened: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
}

impl From<LedgerError> for Error {
    fn from(error: LedgerError) -> Self {
        let kind = match &error {
            LedgerError::Newer { .. } => ErrorKind::Unsupported,
            LedgerError::Corrupt { .. } | LedgerError::Full { .. } | LedgerError::Sqlite { .. } => {
                ErrorKind::Unavailable
            }
            LedgerError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                ErrorKind::PermissionDenied
            }
            LedgerError::Io { .. } => ErrorKind::InvalidRequest,
        };
        Error::new(kind, error.to_string()).with_source(error)
    }
}

pub(crate) fn convert(path: &Path, error: rusqlite::Error) -> LedgerError {
    let path = path.to_path_buf();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            LedgerError::Corrupt { path, detail: error.to_string() }
        }
        Some(ErrorCode::DiskFull) => LedgerError::Full { path },
        _ => LedgerError::Sqlite { path, source: error },
    }
}

/// Where the ledger is.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Disk(PathBuf),
    Memory,
}

impl Place {
    pub(crate) fn in_directory(directory: Option<&Path>) -> Self {
        directory.map_or(Self::Memory, |directory| Self::Disk(directory.join(FILE)))
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Disk(path) => path,
            Self::Memory => Path::new(":memory:"),
        }
    }

    pub(crate) fn error(&self, error: rusqlite::Error) -> LedgerError {
        convert(self.path(), error)
    }

    /// Opens the file or makes it with mode 0600, and settles what a process that died left open.
    pub(crate) fn open(&self, now: i64) -> Result<Connection, LedgerError> {
        let wrong = |error| self.error(error);
        let mut connection = match self {
            Self::Memory => Connection::open_in_memory().map_err(wrong)?,
            Self::Disk(path) => {
                // SQLite gives its side files the mode of the main file.
                OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .mode(0o600)
                    .custom_flags(libc::O_NOFOLLOW)
                    .open(path)
                    .map_err(|source| LedgerError::Io { path: path.clone(), source })?;
                Connection::open(path).map_err(wrong)?
            }
        };
        prepare(&connection).map_err(wrong)?;
        let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(wrong)?;
        if found > SCHEMA {
            return Err(LedgerError::Newer { path: self.path().to_path_buf(), found });
        }
        if found < SCHEMA {
            let triggers = if matches!(self, Self::Disk(_)) { APPEND_ONLY } else { "" };
            let tables = if found < 1 { [CREATE, triggers] } else { [""; 2] }.concat();
            let steps = format!("BEGIN IMMEDIATE; {tables} {INDEX} PRAGMA user_version = {SCHEMA}; COMMIT;");
            connection.execute_batch(&steps).map_err(wrong)?;
        }
        // Those that decide about money. Looking through all records would take longer with each day.
        for table in ["budgets", "drawn", "prices", "attempts", "state"] {
            let check = format!("PRAGMA quick_check('{table}')");
            let damage: String = connection.query_row(&check, [], |row| row.get(0)).map_err(wrong)?;
            if damage != "ok" {
                return Err(LedgerError::Corrupt { path: self.path().to_path_buf(), detail: damage });
            }
        }
        settle_lost(&mut connection, now).map_err(wrong)?;
        Ok(connection)
    }

    /// Opens the file once more, to read; `None` for a ledger in memory.
    pub(crate) fn reader(&self) -> Result<Option<Connection>, LedgerError> {
        let Self::Disk(path) = self else { return Ok(None) };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(|error| self.error(error))?;
        let settings = "PRAGMA query_only = ON; PRAGMA trusted_schema = OFF;";
        connection.execute_batch(settings).map_err(|error| self.error(error))?;
        Ok(Some(connection))
    }
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0)).optional()?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF;")
}

fn settle_lost(connection: &mut Connection, now: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let lost = transaction.execute(LOST, params![now])?;
    transaction.execute("DELETE FROM attempts", [])?;
    transaction.commit()?;
    if lost > 0 {
        tracing::warn!(
            attempts = lost,
            "attempts were open when the last process ended; settled at their reservation"
        );
    }
    Ok(())
}

/// The number of the next record. Never one that was given out before, also when the records behind it were lost.
pub(crate) fn next_id(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row(
        "SELECT MAX((SELECT COALESCE(MAX(id), 0) FROM records) + 1, next) FROM state",
        [],
        |row| row.get(0),
    )
}

/// The prices in force.
pub(crate) fn prices(connection: &Connection) -> rusqlite::Result<Vec<Price>> {
    let mut query = connection.prepare(
        "SELECT id, vendor, model, currency, input, cached_input, cache_write, output, reasoning, since
         FROM prices WHERE retired IS NULL ORDER BY id",
    )?;
    let rows = query.query_map([], |row| {
        let price = NewPrice {
            vendor: row.get(1)?,
            model: row.get(2)?,
            currency: row.get(3)?,
            input: micros(row, 4)?.unwrap_or_default(),
            cached_input: micros(row, 5)?,
            cache_write: micros(row, 6)?,
            output: micros(row, 7)?.unwrap_or_default(),
            reasoning: micros(row, 8)?,
        };
        Ok(Price { id: unsigned(row.get(0)?), price, since: unsigned(row.get(9)?) })
    })?;
    rows.collect()
}

/// Sets prices, each in place of the one for the same vendor and model, all or none.
pub(crate) fn set_prices(connection: &mut Connection, prices: &[NewPrice], now: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for price in prices {
        transaction.execute(
            "UPDATE prices SET retired = ?3 WHERE vendor = ?1 AND model = ?2 AND retired IS NULL",
            params![price.vendor, price.model, now],
        )?;
        transaction.execute(
            "INSERT INTO prices (vendor, model, currency, input, cached_input, cache_write, output, reasoning, since)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                price.vendor,
                price.model,
                price.currency,
                signed(price.input.0),
                price.cached_input.map(|price| signed(price.0)),
                price.cache_write.map(|price| signed(price.0)),
                signed(price.output.0),
                price.reasoning.map(|price| signed(price.0)),
                now,
            ],
        )?;
    }
    transaction.commit()
}

/// Takes a price out of force; whether there was one.
pub(crate) fn retire_price(connection: &Connection, id: i64, now: i64) -> rusqlite::Result<bool> {
    let changed = connection
        .execute("UPDATE prices SET retired = ?2 WHERE id = ?1 AND retired IS NULL", params![id, now])?;
    Ok(changed > 0)
}

/// A budget as it is stored, with the latest of its periods and what was drawn in it.
pub(crate) struct StoredBudget {
    pub(crate) id: i64,
    pub(crate) budget: NewBudget,
    pub(crate) unit: Unit,
    pub(crate) limit: u64,
    pub(crate) latest: Option<(i64, u64)>,
}

/// All budgets.
pub(crate) fn budgets(connection: &Connection) -> rusqlite::Result<Vec<StoredBudget>> {
    let mut query = connection.prepare(
        "SELECT id, subject, name, unit, period, amount, allow_unknown_price,
             (SELECT MAX(begun) FROM drawn WHERE budget = id),
             (SELECT amount FROM drawn WHERE budget = id ORDER BY begun DESC LIMIT 1)
         FROM budgets ORDER BY id",
    )?;
    let rows = query.query_map([], |row| {
        let odd = |column: usize| {
            rusqlite::Error::InvalidColumnType(
                column,
                "an unknown word".to_owned(),
                rusqlite::types::Type::Text,
            )
        };
        let unit = Unit::read(row.get(3)?);
        let limit = unsigned(row.get(5)?);
        let budget = NewBudget {
            subject: Subject::read(&row.get::<_, String>(1)?).ok_or_else(|| odd(1))?,
            name: row.get(2)?,
            period: Period::read(&row.get::<_, String>(4)?).ok_or_else(|| odd(4))?,
            limit: BudgetLimit::new(&unit, limit),
            allow_unknown_price: row.get(6)?,
        };
        let latest = row.get::<_, Option<i64>>(7)?.zip(row.get::<_, Option<i64>>(8)?);
        let latest = latest.map(|(begun, amount)| (begun, unsigned(amount)));
        Ok(StoredBudget { id: row.get(0)?, budget, unit, limit, latest })
    })?;
    rows.collect()
}

/// Keeps a budget, in place of one for the same subject, unit and period; its number.
pub(crate) fn put_budget(
    connection: &Connection,
    budget: &NewBudget,
    unit: &Unit,
    limit: u64,
    now: i64,
) -> rusqlite::Result<i64> {
    connection.query_row(
        "INSERT INTO budgets (subject, name, unit, period, amount, allow_unknown_price, created)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (subject, name, unit, period)
         DO UPDATE SET amount = excluded.amount, allow_unknown_price = excluded.allow_unknown_price
         RETURNING id",
        params![
            budget.subject.as_str(),
            budget.name,
            unit.as_str(),
            budget.period.as_str(),
            signed(limit),
            budget.allow_unknown_price,
            now,
        ],
        |row| row.get(0),
    )
}

/// Forgets a budget; whether there was one.
pub(crate) fn remove_budget(connection: &mut Connection, id: i64) -> rusqlite::Result<bool> {
    let transaction = connection.transaction()?;
    let removed = transaction.execute("DELETE FROM budgets WHERE id = ?1", params![id])?;
    transaction.execute("DELETE FROM drawn WHERE budget = ?1", params![id])?;
    transaction.commit()?;
    Ok(removed > 0)
}

fn micros(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Micros>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(|value| Micros(unsigned(value))))
}

pub(crate) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
