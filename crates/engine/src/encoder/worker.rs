//! The thread that owns the network: wait for work, plan, compute, answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use byzerllm_core::{Error, Result};
use byzerllm_model::encoder::{Encoder, EncoderInput};

use super::desk::Desk;
use super::queue::Piece;
use crate::error::EngineError;
use crate::intake::Life;
use crate::metrics::add;

pub(super) struct Worker {
    network: Box<dyn Encoder>,
    desk: Arc<Desk>,
    name: String,
}

impl Worker {
    /// Starts the thread.
    pub(super) fn start(network: Box<dyn Encoder>, desk: &Arc<Desk>, name: String) -> Result<()> {
        let mut worker = Self { network, desk: Arc::clone(desk), name };
        let desk = Arc::clone(desk);
        let run = move || {
            let ended = catch_unwind(AssertUnwindSafe(|| worker.run()));
            desk.life.send_replace(if ended.is_ok() { Life::Stopped } else { Life::Failed });
            desk.close();
            // The memory is free for the next model only when the network is gone.
            drop(worker);
            desk.gone.send_replace(true);
        };
        std::thread::Builder::new()
            .name("byzerllm-encoder".to_owned())
            .spawn(run)
            .map(drop)
            .map_err(|error| EngineError::Thread(error).into())
    }

    fn run(&mut self) {
        let budget = self.desk.options().max_batch_tokens.max(1);
        loop {
            let mut state = self.desk.wait();
            if state.stop {
                return;
            }
            state.queue.expire(Instant::now());
            let step = state.queue.plan(budget);
            self.desk.gauges.waiting.store(state.queue.untouched(), Ordering::Relaxed);
            drop(state);
            if step.is_empty() {
                continue;
            }
            self.compute(&step);
            self.desk.progress.send_replace(Some(Instant::now()));
        }
    }

    /// Computes a step. When it fails, each request is tried alone, so that one cannot fail the others.
    fn compute(&mut self, step: &[Piece]) {
        let Err(error) = self.encode(step) else { return };
        tracing::warn!(model = %self.name, %error, pieces = step.len(), "a step of the encoder failed");
        let mut serials: Vec<u64> = step.iter().map(|piece| piece.serial).collect();
        serials.sort_unstable();
        serials.dedup();
        if let [serial] = serials[..] {
            self.desk.lock().queue.fail(serial, error);
            return;
        }
        for serial in serials {
            let own: Vec<Piece> = step.iter().filter(|piece| piece.serial == serial).cloned().collect();
            if let Err(error) = self.encode(&own) {
                self.desk.lock().queue.fail(serial, error);
            }
        }
    }

    fn encode(&mut self, step: &[Piece]) -> Result<()> {
        let inputs: Vec<EncoderInput<'_>> = step.iter().map(|piece| piece.sequence().as_input()).collect();
        // Told before the answers are, so that nobody with an answer sees its step in work.
        self.desk.gauges.running.store(step.len(), Ordering::Relaxed);
        let rows = self.network.encode(&inputs);
        self.desk.gauges.running.store(0, Ordering::Relaxed);
        let rows = rows?;
        if rows.len() != step.len() {
            let message = format!("the network computed {} rows of {} texts", rows.len(), step.len());
            return Err(Error::internal(message));
        }
        let tokens: usize = step.iter().map(Piece::tokens).sum();
        add(&self.desk.gauges.steps, 1);
        add(&self.desk.gauges.computed_tokens, tokens);
        let mut state = self.desk.lock();
        for (index, piece) in step.iter().enumerate() {
            state.queue.finish(piece, rows.row(index));
        }
        Ok(())
    }
}
