//! From a row of logits to a token.
//!
//! The order is that of most servers: temperature, then top-k, then top-p over what top-k left, then min-p. The random
//! number of a step depends only on seed, choice and step, never on what else runs. The vocabulary is never sorted.

use std::cmp::Ordering;

use byzerllm_core::Sampling;

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
    weights: Vec<f32>,
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
        let max = finite_max(logits).ok_or(NoToken::NotFinite)?;
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
        finite_max(logits).ok_or(NoToken::NotFinite)?;
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
            return logits.iter().position(|&logit| logit == max).map(|id| id as u32);
        }
        let uniform = uniform(settings.seed, choice, step);
        if settings.top_k > 0 && settings.top_k < logits.len() {
            self.best(logits, settings.top_k);
            for candidate in &mut self.candidates {
                candidate.weight = weight(candidate.logit, max, scale);
            }
        } else {
            self.weigh(logits, max, scale);
            if settings.top_p >= 1.0 {
                return draw_from_all(&self.weights, settings.min_p, uniform);
            }
            self.collect_head(logits, settings.top_p);
        }
        let total: f64 = if settings.top_k > 0 && settings.top_k < logits.len() {
            self.candidates.iter().map(|candidate| f64::from(candidate.weight)).sum()
        } else {
            sum(&self.weights)
        };
        let mut kept = self.candidates.len();
        if settings.top_p < 1.0 {
            kept = nucleus(&mut self.candidates, f64::from(settings.top_p) * total);
        }
        draw(&self.candidates[..kept], settings.min_p, uniform)
    }

    /// The log probability of a token before temperature and truncation, with the `top` most likely ones.
    pub(crate) fn logprob(&mut self, logits: &[f32], id: u32, top: u32) -> Option<RawLogprob> {
        let max = finite_max(logits)?;
        self.weigh(logits, max, 1.0);
        let log_total = f64::from(max) + sum(&self.weights).ln();
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

    fn weigh(&mut self, logits: &[f32], max: f32, scale: f32) {
        self.weights.clear();
        self.weights.extend(logits.iter().map(|&logit| weight(logit, max, scale)));
    }

    /// Collects the `k` best logits, in no order.
    fn best(&mut self, logits: &[f32], k: usize) {
        let candidates = &mut self.candidates;
        candidates.clear();
        let room = 2 * k.min(logits.len()) + 64;
        let mut threshold = f32::NEG_INFINITY;
        for (id, &logit) in logits.iter().enumerate() {
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
        if candidates.len() > k {
            candidates.select_nth_unstable_by(k - 1, rank);
            candidates.truncate(k);
        }
    }

    /// Collects likely tokens until they surely hold the nucleus.
    fn collect_head(&mut self, logits: &[f32], top_p: f32) {
        let target = f64::from(top_p) * sum(&self.weights);
        for cutoff in [1e-3, 1e-6, 0.0] {
            self.candidates.clear();
            let mut mass = 0.0;
            for (id, (&weight, &logit)) in self.weights.iter().zip(logits).enumerate() {
                if weight >= cutoff && weight > 0.0 {
                    mass += f64::from(weight);
                    self.candidates.push(Candidate { logit, weight, id: id as u32 });
                }
            }
            if mass >= target {
                return;
            }
        }
    }
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

fn draw_from_all(weights: &[f32], min_p: f32, uniform: f64) -> Option<u32> {
    let total: f64 = if min_p > 0.0 {
        weights.iter().filter(|weight| **weight >= min_p).map(|&weight| f64::from(weight)).sum()
    } else {
        sum(weights)
    };
    let mut left = uniform * total;
    let mut last = None;
    for (id, &weight) in weights.iter().enumerate() {
        if weight >= min_p && weight > 0.0 {
            last = Some(id as u32);
            left -= f64::from(weight);
            if left < 0.0 {
                break;
            }
        }
    }
    last
}

const LANES: usize = 16;

/// The highest logit; `None` when one is not finite or there are none.
fn finite_max(logits: &[f32]) -> Option<f32> {
    const EXPONENT: u32 = 0x7f80_0000;
    let mut max = [f32::NEG_INFINITY; LANES];
    let mut broken = [false; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            max[lane] = if chunk[lane] > max[lane] { chunk[lane] } else { max[lane] };
            broken[lane] |= chunk[lane].to_bits() & EXPONENT == EXPONENT;
        }
    }
    let mut highest = max.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut any_broken = broken.contains(&true);
    for &logit in rest {
        highest = highest.max(logit);
        any_broken |= !logit.is_finite();
    }
    (!any_broken && highest.is_finite()).then_some(highest)
}

/// A sum whose order depends on the length only.
fn sum(values: &[f32]) -> f64 {
    let mut sums = [0f64; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            sums[lane] += f64::from(chunk[lane]);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|&value| f64::from(value)).sum::<f64>()
}

/// A forbidden token weighs nothing, any other at least a little.
fn weight(logit: f32, max: f32, scale: f32) -> f32 {
    let weight = exp((logit - max) * scale);
    if logit == f32::NEG_INFINITY { 0.0 } else { weight }
}

/// The exponential of a number that is not positive, in straight-line code that the compiler vectorizes. The relative
/// error is below 3e-7. Below -87 the result stays at about 1e-38.
fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let x = if x < -87.0 { -87.0 } else { x };
    // Adding 1.5 * 2^23 rounds to the nearest integer, which then stands in the low bits.
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let power = shifted - ROUND;
    let rest = x - power * 0.693_359_4 + power * 2.121_944_4e-4;
    let mut series = 1.987_569_2e-4;
    for factor in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.500_000_1] {
        series = series * rest + factor;
    }
    let mantissa = series * rest * rest + rest + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    mantissa * f32::from_bits(exponent)
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
    fn the_exponential_is_accurate() {
        for step in 0..8_700 {
            let x = -(step as f32) / 100.0;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 3e-7, "exp({x}) is off by {error}");
        }
        assert!(exp(-1e30) < 1e-37);
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
