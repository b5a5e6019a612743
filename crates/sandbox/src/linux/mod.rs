//! The order in which a process gives up its rights.

mod descriptors;
mod filter;
mod landlock;
mod limits;
mod namespace;
mod privileges;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::policy::{Error, FileLayer, Layer, Policy, Report};

/// Names a step in its error.
fn step<T, E: Into<io::Error>>(name: &'static str, result: Result<T, E>) -> Result<T, Error> {
    result.map_err(|error| Error::Step { step: name, source: error.into() })
}

/// Locks the calling process up. On an error it must end: it may be half-way.
pub fn enter(policy: &Policy) -> Result<Report, Error> {
    if policy.without.contains(&Layer::Seccomp) {
        return Err(Error::Seccomp("left out on demand".to_owned()));
    }
    filter::available()?;
    let threads = step("counting threads", fs::read_dir("/proc/self/task"))?.count();
    if threads != 1 {
        return Err(Error::Threads(threads));
    }
    let in_use = limits::address_space()?;
    descriptors::close_from(policy.first_closed_descriptor)?;
    privileges::forbid_new()?;

    let mut missing = Vec::new();
    let read = readable(&policy.read);
    let root = namespace::enter(policy, &read, &mut missing)?;
    step("changing the directory", rustix::process::chdir(root.directory()))?;
    privileges::drop_all()?;
    let landlocked = landlock::restrict(policy, &read, root.scratch(), &mut missing);
    let file_layer = match (landlocked, root.is_own()) {
        (true, _) => FileLayer::Landlock,
        (false, true) => FileLayer::Namespace,
        (false, false) => FileLayer::NoOpens,
    };
    limits::set(policy, in_use)?;
    filter::install(file_layer != FileLayer::NoOpens, root.scratch().is_some())?;
    Ok(Report { file_layer, scratch: root.scratch().map(Path::to_path_buf), missing })
}

/// The existing paths that may be read; those beneath another are left out.
fn readable(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        paths.iter().filter(|path| path.is_absolute() && path.exists()).cloned().collect();
    found.sort();
    found.dedup_by(|later, earlier| later.starts_with(&*earlier));
    found
}
