//! The adapters of a deployed model: by name for callers, by slot for the engine's thread.
//!
//! An adapter is loaded and unloaded between two steps. Unloading takes the name away at once, so that new requests
//! are refused; requests that run with it finish first, and then its memory is freed.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use byzerllm_core::{Error, ErrorKind, Result, nearest};
use byzerllm_model::{Adapter, AdapterId, Network};
use tokio::sync::oneshot;

use crate::intake::{Command, Shared};

/// What separates a deployment's name from its adapter's in the name of a model.
const SEPARATOR: char = ':';

/// What is told about a loaded adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterStatus {
    /// The name that requests use.
    pub name: String,
    /// Where it was read from.
    pub path: PathBuf,
    /// The largest rank of its matrices.
    pub rank: usize,
    /// How many matrices of the model it changes.
    pub modules: usize,
    /// Bytes that it takes.
    pub bytes: u64,
    /// Requests that use it.
    pub active: usize,
    /// Requests that have used it.
    pub requests: u64,
    /// Tells it from every other adapter that the model ever had, also one of the same name.
    pub id: u32,
}

/// A request's hold on its adapter.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) slot: u32,
    users: Arc<AtomicUsize>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.users.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Loaded {
    id: AdapterId,
    users: Arc<AtomicUsize>,
    requests: AtomicU64,
    path: PathBuf,
    rank: usize,
    modules: usize,
    bytes: u64,
}

/// The adapters by name.
#[derive(Debug, Default)]
pub(crate) struct Names {
    loaded: Mutex<BTreeMap<String, Loaded>>,
    /// One change at a time.
    changing: Mutex<()>,
}

impl Names {
    fn loaded(&self) -> MutexGuard<'_, BTreeMap<String, Loaded>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The adapter that a model's name asks for: what follows the colon.
    pub(crate) fn of_model(&self, model: &str) -> Result<Option<Lease>> {
        match model.split_once(SEPARATOR) {
            Some((deployment, adapter)) => self.lease(deployment, adapter).map(Some),
            None => Ok(None),
        }
    }

    /// A hold on the adapter of a name.
    pub(crate) fn lease(&self, deployment: &str, name: &str) -> Result<Lease> {
        let loaded = self.loaded();
        let adapter =
            loaded.get(name).ok_or_else(|| unknown(deployment, name, loaded.keys().map(String::as_str)))?;
        adapter.users.fetch_add(1, Ordering::Relaxed);
        adapter.requests.fetch_add(1, Ordering::Relaxed);
        Ok(Lease { slot: adapter.id.0, users: Arc::clone(&adapter.users) })
    }

    pub(crate) fn list(&self) -> Vec<AdapterStatus> {
        let status = |(name, loaded): (&String, &Loaded)| AdapterStatus {
            name: name.clone(),
            path: loaded.path.clone(),
            rank: loaded.rank,
            modules: loaded.modules,
            bytes: loaded.bytes,
            active: loaded.users.load(Ordering::Relaxed),
            requests: loaded.requests.load(Ordering::Relaxed),
            id: loaded.id.0,
        };
        self.loaded().iter().map(status).collect()
    }

    /// Gives the engine's thread an adapter and waits until it has taken it.
    pub(crate) fn load(&self, shared: &Shared, name: &str, adapter: Adapter) -> Result<()> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.loaded().contains_key(name) {
            let message =
                format!("an adapter '{name}' is loaded already; unload it first, or choose another name");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let (path, rank) = (adapter.path().to_path_buf(), adapter.rank());
        let (modules, bytes) = (adapter.modules(), adapter.bytes());
        let (reply, answer) = mpsc::sync_channel(1);
        shared.command(Command::LoadAdapter { adapter: Box::new(adapter), reply })?;
        let id = answer.recv().map_err(|_| shared.ending())??;
        let loaded =
            Loaded { id, users: Arc::default(), requests: AtomicU64::new(0), path, rank, modules, bytes };
        self.loaded().insert(name.to_owned(), loaded);
        Ok(())
    }

    /// Takes a name away and waits until the requests that use its adapter have ended and its memory is free.
    pub(crate) async fn unload(&self, shared: &Shared, deployment: &str, name: &str) -> Result<()> {
        let id = {
            let mut loaded = self.loaded();
            let Some(adapter) = loaded.remove(name) else {
                return Err(unknown(deployment, name, loaded.keys().map(String::as_str)));
            };
            adapter.id
        };
        let (reply, answer) = oneshot::channel();
        shared.command(Command::UnloadAdapter { id, reply })?;
        answer.await.map_err(|_| shared.ending())
    }
}

/// The error for a name that no adapter has: the nearest one, and some of the others.
pub fn unknown<'a>(deployment: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Error {
    const SHOWN: usize = 20;
    let shown: String = name.chars().take(128).collect();
    let shown = shown.escape_debug();
    let known: Vec<&str> = known.collect();
    let message = match nearest(name, known.iter().copied()) {
        None => format!("'{deployment}' has no adapter '{shown}': none is loaded"),
        Some(nearest) => {
            let listed = known.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
            let more = if known.len() > SHOWN { ", …" } else { "" };
            format!(
                "'{deployment}' has no adapter '{shown}'; did you mean '{nearest}'? loaded ones: {listed}{more}"
            )
        }
    };
    Error::new(ErrorKind::NotFound, message).with_param("model")
}

/// The slots that the engine's thread knows.
#[derive(Default)]
pub(crate) struct Slots {
    slots: HashMap<u32, Slot>,
}

#[derive(Default)]
struct Slot {
    requests: usize,
    /// Who waits for it to be gone.
    unloading: Option<oneshot::Sender<()>>,
}

impl Slots {
    pub(crate) fn load(
        &mut self,
        network: &mut dyn Network,
        adapter: Adapter,
        reply: &mpsc::SyncSender<Result<AdapterId>>,
    ) {
        let result = network.load_adapter(adapter);
        if let Ok(id) = &result {
            self.slots.insert(id.0, Slot::default());
        }
        let id = result.as_ref().ok().copied();
        // Nobody waits any more: nobody would ever unload it.
        if reply.send(result).is_err()
            && let Some(id) = id
        {
            self.slots.remove(&id.0);
            network.unload_adapter(id);
        }
    }

    pub(crate) fn unload(&mut self, network: &mut dyn Network, id: AdapterId, reply: oneshot::Sender<()>) {
        match self.slots.get_mut(&id.0) {
            Some(slot) if slot.requests > 0 => slot.unloading = Some(reply),
            _ => {
                self.slots.remove(&id.0);
                network.unload_adapter(id);
                let _ = reply.send(());
            }
        }
    }

    /// Whether a new request may use a slot; it then counts until [`Self::leave`].
    pub(crate) fn enter(&mut self, slot: u32) -> bool {
        match self.slots.get_mut(&slot) {
            // A request that found the name before it was taken away is let in as long as others run.
            Some(slot) => {
                slot.requests += 1;
                true
            }
            None => false,
        }
    }

    /// A request that used a slot has ended.
    pub(crate) fn leave(&mut self, network: &mut dyn Network, id: u32) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        slot.requests = slot.requests.saturating_sub(1);
        if slot.requests == 0
            && let Some(reply) = slot.unloading.take()
        {
            self.slots.remove(&id);
            network.unload_adapter(AdapterId(id));
            let _ = reply.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_named() {
        let error = unknown("chat", "frensh", ["french", "german"].into_iter());
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("did you mean 'french'? loaded ones: french, german"), "{error}");
        assert!(unknown("chat", "x", std::iter::empty()).to_string().contains("none is loaded"));
    }
}
