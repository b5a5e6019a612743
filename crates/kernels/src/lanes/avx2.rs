//! AVX2 with FMA and F16C: a vector is two registers.

use std::arch::x86_64::*;

use super::Lanes;

/// AVX2, FMA, F16C.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2;

#[inline(always)]
unsafe fn both(a: [__m256; 2], b: [__m256; 2], with: impl Fn(__m256, __m256) -> __m256) -> [__m256; 2] {
    [with(a[0], b[0]), with(a[1], b[1])]
}

/// The two registers as one, 8 lanes apart, then 4, 2 and 1.
#[inline(always)]
unsafe fn fold(
    a: [__m256; 2],
    with: impl Fn(__m256, __m256) -> __m256,
    with4: impl Fn(__m128, __m128) -> __m128,
) -> f32 {
    let eight = with(a[0], a[1]);
    let four = with4(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = with4(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(with4(two, _mm_shuffle_ps::<1>(two, two)))
}

#[inline(always)]
unsafe fn lane_numbers() -> [__m256i; 2] {
    [_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15)]
}

#[inline(always)]
unsafe fn quad(with: *const i8) -> __m256i {
    _mm256_set1_epi32(with.cast::<i32>().read_unaligned())
}

#[inline(always)]
unsafe fn half_power_of_two(a: __m256) -> __m256 {
    let exponent = _mm256_add_epi32(_mm256_cvttps_epi32(a), _mm256_set1_epi32(127));
    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
}

#[inline(always)]
unsafe fn half_byte<const J: usize>(a: __m256i) -> __m256 {
    let shifted = match J {
        0 => a,
        1 => _mm256_srli_epi32::<8>(a),
        2 => _mm256_srli_epi32::<16>(a),
        _ => _mm256_srli_epi32::<24>(a),
    };
    _mm256_cvtepi32_ps(_mm256_and_si256(shifted, _mm256_set1_epi32(255)))
}

#[inline(always)]
unsafe fn half_dot_small(sum: __m256i, a: __m256i, with: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(a, with);
    _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

#[inline(always)]
unsafe fn half_dot_offset(sum: __m256i, a: __m256i, with: __m256i) -> __m256i {
    let signed = _mm256_xor_si256(a, _mm256_set1_epi8(-128));
    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(signed), _mm256_sign_epi8(with, signed));
    _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

#[inline(always)]
unsafe fn half_load_bf16(at: *const u16) -> __m256 {
    let values = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()));
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(values))
}

