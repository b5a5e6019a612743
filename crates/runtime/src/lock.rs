//! The state directory and its one owner.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use byzerllm_core::{Error, ErrorKind, Result};

/// The exclusive use of a state directory. The system takes it back when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct StateLock {
    _file: File,
}

fn failed(what: &str, path: &Path, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Unavailable,
        _ => ErrorKind::InvalidRequest,
    };
    let path = path.display();
    Error::new(
        kind,
        format!("cannot {what} '{path}': {error}; choose another state directory or repair this one"),
    )
    .with_param("state")
    .with_source(error)
}

impl StateLock {
    /// Makes the directory when it is missing (mode 0700) and takes it.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] naming the owner's process; [`ErrorKind::PermissionDenied`] for a directory of
    /// another user or one that others may write to.
    pub(crate) fn take(directory: &Path) -> Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| failed("make the state directory", directory, error))?;
        check_owner(directory)?;
        let path: PathBuf = directory.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(|error| failed("open the lock file", &path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(taken(directory, &mut file)),
            Err(TryLockError::Error(error)) => return Err(failed("lock", &path, error)),
        }
        let note = format!("{}\n", std::process::id());
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(note.as_bytes()))
            .map_err(|error| failed("write the lock file", &path, error))?;
        Ok(Self { _file: file })
    }
}

fn check_owner(directory: &Path) -> Result<()> {
    let metadata =
        fs::metadata(directory).map_err(|error| failed("read the state directory", directory, error))?;
    let user = rustix::process::geteuid();
    let denied = |why: String| {
        Err(Error::new(
            ErrorKind::PermissionDenied,
            format!("the state directory '{}' {why}", directory.display()),
        )
        .with_param("state"))
    };
    if metadata.uid() != user.as_raw() && !user.is_root() {
        return denied(format!("belongs to user {}; choose a directory of your own", metadata.uid()));
    }
    if metadata.mode() & 0o022 != 0 {
        return denied("may be written to by other users; `chmod go-w` it or choose another".to_owned());
    }
    if metadata.mode() & 0o077 != 0 {
        // What is kept there is for its owner alone.
        tracing::warn!(directory = %directory.display(), "the state directory was open to other users; it is not any more");
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
            .map_err(|error| failed("close to other users", directory, error))?;
    }
    Ok(())
}

fn taken(directory: &Path, file: &mut File) -> Error {
    let mut note = String::new();
    // The owner may just be writing: an unreadable note names no process.
    let _ = file.take(32).read_to_string(&mut note);
    let owner =
        note.trim().parse::<u32>().map_or("another process".to_owned(), |pid| format!("process {pid}"));
    Error::new(
        ErrorKind::Conflict,
        format!(
            "the state directory '{}' is in use by {owner}; talk to that server, stop it, or choose another state \
             directory",
            directory.display()
        ),
    )
    .with_param("state")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_directory_and_its_lock_are_private() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("deep/state");
        let _lock = StateLock::take(&directory).unwrap();
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(directory.join("lock")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_directory_that_others_could_read_becomes_private() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("state");
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        let _lock = StateLock::take(&directory).unwrap();
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_second_owner_is_told_the_first() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("state");
        let lock = StateLock::take(&directory).unwrap();
        let error = StateLock::take(&directory).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.message().contains(&format!("process {}", std::process::id())), "{error}");
        drop(lock);
        StateLock::take(&directory).unwrap();
    }

    #[test]
    fn a_directory_open_to_others_and_a_linked_lock_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let open = root.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(StateLock::take(&open).unwrap_err().kind(), ErrorKind::PermissionDenied);
        let linked = root.path().join("linked");
        DirBuilder::new().mode(0o700).create(&linked).unwrap();
        std::os::unix::fs::symlink(root.path().join("victim"), linked.join("lock")).unwrap();
        assert!(StateLock::take(&linked).is_err());
        assert!(!root.path().join("victim").exists());
    }

    #[test]
    fn a_file_in_the_way_is_an_error_that_names_it() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("state");
        fs::write(&file, "").unwrap();
        let error = StateLock::take(&file).unwrap_err();
        assert!(error.message().contains("state"), "{error}");
        assert_eq!(error.param(), Some("state"));
    }
}
