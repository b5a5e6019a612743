//! Where the time of a step goes: timers for a process that measures itself.
//!
//! The thread that computes a step says with [`stage`] what it does next; the time since then belongs to what it said
//! before. Nothing is recorded until [`record`] switches the timers on, for the whole process: until then a mark costs
//! one read of a flag that never changes.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Choosing what to compute, and collecting it.
    Planning,
    /// Looking up the embeddings.
    Embedding,
    /// Norms, and the sums of the residual stream.
    Norms,
    /// The product that makes queries, keys and values.
    Qkv,
    /// Rotary positions, and writing the cache.
    RopeAndCache,
    /// Attention.
    Attention,
    /// The product behind attention.
    Output,
    /// Choosing experts, collecting their tokens and adding up what they say.
    Routing,
    /// The first product of the feed-forward part.
    GateUp,
    /// Its nonlinearity.
    Activation,
    /// Its second product.
    Down,
    /// The product that makes logits.
    Head,
    /// Drawing tokens, and telling the requests.
    Sampling,
}

impl Stage {
    /// All, in the order of a step.
    pub const ALL: [Stage; 13] = [
        Stage::Planning,
        Stage::Embedding,
        Stage::Norms,
        Stage::Qkv,
        Stage::RopeAndCache,
        Stage::Attention,
        Stage::Output,
        Stage::Routing,
        Stage::GateUp,
        Stage::Activation,
        Stage::Down,
        Stage::Head,
        Stage::Sampling,
    ];

    /// A short name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::Planning => "planning",
            Stage::Embedding => "embedding",
            Stage::Norms => "norms",
            Stage::Qkv => "qkv",
            Stage::RopeAndCache => "rope and cache",
            Stage::Attention => "attention",
            Stage::Output => "output",
            Stage::Routing => "routing",
            Stage::GateUp => "gate and up",
            Stage::Activation => "activation",
            Stage::Down => "down",
            Stage::Head => "head",
            Stage::Sampling => "sampling",
        }
    }
}

/// What a step was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    /// At least one sequence had several tokens computed.
    Prompt,
    /// Each sequence had one token computed.
    Decode,
}

/// The time of all stages over some steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Steps.
    pub steps: u64,
    times: [Duration; Stage::ALL.len()],
}

impl StageTimes {
    /// The time of one stage over all steps.
    #[must_use]
    pub fn of(&self, stage: Stage) -> Duration {
        self.times[stage as usize]
    }

    /// The time of all stages.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.times.iter().sum()
    }
}

static RECORDING: AtomicBool = AtomicBool::new(false);
static TOTALS: Mutex<[StageTimes; 2]> = Mutex::new([StageTimes::NONE; 2]);

impl StageTimes {
    const NONE: Self = Self { steps: 0, times: [Duration::ZERO; Stage::ALL.len()] };
}

thread_local! {
    /// The step that this thread computes.
    static CLOCK: RefCell<Option<Clock>> = const { RefCell::new(None) };
}

struct Clock {
    stage: Stage,
    since: Instant,
    times: [Duration; Stage::ALL.len()],
}

impl Clock {
    fn turn_to(&mut self, stage: Stage) {
        let now = Instant::now();
        self.times[self.stage as usize] += now - self.since;
        (self.stage, self.since) = (stage, now);
    }
}

fn totals() -> MutexGuard<'static, [StageTimes; 2]> {
    TOTALS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Switches the timers of this process on or off, and forgets what was recorded.
pub fn record(on: bool) {
    RECORDING.store(on, Ordering::Relaxed);
    *totals() = [StageTimes::NONE; 2];
}

/// What was recorded of steps of a kind since the last call, which is then forgotten.
#[must_use]
pub fn take(kind: StepKind) -> StageTimes {
    std::mem::take(&mut totals()[kind as usize])
}

/// A step begins on this thread.
#[inline]
pub fn begin_step() {
    if RECORDING.load(Ordering::Relaxed) {
        let times = [Duration::ZERO; Stage::ALL.len()];
        CLOCK.set(Some(Clock { stage: Stage::Planning, since: Instant::now(), times }));
    }
}

/// From now on the step is at this stage. Means nothing outside of a step.
#[inline]
pub fn stage(stage: Stage) {
    if RECORDING.load(Ordering::Relaxed) {
        CLOCK.with_borrow_mut(|clock| clock.as_mut().map(|clock| clock.turn_to(stage)));
    }
}

/// The step of this thread ends.
#[inline]
pub fn end_step(kind: StepKind) {
    if RECORDING.load(Ordering::Relaxed)
        && let Some(mut clock) = CLOCK.take()
    {
        clock.turn_to(Stage::Planning);
        let total = &mut totals()[kind as usize];
        total.steps += 1;
        total.times.iter_mut().zip(clock.times).for_each(|(sum, time)| *sum += time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spin(time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {}
    }

    /// One test, because the timers belong to the process.
    #[test]
    fn time_belongs_to_the_stage_that_was_named_before() {
        let step = || {
            begin_step();
            stage(Stage::Attention);
            spin(Duration::from_millis(2));
            stage(Stage::Head);
            end_step(StepKind::Decode);
        };
        step();
        assert_eq!(take(StepKind::Decode), StageTimes::NONE, "nobody asked for it");
        record(true);
        stage(Stage::Down);
        step();
        step();
        let times = take(StepKind::Decode);
        assert_eq!(times.steps, 2);
        assert!(times.of(Stage::Attention) >= Duration::from_millis(4), "{times:?}");
        assert!(times.total() >= times.of(Stage::Attention));
        assert_eq!(times.of(Stage::Down), Duration::ZERO, "it was said outside of a step");
        assert_eq!(take(StepKind::Decode), StageTimes::NONE, "it was taken");
        assert_eq!(take(StepKind::Prompt), StageTimes::NONE);
        record(false);
    }

    #[test]
    fn stages_stand_at_their_places() {
        for (place, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, place, "{}", stage.as_str());
        }
    }
}
