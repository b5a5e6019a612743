//! An adapter beside a model's weights: thin matrices, packed, per product of the network.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use byzerllm_kernels::{Compute, ComputePool, KernelError, Matrix, TensorType, TensorView, Turn, dequantize};

use super::place::modules;
use super::{AdapterFile, Matrices, Product};
use crate::arch::source::Source;
use crate::decoder_weights::DecoderWeights;
use crate::load_error::{LoadError, LoadResult};

/// A LoRA adapter that fits one model, for [`crate::Network::load_adapter`].
#[derive(Debug)]
pub struct Adapter {
    path: PathBuf,
    rank: usize,
    modules: usize,
    bytes: u64,
    products: BTreeMap<Product, Addition>,
}

/// What is added to a product: `y += B (A x)` per module of it.
#[derive(Debug)]
pub(crate) struct Addition {
    /// The modules' `A`, stacked: `(sum of ranks, columns)`.
    pub(crate) down: Matrix,
    pub(crate) ups: Vec<Up>,
}

/// Rows of a module's `B`, its factor included.
#[derive(Debug)]
pub(crate) struct Up {
    /// Its outputs of `A`.
    pub(crate) inner: Range<usize>,
    /// The product's outputs that it adds to.
    pub(crate) outputs: Range<usize>,
    /// `(outputs, inner)`.
    pub(crate) matrix: Matrix,
}

impl Adapter {
    /// Where it was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The largest rank of its matrices.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many matrices of the model it changes.
    #[must_use]
    pub fn modules(&self) -> usize {
        self.modules
    }

    /// Bytes that it takes in memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What it adds to a product.
    pub(crate) fn addition(&self, product: Product) -> Option<&Addition> {
        self.products.get(&product)
    }

    /// Packs an adapter for the model of these weights.
    pub(crate) fn pack(
        file: &AdapterFile,
        source: &Source,
        weights: &DecoderWeights<'_>,
        pool: &ComputePool,
    ) -> LoadResult<Self> {
        let modules = modules(source, weights);
        let matrices = file.matrices(&modules)?;
        let mut by_product: BTreeMap<Product, Vec<Part<'_>>> = BTreeMap::new();
        for matrices in &matrices {
            for (product, runs) in runs(matrices) {
                by_product.entry(product).or_default().push(Part { matrices, runs });
            }
        }
        let turn = pool.turn();
        let mut adapter = Self {
            path: file.path.clone(),
            rank: matrices.iter().map(|matrices| matrices.rank).max().unwrap_or(0),
            modules: matrices.len(),
            bytes: 0,
            products: BTreeMap::new(),
        };
        for (product, parts) in by_product {
            let addition = addition(file, &turn, &parts)?;
            let ups = addition.ups.iter().map(|up| up.matrix.bytes() as u64).sum::<u64>();
            adapter.bytes += addition.down.bytes() as u64 + ups;
            adapter.products.insert(product, addition);
        }
        Ok(adapter)
    }
}

/// A module's share of a product.
struct Part<'a> {
    matrices: &'a Matrices<'a>,
    runs: Vec<Run>,
}

/// Neighbouring outputs of a product, and the module's row of each.
struct Run {
    outputs: Range<usize>,
    rows: Vec<usize>,
}

/// The places of a module by product, neighbours joined.
fn runs(matrices: &Matrices<'_>) -> BTreeMap<Product, Vec<Run>> {
    let mut places: Vec<_> = matrices.module.places.iter().collect();
    places.sort_by_key(|place| (place.product, place.outputs.start));
    let mut all: BTreeMap<Product, Vec<Run>> = BTreeMap::new();
    for place in places {
        let rows = place.first..place.first + place.outputs.len();
        let rows = rows.map(|row| matrices.module.order.published(row));
        let runs = all.entry(place.product).or_default();
        match runs.last_mut().filter(|run| run.outputs.end == place.outputs.start) {
            Some(run) => {
                run.outputs.end = place.outputs.end;
                run.rows.extend(rows);
            }
            None => runs.push(Run { outputs: place.outputs.clone(), rows: rows.collect() }),
        }
    }
    all
}

fn addition(file: &AdapterFile, turn: &Turn<'_>, parts: &[Part<'_>]) -> LoadResult<Addition> {
    let network = |source| LoadError::Network { path: file.path.clone(), source };
    let columns = parts.first().map_or(0, |part| part.matrices.module.columns);
    let mut downs = Vec::new();
    let mut ups = Vec::new();
    let mut inner = 0;
    for Part { matrices, runs } in parts {
        let &Matrices { rank, scale, .. } = *matrices;
        downs.extend(values(file, matrices, &matrices.down)?);
        let up = values(file, matrices, &matrices.up)?;
        for run in runs {
            let rows = run.rows.iter().filter_map(|row| up.get(row * rank..(row + 1) * rank));
            let rows: Vec<f32> = rows.flatten().map(|value| value * scale).collect();
            let matrix = pack(turn, &rows, run.outputs.len(), rank).map_err(network)?;
            ups.push(Up { inner: inner..inner + rank, outputs: run.outputs.clone(), matrix });
        }
        inner += rank;
    }
    Ok(Addition { down: pack(turn, &downs, inner, columns).map_err(network)?, ups })
}

/// A tensor as floats, all finite.
fn values(
    file: &AdapterFile,
    matrices: &Matrices<'_>,
    tensor: &crate::weights::TensorRef<'_>,
) -> LoadResult<Vec<f32>> {
    let wrong = |problem: String| {
        let path = file.tensors.file(tensor.entry).path();
        LoadError::malformed(path, format!("tensor {}", tensor.entry.name.escape_debug()), problem)
    };
    let mut values = vec![0.0; tensor.shape.iter().product()];
    dequantize(tensor.kind, tensor.data, &mut values).map_err(|error| wrong(error.to_string()))?;
    match values.iter().all(|value| (value * matrices.scale).is_finite()) {
        true => Ok(values),
        false => Err(wrong("has numbers that are not finite".to_owned())),
    }
}

/// Floats as a matrix of exact products: rounding would make the adapter's small numbers smaller still.
fn pack(turn: &Turn<'_>, values: &[f32], rows: usize, columns: usize) -> Result<Matrix, KernelError> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let view = TensorView::new(TensorType::F32, rows, columns, &bytes)?;
    Matrix::pack(turn, &[view], Compute::Exact)
}
