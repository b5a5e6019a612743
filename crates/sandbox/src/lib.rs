//! Locks the calling process up, for good, before it runs code that nobody has read.
//!
//! [`enter`] takes every right that computing does not need: a system call filter without which it refuses, no new
//! privileges, resource limits, closed descriptors, and a file layer, the best of what the kernel offers. It is called
//! in a fresh process that has started no thread; there is no way back.

mod policy;

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod linux;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub use linux::enter;

pub use policy::{Error, FileLayer, Layer, Limits, Policy, Report, Scratch};

/// Refuses: there is no sandbox for this system.
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub fn enter(_policy: &Policy) -> Result<Report, Error> {
    Err(Error::System)
}
