//! What this machine could do at best: the rates against which products and attention are held.
//!
//! Each is measured on all workers of a turn with the vector operations that the kernels themselves use, and is the
//! best of several rounds, since whatever disturbs a round makes it slower.
#![expect(unsafe_code, reason = "written against the vector vocabulary")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every line is a vector operation or a raw access")]

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::KernelError;
use crate::isa::Isa;
use crate::lanes::{Kernel, LANES, Lanes, dispatch};
use crate::memory::{AlignedBytes, Shared, prefetch};
use crate::threads::Turn;

/// Rates of all workers together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ceilings {
    /// Multiplications and additions per second in products of bytes.
    pub int8_operations_per_second: f64,
    /// Multiplications and additions per second in fused multiply-adds of f32.
    pub f32_operations_per_second: f64,
    /// Bytes per second that are read from memory, not from a cache.
    pub read_bytes_per_second: f64,
}

impl Ceilings {
    /// Measures for about three times `time`, reading a buffer of so many bytes.
    ///
    /// # Errors
    /// When the buffer cannot be had.
    pub fn measure(turn: &Turn<'_>, buffer_bytes: usize, time: Duration) -> Result<Self, KernelError> {
        let isa = turn.isa();
        // SAFETY: `dispatch` lowers nothing, and a pool's instruction set is one of this machine.
        let int8 = best(turn, time, &|| unsafe { dispatch(isa, ByteProducts) });
        // SAFETY: as above.
        let f32 = best(turn, time, &|| unsafe { dispatch(isa, MultiplyAdds) });
        Ok(Self {
            int8_operations_per_second: int8,
            f32_operations_per_second: f32,
            read_bytes_per_second: read_rate(turn, isa, buffer_bytes, time)?,
        })
    }

    /// A size for the buffer that is far beyond the largest cache of this machine.
    #[must_use]
    pub fn buffer_bytes() -> usize {
        let caches = Path::new("/sys/devices/system/cpu/cpu0/cache");
        let sizes = (0..8).filter_map(|index| {
            let text = std::fs::read_to_string(caches.join(format!("index{index}/size"))).ok()?;
            cache_bytes(text.trim())
        });
        (8 * sizes.max().unwrap_or(0)).clamp(LEAST_BUFFER, MOST_BUFFER)
    }
}

const LEAST_BUFFER: usize = 256 << 20;
const MOST_BUFFER: usize = 1 << 30;

/// `32768K` in the words of the system.
fn cache_bytes(text: &str) -> Option<usize> {
    let unit = match text.chars().last()? {
        'K' => 1 << 10,
        'M' => 1 << 20,
        _ => return text.parse().ok(),
    };
    text[..text.len() - 1].parse::<usize>().ok()?.checked_mul(unit)
}

/// Pieces of a round that each worker takes, so that one that wakes late costs little.
const PIECES: usize = 64;
/// Repetitions within a piece.
const REPEATS: usize = 1024;

/// The best rate of a body that says how many operations it did.
fn best(turn: &Turn<'_>, time: Duration, body: &(dyn Fn() -> u64 + Sync)) -> f64 {
    let pieces = PIECES * turn.threads();
    let each = body();
    let (begun, mut best) = (Instant::now(), 0.0_f64);
    while best == 0.0 || begun.elapsed() < time {
        let start = Instant::now();
        turn.run(pieces, &|_, _| {
            black_box(body());
        });
        best = best.max((pieces as u64 * each) as f64 / start.elapsed().as_secs_f64());
    }
    best
}

/// Products of bytes: sums that do not wait for each other, one vector of weights for all of them.
struct ByteProducts;

impl Kernel for ByteProducts {
    type Output = u64;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> u64 {
        // As many sums as registers hold beside the factors.
        if L::WIDE { byte_products::<L, 14>() } else { byte_products::<L, 4>() }
    }
}

/// Vectors of weights that are walked in turns, so that no product can be computed once for all rounds.
const VECTORS: usize = 8;

#[inline(always)]
unsafe fn byte_products<L: Lanes, const SUMS: usize>() -> u64 {
    let weights = black_box([[3_u8; 4 * LANES]; VECTORS]);
    let factors = black_box([[5_i8; 4]; SUMS]);
    let mut sums = [L::splat_i(0); SUMS];
    for round in 0..REPEATS {
        let weights = L::load_b(weights[round % VECTORS].as_ptr());
        for (sum, factors) in sums.iter_mut().zip(&factors) {
            *sum = L::dot_small(*sum, weights, factors.as_ptr());
        }
    }
    let mut total = L::splat(0.0);
    for sum in sums {
        total = L::add(total, L::to_f32(sum));
    }
    black_box(L::sum(total));
    (REPEATS * SUMS * 4 * LANES * 2) as u64
}

