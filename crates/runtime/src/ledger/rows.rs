//! Attempts and records as rows.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Statement, params};

use super::attempt::{Info, Record};
use super::database::signed;

/// Makes a row for an attempt that is open.
pub(super) const BEGUN: &str = "
INSERT INTO attempts VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
ON CONFLICT (id) DO NOTHING";

pub(super) fn insert_attempt(statement: &mut Statement<'_>, info: &Info) -> rusqlite::Result<()> {
    let attempt = &info.attempt;
    let (price, currency) = info.price();
    statement.execute(params![
        info.id,
        info.begun,
        attempt.request.0,
        attempt.number,
        attempt.principal.key_name,
        &*attempt.deployment,
        attempt.vendor,
        &*attempt.model,
        attempt.task.as_str(),
        signed(attempt.prompt_tokens),
        attempt.completion_tokens.map(signed),
        price,
        currency,
        info.most().map(signed),
        info.unknown_price(),
    ])?;
    Ok(())
}

/// Makes the row of a record. A commit whose outcome was not told is made again with the same numbers.
pub(super) const ENDED: &str = "
INSERT INTO records VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
    ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28)
ON CONFLICT (id) DO NOTHING";

/// The values of a record, column by column.
type Row<'a> = [ValueRef<'a>; 28];

fn row(record: &Record) -> Row<'_> {
    let (info, outcome) = (&record.info, &record.outcome);
    let (attempt, tokens) = (&info.attempt, &outcome.tokens);
    let (price, currency) = info.price();
    let number = |number: u64| ValueRef::Integer(signed(number));
    let flag = |flag: bool| ValueRef::Integer(i64::from(flag));
    let perhaps = |number: Option<i64>| number.map_or(ValueRef::Null, ValueRef::Integer);
    [
        ValueRef::Integer(info.id),
        ValueRef::Integer(info.begun),
        ValueRef::Integer(record.ended),
        ValueRef::from(&*attempt.request.0),
        ValueRef::Integer(attempt.number.into()),
        text(attempt.principal.key_name.as_deref()),
        ValueRef::from(&*attempt.deployment),
        ValueRef::from(attempt.vendor),
        ValueRef::from(&*attempt.model),
        ValueRef::from(attempt.task.as_str()),
        ValueRef::from(record.ending),
        text(record.error),
        ValueRef::from(outcome.source.as_str()),
        number(tokens.prompt),
        number(tokens.cached),
        number(tokens.cache_written),
        if outcome.unbounded { ValueRef::Null } else { number(tokens.completion) },
        number(tokens.reasoning),
        number(attempt.prompt_tokens),
        perhaps(attempt.completion_tokens.map(signed)),
        perhaps(price),
        text(currency),
        perhaps(outcome.cost.map(signed)),
        flag(outcome.unknown_price),
        flag(outcome.unbounded),
        flag(outcome.over_reserved),
        text(record.vendor_request.as_deref()),
        perhaps(record.first_event),
    ]
}

fn text(text: Option<&str>) -> ValueRef<'_> {
    text.map_or(ValueRef::Null, ValueRef::from)
}

/// Writes records. A statement keeps its values, and most are those of the record before: only others are bound.
pub(super) struct Records<'s, 'c, 'r> {
    statement: &'s mut Statement<'c>,
    before: Row<'r>,
}

impl<'s, 'c, 'r> Records<'s, 'c, 'r> {
    /// With a statement that has no values yet.
    pub(super) fn new(statement: &'s mut Statement<'c>) -> Self {
        Self { statement, before: [ValueRef::Null; 28] }
    }

    pub(super) fn insert(&mut self, record: &'r Record) -> rusqlite::Result<()> {
        let row = row(record);
        for (place, (value, before)) in (1..).zip(row.iter().zip(&self.before)) {
            if value != before {
                self.statement.raw_bind_parameter::<usize, _>(place, ToSqlOutput::Borrowed(*value))?;
            }
        }
        self.before = row;
        self.statement.raw_execute()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use byzerllm_core::{Ending, ErrorKind, RequestId, UsageSource};

    use super::super::attempt::outcome;
    use super::super::attempt::tests::{info, settlement};
    use super::super::database::Place;
    use super::*;

    fn record(id: i64, mut info: Info, mut settlement: byzerllm_core::Settlement) -> Record {
        info.id = id;
        info.attempt.request = RequestId(format!("r{id}"));
        if id % 3 == 0 {
            info.attempt.principal.key_name = Some(format!("key {id}"));
            settlement.vendor_request_id = Some(format!("v{id}"));
            settlement.first_event = Some(Duration::from_millis(id.unsigned_abs()));
        }
        let outcome = outcome(&info, &settlement);
        Record::new(Arc::new(info), id, settlement, outcome)
    }

    #[test]
    fn what_a_record_does_not_have_is_not_taken_from_the_one_before() {
        let endings = [
            (Ending::Answered, Some(UsageSource::Reported)),
            (Ending::Failed(ErrorKind::Upstream), None),
            (Ending::Dropped, None),
            (Ending::Refused(ErrorKind::RateLimited), None),
            (Ending::Cached, Some(UsageSource::Counted)),
        ];
        let bounds = [(Some(50), true), (None, true), (Some(5), false), (None, false)];
        let mut records = Vec::new();
        for (ending, source) in endings {
            for (completion, priced) in bounds {
                let id = records.len() as i64 + 1;
                records.push(record(id, info(completion, priced), settlement(ending.clone(), source)));
            }
        }
        // Every one behind every other one.
        let pairs = records.iter().flat_map(|one| records.iter().flat_map(move |other| [one, other]));
        let connection = Place::Memory.open(0).unwrap();
        connection.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        let mut read = connection.prepare("SELECT * FROM records WHERE id = ?1").unwrap();
        let mut statement = connection.prepare(ENDED).unwrap();
        let mut writing = Records::new(&mut statement);
        for record in pairs {
            let _ = connection.execute("DELETE FROM records WHERE id = ?1", [record.info.id]).unwrap();
            writing.insert(record).unwrap();
            let mut found = read.query([record.info.id]).unwrap();
            let found = found.next().unwrap().unwrap();
            let found: Vec<_> = (0..28).map(|column| found.get_ref_unwrap(column)).collect();
            assert_eq!(found, row(record));
        }
    }
}
