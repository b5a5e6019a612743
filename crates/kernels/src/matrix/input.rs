//! Rows on their way into a product, made by whatever computes them: the kernel that has the values in its registers
//! rounds them, and nobody reads them as floats again.
#![expect(unsafe_code, reason = "rows are written by many workers")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every line is a vector operation or a raw access")]

use std::ptr;

use super::activations::{quantize_rows, round_group};
use super::layout::GROUP;
use super::{Compute, Source};
use crate::lanes::{LANES, Lanes};
use crate::memory::{GroupInfo, Shared, grown};
use crate::norm::{load_some, store_some};
use crate::threads::Turn;

/// The rows of a batch as the products of a mode read them: floats in exact mode, otherwise codes with a step per group
/// of 32 values. Its memory grows to what the largest batch needs and is then reused.
#[derive(Debug, Default)]
pub struct ProductInput {
    compute: Compute,
    rows: usize,
    cols: usize,
    /// (rows, cols), in exact mode.
    values: Vec<f32>,
    /// (rows, digits, padded cols), in the other modes.
    codes: Vec<i8>,
    /// (rows, groups), in the other modes.
    infos: Vec<GroupInfo>,
}

impl ProductInput {
    /// No rows yet.
    #[must_use]
    pub fn new(compute: Compute) -> Self {
        Self { compute, ..Self::default() }
    }

    /// Rows of the batch.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values of a row.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The mode that the rows are made for.
    #[must_use]
    pub fn compute(&self) -> Compute {
        self.compute
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.codes.capacity()
            + self.infos.capacity() * size_of::<GroupInfo>()
            + self.values.capacity() * size_of::<f32>()
    }

    /// Takes rows of `cols` floats.
    ///
    /// # Panics
    /// When the floats are no whole rows.
    pub fn fill(&mut self, turn: &Turn<'_>, input: &[f32], cols: usize) {
        assert!(cols > 0 && input.len().is_multiple_of(cols), "the floats are no whole rows");
        self.resize(input.len() / cols, cols);
        if self.compute == Compute::Exact {
            self.values[..input.len()].copy_from_slice(input);
        } else {
            let digits = self.compute.digits();
            quantize_rows(turn, input, cols, digits, &mut self.codes, &mut self.infos);
        }
    }

    /// Makes room; what the rows hold is undefined until they are written.
    pub(crate) fn resize(&mut self, rows: usize, cols: usize) {
        (self.rows, self.cols) = (rows, cols);
        let groups = cols.div_ceil(GROUP);
        if self.compute == Compute::Exact {
            grown(&mut self.values, rows * cols);
        } else {
            grown(&mut self.codes, rows * self.compute.digits() * groups * GROUP);
            grown(&mut self.infos, rows * groups);
        }
    }

    pub(super) fn source(&self) -> Source<'_> {
        if self.compute == Compute::Exact {
            Source::Floats(&self.values)
        } else {
            Source::Codes(&self.codes, &self.infos)
        }
    }

    /// A handle that tasks write their own groups with.
    pub(crate) fn writer(&mut self) -> InputWriter {
        InputWriter {
            values: Shared::new(self.values.as_mut_ptr()),
            codes: Shared::new(self.codes.as_mut_ptr()),
            infos: Shared::new(self.infos.as_mut_ptr()),
            cols: self.cols,
            digits: self.compute.digits(),
        }
    }
}

/// Writes groups of 32 values of a [`ProductInput`].
#[derive(Clone, Copy)]
pub(crate) struct InputWriter {
    values: Shared<f32>,
    codes: Shared<i8>,
    infos: Shared<GroupInfo>,
    cols: usize,
    digits: usize,
}

impl InputWriter {
    /// Stores group `group` of a row. Values past the end of the row are zeros.
    ///
    /// # Safety
    /// The row and the group exist, and nobody else writes them.
    #[inline(always)]
    pub(crate) unsafe fn store_group<L: Lanes>(&self, row: usize, group: usize, values: [L::F; 2]) {
        let at = group * GROUP;
        if self.digits == 0 {
            let room = GROUP.min(self.cols - at);
            let to = self.values.part(row * self.cols + at, room);
            store_some::<L>(to, 0, values[0]);
            if room > LANES {
                store_some::<L>(to, LANES, values[1]);
            }
            return;
        }
        let groups = self.cols.div_ceil(GROUP);
        let codes = self.codes.at(row * self.digits * groups * GROUP + at);
        let low_digits = if self.digits == 2 { codes.add(groups * GROUP) } else { ptr::null_mut() };
        self.infos.at(row * groups + group).write(round_group::<L>(values, codes, low_digits));
    }
}

/// 32 values of a row from `at` on, zeros past its end.
#[inline(always)]
pub(crate) unsafe fn load_group<L: Lanes>(row: &[f32], at: usize) -> [L::F; 2] {
    let first = load_some::<L>(row, at);
    let second = if at + LANES < row.len() { load_some::<L>(row, at + LANES) } else { L::splat(0.0) };
    [first, second]
}
