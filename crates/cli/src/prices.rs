//! `byzerllm prices`: what vendors ask for their models.

use std::io::Read;
use std::path::Path;

use byzerllm_runtime::{Micros, NewPrice, Price};
use serde_json::{Value, json, to_value};

use crate::arguments::{
    ImportPricesArguments, LedgerPlaceArguments, ListLedgerArguments, PricesAction, PricesArguments,
    RemoveLedgerArguments, SetPriceArguments,
};
use crate::deploy::read;
use crate::ledger::Place;
use crate::output::{Failure, Outcome, Output, table};

/// The largest file that is read.
const MAX_FILE: u64 = 4 << 20;

/// Runs one of the actions.
pub(crate) async fn prices(arguments: PricesArguments, output: Output) -> Outcome {
    match arguments.action {
        PricesAction::List(arguments) => list(arguments, output).await,
        PricesAction::Set(arguments) => set(arguments, output).await,
        PricesAction::Import(arguments) => import(arguments, output).await,
        PricesAction::Remove(arguments) => remove(arguments, output).await,
    }
}

async fn list(arguments: ListLedgerArguments, output: Output) -> Outcome {
    let place = Place::open(&arguments.place)?;
    let prices: Vec<Price> = match &place {
        Place::Disk(ledger, _) => ledger.prices(),
        Place::Server(connection) => match connection.client.list_prices().await {
            Ok(listed) => listed.iter().map(read).collect::<Outcome<_>>()?,
            Err(error) => return Err(place.explain(error, "prices").await),
        },
    };
    if arguments.json {
        return output.json(&json!({ "place": place.words(), "prices": prices }));
    }
    if prices.is_empty() {
        let place = place.words();
        output.note(format_args!("No prices at {place}. `byzerllm prices set --help` shows how to set one."));
        return Ok(());
    }
    for line in table(&rows(&prices)) {
        output.line(line)?;
    }
    Ok(())
}

async fn set(arguments: SetPriceArguments, output: Output) -> Outcome {
    let price = NewPrice {
        vendor: arguments.vendor,
        model: arguments.model,
        currency: arguments.currency,
        input: arguments.input,
        cached_input: arguments.cached_input,
        cache_write: arguments.cache_write,
        output: arguments.output,
        reasoning: arguments.reasoning,
    };
    store(vec![price], &arguments.place, output).await
}

async fn import(arguments: ImportPricesArguments, output: Output) -> Outcome {
    let text = content(&arguments.file)?;
    store(parse(&text, &arguments.file)?, &arguments.place, output).await
}

fn content(file: &Path) -> Outcome<String> {
    let mut text = String::new();
    let read = match file.as_os_str() == "-" {
        true => std::io::stdin().lock().take(MAX_FILE).read_to_string(&mut text),
        false => std::fs::File::open(file).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text)),
    };
    read.map_err(|error| {
        Failure::new(
            format!("cannot read '{}': {error}", file.display()),
            "Give a JSON file, or - for standard input.",
        )
    })?;
    Ok(text)
}

/// A list of prices, or the object that `prices list --json` prints.
fn parse(text: &str, file: &Path) -> Outcome<Vec<NewPrice>> {
    let odd = |what: String| {
        let remedy = "`byzerllm prices list --json` prints the form; amounts are text, as \"2.5\".";
        Failure::new(format!("'{}' holds no list of prices: {what}", file.display()), remedy)
    };
    let mut value: Value = serde_json::from_str(text).map_err(|error| odd(error.to_string()))?;
    let list = match value.get_mut("prices") {
        Some(list) => list.take(),
        None => value,
    };
    let Value::Array(list) = list else { return Err(odd("it is no list".to_owned())) };
    let read = |(place, mut price): (usize, Value)| {
        if let Some(price) = price.as_object_mut() {
            // What the ledger gave to it.
            price.retain(|name, _| !matches!(name.as_str(), "id" | "since"));
        }
        serde_json::from_value(price).map_err(|error| odd(format!("price {}: {error}", place + 1)))
    };
    list.into_iter().enumerate().map(read).collect()
}

async fn store(prices: Vec<NewPrice>, place: &LedgerPlaceArguments, output: Output) -> Outcome {
    let place = Place::open(place)?;
    let count = prices.len();
    let stored = match &place {
        Place::Disk(ledger, _) => ledger.set_prices(prices).map(|_| ()),
        Place::Server(connection) => {
            let bodies: Result<Vec<Value>, _> = prices.iter().map(to_value).collect();
            let bodies = bodies.map_err(|error| Failure::new(error.to_string(), "Please report this."))?;
            connection.client.set_prices(&bodies).await.map(|_| ())
        }
    };
    match stored {
        Ok(()) => {
            let what = if count == 1 { "price is" } else { "prices are" };
            output.line(format_args!("{count} {what} set at {}", place.words()))
        }
        Err(error) => Err(place.explain(error, "prices").await),
    }
}

async fn remove(arguments: RemoveLedgerArguments, output: Output) -> Outcome {
    let place = Place::open(&arguments.place)?;
    let removed = match &place {
        Place::Disk(ledger, _) => ledger.remove_price(arguments.id),
        Place::Server(connection) => connection.client.remove_price(arguments.id).await,
    };
    match removed {
        Ok(()) => output.line(format_args!("price {} is out of force at {}", arguments.id, place.words())),
        Err(error) => Err(place.explain(error, "prices").await),
    }
}

fn rows(prices: &[Price]) -> Vec<Vec<String>> {
    let heads =
        ["ID", "VENDOR", "MODEL", "CURRENCY", "INPUT", "CACHED", "CACHE WRITE", "OUTPUT", "REASONING"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    let optional =
        |amount: Option<Micros>| amount.map_or_else(|| "-".to_owned(), |amount| amount.to_string());
    rows.extend(prices.iter().map(|Price { id, price, .. }| {
        vec![
            id.to_string(),
            price.vendor.clone(),
            price.model.clone(),
            price.currency.clone(),
            price.input.to_string(),
            optional(price.cached_input),
            optional(price.cache_write),
            price.output.to_string(),
            optional(price.reasoning),
        ]
    }));
    rows
}
