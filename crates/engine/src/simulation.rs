//! Random lives of the scheduler against a naive memory: every token that a step sees must be where the tables say.

use std::collections::HashMap;

use byzerllm_core::Domain;
use byzerllm_model::FREED;
use proptest::prelude::*;

use crate::options::{Limits, blocks_for_context};
use crate::prefix::KeyMaker;
use crate::scheduler::{Plan, Scheduler, SchedulerConfig};
use crate::sequence::{NewSequence, SequenceId};

const BLOCK: usize = 4;
const CONTEXT: usize = 48;

#[derive(Debug, Clone)]
enum Action {
    Add { prompt: Vec<u32>, domain: u64, choices: u32, tokens: usize, rows: bool },
    Step,
    Cancel(usize),
}

#[derive(Debug, Clone)]
struct Setup {
    windows: Vec<Option<usize>>,
    /// Blocks beyond those of one context.
    spare: usize,
    sequences: usize,
    batch: usize,
    rows: usize,
    chunkable: bool,
    shareable: bool,
    prompt_budgets: (usize, usize),
}

/// What the cache holds, written by steps and copies only.
struct Memory {
    cells: Vec<HashMap<u32, [Option<Cell>; BLOCK]>>,
}

/// Domain, token and position.
type Cell = (u64, u32, usize);

struct Request {
    domain: u64,
    choices: u32,
    tokens: usize,
    prompt: usize,
    rows: bool,
    rows_seen: usize,
    live: Vec<SequenceId>,
}

struct World {
    setup: Setup,
    scheduler: Scheduler,
    memory: Memory,
    requests: HashMap<u64, Request>,
    next: u64,
    steps: usize,
    /// Tokens that steps may at least work on until everything is done.
    allowance: usize,
}

impl World {
    fn new(setup: Setup) -> Self {
        let chunk = if setup.chunkable { setup.batch } else { CONTEXT };
        let blocks = setup
            .windows
            .iter()
            .map(|&window| blocks_for_context(CONTEXT, chunk, BLOCK, window) + setup.spare)
            .collect();
        let limits = Limits {
            context_length: CONTEXT,
            max_sequences: setup.sequences,
            max_batch_tokens: setup.batch.max(setup.sequences),
            max_rows: setup.rows,
            blocks,
        };
        let config = SchedulerConfig {
            limits,
            block_tokens: BLOCK,
            windows: setup.windows.clone(),
            chunkable: setup.chunkable,
            shareable: setup.shareable,
        };
        let mut scheduler = Scheduler::new(config, KeyMaker::new([7; 32]));
        scheduler.set_prompt_budgets(setup.prompt_budgets);
        Self {
            scheduler,
            memory: Memory { cells: vec![HashMap::new(); setup.windows.len()] },
            requests: HashMap::new(),
            next: 0,
            steps: 0,
            allowance: 0,
            setup,
        }
    }

    fn add(&mut self, prompt: Vec<u32>, domain: u64, choices: u32, tokens: usize, rows: bool) {
        let tokens = tokens.min(CONTEXT - prompt.len());
        let choices = choices.min(self.setup.sequences as u32);
        self.allowance += choices as usize * (prompt.len() + tokens + 1);
        let request = self.next;
        self.next += 1;
        let prompt_length = prompt.len();
        let id = self.scheduler.add(NewSequence {
            request,
            prompt,
            root: self.scheduler.keys().root(Domain(domain), None),
            choices,
            prompt_rows: rows,
            sample: tokens > 0,
        });
        let live = vec![id];
        let request_state =
            Request { domain, choices, tokens, prompt: prompt_length, rows, rows_seen: 0, live };
        self.requests.insert(request, request_state);
    }

    fn cancel(&mut self, pick: usize) {
        let mut all: Vec<(u64, SequenceId)> = self
            .requests
            .iter()
            .flat_map(|(&request, state)| state.live.iter().map(move |&id| (request, id)))
            .collect();
        all.sort_unstable();
        if all.is_empty() {
            return;
        }
        let (request, id) = all[pick % all.len()];
        self.end(request, id);
    }

    fn end(&mut self, request: u64, id: SequenceId) {
        self.scheduler.remove(id);
        let state = self.requests.get_mut(&request).unwrap();
        state.live.retain(|&other| other != id);
        if state.live.is_empty() {
            self.requests.remove(&request);
        }
    }

