//! Which texts of which requests the next step computes: pure, without time of its own and without a network.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use byzerllm_core::{Error, ErrorKind, Result, Usage};
use byzerllm_model::encoder::EncoderInput;
use tokio::sync::oneshot;

use crate::error::EngineError;

/// One text as ids, special tokens and cut included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sequence {
    pub(super) ids: Vec<u32>,
    pub(super) types: Vec<u8>,
}

impl Sequence {
    pub(super) fn as_input(&self) -> EncoderInput<'_> {
        EncoderInput { ids: &self.ids, types: &self.types }
    }
}

/// What a request gets: its rows one after another.
pub(super) type Reply = Result<Vec<f32>>;

/// A request in the queue.
#[derive(Debug)]
struct Job {
    sequences: Arc<Vec<Sequence>>,
    /// Sequences that a step has taken.
    taken: usize,
    /// Sequences whose rows are there.
    done: usize,
    /// Tokens of those.
    computed: usize,
    rows: Vec<f32>,
    deadline: Option<Instant>,
    reply: oneshot::Sender<Reply>,
}

/// One text of a step.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) serial: u64,
    sequences: Arc<Vec<Sequence>>,
    pub(super) index: usize,
}

impl Piece {
    pub(super) fn sequence(&self) -> &Sequence {
        &self.sequences[self.index]
    }

    pub(super) fn tokens(&self) -> usize {
        self.sequence().ids.len()
    }
}

/// The requests that are not complete.
#[derive(Debug, Default)]
pub(super) struct Queue {
    jobs: BTreeMap<u64, Job>,
    /// Those with texts that no step has taken, in the order of their turns.
    turns: VecDeque<u64>,
    next_serial: u64,
    /// Tokens that no step has taken.
    tokens: usize,
    /// Requests of which no step has taken anything.
    untouched: usize,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    pub(super) fn untouched(&self) -> usize {
        self.untouched
    }

    pub(super) fn has_work(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Takes a request of at least one sequence.
    pub(super) fn push(
        &mut self,
        sequences: Vec<Sequence>,
        width: usize,
        deadline: Option<Instant>,
        reply: oneshot::Sender<Reply>,
    ) -> u64 {
        let serial = self.next_serial;
        self.next_serial += 1;
        self.tokens += sequences.iter().map(|sequence| sequence.ids.len()).sum::<usize>();
        self.untouched += 1;
        let rows = vec![0.0; sequences.len() * width];
        let sequences = Arc::new(sequences);
        self.jobs.insert(serial, Job { sequences, taken: 0, done: 0, computed: 0, rows, deadline, reply });
        self.turns.push_back(serial);
        serial
    }

    /// Forgets a request. What a step computes of it at present is thrown away.
    fn remove(&mut self, serial: u64) -> Option<Job> {
        let job = self.jobs.remove(&serial)?;
        self.turns.retain(|turn| *turn != serial);
        let left = job.sequences[job.taken..].iter().map(|sequence| sequence.ids.len()).sum::<usize>();
        self.tokens -= left;
        if job.taken == 0 {
            self.untouched -= 1;
        }
        Some(job)
    }

    pub(super) fn cancel(&mut self, serial: u64) {
        self.remove(serial);
    }

    /// Fails requests whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        let late = |job: &Job| job.deadline.is_some_and(|deadline| deadline <= now);
        let late: Vec<u64> =
            self.jobs.iter().filter(|(_, job)| late(job)).map(|(serial, _)| *serial).collect();
        for serial in late {
            self.fail(serial, EngineError::Late.into());
        }
    }

    /// Fails one request, with the tokens that were spent on it.
    pub(super) fn fail(&mut self, serial: u64, error: Error) {
        if let Some(job) = self.remove(serial) {
            let prompt_tokens = u32::try_from(job.computed).unwrap_or(u32::MAX);
            let error = match prompt_tokens {
                0 => error,
                _ => error.with_usage(Usage { prompt_tokens, ..Usage::default() }),
            };
            // Nobody may wait for it any more.
            let _ = job.reply.send(Err(error));
        }
    }

    pub(super) fn fail_all(&mut self, error: &Error) {
        let serials: Vec<u64> = self.jobs.keys().copied().collect();
        serials.into_iter().for_each(|serial| self.fail(serial, error.duplicate()));
    }

