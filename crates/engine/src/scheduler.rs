//! What the next step computes: a pure function of the sequences and the blocks.
//!
//! Every step gives each decoding sequence its token, then spends the rest of its budget on prompts, oldest first.
//! A waiting sequence is admitted when its whole text fits beside what runs. When blocks run out, the newest running
//! sequence gives all of its blocks back and waits again in its old place; the oldest one always fits, so that
//! everything ends. Invariant: every running sequence is older than every waiting one.

use std::collections::BTreeMap;
use std::ops::Range;

use byzerllm_model::{FREED, NetworkTraits};

use crate::blocks::BlockPool;
use crate::options::{Limits, blocks_for_context};
use crate::prefix::KeyMaker;
use crate::sequence::{NewSequence, Order, Sequence, SequenceId, is_block};

/// What the scheduler knows of network and options.
#[derive(Debug, Clone)]
pub(crate) struct SchedulerConfig {
    pub(crate) limits: Limits,
    pub(crate) block_tokens: usize,
    /// The window of each cache group.
    pub(crate) windows: Vec<Option<usize>>,
    pub(crate) chunkable: bool,
    pub(crate) shareable: bool,
}

impl SchedulerConfig {
    pub(crate) fn new(network: &NetworkTraits, limits: Limits, prefix_cache: bool) -> Self {
        Self {
            limits,
            block_tokens: network.block_tokens,
            windows: network.cache_groups.iter().map(|group| group.window).collect(),
            chunkable: network.chunkable_prefill,
            shareable: network.shareable_prefix && prefix_cache,
        }
    }
}

/// One sequence's part of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) sequence: SequenceId,
    /// Tokens to compute, from the first that is not in the cache.
    pub(crate) count: usize,
    /// The positions whose rows are wanted.
    pub(crate) rows: Range<usize>,
}

/// A block to copy before the step, because one of its owners is about to write into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockCopy {
    pub(crate) group: usize,
    pub(crate) from: u32,
    pub(crate) to: u32,
}

/// One step. Copies come first, in order.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) work: Vec<Work>,
    pub(crate) copies: Vec<BlockCopy>,
    /// Sequences that gave their blocks back.
    pub(crate) preempted: usize,
}

/// Numbers for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Occupancy {
    pub(crate) running: usize,
    pub(crate) waiting: usize,
    pub(crate) total: usize,
    pub(crate) used: usize,
    pub(crate) cached: usize,
}

#[derive(Debug)]
pub(crate) struct Scheduler {
    config: SchedulerConfig,
    keys: KeyMaker,
    pools: Vec<BlockPool>,
    sequences: Vec<Option<Sequence>>,
    vacant: Vec<SequenceId>,
    /// Oldest first.
    running: Vec<SequenceId>,
    waiting: BTreeMap<Order, SequenceId>,
    /// Prompt tokens of a step at most, without and with decoding sequences.
    prompt_budgets: (usize, usize),
}

impl Scheduler {
    pub(crate) fn new(config: SchedulerConfig, keys: KeyMaker) -> Self {
        let pools = config.limits.blocks.iter().map(|&blocks| BlockPool::new(blocks)).collect();
        Self {
            config,
            keys,
            pools,
            sequences: Vec::new(),
            vacant: Vec::new(),
            running: Vec::new(),
            waiting: BTreeMap::new(),
            prompt_budgets: (usize::MAX, usize::MAX),
        }
    }

    /// Cuts prompts finer than the limits do: into steps of so many tokens, without and with decoding sequences.
    pub(crate) fn set_prompt_budgets(&mut self, budgets: (usize, usize)) {
        self.prompt_budgets = budgets;
    }

