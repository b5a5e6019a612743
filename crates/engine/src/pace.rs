//! How much of a prompt goes into one step.
//!
//! A step of many prompt tokens takes a slow machine seconds, in which no running answer gets a token and no cancel is
//! heard. So prompts are cut by time: finely while answers run, coarsely when none does. Rows do not depend on how a
//! prompt was cut, so this changes no answer.

use std::time::Duration;

/// How long a step may take that keeps running answers waiting.
const BESIDE_ANSWERS: Duration = Duration::from_millis(150);

/// How long any step may take.
const ALONE: Duration = Duration::from_secs(1);

/// Cut finer than this, a prompt wastes the machine.
const LEAST: usize = 32;

/// Before anything was measured.
const FIRST: usize = 128;

/// Steps of fewer tokens say nothing about the speed of prompts.
const TELLING: usize = 16;

/// Learns how fast the network computes prompts.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    tokens_per_second: Option<f64>,
}

impl Pace {
    /// Takes note of a step.
    pub(crate) fn observe(&mut self, tokens: usize, time: Duration) {
        if tokens < TELLING {
            return;
        }
        let speed = tokens as f64 / time.as_secs_f64().max(1e-6);
        let known = self.tokens_per_second.unwrap_or(speed);
        self.tokens_per_second = Some(0.7 * known + 0.3 * speed);
    }

    /// Prompt tokens for the next step, without and with running answers.
    pub(crate) fn budgets(&self) -> (usize, usize) {
        let Some(speed) = self.tokens_per_second else { return (FIRST, FIRST) };
        let tokens = |time: Duration| ((speed * time.as_secs_f64()) as usize).max(LEAST);
        (tokens(ALONE), tokens(BESIDE_ANSWERS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_networks_get_small_steps() {
        let mut pace = Pace::default();
        assert_eq!(pace.budgets(), (FIRST, FIRST));
        pace.observe(1, Duration::from_secs(1));
        assert_eq!(pace.budgets(), (FIRST, FIRST));
        pace.observe(100, Duration::from_millis(100));
        assert_eq!(pace.budgets(), (1000, 150));
        (0..50).for_each(|_| pace.observe(100, Duration::from_secs(10)));
        assert_eq!(pace.budgets(), (LEAST, LEAST));
        (0..50).for_each(|_| pace.observe(100, Duration::ZERO));
        assert!(pace.budgets().1 > 1_000_000);
    }
}
