//! The file in which a running server tells the programs of the same user where it is and how to be its admin.

use std::path::PathBuf;

use byzerllm_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// What a server tells about itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRecord {
    /// Where it listens, `http://127.0.0.1:8000`.
    pub url: String,
    /// Its port.
    pub port: u16,
    /// Its process.
    pub pid: u32,
    /// The admin token.
    pub token: String,
    /// Its state directory.
    pub state: Option<PathBuf>,
    /// When it started, in seconds since 1970.
    pub started: u64,
}

impl std::fmt::Debug for ServerRecord {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("ServerRecord").field("url", &self.url).field("pid", &self.pid).finish_non_exhaustive()
    }
}

/// Removes the record's file when dropped.
#[derive(Debug)]
pub struct Guard {
    path: PathBuf,
}

impl Guard {
    /// The record's file.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }
}

/// The directory of the records of this user's servers; made when it is missing.
///
/// # Errors
/// [`ErrorKind::PermissionDenied`] when it is a link, belongs to another user or is open to others.
pub fn directory() -> Result<PathBuf> {
    Err(Error::new(ErrorKind::Unsupported, "this build keeps no records of servers"))
}

/// Writes a record, whole or not at all.
///
/// # Errors
/// As [`directory`], and when the file cannot be written.
pub fn write(record: &ServerRecord) -> Result<Guard> {
    let _ = record;
    Err(Error::new(ErrorKind::Unsupported, "this build keeps no records of servers"))
}

/// The record of the server at `port`, or of the one that started last. Records of dead servers are removed.
///
/// # Errors
/// As [`directory`].
pub fn find(port: Option<u16>) -> Result<Option<ServerRecord>> {
    let _ = port;
    Ok(None)
}
