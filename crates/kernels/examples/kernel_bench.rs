//! Prints the speed of packing, products and attention on this machine: `kernel_bench [threads]`.
#![expect(clippy::print_stdout, reason = "printing is its purpose")]

use std::time::{Duration, Instant};

use byzerllm_kernels::{
    AttentionSequence, AttentionShape, CachePlane, CacheShape, CacheType, Compute, ComputePool, KernelError,
    Mask, Matrix, PoolOptions, Scratch, TensorType, TensorView, Turn, attend,
};

const SHAPES: [(usize, usize); 3] = [(1536, 576), (4864, 896), (11_008, 4096)];

fn noise(count: usize) -> Vec<f32> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Encoded values with plain scales: only their speed matters.
fn encoded(kind: TensorType, count: usize) -> Vec<u8> {
    let bytes = count / kind.block_len() * kind.block_bytes();
    if kind == TensorType::F32 {
        return noise(count).iter().flat_map(|value| value.to_le_bytes()).collect();
    }
    noise(bytes).iter().map(|value| ((value + 1.0) * 30.0) as u8).collect()
}

fn median(mut body: impl FnMut()) -> Duration {
    body();
    let mut times = Vec::new();
    let begun = Instant::now();
    while times.len() < 5 || (begun.elapsed() < Duration::from_millis(300) && times.len() < 2000) {
        let start = Instant::now();
        body();
        times.push(start.elapsed());
    }
    times.sort();
    times[times.len() / 2]
}

fn products(turn: &Turn<'_>, kind: TensorType, compute: Compute) -> Result<(), KernelError> {
    for (rows, cols) in SHAPES {
        let cols = if cols % kind.block_len() == 0 { cols } else { cols.next_multiple_of(kind.block_len()) };
        let data = encoded(kind, rows * cols);
        let view = TensorView::new(kind, rows, cols, &data)?;
        let start = Instant::now();
        let matrix = Matrix::pack(turn, &[view], compute)?;
        let pack = start.elapsed();
        let mut scratch = Scratch::default();
        let mut line = format!("{:<36} {rows:>6} x {cols:<5}", matrix.path());
        for batch in [1, 4, 16, 512] {
            let input = noise(batch * cols);
            let mut output = vec![0.0; batch * rows];
            let time = median(|| matrix.apply(turn, &input, None, &mut output, &mut scratch));
            let operations = 2.0 * (batch * rows * cols) as f64 / time.as_secs_f64() / 1e9;
            line += &format!("  M={batch}: {operations:>6.1}");
            if batch == 1 {
                line += &format!(" ({:>5.1} GB/s)", matrix.bytes() as f64 / time.as_secs_f64() / 1e9);
            }
        }
        println!("{line}  pack {:.2} GB/s", data.len() as f64 / pack.as_secs_f64() / 1e9);
    }
    Ok(())
}

fn attention(
    turn: &Turn<'_>,
    kind: CacheType,
    heads: usize,
    kv_heads: usize,
    rows: usize,
    length: usize,
) -> Result<(), KernelError> {
    let head_dim = 64;
    let block_tokens = 16;
    let blocks: Vec<u32> = (0..length.div_ceil(block_tokens) as u32).collect();
    let mut plane =
        CachePlane::new(CacheShape { blocks: blocks.len(), block_tokens, kv_heads, head_dim, kind })?;
    let width = 2 * kv_heads * head_dim;
    let stored =
        AttentionSequence { rows: 0..length, first_position: 0, length, blocks: &blocks, mask: Mask::Causal };
    plane.write(turn, &noise(length * width), width, 0, &[stored]);
    let shape = AttentionShape {
        heads,
        kv_heads,
        head_dim,
        scale: 0.125,
        soft_cap: None,
        window: None,
        alibi_slopes: None,
    };
    let queries = noise(rows * heads * head_dim);
    let mut output = vec![0.0; queries.len()];
    let mut scratch = Scratch::default();
    let time = median(|| {
        let sequence = AttentionSequence {
            rows: 0..rows,
            first_position: length - rows,
            length,
            blocks: &blocks,
            mask: Mask::Causal,
        };
        attend(turn, &shape, &plane, &queries, heads * head_dim, &[sequence], &mut output, &mut scratch);
    });
    let pairs = rows * (length - rows) + rows * (rows + 1) / 2;
    let operations = 4.0 * (pairs * heads * head_dim) as f64 / time.as_secs_f64() / 1e9;
    println!(
        "attention {kind:?} {heads}/{kv_heads} heads, {rows:>4} queries, {length:>5} keys: {time:>10.1?} {operations:>6.1} GFLOP/s"
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let threads = std::env::args().nth(1).map(|text| text.parse()).transpose()?;
    let pool = ComputePool::new(PoolOptions { threads, pin: true, ..PoolOptions::default() })?;
    let turn = pool.turn();
    println!("{} threads, {}; products in Gop/s", turn.threads(), turn.isa());
    let fast = [TensorType::Q4_1, TensorType::Q4K, TensorType::Q5_0, TensorType::Q8_0, TensorType::Q6K];
    for kind in fast {
        products(&turn, kind, Compute::Fast)?;
    }
    for kind in [TensorType::Q4_1, TensorType::Q8_0, TensorType::F32, TensorType::F16] {
        products(&turn, kind, Compute::Exact)?;
    }
    for kind in [CacheType::F32, CacheType::F16, CacheType::I8] {
        attention(&turn, kind, 9, 3, 512, 512)?;
        attention(&turn, kind, 14, 2, 512, 4096)?;
        attention(&turn, kind, 9, 3, 1, 512)?;
        attention(&turn, kind, 14, 2, 1, 8192)?;
    }
    Ok(())
}
