//! Elementary functions on vectors, the same bits on every instruction set.
#![expect(unsafe_code, reason = "written against the vector vocabulary")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every line is a vector operation")]

use crate::lanes::Lanes;

/// How values of which the greatest magnitude is `largest` are rounded to `steps` steps on either side of zero: the value
/// of a step, and the factor that turns values into steps.
#[inline(always)]
pub(crate) fn step_and_factor(largest: f32, broken: bool, steps: f32) -> (f32, f32) {
    // What is not a number must not vanish in the rounding.
    let step = if broken { f32::NAN } else { largest / steps };
    (step, if largest > 0.0 { steps / largest } else { 0.0 })
}

/// e to the power of each lane, within about two units in the last place; zero below -87, capped at 88.
#[inline(always)]
pub(crate) unsafe fn exp<L: Lanes>(x: L::F) -> L::F {
    let bounded = L::min(L::splat(88.0), L::max(L::splat(-87.3), x));
    let n = L::round(L::mul(bounded, L::splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts: the first has few bits, so its product with n is exact.
    let r = L::fma(n, L::splat(-0.693_359_4), bounded);
    let r = L::fma(n, L::splat(2.121_944_4e-4), r);
    let mut p = L::splat(1.0 / 5040.0);
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = L::fma(p, r, L::splat(coefficient));
    }
    let value = L::mul(p, L::power_of_two(n));
    L::choose_less(x, L::splat(-87.0), L::splat(0.0), value)
}

/// Hyperbolic tangent of each lane.
#[inline(always)]
pub(crate) unsafe fn tanh<L: Lanes>(x: L::F) -> L::F {
    let one = L::splat(1.0);
    let large = L::sub(one, L::div(L::splat(2.0), L::add(exp::<L>(L::add(x, x)), one)));
    // Near zero the difference above cancels; the series does not.
    let square = L::mul(x, x);
    let mut series = L::splat(-1382.0 / 155_925.0);
    for coefficient in [62.0 / 2835.0, -17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0] {
        series = L::fma(series, square, L::splat(coefficient));
    }
    let small = L::fma(L::mul(x, square), series, x);
    L::choose_less(L::abs(x), L::splat(0.25), small, large)
}

/// The error function of each lane, within 4e-7, near zero within about as much of its value: a quotient of polynomials in the
/// square, the minimax fit that Eigen uses. What is not a number counts as large.
#[inline(always)]
pub(crate) unsafe fn erf<L: Lanes>(x: L::F) -> L::F {
    let square = L::mul(x, x);
    let mut above = L::splat(-2.726_142_3e-10);
    for coefficient in
        [2.770_681_4e-8, -2.101_024_1e-6, -5.692_506_4e-5, -7.349_906_4e-4, -2.954_6e-3, -1.609_603_3e-2]
    {
        above = L::fma(above, square, L::splat(coefficient));
    }
    let mut below = L::splat(-1.456_607_2e-5);
    for coefficient in [-2.133_740_5e-4, -1.682_827e-3, -7.373_329_3e-3, -1.426_473_9e-2] {
        below = L::fma(below, square, L::splat(coefficient));
    }
    let inner = L::div(L::mul(x, above), below);
    let outer = L::choose_less(x, L::splat(0.0), L::splat(-1.0), L::splat(1.0));
    L::choose_less(L::abs(x), L::splat(3.8), inner, outer)
}
