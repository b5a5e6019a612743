//! Names, sizes and views of the encodings. Byte lengths are checked here once, so that the kernels need not.

use std::fmt;

use half::{bf16, f16};

use super::blocks::{Block, decode};
use crate::error::KernelError;

/// The number of encodings that GGUF files do not have.
const NOT_IN_GGUF: u32 = u32::MAX;

/// How the values of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorType {
    /// 32-bit floats.
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// 16-bit floats with the exponent of f32.
    BF16,
    /// 4 bits and a scale per 32 values.
    Q4_0,
    /// 4 bits, a scale and a minimum per 32 values.
    Q4_1,
    /// 5 bits and a scale per 32 values.
    Q5_0,
    /// 5 bits, a scale and a minimum per 32 values.
    Q5_1,
    /// 8 bits and a scale per 32 values.
    Q8_0,
    /// 2 bits, with 4-bit scales and minima per 16 of 256 values.
    Q2K,
    /// 3 bits, with 6-bit scales per 16 of 256 values.
    Q3K,
    /// 4 bits, with 6-bit scales and minima per 32 of 256 values.
    Q4K,
    /// 5 bits, with 6-bit scales and minima per 32 of 256 values.
    Q5K,
    /// 6 bits, with 8-bit scales per 16 of 256 values.
    Q6K,
    /// 4 bits, an f32 scale and an f32 minimum per 32 values. No file has it: GPTQ and AWQ weights, whose scales and
    /// zeros multiply to more digits than f16 holds, are brought into it.
    Int4,
}

impl TensorType {
    /// Every encoding.
    pub const ALL: [TensorType; 14] = [
        TensorType::F32,
        TensorType::F16,
        TensorType::BF16,
        TensorType::Q4_0,
        TensorType::Q4_1,
        TensorType::Q5_0,
        TensorType::Q5_1,
        TensorType::Q8_0,
        TensorType::Q2K,
        TensorType::Q3K,
        TensorType::Q4K,
        TensorType::Q5K,
        TensorType::Q6K,
        TensorType::Int4,
    ];

    /// Values per block, bytes per block, number in GGUF files, name.
    const fn row(self) -> (usize, usize, u32, &'static str) {
        match self {
            TensorType::F32 => (1, 4, 0, "F32"),
            TensorType::F16 => (1, 2, 1, "F16"),
            TensorType::BF16 => (1, 2, 30, "BF16"),
            TensorType::Q4_0 => (32, 18, 2, "Q4_0"),
            TensorType::Q4_1 => (32, 20, 3, "Q4_1"),
            TensorType::Q5_0 => (32, 22, 6, "Q5_0"),
            TensorType::Q5_1 => (32, 24, 7, "Q5_1"),
            TensorType::Q8_0 => (32, 34, 8, "Q8_0"),
            TensorType::Q2K => (256, 84, 10, "Q2_K"),
            TensorType::Q3K => (256, 110, 11, "Q3_K"),
            TensorType::Q4K => (256, 144, 12, "Q4_K"),
            TensorType::Q5K => (256, 176, 13, "Q5_K"),
            TensorType::Q6K => (256, 210, 14, "Q6_K"),
            TensorType::Int4 => (32, 24, NOT_IN_GGUF, "INT4"),
        }
    }

    /// Values in one block.
    #[must_use]
    pub const fn block_len(self) -> usize {
        self.row().0
    }

    /// Bytes of one block.
    #[must_use]
    pub const fn block_bytes(self) -> usize {
        self.row().1
    }

    /// The number that GGUF files use; `u32::MAX` for an encoding that they do not have.
    #[must_use]
    pub const fn gguf_id(self) -> u32 {
        self.row().2
    }

    /// The usual name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().3
    }

    /// The encoding with this number in GGUF files, if it is known here.
    #[must_use]
    pub fn from_gguf_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.gguf_id() == id && id != NOT_IN_GGUF)
    }

    /// Whether values are floats rather than codes with a scale.
    #[must_use]
    pub const fn is_float(self) -> bool {
        self.block_len() == 1
    }

    /// Bytes of a row of `cols` values; `None` when `cols` is no multiple of the block or the size overflows.
    #[must_use]
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block_len()) {
            return None;
        }
        (cols / self.block_len()).checked_mul(self.block_bytes())
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// An encoded matrix, row after row, for example inside a mapped file.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    kind: TensorType,
    rows: usize,
    cols: usize,
    data: &'a [u8],
}

