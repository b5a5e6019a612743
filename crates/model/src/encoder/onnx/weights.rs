//! The weights of BERT in an ONNX graph, under the names of `transformers`.
//!
//! Exporters keep the names of biases, normalization layers and tables; the name of a matrix is that of the bias which
//! is added to its product, or that of its node. ONNX Runtime's quantizer stores `X` as `X_quantized`, `X_scale` and
//! `X_zero_point`; others multiply the cast codes of a weight by a stored scale.

use std::collections::{BTreeMap, HashSet};

use super::constants::{constant, dequantize, transposed};
use super::graph::{Graph, Node, Values};

/// The table by which the graph's own prefix is found.
const WORDS: &str = "embeddings.word_embeddings.weight";
/// Prefixes that `transformers` writes itself.
const KEPT: [&str; 2] = ["", "bert."];
const QUANTIZED: &str = "_quantized";

/// Where a weight comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place<'a> {
    /// A value of the graph as it is.
    Value(&'a str),
    /// A matrix that is stored with rows and columns exchanged.
    Transposed(&'a str),
    /// A table of ONNX Runtime's codes.
    Codes(&'a str),
    /// A matrix of ONNX Runtime's codes, rows and columns exchanged.
    TransposedCodes(&'a str),
}

/// The weights by their name in `transformers`.
#[derive(Debug)]
pub(super) struct Weights<'a> {
    pub(super) places: BTreeMap<String, Place<'a>>,
    /// How many of them were stored as integers.
    pub(super) quantized: usize,
}

impl<'a> Weights<'a> {
    pub(super) fn find(graph: &Graph<'a>) -> Result<Self, String> {
        let mut found = Vec::new();
        let mut used = HashSet::new();
        for node in &graph.nodes {
            match node.operation {
                "MatMul" | "MatMulInteger" | "Gemm" => {
                    if let Some((name, value, place)) = matrix(graph, node)? {
                        used.insert(value);
                        found.push((name, place));
                    }
                }
                "Gather" => {
                    if let Some((name, value, place)) = table(graph, node)? {
                        used.insert(value);
                        found.push((name, place));
                    }
                }
                _ => {}
            }
        }
        for (name, tensor) in &graph.tensors {
            let weight = name.ends_with(".weight") || name.ends_with(".bias");
            if weight && tensor.is_float() && !used.contains(name) && (1..=2).contains(&tensor.shape.len()) {
                found.push(((*name).to_owned(), Place::Value(name)));
            }
        }
        let prefix = found.iter().find_map(|(name, _)| name.strip_suffix(WORDS)).map(str::to_owned);
        let prefix = prefix.ok_or_else(|| format!("has no table {WORDS}: is it a BERT?"))?;
        let mut places = BTreeMap::new();
        for (name, place) in found {
            let name = match name.strip_prefix(&prefix) {
                Some(rest) if !KEPT.contains(&prefix.as_str()) => rest.to_owned(),
                _ => name,
            };
            match places.insert(name.clone(), place) {
                Some(other) if other != place => return Err(format!("has two weights {name:?}")),
                _ => {}
            }
        }
        let integers = |place: &&Place<'_>| match place {
            Place::Codes(_) | Place::TransposedCodes(_) => true,
            // The scale is a factor of the graph.
            Place::Value(name) | Place::Transposed(name) => !graph.tensors.contains_key(name),
        };
        let quantized = places.values().filter(integers).count();
        Ok(Self { places, quantized })
    }
}

/// A weight's values.
pub(super) fn values(graph: &Graph<'_>, place: Place<'_>) -> Result<Values, String> {
    let whole = |name: &str| constant(graph, name)?.ok_or_else(|| format!("has no values for {name:?}"));
    Ok(match place {
        Place::Value(name) => whole(name)?,
        Place::Transposed(name) => transposed(&whole(name)?),
        Place::Codes(name) => codes(graph, name, &whole)?,
        Place::TransposedCodes(name) => transposed(&codes(graph, name, &whole)?),
    })
}

fn codes(
    graph: &Graph<'_>,
    name: &str,
    whole: &impl Fn(&str) -> Result<Values, String>,
) -> Result<Values, String> {
    let base = name.strip_suffix(QUANTIZED).unwrap_or(name);
    let zero = format!("{base}_zero_point");
    let zero = if graph.tensors.contains_key(zero.as_str()) { Some(whole(&zero)?) } else { None };
    // The quantizer's scales are per column of the stored matrix.
    dequantize(whole(name)?, &whole(&format!("{base}_scale"))?, zero.as_ref(), 1)
        .map_err(|problem| format!("tensor {name:?} {problem}"))
}

/// The name in `transformers`, the graph's own and the place of the matrix of a product.
fn matrix<'a>(graph: &Graph<'a>, node: &Node<'a>) -> Result<Option<(String, &'a str, Place<'a>)>, String> {
    let Some(&value) = node.inputs.get(1) else { return Ok(None) };
    let stored = graph.tensors.contains_key(value);
    let integers = node.operation == "MatMulInteger";
    if !stored && (integers || constant(graph, value)?.is_none()) {
        return Ok(None);
    }
    // Products of states with each other are not weights; nor are scalars.
    if let Some(tensor) = graph.tensors.get(value)
        && tensor.shape.len() != 2
    {
        return Ok(None);
    }
    let straight = node.operation == "Gemm" && node.integer("transB").unwrap_or(0) != 0;
    let Some(name) = name_of(graph, node, value) else {
        return Err(format!("has a product {:?} of a weight without a name", node.name));
    };
    let place = match (integers, straight) {
        (true, _) => Place::TransposedCodes(value),
        (false, true) => Place::Value(value),
        (false, false) => Place::Transposed(value),
    };
    Ok(Some((name, value, place)))
}

