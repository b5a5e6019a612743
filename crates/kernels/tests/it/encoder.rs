//! What encoders add: products that round their own outcome, sums with their norm, attention of whole texts.

use byzerllm_kernels::{
    Activation, Compute, DenseQueries, DenseShape, Isa, LayerNorm, Matrix, ProductInput, Scratch, TensorType,
    TensorView, Turn, activate, add_norm, attend_dense, layer_norm,
};
use proptest::prelude::*;

use crate::support::{Random, bits, error, filled, pool, seen};

const MODES: [Compute; 3] = Compute::ALL;

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn matrix(turn: &Turn<'_>, rows: usize, cols: usize, random: &mut Random, compute: Compute) -> Matrix {
    let data = floats(&random.floats(rows * cols));
    Matrix::pack(turn, &[TensorView::new(TensorType::F32, rows, cols, &data).unwrap()], compute).unwrap()
}

/// Attention of one text in double precision: rows of queries, keys and values of all heads.
fn naive(qkv: &[f32], shape: DenseShape) -> Vec<f64> {
    let width = shape.heads * shape.head_dim;
    let rows: Vec<&[f32]> = qkv.chunks_exact(3 * width).collect();
    let mut output = Vec::new();
    for query in &rows {
        for head in 0..shape.heads {
            let part = |row: &[f32], kind: usize, value: usize| {
                f64::from(row[kind * width + head * shape.head_dim + value])
            };
            let scores: Vec<f64> = rows
                .iter()
                .map(|key| {
                    let dot: f64 = (0..shape.head_dim).map(|at| part(query, 0, at) * part(key, 1, at)).sum();
                    dot * f64::from(shape.scale)
                })
                .collect();
            let greatest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - greatest).exp()).collect();
            let total: f64 = weights.iter().sum();
            for at in 0..shape.head_dim {
                let sum: f64 = rows.iter().zip(&weights).map(|(row, weight)| part(row, 2, at) * weight).sum();
                output.push(sum / total);
            }
        }
    }
    output
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn dense_attention_agrees_and_texts_are_alone(
        lengths in prop::collection::vec(1_usize..60, 1..4), heads in 1_usize..4, dim in 1_usize..70, seed: u64,
    ) {
        let mut random = Random::new(seed);
        let shape = DenseShape { heads, head_dim: dim, scale: 0.4 };
        let width = heads * dim;
        let qkv: Vec<f32> =
            random.floats(lengths.iter().sum::<usize>() * 3 * width).iter().map(|value| value * 2.0).collect();
        for compute in MODES {
            let mut scalar: Option<Vec<u32>> = None;
            for isa in Isa::available() {
                let pool = pool(2, isa);
                let turn = pool.turn();
                let through = matrix(&turn, 40, width, &mut Random::new(seed), compute);
                let mut scratch = Scratch::default();
                let mut output = ProductInput::new(compute);
                attend_dense(&turn, shape, &qkv, &lengths, DenseQueries::All, &mut output, &mut scratch);
                let all = seen(&turn, &output, &through);
                prop_assert_eq!(&all, scalar.get_or_insert_with(|| all.clone()), "{} {}", compute, isa);
                attend_dense(&turn, shape, &qkv, &lengths, DenseQueries::First, &mut output, &mut scratch);
                let firsts = seen(&turn, &output, &through);
                let mut first = 0;
                for (text, length) in lengths.iter().enumerate() {
                    let rows = &qkv[first * 3 * width..(first + length) * 3 * width];
                    attend_dense(&turn, shape, rows, &[*length], DenseQueries::All, &mut output, &mut scratch);
                    let alone = seen(&turn, &output, &through);
                    prop_assert_eq!(&alone[..], &all[first * 40..(first + length) * 40]);
                    prop_assert_eq!(&alone[..40], &firsts[text * 40..(text + 1) * 40]);
                    first += length;
                }
            }
        }
        // The values themselves: through a matrix that changes nothing.
        let pool = pool(2, Isa::detect());
        let turn = pool.turn();
        let identity: Vec<f32> =
            (0..width * width).map(|at| if at / width == at % width { 1.0 } else { 0.0 }).collect();
        let data = floats(&identity);
        // Fast: scores of rounded queries and keys, and an outcome that is rounded, too.
        for (compute, within) in [(Compute::Exact, 1e-5), (Compute::Standard, 1e-2), (Compute::Fast, 5e-2)] {
            let view = TensorView::new(TensorType::F32, width, width, &data).unwrap();
            let identity = Matrix::pack(&turn, &[view], compute).unwrap();
            let mut output = ProductInput::new(compute);
            attend_dense(&turn, shape, &qkv, &lengths, DenseQueries::All, &mut output, &mut Scratch::default());
            let mut values = vec![0.0; output.rows() * width];
            identity.apply_input(&turn, &output, None, &mut values);
            let mut first = 0;
            for length in &lengths {
                let span = first * width..(first + length) * width;
                let expected = naive(&qkv[3 * span.start..3 * span.end], shape);
                let found = error(&values[span], &expected);
                prop_assert!(found < within, "{compute}: {found}");
                first += length;
            }
        }
    }

    #[test]
    fn a_sum_with_its_norm_is_both(rows in 1_usize..60, width in 1_usize..300, seed: u64) {
        let mut random = Random::new(seed);
        let (stream, block) = (random.floats(rows * width), random.floats(rows * width));
        let (weight, bias) = (random.floats(width), random.floats(width));
        let norm = LayerNorm { weight: &weight, bias: &bias, eps: 1e-5 };
        for compute in MODES {
            let mut scalar: Option<(Vec<u32>, Vec<u32>)> = None;
            for isa in Isa::available() {
                let pool = pool(2, isa);
                let turn = pool.turn();
                let through = matrix(&turn, 33, width, &mut Random::new(seed), compute);
                let mut sums = stream.clone();
                let mut input = ProductInput::new(compute);
                add_norm(&turn, &mut sums, &block, norm, &mut input);
                let added: Vec<f32> = stream.iter().zip(&block).map(|(a, b)| a + b).collect();
                let mut expected = vec![0.0; added.len()];
                layer_norm(&turn, &added, &weight, Some(&bias), 1e-5, &mut expected);
                prop_assert_eq!(bits(&sums), bits(&expected));
                let found = seen(&turn, &input, &through);
                prop_assert_eq!(&found, &seen(&turn, &filled(&turn, compute, &expected, width), &through));
                let both = (bits(&sums), found);
                prop_assert_eq!(&both, scalar.get_or_insert_with(|| both.clone()));
                let mut alone = stream[..width].to_vec();
                add_norm(&turn, &mut alone, &[], norm, &mut input);
                layer_norm(&turn, &stream[..width], &weight, Some(&bias), 1e-5, &mut expected[..width]);
                prop_assert_eq!(bits(&alone), bits(&expected[..width]));
            }
        }
    }

    #[test]
    fn a_product_that_rounds_its_outcome_is_a_product_and_a_rounding(
        rows in 1_usize..110, cols in 1_usize..500, inner in 1_usize..130, seed: u64,
    ) {
        let mut random = Random::new(seed);
        let input = random.floats(rows * cols);
        let bias = random.floats(inner);
        for compute in MODES {
            let mut scalar: Option<Vec<u32>> = None;
            for isa in Isa::available() {
                let pool = pool(2, isa);
                let turn = pool.turn();
                let up = matrix(&turn, inner, cols, &mut Random::new(seed), compute);
                let through = matrix(&turn, 35, inner, &mut Random::new(!seed), compute);
                let rounded = filled(&turn, compute, &input, cols);
                let mut values = vec![0.0; rows * inner];
                up.apply_input(&turn, &rounded, Some(&bias), &mut values);
                let mut plain = vec![0.0; rows * inner];
                up.apply(&turn, &input, Some(&bias), &mut plain, &mut Scratch::default());
                prop_assert_eq!(bits(&values), bits(&plain));
                let mut output = ProductInput::new(compute);
                for activation in [None, Some(Activation::Gelu), Some(Activation::Relu)] {
                    up.apply_activated(&turn, &rounded, Some(&bias), activation, &mut output);
                    let mut expected = values.clone();
                    if let Some(activation) = activation {
                        activate(&turn, &mut expected, activation);
                    }
                    let found = seen(&turn, &output, &through);
                    prop_assert_eq!(&found, &seen(&turn, &filled(&turn, compute, &expected, inner), &through));
                    if activation == Some(Activation::Gelu) {
                        prop_assert_eq!(&found, scalar.get_or_insert_with(|| found.clone()));
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_not_a_number_stays_in_its_text() {
    let shape = DenseShape { heads: 2, head_dim: 32, scale: 1.0 };
    let mut qkv = Random::new(3).floats(5 * 192);
    // A key of the second text.
    qkv[3 * 192 + 64] = f32::NAN;
    for compute in MODES {
        for isa in Isa::available() {
            let pool = pool(1, isa);
            let turn = pool.turn();
            let through = matrix(&turn, 4, 64, &mut Random::new(4), compute);
            let mut output = ProductInput::new(compute);
            let scratch = &mut Scratch::default();
            attend_dense(&turn, shape, &qkv, &[2, 3], DenseQueries::All, &mut output, scratch);
            let values: Vec<f32> = seen(&turn, &output, &through).into_iter().map(f32::from_bits).collect();
            assert!(values[..8].iter().all(|value| value.is_finite()), "{compute} {isa}");
            assert!(values[8..].iter().all(|value| value.is_nan()), "{compute} {isa}");
        }
    }
}
