//! The ledger beside the bill of simulated vendors, under every fault that they know.

use std::collections::HashMap;

use byzerllm_core::RequestContext;
use byzerllm_runtime::testing::ScriptedLoader;
use byzerllm_runtime::{DeploymentSpec, Micros, NewPrice, Runtime, UsageBy};
use byzerllm_simulator::{Fault, Line, Options, RetryAfter, Simulator};
use futures::StreamExt;

use crate::{options, request};

/// How a caller reads its answer.
#[derive(Debug, Clone, Copy)]
enum Reader {
    Whole,
    Stream,
    /// Leaves after the first piece.
    Leaves,
}

/// What a line costs, in millionths of millionths; written down apart from what the ledger computes.
fn exact(line: &Line) -> u128 {
    let (prompt, cached) = (u128::from(line.tokens.prompt), u128::from(line.tokens.cached));
    (prompt - cached) * 2_500_000 + cached * 300_000 + u128::from(line.tokens.completion) * 10_000_000
}

async fn deploy(runtime: &Runtime, vendor: &Simulator) {
    let name = format!("saas/{}", vendor.vendor());
    let mut spec = DeploymentSpec::of_provider("m", &name);
    for (key, value) in vendor.parameters() {
        spec.set(&format!("saas.{key}"), &value).unwrap();
    }
    for (key, value) in [
        ("max_output_tokens", "400"),
        ("max_retries", "1"),
        ("first_byte_timeout", "0.3"),
        ("idle_timeout", "0.3"),
    ] {
        spec.set(&format!("saas.{key}"), value).unwrap();
    }
    runtime.deploy(spec).await.unwrap();
}

async fn ask(runtime: &Runtime, reader: Reader) {
    let mut request = request("m");
    request.whole = matches!(reader, Reader::Whole);
    // What goes wrong is the caller's to see; here only the money counts.
    let Ok(mut stream) = runtime.chat(RequestContext::local(), request).await else { return };
    let mut pieces = 0;
    while let Some(Ok(_)) = stream.next().await {
        pieces += 1;
        if pieces == 2 && matches!(reader, Reader::Leaves) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_lets_the_ledger_fall_below_the_bill() {
    for name in ["openai", "zhipu"] {
        let directory = tempfile::tempdir().unwrap();
        let state = Some(directory.path().to_path_buf());
        let runtime = Runtime::open_with(options(state), ScriptedLoader::answering("")).await.unwrap();
        let price = NewPrice {
            vendor: name.to_owned(),
            model: "*".to_owned(),
            currency: "USD".to_owned(),
            input: Micros(2_500_000),
            cached_input: Some(Micros(300_000)),
            cache_write: None,
            output: Micros(10_000_000),
            reasoning: None,
        };
        let ledger = runtime.ledger().clone();
        tokio::task::spawn_blocking(move || ledger.set_prices(vec![price])).await.unwrap().unwrap();
        let vendor = Simulator::start(name, Options::default()).unwrap();
        deploy(&runtime, &vendor).await;
        for fault in Fault::all() {
            // Waiting as told takes seconds and bills nothing.
            if matches!(fault, Fault::Status(_, RetryAfter::Seconds(_) | RetryAfter::Date(_))) {
                continue;
            }
            for reader in [Reader::Whole, Reader::Stream, Reader::Leaves] {
                vendor.fault(fault);
                ask(&runtime, reader).await;
                // Two good ones: what the fault left behind is used up, and the vendor is not left alone.
                ask(&runtime, reader).await;
                ask(&runtime, Reader::Stream).await;
            }
        }
        let ledger = runtime.ledger().clone();
        let report = tokio::task::spawn_blocking(move || ledger.usage(UsageBy::Vendor, None)).await;
        let total = report.unwrap().unwrap().total;
        let bill = vendor.bill();
        let billed: u128 = bill.iter().map(exact).sum();
        let spent = u128::from(total.cost["USD"].0) * 1_000_000;
        assert!(spent >= billed, "{name}: {spent} in the ledger, {billed} on the bill");
        assert_eq!(
            (total.flagged.unknown_price, total.flagged.unbounded, total.flagged.over_reserved),
            (0, 0, 0)
        );
        assert!(total.flagged.estimated > 10 && bill.len() > 100, "{name}: {} lines", bill.len());
        runtime.shutdown(std::time::Duration::from_secs(5)).await;

        // Line by line: a reported one is the bill, every other at least that.
        let lines: HashMap<&str, &Line> = bill.iter().map(|line| (line.request_id.as_str(), line)).collect();
        let connection = rusqlite::Connection::open(directory.path().join("ledger.db")).unwrap();
        let columns = "SELECT vendor_request, source, prompt, cached, completion, cost FROM records WHERE vendor_request IS NOT NULL";
        let mut query = connection.prepare(columns).unwrap();
        let mut rows = query.query([]).unwrap();
        let mut reported = 0;
        while let Some(row) = rows.next().unwrap() {
            let (id, source): (String, String) = (row.get(0).unwrap(), row.get(1).unwrap());
            let Some(line) = lines.get(id.as_str()) else { continue };
            let number = |column: usize| u64::try_from(row.get::<_, i64>(column).unwrap()).unwrap();
            if source == "reported" {
                let found = (number(2), number(3), number(4));
                assert_eq!(found, (line.tokens.prompt, line.tokens.cached, line.tokens.completion), "{id}");
                assert_eq!(u128::from(number(5)), exact(line).div_ceil(1_000_000), "{id}");
                reported += 1;
            } else {
                assert!(u128::from(number(5)) * 1_000_000 >= exact(line), "{id} {source}");
            }
        }
        assert!(reported > 50, "{name}: {reported}");
    }
}
