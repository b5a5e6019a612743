//! The ledger against a bill that a vendor would send, and budgets under many threads.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use byzerllm_core::{
    Accounting, Attempt, Ending, ErrorKind, Principal, RequestId, Reservation, Settlement, Task, Usage,
    UsageSource,
};
use byzerllm_runtime::{BudgetLimit, Ledger, Micros, NewBudget, NewPrice, Period, Subject, UsageBy};
use proptest::prelude::*;

pub(crate) fn attempt(key: Option<&str>, model: &str, prompt: u64, completion: Option<u64>) -> Attempt {
    Attempt {
        request: RequestId::generate(),
        principal: Principal { key_name: key.map(str::to_owned), ..Principal::default() },
        deployment: "chat".into(),
        vendor: "openai",
        model: model.into(),
        task: Task::Chat,
        number: 1,
        prompt_tokens: prompt,
        completion_tokens: completion,
    }
}

pub(crate) fn usage(prompt: u32, cached: u32, completion: u32) -> Usage {
    Usage {
        prompt_tokens: prompt,
        cached_tokens: cached,
        completion_tokens: completion,
        source: UsageSource::Reported,
        ..Usage::default()
    }
}

pub(crate) fn settlement(ending: Ending, usage: Option<Usage>) -> Settlement {
    Settlement { ending, usage, vendor_request_id: None, first_event: None }
}

/// 2.5 for a million prompt tokens, 0.3 for cached ones, 10 for generated ones.
pub(crate) fn price(model: &str) -> NewPrice {
    NewPrice {
        vendor: "openai".to_owned(),
        model: model.to_owned(),
        currency: "USD".to_owned(),
        input: Micros(2_500_000),
        cached_input: Some(Micros(300_000)),
        cache_write: None,
        output: Micros(10_000_000),
        reasoning: None,
    }
}

/// The same, written down once more by the one who sends the bill; exact, in millionths of millionths.
pub(crate) fn bill(prompt: u32, cached: u32, completion: u32) -> u128 {
    u128::from(prompt - cached) * 2_500_000
        + u128::from(cached) * 300_000
        + u128::from(completion) * 10_000_000
}

pub(crate) fn dollars(key: &str, micros: u64) -> NewBudget {
    NewBudget {
        subject: Subject::Key,
        name: key.to_owned(),
        period: Period::Total,
        limit: BudgetLimit::Money(Micros(micros), "USD".to_owned()),
        allow_unknown_price: false,
    }
}

fn tokens(subject: Subject, name: &str, tokens: u64) -> NewBudget {
    NewBudget { subject, limit: BudgetLimit::Tokens(tokens), allow_unknown_price: true, ..dollars(name, 0) }
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Reported,
    Silent,
    Estimated,
    Broken,
    BrokenAfterUsage,
    Forgotten,
    Refused,
    Cached,
}

#[derive(Debug, Clone)]
struct Tried {
    fate: Fate,
    priced: bool,
    bounded: bool,
    bound: (u32, u32),
    cuts: (u32, u32, u32),
    /// Settled after so many others began.
    delay: usize,
}

