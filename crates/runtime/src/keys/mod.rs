//! API keys: who they belong to, what they may do, and until when.
//!
//! A key reads `bz-<id>-<secret>`, both in hexadecimal. The id is public and finds the record; the secret has 256
//! random bits, is shown once, and is kept as a hash that is compared in constant time. Because of its entropy a
//! fast hash is enough. Invariant: once a key has existed, [`Keys::exist`] stays true, so that revoking the last
//! key closes a server instead of opening it; hence revoked keys stay on the list, without their hash.

mod scope;
mod table;

use std::collections::HashMap;
use std::fmt;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use blake3::Hasher;
use byzerllm_core::{Domain, Error, ErrorKind, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::lifecycle::State;

pub use scope::{Scope, Scopes};
pub(crate) use table::CREATE;

/// The most keys that are kept, revoked ones included.
const MAX_KEYS: usize = 4096;
/// The longest name.
const MAX_NAME: usize = 64;
/// The longest life, and the longest grace of a rotation: ten years.
const MAX_SECONDS: u64 = 10 * 366 * 24 * 3600;
const ID_DIGITS: usize = 16;
const SECRET_DIGITS: usize = 64;
/// Says to the hash function what the hashes are for.
const HASH_CONTEXT: &str = "byzerllm 2026 api key at rest";

type Hash = [u8; 32];

/// A key as it is kept.
#[derive(Clone)]
struct Record {
    id: String,
    name: String,
    scopes: Scopes,
    /// Nothing for a revoked key.
    hash: Option<Hash>,
    /// The key before the last rotation, and when it ends.
    previous: Option<(Hash, u64)>,
    created: u64,
    rotated: Option<u64>,
    expires: Option<u64>,
    revoked: Option<u64>,
}

/// What may be known about a key. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyInfo {
    /// The name that it was given.
    pub name: String,
    /// The public part of the key.
    pub id: String,
    /// What it may do.
    pub scopes: Scopes,
    /// When it was made.
    pub created: u64,
    /// When its secret was last replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated: Option<u64>,
    /// Until when the secret before that is accepted too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_until: Option<u64>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<u64>,
    /// Whether it gets in now.
    pub active: bool,
}

/// A new key: the only time that its secret is seen.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NewKey {
    /// The whole key, as clients send it.
    pub key: String,
    /// What is known about it later.
    pub info: KeyInfo,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("NewKey").field("info", &self.info).finish_non_exhaustive()
    }
}

/// What a valid key grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyGrant {
    /// The key's name, for logs and usage.
    pub name: String,
    /// The isolation domain: one per key, the same after a rotation.
    pub domain: Domain,
    /// What may be done.
    pub scopes: Scopes,
}

/// Why a credential is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRefusal {
    /// It is no key, or none that exists, or it was revoked or replaced.
    Unknown,
    /// It was right, and its time is over.
    Expired,
}

/// The keys of one state. Cheap to clone; all clones are the same keys. Changes write to disk before they return.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

struct Inner {
    /// By id.
    records: RwLock<HashMap<String, Record>>,
    /// Where changes go, and the lock under which they are made. Nothing for an embedded runtime.
    place: Mutex<Place>,
}

enum Place {
    Memory,
    Disk(Arc<State>),
    Closed,
}

impl fmt::Debug for Keys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Keys").field("count", &self.records().len()).finish_non_exhaustive()
    }
}

impl Keys {
    /// Opens the keys of a state directory that no server uses, and holds its lock while they are open.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] naming the process that owns the directory, and whatever is wrong with it.
    pub fn open(directory: &Path) -> Result<Self> {
        Self::over(Some(Arc::new(State::open(directory)?)))
    }

    pub(crate) fn over(state: Option<Arc<State>>) -> Result<Self> {
        let stored = match &state {
            Some(state) => state.store.keys()?,
            None => Vec::new(),
        };
        let records = stored.into_iter().map(|record| (record.id.clone(), record)).collect();
        let place = state.map_or(Place::Memory, Place::Disk);
        Ok(Self(Arc::new(Inner { records: RwLock::new(records), place: Mutex::new(place) })))
    }

    /// Lets go of the disk; changes are refused from now on.
    pub(crate) fn close(&self) {
        *self.place() = Place::Closed;
    }

    /// Whether a key was ever made. Without one, inference on loopback is open.
    #[must_use]
    pub fn exist(&self) -> bool {
        !self.records().is_empty()
    }

