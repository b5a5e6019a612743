//! Attention against a naive softmax, and its independence of everything else.

use byzerllm_kernels::{
    AttentionSequence, AttentionShape, CachePlane, CacheShape, CacheType, FREED_BLOCK, Isa, Mask, Scratch,
    Turn, attend,
};
use proptest::prelude::*;

use crate::support::{Random, bits, error, pool, typical_error};

/// One sequence with all its keys and values.
#[derive(Clone)]
struct Sequence {
    length: usize,
    first: usize,
    mask: Mask,
    /// (length, kv_heads * head_dim)
    keys: Vec<f32>,
    values: Vec<f32>,
    /// (length - first, heads * head_dim)
    queries: Vec<f32>,
}

#[derive(Clone)]
struct Case {
    shape: AttentionShape,
    block_tokens: usize,
    kind: CacheType,
    sequences: Vec<Sequence>,
    /// What a cache of bytes is told about the channels of keys.
    balance: Option<Vec<f32>>,
}

/// Stores keys and values, each (tokens, width), from position 0 on.
fn store(turn: &Turn<'_>, plane: &mut CachePlane, blocks: &[u32], keys: &[f32], values: &[f32]) {
    let width = plane.shape().kv_heads * plane.shape().head_dim;
    let tokens = keys.chunks_exact(width).zip(values.chunks_exact(width));
    let rows: Vec<f32> = tokens.flat_map(|(keys, values)| [&[f32::NAN][..], keys, values].concat()).collect();
    let count = keys.len() / width;
    let sequence =
        AttentionSequence { rows: 0..count, first_position: 0, length: count, blocks, mask: Mask::Causal };
    plane.write(turn, &rows, 2 * width + 1, 1, &[sequence]);
}

impl Case {
    fn width(&self) -> usize {
        self.shape.heads * self.shape.head_dim
    }

    fn kv_width(&self) -> usize {
        self.shape.kv_heads * self.shape.head_dim
    }

    fn random(random: &mut Random, shape: AttentionShape, block_tokens: usize, kind: CacheType) -> Self {
        let mut case = Self { shape, block_tokens, kind, sequences: Vec::new(), balance: None };
        for _ in 0..1 + random.below(4) {
            let length = 1 + random.below(200);
            let count = if random.below(2) == 0 { 1 } else { 1 + random.below(length.min(70)) };
            let mask = match random.below(4) {
                0 => Mask::Bidirectional,
                1 => Mask::Prefix(random.below(length + 20)),
                _ => Mask::Causal,
            };
            // Values that floats of 16 bits hold exactly, so that one reference serves all: whole steps of 1/128.
            let mut exact = |count: usize| -> Vec<f32> {
                random.floats(count).iter().map(|value| (value * 127.0).round() / 128.0).collect()
            };
            let (keys, values) = (exact(length * case.kv_width()), exact(length * case.kv_width()));
            let queries = exact(count * case.width()).iter().map(|value| 3.0 * value).collect();
            case.sequences.push(Sequence { length, first: length - count, mask, keys, values, queries });
        }
        case
    }

    fn visible(&self, sequence: &Sequence, query: usize, key: usize) -> bool {
        let inside = match sequence.mask {
            Mask::Causal => key <= query,
            Mask::Bidirectional => true,
            Mask::Prefix(prefix) => key <= query || key < prefix,
        };
        inside && self.shape.window.is_none_or(|window| key + window > query)
    }

