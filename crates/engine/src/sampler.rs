//! From a row of logits to a token.
//!
//! The order is that of most servers: temperature, then top-k, then top-p over what top-k left, then min-p. The random
//! number of a step depends only on seed, choice and step, never on what else runs. The vocabulary is never sorted.

use std::cmp::Ordering;

use byzerllm_core::Sampling;
use byzerllm_kernels::{Isa, WEIGHT_BLOCK, greatest, weigh};

/// Effective sampling parameters of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SamplerSettings {
    pub(crate) temperature: f32,
    /// 0 keeps all.
    pub(crate) top_k: usize,
    pub(crate) top_p: f32,
    pub(crate) min_p: f32,
    pub(crate) seed: u64,
}

impl SamplerSettings {
    /// What is absent means off; without a seed `fresh` makes one.
    pub(crate) fn new(sampling: &Sampling, fresh: impl FnOnce() -> u64) -> Self {
        Self {
            temperature: sampling.temperature.unwrap_or(1.0),
            top_k: sampling.top_k.unwrap_or(0) as usize,
            top_p: sampling.top_p.unwrap_or(1.0),
            min_p: sampling.min_p.unwrap_or(0.0),
            seed: sampling.seed.unwrap_or_else(fresh),
        }
    }
}

/// A log probability as the engine knows it: ids only.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RawLogprob {
    pub(crate) id: u32,
    pub(crate) logprob: f32,
    /// Best first.
    pub(crate) top: Vec<(u32, f32)>,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    logit: f32,
    weight: f32,
    id: u32,
}

/// Best first; ties go to the lower id.
fn rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// Why no token was drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoToken {
    /// A logit of the model is not finite.
    NotFinite,
    /// Every token is forbidden.
    Forbidden,
}

