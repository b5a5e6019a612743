//! Files and directories that appear whole or not at all: written under another name beside their place, brought to the
//! disk, then renamed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::error::QuantizeError;

const BUFFER: usize = 1 << 20;

/// The name under which something is written that is not whole yet.
fn partial(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".partial-{}", std::process::id()));
    path.with_file_name(name)
}

/// Brings a rename to the disk.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// A file in the making. Dropped before [`Self::finish`], it leaves nothing.
#[derive(Debug)]
pub(super) struct AtomicFile {
    path: PathBuf,
    partial: PathBuf,
    writer: Option<BufWriter<File>>,
    written: u64,
}

impl AtomicFile {
    pub(super) fn create(path: &Path, overwrite: bool) -> Result<Self, QuantizeError> {
        if path.exists() && (!overwrite || path.is_dir()) {
            return Err(QuantizeError::Exists { path: path.into() });
        }
        let partial = partial(path);
        let file = File::create(&partial).map_err(|source| QuantizeError::write(path, source))?;
        let writer = Some(BufWriter::with_capacity(BUFFER, file));
        Ok(Self { path: path.into(), partial, writer, written: 0 })
    }

    /// Bytes so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), QuantizeError> {
        if let Some(writer) = &mut self.writer {
            writer.write_all(bytes).map_err(|source| QuantizeError::write(&self.path, source))?;
            self.written += bytes.len() as u64;
        }
        Ok(())
    }

    /// Zeros up to the next multiple.
    pub(super) fn pad(&mut self, multiple: u64) -> Result<(), QuantizeError> {
        let missing = self.written.next_multiple_of(multiple) - self.written;
        self.write(&vec![0; missing as usize])
    }

    /// Gives the file its name. Returns its size.
    pub(super) fn finish(mut self) -> Result<u64, QuantizeError> {
        let failed = |source| QuantizeError::write(&self.path, source);
        if let Some(writer) = self.writer.take() {
            let file = writer.into_inner().map_err(|error| failed(error.into_error()))?;
            file.sync_all().map_err(failed)?;
        }
        fs::rename(&self.partial, &self.path).map_err(failed)?;
        sync_parent(&self.path).map_err(failed)?;
        Ok(self.written)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        // After the rename there is nothing of that name.
        let _ = fs::remove_file(&self.partial);
    }
}

/// A directory in the making. Dropped before [`Self::finish`], it leaves nothing.
#[derive(Debug)]
pub(super) struct AtomicDirectory {
    path: PathBuf,
    partial: PathBuf,
}

impl AtomicDirectory {
    pub(super) fn create(path: &Path, overwrite: bool) -> Result<Self, QuantizeError> {
        if path.exists() && !(overwrite && path.is_dir()) {
            return Err(QuantizeError::Exists { path: path.into() });
        }
        let partial = partial(path);
        // Of a process with the same number that was killed.
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir(&partial).map_err(|source| QuantizeError::write(path, source))?;
        Ok(Self { path: path.into(), partial })
    }

    /// The place of a file in it.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.partial.join(name)
    }

    /// Writes a small file.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), QuantizeError> {
        let mut file = AtomicFile::create(&self.join(name), false)?;
        file.write(bytes)?;
        file.finish().map(|_| ())
    }

    /// Gives the directory its name. One that was there is moved aside first and removed last.
    pub(super) fn finish(self) -> Result<(), QuantizeError> {
        let failed = |source| QuantizeError::write(&self.path, source);
        let old = self.partial.with_extension("old");
        if self.path.exists() {
            fs::rename(&self.path, &old).map_err(failed)?;
        }
        if let Err(error) = fs::rename(&self.partial, &self.path) {
            let _ = fs::rename(&old, &self.path);
            return Err(failed(error));
        }
        let _ = fs::remove_dir_all(&old);
        sync_parent(&self.path).map_err(failed)
    }
}

impl Drop for AtomicDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.partial);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_finished_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("model.gguf");
        let mut file = AtomicFile::create(&path, false).unwrap();
        file.write(&[1; 100]).unwrap();
        drop(file);
        let directory = AtomicDirectory::create(&place.path().join("model"), false).unwrap();
        directory.write("config.json", b"{}").unwrap();
        drop(directory);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_there_is_replaced_only_on_request() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("model.gguf");
        fs::write(&path, "old").unwrap();
        assert!(matches!(AtomicFile::create(&path, false), Err(QuantizeError::Exists { .. })));
        let mut file = AtomicFile::create(&path, true).unwrap();
        file.write(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        file.pad(8).unwrap();
        assert_eq!(file.finish().unwrap(), 8);
        assert_eq!(fs::read(&path).unwrap(), b"new\0\0\0\0\0");

        let path = place.path().join("model");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("old"), "").unwrap();
        assert!(matches!(AtomicDirectory::create(&path, false), Err(QuantizeError::Exists { .. })));
        let directory = AtomicDirectory::create(&path, true).unwrap();
        directory.write("new", b"").unwrap();
        directory.finish().unwrap();
        assert!(path.join("new").exists() && !path.join("old").exists());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_told() {
        // Writes to this device fail as on a full disk; the file is reached by a link, since nothing can be renamed there.
        let mut file = AtomicFile {
            path: "/dev/full".into(),
            partial: "/nonexistent/partial".into(),
            writer: Some(BufWriter::with_capacity(4, File::options().write(true).open("/dev/full").unwrap())),
            written: 0,
        };
        let error = file.write(&[1; 64]).unwrap_err();
        assert!(error.to_string().contains("No space left"), "{error}");
    }
}
