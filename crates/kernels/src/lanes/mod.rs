//! Sixteen lanes of f32 (or of four bytes each) as one vocabulary for all instruction sets.
//!
//! A kernel is written once against [`Lanes`] and compiled for each set by [`dispatch`]. Every operation has the
//! same result to the bit on every set, so the scalar version is an exact reference for the others.
#![expect(unsafe_code, reason = "vector instructions and raw loads in the innermost loops")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every line of these functions is an instruction or a raw access")]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

use crate::isa::Isa;

/// Lanes of one vector.
pub(crate) const LANES: usize = 16;

/// The operations of one instruction set.
///
/// # Safety
/// Every function needs the instruction set at run time ([`dispatch`] sees to it) and valid pointers to the
/// sixteen values (64 bytes) that it reads or writes; pointers need no alignment.
pub(crate) trait Lanes: Copy + 'static {
    /// Sixteen f32.
    type F: Copy;
    /// Sixteen i32.
    type I: Copy;
    /// Sixteen lanes of four unsigned bytes.
    type B: Copy;
    /// Whether `dot_offset` already subtracts 128 from each byte.
    const SUBTRACTS_OFFSET: bool;
    /// Whether all registers of a wide block (two vectors by many rows) fit.
    const WIDE: bool;

    unsafe fn splat(value: f32) -> Self::F;
    unsafe fn load(from: *const f32) -> Self::F;
    unsafe fn store(to: *mut f32, value: Self::F);
    unsafe fn load_f16(from: *const u16) -> Self::F;
    unsafe fn load_bf16(from: *const u16) -> Self::F;
    /// Rounds to the nearest 16-bit IEEE floats, ties to even.
    unsafe fn store_f16(to: *mut u16, value: Self::F);
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c` with one rounding.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `a` where it is greater, else `b` (also where one is not a number).
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// `a` where it is less, else `b` (also where one is not a number).
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn abs(a: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    unsafe fn round(a: Self::F) -> Self::F;
    /// Two to the power of an integral value in -126..=127.
    unsafe fn power_of_two(a: Self::F) -> Self::F;
    /// `yes` in lanes with `a < b`, else `no`.
    unsafe fn choose_less(a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F;
    /// `inside` in the lanes `low..high`, else `outside`.
    unsafe fn choose_range(low: usize, high: usize, inside: Self::F, outside: Self::F) -> Self::F;
    /// Each lane exchanged with the one that is `STRIDE` (1, 2, 4 or 8) apart.
    unsafe fn exchanged<const STRIDE: usize>(a: Self::F) -> Self::F;
    /// The sum in the order 8, 4, 2, 1 apart.
    unsafe fn sum(a: Self::F) -> f32;
    /// The greatest lane, compared in the order 8, 4, 2, 1 apart.
    unsafe fn greatest(a: Self::F) -> f32;
    unsafe fn any_nan(a: Self::F) -> bool;

    unsafe fn splat_i(value: i32) -> Self::I;
    /// The integer at an address, in every lane.
    #[inline(always)]
    unsafe fn splat_from(at: *const i32) -> Self::I {
        Self::splat_i(at.read())
    }
    unsafe fn to_f32(a: Self::I) -> Self::F;
    /// Each lane times two to the power of `N`.
    unsafe fn doubled<const N: u32>(a: Self::I) -> Self::I;
    /// `128 * a + b`.
    unsafe fn times_128(a: Self::I, plus: Self::I) -> Self::I;
    unsafe fn load_i8(from: *const i8) -> Self::F;
    /// Rounds to integers and stores them as bytes; returns the sum. Values lie in -127..=127, or are all not a
    /// number, or infinite.
    unsafe fn store_i8(to: *mut i8, value: Self::F) -> i32;

    unsafe fn load_b(from: *const u8) -> Self::B;
    unsafe fn low_nibbles(a: Self::B) -> Self::B;
    unsafe fn high_nibbles(a: Self::B) -> Self::B;
    /// `low` with 16 added to each byte whose bit is set in the 64 bits at `bits`.
    unsafe fn add_fifth_bit(low: Self::B, bits: *const u8) -> Self::B;
    /// Byte `J` of each lane.
    unsafe fn byte<const J: usize>(a: Self::B) -> Self::F;
    /// Adds the products of four bytes (at most 127 each) with the four signed bytes at `with`.
    unsafe fn dot_small(sum: Self::I, a: Self::B, with: *const i8) -> Self::I;
    /// The same for any byte. With `SUBTRACTS_OFFSET` each byte counts as itself less 128.
    unsafe fn dot_offset(sum: Self::I, a: Self::B, with: *const i8) -> Self::I;
    /// [`Lanes::dot_small`] of several vectors with the four signed bytes at `with + 4 * QUAD`.
    #[inline(always)]
    unsafe fn dots_small<const QUAD: usize, const VECTORS: usize>(
        sums: &mut [Self::I; VECTORS],
        a: &[Self::B; VECTORS],
        with: *const i8,
    ) {
        for vector in 0..VECTORS {
            sums[vector] = Self::dot_small(sums[vector], a[vector], with.add(4 * QUAD));
        }
    }
    /// [`Lanes::dot_offset`] of several vectors with the four signed bytes at `with + 4 * QUAD`.
    #[inline(always)]
    unsafe fn dots_offset<const QUAD: usize, const VECTORS: usize>(
        sums: &mut [Self::I; VECTORS],
        a: &[Self::B; VECTORS],
        with: *const i8,
    ) {
        for vector in 0..VECTORS {
            sums[vector] = Self::dot_offset(sums[vector], a[vector], with.add(4 * QUAD));
        }
    }
}

/// A piece of work that can be compiled for every instruction set. `run` must be `#[inline(always)]`.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;
    /// # Safety
    /// Only [`dispatch`] may call it: the machine must have the instructions of `L`.
    unsafe fn run<L: Lanes>(self) -> Self::Output;
}

/// Runs a kernel on an instruction set.
///
/// # Safety
/// The kernel's own pointers must be valid.
#[inline]
pub(crate) unsafe fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    debug_assert!(isa <= Isa::detect());
    match isa {
        Isa::Scalar => kernel.run::<scalar::Scalar>(),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => on_avx2(kernel),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => on_avx512(kernel),
        #[cfg(not(target_arch = "x86_64"))]
        _ => kernel.run::<scalar::Scalar>(),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn on_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<avx2::Avx2>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn on_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<avx512::Avx512>()
}