    fn reference(&self) -> Vec<f64> {
        let shape = &self.shape;
        let dim = shape.head_dim;
        let mut output = Vec::new();
        for sequence in &self.sequences {
            for (row, queries) in sequence.queries.chunks_exact(self.width()).enumerate() {
                let position = sequence.first + row;
                for (head, query) in queries.chunks_exact(dim).enumerate() {
                    let kv = head / (shape.heads / shape.kv_heads);
                    let at = |key: usize| key * self.kv_width() + kv * dim;
                    let keys: Vec<usize> =
                        (0..sequence.length).filter(|key| self.visible(sequence, position, *key)).collect();
                    let scores: Vec<f64> = keys
                        .iter()
                        .map(|key| {
                            let key_values = &sequence.keys[at(*key)..at(*key) + dim];
                            let dot: f64 = query
                                .iter()
                                .zip(key_values)
                                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                                .sum();
                            let mut score = dot * f64::from(shape.scale);
                            if let Some(cap) = shape.soft_cap {
                                score = f64::from(cap) * (score / f64::from(cap)).tanh();
                            }
                            if let Some(slopes) = &shape.alibi_slopes {
                                score -= f64::from(slopes[head]) * position.abs_diff(*key) as f64;
                            }
                            score
                        })
                        .collect();
                    let peak = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let weights: Vec<f64> = scores.iter().map(|score| (score - peak).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    for index in 0..dim {
                        let sum: f64 = keys
                            .iter()
                            .zip(&weights)
                            .map(|(key, weight)| weight * f64::from(sequence.values[at(*key) + index]))
                            .sum();
                        output.push(if total > 0.0 { sum / total } else { 0.0 });
                    }
                }
            }
        }
        output
    }

    /// Runs the kernel with blocks in a random order, in a cache full of rubbish.
    fn run(&self, isa: Isa, threads: usize, seed: u64) -> Vec<f32> {
        let mut random = Random::new(seed);
        let needed: Vec<usize> =
            self.sequences.iter().map(|s| s.length.div_ceil(self.block_tokens)).collect();
        let blocks = needed.iter().sum::<usize>() + 3;
        let mut free: Vec<u32> = (0..blocks as u32).collect();
        for index in (1..free.len()).rev() {
            free.swap(index, random.below(index + 1));
        }
        let mut plane = CachePlane::new(CacheShape {
            blocks,
            block_tokens: self.block_tokens,
            kv_heads: self.shape.kv_heads,
            head_dim: self.shape.head_dim,
            kind: self.kind,
        })
        .unwrap();
        if let Some(factors) = &self.balance {
            plane = plane.balanced(factors);
        }
        let rubbish = vec![if seed.is_multiple_of(2) { f32::NAN } else { 1e4 }; self.kv_width()];
        let pool = pool(threads, isa);
        let turn = pool.turn();
        let every: Vec<u32> = (0..blocks as u32).collect();
        let rubbish = rubbish.repeat(blocks * self.block_tokens);
        store(&turn, &mut plane, &every, &rubbish, &rubbish);
        let stride = self.width() + 5;
        let mut queries = Vec::new();
        let mut tables = Vec::new();
        let mut rows = Vec::new();
        for (sequence, needed) in self.sequences.iter().zip(needed) {
            let mut table: Vec<u32> = free.split_off(free.len() - needed);
            let lowest = self.shape.window.map_or(0, |window| (sequence.first + 1).saturating_sub(window));
            store(&turn, &mut plane, &table, &sequence.keys, &sequence.values);
            for (index, block) in table.iter_mut().enumerate() {
                if (index + 1) * self.block_tokens <= lowest {
                    *block = FREED_BLOCK;
                }
            }
            tables.push(table);
            let start = queries.len() / stride;
            for row in sequence.queries.chunks_exact(self.width()) {
                queries.extend_from_slice(row);
                queries.extend([f32::NAN; 5]);
            }
            rows.push(start..queries.len() / stride);
        }
        let sequences: Vec<_> = self
            .sequences
            .iter()
            .zip(&tables)
            .zip(rows)
            .map(|((sequence, blocks), rows)| AttentionSequence {
                rows,
                first_position: sequence.first,
                length: sequence.length,
                blocks,
                mask: sequence.mask,
            })
            .collect();
        let mut output = vec![f32::NAN; queries.len() / stride * self.width()];
        let mut scratch = Scratch::default();
        attend(&turn, &self.shape, &plane, &queries, stride, &sequences, &mut output, &mut scratch);
        output
    }
}

fn shapes() -> impl Strategy<Value = AttentionShape> {
    let window = prop::option::of(1_usize..90);
    let head_dim = prop::sample::select(vec![8, 16, 20, 32, 64, 80, 96, 128]);
    (1_usize..4, 1_usize..9, head_dim, prop::option::of(1.0_f32..30.0), window, any::<bool>()).prop_map(
        |(kv_heads, group, head_dim, soft_cap, window, alibi)| {
            let heads = kv_heads * group;
            let alibi_slopes = alibi.then(|| (0..heads).map(|head| 0.5_f32.powi(head as i32 + 1)).collect());
            let scale = 1.0 / (head_dim as f32).sqrt();
            AttentionShape { heads, kv_heads, head_dim, scale, soft_cap, window, alibi_slopes }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_naive_softmax_on_every_instruction_set(
        shape in shapes(),
        block_tokens in prop::sample::select(vec![1_usize, 5, 8, 16, 24, 32, 64, 100]),
        kind in prop::sample::select(vec![CacheType::F32, CacheType::F16, CacheType::I8]),
        seed: u64,
    ) {
        let case = Case::random(&mut Random::new(seed), shape, block_tokens, kind);
        let reference = case.reference();
        let scalar = case.run(Isa::Scalar, 1, seed);
        // With a cache of bytes queries, keys, values and weights are rounded to 127 steps.
        let (found, limit) = match kind {
            CacheType::I8 => (typical_error(&scalar, &reference), 0.03),
            CacheType::F32 | CacheType::F16 => (error(&scalar, &reference), 2e-5),
        };
        prop_assert!(found < limit, "{found}");
        for isa in Isa::available() {
            prop_assert_eq!(bits(&case.run(isa, 2, seed ^ 1)), bits(&scalar), "{}", isa);
        }
    }

    #[test]
    fn does_not_depend_on_neighbours_chunks_blocks_or_threads(
        shape in shapes(),
        block_tokens in prop::sample::select(vec![8_usize, 16, 32]),
        kind in prop::sample::select(vec![CacheType::F32, CacheType::F16, CacheType::I8]),
        seed: u64,
    ) {
        let mut random = Random::new(seed);
        let case = Case::random(&mut random, shape, block_tokens, kind);
        let isa = Isa::detect();
        let whole = case.run(isa, 2, seed);
        prop_assert_eq!(bits(&case.run(isa, 3, seed.wrapping_add(1))), bits(&whole));
        let mut start = 0;
        for sequence in &case.sequences {
            let rows = sequence.length - sequence.first;
            let expected = &whole[start * case.width()..(start + rows) * case.width()];
            start += rows;
            // The rows in two calls; for causal masks the second part's keys do not exist yet in the first.
            let cut = random.below(rows + 1);
            let mut parts = Vec::new();
            for range in [0..cut, cut..rows] {
                if range.is_empty() {
                    continue;
                }
                let causal = sequence.mask == Mask::Causal;
                let length = if causal { sequence.first + range.end } else { sequence.length };
                let mut part = sequence.clone();
                part.first = sequence.first + range.start;
                part.queries = sequence.queries[range.start * case.width()..range.end * case.width()].to_vec();
                part.keys.truncate(length * case.kv_width());
                part.values.truncate(length * case.kv_width());
                part.length = length;
                let single = Case { sequences: vec![part], ..case.clone() };
                parts.extend(single.run(isa, 1, seed.wrapping_add(2)));
            }
            prop_assert_eq!(bits(&parts), bits(expected));
        }
    }
}

#[test]
fn blocks_are_copied_and_memory_is_reused() {
    let shape = CacheShape { blocks: 3, block_tokens: 16, kv_heads: 2, head_dim: 20, kind: CacheType::F16 };
    let mut plane = CachePlane::new(shape).unwrap();
    assert_eq!(plane.bytes(), shape.bytes().unwrap());
    let mut random = Random::new(3);
    let (keys, values) = (random.floats(40), random.floats(40));
    let pool = pool(1, Isa::detect());
    let turn = pool.turn();
    store(&turn, &mut plane, &[0], &keys, &values);
    plane.copy_block(0, 2);
    let attention = AttentionShape {
        heads: 2,
        kv_heads: 2,
        head_dim: 20,
        scale: 1.0,
        soft_cap: None,
        window: None,
        alibi_slopes: None,
    };
    let mut scratch = Scratch::default();
    let mut outputs = Vec::new();
    let mut held = Vec::new();
    for block in [0, 2, 1, 0] {
        let blocks = [block];
        let sequence = AttentionSequence {
            rows: 0..1,
            first_position: 0,
            length: 1,
            blocks: &blocks,
            mask: Mask::Causal,
        };
        let mut output = vec![0.0; 40];
        attend(&turn, &attention, &plane, &keys, 40, &[sequence], &mut output, &mut scratch);
        outputs.push(output);
        held.push(scratch.bytes());
    }
    assert_eq!(outputs[0], outputs[1]);
    assert!(outputs[2].iter().all(|value| *value == 0.0), "an unwritten block holds zeros");
    assert_eq!(outputs[0], outputs[3]);
    assert!(held.iter().all(|bytes| *bytes == held[0]));
}

#[test]
fn absurd_planes_are_refused() {
    let shape = CacheShape { blocks: 1, block_tokens: 16, kv_heads: 1, head_dim: 64, kind: CacheType::F32 };
    assert!(CachePlane::new(CacheShape { blocks: 0, ..shape }).is_err());
    assert!(CachePlane::new(CacheShape { blocks: usize::MAX / 8, ..shape }).is_err());
    assert!(CachePlane::new(CacheShape { head_dim: usize::MAX / 2, ..shape }).is_err());
    assert!(CachePlane::new(CacheShape { block_tokens: usize::MAX, ..shape }).is_err());
}

#[test]
fn what_is_not_a_number_stays_in_its_row_and_visible() {
    let shape = AttentionShape {
        heads: 2,
        kv_heads: 1,
        head_dim: 32,
        scale: 1.0,
        soft_cap: None,
        window: None,
        alibi_slopes: None,
    };
    let mut random = Random::new(8);
    let mut case =
        Case { shape, block_tokens: 16, kind: CacheType::F32, sequences: Vec::new(), balance: None };
    let (keys, values) = (random.floats(100 * 32), random.floats(100 * 32));
    let queries = random.floats(10 * 64);
    case.sequences.push(Sequence { length: 100, first: 90, mask: Mask::Causal, keys, values, queries });
    for isa in Isa::available() {
        let clean = case.run(isa, 1, 1);
        let mut broken = case.clone();
        broken.sequences[0].queries[5 * 64] = f32::NAN;
        // A key that only the last query sees.
        broken.sequences[0].keys[99 * 32] = f32::NAN;
        broken.sequences[0].values[99 * 32] = f32::INFINITY;
        let found = broken.run(isa, 1, 1);
        assert!(found[5 * 64..5 * 64 + 32].iter().all(|value| value.is_nan()), "{isa}");
        assert!(found[9 * 64..].iter().all(|value| value.is_nan()), "{isa}");
        assert_eq!(bits(&found[..5 * 64]), bits(&clean[..5 * 64]), "{isa}");
        assert_eq!(bits(&found[6 * 64..9 * 64]), bits(&clean[6 * 64..9 * 64]), "{isa}");
    }
}

#[test]
fn bytes_keep_what_stands_beside_a_large_channel() {
    let (heads, kv_heads, head_dim, tokens) = (4, 2, 64, 150);
    let shape = AttentionShape {
        heads,
        kv_heads,
        head_dim,
        scale: 0.125,
        soft_cap: None,
        window: None,
        alibi_slopes: None,
    };
    let mut random = Random::new(3);
    let mut keys = random.floats(tokens * kv_heads * head_dim);
    for key in keys.chunks_exact_mut(head_dim) {
        key[5] += 200.0;
        key[37] -= 150.0;
    }
    let values = random.floats(tokens * kv_heads * head_dim);
    let queries = random.floats(20 * heads * head_dim);
    let sequence = Sequence { length: tokens, first: tokens - 20, mask: Mask::Causal, keys, values, queries };
    let kind = CacheType::I8;
    let mut case = Case { shape, block_tokens: 32, kind, sequences: vec![sequence], balance: None };
    let reference = case.reference();
    let without = typical_error(&case.run(Isa::detect(), 1, 1), &reference);
    let channel = |index| if index % head_dim == 5 || index % head_dim == 37 { 16.0 } else { 1.0 };
    case.balance = Some((0..kv_heads * head_dim).map(channel).collect());
    let with = typical_error(&case.run(Isa::detect(), 1, 1), &reference);
    assert!(with < 0.4 * without && with < 0.03, "{with} against {without}");
    // Floats have no use for it.
    case.kind = CacheType::F32;
    assert!(error(&case.run(Isa::detect(), 1, 1), &reference) < 2e-5);
}

#[test]
fn misuse_is_refused() {
    let plane = CachePlane::new(CacheShape {
        blocks: 2,
        block_tokens: 16,
        kv_heads: 1,
        head_dim: 16,
        kind: CacheType::F32,
    })
    .unwrap();
    let shape = AttentionShape {
        heads: 1,
        kv_heads: 1,
        head_dim: 16,
        scale: 1.0,
        soft_cap: None,
        window: None,
        alibi_slopes: None,
    };
    let pool = pool(1, Isa::detect());
    let good =
        AttentionSequence { rows: 0..2, first_position: 0, length: 2, blocks: &[1], mask: Mask::Causal };
    let refused = |sequences: &[AttentionSequence<'_>]| {
        let mut output = vec![0.0; 2 * 16];
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let turn = pool.turn();
            attend(&turn, &shape, &plane, &[0.0; 32], 16, sequences, &mut output, &mut Scratch::default());
        }))
        .is_err()
    };
    assert!(!refused(std::slice::from_ref(&good)));
    assert!(refused(&[good.clone(), good.clone()]), "shared rows");
    assert!(refused(&[AttentionSequence { blocks: &[2], ..good.clone() }]), "no such block");
    assert!(refused(&[AttentionSequence { blocks: &[], ..good.clone() }]), "no block");
    assert!(refused(&[AttentionSequence { rows: 1..3, ..good.clone() }]), "rows beyond the batch");
    assert!(refused(&[AttentionSequence { first_position: 1, ..good }]), "queries beyond the sequence");
}
