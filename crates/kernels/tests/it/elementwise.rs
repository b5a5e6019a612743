//! Norms, rotary positions and activations.

use byzerllm_kernels::{
    Activation, Isa, RopeKind, activate, add, add_scaled, gated, layer_norm, rms_norm, rms_norm_heads, rope,
    soft_cap,
};
use proptest::prelude::*;

use crate::support::{Random, bits, error, pool};

fn reference_norm(input: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f64, center: bool) -> Vec<f64> {
    let width = weight.len();
    let mut output = Vec::new();
    for row in input.chunks_exact(width) {
        let mean = if center { row.iter().map(|x| f64::from(*x)).sum::<f64>() / width as f64 } else { 0.0 };
        let variance = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / width as f64;
        for (index, x) in row.iter().enumerate() {
            let value = (f64::from(*x) - mean) / (variance + eps).sqrt() * f64::from(weight[index]);
            output.push(value + bias.map_or(0.0, |bias| f64::from(bias[index])));
        }
    }
    output
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn norms_agree_and_do_not_depend_on_the_batch(rows in 1_usize..70, width in 1_usize..700, seed: u64) {
        let mut random = Random::new(seed);
        let input = random.floats(rows * width);
        let (weight, bias) = (random.floats(width), random.floats(width));
        let mut scalar: Option<(Vec<f32>, Vec<f32>)> = None;
        for isa in Isa::available() {
            let pool = pool(2, isa);
            let turn = pool.turn();
            let (mut rms, mut layer) = (vec![0.0; input.len()], vec![0.0; input.len()]);
            rms_norm(&turn, &input, &weight, 1e-5, &mut rms);
            layer_norm(&turn, &input, &weight, Some(&bias), 1e-5, &mut layer);
            prop_assert!(error(&rms, &reference_norm(&input, &weight, None, 1e-5, false)) < 1e-5);
            prop_assert!(error(&layer, &reference_norm(&input, &weight, Some(&bias), 1e-5, true)) < 1e-4);
            let mut one = vec![0.0; width];
            rms_norm(&turn, &input[(rows - 1) * width..], &weight, 1e-5, &mut one);
            prop_assert_eq!(bits(&one), bits(&rms[(rows - 1) * width..]));
            let (first_rms, first_layer) = scalar.get_or_insert_with(|| (rms.clone(), layer.clone()));
            prop_assert_eq!(bits(&rms), bits(first_rms));
            prop_assert_eq!(bits(&layer), bits(first_layer));
        }
    }

    #[test]
    fn head_norms_touch_only_their_heads(rows in 1_usize..40, heads in 1_usize..5, dim in 1_usize..70, seed: u64) {
        let mut random = Random::new(seed);
        let (offset, stride) = (3, 3 + heads * dim + 5);
        let before = random.floats(rows * stride);
        let weight = random.floats(dim);
        let pool = pool(2, Isa::detect());
        let turn = pool.turn();
        let mut after = before.clone();
        rms_norm_heads(&turn, &mut after, stride, offset, heads, &weight, 1e-6);
        for (before, after) in before.chunks_exact(stride).zip(after.chunks_exact(stride)) {
            prop_assert_eq!(&before[..offset], &after[..offset]);
            prop_assert_eq!(&before[offset + heads * dim..], &after[offset + heads * dim..]);
            let expected = reference_norm(&before[offset..offset + heads * dim], &weight, None, 1e-6, false);
            prop_assert!(error(&after[offset..offset + heads * dim], &expected) < 1e-5);
        }
    }

    #[test]
    fn rope_turns_pairs(
        rows in 1_usize..20, heads in 1_usize..4, half in 1_usize..20, extra in 0_usize..9, interleaved: bool, seed: u64,
    ) {
        let mut random = Random::new(seed);
        let (dim, stride, offset) = (2 * half + extra, 2 + heads * (2 * half + extra) + 3, 2);
        let before = random.floats(rows * stride);
        let angles = random.floats(rows * half);
        let cos: Vec<f32> = angles.iter().map(|angle| angle.cos()).collect();
        let sin: Vec<f32> = angles.iter().map(|angle| angle.sin()).collect();
        let kind = if interleaved { RopeKind::Interleaved } else { RopeKind::Half };
        let mut expected: Vec<f64> = before.iter().map(|value| f64::from(*value)).collect();
        for row in 0..rows {
            for head in 0..heads {
                for pair in 0..half {
                    let (i, j) = if interleaved { (2 * pair, 2 * pair + 1) } else { (pair, pair + half) };
                    let base = row * stride + offset + head * dim;
                    let (a, b) = (f64::from(before[base + i]), f64::from(before[base + j]));
                    let (c, s) = (f64::from(cos[row * half + pair]), f64::from(sin[row * half + pair]));
                    expected[base + i] = a * c - b * s;
                    expected[base + j] = b * c + a * s;
                }
            }
        }
        let pool = pool(2, Isa::detect());
        let mut after = before;
        rope(&pool.turn(), &mut after, stride, offset, heads, dim, 2 * half, &cos, &sin, kind);
        prop_assert!(error(&after, &expected) < 1e-6);
    }
}

