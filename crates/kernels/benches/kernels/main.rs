//! Each kernel at the shapes that models have. `bench/README.md` says how to run a part of it.
#![expect(clippy::unwrap_used, reason = "a measurement ends at the first surprise")]

mod attention;
mod data;
mod encoders;
mod products;
mod rows;
mod vocabulary;

use byzerllm_kernels::{ComputePool, PoolOptions, Turn};
use criterion::Criterion;

fn main() {
    // Threads are pinned, as in the server; BYZERLLM_ISA lowers the instruction set.
    let threads = std::env::var("BYZERLLM_THREADS").ok().map(|text| text.parse().unwrap());
    let pool = ComputePool::new(PoolOptions { threads, pin: true, ..PoolOptions::default() }).unwrap();
    let turn: Turn<'_> = pool.turn();
    let mut criterion = Criterion::default().configure_from_args();
    products::benches(&mut criterion, &turn);
    attention::benches(&mut criterion, &turn);
    encoders::benches(&mut criterion, &turn);
    rows::benches(&mut criterion, &turn);
    vocabulary::benches(&mut criterion, &turn);
    criterion.final_summary();
}
