//! Activations and sums of whole buffers. Each value depends on itself alone, so any split gives the same bits.
#![expect(unsafe_code, reason = "written against the vector vocabulary")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every line is a vector operation")]

use crate::lanes::{Kernel, LANES, Lanes, dispatch};
use crate::math::{erf, exp, tanh};
use crate::norm::{load_some, store_some};
use crate::rows::split_mut;
use crate::threads::Turn;

/// The non-linear function of a feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// x times the logistic function of x.
    Silu,
    /// x times the normal distribution's integral up to x.
    Gelu,
    /// The usual approximation of `Gelu` with a hyperbolic tangent.
    GeluTanh,
    /// x where positive, else zero.
    Relu,
}

#[inline(always)]
pub(crate) unsafe fn apply<L: Lanes>(activation: Activation, x: L::F) -> L::F {
    let one = L::splat(1.0);
    match activation {
        Activation::Silu => L::div(x, L::add(one, exp::<L>(L::sub(L::splat(0.0), x)))),
        Activation::Gelu => {
            let inner = erf::<L>(L::mul(x, L::splat(std::f32::consts::FRAC_1_SQRT_2)));
            L::mul(L::mul(x, L::splat(0.5)), L::add(one, inner))
        }
        Activation::GeluTanh => {
            let cube = L::mul(L::mul(x, x), x);
            let inner = L::mul(L::fma(L::splat(0.044_715), cube, x), L::splat(0.797_884_6));
            L::mul(L::mul(x, L::splat(0.5)), L::add(one, tanh::<L>(inner)))
        }
        Activation::Relu => L::max(L::splat(0.0), x),
    }
}

/// What to do with each value, given the matching value of a second buffer.
#[derive(Clone, Copy)]
enum Step {
    Activate(Activation),
    Add,
    AddScaled(f32),
    SoftCap(f32),
}

struct Each<'a> {
    values: &'a mut [f32],
    with: &'a [f32],
    step: Step,
}

impl Kernel for Each<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        for at in (0..self.values.len()).step_by(LANES) {
            let value = load_some::<L>(self.values, at);
            let result = match self.step {
                Step::Activate(activation) => apply::<L>(activation, value),
                Step::Add => L::add(value, load_some::<L>(self.with, at)),
                Step::AddScaled(scale) => L::fma(load_some::<L>(self.with, at), L::splat(scale), value),
                Step::SoftCap(cap) => L::mul(tanh::<L>(L::div(value, L::splat(cap))), L::splat(cap)),
            };
            store_some::<L>(self.values, at, result);
        }
    }
}

/// Values per piece when a flat buffer is split.
const PIECE: usize = 1024;

fn each(turn: &Turn<'_>, values: &mut [f32], with: Option<&[f32]>, step: Step) {
    assert!(with.is_none_or(|with| with.len() == values.len()), "buffers differ in length");
    let isa = turn.isa();
    let whole = values.len() / PIECE * PIECE;
    let (pieces, rest) = values.split_at_mut(whole);
    let run = |start: usize, values: &mut [f32]| {
        let with = with.map_or(&[][..], |with| &with[start..start + values.len()]);
        // SAFETY: the kernel works on slices only.
        unsafe { dispatch(isa, Each { values, with, step }) };
    };
    split_mut(turn, pieces, PIECE, &|range, part| run(range.start * PIECE, part));
    run(whole, rest);
}

/// Applies an activation to every value.
pub fn activate(turn: &Turn<'_>, values: &mut [f32], activation: Activation) {
    each(turn, values, None, Step::Activate(activation));
}

/// `into += from`.
///
/// # Panics
/// When the lengths differ.
pub fn add(turn: &Turn<'_>, into: &mut [f32], from: &[f32]) {
    each(turn, into, Some(from), Step::Add);
}

/// `into += scale * from`.
///
/// # Panics
/// When the lengths differ.
pub fn add_scaled(turn: &Turn<'_>, into: &mut [f32], from: &[f32], scale: f32) {
    each(turn, into, Some(from), Step::AddScaled(scale));
}

/// Bends every value smoothly into `-cap..cap`: `cap * tanh(value / cap)`.
pub fn soft_cap(turn: &Turn<'_>, values: &mut [f32], cap: f32) {
    each(turn, values, None, Step::SoftCap(cap));
}

struct Gate<'a> {
    gate_up: &'a [f32],
    out: &'a mut [f32],
    width: usize,
    activation: Activation,
}

impl Kernel for Gate<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let rows = self.gate_up.chunks_exact(2 * self.width).zip(self.out.chunks_exact_mut(self.width));
        for (gate_up, out) in rows {
            let (gate, up) = gate_up.split_at(self.width);
            for at in (0..self.width).step_by(LANES) {
                let gate = apply::<L>(self.activation, load_some::<L>(gate, at));
                store_some::<L>(out, at, L::mul(gate, load_some::<L>(up, at)));
            }
        }
    }
}

/// `activation(gate) * up` for rows that hold the gate's F values, then the F values of `up`. `gate_up` is (T, 2F),
/// `out` is (T, F), and `width` is F.
///
/// # Panics
/// When the lengths do not fit.
pub fn gated(turn: &Turn<'_>, gate_up: &[f32], activation: Activation, width: usize, out: &mut [f32]) {
    assert!(width > 0 && gate_up.len() == 2 * out.len() && out.len().is_multiple_of(width));
    let isa = turn.isa();
    split_mut(turn, out, width, &|range, out| {
        let gate_up = &gate_up[2 * width * range.start..2 * width * range.end];
        // SAFETY: the kernel works on slices only.
        unsafe { dispatch(isa, Gate { gate_up, out, width, activation }) };
    });
}
