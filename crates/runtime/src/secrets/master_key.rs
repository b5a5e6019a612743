//! The key under which secrets are sealed: 32 random bytes in a file of their own.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind as Io, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error as ThisError;

/// The variable that names the file when the program does not.
pub(crate) const VARIABLE: &str = "BYZERLLM_MASTER_KEY_FILE";
pub(super) const BYTES: usize = 32;

/// Why the key cannot be used.
#[derive(Debug, ThisError)]
pub(crate) enum MasterKeyError {
    #[error(
        "the master key '{}' is missing, without which sealed secrets cannot be opened; restore the file, or deploy \
         again with the secret", .0.display()
    )]
    Missing(PathBuf),
    #[error(
        "a sealed secret cannot be opened with the master key '{}': it was sealed with another key, or was changed; \
         restore the key file, or deploy again with the secret", .0.display()
    )]
    Wrong(PathBuf),
    #[error("the master key '{}' {what}", path.display())]
    Unfit { path: PathBuf, what: String },
    #[error("the master key '{}' cannot be {doing}: {source}; repair it, or name another with {VARIABLE}", path.display())]
    Io { path: PathBuf, doing: &'static str, source: std::io::Error },
    #[error("the system gives no random numbers; check that /dev/urandom can be read")]
    Random,
}

impl From<MasterKeyError> for byzerllm_core::Error {
    fn from(error: MasterKeyError) -> Self {
        Self::invalid("master_key", error.to_string()).with_source(error)
    }
}

/// Where the key is: as chosen, else as the environment says, else in the state directory.
pub(crate) fn path(chosen: Option<&Path>, state: &Path) -> PathBuf {
    let named = || std::env::var_os(VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
    chosen.map(Path::to_path_buf).or_else(named).unwrap_or_else(|| state.join("master.key"))
}

/// Reads the key.
pub(super) fn read(path: &Path) -> Result<[u8; BYTES], MasterKeyError> {
    let io = |source| MasterKeyError::Io { path: path.to_path_buf(), doing: "read", source };
    let unfit = |what: &str| MasterKeyError::Unfit { path: path.to_path_buf(), what: what.to_owned() };
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path);
    let mut file = opened.map_err(|source| match source.kind() {
        Io::NotFound => MasterKeyError::Missing(path.to_path_buf()),
        _ => io(source),
    })?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(unfit("is no regular file; name a file of 32 random bytes"));
    }
    let user = rustix::process::geteuid();
    if metadata.uid() != user.as_raw() && metadata.uid() != 0 && !user.is_root() {
        return Err(unfit("belongs to another user; take a key of your own"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(unfit("may be used by other users; `chmod 600` it"));
    }
    if metadata.len() != BYTES as u64 {
        return Err(unfit("has not 32 bytes; restore it from a copy"));
    }
    let mut key = [0; BYTES];
    file.read_exact(&mut key).map_err(io)?;
    Ok(key)
}

/// Makes the key unless another process is first; the one that is there then.
pub(super) fn make(path: &Path, key: &[u8; BYTES]) -> Result<[u8; BYTES], MasterKeyError> {
    let io = |source| MasterKeyError::Io { path: path.to_path_buf(), doing: "made", source };
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", std::process::id()));
    let draft = PathBuf::from(draft);
    // Left over by a process that ended before it was done.
    let _absent = fs::remove_file(&draft);
    let written =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).and_then(|mut file| {
            file.write_all(key)?;
            file.sync_all()
        });
    // A link is made whole or not at all, and replaces nothing.
    let linked = written.and_then(|()| fs::hard_link(&draft, path));
    let _absent = fs::remove_file(&draft);
    match linked {
        Err(error) if error.kind() != Io::AlreadyExists => return Err(io(error)),
        _ => {}
    }
    if let Some(directory) = path.parent() {
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(io)?;
    }
    read(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.key");
        assert!(matches!(read(&path), Err(MasterKeyError::Missing(_))));
        assert_eq!(make(&path, &[1; BYTES]).unwrap(), [1; BYTES]);
        assert_eq!(make(&path, &[2; BYTES]).unwrap(), [1; BYTES], "the first stays");
        assert_eq!(read(&path).unwrap(), [1; BYTES]);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_cut_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.key");
        fs::write(&path, [7; BYTES]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, [7; 31]).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("32 bytes"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("no regular file"));
    }

    #[test]
    fn the_place_is_chosen_or_in_the_state_directory() {
        let state = Path::new("/state");
        assert_eq!(path(Some(Path::new("/run/key")), state), Path::new("/run/key"));
        // The variable itself is tested with a process of its own.
        if std::env::var_os(VARIABLE).is_none() {
            assert_eq!(path(None, state), Path::new("/state/master.key"));
        }
    }
}
