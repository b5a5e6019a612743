//! How close each measured row comes to what the machine could do at best.
//!
//! A row needs so many bytes and operations per token; the machine reads and computes so many per second. The longer
//! of the two times is the least that the row can take, and its share of the time that was measured is the percentage.

use byzerllm_kernels::Ceilings;
use byzerllm_model::{StepWork, WorkModel};
use serde::Serialize;

use super::report::Measured;
use crate::arguments::BenchArguments;
use crate::output::table;

/// The ceilings and every row below them.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Roofline {
    ceilings: Ceilings,
    rows: Vec<Row>,
}

/// What limits a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Limit {
    Memory,
    Arithmetic,
}

/// One measured row.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    name: String,
    tokens_per_second: f64,
    /// Weights, cache and embeddings, each read once per step.
    bytes_per_token: f64,
    int8_operations_per_token: f64,
    f32_operations_per_token: f64,
    /// Of the time that was measured, what the bytes and the operations would take at their ceilings.
    memory_percent: f64,
    arithmetic_percent: f64,
    limit: Limit,
    /// The larger one.
    percent: f64,
}

impl Row {
    /// The share of its ceiling that the row reached, in words.
    pub(super) fn share(&self) -> String {
        let limit = if self.limit == Limit::Memory { "memory" } else { "arithmetic" };
        format!("{:.0} % of {limit}", self.percent)
    }

    pub(super) fn new(
        name: String,
        work: &StepWork,
        tokens: u32,
        tokens_per_second: f64,
        ceilings: &Ceilings,
    ) -> Self {
        let tokens = f64::from(tokens.max(1));
        let (int8, f32) = (work.int8_operations as f64 / tokens, work.f32_operations as f64 / tokens);
        let bytes = work.bytes() as f64 / tokens;
        let memory = bytes / ceilings.read_bytes_per_second;
        // Both kinds of products keep the same units busy.
        let arithmetic =
            int8 / ceilings.int8_operations_per_second + f32 / ceilings.f32_operations_per_second;
        let percent = |seconds: f64| 100.0 * seconds * tokens_per_second;
        Self {
            name,
            tokens_per_second,
            bytes_per_token: bytes,
            int8_operations_per_token: int8,
            f32_operations_per_token: f32,
            memory_percent: percent(memory),
            arithmetic_percent: percent(arithmetic),
            limit: if memory >= arithmetic { Limit::Memory } else { Limit::Arithmetic },
            percent: percent(memory.max(arithmetic)),
        }
    }
}

impl Roofline {
    /// Holds what was measured against the ceilings.
    pub(super) fn new(
        arguments: &BenchArguments,
        measured: &Measured,
        model: &WorkModel,
        ceilings: Ceilings,
    ) -> Self {
        let prompt = measured.prompt_tokens;
        let work = model.step(&[(0, prompt as usize)], 1);
        let speed = measured.prefill_tokens_per_second;
        let mut rows = vec![Row::new("prefill".to_owned(), &work, prompt, speed, &ceilings)];
        for decode in &measured.decode {
            // In the middle of the answers.
            let past = arguments.decode_prompt_tokens + arguments.decode_tokens / 2;
            let streams = decode.streams();
            let work = model.step(&vec![(past as usize, 1); streams as usize], streams as usize);
            rows.push(Row::new(decode.name(), &work, streams, decode.tokens_per_second(), &ceilings));
        }
        Self { ceilings, rows }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let heading = ["ROOFLINE", "PER TOKEN", "INT8", "F32", "MEMORY", "ARITHMETIC", "LIMIT"];
        let giga = |value: f64| format!("{:.1} G/s", value / 1e9);
        let mega = |value: f64| format!("{:.2} Mop", value / 1e6);
        let percent = |value: f64| format!("{value:.1} %");
        let ceilings = vec![
            "ceilings".to_owned(),
            format!("{:.1} GB/s", self.ceilings.read_bytes_per_second / 1e9),
            giga(self.ceilings.int8_operations_per_second),
            giga(self.ceilings.f32_operations_per_second),
        ];
        let rows = self.rows.iter().map(|row| {
            vec![
                row.name.clone(),
                format!("{:.3} MB", row.bytes_per_token / 1e6),
                mega(row.int8_operations_per_token),
                mega(row.f32_operations_per_token),
                percent(row.memory_percent),
                percent(row.arithmetic_percent),
                match row.limit {
                    Limit::Memory => "memory".to_owned(),
                    Limit::Arithmetic => "arithmetic".to_owned(),
                },
            ]
        });
        table(&[heading.map(str::to_owned).to_vec(), ceilings].into_iter().chain(rows).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CEILINGS: Ceilings = Ceilings {
        int8_operations_per_second: 1000.0,
        f32_operations_per_second: 100.0,
        read_bytes_per_second: 50.0,
    };

    #[test]
    fn the_longer_time_is_the_limit() {
        // Two tokens that read 20 bytes, and compute for 0.2 and 0.1 seconds.
        let work = StepWork { weight_bytes: 15, cache_bytes: 5, int8_operations: 200, f32_operations: 10 };
        let row = Row::new("a".to_owned(), &work, 2, 4.0, &CEILINGS);
        let close =
            |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        close(row.bytes_per_token, 10.0);
        close(row.memory_percent, 80.0);
        close(row.arithmetic_percent, 60.0);
        assert_eq!((row.limit, row.percent), (Limit::Memory, row.memory_percent));
        let busy = StepWork { int8_operations: 500, ..work };
        let row = Row::new("b".to_owned(), &busy, 2, 1.0, &CEILINGS);
        close(row.percent, 30.0);
        assert_eq!(row.limit, Limit::Arithmetic);
    }
}
