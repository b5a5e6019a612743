//! Bringing whole matrices from one encoding into another, on all workers.
#![expect(unsafe_code, reason = "rows are handed to different workers")]

use std::sync::{Mutex, PoisonError};

use super::encode::quantize;
use super::formats::{TensorType, TensorView, dequantize};
use crate::error::KernelError;
use crate::memory::Shared;
use crate::threads::Turn;

/// Values that a task decodes at a time.
const TASK_VALUES: usize = 1 << 14;

impl TensorView<'_> {
    /// The matrix in another encoding, row after row. `importance` is as for [`quantize`].
    ///
    /// # Errors
    /// As [`quantize`], and when memory runs out. Of several rows at fault the first one found is named.
    pub fn encoded(
        &self,
        turn: &Turn<'_>,
        kind: TensorType,
        importance: Option<&[f32]>,
    ) -> Result<Vec<u8>, KernelError> {
        let (rows, cols) = (self.rows(), self.cols());
        if cols == 0 {
            return Err(KernelError::Empty);
        }
        let too_large = KernelError::TooLarge { rows, cols };
        let row_bytes =
            kind.row_bytes(cols).ok_or(KernelError::Columns { kind, block: kind.block_len(), cols })?;
        let bytes = row_bytes.checked_mul(rows).ok_or(too_large)?;
        let mut out = Vec::new();
        out.try_reserve_exact(bytes).map_err(|_| KernelError::OutOfMemory { bytes })?;
        out.resize(bytes, 0);
        let shared = Shared::new(out.as_mut_ptr());
        let failed: Mutex<Option<KernelError>> = Mutex::new(None);
        let rows_each = (TASK_VALUES / cols).max(1);
        turn.run(rows.div_ceil(rows_each), &|task, _| {
            let mut values = vec![0.0; cols];
            for row in task * rows_each..rows.min((task + 1) * rows_each) {
                // SAFETY: rows lie one after the other inside `out`, and each belongs to one task.
                let to = unsafe { shared.part(row * row_bytes, row_bytes) };
                let done = dequantize(self.kind(), self.row(row), &mut values)
                    .and_then(|()| quantize(kind, &values, importance, to));
                if let Err(error) = done {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    return;
                }
            }
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(out),
        }
    }
}
