//! How likely a row of logits makes the token that really came, and how far it lies from another row.

/// A row in exact mode, against which the rows of other modes are held.
pub(super) struct Reference<'a> {
    row: &'a [f32],
    /// `exp(logit - largest)`.
    weights: Vec<f32>,
    total: f64,
    largest: f32,
    best: usize,
}

/// What a row is worth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Likeness {
    /// Negative logarithm of the probability of the token that came.
    pub(super) loss: f64,
    /// Kullback-Leibler divergence from the reference, in nats.
    pub(super) divergence: f64,
    /// Whether both rows have their largest logit at the same place.
    pub(super) same_best: bool,
}

impl<'a> Reference<'a> {
    pub(super) fn new(row: &'a [f32]) -> Self {
        let (best, largest) = largest(row);
        let weights: Vec<f32> = row.iter().map(|&logit| (logit - largest).exp()).collect();
        let total = weights.iter().map(|&weight| f64::from(weight)).sum();
        Self { row, weights, total, largest, best }
    }

    /// Of the reference itself.
    pub(super) fn own(&self, target: usize) -> Likeness {
        let loss = self.log_total() - f64::from(self.row[target]);
        Likeness { loss, divergence: 0.0, same_best: true }
    }

    /// Of another row for the same place.
    pub(super) fn of(&self, row: &[f32], target: usize) -> Likeness {
        let (best, largest) = largest(row);
        let (mut total, mut difference) = (0.0, 0.0);
        for ((&own, &other), &weight) in self.row.iter().zip(row).zip(&self.weights) {
            total += f64::from((other - largest).exp());
            difference += f64::from(weight) * (f64::from(own) - f64::from(other));
        }
        let log_total = f64::from(largest) + total.ln();
        Likeness {
            loss: log_total - f64::from(row[target]),
            // Never negative, but for rounding.
            divergence: (difference / self.total - self.log_total() + log_total).max(0.0),
            same_best: best == self.best,
        }
    }

    fn log_total(&self) -> f64 {
        f64::from(self.largest) + self.total.ln()
    }
}

/// The first place of the largest value.
fn largest(row: &[f32]) -> (usize, f32) {
    row.iter().copied().enumerate().fold(
        (0, f32::NEG_INFINITY),
        |best, here| {
            if here.1 > best.1 { here } else { best }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(left: f64, right: f64) {
        assert!((left - right).abs() < 1e-6, "{left} {right}");
    }

    #[test]
    fn a_row_is_like_itself() {
        let row = [1.0, 3.0, -2.0, 0.5];
        let reference = Reference::new(&row);
        let probability = 3f64.exp() / row.iter().map(|&logit| f64::from(logit).exp()).sum::<f64>();
        close(reference.own(1).loss, -probability.ln());
        let itself = reference.of(&row, 1);
        close(itself.loss, -probability.ln());
        close(itself.divergence, 0.0);
        assert!(itself.same_best);
        // Logits mean the same when all are raised alike.
        let raised = reference.of(&row.map(|logit| logit + 70.0), 1);
        close(raised.loss, -probability.ln());
        close(raised.divergence, 0.0);
    }

    #[test]
    fn divergence_is_the_expected_logarithm_of_the_ratio() {
        let (own, other) = ([2f64.ln() as f32, 0.0], [0.0, 0.0]);
        let reference = Reference::new(&own);
        let likeness = reference.of(&other, 0);
        close(likeness.loss, 2f64.ln());
        close(likeness.divergence, 2.0 / 3.0 * (4f64 / 3.0).ln() + 1.0 / 3.0 * (2f64 / 3.0).ln());
        assert!(likeness.same_best, "the first of equals counts");
        assert!(!reference.of(&[0.0, 1.0], 0).same_best);
    }
}