    fn step(&mut self) {
        let mut plan = Plan::default();
        self.scheduler.plan(&mut plan);
        self.scheduler.check();
        assert_eq!(plan.work.is_empty(), self.scheduler.is_idle(), "something runs unless all is done");
        self.steps += 1;
        for copy in &plan.copies {
            let cells = &mut self.memory.cells[copy.group];
            let content = cells.get(&copy.from).copied().expect("a copied block has content");
            cells.insert(copy.to, content);
        }
        self.check_budget(&plan);
        // All sequences write before any reads, as layers do.
        for work in &plan.work {
            self.write(work.sequence, work.count);
        }
        for work in &plan.work {
            self.read(work.sequence, work.count);
        }
        for work in &plan.work {
            self.scheduler.commit(work);
            self.advance(work.sequence, &work.rows);
            self.scheduler.check();
        }
    }

    fn check_budget(&self, plan: &Plan) {
        let tokens: usize = plan.work.iter().map(|work| work.count).sum();
        let prompts = plan.work.iter().filter(|work| work.count > 1).count();
        let limit = self.setup.batch.max(self.setup.sequences);
        assert!(tokens <= limit || (!self.setup.chunkable && prompts == 1), "{tokens} tokens in a step");
        assert!(plan.work.len() <= self.setup.sequences);
        let mut sequences: Vec<_> = plan.work.iter().map(|work| work.sequence).collect();
        sequences.sort_unstable();
        sequences.dedup();
        assert_eq!(sequences.len(), plan.work.len(), "a sequence is planned once");
    }

    fn write(&mut self, id: SequenceId, count: usize) {
        let sequence = self.scheduler.sequence(id);
        let domain = self.requests[&sequence.order.request].domain;
        for (group, cells) in self.memory.cells.iter_mut().enumerate() {
            for place in sequence.computed..sequence.computed + count {
                let block = sequence.tables[group][place / BLOCK];
                assert_ne!(block, FREED, "a step writes into a freed block");
                let cell = &mut cells.entry(block).or_default()[place % BLOCK];
                *cell = Some((domain, sequence.tokens[place], place));
            }
        }
    }

    fn read(&self, id: SequenceId, count: usize) {
        let sequence = self.scheduler.sequence(id);
        let domain = self.requests[&sequence.order.request].domain;
        for (group, cells) in self.memory.cells.iter().enumerate() {
            let end = sequence.computed + count;
            let first =
                self.setup.windows[group].map_or(0, |window| (sequence.computed + 1).saturating_sub(window));
            for place in first..end {
                let block = sequence.tables[group][place / BLOCK];
                let cell = cells.get(&block).and_then(|cells| cells[place % BLOCK]);
                assert_eq!(cell, Some((domain, sequence.tokens[place], place)), "content of block {block}");
            }
        }
    }

    /// Samples as the engine does.
    fn advance(&mut self, id: SequenceId, rows: &std::ops::Range<usize>) {
        let sequence = self.scheduler.sequence(id);
        let request = sequence.order.request;
        let state = self.requests.get_mut(&request).unwrap();
        if state.rows {
            let prompt_rows = rows.start..rows.end.min(sequence.prompt - 1);
            if !prompt_rows.is_empty() {
                assert_eq!(prompt_rows.start, state.rows_seen, "prompt rows come in order, each once");
                state.rows_seen = prompt_rows.end;
            }
        }
        if sequence.pending() > 0 {
            assert!(!rows.contains(&(sequence.tokens.len() - 1)));
            return;
        }
        if state.tokens == 0 {
            assert!(!state.rows || state.rows_seen == state.prompt - 1);
            return self.end(request, id);
        }
        assert_eq!(rows.end, sequence.tokens.len());
        let mut ids = vec![id];
        if sequence.generated() == 0 {
            assert!(!state.rows || state.rows_seen == state.prompt - 1, "all prompt rows were seen");
            for choice in 1..state.choices {
                ids.push(self.scheduler.fork(id, choice));
            }
            state.live.clone_from(&ids);
        } else {
            assert_eq!(rows.len(), 1);
        }
        for id in ids {
            let sequence = self.scheduler.sequence(id);
            let generated = sequence.generated() + 1;
            let limit = self.requests[&request].tokens;
            // Some choices end early.
            if generated >= limit || (generated + sequence.order.choice as usize).is_multiple_of(11) {
                self.end(request, id);
            } else {
                let token = (sequence.tokens.len() as u32 + sequence.order.choice) % 3;
                self.scheduler.append(id, token);
            }
        }
    }
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let add = (prop::collection::vec(0u32..2, 1..40), 0u64..2, 1u32..4, 0usize..20, any::<bool>()).prop_map(
        |(mut prompt, domain, choices, tokens, rows)| {
            // Long common beginnings make shared blocks likely.
            let common = prompt.len() / 2;
            prompt[..common].fill(0);
            Action::Add { prompt, domain, choices, tokens, rows: rows && prompt_is_short(tokens) }
        },
    );
    let action = prop_oneof![3 => add, 6 => Just(Action::Step), 1 => any::<usize>().prop_map(Action::Cancel)];
    prop::collection::vec(action, 1..60)
}

