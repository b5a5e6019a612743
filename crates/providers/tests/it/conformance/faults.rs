//! Every vendor under every fault: no text lost, doubled or out of order, no hang, errors as errors, books above bills.

use std::time::Duration;

use byzerllm_core::{ErrorKind, FinishReason, UsageSource};
use byzerllm_simulator::{Ending, Fault, Line, RetryAfter, TAIL};
use futures::future::join_all;

use super::world::{CASES, Came, Case, World, question};

/// How long a request may take that is told to give up within 0.7 s.
const PATIENCE: Duration = Duration::from_secs(30);

/// The kinds in which a fault may show.
fn kinds(fault: Fault) -> &'static [ErrorKind] {
    use ErrorKind::{DeadlineExceeded, Overloaded, RateLimited, TooLarge, Unavailable, Upstream};
    match fault {
        Fault::StallBefore | Fault::Stall => &[DeadlineExceeded],
        Fault::Status(429, _) => &[RateLimited, Overloaded],
        Fault::Status(..) | Fault::ErrorWithStatus200 | Fault::StreamError => {
            &[Overloaded, RateLimited, Unavailable, Upstream]
        }
        Fault::Oversized(_) => &[Upstream, TooLarge],
        _ => &[Upstream, Unavailable],
    }
}

/// A fault that shows when an answer comes in events, or only then.
fn concerns(fault: Fault, whole: bool) -> bool {
    !(whole && fault == Fault::Duplicated)
}

async fn meet(case: &Case, fault: Fault, whole: bool) {
    let world = World::new(case, &[]);
    let what = format!("{} under {fault}, {}", case.title, if whole { "whole" } else { "in events" });
    let expected = format!("你好 hello{TAIL}");
    world.vendor.fault(fault);
    let asked = world.ask(question("你好 hello", whole));
    let came = tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("{what}: it hangs"));
    if let (true, None) = (matches!(fault, Fault::Oversized(_)), &came.error) {
        panic!("{what}: an event of 64 MiB was read to its end");
    }
    if fault.is_harmless() {
        unharmed(&came, &expected, fault, &what);
    } else {
        let error = came.error.as_ref().unwrap_or_else(|| panic!("{what}: no error, but {came:?}"));
        assert!(kinds(fault).contains(&error.kind()), "{what}: {:?} {error}", error.kind());
        assert!(expected.starts_with(&came.text), "{what}: {:?}", came.text);
        assert!(came.usage.is_none(), "{what}: a failed answer has no last record of usage");
        for secret in [&world.vendor.credentials().api_key, &world.vendor.credentials().secret] {
            assert!(!format!("{error:?}").contains(secret.as_str()), "{what}: {error:?}");
        }
        if let Fault::Status(_, RetryAfter::Seconds(seconds)) = fault {
            assert_eq!(error.retry_after(), Some(Duration::from_secs(seconds.into())), "{what}");
        }
        if let Fault::Status(_, RetryAfter::Date(seconds)) = fault {
            let after = error.retry_after().unwrap_or_else(|| panic!("{what}: no time to come again"));
            assert!(after <= Duration::from_secs(seconds.into()), "{what}: {after:?}");
        }
    }
    if fault == Fault::Redirect {
        nothing_leaks(&world, &what);
    }
    let bill = settled(&world).await;
    assert_eq!(bill.len(), usize::from(!fault.refuses()), "{what}");
    if let (Some(line), false) = (bill.first(), matches!(fault, Fault::Oversized(_))) {
        // The fault did happen: on the vendor's side, too, the answer was whole or was not.
        assert_eq!(line.ending == Ending::Answered, fault.is_harmless(), "{what}: {line:?}");
    }
    world.book.covers(&bill, &what);
}

/// The vendor's bill. An answer may be read to its end before the vendor knows that it is written.
async fn settled(world: &World) -> Vec<Line> {
    for _ in 0..100 {
        if world.vendor.bill().iter().all(|line| line.ending != Ending::Open) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.vendor.bill()
}

fn unharmed(came: &Came, expected: &str, fault: Fault, what: &str) {
    assert!(came.error.is_none(), "{what}: {:?}", came.error);
    assert_eq!(came.text, expected, "{what}");
    assert_eq!(came.finish, Some(FinishReason::Stop), "{what}");
    let usage = came.usage.as_ref().unwrap_or_else(|| panic!("{what}: no usage"));
    let silent = matches!(fault, Fault::NoUsage | Fault::ZeroUsage);
    assert_eq!(usage.source == UsageSource::Reported, !silent, "{what}: {usage:?}");
}

/// The other origin saw no credential, neither as it is nor as the vendor wants it sent.
fn nothing_leaks(world: &World, what: &str) {
    let credentials = world.vendor.credentials();
    for request in world.vendor.elsewhere() {
        let all = format!("{request:?}");
        for secret in [&credentials.api_key, &credentials.secret] {
            assert!(!all.contains(secret.as_str()), "{what}: {all}");
        }
        for field in ["authorization", "api-key", "x-api-key", "x-goog-api-key", "access_token"] {
            assert!(request.header(field).is_none() && request.parameter(field).is_none(), "{what}: {all}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_vendor_keeps_the_contract_under_every_fault() {
    for fault in Fault::all() {
        let meetings = CASES.iter().flat_map(|case| [false, true].map(|whole| (case, whole)));
        let concerned: Vec<_> = meetings.filter(|(_, whole)| concerns(fault, *whole)).collect();
        // Stalls are waited for together; answers of 64 MiB would keep each other from arriving in time.
        let together = if matches!(fault, Fault::Oversized(_)) { 4 } else { concerned.len() };
        for meetings in concerned.chunks(together) {
            join_all(meetings.iter().map(|(case, whole)| meet(case, fault, *whole))).await;
        }
    }
}

#[tokio::test]
async fn a_refusal_before_the_first_event_is_tried_again_and_paid_once() {
    for case in CASES {
        let world = World::new(case, &[("max_retries", "2")]);
        world.vendor.fault(Fault::Status(500, RetryAfter::Unsaid));
        world.vendor.fault(Fault::Status(503, RetryAfter::Unsaid));
        let came = world.ask(question("again", false)).await;
        assert_eq!(came.text, format!("again{TAIL}"), "{}: {:?}", case.title, came.error);
        assert_eq!((world.vendor.bill().len(), world.book.rows().len()), (1, 3), "{}", case.title);
        world.book.covers(&world.vendor.bill(), case.title);
    }
}

#[tokio::test]
async fn an_answer_that_was_begun_is_not_begun_again() {
    for case in CASES {
        let world = World::new(case, &[("max_retries", "2")]);
        world.vendor.fault(Fault::Reset);
        let came = world.ask(question("once and no more", false)).await;
        assert!(came.error.is_some(), "{}", case.title);
        assert!(!came.text.is_empty(), "{}: half of it was sent", case.title);
        assert_eq!(world.vendor.bill().len(), 1, "{}", case.title);
    }
}

#[tokio::test]
async fn a_stream_that_is_dropped_is_paid_for() {
    use futures::StreamExt;

    for case in CASES {
        let world = World::new(case, &[]);
        world.vendor.fault(Fault::Stall);
        let chat = world.model.handle().chat.unwrap();
        let mut stream = chat.chat(question("leave me", false), world.context()).await.unwrap();
        let _first = stream.next().await;
        drop(stream);
        world.book.covers(&world.vendor.bill(), case.title);
        assert_eq!(world.vendor.bill().len(), 1, "{}", case.title);
    }
}
