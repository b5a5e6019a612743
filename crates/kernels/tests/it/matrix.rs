//! Products of every encoding, in both modes, on every instruction set.

use byzerllm_kernels::{Compute, Isa, KernelError, Matrix, Scratch, TensorType, TensorView, dequantize};
use proptest::prelude::*;

use crate::support::{Random, bits, error, pool};

struct Case {
    parts: Vec<(TensorType, usize, Vec<u8>)>,
    cols: usize,
    input: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl Case {
    fn new(
        random: &mut Random,
        kinds: &[(TensorType, usize)],
        cols: usize,
        batch: usize,
        bias: bool,
    ) -> Self {
        let parts: Vec<_> =
            kinds.iter().map(|(kind, rows)| (*kind, *rows, random.encoded(*kind, rows * cols))).collect();
        let rows: usize = kinds.iter().map(|(_, rows)| rows).sum();
        let input = random.floats(batch * cols);
        let bias = bias.then(|| random.floats(rows));
        Self { parts, cols, input, bias }
    }

    fn rows(&self) -> usize {
        self.parts.iter().map(|(_, rows, _)| rows).sum()
    }

    fn views(&self) -> Vec<TensorView<'_>> {
        self.parts
            .iter()
            .map(|(kind, rows, data)| TensorView::new(*kind, *rows, self.cols, data).unwrap())
            .collect()
    }

    fn apply(&self, isa: Isa, threads: usize, compute: Compute, input: &[f32]) -> Vec<f32> {
        let pool = pool(threads, isa);
        let turn = pool.turn();
        let matrix = Matrix::pack(&turn, &self.views(), compute).unwrap();
        let estimate = |(kind, rows, _): &(TensorType, usize, Vec<u8>)| {
            Matrix::packed_bytes(*kind, *rows, self.cols, compute)
        };
        assert_eq!(matrix.bytes() as u64, self.parts.iter().map(estimate).sum::<u64>());
        let mut output = vec![f32::NAN; input.len() / self.cols * self.rows()];
        matrix.apply(&turn, input, self.bias.as_deref(), &mut output, &mut Scratch::default());
        output
    }

    /// In double precision with the decoded weights.
    fn reference(&self) -> Vec<f64> {
        let mut weights = Vec::new();
        for (kind, rows, data) in &self.parts {
            let mut part = vec![0.0; rows * self.cols];
            dequantize(*kind, data, &mut part).unwrap();
            weights.extend(part);
        }
        let mut output = Vec::new();
        for input in self.input.chunks_exact(self.cols) {
            for (row, weights) in weights.chunks_exact(self.cols).enumerate() {
                let sum: f64 = input.iter().zip(weights).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                output.push(sum + self.bias.as_ref().map_or(0.0, |bias| f64::from(bias[row])));
            }
        }
        output
    }
}

fn any_kind() -> impl Strategy<Value = TensorType> {
    prop::sample::select(TensorType::ALL.to_vec())
}

fn fitting(kind: TensorType, cols: usize) -> usize {
    cols.next_multiple_of(kind.block_len())
}

