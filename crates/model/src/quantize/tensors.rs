//! The tensors of a checkpoint under the names and in the order of rows that another format has.

use std::borrow::Cow;

use byzerllm_kernels::{ComputePool, TensorType, TensorView, dequantize, quantize};

use super::error::QuantizeError;
use super::families::{Rows, Target};
use crate::weights::{TensorRef, TensorStore};

/// A tensor that is written.
#[derive(Debug)]
pub(super) struct Planned {
    /// Its name in the checkpoint.
    pub(super) source: String,
    /// Its name in what is written.
    pub(super) name: String,
    /// Outermost dimension first.
    pub(super) shape: Vec<usize>,
    /// How it is written.
    pub(super) kind: TensorType,
    /// The order of its rows.
    pub(super) rows: Rows,
    /// Whether it is a matrix of a layer, a table or the head, rather than a norm or a bias.
    pub(super) is_matrix: bool,
}

impl Planned {
    /// Plans a tensor under its new name. `kind` says what a matrix becomes; the rest stays or becomes f32.
    pub(super) fn new(
        tensor: &TensorRef<'_>,
        target: Target,
        kind: impl Fn(TensorType, usize) -> TensorType,
        rest: impl Fn(TensorType) -> TensorType,
    ) -> Self {
        let shape = tensor.shape.to_vec();
        let is_matrix = shape.len() >= 2;
        let columns = shape.last().copied().unwrap_or(1);
        let kind = if is_matrix { kind(tensor.kind, columns) } else { rest(tensor.kind) };
        let Target { name, rows } = target;
        Self { source: tensor.entry.name.clone(), name, shape, kind, rows, is_matrix }
    }

    /// Its size as it is written.
    pub(super) fn bytes(&self) -> u64 {
        let columns = self.shape.last().copied().unwrap_or(1);
        let rows: usize = self.shape.iter().rev().skip(1).product();
        self.kind.row_bytes(columns).unwrap_or(0) as u64 * rows as u64
    }

    /// Its values as they are written.
    pub(super) fn encode(
        &self,
        tensors: &TensorStore,
        pool: &ComputePool,
        importance: Option<&[f32]>,
    ) -> Result<Vec<u8>, QuantizeError> {
        let tensor = tensors.require(&self.source, &self.shape)?;
        let failed = |source| QuantizeError::Tensor {
            path: tensors.file(tensor.entry).path().into(),
            tensor: self.source.clone(),
            source,
        };
        let columns = self.shape.last().copied().unwrap_or(1);
        let rows: usize = self.shape.iter().rev().skip(1).product();
        let encoded: Cow<'_, [u8]> = if tensor.kind == self.kind {
            Cow::Borrowed(tensor.data)
        } else if self.is_matrix {
            let view = TensorView::new(tensor.kind, rows, columns, tensor.data).map_err(failed)?;
            // The scales of 32 values are searched for only where columns are weighed.
            let alike;
            let importance = match importance.filter(|importance| importance.len() == columns) {
                Some(importance) => importance,
                None => {
                    alike = vec![1.0; columns];
                    &alike
                }
            };
            let importance = (!self.kind.is_float()).then_some(importance);
            view.encoded(&pool.turn(), self.kind, importance).map_err(failed)?.into()
        } else {
            let mut values = vec![0.0; columns * rows];
            dequantize(tensor.kind, tensor.data, &mut values).map_err(failed)?;
            let mut out = vec![0; self.bytes() as usize];
            quantize(self.kind, &values, None, &mut out).map_err(failed)?;
            out.into()
        };
        let row_bytes = encoded.len() / self.rows.unit(&self.shape).max(1);
        Ok(match self.rows.order(&self.shape) {
            None => encoded.into_owned(),
            Some(order) => {
                order.flat_map(|row| &encoded[row * row_bytes..(row + 1) * row_bytes]).copied().collect()
            }
        })
    }
}
