//! What a measurement found, for people and for scripts.

use serde::Serialize;

use super::roofline::Roofline;
use super::stages::{self, StageTable};
use crate::arguments::BenchArguments;
use crate::machine::Machine;
use crate::output::{bytes, table};
use crate::version::VERSION;

/// Decoding with a number of streams at once.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Decode {
    streams: u32,
    /// Of all streams together.
    tokens_per_second: f64,
    tokens_per_second_per_stream: f64,
}

impl Decode {
    pub(crate) fn new(streams: u32, tokens_per_second: f64) -> Self {
        let per_stream = tokens_per_second / f64::from(streams.max(1));
        Self {
            streams,
            tokens_per_second: rounded(tokens_per_second),
            tokens_per_second_per_stream: rounded(per_stream),
        }
    }

    pub(crate) fn streams(&self) -> u32 {
        self.streams
    }

    pub(crate) fn tokens_per_second(&self) -> f64 {
        self.tokens_per_second
    }

    /// Of its row.
    pub(crate) fn name(&self) -> String {
        format!("decode, {} at once", self.streams)
    }
}

/// What was measured, in words.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Facts {
    /// `in process`, or the server's address.
    pub(crate) target: String,
    /// The path or name.
    pub(crate) model: String,
    /// How products were computed, when known: `exact`, `standard` or `fast`.
    pub(crate) compute: Option<String>,
    /// The number formats and instructions that were used, when known.
    pub(crate) kernels: Option<String>,
    /// Compute threads, when known.
    pub(crate) threads: Option<usize>,
}

/// The medians.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measured {
    pub(crate) prompt_tokens: u32,
    pub(crate) prefill_tokens_per_second: f64,
    pub(crate) time_to_first_token_ms: f64,
    pub(crate) decode: Vec<Decode>,
    /// Where the time went, when that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) stages: Vec<StageTable>,
}

/// Everything.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    measured: Measured,
    decode_tokens: u32,
    decode_prompt_tokens: u32,
    repeat: u32,
    /// The most memory this process held; `null` for a server.
    peak_memory_bytes: Option<u64>,
    /// Each row beside what the machine could do; `null` for a server.
    roofline: Option<Roofline>,
    #[serde(flatten)]
    facts: Facts,
    machine: Machine,
    version: &'static str,
}

impl Report {
    pub(crate) fn new(
        arguments: &BenchArguments,
        measured: Measured,
        facts: Facts,
        peak_memory_bytes: Option<u64>,
        roofline: Option<Roofline>,
    ) -> Self {
        let measured = Measured {
            prefill_tokens_per_second: rounded(measured.prefill_tokens_per_second),
            time_to_first_token_ms: rounded(measured.time_to_first_token_ms),
            ..measured
        };
        Self {
            measured,
            decode_tokens: arguments.decode_tokens,
            decode_prompt_tokens: arguments.decode_prompt_tokens,
            repeat: arguments.repeat,
            peak_memory_bytes,
            roofline,
            facts,
            machine: Machine::read(),
            version: VERSION,
        }
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let mut rows = Vec::new();
        let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
        row("model", format!("{}, {}", self.facts.model, self.facts.target));
        if let (Some(compute), Some(kernels)) = (&self.facts.compute, &self.facts.kernels) {
            row("compute", format!("{compute}, {kernels}"));
        }
        row(
            "machine",
            format!("{}, {} cores, {}", self.machine.processor, self.machine.cores, self.machine.isa),
        );
        let prefill = format!(
            "{:.1} tokens/s ({} tokens)",
            self.measured.prefill_tokens_per_second, self.measured.prompt_tokens
        );
        row("prefill", prefill);
        row("first token", format!("{:.1} ms", self.measured.time_to_first_token_ms));
        for decode in &self.measured.decode {
            row(
                &decode.name(),
                format!(
                    "{:.1} tokens/s ({:.1} each)",
                    decode.tokens_per_second, decode.tokens_per_second_per_stream
                ),
            );
        }
        if let Some(peak) = self.peak_memory_bytes {
            row("peak memory", bytes(peak));
        }
        let mut lines = table(&rows);
        if let Some(roofline) = &self.roofline {
            lines.push(String::new());
            lines.extend(roofline.lines());
        }
        if !self.measured.stages.is_empty() {
            lines.push(String::new());
            lines.extend(stages::lines(&self.measured.stages));
        }
        lines
    }
}

/// Three digits after the point are more than the measurement carries.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
