//! The adapters of a network, and which rows of a step they belong to.

use std::collections::BTreeMap;

use byzerllm_kernels::{Scratch, Turn};

use super::layer::resize;
use crate::adapter::{Adapter, Product};
use crate::batch::SequenceInput;
use crate::network::AdapterId;

/// Adapters by slot. Each row is computed from its own input alone, in the order of the exact products, so that it
/// does not depend on the adapters of its neighbours.
#[derive(Default)]
pub(super) struct Adapters {
    loaded: BTreeMap<u32, Adapter>,
    next: u32,
    /// The slot of every row of the step; empty when no row has one.
    owners: Vec<Option<u32>>,
    /// The slots of the step.
    active: Vec<u32>,
    buffers: Buffers,
}

#[derive(Default)]
struct Buffers {
    rows: Vec<usize>,
    input: Vec<f32>,
    inner: Vec<f32>,
    share: Vec<f32>,
    output: Vec<f32>,
}

impl Adapters {
    pub(super) fn load(&mut self, adapter: Adapter) -> AdapterId {
        // A slot is never used again: what is remembered of it can only be of the same adapter.
        let id = self.next;
        self.next += 1;
        self.loaded.insert(id, adapter);
        AdapterId(id)
    }

    pub(super) fn unload(&mut self, id: AdapterId) -> bool {
        self.loaded.remove(&id.0).is_some()
    }

    pub(super) fn contains(&self, slot: u32) -> bool {
        self.loaded.contains_key(&slot)
    }

    /// Notes whose rows a step has.
    pub(super) fn prepare(&mut self, tokens: usize, sequences: &[SequenceInput<'_>]) {
        self.owners.clear();
        self.active.clear();
        for sequence in sequences {
            let Some(slot) = sequence.adapter else { continue };
            self.owners.resize(tokens, None);
            if let Some(owners) = self.owners.get_mut(sequence.start..sequence.start + sequence.count) {
                owners.fill(Some(slot));
            }
            if !self.active.contains(&slot) {
                self.active.push(slot);
            }
        }
    }

    /// Whether a row of the step has an adapter.
    pub(super) fn are_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// Adds what the adapters of its rows add to a product: `input` `(M, K)`, `output` `(M, N)`. `token` says which
    /// row of the step a row of the product is.
    pub(super) fn add(
        &mut self,
        turn: &Turn<'_>,
        product: Product,
        token: impl Fn(usize) -> usize,
        (input, output): (&[f32], &mut [f32]),
        scratch: &mut Scratch,
    ) {
        let Self { loaded, owners, active, buffers, .. } = self;
        let Buffers { rows, input: selected, inner, share, output: added } = buffers;
        for slot in active {
            let Some(addition) = loaded.get(slot).and_then(|adapter| adapter.addition(product)) else {
                continue;
            };
            let columns = addition.down.cols();
            let count = input.len() / columns.max(1);
            rows.clear();
            rows.extend((0..count).filter(|&row| owners.get(token(row)) == Some(&Some(*slot))));
            if rows.is_empty() {
                continue;
            }
            selected.clear();
            for &row in &*rows {
                selected.extend_from_slice(&input[row * columns..(row + 1) * columns]);
            }
            let ranks = addition.down.rows();
            resize(inner, rows.len() * ranks);
            addition.down.apply(turn, selected, None, inner, scratch);
            let width = output.len() / count;
            for up in &addition.ups {
                share.clear();
                for row in inner.chunks_exact(ranks) {
                    share.extend_from_slice(&row[up.inner.clone()]);
                }
                let outputs = up.outputs.len();
                resize(added, rows.len() * outputs);
                up.matrix.apply(turn, share, None, added, scratch);
                for (&row, values) in rows.iter().zip(added.chunks_exact(outputs)) {
                    let sums = &mut output[row * width..(row + 1) * width][up.outputs.clone()];
                    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
                }
            }
        }
    }
}
