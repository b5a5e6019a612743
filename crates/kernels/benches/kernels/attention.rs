//! Attention and the writing of the cache, with heads of SmolLM2 and of Qwen2.5-0.5B.

use byzerllm_kernels::{
    AttentionSequence, AttentionShape, CachePlane, CacheShape, CacheType, Mask, Scratch, Turn, attend,
};
use criterion::{BenchmarkId, Criterion, Throughput};

use crate::data::noise;

const HEAD_DIM: usize = 64;
const BLOCK_TOKENS: usize = 32;

/// Name, heads, heads of keys, queries, keys.
const CASES: [(&str, usize, usize, usize, usize); 5] = [
    ("smollm2-prompt", 9, 3, 512, 512),
    ("smollm2-decode", 9, 3, 1, 512),
    ("qwen-prompt", 14, 2, 512, 512),
    ("qwen-late-prompt", 14, 2, 512, 4096),
    ("qwen-decode", 14, 2, 1, 8192),
];

pub(crate) fn benches(criterion: &mut Criterion, turn: &Turn<'_>) {
    for kind in [CacheType::I8, CacheType::F16, CacheType::F32] {
        for case in CASES {
            attention(criterion, turn, kind, case);
        }
        write(criterion, turn, kind);
    }
}

fn sequence(rows: usize, length: usize, blocks: &[u32]) -> AttentionSequence<'_> {
    AttentionSequence { rows: 0..rows, first_position: length - rows, length, blocks, mask: Mask::Causal }
}

fn blocks(length: usize) -> Vec<u32> {
    (0..length.div_ceil(BLOCK_TOKENS) as u32).collect()
}

fn plane(kind: CacheType, kv_heads: usize, length: usize) -> CachePlane {
    let blocks = length.div_ceil(BLOCK_TOKENS);
    let shape = CacheShape { blocks, block_tokens: BLOCK_TOKENS, kv_heads, head_dim: HEAD_DIM, kind };
    CachePlane::new(shape).unwrap()
}

fn attention(
    criterion: &mut Criterion,
    turn: &Turn<'_>,
    kind: CacheType,
    (name, heads, kv_heads, rows, length): (&str, usize, usize, usize, usize),
) {
    let mut group = criterion.benchmark_group(format!("attention/{kind:?}"));
    group.sample_size(10);
    let pairs = rows * (length - rows) + rows * (rows + 1) / 2;
    group.throughput(Throughput::Elements((4 * pairs * heads * HEAD_DIM) as u64));
    group.bench_function(BenchmarkId::new(name, format!("{rows}x{length}")), |bencher| {
        let blocks = blocks(length);
        let mut plane = plane(kind, kv_heads, length);
        let width = 2 * kv_heads * HEAD_DIM;
        plane.write(turn, &noise(length * width), width, 0, &[sequence(length, length, &blocks)]);
        let shape = AttentionShape {
            heads,
            kv_heads,
            head_dim: HEAD_DIM,
            scale: 0.125,
            soft_cap: None,
            window: None,
            alibi_slopes: None,
        };
        let stride = heads * HEAD_DIM;
        let queries = noise(rows * stride);
        let mut output = vec![0.0; queries.len()];
        let mut scratch = Scratch::default();
        let sequences = [sequence(rows, length, &blocks)];
        bencher.iter(|| {
            attend(turn, &shape, &plane, &queries, stride, &sequences, &mut output, &mut scratch);
        });
    });
    group.finish();
}

fn write(criterion: &mut Criterion, turn: &Turn<'_>, kind: CacheType) {
    let (kv_heads, rows) = (3, 512);
    let mut group = criterion.benchmark_group(format!("cache-write/{kind:?}"));
    group.sample_size(10);
    group.bench_function("smollm2-512", |bencher| {
        let blocks = blocks(rows);
        let mut plane = plane(kind, kv_heads, rows);
        let width = 2 * kv_heads * HEAD_DIM;
        let values = noise(rows * width);
        let sequences = [sequence(rows, rows, &blocks)];
        bencher.iter(|| plane.write(turn, &values, width, 0, &sequences));
    });
    group.finish();
}