fn tried() -> impl Strategy<Value = Tried> {
    use Fate::{Broken, BrokenAfterUsage, Cached, Estimated, Forgotten, Refused, Reported, Silent};
    let fates = [Reported, Reported, Silent, Estimated, Broken, BrokenAfterUsage, Forgotten, Refused, Cached];
    let bound = (1_u32..5000, 1_u32..5000);
    let cuts = (0_u32..=100, 0_u32..=100, 0_u32..=100);
    (
        prop::sample::select(fates.to_vec()),
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.8),
        bound,
        cuts,
        0_usize..8,
    )
        .prop_map(|(fate, priced, bounded, bound, cuts, delay)| Tried {
            fate,
            priced,
            bounded,
            bound,
            cuts,
            delay,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever happens to attempts, in whatever order they end: reported ones are the bill, all together are at
    /// least the bill, and what has no cost is flagged.
    #[test]
    fn the_ledger_is_never_below_the_bill(all in prop::collection::vec(tried(), 1..40)) {
        let directory = tempfile::tempdir().unwrap();
        let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let ledger = Ledger::open(directory.path()).unwrap();
        ledger.set_prices(vec![price("gpt-4*")]).unwrap();
        let accounting = ledger.accounting();
        let (mut exact, mut reported, mut tokens, mut flagged) = (0_u128, 0_u64, 0_u64, 0_u64);
        let mut open: Vec<(usize, Box<dyn Reservation>, Option<Settlement>)> = Vec::new();
        for (place, tried) in all.iter().enumerate() {
            let model = if tried.priced { "gpt-4o" } else { "other" };
            let cached = matches!(tried.fate, Fate::Cached);
            let bounds = if cached { (0, Some(0)) } else { (tried.bound.0, tried.bounded.then_some(tried.bound.1)) };
            let attempt = attempt(None, model, bounds.0.into(), bounds.1.map(u64::from));
            let reservation = tokio.block_on(accounting.begin(attempt)).unwrap();
            let part = |whole: u32, percent: u32| whole * percent / 100;
            let (prompt, completion) = (part(tried.bound.0, tried.cuts.0).max(1), part(tried.bound.1, tried.cuts.1));
            let used = usage(prompt, part(prompt, tried.cuts.2), completion);
            let price = bill(prompt, used.cached_tokens, completion);
            let worked = !matches!(tried.fate, Fate::Refused | Fate::Cached);
            if worked {
                tokens += u64::from(prompt + completion);
            }
            let known = matches!(tried.fate, Fate::Reported) || !worked;
            let whole = matches!(tried.fate, Fate::Estimated);
            if worked && (!tried.priced || (!tried.bounded && !known && !whole)) {
                flagged += 1;
            } else if worked {
                exact += price;
            }
            if matches!(tried.fate, Fate::Reported) && tried.priced {
                reported += u64::try_from(price.div_ceil(1_000_000)).unwrap();
            }
            let failed = Ending::Failed(ErrorKind::Upstream);
            let settlement = match tried.fate {
                Fate::Reported => Some(settlement(Ending::Answered, Some(used))),
                Fate::Silent => Some(settlement(Ending::Answered, None)),
                Fate::Estimated => {
                    let above = Usage { source: UsageSource::Estimated, ..usage(tried.bound.0, 0, completion + 1) };
                    Some(settlement(Ending::Answered, Some(above)))
                }
                Fate::Broken => Some(settlement(failed, None)),
                Fate::BrokenAfterUsage => {
                    let early = Usage { completion_tokens: completion / 2, ..used };
                    Some(settlement(failed, Some(early)))
                }
                Fate::Forgotten => None,
                Fate::Refused => Some(settlement(Ending::Refused(ErrorKind::RateLimited), None)),
                Fate::Cached => Some(settlement(Ending::Cached, Some(used))),
            };
            open.push((place + tried.delay, reservation, settlement));
            let (over, rest): (Vec<_>, Vec<_>) = open.into_iter().partition(|(until, ..)| *until <= place);
            open = rest;
            for (_, reservation, settlement) in over {
                if let Some(settlement) = settlement {
                    reservation.settle(settlement);
                }
            }
        }
        for (_, reservation, settlement) in open {
            if let Some(settlement) = settlement {
                reservation.settle(settlement);
            }
        }
        let report = ledger.usage(UsageBy::Model, None).unwrap();
        let total = report.total;
        prop_assert_eq!(total.attempts, all.len() as u64);
        let cost = total.cost.get("USD").copied().unwrap_or_default().0;
        prop_assert!(u128::from(cost) * 1_000_000 >= exact, "{} < {}", cost, exact);
        let by_vendor: u64 = reported_cost(directory.path());
        prop_assert_eq!(by_vendor, reported);
        prop_assert_eq!(without_cost(directory.path()), flagged);
        let sum = |tokens: &byzerllm_runtime::Tokens| tokens.prompt + tokens.completion;
        let kept = sum(&total.tokens.reported) + sum(&total.tokens.counted) + sum(&total.tokens.estimated);
        prop_assert!(kept + 5000 * total.flagged.unbounded >= tokens);
        prop_assert_eq!(total.cached_answers, all.iter().filter(|tried| matches!(tried.fate, Fate::Cached)).count() as u64);
    }
}

fn ask(directory: &std::path::Path, sql: &str) -> u64 {
    let connection = rusqlite::Connection::open(directory.join("ledger.db")).unwrap();
    connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap().try_into().unwrap()
}

fn reported_cost(directory: &std::path::Path) -> u64 {
    ask(directory, "SELECT COALESCE(SUM(cost), 0) FROM records WHERE source = 'reported'")
}

/// Every record without a cost says why.
fn without_cost(directory: &std::path::Path) -> u64 {
    let odd = "SELECT COUNT(*) FROM records WHERE (cost IS NULL) <> (unknown_price OR unbounded)";
    assert_eq!(ask(directory, odd), 0);
    ask(directory, "SELECT COUNT(*) FROM records WHERE cost IS NULL")
}

/// A generator of numbers that are the same in every run.
pub(crate) struct Seeded(pub(crate) u64);

impl Seeded {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Sixteen tasks on four threads spend under two budgets at once, some attempts are dropped while they wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn budgets_hold_under_many_threads() {
    const KEY: u64 = 400_000;
    const DEPLOYMENT: u64 = 300_000;
    let directory = tempfile::tempdir().unwrap();
    let ledger = Arc::new(Ledger::open(directory.path()).unwrap());
    ledger.set_budget(&tokens(Subject::Key, "app", KEY)).unwrap();
    ledger.set_budget(&tokens(Subject::Deployment, "chat", DEPLOYMENT)).unwrap();
    // What is certainly taken: counted after a reservation, taken off before it is settled.
    let (taken, billed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let tasks = (0..16_u64).map(|task| {
        let (accounting, taken, billed) = (ledger.accounting(), Arc::clone(&taken), Arc::clone(&billed));
        tokio::spawn(async move {
            let mut random = Seeded(task + 1);
            let mut refused = 0;
            while refused < 20 {
                let bound = 1 + random.below(4000);
                let attempt = attempt(Some("app"), "gpt", bound / 2, Some(bound - bound / 2));
                // Some callers leave while their attempt waits for a lease.
                if random.below(8) == 0 {
                    let waiting = accounting.begin(attempt.clone());
                    drop(tokio::time::timeout(Duration::ZERO, waiting).await.map(|held| {
                        held.map(|held| {
                            held.settle(settlement(Ending::Refused(ErrorKind::Upstream), None));
                        })
                    }));
                    continue;
                }
                let held = match accounting.begin(attempt).await {
                    Ok(held) => held,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::RateLimited, "{error}");
                        refused += 1;
                        tokio::task::yield_now().await;
                        continue;
                    }
                };
                let now = taken.fetch_add(bound, Ordering::SeqCst) + bound;
                assert!(now <= DEPLOYMENT, "{now} of {DEPLOYMENT}");
                if random.below(2) == 0 {
                    tokio::task::yield_now().await;
                }
                let actual = 1 + random.below(bound);
                billed.fetch_add(actual, Ordering::SeqCst);
                taken.fetch_sub(bound - actual, Ordering::SeqCst);
                let used = usage(u32::try_from(actual).unwrap(), 0, 0);
                match actual <= bound / 2 {
                    true => held.settle(settlement(Ending::Answered, Some(used))),
                    false => held.settle(settlement(
                        Ending::Answered,
                        Some(Usage { prompt_tokens: 0, completion_tokens: used.prompt_tokens, ..used }),
                    )),
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let spent = billed.load(Ordering::SeqCst);
    let asking = Arc::clone(&ledger);
    let report =
        tokio::task::spawn_blocking(move || asking.usage(UsageBy::Key, None)).await.unwrap().unwrap();
    assert_eq!(report.total.tokens.reported.prompt + report.total.tokens.reported.completion, spent);
    assert!(spent <= DEPLOYMENT && spent > DEPLOYMENT / 2, "{spent}");
    // Nothing leaked: exactly the rest can still be had.
    let rest = DEPLOYMENT - spent;
    let accounting = ledger.accounting();
    let error = accounting.begin(attempt(Some("app"), "gpt", 0, Some(rest + 1))).await.err().unwrap();
    assert!(error.message().contains("deployment 'chat'"), "{error}");
    let held = accounting.begin(attempt(Some("app"), "gpt", 0, Some(rest))).await.unwrap();
    let status: HashMap<_, _> = ledger.budgets().into_iter().map(|it| (it.budget.name.clone(), it)).collect();
    assert_eq!((status["chat"].left.as_str(), &status["chat"].reserved), ("0", &rest.to_string()));
    assert_eq!(status["app"].spent, spent.to_string());
    drop(held);
}

#[tokio::test]
async fn what_a_budget_cannot_judge_is_refused_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(directory.path()).unwrap();
    ledger.set_prices(vec![price("gpt"), NewPrice { currency: "CNY".to_owned(), ..price("glm") }]).unwrap();
    ledger.set_budget(&dollars("app", 1_000_000)).unwrap();
    let accounting: Arc<dyn Accounting> = ledger.accounting();
    let refusal = async |model: &str, completion: Option<u64>| {
        accounting.begin(attempt(Some("app"), model, 10, completion)).await.err()
    };
    let unknown = refusal("other", Some(1)).await.unwrap();
    assert_eq!(unknown.kind(), ErrorKind::PermissionDenied);
    for words in ["byzerllm prices set", "'other' of openai", "--allow-unknown-price"] {
        assert!(unknown.message().contains(words), "{unknown}");
    }
    // Another currency does not pass by the limit.
    let foreign = refusal("glm", Some(1)).await.unwrap();
    assert_eq!(foreign.kind(), ErrorKind::PermissionDenied);
    assert!(foreign.message().contains("CNY"), "{foreign}");
    let unbounded = refusal("gpt", None).await.unwrap();
    assert_eq!((unbounded.kind(), unbounded.param()), (ErrorKind::InvalidRequest, Some("max_tokens")));
    assert!(unbounded.message().contains("saas.max_output_tokens"), "{unbounded}");
    let spent = refusal("gpt", Some(100_000)).await.unwrap();
    assert_eq!((spent.kind(), spent.retry_after()), (ErrorKind::RateLimited, None));
    assert!(spent.message().contains("1 USD"), "{spent}");
    assert!(refusal("gpt", Some(1000)).await.is_none());
    // An answer from the cache costs nothing and passes a spent budget.
    ledger.set_budget(&dollars("app", 0)).unwrap();
    assert!(refusal("gpt", Some(1)).await.is_some());
    accounting.begin(attempt(Some("app"), "other", 0, Some(0))).await.unwrap();
    // Other keys, and the same one where it is allowed, are flagged instead.
    accounting.begin(attempt(Some("other"), "other", 10, None)).await.unwrap();
    ledger.set_budget(&NewBudget { allow_unknown_price: true, ..dollars("app", 0) }).unwrap();
    assert!(refusal("other", Some(1)).await.is_none());
    assert!(refusal("glm", Some(1)).await.is_none());
    let report = ledger.usage(UsageBy::Model, None).unwrap();
    let other = report.rows.iter().find(|row| row.name == "other").unwrap();
    assert_eq!((other.attempts, other.flagged.unknown_price, other.flagged.unbounded), (3, 2, 1));
}

#[tokio::test]
async fn a_record_names_the_price_that_it_was_computed_from() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(directory.path()).unwrap();
    let first = ledger.set_prices(vec![price("gpt")]).unwrap()[0].id;
    let accounting = ledger.accounting();
    let before = accounting.begin(attempt(None, "gpt", 1000, Some(1000))).await.unwrap();
    let second = ledger.set_prices(vec![NewPrice { input: Micros(5_000_000), ..price("gpt") }]).unwrap();
    assert_eq!(second.len(), 1);
    assert_ne!(second[0].id, first);
    let after = accounting.begin(attempt(None, "gpt", 1000, Some(1000))).await.unwrap();
    for held in [before, after] {
        held.settle(settlement(Ending::Answered, Some(usage(1000, 0, 0))));
    }
    ledger.remove_price(second[0].id).unwrap();
    assert_eq!(ledger.remove_price(second[0].id).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(ledger.prices().is_empty());
    let report = ledger.usage(UsageBy::Vendor, None).unwrap();
    assert_eq!(report.total.cost["USD"], Micros(2500 + 5000));
    let used = "SELECT COUNT(*) FROM records JOIN prices ON prices.id = records.price
                WHERE records.cost = records.prompt * prices.input / 1000000 AND prices.retired IS NOT NULL";
    assert_eq!(ask(directory.path(), used), 2);
    assert_eq!(ledger.usage(UsageBy::Day, Some(u64::MAX)).unwrap().total.attempts, 0);
}

/// More than its bound is the vendor's fault; the ledger tells the truth all the same, and the budget too.
#[tokio::test]
async fn a_vendor_that_bills_beyond_its_bound_is_flagged() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(directory.path()).unwrap();
    ledger.set_budget(&tokens(Subject::Key, "app", 100)).unwrap();
    let accounting = ledger.accounting();
    let held = accounting.begin(attempt(Some("app"), "gpt", 50, Some(50))).await.unwrap();
    held.settle(settlement(Ending::Answered, Some(usage(50, 0, 80))));
    assert_eq!(ledger.usage(UsageBy::Key, None).unwrap().total.flagged.over_reserved, 1);
    assert_eq!(ledger.budgets()[0].spent, "130");
    assert!(accounting.begin(attempt(Some("app"), "gpt", 1, Some(0))).await.is_err());
    drop(ledger);
    let ledger = Ledger::open(directory.path()).unwrap();
    assert_eq!(ledger.budgets()[0].spent, "130");
}
