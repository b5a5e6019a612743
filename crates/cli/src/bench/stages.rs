//! Where the time of the measured steps went.

use byzerllm_model::stages::{Stage, StageTimes};
use serde::Serialize;

use crate::output::table;

/// The steps of one measured row.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct StageTable {
    name: String,
    steps: u64,
    milliseconds_per_step: f64,
    /// In the order of a step; those that took no time are left out.
    stages: Vec<StageShare>,
}

/// One stage of them.
#[derive(Debug, Clone, Serialize)]
struct StageShare {
    stage: &'static str,
    milliseconds_per_step: f64,
    percent: f64,
}

impl StageTable {
    /// `None` when there was no such step.
    pub(super) fn new(name: String, times: &StageTimes) -> Option<Self> {
        let total = times.total().as_secs_f64();
        if times.steps == 0 || total <= 0.0 {
            return None;
        }
        let per_step = |seconds: f64| 1000.0 * seconds / times.steps as f64;
        let share = |stage: Stage| {
            let seconds = times.of(stage).as_secs_f64();
            (seconds > 0.0).then(|| StageShare {
                stage: stage.as_str(),
                milliseconds_per_step: per_step(seconds),
                percent: 100.0 * seconds / total,
            })
        };
        Some(Self {
            name,
            steps: times.steps,
            milliseconds_per_step: per_step(total),
            stages: Stage::ALL.into_iter().filter_map(share).collect(),
        })
    }
}

/// All rows side by side.
pub(super) fn lines(tables: &[StageTable]) -> Vec<String> {
    let mut heading = vec!["STAGE (ms per step)".to_owned()];
    heading.extend(tables.iter().flat_map(|table| [table.name.clone(), "share".to_owned()]));
    let mut rows = vec![heading];
    for stage in Stage::ALL {
        let found: Vec<Option<&StageShare>> = tables
            .iter()
            .map(|table| table.stages.iter().find(|share| share.stage == stage.as_str()))
            .collect();
        if found.iter().all(Option::is_none) {
            continue;
        }
        let mut row = vec![stage.as_str().to_owned()];
        row.extend(found.into_iter().flat_map(|share| match share {
            Some(share) => [milliseconds(share.milliseconds_per_step), format!("{:.1} %", share.percent)],
            None => ["-".to_owned(), "-".to_owned()],
        }));
        rows.push(row);
    }
    let mut last = vec!["step".to_owned()];
    last.extend(
        tables
            .iter()
            .flat_map(|table| [milliseconds(table.milliseconds_per_step), format!("{} steps", table.steps)]),
    );
    rows.push(last);
    table(&rows)
}

fn milliseconds(value: f64) -> String {
    format!("{value:.3}")
}