    /// All keys, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<KeyInfo> {
        let now = now();
        let mut list: Vec<_> = self.records().values().map(|record| record.info(now)).collect();
        list.sort_by(|a, b| (a.created, &a.name, &a.id).cmp(&(b.created, &b.name, &b.id)));
        list
    }

    /// What a credential grants. Takes the same steps whether its id exists or not.
    ///
    /// # Errors
    /// Why it grants nothing.
    pub fn authenticate(&self, credential: &[u8]) -> Result<KeyGrant, KeyRefusal> {
        self.authenticate_at(credential, now())
    }

    fn authenticate_at(&self, credential: &[u8], now: u64) -> Result<KeyGrant, KeyRefusal> {
        let id = split(credential).ok_or(KeyRefusal::Unknown)?;
        let hash = hash(credential);
        let records = self.records();
        let record = records.get(id);
        let nothing = [0; 32];
        let current = record.and_then(|record| record.hash);
        let previous = record.and_then(|record| record.previous);
        let is_current = same(&hash, &current.unwrap_or(nothing)) & current.is_some();
        let in_grace = previous.is_some_and(|(_, until)| now < until);
        let is_previous = same(&hash, &previous.map_or(nothing, |(hash, _)| hash)) & in_grace;
        let matched = is_current | is_previous;
        let record =
            record.filter(|record| matched && record.revoked.is_none()).ok_or(KeyRefusal::Unknown)?;
        if record.expires.is_some_and(|expires| expires <= now) {
            return Err(KeyRefusal::Expired);
        }
        Ok(KeyGrant { name: record.name.clone(), domain: domain(id), scopes: record.scopes.clone() })
    }

    /// Makes a key on behalf of one who holds `holder`.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] when the holder lacks `admin` or one of the scopes, [`ErrorKind::Conflict`]
    /// when a key of the name exists, [`ErrorKind::InvalidRequest`] for a bad name, scope or life.
    pub fn create(
        &self,
        holder: &Scopes,
        name: &str,
        scopes: &Scopes,
        life: Option<Duration>,
    ) -> Result<NewKey> {
        check_name(name)?;
        if scopes.is_empty() || scopes.len() > Scopes::MAX {
            let message = format!("a key has 1 to {} scopes, not {}", Scopes::MAX, scopes.len());
            return Err(Error::invalid("scopes", message));
        }
        let life = life.map(|life| bounded("expires_seconds", life)).transpose()?;
        may_manage(holder, scopes)?;
        let place = self.place();
        let now = now();
        let mut forget = Vec::new();
        {
            let records = self.records();
            for record in records.values().filter(|record| record.name == name) {
                if record.revoked.is_none() {
                    let message =
                        format!("a key named '{name}' exists; rotate or revoke it, or choose another name");
                    return Err(Error::new(ErrorKind::Conflict, message).with_param("name"));
                }
                forget.push(record.id.clone());
            }
            if forget.is_empty() && records.len() >= MAX_KEYS {
                let oldest = records.values().filter_map(|record| Some((record.revoked?, &record.id))).min();
                let Some((_, id)) = oldest else {
                    let message =
                        format!("there are {MAX_KEYS} keys; revoke some that are not needed any more");
                    return Err(Error::new(ErrorKind::Conflict, message));
                };
                forget.push(id.clone());
            }
        }
        let (id, key) = fresh(None)?;
        let record = Record {
            hash: Some(hash(key.as_bytes())),
            id,
            name: name.to_owned(),
            scopes: scopes.clone(),
            previous: None,
            created: now,
            rotated: None,
            expires: life.map(|life| now.saturating_add(life)),
            revoked: None,
        };
        let info = self.commit(&place, record, &forget)?;
        Ok(NewKey { key, info })
    }

    /// Replaces the secret of a key; the old one is accepted until `grace` is over. Id, scopes and end stay.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::PermissionDenied`] when the key may do what the holder may not.
    pub fn rotate(&self, holder: &Scopes, name: &str, grace: Duration) -> Result<NewKey> {
        let grace = bounded("grace_seconds", grace)?;
        let place = self.place();
        let mut record = self.living(name)?;
        may_manage(holder, &record.scopes)?;
        let now = now();
        if record.expires.is_some_and(|expires| expires <= now) {
            let message = format!("the key '{name}' has expired; revoke it and make a new one");
            return Err(Error::new(ErrorKind::Conflict, message).with_param("name"));
        }
        let (_, key) = fresh(Some(&record.id))?;
        // A secret from before the last rotation ends now: at most two are accepted.
        let replaced = record.hash.replace(hash(key.as_bytes()));
        record.previous = replaced.filter(|_| grace > 0).map(|hash| (hash, now.saturating_add(grace)));
        record.rotated = Some(now);
        let info = self.commit(&place, record, &[])?;
        Ok(NewKey { key, info })
    }

    /// Ends a key at once, for good.
    ///
    /// # Errors
    /// As [`Keys::rotate`].
    pub fn revoke(&self, holder: &Scopes, name: &str) -> Result<KeyInfo> {
        let place = self.place();
        let mut record = self.living(name)?;
        may_manage(holder, &record.scopes)?;
        record.hash = None;
        record.previous = None;
        record.revoked = Some(now());
        self.commit(&place, record, &[])
    }

    /// The key of a name that was not revoked.
    fn living(&self, name: &str) -> Result<Record> {
        let records = self.records();
        let found = records.values().find(|record| record.name == name && record.revoked.is_none());
        found.cloned().ok_or_else(|| {
            let shown: String = name.chars().take(MAX_NAME).collect();
            let message =
                format!("there is no key named '{}'; list the keys to see their names", shown.escape_debug());
            Error::new(ErrorKind::NotFound, message).with_param("name")
        })
    }

    /// Writes a change to disk, then makes it known.
    fn commit(&self, place: &Place, record: Record, forget: &[String]) -> Result<KeyInfo> {
        match place {
            Place::Memory => {}
            Place::Disk(state) => state.store.put_key(&record, forget)?,
            Place::Closed => return Err(Error::new(ErrorKind::Unavailable, "the server is shutting down")),
        }
        let info = record.info(now());
        let mut records = self.0.records.write().unwrap_or_else(PoisonError::into_inner);
        for id in forget {
            records.remove(id);
        }
        records.insert(record.id.clone(), record);
        Ok(info)
    }

    fn records(&self) -> std::sync::RwLockReadGuard<'_, HashMap<String, Record>> {
        self.0.records.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.0.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn info(&self, now: u64) -> KeyInfo {
        KeyInfo {
            name: self.name.clone(),
            id: self.id.clone(),
            scopes: self.scopes.clone(),
            created: self.created,
            rotated: self.rotated,
            grace_until: self.previous.map(|(_, until)| until).filter(|until| now < *until),
            expires: self.expires,
            revoked: self.revoked,
            active: self.revoked.is_none() && self.expires.is_none_or(|expires| now < expires),
        }
    }
}

