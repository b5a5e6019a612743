//! The one compute pool of a runtime. Engines take turns: a thread that holds a [`Turn`] is worker 0 and runs
//! parallel loops on all workers; the others wait in the order they came.
//!
//! Invariant: the job slot is written only by the holder of the turn, while no worker is inside a job.
#![expect(unsafe_code, reason = "a job borrows its body from the caller's stack, like a scoped thread")]

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use crate::cores::{affinity, pin_to, usable_cores};
use crate::isa::Isa;

/// How a pool is built.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// Worker count, the caller included; `None` takes [`usable_cores`].
    pub threads: Option<usize>,
    /// Pins each worker, and the thread that holds the turn, to a core of its own.
    pub pin: bool,
    /// How long an idle worker spins before it parks.
    pub spin: Duration,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self { threads: None, pin: false, spin: Duration::from_micros(50) }
    }
}

type Body = dyn Fn(usize, usize) + Sync;

struct Job {
    body: *const Body,
    tasks: usize,
    order: Order,
    caller: Option<Thread>,
}

/// Which task a free worker takes next.
#[derive(Debug, Clone, Copy)]
enum Order {
    /// The first that is left.
    First,
    /// The first that is left of its own share, then of the others' shares.
    Near,
}

/// A counter on a cache line of its own.
#[repr(align(64))]
#[derive(Default)]
struct Counter(AtomicUsize);

/// Bits of `Shared::state`: the number of workers inside the job, whether it takes workers, and its number.
const INSIDE: u64 = (1 << 32) - 1;
const OPEN: u64 = 1 << 32;
const STEP: u64 = 1 << 33;

struct Shared {
    state: AtomicU64,
    /// The next task of each worker's share; with [`Order::First`] all tasks are worker 0's.
    next: Vec<Counter>,
    job: UnsafeCell<Job>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    sleeping: Vec<AtomicBool>,
    stop: AtomicBool,
    spin: Duration,
    tickets: Mutex<Tickets>,
    served: Condvar,
}

// SAFETY: `job` is written only while `state` shows no open job and no worker inside, and read only by workers
// that have entered through `state`; everything else is synchronised by itself.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

#[derive(Default)]
struct Tickets {
    next: u64,
    serving: u64,
}

thread_local! {
    /// The pool that this thread works for or holds the turn of.
    static MEMBER_OF: Cell<*const ()> = const { Cell::new(std::ptr::null()) };
}

/// A fixed set of threads that compute together.
pub struct ComputePool {
    shared: Arc<Shared>,
    workers: Vec<(Thread, Option<JoinHandle<()>>)>,
    isa: Isa,
    cores: Option<Vec<usize>>,
}

impl std::fmt::Debug for ComputePool {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("ComputePool").field("threads", &self.threads()).field("isa", &self.isa).finish()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ComputePool {
    /// Starts the workers of a pool that uses the active instruction set.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn new(options: PoolOptions) -> std::io::Result<Self> {
        Self::with_isa(options, Isa::active())
    }

