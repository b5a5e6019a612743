//! The blocks of one cache group: who references them, which are free, which are kept for their content.
//!
//! Invariant: a block is either free, or idle (named, unreferenced, evictable), or referenced. The network's memory
//! itself is not here.

use crate::prefix::{BlockKey, PrefixIndex};

/// The blocks of one cache group.
#[derive(Debug)]
pub(crate) struct BlockPool {
    references: Vec<u32>,
    free: Vec<u32>,
    index: PrefixIndex,
}

impl BlockPool {
    pub(crate) fn new(blocks: usize) -> Self {
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX - 1);
        Self {
            references: vec![0; blocks as usize],
            free: (0..blocks).rev().collect(),
            index: PrefixIndex::new(blocks as usize),
        }
    }

    pub(crate) fn total(&self) -> usize {
        self.references.len()
    }

    /// Blocks that [`Self::allocate`] can give.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.index.idle()
    }

    /// Unreferenced blocks that are kept for their content.
    pub(crate) fn cached(&self) -> usize {
        self.index.idle()
    }

    /// A block with one reference and no content: a free one, else the least recently used idle one.
    pub(crate) fn allocate(&mut self) -> Option<u32> {
        let block = self.free.pop().or_else(|| self.index.evict())?;
        self.references[block as usize] = 1;
        Some(block)
    }

    /// One more reference to a block that is referenced or idle.
    pub(crate) fn retain(&mut self, block: u32) {
        if self.index.is_idle(block) {
            self.index.wake(block);
        }
        self.references[block as usize] += 1;
    }

    pub(crate) fn release(&mut self, block: u32) {
        let references = &mut self.references[block as usize];
        debug_assert!(*references > 0, "block {block} is released twice");
        *references -= 1;
        if *references == 0 {
            if self.index.is_named(block) {
                self.index.rest(block);
            } else {
                self.free.push(block);
            }
        }
    }

    pub(crate) fn is_shared(&self, block: u32) -> bool {
        self.references[block as usize] > 1
    }

    /// Makes a full block findable.
    pub(crate) fn name(&mut self, block: u32, key: BlockKey) {
        self.index.name(block, key);
    }

    pub(crate) fn find(&self, key: BlockKey) -> Option<u32> {
        self.index.find(key)
    }

    /// Whether taking the block for a sequence makes one block less available.
    pub(crate) fn is_idle(&self, block: u32) -> bool {
        self.index.is_idle(block)
    }

    /// Compares the bookkeeping with the references that the caller counted itself.
    #[cfg(test)]
    pub(crate) fn check(&self, counted: &std::collections::HashMap<u32, u32>) {
        for block in 0..self.total() as u32 {
            let references = self.references[block as usize];
            assert_eq!(references, counted.get(&block).copied().unwrap_or(0), "references of block {block}");
            let free = self.free.contains(&block);
            let states = [free, self.index.is_idle(block), references > 0];
            assert_eq!(
                states.iter().filter(|state| **state).count(),
                1,
                "states of block {block}: {states:?}"
            );
            assert!(!free || !self.index.is_named(block), "free block {block} has a name");
        }
    }
}