fn erf(x: f64) -> f64 {
    // Simpson's rule: plain, and exact enough.
    let steps = 2000;
    let width = x / f64::from(steps);
    let density = |t: f64| (-t * t).exp();
    let inner: f64 =
        (1..steps).map(|i| density(f64::from(i) * width) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    (density(0.0) + inner + density(x)) * width / 3.0 * 2.0 / std::f64::consts::PI.sqrt()
}

fn reference_activation(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)).tanh())
        }
        Activation::Relu => x.max(0.0),
    }
}

#[test]
fn activations_agree_with_double_precision_and_each_other() {
    let mut inputs: Vec<f32> = (-600..=600).map(|step| step as f32 * 0.02).collect();
    inputs.extend([0.0, -0.0, 1e-6, -1e-6, 90.0, -90.0, 1e30, -1e30]);
    for activation in [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::Relu] {
        let expected: Vec<f64> = inputs
            .iter()
            .map(|x| {
                if x.abs() > 50.0 {
                    f64::from(x.max(0.0))
                } else {
                    reference_activation(activation, f64::from(*x))
                }
            })
            .collect();
        let mut scalar: Option<Vec<f32>> = None;
        for isa in Isa::available() {
            let pool = pool(2, isa);
            let mut values = inputs.clone();
            activate(&pool.turn(), &mut values, activation);
            for ((found, expected), input) in values.iter().zip(&expected).zip(&inputs) {
                let limit = 1e-6 * expected.abs().max(1.0);
                assert!(
                    (f64::from(*found) - expected).abs() < limit,
                    "{activation:?}({input}) = {found} on {isa}"
                );
            }
            assert_eq!(
                bits(&values),
                bits(scalar.get_or_insert_with(|| values.clone())),
                "{activation:?} {isa}"
            );
        }
    }
}

#[test]
fn not_a_number_passes_through() {
    for isa in Isa::available() {
        let pool = pool(1, isa);
        let turn = pool.turn();
        for activation in [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::Relu] {
            let mut values = [f32::NAN; 20];
            activate(&turn, &mut values, activation);
            assert!(values.iter().all(|value| value.is_nan()), "{activation:?} {isa}");
        }
    }
}

#[test]
fn gates_sums_and_caps() {
    let mut random = Random::new(9);
    for (rows, width) in [(1, 40), (300, 129)] {
        let gate_up = random.floats(rows * 2 * width);
        let from = random.floats(rows * width);
        let mut scalar: Option<Vec<f32>> = None;
        for isa in Isa::available() {
            let pool = pool(2, isa);
            let turn = pool.turn();
            let mut out = vec![0.0; rows * width];
            gated(&turn, &gate_up, Activation::Silu, width, &mut out);
            let at = |index: usize, half: usize| {
                f64::from(gate_up[index / width * 2 * width + half * width + index % width])
            };
            let expected: Vec<f64> = (0..rows * width)
                .map(|index| reference_activation(Activation::Silu, at(index, 0)) * at(index, 1))
                .collect();
            assert!(error(&out, &expected) < 1e-6);
            add(&turn, &mut out, &from);
            add_scaled(&turn, &mut out, &from, 0.5);
            let expected: Vec<f64> =
                expected.iter().zip(&from).map(|(a, b)| a + 1.5 * f64::from(*b)).collect();
            assert!(error(&out, &expected) < 1e-6);
            soft_cap(&turn, &mut out, 0.3);
            let expected: Vec<f64> = expected.iter().map(|value| 0.3 * (value / 0.3).tanh()).collect();
            assert!(error(&out, &expected) < 2e-6);
            assert_eq!(bits(&out), bits(scalar.get_or_insert_with(|| out.clone())), "{isa}");
        }
    }
}
