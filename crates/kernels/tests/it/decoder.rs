//! Kernels that round their rows for the next product: the same bits as the kernels that write floats, on every
//! instruction set.

use byzerllm_kernels::{
    Activation, AttentionSequence, AttentionShape, CachePlane, CacheShape, CacheType, Compute, Isa, Mask,
    Matrix, ProductInput, RowNorm, Scratch, TensorType, TensorView, Turn, add_scaled, add_then_norm, attend,
    attend_input, gated, layer_norm, rms_norm,
};
use proptest::prelude::*;

use crate::support::{Random, bits, filled, pool, seen};

fn matrix(turn: &Turn<'_>, rows: usize, cols: usize, random: &mut Random, compute: Compute) -> Matrix {
    let data: Vec<u8> = random.floats(rows * cols).iter().flat_map(|value| value.to_le_bytes()).collect();
    Matrix::pack(turn, &[TensorView::new(TensorType::F32, rows, cols, &data).unwrap()], compute).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn gate_and_up_are_those_of_floats(
        rows in 1_usize..110, width in 1_usize..150, groups in 1_usize..5, with_bias: bool, seed: u64,
    ) {
        let mut random = Random::new(seed);
        let cols = groups * 256;
        let kinds = [TensorType::Q5_0, TensorType::Q4_1, TensorType::Q8_0, TensorType::Q4K, TensorType::Q6K, TensorType::F32];
        let (gate_kind, up_kind) = (kinds[random.below(6)], kinds[random.below(6)]);
        let gate = random.encoded(gate_kind, width * cols);
        let up = random.encoded(up_kind, width * cols);
        let values = random.floats(rows * cols);
        let bias = random.floats(2 * width);
        let bias = with_bias.then_some(&bias[..]);
        let views = [
            TensorView::new(gate_kind, width, cols, &gate).unwrap(),
            TensorView::new(up_kind, width, cols, &up).unwrap(),
        ];
        for compute in Compute::ALL {
            let mut first: Option<Vec<u32>> = None;
            for isa in Isa::available() {
                for threads in [1, 3] {
                    let pool = pool(threads, isa);
                    let turn = pool.turn();
                    let plain = Matrix::pack(&turn, &views, compute).unwrap();
                    let paired = Matrix::pack_gated(&turn, &views, compute).unwrap();
                    prop_assert!(paired.is_paired() && !plain.is_paired());
                    let through = matrix(&turn, 40, width, &mut Random::new(seed), compute);
                    let mut floats = vec![0.0; rows * 2 * width];
                    plain.apply(&turn, &values, bias, &mut floats, &mut Scratch::default());
                    let mut same = vec![0.0; rows * 2 * width];
                    paired.apply(&turn, &values, bias, &mut same, &mut Scratch::default());
                    prop_assert_eq!(bits(&floats), bits(&same));
                    let mut inner = vec![0.0; rows * width];
                    gated(&turn, &floats, Activation::Silu, width, &mut inner);
                    let expected = seen(&turn, &filled(&turn, compute, &inner, width), &through);
                    let input = filled(&turn, compute, &values, cols);
                    let mut output = ProductInput::new(compute);
                    paired.apply_gated(&turn, &input, bias, Activation::Silu, &mut output);
                    let found = seen(&turn, &output, &through);
                    prop_assert_eq!(&found, &expected, "{} {} {}", compute, isa, threads);
                    prop_assert_eq!(&found, first.get_or_insert_with(|| found.clone()));
                }
            }
        }
    }

    #[test]
    fn sum_and_norm_are_those_of_floats(
        rows in 1_usize..20, width in 1_usize..300, center: bool, with_block: bool, seed: u64,
    ) {
        let mut random = Random::new(seed);
        let stream = random.floats(rows * width);
        let block = random.floats(if with_block { rows * width } else { 0 });
        let (weight, bias) = (random.floats(width), random.floats(width));
        for compute in Compute::ALL {
            for isa in Isa::available() {
                let pool = pool(2, isa);
                let turn = pool.turn();
                let through = matrix(&turn, 40, width, &mut Random::new(seed), compute);
                let mut expected = stream.clone();
                if with_block {
                    add_scaled(&turn, &mut expected, &block, 0.5);
                }
                let mut normed = vec![0.0; rows * width];
                if center {
                    layer_norm(&turn, &expected, &weight, Some(&bias), 1e-5, &mut normed);
                } else {
                    rms_norm(&turn, &expected, &weight, 1e-5, &mut normed);
                }
                let mut found = stream.clone();
                let mut input = ProductInput::new(compute);
                let norm = RowNorm { weight: &weight, bias: center.then_some(&bias[..]), eps: 1e-5, center };
                add_then_norm(&turn, &mut found, (&block, 0.5), norm, &mut input);
                prop_assert_eq!(bits(&found), bits(&expected));
                let expected = seen(&turn, &filled(&turn, compute, &normed, width), &through);
                prop_assert_eq!(seen(&turn, &input, &through), expected, "{} {}", compute, isa);
            }
        }
    }

    #[test]
    fn attention_is_that_of_floats(
        tokens in 1_usize..80, kv_heads in 1_usize..3, group in 1_usize..4, wide: bool, seed: u64,
    ) {
        let mut random = Random::new(seed);
        let head_dim = if wide { 64 } else { 32 };
        let (heads, kv_width) = (kv_heads * group, kv_heads * head_dim);
        let shape = AttentionShape {
            heads, kv_heads, head_dim, scale: 0.3, soft_cap: None, window: None, alibi_slopes: None,
        };
        let (width, stride) = (heads * head_dim, heads * head_dim + 2 * kv_width);
        let rows = random.floats(tokens * stride);
        let blocks: Vec<u32> = (0..tokens.div_ceil(16) as u32).rev().collect();
        let sequences = [AttentionSequence {
            rows: 0..tokens, first_position: 0, length: tokens, blocks: &blocks, mask: Mask::Causal,
        }];
        let kinds = [CacheType::F32, CacheType::F16, CacheType::I8];
        for (compute, kind) in Compute::ALL.into_iter().zip(kinds) {
            for isa in Isa::available() {
                let pool = pool(2, isa);
                let turn = pool.turn();
                let cache = CacheShape { blocks: blocks.len(), block_tokens: 16, kv_heads, head_dim, kind };
                let mut plane = CachePlane::new(cache).unwrap();
                plane.write(&turn, &rows, stride, width, &sequences);
                let through = matrix(&turn, 40, width, &mut Random::new(seed), compute);
                let mut scratch = Scratch::default();
                let mut floats = vec![0.0; tokens * width];
                attend(&turn, &shape, &plane, &rows, stride, &sequences, &mut floats, &mut scratch);
                let expected = seen(&turn, &filled(&turn, compute, &floats, width), &through);
                let mut output = ProductInput::new(compute);
                let rounded = (tokens, &mut output);
                attend_input(&turn, &shape, &plane, &rows, stride, &sequences, rounded, &mut scratch);
                prop_assert_eq!(seen(&turn, &output, &through), expected, "{} {}", compute, isa);
            }
        }
    }
}
