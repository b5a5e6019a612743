//! The entries, bounded in number, bytes and age. Whoever was not asked for longest goes first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use byzerllm_core::{Embeddings, RerankScores};
use tokio::time::Instant;

use super::{Key, Told};

/// What the tables take beside an entry.
const OVERHEAD: usize = 256;

/// A kept answer.
#[derive(Debug, Clone)]
pub(super) enum Kept {
    Told(Arc<Told>),
    Vectors(Arc<Embeddings>),
    Scores(Arc<RerankScores>),
}

#[derive(Debug)]
pub(super) struct Store {
    entries: usize,
    bytes: usize,
    life: Duration,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<Key, Entry>,
    /// By the number of their last use.
    used: BTreeMap<u64, Key>,
    uses: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    kept: Kept,
    bytes: usize,
    made: Instant,
    used: u64,
}

impl Store {
    pub(super) fn new(entries: usize, bytes: usize, life: Duration) -> Self {
        Self { entries, bytes, life, table: Mutex::default() }
    }

    /// The most bytes of one answer: an eighth of all, so that one cannot drive out the others.
    pub(super) fn most(&self) -> usize {
        self.bytes / 8
    }

    /// An entry and its age.
    pub(super) fn get(&self, key: &Key) -> Option<(Kept, Duration)> {
        let mut table = self.lock();
        let age = table.entries.get(key)?.made.elapsed();
        if age >= self.life {
            table.remove(key);
            return None;
        }
        table.uses += 1;
        let now = table.uses;
        let entry = table.entries.get_mut(key)?;
        let before = std::mem::replace(&mut entry.used, now);
        let kept = entry.kept.clone();
        table.used.remove(&before);
        table.used.insert(now, *key);
        Some((kept, age))
    }

    /// Keeps an entry that takes so many bytes, in place of the one that was there.
    pub(super) fn put(&self, key: Key, kept: Kept, bytes: usize) {
        if bytes > self.most() {
            return;
        }
        let bytes = bytes.saturating_add(OVERHEAD);
        let mut table = self.lock();
        table.remove(&key);
        while table.entries.len() >= self.entries || table.bytes.saturating_add(bytes) > self.bytes {
            let Some(oldest) = table.used.first_key_value().map(|(_, key)| *key) else { return };
            table.remove(&oldest);
        }
        table.uses += 1;
        let used = table.uses;
        table.used.insert(used, key);
        table.bytes += bytes;
        table.entries.insert(key, Entry { kept, bytes, made: Instant::now(), used });
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.used.remove(&entry.used);
            self.bytes -= entry.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use byzerllm_core::Usage;

    use super::*;

    fn kept(number: u32) -> Kept {
        let usage = Usage { prompt_tokens: number, ..Usage::default() };
        Kept::Told(Arc::new(Told { events: Vec::new(), usage }))
    }

    fn number(store: &Store, key: u8) -> Option<u32> {
        match store.get(&[key; 32])?.0 {
            Kept::Told(told) => Some(told.usage.prompt_tokens),
            Kept::Vectors(_) | Kept::Scores(_) => None,
        }
    }

    #[test]
    fn the_one_not_asked_for_longest_goes_first() {
        let store = Store::new(2, 1 << 20, Duration::from_secs(60));
        store.put([1; 32], kept(1), 10);
        store.put([2; 32], kept(2), 10);
        assert_eq!(number(&store, 1), Some(1));
        store.put([3; 32], kept(3), 10);
        assert_eq!([number(&store, 1), number(&store, 2), number(&store, 3)], [Some(1), None, Some(3)]);
        store.put([3; 32], kept(4), 10);
        assert_eq!([number(&store, 1), number(&store, 3)], [Some(1), Some(4)]);
    }

    #[test]
    fn bytes_are_bounded() {
        let store = Store::new(100, 8 * 1000, Duration::from_secs(60));
        for key in 0..20 {
            store.put([key; 32], kept(u32::from(key)), 744);
        }
        let there: Vec<u8> = (0..20).filter(|key| number(&store, *key).is_some()).collect();
        assert_eq!(there, [12, 13, 14, 15, 16, 17, 18, 19]);
        store.put([50; 32], kept(50), 1001);
        assert_eq!(number(&store, 50), None, "one answer must not take more than an eighth");
        assert_eq!(number(&store, 12), Some(12));
        let table = store.lock();
        assert_eq!((table.bytes, table.used.len()), (8 * 1000, 8));
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_answer_is_forgotten() {
        let store = Store::new(10, 1 << 20, Duration::from_secs(60));
        store.put([1; 32], kept(1), 10);
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(store.get(&[1; 32]).unwrap().1, Duration::from_secs(59));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(store.get(&[1; 32]).is_none());
        assert_eq!(store.lock().bytes, 0);
    }
}