/// Fused multiply-adds of floats.
struct MultiplyAdds;

impl Kernel for MultiplyAdds {
    type Output = u64;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> u64 {
        if L::WIDE { multiply_adds::<L, 14>() } else { multiply_adds::<L, 6>() }
    }
}

#[inline(always)]
unsafe fn multiply_adds<L: Lanes, const SUMS: usize>() -> u64 {
    let a = black_box([0.5_f32; LANES]);
    let b = black_box([0.25_f32; LANES]);
    let (a, b) = (L::load(a.as_ptr()), L::load(b.as_ptr()));
    let first = black_box([0.125_f32; SUMS]);
    let mut sums = [L::splat(0.0); SUMS];
    for (sum, first) in sums.iter_mut().zip(first) {
        *sum = L::splat(first);
    }
    for _ in 0..REPEATS {
        for sum in &mut sums {
            *sum = L::fma(a, b, *sum);
        }
    }
    let mut total = L::splat(0.0);
    for sum in sums {
        total = L::add(total, sum);
    }
    black_box(L::sum(total));
    (REPEATS * SUMS * LANES * 2) as u64
}

/// Bytes that a worker walks at once.
const STRETCH: usize = 1 << 20;
/// Bytes of a vector and of a cache line.
const LINE: usize = 64;
/// Lines that are added up side by side.
const ABREAST: usize = 4;
/// How far ahead memory is asked for, as the products do with the next panel.
const AHEAD: usize = 32 * LINE;

fn read_rate(turn: &Turn<'_>, isa: Isa, bytes: usize, time: Duration) -> Result<f64, KernelError> {
    let stretches = bytes.div_ceil(STRETCH).max(turn.threads());
    let mut buffer = AlignedBytes::zeroed(stretches * STRETCH)?;
    let shared = Shared::new(buffer.as_mut_ptr());
    // Pages that nobody wrote to are all the same one, which stays in the cache.
    turn.run_near(stretches, &|stretch, _| {
        // SAFETY: every task has a stretch of its own inside the buffer.
        unsafe { shared.part(stretch * STRETCH, STRETCH) }.fill(1);
    });
    let buffer = &buffer;
    let (begun, mut best) = (Instant::now(), 0.0_f64);
    while best == 0.0 || begun.elapsed() < time {
        let start = Instant::now();
        turn.run_near(stretches, &|stretch, _| {
            // SAFETY: the stretch lies inside the buffer.
            unsafe {
                let from = buffer.as_ptr().add(stretch * STRETCH);
                black_box(dispatch(isa, Read { from }));
            }
        });
        best = best.max((stretches * STRETCH) as f64 / start.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// Adds up a stretch.
struct Read {
    from: *const u8,
}

impl Kernel for Read {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> f32 {
        let mut sums = [L::splat(0.0); ABREAST];
        for at in (0..STRETCH).step_by(ABREAST * LINE) {
            for (line, sum) in sums.iter_mut().enumerate() {
                let from = self.from.add(at + line * LINE);
                prefetch(from.wrapping_add(AHEAD));
                *sum = L::add(*sum, L::load(from.cast()));
            }
        }
        let mut total = L::splat(0.0);
        for sum in sums {
            total = L::add(total, sum);
        }
        L::sum(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threads::{ComputePool, PoolOptions};

    #[test]
    fn every_instruction_set_has_its_ceilings() {
        for isa in Isa::available() {
            let options = PoolOptions { threads: Some(2), ..PoolOptions::default() };
            let pool = ComputePool::with_isa(options, isa).unwrap();
            let ceilings = Ceilings::measure(&pool.turn(), 4 << 20, Duration::ZERO).unwrap();
            for rate in [
                ceilings.int8_operations_per_second,
                ceilings.f32_operations_per_second,
                ceilings.read_bytes_per_second,
            ] {
                assert!(rate.is_finite() && rate > 1e6, "{isa}: {ceilings:?}");
            }
        }
    }

    #[test]
    fn work_is_counted_as_it_is_done() {
        // SAFETY: the scalar set needs nothing.
        let (bytes, floats) =
            unsafe { (dispatch(Isa::Scalar, ByteProducts), dispatch(Isa::Scalar, MultiplyAdds)) };
        assert_eq!(bytes % (2 * 64 * REPEATS as u64), 0);
        assert_eq!(floats % (2 * 16 * REPEATS as u64), 0);
    }

    #[test]
    fn caches_are_sized_in_the_systems_words() {
        let read = ["48K", "32M", "512", "x"].map(cache_bytes);
        assert_eq!(read, [Some(48 << 10), Some(32 << 20), Some(512), None]);
        assert!((LEAST_BUFFER..=MOST_BUFFER).contains(&Ceilings::buffer_bytes()));
    }
}