/// Scratch memory for sampling, reused by all sequences.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    changed: Vec<f32>,
    /// Proportional to probabilities, and the sums of its blocks.
    weights: Vec<f32>,
    sums: Vec<f32>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// The token of `step` of `choice`.
    pub(crate) fn sample(
        &mut self,
        logits: &[f32],
        settings: &SamplerSettings,
        choice: u32,
        step: usize,
    ) -> Result<u32, NoToken> {
        let max = greatest(Isa::active(), logits).ok_or(NoToken::NotFinite)?;
        self.pick(logits, max, settings, choice, step).ok_or(NoToken::Forbidden)
    }

    /// The same from changed logits: `change` may set any of them, negative infinity forbids a token.
    pub(crate) fn sample_changed(
        &mut self,
        logits: &[f32],
        settings: &SamplerSettings,
        choice: u32,
        step: usize,
        change: impl FnOnce(&mut [f32]),
    ) -> Result<u32, NoToken> {
        greatest(Isa::active(), logits).ok_or(NoToken::NotFinite)?;
        let mut changed = std::mem::take(&mut self.changed);
        changed.clear();
        changed.extend_from_slice(logits);
        change(&mut changed);
        let max = changed.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let token =
            if max == f32::NEG_INFINITY { None } else { self.pick(&changed, max, settings, choice, step) };
        self.changed = changed;
        token.ok_or(NoToken::Forbidden)
    }

    fn pick(
        &mut self,
        logits: &[f32],
        max: f32,
        settings: &SamplerSettings,
        choice: u32,
        step: usize,
    ) -> Option<u32> {
        let scale = 1.0 / settings.temperature;
        if !scale.is_finite() || settings.top_k == 1 {
            return first_equal(logits, max);
        }
        let uniform = uniform(settings.seed, choice, step);
        let total: f64;
        if settings.top_k > 0 && settings.top_k < logits.len() {
            self.best(logits, settings.top_k);
            for candidate in &mut self.candidates {
                candidate.weight = weight(candidate.logit, max, scale);
            }
            total = self.candidates.iter().map(|candidate| f64::from(candidate.weight)).sum();
        } else if settings.top_p >= 1.0 {
            total = self.weigh(logits, max, scale, settings.min_p);
            return draw_from_all(&self.weights, &self.sums, uniform * total);
        } else {
            total = self.weigh(logits, max, scale, 0.0);
            self.collect_head(logits, f64::from(settings.top_p) * total);
        }
        let mut kept = self.candidates.len();
        if settings.top_p < 1.0 {
            kept = nucleus(&mut self.candidates, f64::from(settings.top_p) * total);
        }
        draw(&self.candidates[..kept], settings.min_p, uniform)
    }

    /// The log probability of a token before temperature and truncation, with the `top` most likely ones.
    pub(crate) fn logprob(&mut self, logits: &[f32], id: u32, top: u32) -> Option<RawLogprob> {
        let max = greatest(Isa::active(), logits)?;
        let log_total = f64::from(max) + self.weigh(logits, max, 1.0, 0.0).ln();
        let of = |logit: f32| (f64::from(logit) - log_total) as f32;
        let logprob = of(*logits.get(id as usize)?);
        let mut best = Vec::new();
        if top > 0 {
            self.best(logits, top as usize);
            self.candidates.sort_unstable_by(rank);
            best = self.candidates.iter().map(|candidate| (candidate.id, of(candidate.logit))).collect();
        }
        Some(RawLogprob { id, logprob, top: best })
    }

    /// Weights of all tokens, those below `least` left out; returns their sum, in an order that depends on the
    /// length only.
    fn weigh(&mut self, logits: &[f32], max: f32, scale: f32, least: f32) -> f64 {
        weigh(Isa::active(), logits, (max, scale, least), &mut self.weights, &mut self.sums);
        self.sums.iter().map(|&sum| f64::from(sum)).sum()
    }

    /// Collects the `k` best logits, in no order.
    fn best(&mut self, logits: &[f32], k: usize) {
        let candidates = &mut self.candidates;
        candidates.clear();
        let room = 2 * k.min(logits.len()) + 64;
        let mut threshold = f32::NEG_INFINITY;
        for (block, logits) in logits.chunks(SKIP).enumerate() {
            // Almost all are below the threshold, which is seen faster together than one by one.
            if !logits.iter().fold(false, |any, &logit| any | (logit > threshold)) {
                continue;
            }
            for (id, &logit) in (block * SKIP..).zip(logits) {
                // An equal logit further on has a higher id and loses.
                if logit > threshold {
                    candidates.push(Candidate { logit, weight: 0.0, id: id as u32 });
                    if candidates.len() == room {
                        let (_, last, _) = candidates.select_nth_unstable_by(k - 1, rank);
                        threshold = last.logit;
                        candidates.truncate(k);
                    }
                }
            }
        }
        if candidates.len() > k {
            candidates.select_nth_unstable_by(k - 1, rank);
            candidates.truncate(k);
        }
    }

    /// Collects likely tokens until they surely hold the nucleus, whose weights reach `target`.
    fn collect_head(&mut self, logits: &[f32], target: f64) {
        for cutoff in [1e-3, 1e-6, 0.0] {
            self.candidates.clear();
            let mut mass = 0.0;
            let blocks = self.weights.chunks(SKIP).zip(logits.chunks(SKIP));
            for (block, (weights, logits)) in blocks.enumerate() {
                if !weights.iter().fold(false, |any, &weight| any | (weight >= cutoff)) {
                    continue;
                }
                for (id, (&weight, &logit)) in (block * SKIP..).zip(weights.iter().zip(logits)) {
                    if weight >= cutoff && weight > 0.0 {
                        mass += f64::from(weight);
                        self.candidates.push(Candidate { logit, weight, id: id as u32 });
                    }
                }
            }
            if mass >= target {
                return;
            }
        }
    }
}

/// Values that are looked at together where few of them are wanted.
const SKIP: usize = 64;

/// The place of the first value that equals `wanted`.
fn first_equal(values: &[f32], wanted: f32) -> Option<u32> {
    let hit = |values: &&[f32]| values.iter().fold(false, |any, &value| any | (value == wanted));
    let (block, values) = values.chunks(SKIP).enumerate().find(|(_, values)| hit(values))?;
    values.iter().position(|&value| value == wanted).map(|place| (block * SKIP + place) as u32)
}

/// Moves the smallest set of best candidates whose weights reach `target` to the front; returns its size.
fn nucleus(candidates: &mut [Candidate], target: f64) -> usize {
    let (mut low, mut high, mut before) = (0, candidates.len(), 0.0);
    while high - low > 32 {
        let middle = low + (high - low) / 2;
        candidates[low..high].select_nth_unstable_by(middle - low, rank);
        let left: f64 = candidates[low..middle].iter().map(|candidate| f64::from(candidate.weight)).sum();
        if before + left >= target {
            high = middle;
        } else {
            before += left;
            low = middle;
        }
    }
    candidates[low..high].sort_unstable_by(rank);
    for (place, candidate) in candidates[low..high].iter().enumerate() {
        before += f64::from(candidate.weight);
        if before >= target {
            return low + place + 1;
        }
    }
    high
}