/// Whether one who holds `holder` may make, replace or end a key of these scopes.
fn may_manage(holder: &Scopes, scopes: &Scopes) -> Result<()> {
    if !holder.admin() {
        return Err(Error::new(ErrorKind::PermissionDenied, "managing keys needs the scope admin"));
    }
    if !holder.cover(scopes) {
        let message =
            "a key cannot manage one that may do more than itself; ask with a key that holds all its scopes";
        return Err(Error::new(ErrorKind::PermissionDenied, message).with_param("scopes"));
    }
    Ok(())
}

fn check_name(name: &str) -> Result<()> {
    let fits = (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        && !name.bytes().all(|byte| byte == b'.');
    // Someone may give a key in place of a name; it must not be kept, shown or logged.
    if fits && split(name.as_bytes()).is_none() {
        return Ok(());
    }
    let message = format!("a key's name has 1 to {MAX_NAME} ASCII letters, digits, '.', '_' and '-'");
    Err(Error::invalid("name", message))
}

fn bounded(param: &'static str, duration: Duration) -> Result<u64> {
    let seconds = duration.as_secs();
    if seconds > MAX_SECONDS {
        return Err(Error::invalid(param, format!("{param} is at most {MAX_SECONDS}, ten years")));
    }
    Ok(seconds)
}

/// The id in a credential that has the form of a key.
fn split(credential: &[u8]) -> Option<&str> {
    let rest = credential.strip_prefix(b"bz-")?;
    if rest.len() != ID_DIGITS + 1 + SECRET_DIGITS || rest[ID_DIGITS] != b'-' {
        return None;
    }
    // Every byte is looked at: many at once, and in the same time for each key.
    let hexadecimal =
        |part: &[u8]| part.iter().fold(true, |all, byte| all & matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let (id, secret) = (&rest[..ID_DIGITS], &rest[ID_DIGITS + 1..]);
    if !hexadecimal(id) || !hexadecimal(secret) {
        return None;
    }
    std::str::from_utf8(id).ok()
}

fn hash(key: &[u8]) -> Hash {
    static EMPTY: LazyLock<Hasher> = LazyLock::new(|| Hasher::new_derive_key(HASH_CONTEXT));
    EMPTY.clone().update(key).finalize().into()
}

/// In the same time for all hashes, as the type promises.
fn same(left: &Hash, right: &Hash) -> bool {
    blake3::Hash::from_bytes(*left) == blake3::Hash::from_bytes(*right)
}

/// The isolation domain of a key. Never the one that a server without keys uses, nor the engine's own.
fn domain(id: &str) -> Domain {
    Domain(u64::from_str_radix(id, 16).unwrap_or(1).clamp(1, u64::MAX - 1))
}

/// A new id, unless one is given, and a key for it.
fn fresh(id: Option<&str>) -> Result<(String, String)> {
    let mut bytes = [0_u8; (ID_DIGITS + SECRET_DIGITS) / 2];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::new(
            ErrorKind::Unavailable,
            "the system gives no random numbers; check that /dev/urandom can be read",
        )
        .with_source(std::io::Error::other(error.to_string()))
    })?;
    let mut digits = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _infallible = write!(digits, "{byte:02x}");
    }
    let (fresh, secret) = digits.split_at(ID_DIGITS);
    let id = id.unwrap_or(fresh).to_owned();
    let key = format!("bz-{id}-{secret}");
    Ok((id, key))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
