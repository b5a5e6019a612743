//! How packed weights are kept, in words for people.

use super::layout::{HALF, Packing, WIDE};
use super::{Compute, Matrix};
use crate::isa::Isa;
use crate::quant::TensorType;

impl Matrix {
    /// How weights of an encoding are kept once packed: the width of their codes, and what goes with them.
    #[must_use]
    pub fn representation(kind: TensorType, compute: Compute) -> String {
        let packing = Packing::of(kind, compute);
        let Some(record) = packing.record() else { return packing.name().to_owned() };
        let with = if record.minima { "scale and minimum" } else { "scale" };
        let width = match record.scales {
            WIDE => "f32 ",
            HALF => "f16 ",
            _ => "shared ",
        };
        format!("{}-bit codes, {width}{with} per {}", record.bits, record.group)
    }
}

impl Compute {
    /// The numbers that are multiplied, in words.
    #[must_use]
    pub const fn arithmetic(self) -> &'static str {
        match self {
            Compute::Exact => "f32",
            Compute::Standard => "int15",
            Compute::Fast => "int8",
        }
    }

    /// The instructions that products use on an instruction set.
    #[must_use]
    pub const fn instructions(self, isa: Isa) -> &'static str {
        match (self, isa) {
            (Compute::Standard | Compute::Fast, Isa::Avx512) => "avx512-vnni",
            _ => isa.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn representations_say_what_is_kept() {
        let of = |kind, compute| Matrix::representation(kind, compute);
        assert_eq!(of(TensorType::Q4_1, Compute::Standard), "4-bit codes, f16 scale and minimum per 32");
        assert_eq!(of(TensorType::Q6K, Compute::Exact), "8-bit codes, shared scale per 16");
        assert_eq!(of(TensorType::BF16, Compute::Exact), "bf16");
        assert_eq!(of(TensorType::BF16, Compute::Fast), "8-bit codes, f32 scale per 32");
    }
}
