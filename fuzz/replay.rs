//! Replays a corpus in the ordinary tests of the crate that includes this file.

#[path = "../crates/model/tests/it/allocations.rs"]
mod allocations;

use std::path::{Path, PathBuf};
use std::sync::Once;

/// The folder of a target's files.
pub(super) fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

/// The files of a target, in the order of their names.
pub(super) fn files(target: &str) -> Vec<PathBuf> {
    let directory = corpus(target);
    let mut files: Vec<_> =
        std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", directory.display());
    files
}

/// Panics of other crates are caught where they may happen; their messages would only take memory.
fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.location().is_some_and(|place| place.file().contains("/registry/")) {
                usual(info);
            }
        }));
    });
}

/// Runs a body with every file of its corpus, and with their beginnings.
pub(super) fn replay(target: &str, body: fn(&[u8]) -> usize) {
    quiet();
    for file in files(target) {
        let bytes = std::fs::read(&file).unwrap();
        for end in [bytes.len(), bytes.len() / 2] {
            let (most, held) = allocations::peak(|| body(&bytes[..end]));
            if held > most {
                panic!("{}: {end} bytes held {held} bytes, more than {most}", file.display());
            }
        }
    }
}
