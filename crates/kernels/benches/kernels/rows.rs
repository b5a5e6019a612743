//! What happens to rows between products: norms, rotary positions, nonlinearities, sums.

use byzerllm_kernels::{Activation, RopeKind, Turn, add, gated, layer_norm, rms_norm, rope};
use criterion::{BenchmarkId, Criterion, Throughput};

use crate::data::noise;

/// SmolLM2's and a larger model's width with their inner widths.
const WIDTHS: [(usize, usize); 2] = [(576, 1536), (4096, 11_008)];
const ROWS: [usize; 3] = [1, 16, 512];

pub(crate) fn benches(criterion: &mut Criterion, turn: &Turn<'_>) {
    for (width, inner) in WIDTHS {
        for rows in ROWS {
            norms(criterion, turn, width, rows);
            rotation(criterion, turn, width, rows);
            nonlinearity(criterion, turn, inner, rows);
        }
    }
}

fn norms(criterion: &mut Criterion, turn: &Turn<'_>, width: usize, rows: usize) {
    let mut group = criterion.benchmark_group("norm");
    group.sample_size(20).throughput(Throughput::Elements((rows * width) as u64));
    let (input, weight) = (noise(rows * width), noise(width));
    let mut output = input.clone();
    group.bench_function(BenchmarkId::new("rms", format!("{rows}x{width}")), |bencher| {
        bencher.iter(|| rms_norm(turn, &input, &weight, 1e-5, &mut output));
    });
    group.bench_function(BenchmarkId::new("layer", format!("{rows}x{width}")), |bencher| {
        bencher.iter(|| layer_norm(turn, &input, &weight, Some(&weight), 1e-5, &mut output));
    });
    group.bench_function(BenchmarkId::new("residual", format!("{rows}x{width}")), |bencher| {
        bencher.iter(|| add(turn, &mut output, &input));
    });
    group.finish();
}

fn rotation(criterion: &mut Criterion, turn: &Turn<'_>, width: usize, rows: usize) {
    let head_dim = 64;
    let heads = width / head_dim;
    let mut group = criterion.benchmark_group("rope");
    group.sample_size(20).throughput(Throughput::Elements((rows * width) as u64));
    let mut values = noise(rows * width);
    // Real angles: values that are turned again and again keep their size.
    let angles = noise(rows * head_dim / 2);
    let cos: Vec<f32> = angles.iter().map(|angle| angle.cos()).collect();
    let sin: Vec<f32> = angles.iter().map(|angle| angle.sin()).collect();
    for (name, kind) in [("half", RopeKind::Half), ("interleaved", RopeKind::Interleaved)] {
        group.bench_function(BenchmarkId::new(name, format!("{rows}x{width}")), |bencher| {
            bencher.iter(|| rope(turn, &mut values, width, 0, heads, head_dim, head_dim, &cos, &sin, kind));
        });
    }
    group.finish();
}

fn nonlinearity(criterion: &mut Criterion, turn: &Turn<'_>, inner: usize, rows: usize) {
    let mut group = criterion.benchmark_group("gated");
    group.sample_size(20).throughput(Throughput::Elements((rows * inner) as u64));
    let input = noise(2 * rows * inner);
    let mut output = vec![0.0; rows * inner];
    group.bench_function(BenchmarkId::new("silu", format!("{rows}x{inner}")), |bencher| {
        bencher.iter(|| gated(turn, &input, Activation::Silu, inner, &mut output));
    });
    group.finish();
}
