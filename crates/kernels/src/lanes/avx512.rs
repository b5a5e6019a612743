//! AVX-512 with VNNI: a vector is one register.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{LANES, Lanes};

/// AVX-512 F, BW, VL, VNNI.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512;

#[inline(always)]
unsafe fn halves(a: __m512) -> (__m256, __m256) {
    let high = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(a));
    (_mm512_castps512_ps256(a), _mm256_castpd_ps(high))
}

#[inline(always)]
unsafe fn fold(
    a: __m512,
    with: impl Fn(__m256, __m256) -> __m256,
    with4: impl Fn(__m128, __m128) -> __m128,
) -> f32 {
    let (low, high) = halves(a);
    let eight = with(low, high);
    let four = with4(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = with4(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(with4(two, _mm_shuffle_ps::<1>(two, two)))
}

#[inline(always)]
unsafe fn quad(with: *const i8) -> __m512i {
    _mm512_set1_epi32(with.cast::<i32>().read_unaligned())
}

/// Products of two vectors of bytes with the same four signed bytes, those at `with + 4 * QUAD`.
///
/// Written as instructions because a compiler that sees the broadcasts moves those of many rows to the front, and then
/// has no registers left for the sums: storing and loading these took a third of the time of a product.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn dot_two<const QUAD: usize>(sums: &mut [__m512i; 2], a: [__m512i; 2], with: *const i8) {
    let broadcast: __m512i;
    asm!(
        "vpbroadcastd {broadcast}, dword ptr [{with} + {at}]",
        "vpdpbusd {first}, {a}, {broadcast}",
        "vpdpbusd {second}, {b}, {broadcast}",
        broadcast = out(zmm_reg) broadcast,
        first = inout(zmm_reg) sums[0],
        second = inout(zmm_reg) sums[1],
        a = in(zmm_reg) a[0],
        b = in(zmm_reg) a[1],
        with = in(reg) with,
        at = const 4 * QUAD,
        options(readonly, nostack, preserves_flags)
    );
    // It has done its work inside.
    let _ = broadcast;
}

/// The integer at an address in every lane. A compiler that sees where it comes from would rather compute with the
/// integer and spread the result, which takes three instructions instead of one.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn spread(at: *const i32) -> __m512i {
    let all: __m512i;
    asm!(
        "vpbroadcastd {all}, dword ptr [{at}]",
        all = out(zmm_reg) all,
        at = in(reg) at,
        options(pure, readonly, nostack, preserves_flags)
    );
    all
}

