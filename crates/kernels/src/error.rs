//! What can go wrong before any arithmetic starts: the arithmetic itself cannot fail.

use crate::quant::TensorType;

/// A tensor or request that the kernels cannot take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The row length does not fit the encoding.
    #[error("{kind} tensors need rows of a multiple of {block} values, got {cols}")]
    Columns {
        /// The encoding.
        kind: TensorType,
        /// Values in one block of it.
        block: usize,
        /// The row length found.
        cols: usize,
    },
    /// The byte length does not fit the shape.
    #[error("{kind} tensor of {rows} x {cols} needs {needed} bytes, got {found}")]
    Length {
        /// The encoding.
        kind: TensorType,
        /// Rows of the tensor.
        rows: usize,
        /// Columns of the tensor.
        cols: usize,
        /// Bytes that the shape needs.
        needed: usize,
        /// Bytes that were given.
        found: usize,
    },
    /// The shape overflows the address space.
    #[error("tensor of {rows} x {cols} is too large for this machine")]
    TooLarge {
        /// Rows of the tensor.
        rows: usize,
        /// Columns of the tensor.
        cols: usize,
    },
    /// The parts of one stacked matrix differ in their columns.
    #[error("stacked parts need equal columns, got {first} and {other}")]
    Stack {
        /// Columns of the first part.
        first: usize,
        /// Columns of the part that differs.
        other: usize,
    },
    /// An order of columns that is none.
    #[error("the order of the columns must name each of the {cols} columns once")]
    ColumnOrder {
        /// Columns of the matrix.
        cols: usize,
    },
    /// Nothing writes this encoding.
    #[error(
        "{kind} can be read but not written: use Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, F16, BF16 or F32"
    )]
    Encoding {
        /// The encoding.
        kind: TensorType,
    },
    /// Infinity or no number at all where a number is needed; importances must not be negative either.
    #[error("{what} {index} is not a finite number that can be encoded")]
    NotFinite {
        /// What holds it.
        what: &'static str,
        /// Its place.
        index: usize,
    },
    /// A float too large for 16 bits.
    #[error("value {index} is beyond the range of {kind}: use BF16 or F32")]
    Range {
        /// The encoding.
        kind: TensorType,
        /// Its place.
        index: usize,
    },
    /// A matrix without rows or columns.
    #[error("a matrix needs at least one row and one column")]
    Empty,
    /// The allocator has no room.
    #[error("out of memory: {bytes} bytes could not be allocated")]
    OutOfMemory {
        /// Bytes asked for.
        bytes: usize,
    },
    /// A tensor has another shape than its place in the network.
    #[error("a tensor of {wanted:?} is needed, got {found:?} with a bias of {bias}")]
    Shape {
        /// Rows and columns that are needed.
        wanted: (usize, usize),
        /// Rows and columns found.
        found: (usize, usize),
        /// Length of the bias found, or of what stands in its place.
        bias: usize,
    },
}
