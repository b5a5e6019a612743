//! What a request changes about logits before a token is drawn: penalties, biases, tokens that must not come yet.
//!
//! The order is fixed: repetition penalty, then presence and frequency penalty, then biases, then what is forbidden.
//! Log probabilities are never touched by it: they are those of the model's own logits. Counts are sparse, so that a
//! token costs nothing that grows with the vocabulary.

use std::collections::HashMap;

use byzerllm_core::Sampling;

/// How often a choice has generated each token.
pub(crate) type Counts = HashMap<u32, u32>;

/// The changes that a request asks for, the same for all its choices.
#[derive(Debug, Clone)]
pub(crate) struct Adjustments {
    /// 1 is off.
    repetition: f32,
    presence: f32,
    frequency: f32,
    bias: Vec<(u32, f32)>,
    /// The prompt's distinct tokens, sorted; empty unless the repetition penalty is on.
    prompt: Vec<u32>,
    /// No end token before so many tokens.
    min_tokens: usize,
}

impl Adjustments {
    pub(crate) fn new(sampling: &Sampling, prompt: &[u32]) -> Self {
        let repetition = sampling.repetition_penalty.unwrap_or(1.0);
        let mut distinct = if repetition == 1.0 { Vec::new() } else { prompt.to_vec() };
        distinct.sort_unstable();
        distinct.dedup();
        Self {
            repetition,
            presence: sampling.presence_penalty.unwrap_or(0.0),
            frequency: sampling.frequency_penalty.unwrap_or(0.0),
            bias: sampling.logit_bias.iter().flatten().map(|(&id, &bias)| (id, bias)).collect(),
            prompt: distinct,
            min_tokens: sampling.min_tokens.unwrap_or(0) as usize,
        }
    }

    /// Whether the tokens of a choice must be counted.
    pub(crate) fn counts(&self) -> bool {
        self.repetition != 1.0 || self.presence != 0.0 || self.frequency != 0.0
    }

    /// Whether the logits of this step stay as they are.
    pub(crate) fn is_off(&self, step: usize) -> bool {
        !self.counts() && self.bias.is_empty() && !self.too_early(step)
    }

    /// Whether it is too early for an answer to end after `step` tokens.
    pub(crate) fn too_early(&self, step: usize) -> bool {
        step < self.min_tokens
    }

    /// Changes the logits of a choice that has generated `step` tokens.
    pub(crate) fn apply(&self, logits: &mut [f32], counts: &Counts, step: usize, end_tokens: &[u32]) {
        let mut change = |id: u32, new: &dyn Fn(f32) -> f32| {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = new(*logit).clamp(f32::MIN, f32::MAX);
            }
        };
        let repeated =
            |logit: f32| if logit > 0.0 { logit / self.repetition } else { logit * self.repetition };
        for &id in &self.prompt {
            change(id, &repeated);
        }
        if self.counts() {
            for (&id, &count) in counts {
                if self.repetition != 1.0 && self.prompt.binary_search(&id).is_err() {
                    change(id, &repeated);
                }
                change(id, &|logit| logit - self.presence - self.frequency * count as f32);
            }
        }
        for &(id, bias) in &self.bias {
            change(id, &|logit| logit + bias);
        }
        if self.too_early(step) {
            forbid(logits, end_tokens);
        }
    }
}

/// Makes tokens impossible.
pub(crate) fn forbid(logits: &mut [f32], ids: &[u32]) {
    for &id in ids {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The documented formulas, token by token.
    fn naive(sampling: &Sampling, logits: &[f32], prompt: &[u32], generated: &[u32]) -> Vec<f32> {
        let mut changed = logits.to_vec();
        for (id, logit) in changed.iter_mut().enumerate() {
            let id = id as u32;
            let count = generated.iter().filter(|&&other| other == id).count();
            if prompt.contains(&id) || count > 0 {
                let penalty = sampling.repetition_penalty.unwrap_or(1.0);
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
            if count > 0 {
                *logit = *logit
                    - sampling.presence_penalty.unwrap_or(0.0)
                    - sampling.frequency_penalty.unwrap_or(0.0) * count as f32;
            }
            *logit += sampling.logit_bias.as_ref().and_then(|bias| bias.get(&id)).unwrap_or(&0.0);
            if generated.len() < sampling.min_tokens.unwrap_or(0) as usize && id == 3 {
                *logit = f32::NEG_INFINITY;
            }
        }
        changed
    }

    proptest! {
        #[test]
        fn logits_change_by_the_book(
            logits in prop::collection::vec(-20.0f32..20.0, 12),
            prompt in prop::collection::vec(0u32..12, 1..20),
            generated in prop::collection::vec(0u32..12, 0..20),
            repetition in prop::option::of(0.1f32..5.0),
            presence in prop::option::of(-2.0f32..2.0),
            frequency in prop::option::of(-2.0f32..2.0),
            bias in prop::collection::btree_map(0u32..12, -100.0f32..100.0, 0..4),
            min_tokens in prop::option::of(0u32..30),
        ) {
            let sampling = Sampling {
                repetition_penalty: repetition, presence_penalty: presence, frequency_penalty: frequency,
                logit_bias: Some(bias), min_tokens, ..Sampling::default()
            };
            let adjustments = Adjustments::new(&sampling, &prompt);
            let mut counts = Counts::new();
            for &id in &generated {
                *counts.entry(id).or_default() += 1;
            }
            let expected = naive(&sampling, &logits, &prompt, &generated);
            let mut changed = logits.clone();
            adjustments.apply(&mut changed, &counts, generated.len(), &[3]);
            prop_assert_eq!(&changed, &expected);
            if adjustments.is_off(generated.len()) {
                prop_assert_eq!(&changed, &logits);
            }
        }
    }

    #[test]
    fn changed_logits_stay_finite() {
        let bias = BTreeMap::from([(0, 100.0)]);
        let sampling = Sampling {
            repetition_penalty: Some(f32::MIN_POSITIVE),
            logit_bias: Some(bias),
            ..Sampling::default()
        };
        let mut logits = [1e30, -1e30];
        Adjustments::new(&sampling, &[0, 1]).apply(&mut logits, &Counts::new(), 0, &[]);
        assert_eq!(logits[0], f32::MAX);
        assert!(logits[1].is_finite());
    }
}