impl<'a> TensorView<'a> {
    /// Checks the shape against the bytes.
    ///
    /// # Errors
    /// When the columns do not fit the encoding's block, or the length is not that of the shape.
    pub fn new(kind: TensorType, rows: usize, cols: usize, data: &'a [u8]) -> Result<Self, KernelError> {
        if !cols.is_multiple_of(kind.block_len()) {
            return Err(KernelError::Columns { kind, block: kind.block_len(), cols });
        }
        let too_large = KernelError::TooLarge { rows, cols };
        let needed = kind.row_bytes(cols).and_then(|bytes| bytes.checked_mul(rows)).ok_or(too_large)?;
        if needed != data.len() {
            return Err(KernelError::Length { kind, rows, cols, needed, found: data.len() });
        }
        Ok(Self { kind, rows, cols, data })
    }

    /// The encoding.
    #[must_use]
    pub fn kind(&self) -> TensorType {
        self.kind
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values in a row.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// All bytes.
    #[must_use]
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// The bytes of one row.
    #[must_use]
    pub fn row(&self, row: usize) -> &'a [u8] {
        let bytes = self.cols / self.kind.block_len() * self.kind.block_bytes();
        &self.data[row * bytes..(row + 1) * bytes]
    }
}

/// Decodes whole blocks: `out` receives as many values as `bytes` holds. The bytes need no alignment.
///
/// # Errors
/// When `out` is no whole number of blocks, or `bytes` has another length than those blocks.
pub fn dequantize(kind: TensorType, bytes: &[u8], out: &mut [f32]) -> Result<(), KernelError> {
    let view = TensorView::new(kind, 1, out.len(), bytes)?;
    match kind {
        TensorType::F32 => {
            for (value, bytes) in out.iter_mut().zip(view.data.chunks_exact(4)) {
                *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
        }
        TensorType::F16 => {
            for (value, bytes) in out.iter_mut().zip(view.data.chunks_exact(2)) {
                *value = f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
            }
        }
        TensorType::BF16 => {
            for (value, bytes) in out.iter_mut().zip(view.data.chunks_exact(2)) {
                *value = bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
            }
        }
        _ => {
            let mut block = Block::new();
            let blocks = view.data.chunks_exact(kind.block_bytes());
            for (values, bytes) in out.chunks_exact_mut(kind.block_len()).zip(blocks) {
                decode(kind, bytes, &mut block);
                block.values(kind, values);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_sizes() {
        for kind in TensorType::ALL {
            let in_gguf = kind != TensorType::Int4;
            assert_eq!(TensorType::from_gguf_id(kind.gguf_id()), in_gguf.then_some(kind));
            assert_eq!(kind.row_bytes(0), Some(0));
            assert_eq!(kind.row_bytes(512), Some(512 / kind.block_len() * kind.block_bytes()));
        }
        assert_eq!(TensorType::F32.row_bytes(usize::MAX), None);
        assert_eq!(TensorType::from_gguf_id(4), None);
        assert_eq!(TensorType::Q4_0.row_bytes(33), None);
    }

    #[test]
    fn views_are_checked() {
        assert!(TensorView::new(TensorType::Q8_0, 2, 32, &[0; 68]).is_ok());
        let short = TensorView::new(TensorType::Q8_0, 2, 32, &[0; 67]);
        assert!(matches!(short, Err(KernelError::Length { needed: 68, found: 67, .. })));
        let odd = TensorView::new(TensorType::Q8_0, 2, 33, &[0; 68]);
        assert!(matches!(odd, Err(KernelError::Columns { .. })));
        let huge = TensorView::new(TensorType::F32, usize::MAX / 2, 4, &[]);
        assert!(matches!(huge, Err(KernelError::TooLarge { .. })));
    }
}