impl Lanes for Avx512 {
    type F = __m512;
    type I = __m512i;
    type B = __m512i;
    const SUBTRACTS_OFFSET: bool = false;
    const WIDE: bool = true;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::F {
        _mm512_set1_ps(value)
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::F {
        _mm512_loadu_ps(from)
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: Self::F) {
        _mm512_storeu_ps(to, value);
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self::F {
        _mm512_cvtph_ps(_mm256_loadu_si256(from.cast()))
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self::F {
        let values = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(values))
    }
    #[inline(always)]
    unsafe fn store_f16(to: *mut u16, value: Self::F) {
        _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value));
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        _mm512_add_ps(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        _mm512_sub_ps(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        _mm512_mul_ps(a, b)
    }
    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        _mm512_div_ps(a, b)
    }
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        _mm512_fmadd_ps(a, b, c)
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        _mm512_max_ps(a, b)
    }
    #[inline(always)]
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F {
        _mm512_min_ps(a, b)
    }
    #[inline(always)]
    unsafe fn abs(a: Self::F) -> Self::F {
        _mm512_abs_ps(a)
    }
    #[inline(always)]
    unsafe fn round(a: Self::F) -> Self::F {
        _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a)
    }
    #[inline(always)]
    unsafe fn power_of_two(a: Self::F) -> Self::F {
        let exponent = _mm512_add_epi32(_mm512_cvttps_epi32(a), _mm512_set1_epi32(127));
        _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
    }
    #[inline(always)]
    unsafe fn choose_less(a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F {
        _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes)
    }
    #[inline(always)]
    unsafe fn choose_range(low: usize, high: usize, inside: Self::F, outside: Self::F) -> Self::F {
        let below = |lane: usize| (1_u32 << lane) - 1;
        _mm512_mask_blend_ps((below(high) & !below(low)) as __mmask16, outside, inside)
    }
    #[inline(always)]
    unsafe fn exchanged<const STRIDE: usize>(a: Self::F) -> Self::F {
        match STRIDE {
            1 => _mm512_permute_ps::<0b10_11_00_01>(a),
            2 => _mm512_permute_ps::<0b01_00_11_10>(a),
            4 => _mm512_shuffle_f32x4::<0b10_11_00_01>(a, a),
            _ => _mm512_shuffle_f32x4::<0b01_00_11_10>(a, a),
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
        _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a) != 0
    }

    #[inline(always)]
    unsafe fn splat_i(value: i32) -> Self::I {
        _mm512_set1_epi32(value)
    }
    #[inline(always)]
    unsafe fn splat_from(at: *const i32) -> Self::I {
        spread(at)
    }
    #[inline(always)]
    unsafe fn to_f32(a: Self::I) -> Self::F {
        _mm512_cvtepi32_ps(a)
    }
    #[inline(always)]
    unsafe fn doubled<const N: u32>(a: Self::I) -> Self::I {
        _mm512_slli_epi32::<N>(a)
    }
    #[inline(always)]
    unsafe fn times_128(a: Self::I, plus: Self::I) -> Self::I {
        _mm512_add_epi32(_mm512_slli_epi32::<7>(a), plus)
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self::F {
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())))
    }
    #[inline(always)]
    unsafe fn store_i8(to: *mut i8, value: Self::F) -> i32 {
        // What is not finite becomes the least integer, whose low byte is zero.
        let codes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(value));
        _mm_storeu_si128(to.cast(), codes);
        // One instruction adds up eight unsigned bytes: each code counts 128 more.
        let sums = _mm_sad_epu8(_mm_xor_si128(codes, _mm_set1_epi8(-128)), _mm_setzero_si128());
        _mm_cvtsi128_si32(_mm_add_epi32(sums, _mm_unpackhi_epi64(sums, sums))) - 128 * LANES as i32
    }

    #[inline(always)]
    unsafe fn load_b(from: *const u8) -> Self::B {
        _mm512_loadu_si512(from.cast())
    }
    #[inline(always)]
    unsafe fn low_nibbles(a: Self::B) -> Self::B {
        _mm512_and_si512(a, _mm512_set1_epi8(15))
    }
    #[inline(always)]
    unsafe fn high_nibbles(a: Self::B) -> Self::B {
        _mm512_and_si512(_mm512_srli_epi16::<4>(a), _mm512_set1_epi8(15))
    }
    #[inline(always)]
    unsafe fn add_fifth_bit(low: Self::B, bits: *const u8) -> Self::B {
        let set = bits.cast::<u64>().read_unaligned();
        _mm512_mask_add_epi8(low, set, low, _mm512_set1_epi8(16))
    }
    #[inline(always)]
    unsafe fn byte<const J: usize>(a: Self::B) -> Self::F {
        let shifted = match J {
            0 => a,
            1 => _mm512_srli_epi32::<8>(a),
            2 => _mm512_srli_epi32::<16>(a),
            _ => _mm512_srli_epi32::<24>(a),
        };
        _mm512_cvtepi32_ps(_mm512_and_si512(shifted, _mm512_set1_epi32(255)))
    }
    #[inline(always)]
    unsafe fn dot_small(sum: Self::I, a: Self::B, with: *const i8) -> Self::I {
        _mm512_dpbusd_epi32(sum, a, quad(with))
    }
    #[inline(always)]
    unsafe fn dot_offset(sum: Self::I, a: Self::B, with: *const i8) -> Self::I {
        _mm512_dpbusd_epi32(sum, a, quad(with))
    }
    #[inline(always)]
    unsafe fn dots_small<const QUAD: usize, const VECTORS: usize>(
        sums: &mut [Self::I; VECTORS],
        a: &[Self::B; VECTORS],
        with: *const i8,
    ) {
        let mut vector = 0;
        while vector + 2 <= VECTORS {
            let mut two = [sums[vector], sums[vector + 1]];
            dot_two::<QUAD>(&mut two, [a[vector], a[vector + 1]], with);
            [sums[vector], sums[vector + 1]] = two;
            vector += 2;
        }
        if vector < VECTORS {
            sums[vector] = Self::dot_small(sums[vector], a[vector], with.add(4 * QUAD));
        }
    }
    #[inline(always)]
    unsafe fn dots_offset<const QUAD: usize, const VECTORS: usize>(
        sums: &mut [Self::I; VECTORS],
        a: &[Self::B; VECTORS],
        with: *const i8,
    ) {
        Self::dots_small::<QUAD, VECTORS>(sums, a, with);
    }
}
