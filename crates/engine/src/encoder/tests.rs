//! The desk and its thread over a scripted network.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use byzerllm_core::{Error, ErrorKind, Result};
use byzerllm_model::Rows;
use byzerllm_model::encoder::{Encoder, EncoderInput, EncoderTraits, Task};
use futures::future;

use super::desk::Desk;
use super::options::EncoderOptions;
use super::queue::Sequence;
use super::worker::Worker;

/// The id that makes a step fail, and the one that makes it panic.
const POISON: u32 = 666;
const PANIC: u32 = 667;

/// Its row is the number of tokens and the first id. It stands still while its gate is shut.
struct Scripted {
    traits: EncoderTraits,
    rows: Vec<f32>,
    steps: Arc<Mutex<Vec<Vec<usize>>>>,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    shut: Mutex<bool>,
    changed: Condvar,
    reached: AtomicUsize,
}

impl Gate {
    fn set(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.changed.notify_all();
    }

    fn pass(&self) {
        self.reached.fetch_add(1, Ordering::SeqCst);
        let _open = self.changed.wait_while(self.shut.lock().unwrap(), |shut| *shut).unwrap();
    }

    async fn reached(&self, times: usize) {
        while self.reached.load(Ordering::SeqCst) < times {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Encoder for Scripted {
    fn traits(&self) -> &EncoderTraits {
        &self.traits
    }

    fn encode(&mut self, sequences: &[EncoderInput<'_>]) -> Result<Rows<'_>> {
        self.gate.pass();
        assert!(sequences.iter().all(|input| input.ids[0] != PANIC), "a scripted panic");
        if sequences.iter().any(|input| input.ids[0] == POISON) {
            return Err(Error::new(ErrorKind::Unavailable, "no memory"));
        }
        self.steps.lock().unwrap().push(sequences.iter().map(|input| input.ids.len()).collect());
        self.rows =
            sequences.iter().flat_map(|input| [input.ids.len() as f32, input.ids[0] as f32]).collect();
        Ok(Rows::new(&self.rows, 2))
    }
}

struct Stage {
    desk: Arc<Desk>,
    steps: Arc<Mutex<Vec<Vec<usize>>>>,
    gate: Arc<Gate>,
}

fn stage(options: EncoderOptions) -> Stage {
    let desk = Arc::new(Desk::new("emb".to_owned(), 2, options));
    let (steps, gate) = (Arc::default(), Arc::new(Gate::default()));
    let traits = EncoderTraits {
        task: Task::Embed,
        width: 2,
        max_length: 512,
        vocab_size: 1000,
        weight_bytes: 0,
        compute: "scripted".to_owned(),
    };
    let network = Scripted { traits, rows: Vec::new(), steps: Arc::clone(&steps), gate: Arc::clone(&gate) };
    Worker::start(Box::new(network), &desk, "emb".to_owned()).unwrap();
    Stage { desk, steps, gate }
}

fn text(id: u32, length: usize) -> Sequence {
    Sequence { ids: vec![id; length], types: vec![0; length] }
}

impl Stage {
    async fn ask(&self, sequences: Vec<Sequence>) -> Result<Vec<f32>> {
        self.desk.submit(sequences, None)?.rows(None).await
    }

    async fn gone(&self) {
        let mut gone = self.desk.gone.subscribe();
        gone.wait_for(|gone| *gone).await.unwrap();
    }
}

#[tokio::test]
async fn requests_that_arrive_during_a_step_share_the_next_one() {
    let stage = stage(EncoderOptions::default());
    stage.gate.set(true);
    let first = stage.ask(vec![text(1, 4)]);
    let rest = async {
        stage.gate.reached(1).await;
        let waiting: Vec<_> =
            (2..10).map(|id| stage.desk.submit(vec![text(id, id as usize)], None).unwrap()).collect();
        assert_eq!(stage.desk.metrics().waiting, 8);
        stage.gate.set(false);
        future::try_join_all(waiting.into_iter().map(|ticket| ticket.rows(None))).await
    };
    let (first, rest) = future::join(first, rest).await;
    assert_eq!(first.unwrap(), [4.0, 1.0]);
    let expected: Vec<Vec<f32>> = (2..10).map(|id| vec![id as f32, id as f32]).collect();
    assert_eq!(rest.unwrap(), expected);
    assert_eq!(*stage.steps.lock().unwrap(), [vec![4], vec![9, 8, 7, 6, 5, 4, 3, 2]]);
    let metrics = stage.desk.metrics();
    assert_eq!((metrics.steps, metrics.requests, metrics.computed_tokens), (2, 9, 48));
    assert_eq!((metrics.waiting, metrics.running, metrics.prompt_tokens), (0, 0, 48));
}

#[tokio::test]
async fn a_small_request_overtakes_two_thousand_texts() {
    let stage = stage(EncoderOptions { max_batch_tokens: 100, ..EncoderOptions::default() });
    stage.gate.set(true);
    let large = stage.ask(vec![text(1, 10); 2000]);
    let small = async {
        stage.gate.reached(1).await;
        let ticket = stage.desk.submit(vec![text(2, 8)], None).unwrap();
        stage.gate.set(false);
        ticket.rows(None).await.unwrap();
        stage.steps.lock().unwrap().len()
    };
    let (large, steps) = future::join(large, small).await;
    assert_eq!(large.unwrap().len(), 4000);
    // The thread may have gone on by the time that the caller looks; the step itself tells.
    assert!(steps >= 2 && stage.steps.lock().unwrap()[1].contains(&8));
}

#[tokio::test]
async fn a_dropped_request_is_not_computed() {
    let stage = stage(EncoderOptions { max_batch_tokens: 10, ..EncoderOptions::default() });
    stage.gate.set(true);
    let (first, dropped) = (stage.desk.submit(vec![text(1, 10)], None).unwrap(), async {
        stage.gate.reached(1).await;
        drop(stage.desk.submit(vec![text(2, 10); 50], None).unwrap());
        stage.gate.set(false);
    });
    let (first, ()) = future::join(first.rows(None), dropped).await;
    first.unwrap();
    stage.ask(vec![text(3, 3)]).await.unwrap();
    assert_eq!(*stage.steps.lock().unwrap(), [vec![10], vec![3]]);
}

#[tokio::test]
async fn a_deadline_ends_the_wait_and_takes_the_request_back() {
    let stage = stage(EncoderOptions::default());
    stage.gate.set(true);
    let first = stage.desk.submit(vec![text(1, 1)], None).unwrap();
    stage.gate.reached(1).await;
    let soon = Instant::now() + Duration::from_millis(5);
    let late = stage.desk.submit(vec![text(2, 2)], Some(soon)).unwrap().rows(Some(soon)).await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    stage.gate.set(false);
    first.rows(None).await.unwrap();
    assert!(!stage.desk.is_busy());
}

#[tokio::test]
async fn the_queue_is_bounded_in_requests_and_tokens() {
    let options = EncoderOptions { queue_limit: 3, queue_tokens: 100, ..EncoderOptions::default() };
    let stage = stage(options);
    stage.gate.set(true);
    let first = stage.desk.submit(vec![text(1, 500)], None).expect("an empty queue takes everything");
    stage.gate.reached(1).await;
    let second = stage.desk.submit(vec![text(2, 90)], None).unwrap();
    let error = stage.desk.submit(vec![text(3, 20)], None).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(error.retry_after().is_some());
    let third = stage.desk.submit(vec![text(3, 5)], None).unwrap();
    assert_eq!(stage.desk.submit(vec![text(4, 1)], None).err().unwrap().kind(), ErrorKind::Overloaded);
    stage.gate.set(false);
    for ticket in [first, second, third] {
        ticket.rows(None).await.unwrap();
    }
}

#[tokio::test]
async fn one_request_that_fails_does_not_fail_its_neighbours() {
    let stage = stage(EncoderOptions::default());
    stage.gate.set(true);
    let first = stage.desk.submit(vec![text(1, 1)], None).unwrap();
    stage.gate.reached(1).await;
    let good = stage.desk.submit(vec![text(2, 2), text(3, 3)], None).unwrap();
    let bad = stage.desk.submit(vec![text(4, 4), text(POISON, 1)], None).unwrap();
    stage.gate.set(false);
    first.rows(None).await.unwrap();
    assert_eq!(good.rows(None).await.unwrap(), [2.0, 2.0, 3.0, 3.0]);
    assert_eq!(bad.rows(None).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn shutdown_fails_what_waits_and_frees_the_network() {
    let stage = stage(EncoderOptions::default());
    stage.gate.set(true);
    let first = stage.desk.submit(vec![text(1, 1)], None).unwrap();
    stage.gate.reached(1).await;
    let waiting = stage.desk.submit(vec![text(2, 2)], None).unwrap();
    stage.desk.stop();
    assert_eq!(stage.desk.submit(vec![text(3, 1)], None).err().unwrap().kind(), ErrorKind::Unavailable);
    stage.gate.set(false);
    assert!(first.rows(None).await.is_ok(), "the step in work is finished");
    assert_eq!(waiting.rows(None).await.unwrap_err().kind(), ErrorKind::Unavailable);
    stage.gone().await;
}

#[tokio::test]
async fn a_panic_of_the_network_is_an_error_and_no_hang() {
    let stage = stage(EncoderOptions::default());
    let error = stage.ask(vec![text(PANIC, 1)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    stage.gone().await;
    assert_eq!(stage.ask(vec![text(1, 1)]).await.unwrap_err().kind(), ErrorKind::Internal);
}

#[tokio::test]
async fn sixty_four_callers_get_their_own_rows() {
    let stage = Arc::new(stage(EncoderOptions { max_batch_tokens: 64, ..EncoderOptions::default() }));
    let callers = (0..64u32).map(|caller| {
        let stage = Arc::clone(&stage);
        tokio::spawn(async move {
            for round in 0..20usize {
                let lengths = [1 + (caller as usize + round) % 7, 1 + round % 40];
                let sequences = lengths.map(|length| text(caller, length)).to_vec();
                let rows = stage.ask(sequences).await.unwrap();
                let caller = caller as f32;
                assert_eq!(rows, [lengths[0] as f32, caller, lengths[1] as f32, caller]);
            }
        })
    });
    future::try_join_all(callers).await.unwrap();
    let steps = stage.steps.lock().unwrap();
    assert!(steps.iter().all(|step| step.iter().sum::<usize>() <= 64), "the budget holds");
    assert_eq!(steps.iter().map(Vec::len).sum::<usize>(), 64 * 20 * 2);
}