#[test]
fn every_encoding_agrees_with_double_precision() {
    let mut random = Random::new(1);
    for kind in TensorType::ALL {
        for (cols, batch) in [(33, 1), (288, 7), (768, 13), (1300, 2)] {
            let cols = fitting(kind, cols);
            let case = Case::new(&mut random, &[(kind, 71)], cols, batch, true);
            let reference = case.reference();
            for compute in Compute::ALL {
                let scalar = case.apply(Isa::Scalar, 1, compute, &case.input);
                let worst = error(&scalar, &reference);
                let float = matches!(kind, TensorType::F32 | TensorType::F16 | TensorType::BF16);
                let limit = match compute {
                    Compute::Exact => 1e-5,
                    // The weights' own codes are kept, and 15 bits of the activations.
                    Compute::Standard if !float => 2e-4,
                    _ => 0.02,
                };
                assert!(worst < limit, "{kind} {compute} {cols} x {batch}: {worst}");
                for isa in Isa::available() {
                    let found = case.apply(isa, 2, compute, &case.input);
                    assert_eq!(bits(&found), bits(&scalar), "{kind} {compute} {cols} x {batch} on {isa}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn random_stacks_agree(
        kinds in prop::collection::vec((any_kind(), 1_usize..80), 1..4),
        cols in 1_usize..700,
        batch in 1_usize..30,
        bias: bool,
        seed: u64,
    ) {
        let cols = kinds.iter().fold(cols, |cols, (kind, _)| cols.next_multiple_of(kind.block_len()));
        let case = Case::new(&mut Random::new(seed), &kinds, cols, batch, bias);
        let reference = case.reference();
        for (compute, limit) in [(Compute::Exact, 1e-5), (Compute::Standard, 0.02), (Compute::Fast, 0.05)] {
            let first = case.apply(Isa::detect(), 2, compute, &case.input);
            prop_assert!(error(&first, &reference) < limit, "{} {}", compute, error(&first, &reference));
        }
    }

    #[test]
    fn rows_do_not_depend_on_the_batch(
        kind in any_kind(),
        rows in 1_usize..150,
        cols in 1_usize..600,
        batch in 2_usize..230,
        seed: u64,
    ) {
        let cols = fitting(kind, cols);
        let mut random = Random::new(seed);
        let case = Case::new(&mut random, &[(kind, rows)], cols, batch, true);
        for compute in Compute::ALL {
            for isa in [Isa::Avx2, Isa::Avx512].into_iter().filter(|isa| *isa <= Isa::detect()) {
                let whole = case.apply(isa, 2, compute, &case.input);
                let threads = 1 + random.below(4);
                prop_assert_eq!(bits(&case.apply(isa, threads, compute, &case.input)), bits(&whole));
                let start = random.below(batch);
                let end = start + 1 + random.below(batch - start);
                let part = case.apply(isa, threads, compute, &case.input[start * cols..end * cols]);
                prop_assert_eq!(bits(&part), bits(&whole[start * rows..end * rows]));
                let one = case.apply(isa, 1, compute, &case.input[start * cols..(start + 1) * cols]);
                prop_assert_eq!(bits(&one), bits(&whole[start * rows..(start + 1) * rows]));
            }
        }
    }
}

#[test]
fn extreme_values_stay_visible() {
    let mut random = Random::new(5);
    for kind in [TensorType::Q4_0, TensorType::Q8_0, TensorType::F16, TensorType::Q6K] {
        let mut case = Case::new(&mut random, &[(kind, 40)], 256, 3, false);
        case.input[3] = f32::NAN;
        case.input[256 + 40] = f32::INFINITY;
        for compute in Compute::ALL {
            let scalar = case.apply(Isa::Scalar, 1, compute, &case.input);
            for isa in Isa::available() {
                let found = case.apply(isa, 2, compute, &case.input);
                assert!(found[..40].iter().all(|value| value.is_nan()), "{kind} {compute}");
                assert!(found[40..80].iter().any(|value| !value.is_finite()), "{kind} {compute}");
                assert_eq!(bits(&found[80..]), bits(&scalar[80..]), "{kind} {compute}");
                assert!(found[80..].iter().all(|value| value.is_finite()));
            }
        }
    }
}

#[test]
fn values_below_the_normal_numbers_are_almost_zero() {
    let row = |value: f32| std::iter::repeat_n(value, 32).flat_map(f32::to_le_bytes);
    let data: Vec<u8> = row(1e-40).chain(row(-1e-40)).chain(row(0.5)).collect();
    let case = Case { parts: vec![(TensorType::F32, 3, data)], cols: 32, input: vec![1.0; 32], bias: None };
    for compute in Compute::ALL {
        for isa in Isa::available() {
            let found = case.apply(isa, 1, compute, &case.input);
            assert!(found[..2].iter().all(|value| value.abs() < 1e-30), "{compute}: {found:?}");
            assert!((found[2] - 16.0).abs() < 0.2, "{compute}: {found:?}");
        }
    }
}

#[test]
fn largest_codes_do_not_saturate() {
    // All codes and activations at their extremes: sums of products exceed what 16 bits hold.
    for kind in [TensorType::Q8_0, TensorType::Q5_1, TensorType::Q4_1, TensorType::Q6K] {
        for fill in [0xFF, 0x7F, 0x80, 0x00] {
            let cols = 512;
            let blocks = cols / kind.block_len();
            let mut data = vec![fill; blocks * kind.block_bytes() * 32];
            for block in data.chunks_exact_mut(kind.block_bytes()) {
                let one = half::f16::from_f32(0.01).to_le_bytes();
                let at = if kind == TensorType::Q6K { 208 } else { 0 };
                block[at..at + 2].copy_from_slice(&one);
                if matches!(kind, TensorType::Q5_1 | TensorType::Q4_1) {
                    block[2..4].copy_from_slice(&one);
                }
            }
            let case = Case { parts: vec![(kind, 32, data)], cols, input: vec![1.0; 2 * cols], bias: None };
            let reference = case.reference();
            for isa in Isa::available() {
                let found = case.apply(isa, 1, Compute::Fast, &case.input);
                assert!(error(&found, &reference) < 1e-5, "{kind} {fill} {isa}");
            }
        }
    }
}

#[test]
fn shapes_are_refused() {
    let pool = pool(1, Isa::detect());
    let turn = pool.turn();
    let data = vec![0_u8; 256];
    let wide = TensorView::new(TensorType::F32, 2, 32, &data).unwrap();
    let narrow = TensorView::new(TensorType::F32, 4, 16, &data).unwrap();
    let empty = TensorView::new(TensorType::F32, 0, 32, &[]).unwrap();
    let pack = |parts: &[TensorView<'_>]| Matrix::pack(&turn, parts, Compute::Fast).map(|_| ()).unwrap_err();
    assert_eq!(pack(&[]), KernelError::Empty);
    assert_eq!(pack(&[wide, empty]), KernelError::Empty);
    assert_eq!(pack(&[wide, narrow]), KernelError::Stack { first: 32, other: 16 });
}

#[test]
fn the_path_is_named() {
    let pool = pool(1, Isa::detect());
    let turn = pool.turn();
    let data = Random::new(1).encoded(TensorType::Q4_1, 64 * 32);
    let view = TensorView::new(TensorType::Q4_1, 64, 32, &data).unwrap();
    let matrix = Matrix::pack(&turn, &[view, view], Compute::Fast).unwrap();
    assert!(matrix.path().starts_with("q4_1:u4mx32 int8 "), "{}", matrix.path());
    assert_eq!((matrix.rows(), matrix.cols()), (128, 32));
    assert_eq!(matrix.bytes(), 4 * (512 + 128));
}

/// GPTQ with activation order packs columns of one group side by side.
#[test]
fn columns_of_another_order_are_gathered() {
    let mut random = Random::new(3);
    let case = Case::new(&mut random, &[(TensorType::Q8_0, 40), (TensorType::Int4, 33)], 96, 5, true);
    let mut order: Vec<u32> = (0..96).collect();
    for place in (1..order.len()).rev() {
        order.swap(place, random.next() as usize % (place + 1));
    }
    // Row by row, what stands at `order[i]` comes to `i`.
    let gathered: Vec<f32> = case
        .input
        .chunks_exact(96)
        .flat_map(|row| order.iter().map(|&column| row[column as usize]))
        .collect();
    for compute in Compute::ALL {
        let expected = case.apply(Isa::detect(), 2, compute, &gathered);
        let pool = pool(2, Isa::detect());
        let turn = pool.turn();
        let matrix = Matrix::pack(&turn, &case.views(), compute).unwrap();
        let matrix = matrix.with_column_order(order.clone().into()).unwrap();
        let mut output = vec![f32::NAN; expected.len()];
        matrix.apply(&turn, &case.input, case.bias.as_deref(), &mut output, &mut Scratch::default());
        assert_eq!(bits(&output), bits(&expected), "{compute}");
    }
    let pool = pool(1, Isa::detect());
    for wrong in [vec![0; 96], (0..95).collect(), (1..97).collect()] {
        let matrix = Matrix::pack(&pool.turn(), &case.views(), Compute::Exact).unwrap();
        assert_eq!(
            matrix.with_column_order(wrong.into()).unwrap_err(),
            KernelError::ColumnOrder { cols: 96 }
        );
    }
}
