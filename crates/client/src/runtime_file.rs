//! The file in which a running server tells the programs of the same user where it is and how to be its admin.
//!
//! The directory is `$XDG_RUNTIME_DIR/byzerllm` when that variable names a directory of ours, else
//! `<temporary directory>/byzerllm-<user id>`. Directory and files are open to their owner alone; a link, a foreign
//! owner or an open mode is refused, since whoever can write here could receive our admin requests.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use byzerllm_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// The largest record that is read.
const MAX_RECORD: u64 = 64 << 10;

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
    /// The certificate that it shows, as a PEM file, when it speaks https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
}

impl std::fmt::Debug for ServerRecord {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("ServerRecord")
            .field("url", &self.url)
            .field("pid", &self.pid)
            .field("state", &self.state)
            .field("started", &self.started)
            .finish_non_exhaustive()
    }
}

/// Removes the record's file when dropped, unless another server has taken its place.
#[derive(Debug)]
pub struct Guard {
    path: PathBuf,
    record: ServerRecord,
}

impl Guard {
    /// The record's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        remove_if(&self.path, &self.record);
    }
}

/// The directory of the records of this user's servers; made, for this user alone, when it is missing.
///
/// # Errors
/// [`ErrorKind::PermissionDenied`] when it is a link, belongs to another user or is open to others.
pub fn directory() -> Result<PathBuf> {
    let directory = place();
    make(&directory)?;
    Ok(directory)
}

/// Writes a record, whole or not at all.
///
/// # Errors
/// As [`directory`], and when the file cannot be written.
pub fn write(record: &ServerRecord) -> Result<Guard> {
    write_in(&directory()?, record)
}

/// The record of the server at `port`, or of the one that started last. Records of dead servers are removed.
///
/// # Errors
/// As [`directory`], and [`ErrorKind::PermissionDenied`] for the file of another user.
pub fn find(port: Option<u16>) -> Result<Option<ServerRecord>> {
    find_in(&place(), port)
}

/// The record of the living server that holds a state directory.
///
/// # Errors
/// As [`find`].
pub fn find_state(state: &Path) -> Result<Option<ServerRecord>> {
    find_where(&place(), |record| record.state.as_deref() == Some(state))
}

/// A file among the records that leads to no server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    /// The record of a process that has ended; looking for a server removes it.
    Dead(PathBuf, u32),
    /// A file that is not read, and why not.
    Refused(PathBuf, String),
}

/// The files of a directory that look like records and lead to no server. Nothing is removed.
///
/// # Errors
/// When the directory cannot be read.
pub fn leftovers(directory: &Path) -> Result<Vec<Leftover>> {
    let entries =
        fs::read_dir(directory).map_err(|error| failed("read the runtime directory", directory, error))?;
    let mut found = Vec::new();
    for entry in entries.flatten() {
        if entry.file_name().to_str().and_then(port_of).is_none() {
            continue;
        }
        let path = entry.path();
        match read(&path) {
            Ok(Some(record)) if alive(record.pid) => {}
            Ok(Some(record)) => found.push(Leftover::Dead(path, record.pid)),
            Ok(None) => found.push(Leftover::Refused(path, "a server record cannot be read".to_owned())),
            Err(error) => found.push(Leftover::Refused(path, error.message().to_owned())),
        }
    }
    Ok(found)
}

fn place() -> PathBuf {
    choose(std::env::var_os("XDG_RUNTIME_DIR").as_deref(), &std::env::temp_dir())
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn choose(runtime_directory: Option<&OsStr>, temporary: &Path) -> PathBuf {
    let ours = runtime_directory.map(Path::new).filter(|path| {
        path.is_absolute()
            && fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == user())
    });
    match ours {
        Some(path) => path.join("byzerllm"),
        None => temporary.join(format!("byzerllm-{}", user())),
    }
}

fn denied(path: &Path, why: &str) -> Error {
    Error::new(
        ErrorKind::PermissionDenied,
        format!("'{}' {why}; it must belong to this user alone: remove it and try again", path.display()),
    )
}

fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Unavailable,
        _ => ErrorKind::InvalidRequest,
    };
    Error::new(kind, format!("cannot {what} '{}': {error}", path.display())).with_source(error)
}

fn make(directory: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed("make the runtime directory", directory, error)),
    }
    if trusted(directory)? {
        return Ok(());
    }
    Err(failed("make the runtime directory", directory, io::ErrorKind::NotFound.into()))
}

/// Whether the directory exists; an error when it is not ours alone.
fn trusted(directory: &Path) -> Result<bool> {
    let metadata = match fs::symlink_metadata(directory) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed("read the runtime directory", directory, error)),
    };
    if !metadata.is_dir() {
        return Err(denied(directory, "is a link or a file instead of a directory"));
    }
    check_owner(directory, &metadata, user())?;
    Ok(true)
}

