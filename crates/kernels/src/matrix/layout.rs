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

/// Columns that share the factors of a K encoding.
pub(super) const SUPER: usize = 256;

/// Scales are f32, at the front of each record.
pub(super) const WIDE: usize = 0;
/// Scales are f16, at the front of each record.
pub(super) const HALF: usize = 1;
/// Scales are products of an 8-bit integer and an f16 shared by 256 columns. These stand before the records of the
/// 256 columns: first the f16 of all rows, then the integers record by record.
pub(super) const SHARED: usize = 2;

/// How a panel's records are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// 4-bit codes, f16 scales.
    Four,
    /// 4-bit codes, f16 scales and minima.
    FourMin,
    /// 4-bit codes, shared scales and minima.
    FourMinShared,
    /// 4-bit codes, f32 scales and minima.
    FourMinWide,
    /// 5-bit codes, f16 scales.
    Five,
    /// 5-bit codes, f16 scales and minima.
    FiveMin,
    /// 5-bit codes, shared scales and minima.
    FiveMinShared,
    /// 8-bit codes, f16 scales.
    Eight,
    /// 8-bit codes, f32 scales.
    EightWide,
    /// 8-bit codes, shared scales per 16 columns.
    Eight16Shared,
    /// 8-bit codes, shared scales and minima per 16 columns.
    Eight16MinShared,
    /// Floats as they are, column after column.
    F32,
    /// Floats as they are, column after column.
    F16,
    /// Floats as they are, column after column.
    BF16,
}

/// What the kernels and the packer need to know of a record of codes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub(super) bits: usize,
    pub(super) group: usize,
    pub(super) minima: bool,
    pub(super) scales: usize,
}

impl Record {
    /// Numbers per row in front: a scale, or a scale and a minimum.
    const fn slots(self) -> usize {
        if self.minima { 2 } else { 1 }
    }

    /// Bytes of a record.
    pub(super) const fn bytes(self) -> usize {
        self.front() + PANEL * self.group * self.bits / 8
    }

    /// Bytes before the codes of a record.
    pub(super) const fn front(self) -> usize {
        let width = match self.scales {
            WIDE => 4,
            HALF => 2,
            _ => 0,
        };
        PANEL * self.slots() * width
    }

    /// Bytes before the records of 256 columns.
    pub(super) const fn prefix(self) -> usize {
        if self.scales == SHARED { PANEL * self.slots() * (2 + SUPER / self.group) } else { 0 }
    }

    /// Bytes of so many groups of 32 columns; whole multiples of 256 columns where they share factors.
    pub(super) const fn span(self, groups: usize) -> usize {
        groups * (GROUP / self.group) * self.bytes() + groups * GROUP / SUPER * self.prefix()
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
            (TensorType::F32 | TensorType::F16 | TensorType::BF16, Compute::Standard | Compute::Fast) => {
                Packing::EightWide
            }
            (TensorType::Q4_0, _) => Packing::Four,
            (TensorType::Q4_1, _) => Packing::FourMin,
            (TensorType::Q4K, _) => Packing::FourMinShared,
            (TensorType::Int4, _) => Packing::FourMinWide,
            (TensorType::Q5_0, _) => Packing::Five,
            (TensorType::Q5_1, _) => Packing::FiveMin,
            (TensorType::Q5K, _) => Packing::FiveMinShared,
            (TensorType::Q8_0, _) => Packing::Eight,
            (TensorType::Q3K | TensorType::Q6K, _) => Packing::Eight16Shared,
            (TensorType::Q2K, _) => Packing::Eight16MinShared,
        }
    }

    /// The record of codes; `None` for floats.
    pub(super) const fn record(self) -> Option<Record> {
        let (bits, group, minima, scales) = match self {
            Packing::Four => (4, 32, false, HALF),
            Packing::FourMin => (4, 32, true, HALF),
            Packing::FourMinShared => (4, 32, true, SHARED),
            Packing::FourMinWide => (4, 32, true, WIDE),
            Packing::Five => (5, 32, false, HALF),
            Packing::FiveMin => (5, 32, true, HALF),
            Packing::FiveMinShared => (5, 32, true, SHARED),
            Packing::Eight => (8, 32, false, HALF),
            Packing::EightWide => (8, 32, false, WIDE),
            Packing::Eight16Shared => (8, 16, false, SHARED),
            Packing::Eight16MinShared => (8, 16, true, SHARED),
            Packing::F32 | Packing::F16 | Packing::BF16 => return None,
        };
        Some(Record { bits, group, minima, scales })
    }

    /// Bytes of so many groups of columns of a panel.
    pub(super) const fn bytes(self, groups: usize) -> usize {
        match (self, self.record()) {
            (_, Some(record)) => record.span(groups),
            (Packing::F32, None) => 4 * PANEL * GROUP * groups,
            (_, None) => 2 * PANEL * GROUP * groups,
        }
    }

    /// Short name of the encoding.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Packing::Four => "u4",
            Packing::FourMin | Packing::FourMinShared | Packing::FourMinWide => "u4m",
            Packing::Five => "u5",
            Packing::FiveMin | Packing::FiveMinShared => "u5m",
            Packing::Eight | Packing::EightWide => "s8",
            Packing::Eight16Shared => "s8g16",
            Packing::Eight16MinShared => "u8mg16",
            Packing::F32 => "f32",
            Packing::F16 => "f16",
            Packing::BF16 => "bf16",
        }
    }
}

/// Calls a function that is generic over bits, group, minima and kind of scales, and over what stands in its own
/// brackets, with those of a packing of codes. Does nothing for floats.
macro_rules! with_packing {
    ($packing:expr, $module:ident :: $function:ident $(::<$($own:literal),*>)? ( $($argument:expr),* )) => {
        match $packing {
            Packing::Four => $module::$function::<4, 32, false, { $crate::matrix::layout::HALF } $(, $($own),*)?>($($argument),*),
            Packing::FourMin => $module::$function::<4, 32, true, { $crate::matrix::layout::HALF } $(, $($own),*)?>($($argument),*),
            Packing::FourMinShared => $module::$function::<4, 32, true, { $crate::matrix::layout::SHARED } $(, $($own),*)?>($($argument),*),
            Packing::FourMinWide => $module::$function::<4, 32, true, { $crate::matrix::layout::WIDE } $(, $($own),*)?>($($argument),*),
            Packing::Five => $module::$function::<5, 32, false, { $crate::matrix::layout::HALF } $(, $($own),*)?>($($argument),*),
            Packing::FiveMin => $module::$function::<5, 32, true, { $crate::matrix::layout::HALF } $(, $($own),*)?>($($argument),*),
            Packing::FiveMinShared => $module::$function::<5, 32, true, { $crate::matrix::layout::SHARED } $(, $($own),*)?>($($argument),*),
            Packing::Eight => $module::$function::<8, 32, false, { $crate::matrix::layout::HALF } $(, $($own),*)?>($($argument),*),
            Packing::EightWide => $module::$function::<8, 32, false, { $crate::matrix::layout::WIDE } $(, $($own),*)?>($($argument),*),
            Packing::Eight16Shared => $module::$function::<8, 16, false, { $crate::matrix::layout::SHARED } $(, $($own),*)?>($($argument),*),
            Packing::Eight16MinShared => $module::$function::<8, 16, true, { $crate::matrix::layout::SHARED } $(, $($own),*)?>($($argument),*),
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
