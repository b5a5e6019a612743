//! Resource limits.

use std::fs;
use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::policy::{Error, Policy};

use super::step;

/// The bytes of address space that the process has now.
pub(super) fn address_space() -> Result<u64, Error> {
    let sizes = step("reading the size of the process", fs::read_to_string("/proc/self/statm"))?;
    let pages = sizes.split(' ').next().and_then(|pages| pages.parse::<u64>().ok());
    let pages = pages.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData));
    let pages = step("reading the size of the process", pages)?;
    Ok(pages.saturating_mul(rustix::param::page_size() as u64))
}

/// Sets the limits, which the process cannot raise again.
pub(super) fn set(policy: &Policy, in_use: u64) -> Result<(), Error> {
    let limits = policy.limits;
    let file_bytes = policy.scratch.map_or(0, |scratch| scratch.bytes);
    let values = [
        (Resource::Cpu, limits.cpu_seconds.max(1)),
        (Resource::As, in_use.saturating_add(limits.memory_bytes)),
        (Resource::Nofile, limits.open_files),
        (Resource::Fsize, file_bytes),
        (Resource::Nproc, 0),
        (Resource::Core, 0),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
    ];
    for (resource, value) in values {
        // A limit that is lower already, and cannot be raised, is kept.
        let most = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let value = value.min(most);
        let limit = Rlimit { current: Some(value), maximum: Some(value) };
        step("setting resource limits", setrlimit(resource, limit))?;
    }
    Ok(())
}
