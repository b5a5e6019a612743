//! What one rendering may use. Everything that makes or reads a text or a container pays here first or at once.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

/// Bytes a rendering may make beside what its input justifies.
const MEMORY_BYTES: u64 = 32 << 20;
/// Bytes it may make per byte of input.
const MEMORY_PER_INPUT_BYTE: u64 = 16;
/// Bytes a rendering may look at beside what its input justifies.
const WORK_BYTES: u64 = 1 << 30;
/// Bytes it may look at per byte of input.
const WORK_PER_INPUT_BYTE: u64 = 256;
/// How deep containers may be nested. Tool schemas stay below 100.
pub(crate) const MAX_DEPTH: usize = 150;
/// How many namespaces a rendering may make. Each may hold the one before, and freeing such a chain recurses.
const MAX_NAMESPACES: usize = 4_000;
/// What a value costs beside its text.
const VALUE_BYTES: usize = 32;
/// What looking at a value costs beside its text, in bytes looked at.
const VALUE_WORK: usize = 64;
/// What starting to look into a container costs.
const CONTAINER_WORK: usize = 256;

/// The remaining allowance of one rendering.
#[derive(Debug)]
pub(crate) struct Budget {
    memory: AtomicU64,
    work: AtomicU64,
    namespaces: AtomicUsize,
    /// The limit that was hit first.
    exceeded: Mutex<Option<String>>,
    /// What the template said when it refused the conversation.
    refusal: Mutex<Option<String>>,
}

impl Budget {
    pub(crate) fn new(input_bytes: usize) -> Self {
        let input = input_bytes as u64;
        Self {
            memory: AtomicU64::new(MEMORY_BYTES.saturating_add(input.saturating_mul(MEMORY_PER_INPUT_BYTE))),
            work: AtomicU64::new(WORK_BYTES.saturating_add(input.saturating_mul(WORK_PER_INPUT_BYTE))),
            namespaces: AtomicUsize::new(MAX_NAMESPACES),
            exceeded: Mutex::new(None),
            refusal: Mutex::new(None),
        }
    }

    /// Pays for bytes that are about to be made.
    pub(crate) fn memory(&self, bytes: usize) -> Result<(), Error> {
        let paid = self
            .memory
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes as u64));
        paid.map(|_| ()).map_err(|_| self.exceed("it makes too much text"))
    }

    /// Pays for bytes that are looked at.
    pub(crate) fn work(&self, bytes: usize) -> Result<(), Error> {
        let paid = self
            .work
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes as u64));
        paid.map(|_| ()).map_err(|_| self.exceed("it takes too long"))
    }

    /// Pays for a namespace.
    pub(crate) fn namespace(&self) -> Result<(), Error> {
        let paid =
            self.namespaces.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        paid.map(|_| ()).map_err(|_| self.exceed("it makes too many namespaces"))
    }

    /// Records a limit and makes the error that ends the rendering.
    pub(crate) fn exceed(&self, limit: &str) -> Error {
        if let Ok(mut exceeded) = self.exceeded.lock() {
            exceeded.get_or_insert_with(|| limit.to_owned());
        }
        Error::new(ErrorKind::InvalidOperation, limit.to_owned())
    }

    /// Records a refusal and makes the error that ends the rendering.
    pub(crate) fn refuse(&self, reason: &str) -> Error {
        if let Ok(mut refusal) = self.refusal.lock() {
            refusal.get_or_insert_with(|| reason.to_owned());
        }
        Error::new(ErrorKind::InvalidOperation, reason.to_owned())
    }

    /// The limit that was hit, if one was.
    pub(crate) fn exceeded(&self) -> Option<String> {
        self.exceeded.lock().ok()?.take()
    }

    /// The template's refusal, if it made one.
    pub(crate) fn refusal(&self) -> Option<String> {
        self.refusal.lock().ok()?.take()
    }

    /// Pays for looking at a value's own text, not at what it contains.
    pub(crate) fn look(&self, value: &Value) -> Result<(), Error> {
        self.work(value.as_str().map_or(VALUE_WORK, |text| text.len() + VALUE_WORK))
    }

    /// Pays for looking at everything in a value; fails when containers are nested too deep.
    pub(crate) fn walk(&self, value: &Value) -> Result<(), Error> {
        self.walk_below(value, 0)
    }

    fn walk_below(&self, value: &Value, depth: usize) -> Result<(), Error> {
        self.look(value)?;
        if !matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable) {
            return Ok(());
        }
        self.work(CONTAINER_WORK)?;
        if depth >= MAX_DEPTH {
            return Err(self.exceed("containers are nested too deep"));
        }
        let keys_only = value.kind() == ValueKind::Map;
        for item in value.try_iter()? {
            if keys_only {
                self.look(&item)?;
                self.walk_below(&value.get_item(&item)?, depth + 1)?;
            } else {
                self.walk_below(&item, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Pays for a value that a filter, method or function has made. Lazy sequences become lists, so that none can
    /// be stacked on another.
    pub(crate) fn made(&self, value: Value) -> Result<Value, Error> {
        match value.kind() {
            ValueKind::Iterable => {
                let mut items = Vec::new();
                for item in value.try_iter()? {
                    self.memory(VALUE_BYTES)?;
                    items.push(item);
                }
                let list = Value::from(items);
                self.walk(&list)?;
                Ok(list)
            }
            ValueKind::Seq | ValueKind::Map => {
                self.memory(value.len().unwrap_or(1).saturating_mul(VALUE_BYTES))?;
                self.walk(&value)?;
                Ok(value)
            }
            ValueKind::String => {
                self.memory(value.as_str().map_or(0, str::len))?;
                Ok(value)
            }
            _ => Ok(value),
        }
    }
}