    /// What the next step computes: at most `budget` tokens, at least one text when there is any. Every request has an
    /// equal share of the budget; what some leave goes to the others in turn. Whoever got nothing comes first the
    /// next time. Longer texts stand first, so that the last ones to be computed are short.
    pub(super) fn plan(&mut self, budget: usize) -> Vec<Piece> {
        let mut step: Vec<Piece> = Vec::new();
        let mut left = budget;
        let share = budget / self.turns.len().max(1);
        let mut served = vec![false; self.turns.len()];
        for allowance in [share, budget] {
            for (place, served) in served.iter_mut().enumerate() {
                let (taken, tokens) = self.take(self.turns[place], allowance.min(left), step.is_empty());
                left = left.saturating_sub(tokens);
                *served |= !taken.is_empty();
                step.extend(taken);
            }
        }
        let turns = std::mem::take(&mut self.turns);
        let open = |serial: &u64| self.jobs.get(serial).is_some_and(|job| job.taken < job.sequences.len());
        let all = served.iter().all(|served| *served);
        let (mut after, mut before) = (VecDeque::new(), VecDeque::new());
        for (serial, served) in turns.into_iter().zip(served) {
            if open(&serial) {
                if served { after.push_back(serial) } else { before.push_back(serial) }
            }
        }
        if all && after.len() > 1 {
            after.rotate_left(1);
        }
        before.append(&mut after);
        self.turns = before;
        step.sort_by_key(|piece| std::cmp::Reverse(piece.tokens()));
        step
    }

    /// Takes texts of a request up to so many tokens; its next one whatever its length when it `must`.
    fn take(&mut self, serial: u64, allowance: usize, must: bool) -> (Vec<Piece>, usize) {
        let (mut pieces, mut tokens) = (Vec::new(), 0);
        let Some(job) = self.jobs.get_mut(&serial) else { return (pieces, 0) };
        let untouched = job.taken == 0;
        while let Some(sequence) = job.sequences.get(job.taken) {
            let length = sequence.ids.len();
            if tokens + length > allowance && !(must && pieces.is_empty()) {
                break;
            }
            pieces.push(Piece { serial, sequences: Arc::clone(&job.sequences), index: job.taken });
            tokens += length;
            job.taken += 1;
        }
        self.tokens -= tokens;
        if untouched && !pieces.is_empty() {
            self.untouched -= 1;
        }
        (pieces, tokens)
    }

