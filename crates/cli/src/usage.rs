//! `byzerllm usage`: what was asked of models, and what it cost.

use byzerllm_runtime::{Tokens, UsageReport, UsageRow};

use crate::arguments::UsageArguments;
use crate::deploy::read;
use crate::ledger::Place;
use crate::output::{Outcome, Output, table};

/// Prints the sums.
pub(crate) async fn usage(arguments: UsageArguments, output: Output) -> Outcome {
    let place = Place::open(&arguments.place)?;
    let by = arguments.by.into();
    let report = match &place {
        Place::Disk(ledger, _) => ledger.usage(by, arguments.since),
        Place::Server(connection) => match connection.client.usage(by.as_str(), arguments.since).await {
            Ok(report) => return show(&read(&report)?, &place, arguments.json, output),
            Err(error) => Err(error),
        },
    };
    match report {
        Ok(report) => show(&report, &place, arguments.json, output),
        Err(error) => Err(place.explain(error, "usage").await),
    }
}

fn show(report: &UsageReport, place: &Place, as_json: bool, output: Output) -> Outcome {
    if as_json {
        return output.json(report);
    }
    if report.rows.is_empty() {
        output.note(format_args!("Nothing was asked of a model, as far as {} knows.", place.words()));
        return Ok(());
    }
    for line in table(&rows(report)) {
        output.line(line)?;
    }
    Ok(())
}

fn rows(report: &UsageReport) -> Vec<Vec<String>> {
    let name = report.by.as_str().to_uppercase();
    let heads = [
        "REQUESTS",
        "ATTEMPTS",
        "PROMPT",
        "CACHED",
        "GENERATED",
        "REASONING",
        "ESTIMATED",
        "COST",
        "FLAGGED",
    ];
    let mut rows = vec![std::iter::once(name).chain(heads.map(str::to_owned)).collect()];
    rows.extend(report.rows.iter().map(row));
    rows.push(row(&report.total));
    rows
}

fn row(row: &UsageRow) -> Vec<String> {
    let all = [row.tokens.reported, row.tokens.counted, row.tokens.estimated];
    let sum = |read: fn(&Tokens) -> u64| all.iter().map(read).sum::<u64>().to_string();
    let cost: Vec<String> =
        row.cost.iter().map(|(currency, amount)| format!("{amount} {currency}")).collect();
    let flagged = [
        (row.flagged.estimated, "estimated"),
        (row.flagged.unknown_price, "unknown price"),
        (row.flagged.unbounded, "unbounded"),
        (row.flagged.over_reserved, "over reserved"),
        (row.flagged.lost, "lost"),
    ];
    let flagged: Vec<String> = flagged
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let words = |list: Vec<String>| if list.is_empty() { "-".to_owned() } else { list.join(", ") };
    vec![
        row.name.clone(),
        row.requests.to_string(),
        row.attempts.to_string(),
        sum(|tokens| tokens.prompt),
        sum(|tokens| tokens.cached),
        sum(|tokens| tokens.completion),
        sum(|tokens| tokens.reasoning),
        (row.tokens.estimated.prompt + row.tokens.estimated.completion).to_string(),
        words(cost),
        words(flagged),
    ]
}

#[cfg(test)]
mod tests {
    use byzerllm_runtime::{Micros, UsageBy};

    use super::*;

    #[test]
    fn a_row_says_what_it_cost_and_what_is_odd() {
        let mut app = UsageRow { name: "app".to_owned(), requests: 2, attempts: 3, ..UsageRow::default() };
        app.tokens.reported = Tokens { prompt: 10, cached: 4, completion: 5, reasoning: 1, cache_written: 0 };
        app.tokens.estimated = Tokens { prompt: 1, completion: 2, ..Tokens::default() };
        app.cost.insert("USD".to_owned(), Micros(1_250_000));
        app.flagged.estimated = 1;
        let total = UsageRow { name: "total".to_owned(), ..UsageRow::default() };
        let report = UsageReport { by: UsageBy::Key, since: None, rows: vec![app], total };
        assert_eq!(
            table(&rows(&report)),
            [
                "KEY    REQUESTS  ATTEMPTS  PROMPT  CACHED  GENERATED  REASONING  ESTIMATED  COST      FLAGGED",
                "app    2         3         11      4       7          1          3          1.25 USD  1 estimated",
                "total  0         0         0       0       0          0          0          -         -",
            ]
        );
    }
}