    pub(crate) fn keys(&self) -> &KeyMaker {
        &self.keys
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    pub(crate) fn occupancy(&self) -> Occupancy {
        let total = self.pools.iter().map(BlockPool::total).sum();
        let available: usize = self.pools.iter().map(BlockPool::available).sum();
        Occupancy {
            running: self.running.len(),
            waiting: self.waiting.len(),
            total,
            used: total - available,
            cached: self.pools.iter().map(BlockPool::cached).sum(),
        }
    }

    pub(crate) fn sequence(&self, id: SequenceId) -> &Sequence {
        #[expect(clippy::expect_used, reason = "ids are handed out and taken back by this module only")]
        self.sequences[id].as_ref().expect("invariant: the sequence exists")
    }

    fn sequence_mut(&mut self, id: SequenceId) -> &mut Sequence {
        #[expect(clippy::expect_used, reason = "ids are handed out and taken back by this module only")]
        self.sequences[id].as_mut().expect("invariant: the sequence exists")
    }

    fn insert(&mut self, sequence: Sequence) -> SequenceId {
        match self.vacant.pop() {
            Some(id) => {
                self.sequences[id] = Some(sequence);
                id
            }
            None => {
                self.sequences.push(Some(sequence));
                self.sequences.len() - 1
            }
        }
    }

    /// Queues a new request. Its number is higher than that of every request before it.
    pub(crate) fn add(&mut self, new: NewSequence) -> SequenceId {
        debug_assert!(!new.prompt.is_empty() && new.choices > 0);
        let sequence = Sequence::new(new, self.pools.len());
        let order = sequence.order;
        let id = self.insert(sequence);
        self.waiting.insert(order, id);
        id
    }

    /// Splits another choice off a running sequence whose tokens are all in the cache. Both share all blocks until
    /// one of them writes.
    pub(crate) fn fork(&mut self, parent: SequenceId, choice: u32) -> SequenceId {
        let sequence = self.sequence(parent).fork(choice);
        debug_assert!(sequence.pending() == 0 && sequence.running);
        for (pool, table) in self.pools.iter_mut().zip(&sequence.tables) {
            table.iter().filter(|&&entry| is_block(entry)).for_each(|&block| pool.retain(block));
        }
        self.sequence_mut(parent).slots -= 1;
        let order = sequence.order;
        let id = self.insert(sequence);
        self.run(id, order);
        id
    }

    fn run(&mut self, id: SequenceId, order: Order) {
        let place = self.running.partition_point(|&other| self.sequence(other).order < order);
        self.running.insert(place, id);
    }

    /// Adds a sampled token.
    pub(crate) fn append(&mut self, id: SequenceId, token: u32) {
        self.sequence_mut(id).tokens.push(token);
    }

    /// Ends a sequence, running or waiting, and gives its blocks back.
    pub(crate) fn remove(&mut self, id: SequenceId) {
        self.release(id);
        self.vacant.push(id);
        let Some(sequence) = self.sequences[id].take() else { return };
        if sequence.running {
            self.running.retain(|&other| other != id);
        } else {
            self.waiting.remove(&sequence.order);
        }
    }

    /// Gives all blocks of a sequence back, the last ones to be evicted first.
    fn release(&mut self, id: SequenceId) {
        let tables = std::mem::take(&mut self.sequence_mut(id).tables);
        for (pool, table) in self.pools.iter_mut().zip(&tables) {
            table.iter().rev().filter(|&&entry| is_block(entry)).for_each(|&block| pool.release(block));
        }
        let mut tables = tables;
        tables.iter_mut().for_each(Vec::clear);
        self.sequence_mut(id).tables = tables;
    }

    /// Plans the next step. A plan without work means that nothing can run.
    pub(crate) fn plan(&mut self, plan: &mut Plan) {
        plan.work.clear();
        plan.copies.clear();
        plan.preempted = 0;
        loop {
            self.plan_decodes(plan);
            let spent: usize = plan.work.iter().map(|work| work.count).sum();
            let (alone, beside) = self.prompt_budgets;
            let cap = if plan.work.is_empty() { alone } else { beside };
            let mut budget = Budget {
                tokens: self.config.limits.max_batch_tokens.saturating_sub(spent).min(cap.max(1)),
                rows: self.config.limits.max_rows,
                prompts: false,
            };
            if self.plan_prompts(plan, &mut budget) {
                self.admit(plan, &mut budget);
            }
            // Prompts in work may hold all blocks while none can go on: the newest one starts again later.
            if !plan.work.is_empty() || self.running.len() < 2 {
                return;
            }
            self.preempt_newest(plan);
        }
    }

    fn plan_decodes(&mut self, plan: &mut Plan) {
        let mut place = 0;
        while let Some(&id) = self.running.get(place) {
            let sequence = self.sequence(id);
            if sequence.pending() != 1 {
                place += 1;
                continue;
            }
            let rows = sequence.rows(1);
            // Victims are never planned yet: they are newer than everything planned, at most this one itself.
            while self.running.len() > place && !self.reserve(id, 1, &mut plan.copies) {
                self.preempt_newest(plan);
            }
            if self.running.len() > place {
                plan.work.push(Work { sequence: id, count: 1, rows });
                place += 1;
            }
        }
    }

    /// Goes on with prompts in work. Whether new ones may be admitted: not before all of these get their blocks.
    fn plan_prompts(&mut self, plan: &mut Plan, budget: &mut Budget) -> bool {
        for place in 0..self.running.len() {
            let id = self.running[place];
            if self.sequence(id).pending() > 1 && !self.plan_chunk(id, plan, budget) {
                return false;
            }
        }
        true
    }

    /// Plans as much of a prompt as budget and blocks allow. False when blocks or budget are short.
    fn plan_chunk(&mut self, id: SequenceId, plan: &mut Plan, budget: &mut Budget) -> bool {
        let sequence = self.sequence(id);
        let pending = sequence.pending();
        let mut count = pending;
        if self.config.chunkable {
            count = count.min(budget.tokens);
            if sequence.wants_prompt_rows() {
                count = count.min(budget.rows);
            }
            count = count.min(self.room(sequence));
        } else if (count > budget.tokens && budget.prompts) || count > self.room(sequence) {
            count = 0;
        }
        if count == 0 {
            return false;
        }
        let rows = sequence.rows(count);
        if !self.reserve(id, count, &mut plan.copies) {
            return false;
        }
        budget.tokens = budget.tokens.saturating_sub(count);
        budget.rows = budget.rows.saturating_sub(rows.len());
        budget.prompts = true;
        plan.work.push(Work { sequence: id, count, rows });
        count == pending
    }

    fn admit(&mut self, plan: &mut Plan, budget: &mut Budget) {
        if self.waiting.is_empty() {
            return;
        }
        let mut slots: usize = self.running.iter().map(|&id| self.sequence(id).slots as usize).sum();
        let mut reserved = vec![0; self.pools.len()];
        for &id in &self.running {
            self.add_outstanding(id, &mut reserved);
        }
        while let Some((_, &id)) = self.waiting.first_key_value() {
            slots += self.sequence(id).slots as usize;
            let alone = self.running.is_empty();
            if !alone && (slots > self.config.limits.max_sequences || budget.tokens == 0) {
                return;
            }
            let hit = self.longest_hit(id);
            if !alone && !self.fits(id, hit, &reserved) {
                return;
            }
            self.start(id, hit);
            if !self.plan_chunk(id, plan, budget) {
                return;
            }
            self.add_outstanding(id, &mut reserved);
        }
    }

    /// Adds the blocks that a running sequence will still need per group, and one more for each, so that decoding
    /// goes on for a while.
    fn add_outstanding(&self, id: SequenceId, reserved: &mut [usize]) {
        let sequence = self.sequence(id);
        for (group, reserved) in reserved.iter_mut().enumerate() {
            let table = &sequence.tables[group];
            let held = table.len() - table.partition_point(|&entry| !is_block(entry));
            *reserved += self.demand(group, sequence.tokens.len()).saturating_sub(held) + 1;
        }
    }

    /// How many leading blocks of a waiting sequence are cached in every group that needs them.
    fn longest_hit(&mut self, id: SequenceId) -> usize {
        if !self.config.shareable {
            return 0;
        }
        let block_tokens = self.config.block_tokens;
        let maker = self.keys.clone();
        let sequence = self.sequence_mut(id);
        // The last token is always computed, so that there is a row to sample from.
        let end = sequence.tokens.len() - 1;
        let end = if sequence.wants_prompt_rows() { sequence.next_row.min(end) } else { end };
        let keys = sequence.keys(&maker, end / block_tokens, block_tokens).to_vec();
        let mut longest = keys.len();
        for (pool, window) in self.pools.iter().zip(&self.config.windows) {
            if window.is_none() {
                let found = keys[..longest].iter().take_while(|key| pool.find(**key).is_some()).count();
                longest = longest.min(found);
            }
        }
        // A window group needs only the blocks that the next token sees. Look for the longest prefix for which each
        // group has an unbroken run of them.
        let runs: Vec<(usize, Vec<usize>)> = self
            .pools
            .iter()
            .zip(&self.config.windows)
            .filter_map(|(pool, window)| {
                let mut run = 0;
                let lengths = keys[..longest].iter().map(|key| {
                    run = if pool.find(*key).is_some() { run + 1 } else { 0 };
                    run
                });
                window.map(|window| (window, lengths.collect()))
            })
            .collect();
        let covered = |blocks: usize| {
            runs.iter().all(|(window, run)| {
                run[blocks - 1] >= blocks - first_seen(blocks * block_tokens, *window) / block_tokens
            })
        };
        (1..=longest).rev().find(|&blocks| covered(blocks)).unwrap_or(0)
    }

    /// Whether the whole text of a waiting sequence fits beside what is reserved for the running ones.
    fn fits(&self, id: SequenceId, hit: usize, reserved: &[usize]) -> bool {
        let sequence = self.sequence(id);
        (0..self.pools.len()).all(|group| {
            let pool = &self.pools[group];
            let block_tokens = self.config.block_tokens;
            let held_back = self.config.windows[group]
                .map_or(0, |window| first_seen(hit * block_tokens, window) / block_tokens);
            // Hits that nobody references stop being available when this sequence takes them.
            let idle_hits =
                self.hits(sequence, group, held_back..hit).filter(|&block| pool.is_idle(block)).count();
            let needed =
                self.demand(group, sequence.tokens.len()).saturating_sub(hit - held_back) + idle_hits;
            needed + reserved[group] <= pool.available()
        })
    }

    fn hits<'a>(
        &'a self,
        sequence: &'a Sequence,
        group: usize,
        blocks: Range<usize>,
    ) -> impl Iterator<Item = u32> + 'a {
        sequence.known_keys()[..blocks.end][blocks.start.min(blocks.end)..]
            .iter()
            .filter_map(move |key| self.pools[group].find(*key))
    }

    /// Blocks that a sequence of `tokens` tokens holds at most in a group.
    fn demand(&self, group: usize, tokens: usize) -> usize {
        let chunk = if self.config.chunkable { self.config.limits.max_batch_tokens } else { tokens };
        blocks_for_context(tokens, chunk, self.config.block_tokens, self.config.windows[group])
    }

    /// Moves a waiting sequence to the running ones, with `hit` blocks from the cache.
    fn start(&mut self, id: SequenceId, hit: usize) {
        let block_tokens = self.config.block_tokens;
        for group in 0..self.pools.len() {
            let unseen = self.config.windows[group]
                .map_or(0, |window| first_seen(hit * block_tokens, window) / block_tokens)
                .min(hit);
            let blocks: Vec<u32> = self.hits(self.sequence(id), group, unseen..hit).collect();
            debug_assert_eq!(blocks.len(), hit - unseen);
            blocks.iter().for_each(|&block| self.pools[group].retain(block));
            let table = &mut self.sequence_mut(id).tables[group];
            table.clear();
            table.resize(unseen, FREED);
            table.extend(blocks);
        }
        let sequence = self.sequence_mut(id);
        sequence.computed = hit * block_tokens;
        sequence.cached.get_or_insert(sequence.computed);
        sequence.running = true;
        let order = sequence.order;
        self.waiting.remove(&order);
        self.run(id, order);
    }

    fn preempt_newest(&mut self, plan: &mut Plan) {
        let Some(id) = self.running.pop() else { return };
        self.release(id);
        let sequence = self.sequence_mut(id);
        sequence.computed = 0;
        sequence.running = false;
        let order = sequence.order;
        self.waiting.insert(order, id);
        plan.preempted += 1;
    }

    /// How many more tokens of a sequence the free blocks can hold.
    fn room(&self, sequence: &Sequence) -> usize {
        (0..self.pools.len())
            .map(|group| {
                let copies = usize::from(self.must_copy(sequence, group));
                let free = (self.pools[group].available()).saturating_sub(copies);
                (sequence.tables[group].len() + free) * self.config.block_tokens - sequence.computed
            })
            .min()
            .unwrap_or(usize::MAX)
    }

    /// Whether the next token goes into a block that another sequence references too.
    fn must_copy(&self, sequence: &Sequence, group: usize) -> bool {
        let partial = !sequence.computed.is_multiple_of(self.config.block_tokens);
        partial
            && sequence.tables[group]
                .get(sequence.computed / self.config.block_tokens)
                .is_some_and(|&block| self.pools[group].is_shared(block))
    }

    /// Gives a sequence the blocks for its next `count` tokens: in all groups or in none.
    fn reserve(&mut self, id: SequenceId, count: usize, copies: &mut Vec<BlockCopy>) -> bool {
        let sequence = self.sequence(id);
        let blocks = (sequence.computed + count).div_ceil(self.config.block_tokens);
        let place = sequence.computed / self.config.block_tokens;
        let enough = (0..self.pools.len()).all(|group| {
            let new = blocks.saturating_sub(sequence.tables[group].len());
            new + usize::from(self.must_copy(sequence, group)) <= self.pools[group].available()
        });
        if !enough {
            return false;
        }
        for group in 0..self.pools.len() {
            let shared = self.must_copy(self.sequence(id), group);
            let pool = &mut self.pools[group];
            #[expect(clippy::expect_used, reason = "ids are handed out and taken back by this module only")]
            let table =
                &mut self.sequences[id].as_mut().expect("invariant: the sequence exists").tables[group];
            if shared && let Some(to) = pool.allocate() {
                let from = std::mem::replace(&mut table[place], to);
                pool.release(from);
                copies.push(BlockCopy { group, from, to });
            }
            while table.len() < blocks {
                let Some(block) = pool.allocate() else { return false };
                table.push(block);
            }
        }
        true
    }

    /// Takes note that the work of a plan was done: names full blocks and frees those that no window sees any more.
    pub(crate) fn commit(&mut self, work: &Work) {
        let block_tokens = self.config.block_tokens;
        let maker = self.keys.clone();
        let Some(sequence) = self.sequences[work.sequence].as_mut() else { return };
        let before = sequence.computed / block_tokens;
        sequence.computed += work.count;
        sequence.next_row = sequence.next_row.max(work.rows.end);
        let computed = sequence.computed;
        let full = computed / block_tokens;
        if self.config.shareable && full > before {
            sequence.keys(&maker, full, block_tokens);
            for (pool, table) in self.pools.iter_mut().zip(&sequence.tables) {
                for (place, &key) in sequence.known_keys().iter().enumerate().take(full).skip(before) {
                    if is_block(table[place]) {
                        pool.name(table[place], key);
                    }
                }
            }
        }
        for (group, window) in self.config.windows.iter().enumerate() {
            let Some(window) = window else { continue };
            let unseen = first_seen(computed, *window) / block_tokens;
            let table = &mut sequence.tables[group];
            for entry in table[..unseen].iter_mut().rev().take_while(|entry| is_block(**entry)) {
                self.pools[group].release(std::mem::replace(entry, FREED));
            }
        }
    }

    /// Compares every reference with the tables that hold it.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        for (group, pool) in self.pools.iter().enumerate() {
            let mut counted = std::collections::HashMap::new();
            for sequence in self.sequences.iter().flatten() {
                assert!(
                    sequence.running || sequence.tables[group].is_empty(),
                    "a waiting sequence holds blocks"
                );
                for &block in sequence.tables[group].iter().filter(|&&entry| is_block(entry)) {
                    *counted.entry(block).or_insert(0) += 1;
                }
            }
            pool.check(&counted);
        }
        let orders: Vec<_> = self.running.iter().map(|&id| self.sequence(id).order).collect();
        assert!(orders.is_sorted(), "running sequences are in order");
        if let (Some(newest), Some((oldest, _))) = (orders.last(), self.waiting.first_key_value()) {
            assert!(newest < oldest, "a waiting sequence is older than a running one");
        }
    }
}

/// What a step may still spend on prompts.
#[derive(Debug)]
struct Budget {
    tokens: usize,
    /// Rows of logits.
    rows: usize,
    /// Whether a prompt was planned already.
    prompts: bool,
}

/// The first position that the token at `place` sees through a window, itself included.
fn first_seen(place: usize, window: usize) -> usize {
    (place + 1).saturating_sub(window)
}