    /// Keeps a computed row, and answers the request when it was the last one.
    pub(super) fn finish(&mut self, piece: &Piece, row: &[f32]) {
        if let Some(place) = row.iter().position(|number| !number.is_finite()) {
            let index = piece.index;
            let message = format!(
                "the model computed a number that is infinite or none (input {index}, place {place}); its weights may be \
                 damaged"
            );
            self.fail(piece.serial, Error::new(ErrorKind::Internal, message));
            return;
        }
        let Some(job) = self.jobs.get_mut(&piece.serial) else { return };
        let start = piece.index * row.len();
        if let Some(kept) = job.rows.get_mut(start..start + row.len()) {
            kept.copy_from_slice(row);
        }
        job.done += 1;
        job.computed += piece.tokens();
        if job.done == job.sequences.len()
            && let Some(job) = self.remove(piece.serial)
        {
            let _ = job.reply.send(Ok(job.rows));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences(lengths: &[usize]) -> Vec<Sequence> {
        lengths.iter().map(|&length| Sequence { ids: vec![1; length], types: vec![0; length] }).collect()
    }

    fn push(queue: &mut Queue, lengths: &[usize]) -> (u64, oneshot::Receiver<Reply>) {
        let (reply, answer) = oneshot::channel();
        (queue.push(sequences(lengths), 1, None, reply), answer)
    }

    fn planned(queue: &mut Queue, budget: usize) -> Vec<(u64, usize)> {
        queue.plan(budget).iter().map(|piece| (piece.serial, piece.tokens())).collect()
    }

    #[test]
    fn a_step_holds_the_budget_and_longer_texts_come_first() {
        let mut queue = Queue::default();
        push(&mut queue, &[3, 9, 5]);
        assert_eq!(planned(&mut queue, 12), [(0, 9), (0, 3)]);
        assert_eq!((queue.tokens(), queue.untouched(), queue.has_work()), (5, 0, true));
        assert_eq!(planned(&mut queue, 12), [(0, 5)]);
        assert!(!queue.has_work() && queue.plan(12).is_empty());
    }

    #[test]
    fn a_text_longer_than_the_budget_is_a_step_of_its_own() {
        let mut queue = Queue::default();
        push(&mut queue, &[40, 1]);
        push(&mut queue, &[2]);
        assert_eq!(planned(&mut queue, 10), [(0, 40)]);
        assert_eq!(planned(&mut queue, 10), [(1, 2), (0, 1)]);
    }

    #[test]
    fn small_requests_do_not_wait_for_a_large_one() {
        let mut queue = Queue::default();
        push(&mut queue, &[10; 2000]);
        planned(&mut queue, 100);
        for _ in 0..4 {
            push(&mut queue, &[8]);
        }
        let step = planned(&mut queue, 100);
        assert_eq!(step.iter().filter(|(serial, _)| *serial > 0).count(), 4, "{step:?}");
        assert_eq!(step.iter().filter(|(serial, _)| *serial == 0).count(), 6, "the rest is the large one's");
    }

    #[test]
    fn nobody_starves_when_more_requests_wait_than_a_step_holds() {
        let mut queue = Queue::default();
        for _ in 0..7 {
            push(&mut queue, &[6; 3]);
        }
        let mut seen = vec![0; 7];
        let mut steps = 0;
        while queue.has_work() {
            let step = planned(&mut queue, 12);
            assert!(step.iter().map(|(_, tokens)| tokens).sum::<usize>() <= 12);
            step.iter().for_each(|(serial, _)| seen[*serial as usize] += 1);
            steps += 1;
            let (least, most) = (seen.iter().min().unwrap(), seen.iter().max().unwrap());
            assert!(most - least <= 2, "after {steps} steps: {seen:?}");
        }
        assert_eq!((seen, steps), (vec![3; 7], 11));
    }

    #[test]
    fn rows_come_back_in_the_order_of_the_request() {
        let mut queue = Queue::default();
        let (_, mut answer) = push(&mut queue, &[1, 3, 2]);
        let step = queue.plan(100);
        for piece in &step {
            queue.finish(piece, &[piece.tokens() as f32]);
        }
        assert_eq!(answer.try_recv().unwrap().unwrap(), [1.0, 3.0, 2.0]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn a_cancelled_request_leaves_nothing() {
        let mut queue = Queue::default();
        let (serial, mut answer) = push(&mut queue, &[5; 4]);
        let step = queue.plan(10);
        queue.cancel(serial);
        assert_eq!((queue.len(), queue.tokens(), queue.untouched()), (0, 0, 0));
        step.iter().for_each(|piece| queue.finish(piece, &[1.0]));
        assert!(answer.try_recv().is_err() && !queue.has_work());
        push(&mut queue, &[5]);
        queue.cancel(1);
        assert_eq!((queue.tokens(), queue.untouched()), (0, 0));
    }

    #[test]
    fn a_late_request_fails_with_what_was_spent() {
        let mut queue = Queue::default();
        let now = Instant::now();
        let (reply, mut answer) = oneshot::channel();
        queue.push(sequences(&[5, 5]), 1, Some(now), reply);
        let step = queue.plan(5);
        queue.finish(&step[0], &[1.0]);
        queue.expire(now);
        let error = answer.try_recv().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
        assert_eq!(error.usage().unwrap().prompt_tokens, 5);
        assert_eq!((queue.len(), queue.tokens()), (0, 0));
    }

    #[test]
    fn a_row_that_is_no_number_fails_its_request_only() {
        let mut queue = Queue::default();
        let (_, mut broken) = push(&mut queue, &[1]);
        let (_, mut whole) = push(&mut queue, &[1]);
        for piece in queue.plan(10) {
            queue.finish(&piece, &[if piece.serial == 0 { f32::NAN } else { 1.0 }]);
        }
        assert_eq!(broken.try_recv().unwrap().unwrap_err().kind(), ErrorKind::Internal);
        assert!(whole.try_recv().unwrap().is_ok());
    }
}