/// The best candidate weighs 1, so that min-p is a bound on the weight itself.
fn draw(candidates: &[Candidate], min_p: f32, uniform: f64) -> Option<u32> {
    let kept = || candidates.iter().filter(|candidate| candidate.weight >= min_p);
    let total: f64 = kept().map(|candidate| f64::from(candidate.weight)).sum();
    let mut left = uniform * total;
    let mut last = None;
    for candidate in kept() {
        last = Some(candidate.id);
        left -= f64::from(candidate.weight);
        if left < 0.0 {
            break;
        }
    }
    last
}

/// The token at which the running sum of the weights exceeds `left`.
fn draw_from_all(weights: &[f32], sums: &[f32], mut left: f64) -> Option<u32> {
    let mut chosen = None;
    for (block, &sum) in sums.iter().enumerate().filter(|(_, sum)| **sum > 0.0) {
        chosen = Some(block);
        if left < f64::from(sum) {
            break;
        }
        left -= f64::from(sum);
    }
    let start = chosen? * WEIGHT_BLOCK;
    let mut last = None;
    for (id, &weight) in (start..).zip(weights[start..].iter().take(WEIGHT_BLOCK)) {
        if weight > 0.0 {
            last = Some(id as u32);
            left -= f64::from(weight);
            if left < 0.0 {
                break;
            }
        }
    }
    last
}

/// A forbidden token weighs nothing, any other at least a little.
fn weight(logit: f32, max: f32, scale: f32) -> f32 {
    if logit == f32::NEG_INFINITY { 0.0 } else { ((logit - max) * scale).exp().max(1e-38) }
}

