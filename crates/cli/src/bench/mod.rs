//! `byzerllm bench`: prefill, decode, time to first token and peak memory, in process or of any server; or, given
//! texts, the quality of each compute mode; or the speed of an encoder on given texts.
//!
//! Every number is the median of the repeats. Prompts are synthetic, the same in every run, and differ from each
//! other from their first token on, so that no prefix cache helps.

mod encoder;
mod http;
mod likeness;
mod local;
pub(crate) mod perplexity;
mod report;
mod roofline;
mod stages;

use std::time::{Duration, Instant};

use byzerllm_model::stages::{StepKind, record, take};
use futures::future::try_join_all;

use crate::arguments::BenchArguments;
use crate::bench::http::Remote;
use crate::bench::local::Local;
use crate::bench::report::{Decode, Measured, Report};
use crate::bench::roofline::Roofline;
use crate::bench::stages::StageTable;
use crate::output::{Failure, Outcome, Output};

/// One generation to measure.
#[derive(Debug, Clone, Copy)]
struct Work {
    /// Makes its prompt differ from the others.
    number: u32,
    prompt_tokens: u32,
    new_tokens: u32,
}

/// What was measured of one generation.
#[derive(Debug, Clone)]
struct Run {
    started: Instant,
    prompt_tokens: u32,
    completion_tokens: u32,
    /// When each piece of the answer came, since `started`: at least one.
    pieces: Vec<Duration>,
}

impl Run {
    /// When the first token came, since `started`.
    fn first(&self) -> Duration {
        self.pieces.first().copied().unwrap_or_default()
    }

    fn times(&self) -> impl Iterator<Item = Instant> {
        self.pieces.iter().map(|piece| self.started + *piece)
    }

    /// Tokens that came after `begin` and not after `end`. A server may put several into one piece.
    fn tokens_between(&self, begin: Instant, end: Instant) -> f64 {
        let pieces = self.times().filter(|time| *time > begin && *time <= end).count();
        pieces as f64 * f64::from(self.completion_tokens) / self.pieces.len().max(1) as f64
    }
}

/// What is measured.
enum Target {
    Local(Box<Local>),
    Remote(Remote),
}

impl Target {
    async fn run(&self, work: Work) -> Outcome<Run> {
        match self {
            Self::Local(local) => local.run(work).await,
            Self::Remote(remote) => remote.run(work).await,
        }
    }

    /// Where the time of the steps of a kind went, when that is recorded.
    async fn stages(&self, name: String, kind: StepKind) -> Option<StageTable> {
        match self {
            Self::Local(local) => {
                local.idle().await;
                StageTable::new(name, &take(kind))
            }
            Self::Remote(_) => None,
        }
    }
}

/// Measures and reports.
pub(crate) async fn bench(arguments: BenchArguments, output: Output) -> Outcome {
    if !arguments.perplexity.is_empty() {
        return tokio::select! {
            result = perplexity::perplexity(&arguments, output) => result,
            _ = tokio::signal::ctrl_c() => Err(Failure::new("stopped before the end", "Measure again.")),
        };
    }
    if let Some(texts) = arguments.texts.clone() {
        return tokio::select! {
            result = encoder::encoder(&arguments, texts, output) => result,
            _ = tokio::signal::ctrl_c() => Err(Failure::new("stopped before the end", "Measure again.")),
        };
    }
    let target = match &arguments.url {
        Some(url) => Target::Remote(Remote::new(url, &arguments.model)?),
        None => Target::Local(Box::new(Local::load(&arguments).await?)),
    };
    let result = tokio::select! {
        result = measure(&target, &arguments, output) => result,
        _ = tokio::signal::ctrl_c() => Err(Failure::new("stopped before the end", "Measure again.")),
    };
    let memory = match &target {
        Target::Local(_) => crate::machine::peak_memory(),
        Target::Remote(_) => None,
    };
    let measured = result?;
    let (facts, roofline) = match target {
        Target::Local(local) => {
            let found = local.ceilings().await?;
            let roofline =
                found.map(|(model, ceilings)| Roofline::new(&arguments, &measured, &model, ceilings));
            (local.close(), roofline)
        }
        Target::Remote(remote) => (remote.facts(), None),
    };
    let report = Report::new(&arguments, measured, facts, memory, roofline);
    if arguments.json {
        return output.json(&report);
    }
    report.lines().into_iter().try_for_each(|line| output.line(line))
}

