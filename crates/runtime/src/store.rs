//! Deployments on disk: one SQLite file. The table of the keys is in [`crate::keys`].
//!
//! Invariant: what [`Store::put`] and [`Store::remove`] have returned from survives `kill -9` and a power cut. A
//! damaged file is reported and left as it is.

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use byzerllm_core::{Error, ErrorKind};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use thiserror::Error as ThisError;

use crate::spec::DeploymentSpec;

/// The version of the table that this program reads and writes.
const SCHEMA: i64 = 2;

/// What can go wrong with the file.
#[derive(Debug, ThisError)]
pub(crate) enum StoreError {
    #[error(
        "the deployment database '{}' is damaged ({detail}). Nothing was changed: restore a copy of it, or move it \
         away with its -wal and -shm files and deploy again", path.display()
    )]
    Corrupt { path: PathBuf, detail: String },
    #[error(
        "the deployment database '{}' has version {found} and this program knows version {SCHEMA}: use the newer \
         program, or another state directory", path.display()
    )]
    Newer { path: PathBuf, found: i64 },
    #[error("the disk that holds '{}' is full: free space and try again; nothing was changed", path.display())]
    Full { path: PathBuf },
    #[error("the deployment database '{}' cannot be used: {source}", path.display())]
    Sqlite { path: PathBuf, source: rusqlite::Error },
    #[error("the deployment database '{}' cannot be opened: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("a record cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Spec(Error),
    #[error("a secret would have been stored as it is; please report this")]
    Unsealed,
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::Corrupt { .. } => ErrorKind::InvalidRequest,
            StoreError::Newer { .. } => ErrorKind::Unsupported,
            StoreError::Full { .. } | StoreError::Sqlite { .. } => ErrorKind::Unavailable,
            StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                ErrorKind::PermissionDenied
            }
            StoreError::Io { .. } => ErrorKind::InvalidRequest,
            StoreError::Spec(source) => source.kind(),
            StoreError::Json(_) | StoreError::Unsealed => ErrorKind::Internal,
        };
        Error::new(kind, error.to_string()).with_param("state").with_source(error)
    }
}

/// A deployment as it was stored.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Its name.
    pub(crate) name: String,
    /// Its spec, or why it cannot be read.
    pub(crate) spec: Result<DeploymentSpec, String>,
    /// Seconds since 1970.
    pub(crate) created: u64,
}

/// The open file.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Store {
    /// Opens the file in the state directory, or makes it with mode 0600.
    pub(crate) fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join("byzerllm.db");
        // SQLite gives its side files the mode of the main file.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .and_then(|file| private(&file).map(|()| file))
            .map_err(|source| StoreError::Io { path: path.clone(), source })?;
        for end in ["-wal", "-shm"] {
            let side = directory.join(format!("byzerllm.db{end}"));
            match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&side) {
                Ok(file) => private(&file).map_err(|source| StoreError::Io { path: side, source })?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(StoreError::Io { path: side, source }),
            }
        }
        drop(file);
        let store = |error| convert(&path, error);
        let connection = Connection::open(&path).map_err(store)?;
        prepare(&connection).map_err(store)?;
        let damage: String =
            connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(store)?;
        if damage != "ok" {
            return Err(StoreError::Corrupt { path, detail: damage });
        }
        let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(store)?;
        if found > SCHEMA {
            return Err(StoreError::Newer { path, found });
        }
        if found < SCHEMA {
            let keys = crate::keys::CREATE;
            let create = format!(
                "BEGIN IMMEDIATE;
                 CREATE TABLE IF NOT EXISTS deployments (
                     name TEXT PRIMARY KEY NOT NULL, spec TEXT NOT NULL, created INTEGER NOT NULL
                 ) STRICT;
                 {keys}
                 PRAGMA user_version = {SCHEMA};
                 COMMIT;"
            );
            connection.execute_batch(&create).map_err(store)?;
        }
        Ok(Self { path, connection: Mutex::new(connection) })
    }

    /// All deployments, oldest first.
    pub(crate) fn all(&self) -> Result<Vec<Stored>, StoreError> {
        let connection = self.connection();
        let store = |error| convert(&self.path, error);
        let mut query = connection
            .prepare("SELECT name, spec, created FROM deployments ORDER BY created, name")
            .map_err(store)?;
        let rows = query
            .query_map([], |row| {
                let (name, text, created): (String, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
                let spec = serde_json::from_str::<DeploymentSpec>(&text).map_err(|error| error.to_string());
                Ok(Stored { name, spec, created: u64::try_from(created).unwrap_or(0) })
            })
            .map_err(store)?;
        rows.collect::<Result<_, _>>().map_err(store)
    }

    /// Keeps a deployment, in place of one with the same name. A literal secret is refused: it must be sealed before.
    pub(crate) fn put(&self, spec: &DeploymentSpec, created: u64) -> Result<(), StoreError> {
        if spec.provider.as_ref().is_some_and(|provider| provider.literals().next().is_some()) {
            return Err(StoreError::Unsealed);
        }
        let text = spec.exposed().map_err(StoreError::Spec)?.to_string();
        let created = i64::try_from(created).unwrap_or(i64::MAX);
        self.connection()
            .execute(
                "INSERT OR REPLACE INTO deployments (name, spec, created) VALUES (?1, ?2, ?3)",
                params![spec.name, text, created],
            )
            .map_err(|error| convert(&self.path, error))?;
        Ok(())
    }

    /// Forgets a deployment.
    pub(crate) fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.connection()
            .execute("DELETE FROM deployments WHERE name = ?1", params![name])
            .map_err(|error| convert(&self.path, error))?;
        Ok(())
    }

    /// Work on other tables of the file.
    pub(crate) fn with<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        work(&self.connection()).map_err(|error| convert(&self.path, error))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a file away from other users, who may have had it since an older version or a careless copy.
