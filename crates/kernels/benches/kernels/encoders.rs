//! What encoders add, at the shapes of MiniLM and of BERT-base: attention of whole texts, sums with their norm, products that
//! round their own outcome.

use byzerllm_kernels::{
    Activation, Compute, DenseQueries, DenseShape, LayerNorm, Matrix, ProductInput, Scratch, TensorType,
    TensorView, Turn, add_norm, attend_dense,
};
use criterion::{BenchmarkId, Criterion, Throughput};

use crate::data::{encoded, noise};

/// Name, heads, their width, inner width.
const MODELS: [(&str, usize, usize, usize); 2] = [("minilm", 12, 32, 1536), ("bert-base", 12, 64, 3072)];
/// Texts of a step and their length.
const TEXTS: [(usize, usize); 3] = [(1, 12), (32, 32), (4, 256)];

pub(crate) fn benches(criterion: &mut Criterion, turn: &Turn<'_>) {
    for (name, heads, head_dim, inner) in MODELS {
        for (texts, length) in TEXTS {
            attention(criterion, turn, (name, heads, head_dim), (texts, length));
        }
        for compute in Compute::ALL {
            sums(criterion, turn, name, heads * head_dim, compute);
            products(criterion, turn, name, (heads * head_dim, inner), compute);
        }
    }
}

fn attention(
    criterion: &mut Criterion,
    turn: &Turn<'_>,
    (name, heads, head_dim): (&str, usize, usize),
    (texts, length): (usize, usize),
) {
    let mut group = criterion.benchmark_group("attention/texts");
    group.sample_size(10);
    group.throughput(Throughput::Elements((4 * texts * length * length * heads * head_dim) as u64));
    let shape = DenseShape { heads, head_dim, scale: 0.2 };
    let qkv = noise(texts * length * 3 * heads * head_dim);
    let lengths = vec![length; texts];
    let (mut output, mut scratch) = (ProductInput::new(Compute::Fast), Scratch::default());
    group.bench_function(BenchmarkId::new(name, format!("{texts}x{length}")), |bencher| {
        bencher.iter(|| {
            attend_dense(turn, shape, &qkv, &lengths, DenseQueries::All, &mut output, &mut scratch);
        });
    });
    group.finish();
}

const ROWS: usize = 1024;

fn sums(criterion: &mut Criterion, turn: &Turn<'_>, name: &str, width: usize, compute: Compute) {
    let mut group = criterion.benchmark_group(format!("norm/sum/{compute}"));
    group.sample_size(20).throughput(Throughput::Elements((ROWS * width) as u64));
    let (mut stream, block, weight) = (noise(ROWS * width), noise(ROWS * width), noise(width));
    let norm = LayerNorm { weight: &weight, bias: &weight, eps: 1e-12 };
    let mut input = ProductInput::new(compute);
    group.bench_function(BenchmarkId::new(name, ROWS), |bencher| {
        bencher.iter(|| add_norm(turn, &mut stream, &block, norm, &mut input));
    });
    group.finish();
}

fn products(
    criterion: &mut Criterion,
    turn: &Turn<'_>,
    name: &str,
    (width, inner): (usize, usize),
    compute: Compute,
) {
    let mut group = criterion.benchmark_group(format!("product/rounded/{compute}"));
    group.sample_size(10).throughput(Throughput::Elements((2 * ROWS * width * inner) as u64));
    let data = encoded(TensorType::F32, width * inner);
    let view = TensorView::new(TensorType::F32, inner, width, &data).unwrap();
    let matrix = Matrix::pack(turn, &[view], compute).unwrap();
    let (mut input, mut output) = (ProductInput::new(compute), ProductInput::new(compute));
    input.fill(turn, &noise(ROWS * width), width);
    for (kind, activation) in [("plain", None), ("gelu", Some(Activation::Gelu))] {
        group.bench_function(BenchmarkId::new(name, kind), |bencher| {
            bencher.iter(|| matrix.apply_activated(turn, &input, None, activation, &mut output));
        });
    }
    group.finish();
}
