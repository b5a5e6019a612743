//! Splitting a batch of rows over the workers.
#![expect(unsafe_code, reason = "rows of one slice are handed to different workers")]

use std::ops::Range;

use crate::memory::Shared;
use crate::threads::Turn;

/// Values below which asking other workers costs more than it saves.
const WORTH_SHARING: usize = 4 * 1024;

/// Calls `body` with ranges that cover `0..rows`, on all workers when the work is worth it. `width` is the number
/// of values in a row.
pub(crate) fn split(turn: &Turn<'_>, rows: usize, width: usize, body: &(dyn Fn(Range<usize>) + Sync)) {
    if rows == 0 {
        return;
    }
    let total = rows.saturating_mul(width);
    if rows == 1 || turn.threads() == 1 || total < WORTH_SHARING {
        body(0..rows);
        return;
    }
    let wanted = (total / WORTH_SHARING).clamp(2, 4 * turn.threads()).min(rows);
    let chunk = rows.div_ceil(wanted);
    turn.run(rows.div_ceil(chunk), &|task, _| body(task * chunk..((task + 1) * chunk).min(rows)));
}

/// Like [`split`], with the rows of `values` (each `width` long) handed out.
pub(crate) fn split_mut(
    turn: &Turn<'_>,
    values: &mut [f32],
    width: usize,
    body: &(dyn Fn(Range<usize>, &mut [f32]) + Sync),
) {
    if width == 0 {
        return;
    }
    let rows = values.len() / width;
    let shared = Shared::new(values.as_mut_ptr());
    split(turn, rows, width, &|range| {
        // SAFETY: ranges of different tasks are disjoint and lie inside `values`.
        let part = unsafe { shared.part(range.start * width, range.len() * width) };
        body(range, part);
    });
}

/// Calls `body` with each row of `values` (rows of `width`) and its number, on all workers when the work is worth it.
///
/// # Panics
/// When the values are no whole rows.
pub fn each_row(
    turn: &Turn<'_>,
    values: &mut [f32],
    width: usize,
    body: &(dyn Fn(usize, &mut [f32]) + Sync),
) {
    assert!(width > 0 && values.len().is_multiple_of(width), "the values are no whole rows");
    split_mut(turn, values, width, &|range, rows| {
        for (index, row) in range.zip(rows.chunks_exact_mut(width)) {
            body(index, row);
        }
    });
}
