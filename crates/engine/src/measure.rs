//! The scheduler alone under a load, for `benches/scheduler.rs`.

use std::collections::HashMap;

use byzerllm_core::Domain;

use crate::options::Limits;
use crate::prefix::KeyMaker;
use crate::scheduler::{Plan, Scheduler, SchedulerConfig};
use crate::sequence::NewSequence;

const BLOCK_TOKENS: usize = 32;

/// How many requests there are, and how long. Answers at least as long as prompts keep all sequences running.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Sequences that run at once; whenever one ends, the next request arrives.
    pub sequences: usize,
    /// Tokens of each prompt.
    pub prompt: usize,
    /// Tokens that each generates.
    pub answer: usize,
}

/// A scheduler that never runs out of requests.
#[derive(Debug)]
pub struct SchedulerLoad {
    load: Load,
    scheduler: Scheduler,
    plan: Plan,
    /// Tokens that are still wanted, per request.
    wanted: HashMap<u64, usize>,
    requests: u64,
}

impl SchedulerLoad {
    /// Everything runs, each sequence at another place of its answer.
    #[must_use]
    pub fn new(load: Load) -> Self {
        let length = load.prompt + load.answer;
        let limits = Limits {
            context_length: length,
            max_sequences: load.sequences,
            max_batch_tokens: 512.max(load.sequences),
            max_rows: 512,
            // A block more for each, so that nothing is ever preempted.
            blocks: vec![load.sequences * (length.div_ceil(BLOCK_TOKENS) + 2)],
        };
        let config = SchedulerConfig {
            limits,
            block_tokens: BLOCK_TOKENS,
            windows: vec![None],
            chunkable: true,
            shareable: true,
        };
        let scheduler = Scheduler::new(config, KeyMaker::new([7; 32]));
        let mut new = Self { load, scheduler, plan: Plan::default(), wanted: HashMap::new(), requests: 0 };
        for place in 0..load.sequences {
            new.arrive(1 + place * load.answer / load.sequences.max(1));
        }
        // All prompts, and then some answers.
        for _ in 0..2 * load.answer + load.sequences * load.prompt / 256 {
            new.step();
        }
        new
    }

    /// Sequences that run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.scheduler.occupancy().running
    }

    fn arrive(&mut self, wanted: usize) {
        let request = self.requests;
        self.requests += 1;
        self.wanted.insert(request, wanted);
        // No two prompts share a beginning.
        let prompt = (0..self.load.prompt as u64).map(|place| (request * 7919 + place) as u32).collect();
        let root = self.scheduler.keys().root(Domain::default(), None);
        self.scheduler.add(NewSequence {
            request,
            prompt,
            root,
            choices: 1,
            prompt_rows: false,
            sample: true,
        });
    }

    /// One step without the network: plan, commit, a token for each sequence that is due one. Returns the tokens that
    /// the network would have computed.
    pub fn step(&mut self) -> usize {
        let mut plan = std::mem::take(&mut self.plan);
        self.scheduler.plan(&mut plan);
        let mut tokens = 0;
        for work in &plan.work {
            tokens += work.count;
            self.scheduler.commit(work);
            let sequence = self.scheduler.sequence(work.sequence);
            if sequence.pending() > 0 {
                continue;
            }
            let request = sequence.order.request;
            let token = sequence.tokens.len() as u32;
            let wanted = self.wanted.get_mut(&request).map_or(0, |wanted| {
                *wanted -= 1;
                *wanted
            });
            if wanted > 0 {
                self.scheduler.append(work.sequence, token);
            } else {
                self.scheduler.remove(work.sequence);
                self.wanted.remove(&request);
                self.arrive(self.load.answer);
            }
        }
        self.plan = plan;
        tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_goes_on() {
        let mut load = SchedulerLoad::new(Load { sequences: 256, prompt: 40, answer: 60 });
        let (arrived, steps) = (load.requests, 120);
        let mut tokens = 0;
        for _ in 0..steps {
            tokens += load.step();
            assert_eq!(load.plan.preempted, 0);
            assert!(load.running() > 240, "{}", load.running());
        }
        load.scheduler.check();
        // Everyone's answer ended twice, and as many prompts were computed beside the answers.
        assert!(load.requests - arrived > 256, "{}", load.requests - arrived);
        assert!(tokens > steps * 240 + 256 * 40, "{tokens}");
    }
}
