//! A network that hashes what it sees through the block tables. Any mistake in tables, copies, windows or positions
//! changes its answers or makes it panic.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use byzerllm_core::Result;
use byzerllm_model::config::CacheGroup;
use byzerllm_model::{FREED, Network, NetworkTraits, Output, PackedBatch, Rows};

/// 256 bytes, a begin token and an end token.
pub(crate) const VOCAB: usize = 258;
pub(crate) const END: u32 = 257;
/// A token after which the network computes numbers that are not finite.
pub(crate) const POISON: u32 = 7;
/// A token on which the network panics.
pub(crate) const BOMB: u32 = 8;
/// A token on which the network returns an error.
pub(crate) const FAULT: u32 = 11;

/// What the tests watch and control.
#[derive(Debug, Default)]
pub(crate) struct Control {
    pub(crate) steps: AtomicUsize,
    pub(crate) computed: AtomicUsize,
    pub(crate) largest: AtomicUsize,
    gate: Mutex<Option<usize>>,
    moved: Condvar,
}

impl Control {
    /// From now on every step waits for a permit.
    pub(crate) fn close(&self) {
        *self.gate.lock().unwrap() = Some(0);
    }

    /// Permits so many steps.
    pub(crate) fn allow(&self, steps: usize) {
        if let Some(permits) = self.gate.lock().unwrap().as_mut() {
            *permits += steps;
        }
        self.moved.notify_all();
    }

    pub(crate) fn open(&self) {
        *self.gate.lock().unwrap() = None;
        self.moved.notify_all();
    }

    fn pass(&self) {
        let mut gate = self.gate.lock().unwrap();
        loop {
            match gate.as_mut() {
                None => return,
                Some(0) => gate = self.moved.wait(gate).unwrap(),
                Some(permits) => {
                    *permits -= 1;
                    return;
                }
            }
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) windows: Vec<Option<usize>>,
    pub(crate) block_tokens: usize,
    pub(crate) context_length: usize,
    pub(crate) chunkable: bool,
    pub(crate) shareable: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self { windows: vec![None], block_tokens: 4, context_length: 128, chunkable: true, shareable: true }
    }
}

pub(crate) struct HashNetwork {
    traits: NetworkTraits,
    /// Per group: token and position of every place.
    cells: Vec<Vec<Option<(u32, u32)>>>,
    logits: Vec<f32>,
    control: Arc<Control>,
}

/// Bytes per block that the network claims.
pub(crate) const BLOCK_BYTES: u64 = 100;

impl HashNetwork {
    pub(crate) fn new(shape: &Shape, control: Arc<Control>) -> Self {
        let groups: Vec<CacheGroup> = shape
            .windows
            .iter()
            .enumerate()
            .map(|(layer, &window)| CacheGroup { layers: vec![layer], window, floats_per_token: 1 })
            .collect();
        let traits = NetworkTraits {
            vocab_size: VOCAB,
            hidden_size: 1,
            context_length: shape.context_length,
            position_width: 1,
            block_bytes: vec![BLOCK_BYTES; groups.len()],
            cache_groups: groups,
            chunkable_prefill: shape.chunkable,
            shareable_prefix: shape.shareable,
            weight_bytes: 0,
            block_tokens: shape.block_tokens,
            compute: "hash".to_owned(),
        };
        Self { traits, cells: Vec::new(), logits: Vec::new(), control }
    }
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn hash(seen: impl Iterator<Item = (u32, u32)>, group: usize) -> u64 {
    seen.fold(group as u64 + 1, |hash, (token, position)| {
        mix(hash ^ (u64::from(token) << 32 | u64::from(position)).wrapping_add(0x9e37_79b9))
    })
}

fn logits_of(hash: u64, out: &mut Vec<f32>) {
    // The end token is likely enough to be seen, the dangerous ones never come up by themselves.
    for id in 0..VOCAB as u64 {
        let noise =
            (mix(hash ^ (id + 1).wrapping_mul(0x2545_f491_4f6c_dd1d)) >> 40) as f32 / (1 << 24) as f32;
        let bias = match id as u32 {
            POISON | BOMB | FAULT => -50.0,
            END => 0.0,
            _ => 0.0,
        };
        out.push(noise * 8.0 + bias);
    }
}

/// The logits after `tokens`, straight from the tokens.
pub(crate) fn naive_logits(windows: &[Option<usize>], tokens: &[u32]) -> Vec<f32> {
    let mut all = 0;
    for (group, window) in windows.iter().enumerate() {
        let first = window.map_or(0, |window| tokens.len().saturating_sub(window));
        let seen = (first..tokens.len()).map(|place| (tokens[place], place as u32));
        all = mix(all ^ hash(seen, group));
    }
    let mut logits = Vec::new();
    logits_of(all, &mut logits);
    logits
}

/// The greedy continuation, straight from the tokens.
pub(crate) fn naive_greedy(windows: &[Option<usize>], prompt: &[u32], max_tokens: usize) -> Vec<u32> {
    let mut tokens = prompt.to_vec();
    while tokens.len() < prompt.len() + max_tokens {
        let logits = naive_logits(windows, &tokens);
        let best = (0..VOCAB).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32;
        if best == END {
            break;
        }
        tokens.push(best);
    }
    tokens.split_off(prompt.len())
}

impl Network for HashNetwork {
    fn traits(&self) -> &NetworkTraits {
        &self.traits
    }