/// A number in [0, 1) that depends on its arguments only.
fn uniform(seed: u64, choice: u32, step: usize) -> f64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let stream = mix(seed ^ mix(u64::from(choice) + 1));
    let bits = mix(stream.wrapping_add((step as u64 + 1).wrapping_mul(GOLDEN)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// The finalizer of SplitMix64.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: SamplerSettings =
        SamplerSettings { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 1 };

    /// The distribution by the book: sort everything, then cut.
    fn distribution(logits: &[f32], settings: &SamplerSettings) -> Vec<f64> {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        let max = logits[order[0]];
        let weight = |id: usize| f64::from((logits[id] - max) / settings.temperature).exp();
        if settings.top_k > 0 {
            order.truncate(settings.top_k);
        }
        let total: f64 = order.iter().map(|&id| weight(id)).sum();
        let mut mass = 0.0;
        let mut kept = Vec::new();
        for id in order {
            kept.push(id);
            mass += weight(id);
            if settings.top_p < 1.0 && mass >= f64::from(settings.top_p) * total {
                break;
            }
        }
        kept.retain(|&id| weight(id) >= f64::from(settings.min_p));
        let total: f64 = kept.iter().map(|&id| weight(id)).sum();
        let mut distribution = vec![0.0; logits.len()];
        kept.iter().for_each(|&id| distribution[id] = weight(id) / total);
        distribution
    }

    #[test]
    fn greedy_takes_the_lowest_of_equals() {
        let greedy = SamplerSettings { temperature: 0.0, ..PLAIN };
        assert_eq!(Sampler::default().sample(&[1.0, 3.0, 3.0, 2.0], &greedy, 0, 0), Ok(1));
        let one = SamplerSettings { top_k: 1, ..PLAIN };
        assert_eq!(Sampler::default().sample(&[1.0, 3.0, 3.0, 2.0], &one, 0, 0), Ok(1));
    }

    #[test]
    fn broken_rows_are_noticed_wherever_they_break() {
        for length in [1, 16, 40] {
            for place in 0..length {
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut logits = vec![0.5; length];
                    logits[place] = bad;
                    assert_eq!(Sampler::default().sample(&logits, &PLAIN, 0, 0), Err(NoToken::NotFinite));
                    assert_eq!(Sampler::default().logprob(&logits, 0, 1), None);
                }
            }
        }
    }

    #[test]
    fn forbidden_tokens_never_come_up() {
        let logits: Vec<f32> = (0..100).map(|id| ((id * 37 % 100) as f32) / 9.0).collect();
        let allowed = [3u32, 40, 77];
        let only = |row: &mut [f32]| {
            for (id, logit) in row.iter_mut().enumerate() {
                if !allowed.contains(&(id as u32)) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        };
        let cases = [
            PLAIN,
            SamplerSettings { temperature: 0.0, ..PLAIN },
            SamplerSettings { temperature: 1e-42, ..PLAIN },
            SamplerSettings { temperature: 50.0, ..PLAIN },
            SamplerSettings { top_k: 50, ..PLAIN },
            SamplerSettings { top_p: 0.999_99, ..PLAIN },
            SamplerSettings { top_k: 50, top_p: 0.9, min_p: 0.01, ..PLAIN },
        ];
        let mut sampler = Sampler::default();
        for settings in cases {
            for step in 0..500 {
                let token = sampler.sample_changed(&logits, &settings, 0, step, only).unwrap();
                assert!(allowed.contains(&token), "{settings:?}: token {token}");
            }
            let nothing = |row: &mut [f32]| row.fill(f32::NEG_INFINITY);
            assert_eq!(sampler.sample_changed(&logits, &settings, 0, 0, nothing), Err(NoToken::Forbidden));
            assert_eq!(
                sampler.sample_changed(&logits, &settings, 0, 7, |_| ()),
                sampler.sample(&logits, &settings, 0, 7)
            );
        }
    }

    #[test]
    fn log_probabilities_are_those_of_the_raw_logits() {
        let logits: Vec<f32> = (0..100).map(|id| ((id * 37 % 100) as f32) / 9.0).collect();
        let total: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
        let found = Sampler::default().logprob(&logits, 5, 20).unwrap();
        assert!((f64::from(found.logprob) - (f64::from(logits[5]) - total.ln())).abs() < 1e-5);
        assert_eq!(found.top.len(), 20);
        assert!(found.top.is_sorted_by(|a, b| a.1 >= b.1));
        assert_eq!(logits[found.top[0].0 as usize], 11.0);
    }

    #[test]
    fn draws_follow_the_distribution() {
        let logits = [1.0, 0.0, 2.0, 1.5, -1.0, 0.5, 2.0, -3.0];
        let cases = [
            PLAIN,
            SamplerSettings { temperature: 0.5, top_p: 0.9, ..PLAIN },
            SamplerSettings { top_k: 4, ..PLAIN },
            SamplerSettings { top_k: 5, top_p: 0.8, ..PLAIN },
            SamplerSettings { min_p: 0.3, ..PLAIN },
            SamplerSettings { top_p: 0.95, min_p: 0.3, temperature: 1.5, ..PLAIN },
        ];
        for settings in cases {
            let expected = distribution(&logits, &settings);
            let mut counts = [0u32; 8];
            let mut sampler = Sampler::default();
            for step in 0..20_000 {
                counts[sampler.sample(&logits, &settings, 0, step).unwrap() as usize] += 1;
            }
            for (id, count) in counts.iter().enumerate() {
                let share = f64::from(*count) / 20_000.0;
                assert!(
                    (share - expected[id]).abs() < 0.015,
                    "{settings:?}: token {id}: {share} {expected:?}"
                );
                assert_eq!(expected[id] == 0.0, *count == 0, "{settings:?}: token {id}");
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_outside_the_kept_set_is_drawn(
            logits in prop::collection::vec(-8.0f32..8.0, 1..400),
            top_k in 0usize..60, top_p in 0.01f32..1.0, min_p in 0.0f32..0.5,
            temperature in 0.2f32..3.0, seed in any::<u64>(), step in 0usize..1000,
        ) {
            let settings = SamplerSettings { temperature, top_k, top_p, min_p, seed };
            let expected = distribution(&logits, &settings);
            let mut sampler = Sampler::default();
            let token = sampler.sample(&logits, &settings, 0, step).unwrap() as usize;
            // Rounding may move the border of the set by one token.
            let border = distribution(&logits, &SamplerSettings { top_p: (top_p + 1e-5).min(1.0), min_p: min_p * 0.9999, ..settings });
            prop_assert!(expected[token] > 0.0 || border[token] > 0.0);
            prop_assert_eq!(Ok(token as u32), sampler.sample(&logits, &settings, 0, step));
        }

        #[test]
        fn the_best_are_found_like_by_sorting(
            logits in prop::collection::vec((-20i8..20).prop_map(f32::from), 1..500), k in 1usize..100,
        ) {
            let mut order: Vec<u32> = (0..logits.len() as u32).collect();
            order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
            order.truncate(k);
            let mut sampler = Sampler::default();
            sampler.best(&logits, k);
            sampler.candidates.sort_unstable_by(rank);
            let found: Vec<u32> = sampler.candidates.iter().map(|candidate| candidate.id).collect();
            prop_assert_eq!(found, order);
        }
    }
}
