//! Products of packed weights: every layout, with the rows of one stream, of many streams and of a prompt.

use byzerllm_kernels::{Compute, Matrix, Scratch, TensorType, TensorView, Turn};
use criterion::{BenchmarkId, Criterion, Throughput};

use crate::data::{encoded, noise};

/// Output and input features: SmolLM2's queries, keys and values, its gate and up, its down, and a matrix of a model
/// with seven billion weights.
const SHAPES: [(&str, usize, usize); 4] = [
    ("qkv-960x576", 960, 576),
    ("up-3072x576", 3072, 576),
    ("down-576x1536", 576, 1536),
    ("7b-11008x4096", 11_008, 4096),
];

/// An encoding of each layout of integer codes, and the floats.
const INTEGER: [TensorType; 10] = [
    TensorType::Q4_0,
    TensorType::Q4_1,
    TensorType::Q4K,
    TensorType::Q5_0,
    TensorType::Q5_1,
    TensorType::Q5K,
    TensorType::Q8_0,
    TensorType::Q6K,
    TensorType::Q2K,
    TensorType::BF16,
];
const EXACT: [TensorType; 5] =
    [TensorType::F32, TensorType::F16, TensorType::BF16, TensorType::Q4_1, TensorType::Q8_0];
const ROWS: [usize; 3] = [1, 16, 512];

pub(crate) fn benches(criterion: &mut Criterion, turn: &Turn<'_>) {
    for (compute, kinds) in
        [(Compute::Fast, &INTEGER[..]), (Compute::Standard, &INTEGER[..]), (Compute::Exact, &EXACT[..])]
    {
        for &kind in kinds {
            products(criterion, turn, compute, kind);
        }
    }
}

fn products(criterion: &mut Criterion, turn: &Turn<'_>, compute: Compute, kind: TensorType) {
    let mut group = criterion.benchmark_group(format!("product/{compute}/{kind}"));
    group.sample_size(10);
    for (name, rows, cols) in SHAPES {
        // Encodings of 256 columns take what is next to the shape.
        let cols = cols.next_multiple_of(kind.block_len());
        for batch in ROWS {
            // Packed on first use: a filter leaves most of these out.
            let mut packed = None;
            group.throughput(Throughput::Elements((2 * batch * rows * cols) as u64));
            group.bench_function(BenchmarkId::new(name, batch), |bencher| {
                let (matrix, input, output, scratch) = packed.get_or_insert_with(|| {
                    let data = encoded(kind, rows * cols);
                    let view = TensorView::new(kind, rows, cols, &data).unwrap();
                    let matrix = Matrix::pack(turn, &[view], compute).unwrap();
                    (matrix, noise(batch * cols), vec![0.0; batch * rows], Scratch::default())
                });
                bencher.iter(|| matrix.apply(turn, input, None, output, scratch));
            });
        }
    }
    group.finish();
}
