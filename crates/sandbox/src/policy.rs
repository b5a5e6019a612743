//! What a sandbox allows, and what became of it.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What the locked-up process may still do.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Files and directories that may be read, with everything beneath them. Missing ones are skipped.
    #[serde(default)]
    pub read: Vec<PathBuf>,
    /// Space for files of its own; it needs [`Layer::Namespace`].
    #[serde(default)]
    pub scratch: Option<Scratch>,
    /// What it may use up.
    pub limits: Limits,
    /// Descriptors from this number on are closed.
    pub first_closed_descriptor: u32,
    /// Layers that are treated as missing, for tests of what happens then.
    #[serde(default)]
    pub without: Vec<Layer>,
}

/// Limits of the process.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Seconds on a processor over its whole life.
    pub cpu_seconds: u64,
    /// Bytes of address space on top of those it has now.
    pub memory_bytes: u64,
    /// Open descriptors.
    pub open_files: u64,
}

/// A file system in memory that only the process sees.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scratch {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files and directories together.
    pub files: u64,
}

/// A layer that a kernel, or a container around us, may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// The filter of system calls.
    Seccomp,
    /// Landlock's rules about files.
    Landlock,
    /// A user and mount namespace with a file tree of its own.
    Namespace,
}

/// What keeps the process from the files of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileLayer {
    /// Landlock, in a file tree of its own where that was possible as well.
    Landlock,
    /// A file tree of its own.
    Namespace,
    /// Nothing can be opened at all.
    NoOpens,
}

/// What [`enter`](crate::enter) put in place.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What keeps it from files.
    pub file_layer: FileLayer,
    /// Where its own files go, when it has space for them.
    pub scratch: Option<PathBuf>,
    /// Why layers are missing.
    pub missing: Vec<String>,
}

/// Why there is no sandbox. The process must end: parts of it may be in place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none for this system.
    #[error("a sandbox needs Linux on x86_64 or aarch64")]
    System,
    /// The process has threads, which would stay outside.
    #[error("the process has {0} threads; a sandbox is entered with one")]
    Threads(usize),
    /// System calls cannot be filtered.
    #[error(
        "system calls cannot be filtered (seccomp): {0}; a kernel with CONFIG_SECCOMP_FILTER, and a container that \
         allows seccomp, are needed"
    )]
    Seccomp(String),
    /// Another step failed.
    #[error("{step} failed: {source}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
}