fn name_of<'a>(graph: &Graph<'a>, node: &Node<'a>, value: &str) -> Option<String> {
    let own = value.strip_suffix(QUANTIZED).unwrap_or(value);
    if own.ends_with(".weight") {
        return Some(own.to_owned());
    }
    if let Some(&bias) = node.inputs.get(2)
        && node.operation == "Gemm"
        && let Some(name) = bias.strip_suffix(".bias")
    {
        return Some(format!("{name}.weight"));
    }
    // The product is cast and scaled before its bias is added.
    let mut output = *node.outputs.first()?;
    for _ in 0..4 {
        let next = graph.consumers(output).next()?;
        match next.operation {
            "Add" => {
                let bias = next.inputs.iter().find(|input| graph.tensors.contains_key(**input));
                if let Some(name) = bias.and_then(|bias| bias.strip_suffix(".bias")) {
                    return Some(format!("{name}.weight"));
                }
                break;
            }
            "Cast" | "Mul" => output = *next.outputs.first()?,
            _ => break,
        }
    }
    // The path of the module, as PyTorch's older exporter writes it: /encoder/layer.0/…/query/MatMul.
    let path = node.name.strip_prefix('/')?.rsplit_once('/')?.0;
    Some(format!("{}.weight", path.replace('/', ".")))
}

/// The same of a table of embeddings.
fn table<'a>(graph: &Graph<'a>, node: &Node<'a>) -> Result<Option<(String, &'a str, Place<'a>)>, String> {
    let Some(&value) = node.inputs.first() else { return Ok(None) };
    if let Some(base) = value.strip_suffix(QUANTIZED)
        && base.ends_with(".weight")
        && graph.tensors.contains_key(value)
    {
        return Ok(Some((base.to_owned(), value, Place::Codes(value))));
    }
    let is_table = value.ends_with("_embeddings.weight") && constant(graph, value)?.is_some();
    Ok(is_table.then(|| (value.to_owned(), value, Place::Value(value))))
}
