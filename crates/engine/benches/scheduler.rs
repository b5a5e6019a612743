//! What the scheduler's part of a step costs: planning, committing, adding and removing sequences.

use byzerllm_engine::measure::{Load, SchedulerLoad};
use criterion::{Criterion, criterion_group, criterion_main};

fn scheduler(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scheduler");
    for (name, load) in [
        // Hardly anything arrives: nearly all steps decode.
        ("decode-16", Load { sequences: 16, prompt: 32, answer: 1024 }),
        ("decode-256", Load { sequences: 256, prompt: 32, answer: 1024 }),
        // In every step some answers end, and prompts are computed beside the others.
        ("arriving-256", Load { sequences: 256, prompt: 128, answer: 192 }),
        ("long-256", Load { sequences: 256, prompt: 1024, answer: 2048 }),
    ] {
        let sequences = load.sequences;
        let mut load = SchedulerLoad::new(load);
        assert!(10 * load.running() > 9 * sequences, "{name}: only {} run", load.running());
        group.bench_function(name, |bencher| bencher.iter(|| load.step()));
    }
    group.finish();
}

criterion_group!(benches, scheduler);
criterion_main!(benches);
