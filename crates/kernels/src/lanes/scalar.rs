//! The reference: arrays and plain arithmetic.

use half::{bf16, f16};

use super::{LANES, Lanes};

/// Plain Rust.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scalar;

#[inline(always)]
fn each<T: Copy>(body: impl FnMut(usize) -> T) -> [T; LANES] {
    std::array::from_fn(body)
}

#[inline(always)]
fn greater(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

impl Lanes for Scalar {
    type F = [f32; LANES];
    type I = [i32; LANES];
    type B = [u8; 64];
    const SUBTRACTS_OFFSET: bool = false;
    const WIDE: bool = false;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::F {
        [value; LANES]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::F {
        from.cast::<Self::F>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: Self::F) {
        to.cast::<Self::F>().write_unaligned(value);
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self::F {
        each(|i| f16::from_bits(from.add(i).read_unaligned()).to_f32())
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self::F {
        each(|i| bf16::from_bits(from.add(i).read_unaligned()).to_f32())
    }
    #[inline(always)]
    unsafe fn store_f16(to: *mut u16, value: Self::F) {
        for (i, value) in value.iter().enumerate() {
            to.add(i).write_unaligned(f16::from_f32(*value).to_bits());
        }
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] / b[i])
    }
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        each(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        each(|i| greater(a[i], b[i]))
    }
    #[inline(always)]
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F {
        each(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn abs(a: Self::F) -> Self::F {
        each(|i| a[i].abs())
    }
    #[inline(always)]
    unsafe fn round(a: Self::F) -> Self::F {
        each(|i| a[i].round_ties_even())
    }
    #[inline(always)]
    unsafe fn power_of_two(a: Self::F) -> Self::F {
        each(|i| f32::from_bits((((a[i] as i32) + 127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn choose_less(a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F {
        each(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    unsafe fn choose_range(low: usize, high: usize, inside: Self::F, outside: Self::F) -> Self::F {
        each(|i| if low <= i && i < high { inside[i] } else { outside[i] })
    }
    #[inline(always)]
    unsafe fn exchanged<const STRIDE: usize>(a: Self::F) -> Self::F {
        each(|i| a[i ^ STRIDE])
    }
    #[inline(always)]
    unsafe fn sum(mut a: Self::F) -> f32 {
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                a[i] += a[i + width];
            }
        }
        a[0]
    }
    #[inline(always)]
    unsafe fn greatest(mut a: Self::F) -> f32 {
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                a[i] = greater(a[i], a[i + width]);
            }
        }
        a[0]
    }
    #[inline(always)]
    unsafe fn any_nan(a: Self::F) -> bool {
        a.iter().any(|value| value.is_nan())
    }

    #[inline(always)]
    unsafe fn splat_i(value: i32) -> Self::I {
        [value; LANES]
    }
    #[inline(always)]
    unsafe fn to_f32(a: Self::I) -> Self::F {
        each(|i| a[i] as f32)
    }
    #[inline(always)]
    unsafe fn doubled<const N: u32>(a: Self::I) -> Self::I {
        a.map(|lane| lane << N)
    }
    #[inline(always)]
    unsafe fn times_128(a: Self::I, plus: Self::I) -> Self::I {
        each(|i| (a[i] << 7) + plus[i])
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self::F {
        each(|i| f32::from(*from.add(i)))
    }
    #[inline(always)]
    unsafe fn store_i8(to: *mut i8, value: Self::F) -> i32 {
        let mut sum = 0;
        for (i, value) in value.iter().enumerate() {
            // Not a number and infinities become zero on every set; the scale carries them.
            let code = if value.abs() <= 127.5 { value.round_ties_even() as i32 } else { 0 };
            *to.add(i) = code as i8;
            sum += code;
        }
        sum
    }

    #[inline(always)]
    unsafe fn load_b(from: *const u8) -> Self::B {
        from.cast::<Self::B>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn low_nibbles(a: Self::B) -> Self::B {
        a.map(|byte| byte & 15)
    }
    #[inline(always)]
    unsafe fn high_nibbles(a: Self::B) -> Self::B {
        a.map(|byte| byte >> 4)
    }
    #[inline(always)]
    unsafe fn add_fifth_bit(mut low: Self::B, bits: *const u8) -> Self::B {
        let bits = u64::from_le(bits.cast::<u64>().read_unaligned());
        for (i, byte) in low.iter_mut().enumerate() {
            *byte += (((bits >> i) & 1) as u8) << 4;
        }
        low
    }
    #[inline(always)]
    unsafe fn byte<const J: usize>(a: Self::B) -> Self::F {
        each(|i| f32::from(a[4 * i + J]))
    }
    #[inline(always)]
    unsafe fn dot_small(sum: Self::I, a: Self::B, with: *const i8) -> Self::I {
        each(|i| {
            let mut sum = sum[i];
            for j in 0..4 {
                sum += i32::from(a[4 * i + j]) * i32::from(*with.add(j));
            }
            sum
        })
    }
    #[inline(always)]
    unsafe fn dot_offset(sum: Self::I, a: Self::B, with: *const i8) -> Self::I {
        Self::dot_small(sum, a, with)
    }
}