fn private(file: &File) -> std::io::Result<()> {
    let mode = file.metadata()?.mode();
    if mode & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(())
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0)).optional()?;
    connection
        .execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF;")
}

fn convert(path: &Path, error: rusqlite::Error) -> StoreError {
    let path = path.to_path_buf();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Corrupt { path, detail: error.to_string() }
        }
        Some(ErrorCode::DiskFull) => StoreError::Full { path },
        _ => StoreError::Sqlite { path, source: error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str) -> DeploymentSpec {
        let mut spec = DeploymentSpec::new(name, "/models/x.gguf");
        spec.set("temperature", "0.25").unwrap();
        spec.labels.insert("backend".to_owned(), "ray/vllm".into());
        spec
    }

    #[test]
    fn deployments_come_back_as_they_were() {
        let directory = tempfile::tempdir().unwrap();
        {
            let store = Store::open(directory.path()).unwrap();
            store.put(&spec("b"), 1).unwrap();
            store.put(&spec("a"), 2).unwrap();
            store.put(&spec("gone"), 3).unwrap();
            store.remove("gone").unwrap();
            store.remove("never").unwrap();
        }
        let store = Store::open(directory.path()).unwrap();
        let all = store.all().unwrap();
        let names: Vec<_> = all.iter().map(|stored| (stored.name.as_str(), stored.created)).collect();
        assert_eq!(names, [("b", 1), ("a", 2)]);
        assert_eq!(*all[1].spec.as_ref().unwrap(), spec("a"));
        for file in ["byzerllm.db", "byzerllm.db-wal", "byzerllm.db-shm"] {
            let mode = std::fs::metadata(directory.path().join(file)).unwrap().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }

    #[test]
    fn a_file_that_others_could_read_becomes_private() {
        let directory = tempfile::tempdir().unwrap();
        drop(Store::open(directory.path()).unwrap());
        let path = directory.path().join("byzerllm.db");
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        std::fs::write(directory.path().join("byzerllm.db-shm"), "").unwrap();
        std::fs::set_permissions(directory.path().join("byzerllm.db-shm"), Permissions::from_mode(0o666))
            .unwrap();
        let _store = Store::open(directory.path()).unwrap();
        for file in ["byzerllm.db", "byzerllm.db-shm"] {
            let mode = std::fs::metadata(directory.path().join(file)).unwrap().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }

    #[test]
    fn a_secret_is_stored_sealed_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let mut spec = DeploymentSpec::of_provider("m", "saas/openai");
        spec.set("saas.api_key", "sk-canary").unwrap();
        assert!(matches!(store.put(&spec, 1), Err(StoreError::Unsealed)));
        assert!(store.all().unwrap().is_empty());
        spec.set("saas.api_key", "env:KEY").unwrap();
        store.put(&spec, 1).unwrap();
        assert_eq!(*store.all().unwrap()[0].spec.as_ref().unwrap(), spec);
    }

    #[test]
    fn a_damaged_file_is_reported_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("byzerllm.db");
        let junk = b"this is no database, and long enough to be looked at as a header of one".repeat(20);
        std::fs::write(&path, &junk).unwrap();
        let error: Error = Store::open(directory.path()).unwrap_err().into();
        assert!(error.message().contains("damaged") && error.message().contains("move it"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), junk);
    }

    #[test]
    fn damage_inside_the_table_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("byzerllm.db");
        {
            let store = Store::open(directory.path()).unwrap();
            for i in 0..200 {
                store.put(&spec(&format!("d{i}")), i).unwrap();
            }
        }
        let mut bytes = std::fs::read(&path).unwrap();
        let end = bytes.len();
        bytes[4096..end].fill(0xA5);
        std::fs::write(&path, &bytes).unwrap();
        let error = Store::open(directory.path()).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    }

    #[test]
    fn a_newer_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        drop(Store::open(directory.path()).unwrap());
        let connection = Connection::open(directory.path().join("byzerllm.db")).unwrap();
        connection.execute_batch("PRAGMA user_version = 99").unwrap();
        drop(connection);
        let error: Error = Store::open(directory.path()).unwrap_err().into();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("99"), "{error}");
    }

    #[test]
    fn a_full_disk_is_said_so_and_keeps_what_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        store.put(&spec("a"), 1).unwrap();
        store.connection().query_row("PRAGMA max_page_count = 1", [], |_| Ok(())).unwrap();
        let mut large = spec("b");
        large.labels.insert("x".to_owned(), "y".repeat(100_000).into());
        let error = store.put(&large, 2).unwrap_err();
        assert!(matches!(error, StoreError::Full { .. }), "{error}");
        assert_eq!(store.all().unwrap().len(), 1);
    }

    #[test]
    fn a_row_that_cannot_be_read_does_not_hide_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        store.put(&spec("good"), 1).unwrap();
        store
            .connection()
            .execute("INSERT INTO deployments VALUES ('odd', '{\"name\": \"odd\", \"future\": 1}', 0)", [])
            .unwrap();
        let all = store.all().unwrap();
        assert_eq!(all.len(), 2);
        assert!(all[0].spec.as_ref().unwrap_err().contains("future"));
        assert!(all[1].spec.is_ok());
    }
}
