//! The cache: blobs by content, models as links to them, manifests.
//!
//! Other files may lie in the same directory; only `*.gguf` directly below `models` are shown, as models of their
//! own that other tools put there. Directories are made one by one and a link in place of one is refused, so that
//! no write leaves the cache.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::checksum::{Sums, is_hex};
use crate::names;
use crate::settings::Settings;
use crate::{Problem, Result, locks};

/// How long an unfinished download is kept for another run.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Bytes that stay free.
const RESERVE: u64 = 16 << 20;
/// No file of a model can have this name: it begins with a dot and is ours.
const MANIFEST: &str = ".byzerllm.json";

/// A file by its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) sha256: String,
    pub(crate) size: u64,
}

/// What lies in a model's directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) source: String,
    pub(crate) organisation: String,
    pub(crate) name: String,
    pub(crate) revision: String,
    /// Branches, tags and other words that stood for this revision.
    pub(crate) asked: BTreeSet<String>,
    /// Seconds since 1970.
    pub(crate) pulled_at: u64,
    pub(crate) files: BTreeMap<String, Entry>,
    /// What each `--file` pattern (or none: the empty text) chose.
    pub(crate) picks: BTreeMap<String, Pick>,
}

/// A file of a model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) size: u64,
    pub(crate) sha256: String,
}

/// The files of one pull.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Pick {
    /// The file to load; nothing means the directory.
    pub(crate) entry: Option<String>,
    pub(crate) files: Vec<String>,
}

/// A model of the cache, as people see it.
#[derive(Debug, Clone, Serialize)]
pub struct Cached {
    /// What `byzerllm models` takes as NAME.
    pub name: String,
    /// huggingface, modelscope, pypi, url, or `file` for what other tools put there.
    pub source: String,
    /// Its commit, version or fingerprint.
    pub revision: String,
    /// Bytes, each file counted.
    pub size: u64,
    /// How many files.
    pub files: usize,
    /// The directory or file.
    pub path: PathBuf,
}

/// A file that is not what it was.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The model.
    pub name: String,
    /// The file.
    pub file: String,
    /// What is wrong.
    pub problem: String,
}

