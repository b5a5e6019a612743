//! One sequence as the scheduler sees it: tokens, what of them is in the cache, and where.

use byzerllm_model::FREED;

use crate::prefix::{BlockKey, KeyMaker};

/// A place in the scheduler's table of sequences.
pub(crate) type SequenceId = usize;

/// Requests in the order of their arrival, their choices in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Order {
    pub(crate) request: u64,
    pub(crate) choice: u32,
}

/// What the scheduler is told of a new request.
#[derive(Debug, Clone)]
pub(crate) struct NewSequence {
    pub(crate) request: u64,
    pub(crate) prompt: Vec<u32>,
    /// The name of the empty prefix: domain and adapter.
    pub(crate) root: BlockKey,
    /// Choices that will be split off at the first sampled token, the first one included.
    pub(crate) choices: u32,
    /// Whether the rows of all prompt tokens are wanted.
    pub(crate) prompt_rows: bool,
    /// Whether a token is to be sampled at the end of the prompt.
    pub(crate) sample: bool,
}

#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) order: Order,
    /// Prompt and generated tokens.
    pub(crate) tokens: Vec<u32>,
    /// Length of the prompt.
    pub(crate) prompt: usize,
    /// Tokens whose keys and values are in the cache.
    pub(crate) computed: usize,
    /// Blocks per cache group.
    pub(crate) tables: Vec<Vec<u32>>,
    /// Tokens that came from the prefix cache when the sequence was first admitted.
    pub(crate) cached: Option<usize>,
    /// Sequences that this one will become.
    pub(crate) slots: u32,
    /// The next prompt position whose row is wanted; the prompt's length when none is.
    pub(crate) next_row: usize,
    pub(crate) sample: bool,
    pub(crate) running: bool,
    root: BlockKey,
    keys: Vec<BlockKey>,
}

impl Sequence {
    pub(crate) fn new(new: NewSequence, groups: usize) -> Self {
        let prompt = new.prompt.len();
        Self {
            order: Order { request: new.request, choice: 0 },
            tokens: new.prompt,
            prompt,
            computed: 0,
            tables: vec![Vec::new(); groups],
            cached: None,
            slots: new.choices,
            next_row: if new.prompt_rows { 0 } else { prompt },
            sample: new.sample,
            running: false,
            root: new.root,
            keys: Vec::new(),
        }
    }

    /// A copy for another choice; the caller counts the references to its blocks.
    pub(crate) fn fork(&self, choice: u32) -> Self {
        Self {
            order: Order { choice, ..self.order },
            tokens: self.tokens.clone(),
            tables: self.tables.clone(),
            keys: self.keys.clone(),
            slots: 1,
            ..*self
        }
    }

    /// Tokens that are not in the cache yet.
    pub(crate) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Generated tokens.
    pub(crate) fn generated(&self) -> usize {
        self.tokens.len() - self.prompt
    }

    /// The positions whose rows are wanted of the next `count` tokens.
    pub(crate) fn rows(&self, count: usize) -> std::ops::Range<usize> {
        let end = self.computed + count;
        // The row of a prompt's last token says nothing about the prompt.
        let prompt_rows = self.next_row.max(self.computed)..end.min(self.prompt - 1);
        let last = end == self.tokens.len() && self.sample;
        match (prompt_rows.is_empty(), last) {
            (true, true) => end - 1..end,
            // Nothing was sampled before all rows of the prompt were seen: the last row follows them.
            (false, true) => prompt_rows.start..end,
            (false, false) => prompt_rows,
            (true, false) => end..end,
        }
    }

    /// Whether rows of prompt tokens are still wanted.
    pub(crate) fn wants_prompt_rows(&self) -> bool {
        self.next_row + 1 < self.prompt
    }

    /// The names that were made so far.
    pub(crate) fn known_keys(&self) -> &[BlockKey] {
        &self.keys
    }

    /// The names of the first `blocks` full blocks.
    pub(crate) fn keys(&mut self, maker: &KeyMaker, blocks: usize, block_tokens: usize) -> &[BlockKey] {
        while self.keys.len() < blocks {
            let start = self.keys.len() * block_tokens;
            let parent = self.keys.last().copied().unwrap_or(self.root);
            self.keys.push(maker.child(parent, &self.tokens[start..start + block_tokens]));
        }
        &self.keys[..blocks]
    }
}

/// Whether a table entry holds a block.
pub(crate) fn is_block(entry: u32) -> bool {
    entry != FREED
}
