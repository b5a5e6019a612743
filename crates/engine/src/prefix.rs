//! Names of block contents, and the index that finds a block by its name.
//!
//! A name is a keyed hash over everything that the block's keys and values depend on: the deployment (by the hash
//! key), the adapter and its generation, the isolation domain, all tokens before it and its own. Blocks of different
//! domains never have the same name. Blocks that nobody references stay findable until they are evicted, least
//! recently used first.

use std::collections::HashMap;

use byzerllm_core::Domain;

/// The name of a block's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BlockKey([u8; 16]);

impl BlockKey {
    fn of(hasher: &blake3::Hasher) -> Self {
        let mut short = [0; 16];
        short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(short)
    }
}

/// Makes names. One per deployment.
#[derive(Debug, Clone)]
pub(crate) struct KeyMaker {
    hash_key: [u8; 32],
}

impl KeyMaker {
    pub(crate) fn new(hash_key: [u8; 32]) -> Self {
        Self { hash_key }
    }

    /// The name of the empty prefix. `adapter` is the slot and generation of a LoRA adapter.
    pub(crate) fn root(&self, domain: Domain, adapter: Option<(u32, u64)>) -> BlockKey {
        let mut hasher = blake3::Hasher::new_keyed(&self.hash_key);
        hasher.update(b"root");
        hasher.update(&domain.0.to_le_bytes());
        if let Some((slot, generation)) = adapter {
            hasher.update(&slot.to_le_bytes());
            hasher.update(&generation.to_le_bytes());
        }
        BlockKey::of(&hasher)
    }

    /// The name of the block that follows `parent` and holds `tokens`.
    pub(crate) fn child(&self, parent: BlockKey, tokens: &[u32]) -> BlockKey {
        let mut hasher = blake3::Hasher::new_keyed(&self.hash_key);
        hasher.update(&parent.0);
        for token in tokens {
            hasher.update(&token.to_le_bytes());
        }
        BlockKey::of(&hasher)
    }
}

const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Node {
    key: Option<BlockKey>,
    /// Neighbours in the list of idle blocks; meaningful only while `idle`.
    older: u32,
    newer: u32,
    idle: bool,
}

/// Finds blocks by name and remembers in which order unreferenced ones were last used.
#[derive(Debug)]
pub(crate) struct PrefixIndex {
    by_key: HashMap<BlockKey, u32>,
    nodes: Vec<Node>,
    oldest: u32,
    newest: u32,
    idle: usize,
}

impl PrefixIndex {
    pub(crate) fn new(blocks: usize) -> Self {
        let node = Node { key: None, older: NONE, newer: NONE, idle: false };
        Self { by_key: HashMap::new(), nodes: vec![node; blocks], oldest: NONE, newest: NONE, idle: 0 }
    }

    pub(crate) fn find(&self, key: BlockKey) -> Option<u32> {
        self.by_key.get(&key).copied()
    }

    pub(crate) fn is_named(&self, block: u32) -> bool {
        self.nodes[block as usize].key.is_some()
    }

    pub(crate) fn is_idle(&self, block: u32) -> bool {
        self.nodes[block as usize].idle
    }

    pub(crate) fn idle(&self) -> usize {
        self.idle
    }

    /// Names a referenced block. When another block has the name already, this one stays nameless.
    pub(crate) fn name(&mut self, block: u32, key: BlockKey) {
        let node = &mut self.nodes[block as usize];
        if node.key.is_none() && !self.by_key.contains_key(&key) {
            node.key = Some(key);
            self.by_key.insert(key, block);
        }
    }

    /// Nobody references the named block any more: it may be evicted from now on.
    pub(crate) fn rest(&mut self, block: u32) {
        let older = self.newest;
        let node = &mut self.nodes[block as usize];
        (node.idle, node.older, node.newer) = (true, older, NONE);
        match older {
            NONE => self.oldest = block,
            older => self.nodes[older as usize].newer = block,
        }
        self.newest = block;
        self.idle += 1;
    }

    /// An idle block is referenced again.
    pub(crate) fn wake(&mut self, block: u32) {
        let Node { older, newer, .. } = self.nodes[block as usize];
        match older {
            NONE => self.oldest = newer,
            older => self.nodes[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.nodes[newer as usize].older = older,
        }
        self.nodes[block as usize].idle = false;
        self.idle -= 1;
    }

    /// Takes the least recently used idle block out of the index.
    pub(crate) fn evict(&mut self) -> Option<u32> {
        let block = self.oldest;
        if block == NONE {
            return None;
        }
        self.wake(block);
        if let Some(key) = self.nodes[block as usize].key.take() {
            self.by_key.remove(&key);
        }
        Some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_depend_on_everything() {
        let maker = KeyMaker::new([1; 32]);
        let roots = [
            maker.root(Domain(0), None),
            maker.root(Domain(1), None),
            maker.root(Domain(0), Some((0, 0))),
            maker.root(Domain(0), Some((0, 1))),
            KeyMaker::new([2; 32]).root(Domain(0), None),
        ];
        let mut names = Vec::new();
        for root in roots {
            names.push(root);
            names.push(maker.child(root, &[1, 2]));
            names.push(maker.child(maker.child(root, &[1, 2]), &[1, 2]));
            names.push(maker.child(root, &[2, 1]));
        }
        let distinct: std::collections::HashSet<_> = names.iter().copied().collect();
        assert_eq!(distinct.len(), names.len());
    }

    #[test]
    fn eviction_takes_the_least_recently_used() {
        let maker = KeyMaker::new([1; 32]);
        let root = maker.root(Domain(0), None);
        let mut index = PrefixIndex::new(4);
        let keys: Vec<_> = (0..4).map(|token| maker.child(root, &[token])).collect();
        for block in 0..4 {
            index.name(block, keys[block as usize]);
            index.rest(block);
        }
        index.wake(1);
        index.rest(1);
        index.wake(2);
        assert_eq!(index.idle(), 3);
        assert_eq!(
            (index.evict(), index.evict(), index.evict(), index.evict()),
            (Some(0), Some(3), Some(1), None)
        );
        assert_eq!((index.find(keys[0]), index.find(keys[2])), (None, Some(2)));
    }
}
