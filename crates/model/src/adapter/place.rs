//! Where the matrices that a file names ended up in the network.
//!
//! An architecture file says it by building [`DecoderWeights`]: each part borrows its rows from the mapped file, so
//! where its bytes lie says which tensor, and which rows of it, they are. A fused or interleaved matrix needs no words
//! of its own for that, and neither does a new family. Codes of GPTQ and AWQ are found by where their words lie, and
//! matrices that a file holds transposed as wholes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use crate::arch::published::Published;
use crate::arch::source::Source;
use crate::decoder_weights::{DecoderWeights, LayerWeights, LinearWeights, MatrixPart};
use crate::weights::TensorEntry;

/// One of a decoder's products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Product {
    /// Queries, keys and values of a layer.
    Qkv(usize),
    /// The output of a layer's attention.
    Out(usize),
    /// The scores of a layer's experts.
    Router(usize),
    /// Gate and up of an expert of a layer; a layer without experts has one.
    Up(usize, usize),
    /// Its way back.
    Down(usize, usize),
    /// The head.
    Head,
}

/// Some rows of a module's matrix, which are some output features of a product.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) product: Product,
    /// Its part of the product's weights.
    pub(super) part: usize,
    /// The output features of the product.
    pub(super) outputs: Range<usize>,
    /// The first of the module's rows.
    pub(super) first: usize,
}

/// A matrix under the name that the model's published class gives it.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// What the row at an index of the file's matrix is in the published one.
    pub(super) order: RowOrder,
    pub(super) places: Vec<Place>,
}

/// The order of a matrix' rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowOrder {
    /// As published.
    Published,
    /// The two halves of every head of so many rows alternate (queries and keys in `llama` files of GGUF).
    Alternating(usize),
}

impl RowOrder {
    /// The published place of a row.
    pub(super) fn published(self, row: usize) -> usize {
        match self {
            Self::Published => row,
            Self::Alternating(width) => {
                let (start, inside) = (row / width * width, row % width);
                start + inside % 2 * (width / 2) + inside / 2
            }
        }
    }
}

/// The products of a decoder in order.
fn products<'w, 'a>(
    weights: &'w DecoderWeights<'a>,
) -> impl Iterator<Item = (Product, &'w LinearWeights<'a>)> {
    let layer = |(index, layer): (usize, &'w LayerWeights<'a>)| {
        let mlp = layer.mlp.iter().enumerate().flat_map(move |(expert, mlp)| {
            [(Product::Up(index, expert), &mlp.up), (Product::Down(index, expert), &mlp.down)]
        });
        let own = [(Product::Qkv(index), &layer.qkv), (Product::Out(index), &layer.out)];
        own.into_iter().chain(layer.router.as_ref().map(|router| (Product::Router(index), router))).chain(mlp)
    };
    let head = weights.head.as_ref().map(|head| (Product::Head, head));
    weights.layers.iter().enumerate().flat_map(layer).chain(head)
}

/// The weights of a product.
pub(super) fn product<'w, 'a>(
    weights: &'w mut DecoderWeights<'a>,
    product: Product,
) -> Option<&'w mut LinearWeights<'a>> {
    match product {
        Product::Head => weights.head.as_mut(),
        Product::Qkv(layer) => weights.layers.get_mut(layer).map(|layer| &mut layer.qkv),
        Product::Out(layer) => weights.layers.get_mut(layer).map(|layer| &mut layer.out),
        Product::Router(layer) => weights.layers.get_mut(layer)?.router.as_mut(),
        Product::Up(layer, expert) => Some(&mut weights.layers.get_mut(layer)?.mlp.get_mut(expert)?.up),
        Product::Down(layer, expert) => Some(&mut weights.layers.get_mut(layer)?.mlp.get_mut(expert)?.down),
    }
}

/// Every matrix of a checkpoint that an adapter may change, by the name of its module.
pub(super) fn modules(source: &Source, weights: &DecoderWeights<'_>) -> BTreeMap<String, Module> {
    let tensors = &source.tensors;
    let mut mapped: Vec<(usize, &TensorEntry)> = tensors
        .entries()
        .iter()
        .filter(|entry| entry.shape.len() == 2 && !entry.range.is_empty())
        .map(|entry| (tensors.file(entry).bytes().as_ptr() as usize + entry.range.start, entry))
        .collect();
    mapped.sort_by_key(|&(address, _)| address);
    let published = Published::new(source);
    let mut modules: BTreeMap<String, Module> = BTreeMap::new();
    for (product, linear) in products(weights) {
        let mut output = 0;
        for (part, matrix) in linear.parts.iter().enumerate() {
            let outputs = output..output + matrix.rows;
            output = outputs.end;
            for Found { tensor, rows, first } in found(&mapped, matrix) {
                let Some((name, order)) = published.module(&tensor) else { continue };
                let place = Place { product, part, outputs: outputs.clone(), first };
                let module = Module { rows, columns: matrix.columns, order, places: Vec::new() };
                modules.entry(name).or_insert(module).places.push(place);
            }
        }
    }
    modules
}

/// A matrix of a file that some rows of the network are of.
struct Found<'a> {
    /// The name of its weight, also where the file has codes in its place.
    tensor: Cow<'a, str>,
    rows: usize,
    /// Which of the rows is the first.
    first: usize,
}

/// The matrices that a part lies in: several where names share one storage.
fn found<'a>(mapped: &[(usize, &'a TensorEntry)], part: &MatrixPart<'_>) -> Vec<Found<'a>> {
    let bytes = part.integers.as_ref().map_or(&part.data[..], |integers| integers.words());
    let address = bytes.as_ptr() as usize;
    let end = mapped.partition_point(|&(start, _)| start <= address);
    let Some(&(start, _)) = end.checked_sub(1).and_then(|last| mapped.get(last)) else { return Vec::new() };
    let same = mapped[..end].iter().rev().take_while(|&&(other, _)| other == start);
    let offset = address - start;
    let of = |entry: &'a TensorEntry| {
        let (rows, columns) = (entry.shape[0], entry.shape[1]);
        if let Some(integers) = &part.integers {
            let module = entry.name.strip_suffix(".qweight")?;
            let whole = offset == 0 && bytes.len() == entry.range.len();
            let tensor = Cow::Owned(format!("{module}.weight"));
            return whole.then_some(Found { tensor, rows: integers.rows(), first: integers.first_row() });
        }
        let tensor = Cow::Borrowed(entry.name.as_str());
        if part.transposed {
            let whole = offset == 0 && (rows, columns) == (part.columns, part.rows);
            return whole.then_some(Found { tensor, rows: part.rows, first: 0 });
        }
        let row_bytes = entry.range.len() / rows.max(1);
        let inside = offset + bytes.len() <= entry.range.len();
        let whole_rows =
            row_bytes > 0 && offset.is_multiple_of(row_bytes) && bytes.len() == row_bytes * part.rows;
        let first = offset / row_bytes.max(1);
        let fits = inside && whole_rows && columns == part.columns && first + part.rows <= rows;
        fits.then_some(Found { tensor, rows, first })
    };
    same.filter_map(|&(_, entry)| of(entry)).collect()
}

#[cfg(test)]
mod tests {
    use super::RowOrder;

    #[test]
    fn alternating_halves_are_put_back() {
        let order = RowOrder::Alternating(6);
        let found: Vec<usize> = (0..12).map(|row| order.published(row)).collect();
        assert_eq!(found, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
        assert_eq!(RowOrder::Published.published(7), 7);
    }
}
