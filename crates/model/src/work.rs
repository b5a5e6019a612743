//! What a step must at least move and compute, counted from the packed weights and the shapes.
//!
//! Counted are products of weights, attention's two products, the bytes of weights, of the cache and of looked-up
//! embeddings, each once per step. A multiply-add is two operations. Norms, rotations, nonlinearities, scales of
//! groups and what stays in a cache between two kernels are not counted: they are what an engine adds.

use byzerllm_kernels::Matrix;
use serde::Serialize;

/// The least that a step takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct StepWork {
    /// Packed weights and rows of the embedding table.
    pub weight_bytes: u64,
    /// Keys and values: of the visible tokens before the step, and those written.
    pub cache_bytes: u64,
    /// Multiplications and additions of bytes.
    pub int8_operations: u64,
    /// Multiplications and additions of floats.
    pub f32_operations: u64,
}

impl StepWork {
    /// All bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.weight_bytes + self.cache_bytes
    }
}

/// How much work the steps of a network are.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkModel {
    pub(crate) layers: Vec<LayerWork>,
    pub(crate) head: ProductWork,
    /// Bytes of one row of the embedding table.
    pub(crate) embedding_bytes: u64,
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LayerWork {
    /// The matrices that every token meets.
    pub(crate) dense: ProductWork,
    /// The matrices of one expert.
    pub(crate) experts: Option<ExpertWork>,
    pub(crate) attention: AttentionWork,
}

/// Experts that are chosen token by token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ExpertWork {
    pub(crate) each: ProductWork,
    pub(crate) count: usize,
    pub(crate) per_token: usize,
}

impl ExpertWork {
    /// Experts whose weights a step of so many tokens reads when all are chosen equally often.
    fn read(&self, tokens: u64) -> f64 {
        let count = self.count as f64;
        let missed = (1.0 - self.per_token.min(self.count) as f64 / count).powf(tokens as f64);
        count * (1.0 - missed)
    }
}

/// Attention of one layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AttentionWork {
    /// Query heads times their width.
    pub(crate) width: u64,
    pub(crate) window: Option<usize>,
    /// Bytes of keys and values per token.
    pub(crate) cache_bytes: u64,
    /// Whether scores are products of bytes.
    pub(crate) integer_scores: bool,
    /// Whether values are weighed by products of bytes.
    pub(crate) integer_values: bool,
}

/// The product of one row with some matrices.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct ProductWork {
    /// Of the packed weights, whatever the number of rows.
    bytes: u64,
    int8_operations: u64,
    f32_operations: u64,
}

impl ProductWork {
    /// One row with all of these matrices.
    pub(crate) fn of<'a>(matrices: impl IntoIterator<Item = &'a Matrix>) -> Self {
        let mut work = Self::default();
        for matrix in matrices {
            work.bytes += matrix.bytes() as u64;
            let operations = 2 * (matrix.rows() * matrix.cols()) as u64;
            match matrix.compute().digits() {
                0 => work.f32_operations += operations,
                digits => work.int8_operations += digits as u64 * operations,
            }
        }
        work
    }
}

impl StepWork {
    fn multiply(&mut self, product: &ProductWork, rows: u64) {
        self.int8_operations += rows * product.int8_operations;
        self.f32_operations += rows * product.f32_operations;
    }

    fn attend(&mut self, attention: &AttentionWork, past: usize, count: usize) {
        let window = attention.window.unwrap_or(usize::MAX);
        let visible: u64 = (past..past + count).map(|place| (place + 1).min(window) as u64).sum();
        let operations = 2 * attention.width * visible;
        for integer in [attention.integer_scores, attention.integer_values] {
            if integer {
                self.int8_operations += operations;
            } else {
                self.f32_operations += operations;
            }
        }
        self.cache_bytes += attention.cache_bytes * (past.min(window.saturating_sub(1)) + count) as u64;
    }
}