fn check_owner(path: &Path, metadata: &Metadata, user: u32) -> Result<()> {
    if metadata.uid() != user {
        return Err(denied(path, "belongs to another user"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(denied(path, "is open to other users"));
    }
    Ok(())
}

fn file_name(port: u16) -> String {
    format!("server-{port}.json")
}

fn write_in(directory: &Path, record: &ServerRecord) -> Result<Guard> {
    let path = directory.join(file_name(record.port));
    let text = serde_json::to_vec_pretty(record)
        .map_err(|error| Error::internal("a server record cannot be written as JSON").with_source(error))?;
    let draft = directory.join(format!(".{}.{}", file_name(record.port), std::process::id()));
    // A draft of ours from a write that was cut short.
    let _ = fs::remove_file(&draft);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&draft)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&draft, &path)
    })();
    if let Err(error) = written {
        let _ = fs::remove_file(&draft);
        return Err(failed("write the server's record", &path, error));
    }
    Ok(Guard { path, record: record.clone() })
}

/// Reads one record; `None` when there is none, or none that makes sense.
fn read(path: &Path) -> Result<Option<ServerRecord>> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let file: File = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(denied(path, "is a link")),
        Err(error) => return Err(failed("read the server's record", path, error)),
    };
    let metadata = file.metadata().map_err(|error| failed("read the server's record", path, error))?;
    if !metadata.is_file() {
        return Err(denied(path, "is not a file"));
    }
    check_owner(path, &metadata, user())?;
    let mut text = Vec::new();
    file.take(MAX_RECORD)
        .read_to_end(&mut text)
        .map_err(|error| failed("read the server's record", path, error))?;
    match serde_json::from_slice(&text) {
        Ok(record) => Ok(Some(record)),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "ignoring a server record that cannot be read");
            Ok(None)
        }
    }
}

fn find_in(directory: &Path, port: Option<u16>) -> Result<Option<ServerRecord>> {
    if !trusted(directory)? {
        return Ok(None);
    }
    if let Some(port) = port {
        let path = directory.join(file_name(port));
        return Ok(living(&path, read(&path)?.filter(|record| record.port == port)));
    }
    find_where(directory, |_| true)
}

/// The newest record of a living server that fits.
fn find_where(directory: &Path, fits: impl Fn(&ServerRecord) -> bool) -> Result<Option<ServerRecord>> {
    if !trusted(directory)? {
        return Ok(None);
    }
    let entries =
        fs::read_dir(directory).map_err(|error| failed("read the runtime directory", directory, error))?;
    let mut found: Option<ServerRecord> = None;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(port) = name.to_str().and_then(port_of) else { continue };
        let path = entry.path();
        let record = match read(&path) {
            Ok(record) => living(&path, record.filter(|record| record.port == port)),
            Err(error) => {
                tracing::warn!(%error, "ignoring a server record");
                None
            }
        };
        let newer = |record: &ServerRecord| {
            found.as_ref().is_none_or(|found| (record.started, record.port) > (found.started, found.port))
        };
        if let Some(record) = record.filter(|record| fits(record) && newer(record)) {
            found = Some(record);
        }
    }
    Ok(found)
}

fn port_of(name: &str) -> Option<u16> {
    name.strip_prefix("server-")?.strip_suffix(".json")?.parse().ok()
}

/// The record when its server lives; the file of a dead one is removed.
fn living(path: &Path, record: Option<ServerRecord>) -> Option<ServerRecord> {
    let record = record?;
    if alive(record.pid) {
        return Some(record);
    }
    remove_if(path, &record);
    None
}

