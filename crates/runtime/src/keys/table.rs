//! Keys on disk: a table beside the deployments. It holds hashes, never a key.

use rusqlite::{Row, params};

use super::Record;
use super::scope::{Scope, Scopes};
use crate::store::{Store, StoreError};

/// The table; part of the store's schema since version 2.
pub(crate) const CREATE: &str = "CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, scopes TEXT NOT NULL, hash BLOB,
    previous BLOB, previous_until INTEGER, created INTEGER NOT NULL, rotated INTEGER,
    expires INTEGER, revoked INTEGER
) STRICT;";

impl Store {
    /// Every key, revoked ones too.
    pub(super) fn keys(&self) -> Result<Vec<Record>, StoreError> {
        self.with(|connection| {
            let mut query = connection.prepare(
                "SELECT id, name, scopes, hash, previous, previous_until, created, rotated, expires, revoked
                 FROM keys ORDER BY created, name, id",
            )?;
            let rows = query.query_map([], read)?;
            rows.collect()
        })
    }

    /// Keeps a key, in place of one with the same id, and forgets the given ids, at once or not at all.
    pub(super) fn put_key(&self, record: &Record, forget: &[String]) -> Result<(), StoreError> {
        let scopes = serde_json::to_string(&record.scopes)?;
        self.with(|connection| {
            let transaction = connection.unchecked_transaction()?;
            for id in forget {
                transaction.execute("DELETE FROM keys WHERE id = ?1", params![id])?;
            }
            let previous = record.previous.as_ref();
            transaction.execute(
                "INSERT OR REPLACE INTO keys
                 (id, name, scopes, hash, previous, previous_until, created, rotated, expires, revoked)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                params![
                    record.id,
                    record.name,
                    scopes,
                    record.hash.map(Vec::from),
                    previous.map(|(hash, _)| hash.to_vec()),
                    previous.map(|(_, until)| seconds(*until)),
                    seconds(record.created),
                    record.rotated.map(seconds),
                    record.expires.map(seconds),
                    record.revoked.map(seconds),
                ],
            )?;
            transaction.commit()
        })
    }
}

fn seconds(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Record> {
    let time = |index: usize| -> rusqlite::Result<Option<u64>> {
        Ok(row.get::<_, Option<i64>>(index)?.map(|value| u64::try_from(value).unwrap_or(0)))
    };
    let hash = |index: usize| -> rusqlite::Result<Option<[u8; 32]>> {
        Ok(row.get::<_, Option<Vec<u8>>>(index)?.and_then(|bytes| bytes.try_into().ok()))
    };
    let (id, name): (String, String) = (row.get(0)?, row.get(1)?);
    let words: Vec<String> = serde_json::from_str(&row.get::<_, String>(2)?).unwrap_or_default();
    // A scope that this program does not know allows nothing.
    let scopes = words.iter().filter_map(|word| word.parse::<Scope>().ok()).collect::<Scopes>();
    Ok(Record {
        id,
        name,
        scopes,
        hash: hash(3)?,
        previous: hash(4)?.zip(time(5)?),
        created: time(6)?.unwrap_or(0),
        rotated: time(7)?,
        expires: time(8)?,
        revoked: time(9)?,
    })
}
