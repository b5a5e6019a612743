//! A process that spends under a budget is killed at random moments, again and again, and what it leaves is checked.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use byzerllm_core::{Ending, ErrorKind};
use byzerllm_runtime::{Ledger, UsageBy};

use crate::ledger::{Seeded, attempt, bill, dollars, price, settlement, usage};

/// Set in the process that is to be killed: its state directory.
const CHILD: &str = "BYZERLLM_LEDGER_CHILD";
/// In millionths of a dollar.
const LIMIT: u64 = 5_000_000;
const THREADS: u64 = 4;

/// One line of the vendor's bill: it has worked for this request, whatever becomes of the one who asked.
struct Line {
    request: String,
    reported: bool,
    tokens: (u32, u32, u32),
}

impl Line {
    fn write(&self) -> String {
        let (prompt, cached, completion) = self.tokens;
        format!("{} {} {prompt} {cached} {completion}\n", self.request, u8::from(self.reported))
    }

    fn read(line: &str) -> Self {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |place: usize| words[place].parse().unwrap();
        Self {
            request: words[0].to_owned(),
            reported: words[1] == "1",
            tokens: (number(2), number(3), number(4)),
        }
    }

    fn cost(&self) -> u64 {
        let (prompt, cached, completion) = self.tokens;
        u64::try_from(bill(prompt, cached, completion).div_ceil(1_000_000)).unwrap()
    }
}

/// Not a test of its own: what runs in the process that is killed.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(CHILD) else { return };
    let directory = Path::new(&directory);
    let ledger = Ledger::open(directory).unwrap();
    let (settled, acknowledge) = mpsc::channel::<String>();
    let seed = u64::from(std::process::id());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (accounting, settled) = (ledger.accounting(), settled.clone());
            scope.spawn(move || {
                let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let mut random = Seeded(seed * THREADS + thread);
                // One write per line: it is whole, and outlives the process.
                let path = directory.join("bill");
                let mut vendor = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
                loop {
                    let (prompt, completion) = (1 + random.below(2000), 1 + random.below(500));
                    let attempt = attempt(Some("app"), "gpt", prompt, Some(completion));
                    let request = attempt.request.0.clone();
                    let held = match tokio.block_on(accounting.begin(attempt)) {
                        Ok(held) => held,
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::RateLimited, "{error}");
                            return;
                        }
                    };
                    let part =
                        |random: &mut Seeded, whole: u64| u32::try_from(random.below(whole + 1)).unwrap();
                    let (prompt, completion) =
                        (part(&mut random, prompt - 1) + 1, part(&mut random, completion));
                    let cached = part(&mut random, prompt.into());
                    let reported = random.below(8) != 0;
                    let line = Line { request, reported, tokens: (prompt, cached, completion) };
                    vendor.write_all(line.write().as_bytes()).unwrap();
                    std::thread::sleep(Duration::from_micros(random.below(8000)));
                    match reported {
                        true => {
                            let usage = usage(prompt, cached, completion);
                            held.settle(settlement(Ending::Answered, Some(usage)));
                        }
                        false => drop(held),
                    }
                    settled.send(line.request).unwrap();
                }
            });
        }
        drop(settled);
        let mut out = std::io::stdout();
        // The harness has begun a line of its own.
        writeln!(out).unwrap();
        while let Ok(first) = acknowledge.recv() {
            let mut requests = vec![first];
            requests.extend(acknowledge.try_iter());
            ledger.flush().unwrap();
            for request in requests {
                writeln!(out, "ack {request}").unwrap();
            }
            out.flush().unwrap();
        }
        writeln!(out, "spent").unwrap();
        out.flush().unwrap();
        // The lease stays open: this process does not end in order, either.
        std::process::abort();
    });
}

fn spawn(directory: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ledger_kill::child", "--nocapture", "--test-threads=1"])
        .env(CHILD, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn no_death_loses_a_record_or_frees_what_was_leased() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(directory.path()).unwrap();
    ledger.set_prices(vec![price("gpt")]).unwrap();
    ledger.set_budget(&dollars("app", LIMIT)).unwrap();
    drop(ledger);
    let mut random = Seeded(6);
    let mut acknowledged: HashSet<String> = HashSet::new();
    let (mut kills, mut spent_before) = (0, 0);
    loop {
        let mut child = spawn(directory.path());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // It dies after so many acknowledgements: often enough to have begun, never at a moment that it chose.
        let (mut patience, pause) = (1 + random.below(200), random.below(6000));
        let mut spent = false;
        for line in lines.map_while(Result::ok) {
            if let Some(request) = line.strip_prefix("ack ") {
                acknowledged.insert(request.to_owned());
                patience = patience.saturating_sub(1);
            }
            spent |= line == "spent";
            if patience == 0 {
                patience = u64::MAX;
                std::thread::sleep(Duration::from_micros(pause));
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        kills += usize::from(!spent);
        check(directory.path(), &acknowledged, &mut spent_before);
        if spent {
            break;
        }
        assert!(kills < 100, "the budget is never spent");
    }
    assert!(kills >= 5, "{kills}");
}

fn check(directory: &Path, acknowledged: &HashSet<String>, spent_before: &mut u64) {
    let text = std::fs::read_to_string(directory.join("bill")).unwrap_or_default();
    let bill: HashMap<String, Line> =
        text.lines().map(Line::read).map(|line| (line.request.clone(), line)).collect();
    let billed: u64 = bill.values().map(Line::cost).sum();
    let ledger = Ledger::open(directory).unwrap();
    let status = ledger.budgets().remove(0);
    let micros = |text: &str| text.parse::<byzerllm_runtime::Micros>().unwrap().0;
    let (spent, left) = (micros(&status.spent), micros(&status.left));
    // What was leased is spent: all of the bill is in it, and the limit holds.
    assert_eq!((spent + left, status.reserved.as_str()), (LIMIT, "0"));
    assert!(billed <= spent, "{billed} billed, {spent} counted as spent");
    assert!(spent >= *spent_before, "nothing that was spent comes back");
    *spent_before = spent;

    let total = ledger.usage(UsageBy::Key, None).unwrap().total;
    assert!(total.cost.get("USD").is_none_or(|cost| cost.0 <= LIMIT));
    drop(ledger);
    let connection = rusqlite::Connection::open(directory.join("ledger.db")).unwrap();
    let mut query = connection.prepare("SELECT request, source, cost, ending FROM records").unwrap();
    let mut seen: HashSet<String> = HashSet::new();
    let mut rows = query.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let (request, source): (String, String) = (row.get(0).unwrap(), row.get(1).unwrap());
        let (cost, ending): (i64, String) = (row.get(2).unwrap(), row.get(3).unwrap());
        let cost = u64::try_from(cost).unwrap();
        assert!(seen.insert(request.clone()), "{request} twice");
        // One that died between its reservation and its call was never billed.
        let Some(line) = bill.get(&request) else {
            assert_eq!(ending, "lost");
            continue;
        };
        match source.as_str() {
            "reported" => assert_eq!(cost, line.cost(), "{request}"),
            _ => assert!(cost >= line.cost() && (ending == "lost" || !line.reported), "{request} {ending}"),
        }
    }
    let lost: Vec<_> = acknowledged.difference(&seen).collect();
    assert!(lost.is_empty(), "acknowledged and gone: {lost:?}");
    // The next budget holder sees the rest of the limit and not more.
    assert_eq!(
        connection.query_row("SELECT COUNT(*) FROM attempts", [], |row| row.get::<_, i64>(0)).unwrap(),
        0
    );
}