impl WorkModel {
    /// A step that computes so many tokens of each sequence (the second number) after those that are in the cache (the first), and the logits of
    /// `rows` of them.
    #[must_use]
    pub fn step(&self, sequences: &[(usize, usize)], rows: usize) -> StepWork {
        let tokens: u64 = sequences.iter().map(|&(_, count)| count as u64).sum();
        let mut work = StepWork { weight_bytes: tokens * self.embedding_bytes, ..StepWork::default() };
        for layer in &self.layers {
            work.weight_bytes += layer.dense.bytes;
            work.multiply(&layer.dense, tokens);
            if let Some(experts) = &layer.experts {
                work.weight_bytes += (experts.each.bytes as f64 * experts.read(tokens)) as u64;
                work.multiply(&experts.each, tokens * experts.per_token as u64);
            }
            for &(past, count) in sequences {
                work.attend(&layer.attention, past, count);
            }
        }
        if rows > 0 {
            work.weight_bytes += self.head.bytes;
            work.multiply(&self.head, rows as u64);
        }
        work
    }
}

/// How much work the texts of an encoder are.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderWork {
    pub(crate) layers: Vec<ProductWork>,
    /// Heads times their width.
    pub(crate) width: u64,
    /// Bytes of one row of the table of words.
    pub(crate) embedding_bytes: u64,
    /// Whether scores are products of bytes; values are weighed with floats.
    pub(crate) integer_scores: bool,
}

impl EncoderWork {
    /// A step with texts of these lengths. What only the first token of a text is needed for is counted for all.
    #[must_use]
    pub fn step(&self, lengths: &[usize]) -> StepWork {
        let tokens: u64 = lengths.iter().map(|&length| length as u64).sum();
        let pairs: u64 = lengths.iter().map(|&length| (length as u64).pow(2)).sum();
        let mut work = StepWork { weight_bytes: tokens * self.embedding_bytes, ..StepWork::default() };
        for layer in &self.layers {
            work.weight_bytes += layer.bytes;
            work.multiply(layer, tokens);
            let scores = 2 * self.width * pairs;
            work.f32_operations += scores;
            if self.integer_scores {
                work.int8_operations += scores;
            } else {
                work.f32_operations += scores;
            }
        }
        work
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(bytes: u64, int8_operations: u64) -> ProductWork {
        ProductWork { bytes, int8_operations, f32_operations: 0 }
    }

    fn model(window: Option<usize>, experts: Option<ExpertWork>) -> WorkModel {
        let (integer_scores, integer_values) = (true, false);
        let attention = AttentionWork { width: 8, window, cache_bytes: 20, integer_scores, integer_values };
        let layer = LayerWork { dense: product(100, 7), experts, attention };
        WorkModel { layers: vec![layer], head: product(1000, 9), embedding_bytes: 3 }
    }

    #[test]
    fn a_window_hides_keys() {
        // Places 4, 5 and 6 see five, six and seven keys, or three each.
        let all = model(None, None).step(&[(4, 3)], 0);
        assert_eq!((all.f32_operations, all.int8_operations), (16 * 18, 16 * 18 + 3 * 7));
        assert_eq!((all.cache_bytes, all.weight_bytes), (20 * 7, 109));
        let some = model(Some(3), None).step(&[(4, 3)], 0);
        assert_eq!((some.f32_operations, some.int8_operations), (16 * 9, 16 * 9 + 3 * 7));
        assert_eq!(some.cache_bytes, 20 * 5);
    }

    #[test]
    fn tokens_of_a_text_see_each_other() {
        let encoder = |integer_scores| {
            let layers = vec![product(100, 7)];
            EncoderWork { layers, width: 8, embedding_bytes: 3, integer_scores }.step(&[2, 3])
        };
        assert_eq!((encoder(false).f32_operations, encoder(false).int8_operations), (4 * 8 * 13, 5 * 7));
        assert_eq!(
            (encoder(true).f32_operations, encoder(true).int8_operations),
            (2 * 8 * 13, 2 * 8 * 13 + 5 * 7)
        );
        assert_eq!(encoder(true).weight_bytes, 100 + 5 * 3);
    }

    #[test]
    fn experts_are_read_when_a_token_chose_them() {
        let experts = ExpertWork { each: product(64, 5), count: 4, per_token: 2 };
        let model = model(None, Some(experts));
        let one = model.step(&[(0, 1)], 1);
        assert_eq!(one.weight_bytes, 3 + 100 + 2 * 64 + 1000);
        assert_eq!(one.int8_operations, 7 + 2 * 5 + 9 + 16);
        // Two tokens leave out a quarter of the experts between them.
        assert_eq!(model.step(&[(0, 1), (0, 1)], 0).weight_bytes, 6 + 100 + 3 * 64);
        assert_eq!(model.step(&[(0, 200)], 0).weight_bytes, 600 + 100 + 4 * 64);
    }
}