/// The cache directory.
#[derive(Debug)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A directory below the cache, made when missing.
    pub(crate) fn directory(&self, relative: &str) -> Result<PathBuf> {
        fs::create_dir_all(&self.root).map_err(|error| Problem::disk("make", &self.root, error))?;
        let mut path = self.root.clone();
        for part in relative.split('/') {
            names::check(part)?;
            path.push(part);
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Problem::disk("make", &path, error)),
            }
            let found = fs::symlink_metadata(&path).map_err(|error| Problem::disk("read", &path, error))?;
            if !found.is_dir() {
                let error = io::Error::new(io::ErrorKind::NotADirectory, "it is no directory");
                return Err(Problem::disk("use", &path, error));
            }
        }
        Ok(path)
    }

    /// The lock that pulls share and removals have alone.
    pub(crate) fn lock(&self) -> Result<PathBuf> {
        Ok(self.directory("downloads")?.join("cache.lock"))
    }

    pub(crate) fn free(&self, settings: &Settings) -> Result<u64> {
        self.directory("downloads")?;
        (settings.free_space)(&self.root).map_err(|error| Problem::disk("measure", &self.root, error))
    }

    pub(crate) fn room(&self, settings: &Settings, need: u64) -> Result<()> {
        let free = self.free(settings)?;
        if need.saturating_add(RESERVE) > free {
            return Err(Problem::Space { need, free, place: self.root.display().to_string() });
        }
        Ok(())
    }

    fn blob_path(&self, sha256: &str) -> PathBuf {
        self.root.join("blobs").join(sha256)
    }

    pub(crate) fn blob(&self, sha256: &str) -> Option<Blob> {
        let found = fs::symlink_metadata(self.blob_path(sha256)).ok()?;
        found.is_file().then(|| Blob { sha256: sha256.to_owned(), size: found.len() })
    }

    /// Opens a blob.
    pub(crate) fn open(&self, blob: &Blob) -> Result<File> {
        let path = self.blob_path(&blob.sha256);
        File::open(&path).map_err(|error| Problem::disk("open", &path, error))
    }

    /// Gives a checked file its name.
    pub(crate) fn adopt(&self, path: &Path, sha256: &str, size: u64) -> Result<Blob> {
        let target = self.directory("blobs")?.join(sha256);
        File::open(path)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(path, &target))
            .map_err(|error| Problem::disk("keep", &target, error))?;
        Ok(Blob { sha256: sha256.to_owned(), size })
    }

    /// Where a model's revisions lie.
    pub(crate) fn home(source: &str, organisation: &str, name: &str) -> String {
        format!("models/{source}/{organisation}/{name}")
    }

    /// Links a model's files and writes its manifest. `added.picks` has the one pull.
    pub(crate) async fn publish(&self, added: Manifest) -> Result<PathBuf> {
        let home =
            format!("{}/{}", Self::home(&added.source, &added.organisation, &added.name), added.revision);
        let lock = self.directory("downloads")?.join(format!("{}.lock", crate::checksum::key(&home)));
        let _held = locks::alone(lock).await?;
        let directory = self.directory(&home)?;
        for (name, entry) in &added.files {
            names::check(name)?;
            if name == MANIFEST {
                return Err(Problem::Name { name: name.clone(), why: "it is the name of the manifest" });
            }
            let parent = match name.rsplit_once('/') {
                Some((parent, _)) => self.directory(&format!("{home}/{parent}"))?,
                None => directory.clone(),
            };
            link(&self.blob_path(&entry.sha256), &directory.join(name), &parent)?;
        }
        let path = directory.join(MANIFEST);
        let manifest = match read_manifest(&directory) {
            Some(mut old) => {
                old.asked.extend(added.asked);
                old.files.extend(added.files);
                old.picks.extend(added.picks);
                old.pulled_at = added.pulled_at;
                old
            }
            None => added,
        };
        write_json(&path, &manifest)?;
        Ok(directory)
    }

    /// Every model with a manifest.
    pub(crate) fn manifests(&self) -> Vec<(PathBuf, Manifest)> {
        let mut found = Vec::new();
        let mut level = vec![self.root.join("models")];
        for _ in 0..4 {
            level =
                level.iter().flat_map(|directory| children(directory)).filter(|path| path.is_dir()).collect();
        }
        for directory in level {
            if let Some(manifest) = read_manifest(&directory) {
                found.push((directory, manifest));
            }
        }
        found.sort_by(|(left, _), (right, _)| left.cmp(right));
        found
    }

    /// The newest complete pull that fits.
    pub(crate) fn find(
        &self,
        source: &str,
        organisation: &str,
        name: &str,
        revision: Option<&str>,
        pattern: &str,
    ) -> Option<(PathBuf, Manifest)> {
        let mut fitting: Vec<(PathBuf, Manifest)> =
            children(&self.root.join(Self::home(source, organisation, name)))
                .into_iter()
                .filter_map(|directory| read_manifest(&directory).map(|manifest| (directory, manifest)))
                .filter(|(_, manifest)| {
                    revision.is_none_or(|asked| manifest.revision == asked || manifest.asked.contains(asked))
                })
                .collect();
        fitting.sort_by_key(|(_, manifest)| manifest.pulled_at);
        fitting.into_iter().rev().find_map(|(directory, manifest)| {
            let path = complete(&directory, &manifest, pattern)?;
            Some((path, manifest))
        })
    }

    /// Everything there is, what other tools put there included.
    pub(crate) fn models(&self) -> Vec<Cached> {
        let mut found: Vec<Cached> = self
            .manifests()
            .into_iter()
            .map(|(directory, manifest)| Cached {
                name: shown(&manifest),
                source: manifest.source.clone(),
                revision: manifest.revision.clone(),
                size: manifest.files.values().map(|entry| entry.size).fold(0, u64::saturating_add),
                files: manifest.files.len(),
                path: match manifest.picks.values().next() {
                    Some(Pick { entry: Some(entry), .. }) if manifest.picks.len() == 1 => {
                        directory.join(entry)
                    }
                    _ => directory,
                },
            })
            .collect();
        for path in children(&self.root.join("models")) {
            let Some(name) =
                path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".gguf"))
            else {
                continue;
            };
            if let Ok(metadata) = fs::symlink_metadata(&path)
                && metadata.is_file()
            {
                found.push(Cached {
                    name: name.to_owned(),
                    source: "file".into(),
                    revision: "-".into(),
                    size: metadata.len(),
                    files: 1,
                    path,
                });
            }
        }
        found
    }

    /// Bytes on disk: every blob once, unfinished downloads and other tools' files.
    pub(crate) fn size(&self) -> u64 {
        let files = |directory: &str| -> u64 {
            children(&self.root.join(directory))
                .iter()
                .filter_map(|path| fs::symlink_metadata(path).ok())
                .filter(fs::Metadata::is_file)
                .map(|metadata| std::os::unix::fs::MetadataExt::blocks(&metadata) * 512)
                .sum()
        };
        files("blobs") + files("downloads") + files("models")
    }

    /// Removes a model and every blob that no model needs. Returns the bytes that became free.
    pub(crate) fn remove(&self, model: &Cached) -> Result<u64> {
        let _held = locks::alone_now(&self.lock()?)?;
        let before = self.size();
        if model.source == "file" {
            fs::remove_file(&model.path).map_err(|error| Problem::disk("remove", &model.path, error))?;
            return Ok(before.saturating_sub(self.size()));
        }
        for (directory, manifest) in self.manifests() {
            if shown(&manifest) == model.name
                && manifest.revision == model.revision
                && manifest.source == model.source
            {
                // The manifest goes first: half a removal is no model.
                fs::remove_file(directory.join(MANIFEST))
                    .and_then(|()| fs::remove_dir_all(&directory))
                    .map_err(|error| Problem::disk("remove", &directory, error))?;
                let mut parent = directory.parent();
                while let Some(path) = parent.filter(|path| path.starts_with(self.root.join("models"))) {
                    if fs::remove_dir(path).is_err() {
                        break;
                    }
                    parent = path.parent();
                }
            }
        }
        self.sweep()?;
        Ok(before.saturating_sub(self.size()))
    }

    /// Removes a blob that was needed for a while, unless a model needs it.
    pub(crate) fn forget(&self, blob: &Blob) {
        if !self.needed().contains(&blob.sha256) {
            let _gone_already = fs::remove_file(self.blob_path(&blob.sha256));
        }
    }

    fn needed(&self) -> BTreeSet<String> {
        self.manifests()
            .into_iter()
            .flat_map(|(_, manifest)| manifest.files.into_values().map(|entry| entry.sha256))
            .collect()
    }

    /// Removes blobs that no manifest names and downloads that nobody went on with. The caller has the cache alone.
    fn sweep(&self) -> Result<()> {
        let needed = self.needed();
        for path in children(&self.root.join("blobs")) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if is_hex(name, 64) && !needed.contains(name) {
                fs::remove_file(&path).map_err(|error| Problem::disk("remove", &path, error))?;
            }
        }
        for path in children(&self.root.join("downloads")) {
            let abandoned = fs::symlink_metadata(&path)
                .and_then(|metadata| metadata.modified())
                .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > KEPT));
            if abandoned && path.extension().is_some_and(|extension| extension != "lock") {
                let remove = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                remove.map_err(|error| Problem::disk("remove", &path, error))?;
            }
        }
        Ok(())
    }

    /// Files that are missing or of another size; nothing is read.
    pub(crate) fn damaged(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (directory, manifest) in self.manifests() {
            for (file, entry) in &manifest.files {
                let problem = match fs::metadata(directory.join(file)) {
                    Err(error) => error.to_string(),
                    Ok(metadata) if metadata.len() != entry.size => {
                        format!("has {} bytes instead of {}", metadata.len(), entry.size)
                    }
                    Ok(_) => continue,
                };
                findings.push(Finding { name: shown(&manifest), file: file.clone(), problem });
            }
        }
        findings
    }

    /// Reads every file of a model again.
    pub(crate) fn verify(&self, model: &Cached) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        for (directory, manifest) in self.manifests() {
            if shown(&manifest) != model.name
                || manifest.revision != model.revision
                || manifest.source != model.source
            {
                continue;
            }
            for (file, entry) in &manifest.files {
                let problem = if names::check(file).is_err() {
                    Some("its name leaves the cache".to_owned())
                } else {
                    match File::open(directory.join(file)).and_then(|file| Sums::of(file, None)) {
                        Err(error) => Some(error.to_string()),
                        Ok(sums) if sums.sha256 != entry.sha256 => {
                            Some(format!("its checksum is {} instead of {}", sums.sha256, entry.sha256))
                        }
                        Ok(_) => None,
                    }
                };
                findings.extend(problem.map(|problem| Finding {
                    name: model.name.clone(),
                    file: file.clone(),
                    problem,
                }));
            }
        }
        Ok(findings)
    }
}

