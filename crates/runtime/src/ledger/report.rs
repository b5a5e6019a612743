//! What `byzerllm usage` shows: sums over the records.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::database::unsigned;
use super::money::Micros;
use super::price::Tokens;

/// What a report has a row for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UsageBy {
    /// Each deployment.
    #[default]
    Deployment,
    /// Each API key; requests without one have the name `-`.
    Key,
    /// Each model, as its vendor calls it.
    Model,
    /// Each vendor.
    Vendor,
    /// Each day in UTC on which attempts began.
    Day,
}

impl UsageBy {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Deployment, Self::Key, Self::Model, Self::Vendor, Self::Day];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::Key => "key",
            Self::Model => "model",
            Self::Vendor => "vendor",
            Self::Day => "day",
        }
    }

    const fn expression(self) -> &'static str {
        match self {
            Self::Key => "COALESCE(key, '-')",
            Self::Day => "date(begun / 1000, 'unixepoch')",
            other => other.as_str(),
        }
    }
}

/// Tokens by where their number comes from. Answers from our own cache count none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct TokensBySource {
    /// The vendor reported them: its bill.
    pub reported: Tokens,
    /// Our own engine, or we ourselves, counted them.
    pub counted: Tokens,
    /// Nobody told: the reservation, an upper bound.
    pub estimated: Tokens,
}

/// Attempts that want attention.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Flagged {
    /// Settled at their reservation.
    pub estimated: u64,
    /// Without a cost, because the price is not known.
    pub unknown_price: u64,
    /// Without a cost, because nothing bounded what was generated.
    pub unbounded: u64,
    /// Billed beyond their reservation.
    pub over_reserved: u64,
    /// Open when the process ended.
    pub lost: u64,
}

/// The sums of some attempts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct UsageRow {
    /// Whose.
    pub name: String,
    /// Requests; one that several deployments served counts in the row of each.
    pub requests: u64,
    /// Attempts, retries and fallbacks included.
    pub attempts: u64,
    /// Answers from our own cache, among the attempts.
    pub cached_answers: u64,
    /// The tokens.
    pub tokens: TokensBySource,
    /// What was spent, by currency.
    pub cost: BTreeMap<String, Micros>,
    /// What wants attention.
    pub flagged: Flagged,
}

/// Sums over the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UsageReport {
    /// What the rows are for.
    pub by: UsageBy,
    /// Attempts that began from then on, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// By name.
    pub rows: Vec<UsageRow>,
    /// The sum of all.
    pub total: UsageRow,
}

/// Adds everything up.
pub(crate) fn report(
    connection: &Connection,
    by: UsageBy,
    since: Option<u64>,
) -> rusqlite::Result<UsageReport> {
    // One moment for both queries.
    let transaction = connection.unchecked_transaction()?;
    let rows = rows(&transaction, by.expression(), since)?;
    let total = rows_of_all(&transaction, since)?;
    transaction.commit()?;
    Ok(UsageReport { by, since, rows, total })
}

fn rows_of_all(connection: &Connection, since: Option<u64>) -> rusqlite::Result<UsageRow> {
    let name = "total".to_owned();
    let all = rows(connection, "'total'", since)?;
    Ok(all.into_iter().next().unwrap_or(UsageRow { name, ..UsageRow::default() }))
}

fn rows(connection: &Connection, name: &str, since: Option<u64>) -> rusqlite::Result<Vec<UsageRow>> {
    // Where all records are wanted, the index on their time would be a detour; the plus keeps SQLite off it.
    let begun = if since.is_some() { "begun" } else { "+begun" };
    let since = since.map_or(i64::MIN, |since| i64::try_from(since).unwrap_or(i64::MAX).saturating_mul(1000));
    let mut all: BTreeMap<String, UsageRow> = BTreeMap::new();
    let sums = format!(
        "SELECT {name} AS name, source, currency, COUNT(*), SUM(ending = 'cached'),
             SUM(prompt), SUM(cached), SUM(cache_written), SUM(COALESCE(completion, 0)), SUM(reasoning),
             SUM(COALESCE(cost, 0)), SUM(unknown_price), SUM(unbounded), SUM(over_reserved), SUM(ending = 'lost')
         FROM records WHERE {begun} >= ?1 GROUP BY 1, 2, 3"
    );
    let mut query = connection.prepare(&sums)?;
    let mut found = query.query(params![since])?;
    while let Some(row) = found.next()? {
        let number = |column: usize| row.get::<_, i64>(column).map(unsigned);
        let name: String = row.get(0)?;
        let entry =
            all.entry(name).or_insert_with_key(|name| UsageRow { name: name.clone(), ..UsageRow::default() });
        let source: String = row.get(1)?;
        let tokens = match source.as_str() {
            "reported" => &mut entry.tokens.reported,
            "counted" => &mut entry.tokens.counted,
            _ => &mut entry.tokens.estimated,
        };
        tokens.prompt += number(5)?;
        tokens.cached += number(6)?;
        tokens.cache_written += number(7)?;
        tokens.completion += number(8)?;
        tokens.reasoning += number(9)?;
        entry.attempts += number(3)?;
        entry.cached_answers += number(4)?;
        if let Some(currency) = row.get::<_, Option<String>>(2)? {
            entry.cost.entry(currency).or_default().0 += number(10)?;
        }
        if source == "estimated" {
            entry.flagged.estimated += number(3)?;
        }
        entry.flagged.unknown_price += number(11)?;
        entry.flagged.unbounded += number(12)?;
        entry.flagged.over_reserved += number(13)?;
        entry.flagged.lost += number(14)?;
    }
    let requests =
        format!("SELECT {name} AS name, COUNT(DISTINCT request) FROM records WHERE {begun} >= ?1 GROUP BY 1");
    let mut query = connection.prepare(&requests)?;
    let mut found = query.query(params![since])?;
    while let Some(row) = found.next()? {
        if let Some(entry) = all.get_mut(&row.get::<_, String>(0)?) {
            entry.requests = unsigned(row.get(1)?);
        }
    }
    Ok(all.into_values().collect())
}