async fn measure(target: &Target, arguments: &BenchArguments, output: Output) -> Outcome<Measured> {
    let mut numbers = 0..;
    let mut next = |prompt_tokens, new_tokens| Work {
        number: numbers.next().unwrap_or_default(),
        prompt_tokens,
        new_tokens,
    };
    // The first run pays for page faults and thread start-up; it is not counted, and as long as those that are.
    target.run(next(arguments.prompt_tokens, 2)).await?;
    record(arguments.stages);

    let mut stages = Vec::new();
    let mut prefill = Vec::new();
    for repeat in 1..=arguments.repeat {
        output.note(format_args!("prefill {repeat}/{}", arguments.repeat));
        prefill.push(target.run(next(arguments.prompt_tokens, 1)).await?);
    }
    stages.extend(target.stages("prefill".to_owned(), StepKind::Prompt).await);
    let mut decode = Vec::new();
    for &streams in &arguments.streams {
        let mut speeds = Vec::new();
        let mut short = 0;
        record(arguments.stages);
        for repeat in 1..=arguments.repeat {
            output.note(format_args!("decode {streams} streams {repeat}/{}", arguments.repeat));
            let work: Vec<Work> =
                (0..streams).map(|_| next(arguments.decode_prompt_tokens, arguments.decode_tokens)).collect();
            let runs = try_join_all(work.into_iter().map(|work| target.run(work))).await?;
            short += runs.iter().filter(|run| run.completion_tokens < arguments.decode_tokens).count();
            speeds.push(together(&runs)?);
        }
        if short > 0 {
            output.note(format_args!("{short} answers ended before {} tokens", arguments.decode_tokens));
        }
        let row = Decode::new(streams, median(&speeds));
        stages.extend(target.stages(row.name(), StepKind::Decode).await);
        decode.push(row);
    }
    record(false);
    let speeds: Vec<f64> =
        prefill.iter().map(|run| f64::from(run.prompt_tokens) / run.first().as_secs_f64()).collect();
    let first: Vec<f64> = prefill.iter().map(|run| run.first().as_secs_f64() * 1000.0).collect();
    Ok(Measured {
        prompt_tokens: prefill.first().map_or(0, |run| run.prompt_tokens),
        prefill_tokens_per_second: median(&speeds),
        time_to_first_token_ms: median(&first),
        decode,
        stages,
    })
}

/// Tokens per second of streams while all of them decode: from the first token of the last stream to begin, to the last
/// token of the first stream to end. So no prompt is computed in between. Streams too short to decode all at once
/// count from the first token of any to the last token of all.
fn together(runs: &[Run]) -> Outcome<f64> {
    let firsts = || runs.iter().filter_map(|run| run.times().next());
    let lasts = || runs.iter().filter_map(|run| run.times().last());
    let windows = [(firsts().max(), lasts().min()), (firsts().min(), lasts().max())];
    for (begin, end) in windows {
        let (Some(begin), Some(end)) = (begin, end) else { continue };
        let tokens: f64 = runs.iter().map(|run| run.tokens_between(begin, end)).sum();
        if tokens > 0.0 && end > begin {
            return Ok(tokens / (end - begin).as_secs_f64());
        }
    }
    Err(Failure::new("the answers were too short to measure", "Raise --decode-tokens."))
}

/// The middle value; the mean of both for an even count.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// A small random sequence, the same on every machine (a linear congruential generator).
fn random(seed: u32) -> impl Iterator<Item = u32> {
    let mut state = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run whose tokens come at these milliseconds.
    fn run(started: Instant, pieces: &[u64]) -> Run {
        Run {
            started,
            prompt_tokens: 1,
            completion_tokens: pieces.len() as u32,
            pieces: pieces.iter().map(|&time| Duration::from_millis(time)).collect(),
        }
    }

    #[test]
    fn streams_count_while_all_of_them_decode() {
        let now = Instant::now();
        let first = run(now, &[100, 150, 200, 300, 400, 500]);
        // The first stream's early tokens, and what the second one makes alone, do not count.
        let second = run(now, &[200, 300, 400, 500, 600, 700]);
        let speed = together(&[first, second]).unwrap();
        assert!((speed - 6.0 / 0.3).abs() < 1e-9, "{speed}");
        assert!(together(&[run(now, &[100])]).is_err());
        let one_by_one = together(&[run(now, &[100, 200]), run(now, &[300, 500])]).unwrap();
        assert!((one_by_one - 3.0 / 0.4).abs() < 1e-9, "{one_by_one}");
    }

    #[test]
    fn medians() {
        assert_eq!([median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0]), median(&[])], [2.0, 2.5, 0.0]);
    }

    #[test]
    fn prompts_repeat_exactly_and_differ_by_number() {
        let take = |seed| random(seed).take(8).collect::<Vec<_>>();
        assert_eq!(take(1), take(1));
        assert_ne!(take(1)[0], take(2)[0]);
    }
}
