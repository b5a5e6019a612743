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

/// The error function of each lane, within about 2e-7 (Abramowitz and Stegun, formula 7.1.26).
#[inline(always)]
pub(crate) unsafe fn erf<L: Lanes>(x: L::F) -> L::F {
    let one = L::splat(1.0);
    let magnitude = L::abs(x);
    let t = L::div(one, L::fma(L::splat(0.327_591_1), magnitude, one));
    let mut p = L::splat(1.061_405_4);
    for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = L::fma(p, t, L::splat(coefficient));
    }
    let square = L::mul(x, x);
    let tail = L::mul(L::mul(p, t), exp::<L>(L::sub(L::splat(0.0), square)));
    let positive = L::sub(one, tail);
    L::choose_less(x, L::splat(0.0), L::sub(L::splat(0.0), positive), positive)
}