    fn allocate_cache(&mut self, blocks: &[usize]) -> Result<()> {
        assert!(self.cells.is_empty(), "the cache is allocated once");
        self.cells = blocks.iter().map(|&count| vec![None; count * self.traits.block_tokens]).collect();
        Ok(())
    }

    fn copy_block(&mut self, group: usize, from: u32, to: u32) {
        let size = self.traits.block_tokens;
        let from = from as usize * size;
        self.cells[group].copy_within(from..from + size, to as usize * size);
    }

    fn forward(&mut self, batch: &PackedBatch<'_>) -> Result<Rows<'_>> {
        self.control.pass();
        self.control.steps.fetch_add(1, Ordering::SeqCst);
        self.control.computed.fetch_add(batch.ids.len(), Ordering::SeqCst);
        self.control.largest.fetch_max(batch.ids.len(), Ordering::SeqCst);
        assert_eq!(batch.output, Output::Logits);
        assert!(!batch.ids.contains(&BOMB), "the test asked for a panic");
        if batch.ids.contains(&FAULT) {
            return Err(byzerllm_core::Error::internal("the test asked for an error"));
        }
        let size = self.traits.block_tokens;
        let mut written = HashSet::new();
        let mut next = 0;
        for sequence in batch.sequences {
            assert_eq!(sequence.start, next, "sequences lie end to end");
            next += sequence.count;
            assert_eq!(sequence.block_tables.len(), self.cells.len());
            for (group, table) in sequence.block_tables.iter().enumerate() {
                for row in 0..sequence.count {
                    let place = sequence.past + row;
                    assert_eq!(batch.positions[sequence.start + row], place as u32);
                    let block = table[place / size];
                    assert_ne!(block, FREED);
                    let cell = block as usize * size + place % size;
                    assert!(written.insert((group, cell)), "two rows write to one place");
                    self.cells[group][cell] = Some((batch.ids[sequence.start + row], place as u32));
                }
            }
        }
        assert_eq!(next, batch.ids.len());
        self.logits.clear();
        for &row in batch.rows {
            let row = row as usize;
            let sequence =
                batch.sequences.iter().find(|s| (s.start..s.start + s.count).contains(&row)).unwrap();
            let place = sequence.past + row - sequence.start;
            let mut all = 0;
            for (group, table) in sequence.block_tables.iter().enumerate() {
                let window = self.traits.cache_groups[group].window;
                let first = window.map_or(0, |window| (place + 1).saturating_sub(window));
                let seen = (first..=place).map(|place| {
                    let block = table[place / size];
                    assert_ne!(block, FREED, "a visible block was freed");
                    let cell =
                        self.cells[group][block as usize * size + place % size].expect("a written place");
                    assert_eq!(cell.1, place as u32, "the place holds its own position");
                    cell
                });
                all = mix(all ^ hash(seen, group));
            }
            let start = self.logits.len();
            logits_of(all, &mut self.logits);
            if batch.ids[row] == POISON {
                self.logits[start + 5] = f32::NAN;
            }
        }
        Ok(Rows::new(&self.logits, VOCAB))
    }
}
