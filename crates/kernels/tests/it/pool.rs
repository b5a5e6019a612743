//! The compute pool: panics, misuse, order, many users.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use byzerllm_kernels::{ComputePool, Isa, PoolOptions, usable_cores};

use crate::support::pool;

#[test]
fn every_task_runs_once() {
    for threads in [1, 2, 3, 8] {
        let pool = pool(threads, Isa::Scalar);
        let turn = pool.turn();
        assert_eq!(turn.threads(), threads);
        for tasks in [0, 1, 2, 7, 1000] {
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            turn.run(tasks, &|task, worker| {
                assert!(worker < threads);
                counts[task].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        }
    }
}

#[test]
fn many_short_loops_reach_parked_and_spinning_workers() {
    for spin in [0, 50] {
        let spin = std::time::Duration::from_micros(spin);
        let pool = ComputePool::new(PoolOptions { threads: Some(3), pin: false, spin }).unwrap();
        let total = AtomicUsize::new(0);
        for _ in 0..200 {
            let turn = pool.turn();
            for _ in 0..20 {
                turn.run(5, &|_, _| {
                    total.fetch_add(1, Ordering::Relaxed);
                });
            }
        }
        assert_eq!(total.load(Ordering::Relaxed), 200 * 20 * 5);
    }
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_survives() {
    let pool = pool(3, Isa::Scalar);
    for round in 0..50 {
        let turn = pool.turn();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            turn.run(64, &|task, _| assert!(task != round, "task {task} broke"));
        }));
        let payload = outcome.unwrap_err();
        assert_eq!(payload.downcast_ref::<String>().unwrap(), &format!("task {round} broke"));
        let count = AtomicUsize::new(0);
        turn.run(64, &|_, _| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.load(Ordering::Relaxed), 64);
    }
}

#[test]
fn a_turn_inside_a_turn_is_refused_rather_than_waited_for() {
    let pool = pool(2, Isa::Scalar);
    let turn = pool.turn();
    assert!(catch_unwind(AssertUnwindSafe(|| pool.turn())).is_err());
    let inner = catch_unwind(AssertUnwindSafe(|| turn.run(8, &|_, _| drop(pool.turn()))));
    assert!(inner.is_err());
    drop(turn);
    // The thread may hold turns of other pools, and of this one again.
    let other = super::support::pool(2, Isa::Scalar);
    let turn = pool.turn();
    other.turn().run(4, &|_, _| ());
    turn.run(4, &|_, _| ());
}

#[test]
fn turns_are_served_in_the_order_asked() {
    let pool = pool(2, Isa::Scalar);
    let order = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let turn = pool.turn();
        for number in 0..6 {
            let (pool, order) = (&pool, &order);
            let (ready, wait) = std::sync::mpsc::channel();
            scope.spawn(move || {
                ready.send(()).unwrap();
                let _turn = pool.turn();
                order.lock().unwrap().push(number);
            });
            wait.recv().unwrap();
            // The next one starts only when this one stands in the queue.
            while pool.waiting() != number + 1 {
                std::thread::yield_now();
            }
        }
        drop(turn);
    });
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn several_threads_share_the_pool() {
    let pool = pool(3, Isa::Scalar);
    let inside = AtomicUsize::new(0);
    let total = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..300 {
                    let turn = pool.turn();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two turns at once");
                    turn.run(7, &|_, _| {
                        total.fetch_add(1, Ordering::Relaxed);
                    });
                    inside.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(total.load(Ordering::Relaxed), 4 * 300 * 7);
}

#[test]
fn a_turn_dropped_by_a_panic_frees_the_pool() {
    let pool = pool(2, Isa::Scalar);
    std::thread::scope(|scope| {
        let broken = scope.spawn(|| {
            let _turn = pool.turn();
            panic!("an engine broke");
        });
        assert!(broken.join().is_err());
    });
    pool.turn().run(2, &|_, _| ());
}

#[test]
fn pinned_pools_give_the_caller_its_cores_back() {
    let before = usable_cores();
    let pool = ComputePool::new(PoolOptions { pin: true, ..PoolOptions::default() }).unwrap();
    {
        let turn = pool.turn();
        turn.run(16, &|_, _| ());
    }
    assert_eq!(usable_cores(), before);
    assert_eq!(pool.threads(), before);
}