fn alive(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { return false };
    // A process that we may not signal exists all the same.
    !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

/// Removes a file that still holds this record.
fn remove_if(path: &Path, record: &ServerRecord) {
    if read(path).is_ok_and(|found| found.as_ref() == Some(record)) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A private directory as [`directory`] makes it.
    fn private() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("byzerllm");
        make(&directory).unwrap();
        (root, directory)
    }

    fn record(port: u16, started: u64) -> ServerRecord {
        ServerRecord {
            url: format!("http://127.0.0.1:{port}"),
            port,
            pid: std::process::id(),
            token: "secret".to_owned(),
            state: Some(PathBuf::from("/state")),
            started,
            certificate: None,
        }
    }

    /// The id of a process that has ended.
    fn dead() -> u32 {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        pid
    }

    #[test]
    fn a_record_is_found_by_port_and_goes_with_its_server() {
        let (_root, directory) = private();
        let guard = write_in(&directory, &record(8000, 1)).unwrap();
        assert_eq!(find_in(&directory, Some(8000)).unwrap(), Some(record(8000, 1)));
        assert_eq!(find_in(&directory, Some(8001)).unwrap(), None);
        assert_eq!(fs::metadata(guard.path()).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "no draft is left");
        drop(guard);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    }

    #[test]
    fn without_a_port_the_newest_server_is_found() {
        let (_root, directory) = private();
        let _guards = [(8000, 5), (8001, 9), (8002, 7)]
            .map(|(port, started)| write_in(&directory, &record(port, started)));
        fs::write(directory.join("server-8003.json"), "{").unwrap();
        fs::write(directory.join("notes.txt"), "x").unwrap();
        assert_eq!(find_in(&directory, None).unwrap().unwrap().port, 8001);
        assert_eq!(find_where(&directory, |record| record.port < 8001).unwrap().unwrap().port, 8000);
        assert_eq!(find_where(&directory, |_| false).unwrap(), None);
    }

    #[test]
    fn a_dead_server_is_ignored_and_its_record_removed() {
        let (_root, directory) = private();
        for port in [None, Some(8000)] {
            let guard = write_in(&directory, &ServerRecord { pid: dead(), ..record(8000, 1) }).unwrap();
            let path = guard.path().to_owned();
            assert_eq!(find_in(&directory, port).unwrap(), None);
            assert!(!path.exists());
        }
        assert!(!alive(0) && !alive(u32::MAX) && alive(1));
    }

    #[test]
    fn a_newer_server_of_the_same_port_keeps_its_record() {
        let (_root, directory) = private();
        let old = write_in(&directory, &record(8000, 1)).unwrap();
        let _new = write_in(&directory, &record(8000, 2)).unwrap();
        drop(old);
        assert_eq!(find_in(&directory, Some(8000)).unwrap().unwrap().started, 2);
    }

    #[test]
    fn a_reader_sees_a_whole_record_or_none() {
        let (_root, directory) = private();
        let _first = write_in(&directory, &record(8000, 0)).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for started in 1..200 {
                    std::mem::forget(write_in(&directory, &record(8000, started)).unwrap());
                }
            });
            while !writer.is_finished() {
                assert!(find_in(&directory, Some(8000)).unwrap().is_some());
            }
        });
    }

    #[test]
    fn a_foreign_open_or_linked_directory_is_refused() {
        let (root, directory) = private();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o750)).unwrap();
        for result in [make(&directory), find_in(&directory, None).map(|_| ())] {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
        }
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
        let link = root.path().join("link");
        symlink(&directory, &link).unwrap();
        assert_eq!(make(&link).unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert_eq!(find_in(&link, Some(1)).unwrap_err().kind(), ErrorKind::PermissionDenied);
        let metadata = fs::metadata(&directory).unwrap();
        let error = check_owner(&directory, &metadata, user() + 1).unwrap_err();
        assert!(error.message().contains("another user"), "{error}");
    }

    #[test]
    fn a_linked_or_open_record_is_refused() {
        let (root, directory) = private();
        let guard = write_in(&directory, &record(8000, 1)).unwrap();
        fs::set_permissions(guard.path(), fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(find_in(&directory, Some(8000)).unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert_eq!(find_in(&directory, None).unwrap(), None);
        let elsewhere = root.path().join("elsewhere");
        fs::rename(guard.path(), &elsewhere).unwrap();
        symlink(&elsewhere, guard.path()).unwrap();
        assert_eq!(find_in(&directory, Some(8000)).unwrap_err().kind(), ErrorKind::PermissionDenied);
        // Writing replaces the link and leaves its target alone.
        let before = fs::read(&elsewhere).unwrap();
        let _guard = write_in(&directory, &record(8000, 2)).unwrap();
        assert_eq!(fs::read(&elsewhere).unwrap(), before);
        assert_eq!(find_in(&directory, Some(8000)).unwrap().unwrap().started, 2);
    }

    #[test]
    fn what_leads_to_no_server_is_found_and_left_there() {
        let (_root, directory) = private();
        let _living = write_in(&directory, &record(8000, 1)).unwrap();
        assert_eq!(leftovers(&directory).unwrap(), []);
        let dead = ServerRecord { pid: dead(), ..record(8001, 1) };
        let guard = write_in(&directory, &dead).unwrap();
        assert_eq!(leftovers(&directory).unwrap(), [Leftover::Dead(guard.path().to_owned(), dead.pid)]);
        fs::set_permissions(guard.path(), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(
            matches!(&leftovers(&directory).unwrap()[..], [Leftover::Refused(_, why)] if why.contains("open"))
        );
        fs::write(directory.join("server-8002.json"), "{").unwrap();
        assert_eq!(leftovers(&directory).unwrap().len(), 2);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 3);
    }

    #[test]
    fn the_place_is_ours() {
        let root = tempfile::tempdir().unwrap();
        let fallback = root.path().join(format!("byzerllm-{}", user()));
        assert_eq!(choose(Some(root.path().as_os_str()), root.path()), root.path().join("byzerllm"));
        assert_eq!(choose(None, root.path()), fallback);
        assert_eq!(choose(Some("relative".as_ref()), root.path()), fallback);
        assert_eq!(choose(Some(root.path().join("missing").as_os_str()), root.path()), fallback);
        assert_eq!(find_in(&fallback, None).unwrap(), None);
        assert!(!fallback.exists(), "looking makes no directory");
    }
}
