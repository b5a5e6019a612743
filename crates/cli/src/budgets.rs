//! `byzerllm budgets`: limits on what keys and deployments may spend.

use byzerllm_runtime::{Budget, NewBudget, Subject};
use serde_json::{json, to_value};

use crate::arguments::{
    BudgetsAction, BudgetsArguments, ListLedgerArguments, RemoveLedgerArguments, SetBudgetArguments,
};
use crate::deploy::read;
use crate::ledger::Place;
use crate::output::{Failure, Outcome, Output, table};

/// Runs one of the actions.
pub(crate) async fn budgets(arguments: BudgetsArguments, output: Output) -> Outcome {
    match arguments.action {
        BudgetsAction::Set(arguments) => set(arguments, output).await,
        BudgetsAction::List(arguments) => list(arguments, output).await,
        BudgetsAction::Remove(arguments) => remove(arguments, output).await,
    }
}

async fn set(arguments: SetBudgetArguments, output: Output) -> Outcome {
    let (subject, name) = match (arguments.key, arguments.deployment) {
        (Some(key), _) => (Subject::Key, key),
        (None, Some(deployment)) => (Subject::Deployment, deployment),
        (None, None) => {
            return Err(Failure::misuse("nobody is named", "Give --key NAME or --deployment NAME."));
        }
    };
    let budget = NewBudget {
        subject,
        name,
        period: arguments.period.into(),
        limit: arguments.limit,
        allow_unknown_price: arguments.allow_unknown_price,
    };
    let place = Place::open(&arguments.place)?;
    let set: byzerllm_core::Result<Budget> = match &place {
        Place::Disk(ledger, _) => ledger.set_budget(&budget),
        Place::Server(connection) => {
            let body =
                to_value(&budget).map_err(|error| Failure::new(error.to_string(), "Please report this."))?;
            match connection.client.set_budget(&body).await {
                Ok(set) => Ok(read(&set)?),
                Err(error) => Err(error),
            }
        }
    };
    let set = match set {
        Ok(set) => set,
        Err(error) => return Err(place.explain(error, "budgets").await),
    };
    if arguments.json {
        return output.json(&set);
    }
    for line in table(&rows(&[set])) {
        output.line(line)?;
    }
    Ok(())
}

async fn list(arguments: ListLedgerArguments, output: Output) -> Outcome {
    let place = Place::open(&arguments.place)?;
    let budgets: Vec<Budget> = match &place {
        Place::Disk(ledger, _) => ledger.budgets(),
        Place::Server(connection) => match connection.client.list_budgets().await {
            Ok(listed) => listed.iter().map(read).collect::<Outcome<_>>()?,
            Err(error) => return Err(place.explain(error, "budgets").await),
        },
    };
    if arguments.json {
        return output.json(&json!({ "place": place.words(), "budgets": budgets }));
    }
    if budgets.is_empty() {
        let place = place.words();
        output.note(format_args!(
            "No budgets at {place}. `byzerllm budgets set --help` shows how to make one."
        ));
        return Ok(());
    }
    for line in table(&rows(&budgets)) {
        output.line(line)?;
    }
    Ok(())
}

async fn remove(arguments: RemoveLedgerArguments, output: Output) -> Outcome {
    let place = Place::open(&arguments.place)?;
    let removed = match &place {
        Place::Disk(ledger, _) => ledger.remove_budget(arguments.id),
        Place::Server(connection) => connection.client.remove_budget(arguments.id).await,
    };
    match removed {
        Ok(()) => output.line(format_args!("budget {} is removed at {}", arguments.id, place.words())),
        Err(error) => Err(place.explain(error, "budgets").await),
    }
}

fn rows(budgets: &[Budget]) -> Vec<Vec<String>> {
    let heads = ["ID", "FOR", "NAME", "PERIOD", "LIMIT", "SPENT", "RESERVED", "LEFT", "UNKNOWN PRICES"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(budgets.iter().map(|it| {
        vec![
            it.id.to_string(),
            it.budget.subject.as_str().to_owned(),
            it.budget.name.clone(),
            it.budget.period.as_str().to_owned(),
            it.budget.limit.to_string(),
            it.spent.clone(),
            it.reserved.clone(),
            it.left.clone(),
            if it.budget.allow_unknown_price { "allowed" } else { "refused" }.to_owned(),
        ]
    }));
    rows
}
