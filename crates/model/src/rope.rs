//! Rotary position embedding: frequencies and their scaling for long contexts.

use std::f32::consts::PI;

use byzerllm_kernels::RopeKind;

/// Rotary embedding of one layer (arXiv:2104.09864).
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Which components form a pair.
    pub kind: RopeKind,
    /// The first so many components of a head are rotated; at most the head's width (partial rope).
    pub rotary_dim: usize,
    /// Base of the frequencies.
    pub base: f32,
    /// How frequencies are changed for contexts longer than the model was trained on.
    pub scaling: RopeScaling,
    /// The head's two halves are rotated by two positions (ChatGLM-6B); `rotary_dim` is then that of one half.
    pub two_dimensional: bool,
}

/// Scaling of the frequencies.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// As trained.
    None,
    /// Positions divided by a factor (arXiv:2306.15595).
    Linear {
        /// The factor.
        factor: f32,
    },
    /// Llama 3.1: long wavelengths are divided by the factor, short ones kept, those between interpolated.
    Llama3 {
        /// The factor.
        factor: f32,
        /// Wavelengths above `original / low` are divided.
        low_frequency_factor: f32,
        /// Wavelengths below `original / high` are kept.
        high_frequency_factor: f32,
        /// The context length of the original training.
        original_context: f32,
    },
    /// YaRN (arXiv:2309.00071).
    Yarn {
        /// The factor.
        factor: f32,
        /// Full rotations above which a frequency is kept.
        beta_fast: f32,
        /// Full rotations below which a frequency is divided.
        beta_slow: f32,
        /// The context length of the original training.
        original_context: f32,
        /// Factor on cosine and sine; `None` derives it from `factor`.
        attention_factor: Option<f32>,
    },
    /// One divisor per frequency (LongRoPE, and the `rope_freqs` tensor of GGUF files).
    Divisors {
        /// `rotary_dim / 2` divisors.
        divisors: Vec<f32>,
        /// Factor on cosine and sine.
        attention_factor: f32,
    },
}

impl RopeConfig {
    /// The angle per position of each pair `(rotary_dim / 2)` and the factor on cosine and sine.
    #[must_use]
    pub fn frequencies(&self) -> (Vec<f32>, f32) {
        let dim = self.rotary_dim as f32;
        let plain: Vec<f32> =
            (0..self.rotary_dim / 2).map(|i| self.base.powf(-((2 * i) as f32) / dim)).collect();
        match &self.scaling {
            RopeScaling::None => (plain, 1.0),
            RopeScaling::Linear { factor } => (plain.iter().map(|f| f / factor).collect(), 1.0),
            RopeScaling::Llama3 {
                factor,
                low_frequency_factor: low,
                high_frequency_factor: high,
                original_context,
            } => {
                let scaled = plain.iter().map(|&frequency| {
                    let wavelength = 2.0 * PI / frequency;
                    if wavelength < original_context / high {
                        frequency
                    } else if wavelength > original_context / low {
                        frequency / factor
                    } else {
                        let smooth = (original_context / wavelength - low) / (high - low);
                        (1.0 - smooth) * frequency / factor + smooth * frequency
                    }
                });
                (scaled.collect(), 1.0)
            }
            RopeScaling::Yarn { factor, beta_fast, beta_slow, original_context, attention_factor } => {
                // The pair index at which a frequency makes `rotations` turns over the original context.
                let index = |rotations: f32| {
                    dim * (original_context / (rotations * 2.0 * PI)).ln() / (2.0 * self.base.ln())
                };
                let low = index(*beta_fast).floor().max(0.0);
                let high = index(*beta_slow).ceil().min(dim - 1.0);
                let span = if (high - low).abs() < f32::EPSILON { 0.001 } else { high - low };
                let scaled = plain.iter().enumerate().map(|(i, &frequency)| {
                    let keep = 1.0 - ((i as f32 - low) / span).clamp(0.0, 1.0);
                    frequency / factor * (1.0 - keep) + frequency * keep
                });
                let derived = if *factor <= 1.0 { 1.0 } else { 0.1 * factor.ln() + 1.0 };
                (scaled.collect(), attention_factor.unwrap_or(derived))
            }
            RopeScaling::Divisors { divisors, attention_factor } => {
                (plain.iter().zip(divisors).map(|(f, d)| f / d).collect(), *attention_factor)
            }
        }
    }
}