fn prompt_is_short(tokens: usize) -> bool {
    tokens < 10
}

fn setups() -> impl Strategy<Value = Setup> {
    let windows = prop_oneof![
        Just(vec![None]),
        Just(vec![Some(6)]),
        Just(vec![None, Some(9)]),
        Just(vec![Some(1), Some(13)]),
    ];
    let sharing = (prop::bool::weighted(0.8), prop::bool::weighted(0.8));
    let budgets = (1usize..30, 1usize..30);
    (windows, 0usize..12, 1usize..6, 1usize..24, 1usize..8, sharing, budgets).prop_map(
        |(windows, spare, sequences, batch, rows, (chunkable, shareable), prompt_budgets)| Setup {
            windows,
            spare,
            sequences,
            batch: batch.max(sequences),
            rows,
            chunkable,
            shareable,
            prompt_budgets,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_leaks_starves_or_is_used_twice(setup in setups(), actions in actions()) {
        let mut world = World::new(setup);
        for action in actions {
            match action {
                Action::Add { prompt, domain, choices, tokens, rows } => {
                    world.add(prompt, domain, choices, tokens, rows);
                }
                Action::Step => world.step(),
                Action::Cancel(pick) => world.cancel(pick),
            }
            world.scheduler.check();
        }
        while !world.scheduler.is_idle() {
            world.step();
            prop_assert!(world.steps <= 3 * world.allowance + 60, "no progress");
        }
        world.scheduler.check();
        prop_assert!(world.requests.is_empty());
        let occupancy = world.scheduler.occupancy();
        prop_assert_eq!((occupancy.used, occupancy.running, occupancy.waiting), (0, 0, 0));
        prop_assert!(world.setup.shareable || occupancy.cached == 0);
    }
}

#[test]
fn a_prompt_never_stalls_decodes() {
    let setup = Setup {
        windows: vec![None],
        spare: 100,
        sequences: 4,
        batch: 8,
        rows: 8,
        chunkable: true,
        shareable: true,
        prompt_budgets: (usize::MAX, usize::MAX),
    };
    let mut world = World::new(setup);
    world.add(vec![1, 2, 3], 0, 1, 20, false);
    world.step();
    world.add(vec![5; 40], 0, 1, 2, false);
    let first = world.requests[&0].live[0];
    for step in 0..4 {
        let before = world.scheduler.sequence(first).generated();
        world.step();
        assert_eq!(world.scheduler.sequence(first).generated(), before + 1, "step {step}");
    }
    let second = world.requests[&1].live[0];
    assert_eq!(world.scheduler.sequence(second).computed, 4 * 7);
}

#[test]
fn a_common_beginning_is_computed_once_per_domain() {
    let setup = Setup {
        windows: vec![None, Some(6)],
        spare: 100,
        sequences: 4,
        batch: 64,
        rows: 8,
        chunkable: true,
        shareable: true,
        prompt_budgets: (usize::MAX, usize::MAX),
    };
    let mut world = World::new(setup);
    world.add(vec![1; 17], 0, 1, 3, false);
    world.step();
    for (domain, expected) in [(0, 16), (1, 0)] {
        world.add(vec![1; 17], domain, 1, 3, false);
        world.step();
        let id = world.requests[&(world.next - 1)].live[0];
        assert_eq!(world.scheduler.sequence(id).cached, Some(expected), "domain {domain}");
    }
}