    /// Like [`ComputePool::new`], with a given instruction set, or the machine's best if that is lower.
    ///
    /// # Errors
    /// When the system refuses a thread.
    #[expect(clippy::needless_pass_by_value, reason = "options are built for the one call")]
    pub fn with_isa(options: PoolOptions, isa: Isa) -> std::io::Result<Self> {
        let threads = options.threads.unwrap_or_else(usable_cores).clamp(1, 1024);
        let cores = options.pin.then(affinity).filter(|cores| !cores.is_empty());
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            next: (0..threads).map(|_| Counter::default()).collect(),
            job: UnsafeCell::new(Job {
                body: std::ptr::from_ref::<Body>(&|_, _| ()),
                tasks: 0,
                order: Order::First,
                caller: None,
            }),
            panic: Mutex::new(None),
            sleeping: (1..threads).map(|_| AtomicBool::new(false)).collect(),
            stop: AtomicBool::new(false),
            spin: options.spin,
            tickets: Mutex::new(Tickets::default()),
            served: Condvar::new(),
        });
        let mut pool =
            Self { shared, workers: Vec::with_capacity(threads - 1), isa: isa.min(Isa::detect()), cores };
        for worker in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let core = pool.cores.as_ref().map(|cores| cores[worker % cores.len()]);
            let handle = std::thread::Builder::new().name(format!("compute-{worker}")).spawn(move || {
                if let Some(core) = core {
                    pin_to(&[core]);
                }
                MEMBER_OF.set(Arc::as_ptr(&shared).cast());
                work(&shared, worker);
            })?;
            pool.workers.push((handle.thread().clone(), Some(handle)));
        }
        Ok(pool)
    }

    /// Number of workers, the holder of the turn included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// How many threads stand in the queue for a turn.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let tickets = lock(&self.shared.tickets);
        usize::try_from((tickets.next - tickets.serving).saturating_sub(1)).unwrap_or(usize::MAX)
    }

    /// Waits for the pool, first come first served, and holds it until the turn is dropped.
    ///
    /// # Panics
    /// When this thread works for the pool or holds its turn already: it would wait for itself.
    #[must_use]
    pub fn turn(&self) -> Turn<'_> {
        let identity: *const () = Arc::as_ptr(&self.shared).cast();
        let outer = MEMBER_OF.get();
        assert!(outer != identity, "a thread inside a turn cannot take another turn of the same pool");
        {
            let mut tickets = lock(&self.shared.tickets);
            let mine = tickets.next;
            tickets.next += 1;
            while tickets.serving != mine {
                tickets = self.shared.served.wait(tickets).unwrap_or_else(PoisonError::into_inner);
            }
        }
        MEMBER_OF.set(identity);
        let restore = self.cores.as_ref().map(|cores| {
            let before = affinity();
            pin_to(&cores[..1]);
            before
        });
        Turn { pool: self, outer, restore, not_shared: PhantomData }
    }
}

impl Drop for ComputePool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for (thread, handle) in &mut self.workers {
            thread.unpark();
            if let Some(handle) = handle.take() {
                // A worker catches every panic of a body, so joining cannot fail.
                let _ = handle.join();
            }
        }
    }
}

/// The exclusive use of a pool by the calling thread. It stays on that thread, so loops cannot nest.
pub struct Turn<'a> {
    pool: &'a ComputePool,
    outer: *const (),
    restore: Option<Vec<usize>>,
    not_shared: PhantomData<*const ()>,
}

impl std::fmt::Debug for Turn<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Turn").field("threads", &self.threads()).finish()
    }
}