impl Lanes for Avx2 {
    type F = [__m256; 2];
    type I = [__m256i; 2];
    type B = [__m256i; 2];
    const SUBTRACTS_OFFSET: bool = true;
    const WIDE: bool = false;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::F {
        [_mm256_set1_ps(value); 2]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::F {
        [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))]
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: Self::F) {
        _mm256_storeu_ps(to, value[0]);
        _mm256_storeu_ps(to.add(8), value[1]);
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self::F {
        [_mm256_cvtph_ps(_mm_loadu_si128(from.cast())), _mm256_cvtph_ps(_mm_loadu_si128(from.add(8).cast()))]
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self::F {
        [half_load_bf16(from), half_load_bf16(from.add(8))]
    }
    #[inline(always)]
    unsafe fn store_f16(to: *mut u16, value: Self::F) {
        _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value[0]));
        _mm_storeu_si128(to.add(8).cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value[1]));
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        both(a, b, |a, b| _mm256_add_ps(a, b))
    }
    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        both(a, b, |a, b| _mm256_sub_ps(a, b))
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        both(a, b, |a, b| _mm256_mul_ps(a, b))
    }
    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        both(a, b, |a, b| _mm256_div_ps(a, b))
    }
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])]
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        both(a, b, |a, b| _mm256_max_ps(a, b))
    }
    #[inline(always)]
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F {
        both(a, b, |a, b| _mm256_min_ps(a, b))
    }
    #[inline(always)]
    unsafe fn abs(a: Self::F) -> Self::F {
        let sign = _mm256_set1_ps(-0.0);
        [_mm256_andnot_ps(sign, a[0]), _mm256_andnot_ps(sign, a[1])]
    }
    #[inline(always)]
    unsafe fn round(a: Self::F) -> Self::F {
        [
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a[0]),
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a[1]),
        ]
    }
    #[inline(always)]
    unsafe fn power_of_two(a: Self::F) -> Self::F {
        [half_power_of_two(a[0]), half_power_of_two(a[1])]
    }
    #[inline(always)]
    unsafe fn choose_less(a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F {
        [
            _mm256_blendv_ps(no[0], yes[0], _mm256_cmp_ps::<_CMP_LT_OQ>(a[0], b[0])),
            _mm256_blendv_ps(no[1], yes[1], _mm256_cmp_ps::<_CMP_LT_OQ>(a[1], b[1])),
        ]
    }
    #[inline(always)]
    unsafe fn choose_range(low: usize, high: usize, inside: Self::F, outside: Self::F) -> Self::F {
        let low = _mm256_set1_epi32(low as i32 - 1);
        let high = _mm256_set1_epi32(high as i32);
        let one = |lanes: __m256i, inside: __m256, outside: __m256| {
            let mask = _mm256_and_si256(_mm256_cmpgt_epi32(lanes, low), _mm256_cmpgt_epi32(high, lanes));
            _mm256_blendv_ps(outside, inside, _mm256_castsi256_ps(mask))
        };
        let lanes = lane_numbers();
        [one(lanes[0], inside[0], outside[0]), one(lanes[1], inside[1], outside[1])]
    }
    #[inline(always)]
    unsafe fn exchanged<const STRIDE: usize>(a: Self::F) -> Self::F {
        match STRIDE {
            1 => [_mm256_permute_ps::<0b10_11_00_01>(a[0]), _mm256_permute_ps::<0b10_11_00_01>(a[1])],
            2 => [_mm256_permute_ps::<0b01_00_11_10>(a[0]), _mm256_permute_ps::<0b01_00_11_10>(a[1])],
            4 => [_mm256_permute2f128_ps::<1>(a[0], a[0]), _mm256_permute2f128_ps::<1>(a[1], a[1])],
            _ => [a[1], a[0]],
        }
    }
    #[inline(always)]
    unsafe fn sum(a: Self::F) -> f32 {
        fold(a, |a, b| _mm256_add_ps(a, b), |a, b| _mm_add_ps(a, b))
    }
    #[inline(always)]
    unsafe fn greatest(a: Self::F) -> f32 {
        fold(a, |a, b| _mm256_max_ps(a, b), |a, b| _mm_max_ps(a, b))
    }
    #[inline(always)]
    unsafe fn any_nan(a: Self::F) -> bool {
        let one = |a: __m256| _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_UNORD_Q>(a, a));
        (one(a[0]) | one(a[1])) != 0
    }

    #[inline(always)]
    unsafe fn splat_i(value: i32) -> Self::I {
        [_mm256_set1_epi32(value); 2]
    }
    #[inline(always)]
    unsafe fn to_f32(a: Self::I) -> Self::F {
        [_mm256_cvtepi32_ps(a[0]), _mm256_cvtepi32_ps(a[1])]
    }
    #[inline(always)]
    unsafe fn doubled<const N: u32>(a: Self::I) -> Self::I {
        let by = _mm_cvtsi32_si128(N as i32);
        [_mm256_sll_epi32(a[0], by), _mm256_sll_epi32(a[1], by)]
    }
    #[inline(always)]
    unsafe fn times_128(a: Self::I, plus: Self::I) -> Self::I {
        let one = |a: __m256i, plus: __m256i| _mm256_add_epi32(_mm256_slli_epi32::<7>(a), plus);
        [one(a[0], plus[0]), one(a[1], plus[1])]
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self::F {
        [
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.add(8).cast()))),
        ]
    }
    #[inline(always)]
    unsafe fn store_i8(to: *mut i8, value: Self::F) -> i32 {
        let magnitude = Self::abs(value);
        let one = |value: __m256, magnitude: __m256| {
            let fits = _mm256_cmp_ps::<_CMP_LE_OQ>(magnitude, _mm256_set1_ps(127.5));
            _mm256_cvtps_epi32(_mm256_and_ps(value, fits))
        };
        let (a, b) = (one(value[0], magnitude[0]), one(value[1], magnitude[1]));
        let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(a, b));
        let low = _mm256_castsi256_si128(words);
        let bytes = _mm_packs_epi16(low, _mm256_extracti128_si256::<1>(words));
        _mm_storeu_si128(to.cast(), bytes);
        let sums = _mm256_add_epi32(a, b);
        let four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
        let two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
        _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<1>(two)))
    }

    #[inline(always)]
    unsafe fn load_b(from: *const u8) -> Self::B {
        [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast())]
    }
    #[inline(always)]
    unsafe fn low_nibbles(a: Self::B) -> Self::B {
        let mask = _mm256_set1_epi8(15);
        [_mm256_and_si256(a[0], mask), _mm256_and_si256(a[1], mask)]
    }
    #[inline(always)]
    unsafe fn high_nibbles(a: Self::B) -> Self::B {
        let mask = _mm256_set1_epi8(15);
        [
            _mm256_and_si256(_mm256_srli_epi16::<4>(a[0]), mask),
            _mm256_and_si256(_mm256_srli_epi16::<4>(a[1]), mask),
        ]
    }
    #[inline(always)]
    unsafe fn add_fifth_bit(low: Self::B, bits: *const u8) -> Self::B {
        let spread = _mm256_setr_epi8(
            0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3,
        );
        let places = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
        let one = |low: __m256i, at: *const u8| {
            let bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(at.cast::<i32>().read_unaligned()), spread);
            let set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, places), places);
            _mm256_or_si256(low, _mm256_and_si256(set, _mm256_set1_epi8(16)))
        };
        [one(low[0], bits), one(low[1], bits.add(4))]
    }
    #[inline(always)]
    unsafe fn byte<const J: usize>(a: Self::B) -> Self::F {
        [half_byte::<J>(a[0]), half_byte::<J>(a[1])]
    }
    #[inline(always)]
    unsafe fn dot_small(sum: Self::I, a: Self::B, with: *const i8) -> Self::I {
        // 127 * 127 * 2 fits an i16, so the pairwise sums cannot saturate.
        let with = quad(with);
        [half_dot_small(sum[0], a[0], with), half_dot_small(sum[1], a[1], with)]
    }
    #[inline(always)]
    unsafe fn dot_offset(sum: Self::I, a: Self::B, with: *const i8) -> Self::I {
        // Magnitudes (at most 128) times the other factor under the byte's sign: 128 * 127 * 2 fits an i16.
        let with = quad(with);
        [half_dot_offset(sum[0], a[0], with), half_dot_offset(sum[1], a[1], with)]
    }
}
