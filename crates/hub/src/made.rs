//! Models that are made on this machine of what was pulled, kept in the cache under their short names.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::cache::children;
use crate::checksum::{Sums, key};
use crate::hub::{Hub, Identity, Pulled, pulled};
use crate::known::Known;
use crate::reference::Source;
use crate::{Problem, Result, locks};

impl Hub {
    /// What was made of the model, when the cache has it whole.
    #[must_use]
    pub fn converted(&self, known: &Known) -> Option<Pulled> {
        let identity = identity(known);
        let (path, manifest) = self.cache.find(
            identity.source.as_str(),
            &identity.organisation,
            &identity.name,
            identity.revision.as_deref(),
            "",
        )?;
        Some(pulled(path, &manifest, ""))
    }

    /// A name for a directory in which a model can be made before [`Self::keep`] takes it; nothing lies there.
    ///
    /// # Errors
    /// [`Problem::Disk`].
    pub fn workplace(&self, known: &Known) -> Result<PathBuf> {
        let name = format!("{}.converting-{}", key(known.name), std::process::id());
        let path = self.cache.directory("downloads")?.join(name);
        // What a process of the same number left behind.
        if path.is_dir() {
            std::fs::remove_dir_all(&path).map_err(|error| Problem::disk("remove", &path, error))?;
        }
        Ok(path)
    }

    /// Moves the directory that was made of a model into the cache, as a model of that name.
    ///
    /// # Errors
    /// [`Problem::Disk`].
    pub async fn keep(&self, known: &Known, directory: &Path) -> Result<Pulled> {
        let _shared = locks::together(self.cache.lock()?).await?;
        let mut files = Vec::new();
        let mut left = vec![directory.to_owned()];
        while let Some(path) = left.pop() {
            if path.is_dir() {
                left.extend(children(&path));
                continue;
            }
            let Some(name) = path.strip_prefix(directory).ok().and_then(Path::to_str) else { continue };
            let sums = File::open(&path)
                .and_then(|file| Sums::of(file, None))
                .map_err(|error| Problem::disk("read", &path, error))?;
            files.push((name.to_owned(), self.cache.adopt(&path, &sums.sha256, sums.size)?));
        }
        let kept = self.publish(identity(known), None, None, files, None).await?;
        std::fs::remove_dir_all(directory).map_err(|error| Problem::disk("remove", directory, error))?;
        Ok(kept)
    }
}

/// Where what was made of a model lies: the revision is that of the weights.
fn identity(known: &Known) -> Identity {
    Identity {
        source: Source::Converted,
        organisation: "models".to_owned(),
        name: known.name.to_owned(),
        revision: Some(known.sha256.chars().take(40).collect()),
    }
}
