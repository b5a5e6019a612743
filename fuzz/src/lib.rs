//! Runs the body of a target on one input and ends the process where it breaks a promise.
//!
//! The parsers of other crates run behind `catch_unwind`, which libFuzzer's own panic hook would not let them. So the
//! hook here ends the process only for a panic of this repository's code, or for one that nobody catches.

#[path = "../../crates/model/tests/it/allocations.rs"]
mod allocations;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Replaces the panic hook; called once before the first input.
pub fn prepare() {
    std::panic::set_hook(Box::new(|info| {
        let foreign = info
            .location()
            .is_some_and(|place| ["/registry/", "/rustc/"].iter().any(|part| place.file().contains(part)));
        if !foreign {
            eprintln!("{info}");
            std::process::abort();
        }
    }));
}

/// Runs a body, which returns the memory that it may have held.
pub fn run(bytes: &[u8], body: fn(&[u8]) -> usize) {
    let Ok((most, held)) = catch_unwind(AssertUnwindSafe(|| allocations::peak(|| body(bytes)))) else {
        eprintln!("a panic of another crate was not caught");
        std::process::abort();
    };
    assert!(held <= most, "{} bytes of input held {held} bytes, more than {most}", bytes.len());
}
