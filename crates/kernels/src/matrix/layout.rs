//! The packed encodings. A panel is a run of records, one per group of columns; a record holds the 32 rows' scales,
//! then their minima if there are any, then fifth bits if there are any, then the codes.
//!
//! Codes of four consecutive columns of one row stand together (one lane); the 32 rows follow each other; then
//! come the next four columns. With 4-bit codes the second half of a group sits in the high nibbles of the first.

use super::Compute;
use crate::quant::TensorType;

/// Output rows side by side.
pub(super) const PANEL: usize = 32;
/// Columns that share one scale of the activations; rows are padded to a multiple.
pub(super) const GROUP: usize = 32;

/// How a panel's records are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// 4-bit codes, f16 scales.
    Four,
    /// 4-bit codes, f16 scales and minima.
    FourMin,
    /// 4-bit codes, f32 scales and minima.
    FourMinWide,
    /// 5-bit codes, f16 scales.
    Five,
    /// 5-bit codes, f16 scales and minima.
    FiveMin,
    /// 5-bit codes, f32 scales and minima.
    FiveMinWide,
    /// 8-bit codes, f16 scales.
    Eight,
    /// 8-bit codes, f32 scales.
    EightWide,
    /// 8-bit codes, f32 scales per 16 columns.
    Eight16Wide,
    /// 8-bit codes, f32 scales and minima per 16 columns.
    Eight16MinWide,
    /// Floats as they are, column after column.
    F32,
    /// Floats as they are, column after column.
    F16,
    /// Floats as they are, column after column.
    BF16,
}

/// Bytes of one record of codes.
pub(super) const fn record_bytes(bits: usize, group: usize, minima: bool, half: bool) -> usize {
    PANEL * header_bytes(minima, half) + PANEL * group * bits / 8
}

const fn header_bytes(minima: bool, half: bool) -> usize {
    (if half { 2 } else { 4 }) * (if minima { 2 } else { 1 })
}

/// What the kernels and the packer need to know of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub(super) bits: usize,
    pub(super) group: usize,
    pub(super) minima: bool,
    pub(super) half: bool,
}

impl Record {
    pub(super) const fn bytes(self) -> usize {
        record_bytes(self.bits, self.group, self.minima, self.half)
    }
}

impl Packing {
    /// The encoding that loses least: codes keep their scale and minimum, floats are rounded to 8 bits only when
    /// products are integer products.
    pub(super) fn of(kind: TensorType, compute: Compute) -> Self {
        match (kind, compute) {
            (TensorType::F32, Compute::Exact) => Packing::F32,
            (TensorType::F16, Compute::Exact) => Packing::F16,
            (TensorType::BF16, Compute::Exact) => Packing::BF16,
            (TensorType::F32 | TensorType::F16 | TensorType::BF16, Compute::Fast) => Packing::EightWide,
            (TensorType::Q4_0, _) => Packing::Four,
            (TensorType::Q4_1, _) => Packing::FourMin,
            (TensorType::Q4K, _) => Packing::FourMinWide,
            (TensorType::Q5_0, _) => Packing::Five,
            (TensorType::Q5_1, _) => Packing::FiveMin,
            (TensorType::Q5K, _) => Packing::FiveMinWide,
            (TensorType::Q8_0, _) => Packing::Eight,
            (TensorType::Q3K | TensorType::Q6K, _) => Packing::Eight16Wide,
            (TensorType::Q2K, _) => Packing::Eight16MinWide,
        }
    }

    /// The record of codes; `None` for floats.
    pub(super) const fn record(self) -> Option<Record> {
        let (bits, group, minima, half) = match self {
            Packing::Four => (4, 32, false, true),
            Packing::FourMin => (4, 32, true, true),
            Packing::FourMinWide => (4, 32, true, false),
            Packing::Five => (5, 32, false, true),
            Packing::FiveMin => (5, 32, true, true),
            Packing::FiveMinWide => (5, 32, true, false),
            Packing::Eight => (8, 32, false, true),
            Packing::EightWide => (8, 32, false, false),
            Packing::Eight16Wide => (8, 16, false, false),
            Packing::Eight16MinWide => (8, 16, true, false),
            Packing::F32 | Packing::F16 | Packing::BF16 => return None,
        };
        Some(Record { bits, group, minima, half })
    }

    /// Bytes of 32 columns of a panel.
    pub(super) const fn group_bytes(self) -> usize {
        match (self, self.record()) {
            (_, Some(record)) => record.bytes() * (GROUP / record.group),
            (Packing::F32, None) => 4 * PANEL * GROUP,
            (_, None) => 2 * PANEL * GROUP,
        }
    }

    /// Short name of the encoding.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Packing::Four => "u4",
            Packing::FourMin | Packing::FourMinWide => "u4m",
            Packing::Five => "u5",
            Packing::FiveMin | Packing::FiveMinWide => "u5m",
            Packing::Eight | Packing::EightWide => "s8",
            Packing::Eight16Wide => "s8g16",
            Packing::Eight16MinWide => "u8mg16",
            Packing::F32 => "f32",
            Packing::F16 => "f16",
            Packing::BF16 => "bf16",
        }
    }
}

/// Calls a function that is generic over bits, group, minima and half-precision scales with those of a packing of
/// codes. Does nothing for floats.
macro_rules! with_packing {
    ($packing:expr, $module:ident :: $function:ident ( $($argument:expr),* )) => {
        match $packing {
            Packing::Four => $module::$function::<4, 32, false, true>($($argument),*),
            Packing::FourMin => $module::$function::<4, 32, true, true>($($argument),*),
            Packing::FourMinWide => $module::$function::<4, 32, true, false>($($argument),*),
            Packing::Five => $module::$function::<5, 32, false, true>($($argument),*),
            Packing::FiveMin => $module::$function::<5, 32, true, true>($($argument),*),
            Packing::FiveMinWide => $module::$function::<5, 32, true, false>($($argument),*),
            Packing::Eight => $module::$function::<8, 32, false, true>($($argument),*),
            Packing::EightWide => $module::$function::<8, 32, false, false>($($argument),*),
            Packing::Eight16Wide => $module::$function::<8, 16, false, false>($($argument),*),
            Packing::Eight16MinWide => $module::$function::<8, 16, true, false>($($argument),*),
            Packing::F32 | Packing::F16 | Packing::BF16 => (),
        }
    };
}
pub(super) use with_packing;

/// The code that means zero.
pub(super) const fn zero_code(bits: usize, minima: bool) -> i32 {
    match (minima, bits) {
        (true, _) => 0,
        (false, 4) => 8,
        (false, 5) => 16,
        (false, _) => 128,
    }
}