impl Turn<'_> {
    /// Number of workers.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The instruction set that the kernels use in this turn.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.pool.isa
    }

    /// Calls `body(task, worker)` once for every task, on whichever worker is free. Returns when all are done; a
    /// panic in a body skips the tasks not yet started and is raised again here.
    pub fn run(&self, tasks: usize, body: &(dyn Fn(usize, usize) + Sync)) {
        self.run_in(Order::First, tasks, body);
    }

    /// Like [`Turn::run`], and a worker's tasks follow each other as long as it finds such: what it walks in memory is
    /// then one piece.
    pub(crate) fn run_near(&self, tasks: usize, body: &(dyn Fn(usize, usize) + Sync)) {
        self.run_in(Order::Near, tasks, body);
    }

    fn run_in(&self, order: Order, tasks: usize, body: &(dyn Fn(usize, usize) + Sync)) {
        let shared = &*self.pool.shared;
        if tasks <= 1 || self.pool.workers.is_empty() {
            for task in 0..tasks {
                body(task, 0);
            }
            return;
        }
        // SAFETY: this thread holds the turn, and the previous `run` returned only after every worker had left
        // its job, so nobody reads the slot. The lifetime is erased, but this call does not return before the
        // job is closed and empty again.
        unsafe {
            *shared.job.get() = Job {
                body: std::mem::transmute::<*const (dyn Fn(usize, usize) + Sync + '_), *const Body>(body),
                tasks,
                order,
                caller: Some(std::thread::current()),
            };
        }
        for (worker, next) in shared.next.iter().enumerate() {
            next.0.store(order.share(worker, shared.next.len(), tasks).start, Ordering::Relaxed);
        }
        let number = shared.state.load(Ordering::Relaxed) & !(INSIDE | OPEN);
        shared.state.store((number.wrapping_add(STEP)) | OPEN, Ordering::SeqCst);
        for (index, (thread, _)) in self.pool.workers.iter().enumerate().take(tasks - 1) {
            if shared.sleeping[index].swap(false, Ordering::SeqCst) {
                thread.unpark();
            }
        }
        claim(shared, body, (order, tasks), 0);
        let mut state = shared.state.fetch_and(!OPEN, Ordering::SeqCst) & !OPEN;
        let begun = Instant::now();
        let mut rounds = 0_u32;
        while state & INSIDE != 0 {
            rounds = rounds.wrapping_add(1);
            if rounds.is_multiple_of(64) && begun.elapsed() >= shared.spin {
                std::thread::park();
            } else {
                std::hint::spin_loop();
            }
            state = shared.state.load(Ordering::Acquire);
        }
        if let Some(payload) = lock(&shared.panic).take() {
            resume_unwind(payload);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(cores) = &self.restore {
            pin_to(cores);
        }
        MEMBER_OF.set(self.outer);
        lock(&self.pool.shared.tickets).serving += 1;
        self.pool.shared.served.notify_all();
    }
}

impl Order {
    /// The tasks that are a worker's own.
    fn share(self, worker: usize, workers: usize, tasks: usize) -> Range<usize> {
        match self {
            Order::First if worker == 0 => 0..tasks,
            Order::First => tasks..tasks,
            Order::Near => worker * tasks / workers..(worker + 1) * tasks / workers,
        }
    }
}

/// Takes tasks until none is left. The first panic is kept and ends the job.
fn claim(
    shared: &Shared,
    body: &(dyn Fn(usize, usize) + Sync),
    (order, tasks): (Order, usize),
    worker: usize,
) {
    let workers = shared.next.len();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        for owner in (worker..workers).chain(0..worker) {
            let end = order.share(owner, workers, tasks).end;
            loop {
                let task = shared.next[owner].0.fetch_add(1, Ordering::Relaxed);
                if task >= end {
                    break;
                }
                body(task, worker);
            }
        }
    }));
    if let Err(payload) = outcome {
        // Half of the range, so that later claims cannot wrap around.
        shared.next.iter().for_each(|next| next.0.store(usize::MAX / 2, Ordering::Relaxed));
        lock(&shared.panic).get_or_insert(payload);
    }
}

fn work(shared: &Shared, worker: usize) {
    let mut joined = 0_u64;
    let mut idle_since = Instant::now();
    let mut rounds = 0_u32;
    loop {
        let state = shared.state.load(Ordering::SeqCst);
        let number = state & !(INSIDE | OPEN);
        if state & OPEN != 0 && number != joined {
            if shared.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                continue;
            }
            joined = number;
            // SAFETY: the job was open when this worker entered, so its slot stays as it is, and the body and the
            // caller stay alive, until this worker has left.
            let (body, work, caller) = unsafe {
                let job = &*shared.job.get();
                (&*job.body, (job.order, job.tasks), job.caller.clone())
            };
            claim(shared, body, work, worker);
            let before = shared.state.fetch_sub(1, Ordering::AcqRel);
            if before & INSIDE == 1
                && before & OPEN == 0
                && let Some(caller) = caller
            {
                caller.unpark();
            }
            idle_since = Instant::now();
            rounds = 0;
            continue;
        }
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        rounds = rounds.wrapping_add(1);
        if !rounds.is_multiple_of(64) || idle_since.elapsed() < shared.spin {
            std::hint::spin_loop();
            continue;
        }
        let sleeping = &shared.sleeping[worker - 1];
        sleeping.store(true, Ordering::SeqCst);
        let state = shared.state.load(Ordering::SeqCst);
        let fresh = state & OPEN != 0 && state & !(INSIDE | OPEN) != joined;
        if !fresh && !shared.stop.load(Ordering::SeqCst) {
            std::thread::park();
        }
        sleeping.store(false, Ordering::SeqCst);
        idle_since = Instant::now();
    }
}
