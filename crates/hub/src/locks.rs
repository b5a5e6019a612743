//! Locks between processes. The system takes them back when a process ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use crate::{Problem, Result};

/// A held lock.
#[derive(Debug)]
pub(crate) struct Held {
    _file: File,
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|error| Problem::disk("open the lock", path, error))
}

/// Waits for the only use.
pub(crate) async fn alone(path: PathBuf) -> Result<Held> {
    wait(path, File::lock).await
}

/// Waits for a use that others may have too.
pub(crate) async fn together(path: PathBuf) -> Result<Held> {
    wait(path, File::lock_shared).await
}

async fn wait(path: PathBuf, take: fn(&File) -> std::io::Result<()>) -> Result<Held> {
    let waiting = tokio::task::spawn_blocking(move || {
        let file = open(&path)?;
        take(&file).map_err(|error| Problem::disk("lock", &path, error))?;
        Ok(Held { _file: file })
    });
    waiting
        .await
        .unwrap_or_else(|_| Err(Problem::Busy { what: "waiting for the cache was interrupted".into() }))
}

/// The only use, or [`Problem::Busy`] at once.
pub(crate) fn alone_now(path: &Path) -> Result<Held> {
    let file = open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Held { _file: file }),
        Err(TryLockError::WouldBlock) => Err(Problem::Busy { what: "a pull is using the cache".into() }),
        Err(TryLockError::Error(error)) => Err(Problem::disk("lock", path, error)),
    }
}