/// The name that people use.
fn shown(manifest: &Manifest) -> String {
    match manifest.source.as_str() {
        "pypi" => format!("pypi:{}=={}", manifest.name, manifest.revision),
        "converted" => manifest.name.clone(),
        _ => format!("{}/{}", manifest.organisation, manifest.name),
    }
}

/// The path to load when a pick is there with every file.
pub(crate) fn complete(directory: &Path, manifest: &Manifest, pattern: &str) -> Option<PathBuf> {
    let pick = manifest.picks.get(pattern)?;
    for name in &pick.files {
        let entry = manifest.files.get(name)?;
        names::check(name).ok()?;
        if fs::metadata(directory.join(name)).ok()?.len() != entry.size {
            return None;
        }
    }
    match &pick.entry {
        Some(entry) => pick.files.contains(entry).then(|| directory.join(entry)),
        None => Some(directory.to_owned()),
    }
}

fn read_manifest(directory: &Path) -> Option<Manifest> {
    serde_json::from_slice(&fs::read(directory.join(MANIFEST)).ok()?).ok()
}

pub(crate) fn children(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    paths.sort();
    paths
}

/// A hard link, or a copy where the file system has none; it has its name at once and whole.
fn link(blob: &Path, target: &Path, parent: &Path) -> Result<()> {
    let scratch = parent.join(format!(".link-{}", std::process::id()));
    let _none = fs::remove_file(&scratch);
    fs::hard_link(blob, &scratch)
        .or_else(|_| fs::copy(blob, &scratch).map(|_| ()))
        .and_then(|()| fs::rename(&scratch, target))
        .map_err(|error| Problem::disk("link", target, error))?;
    // Renaming one link of a file over another one does nothing and leaves the first.
    let _none = fs::remove_file(&scratch);
    Ok(())
}

/// Writes JSON so that a reader sees the old text or the new one.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let scratch = path.with_extension(format!("new-{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = File::create(&scratch)?;
        file.write_all(&serde_json::to_vec_pretty(value)?)?;
        file.sync_all()?;
        fs::rename(&scratch, path)
    };
    write().map_err(|error| Problem::disk("write", path, error))
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
