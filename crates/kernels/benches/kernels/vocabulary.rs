//! What sampling does with every logit of a row.

use byzerllm_kernels::{Turn, greatest, weigh};
use criterion::{BenchmarkId, Criterion, Throughput};

use crate::data::noise;

/// SmolLM2's vocabulary and Qwen2.5's.
const VOCABULARIES: [usize; 2] = [49_152, 151_936];

pub(crate) fn benches(criterion: &mut Criterion, turn: &Turn<'_>) {
    let mut group = criterion.benchmark_group("vocabulary");
    group.sample_size(20);
    for vocabulary in VOCABULARIES {
        let logits: Vec<f32> = noise(vocabulary).iter().map(|value| value * 12.0).collect();
        group.throughput(Throughput::Elements(vocabulary as u64));
        group.bench_function(BenchmarkId::new("greatest", vocabulary), |bencher| {
            bencher.iter(|| greatest(turn.isa(), &logits));
        });
        let (mut weights, mut sums) = (Vec::new(), Vec::new());
        group.bench_function(BenchmarkId::new("weigh", vocabulary), |bencher| {
            bencher.iter(|| weigh(turn.isa(), &logits, (12.0, 1.25, 0.0), &mut weights, &mut sums));
        });
    }
    group.finish();
}
