//! How many requests a deployment of Byzer-LLM takes: workers times the slots of each.

use byzerllm_core::{Error, Result};
use serde_json::{Map, Value};

use super::parameters::text;

/// Requests that waited for a worker when nobody said how many may.
const WAITING: u32 = 1000;

/// Slots of a worker of vLLM or DeepSpeed when nobody chose them; other workers have one.
const MANY_SLOTS: u32 = 100;

/// What a deployment takes at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slots {
    /// Requests that run at once.
    pub(super) at_once: u32,
    /// Requests that may wait for one of them to end.
    pub(super) waiting: u32,
}

/// The slots of all workers together, when somebody chose workers or slots.
pub(super) fn slots(sys_conf: &Map<String, Value>) -> Result<Option<Slots>> {
    let workers = count(sys_conf, "maxConcurrency", "num_workers")?;
    let slots = count(sys_conf, "workerMaxConcurrency", "worker_concurrency")?;
    let waiting = count(sys_conf, "masterMaxConcurrency", "masterMaxConcurrency")?;
    if workers.or(slots).or(waiting).is_none() {
        return Ok(None);
    }
    let backend = sys_conf.get("infer_backend").map(text).unwrap_or_default();
    let many = matches!(backend.trim_start_matches("ray/"), "vllm" | "deepspeed");
    let slots = slots.unwrap_or(if many { MANY_SLOTS } else { 1 });
    let at_once = slots.saturating_mul(workers.unwrap_or(1));
    Ok(Some(Slots { at_once, waiting: waiting.unwrap_or(WAITING) }))
}

fn count(sys_conf: &Map<String, Value>, key: &str, name: &'static str) -> Result<Option<u32>> {
    let Some(value) = sys_conf.get(key) else { return Ok(None) };
    let text = text(value);
    let number = text.trim().parse::<u32>().ok().filter(|number| *number > 0);
    let wrong = || Error::invalid(name, format!("{name} must be a whole number of at least 1, got '{text}'"));
    number.map(Some).ok_or_else(wrong)
}
