//! What the shapes and constants of a graph say about the network.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};

use super::constants::constant;
use super::graph::{Attribute, Graph};

/// Writes the fields of a `config.json` that follow from the weights' `shapes` and from the graph over those of
/// `given`, the file that came with the graph.
pub(super) fn config(
    graph: &Graph<'_>,
    shapes: &BTreeMap<String, Vec<usize>>,
    mut given: Map<String, Json>,
    heads: Option<usize>,
) -> Result<Map<String, Json>, String> {
    let matrix = |end: &str| {
        let shape = shapes.iter().find(|(name, _)| name.ends_with(end)).map(|(_, shape)| shape.as_slice());
        match shape {
            Some(&[rows, columns]) => Ok((rows, columns)),
            _ => Err(format!("has no matrix {end}")),
        }
    };
    let (vocab, hidden) = matrix("embeddings.word_embeddings.weight")?;
    let (positions, _) = matrix("embeddings.position_embeddings.weight")?;
    let (types, _) = matrix("embeddings.token_type_embeddings.weight")?;
    let (inner, _) = matrix("encoder.layer.0.intermediate.dense.weight")?;
    let layers: BTreeSet<usize> = shapes
        .keys()
        .filter_map(|name| name.split_once("encoder.layer.")?.1.split('.').next()?.parse().ok())
        .collect();
    let layers = layers.last().map_or(0, |last| last + 1);
    let labels = shapes.get("classifier.weight").and_then(|shape| shape.first().copied());
    let class = if labels.is_some() { "BertForSequenceClassification" } else { "BertModel" };

    let stated =
        given.get("num_attention_heads").and_then(Json::as_u64).and_then(|n| usize::try_from(n).ok());
    let seen = head_counts(graph, hidden);
    let heads = match (heads.or(stated), &seen[..]) {
        (Some(heads), []) => heads,
        (Some(heads), seen) if seen.contains(&heads) => heads,
        (Some(heads), seen) => {
            return Err(format!("reshapes states to {seen:?} heads, but {heads} were stated"));
        }
        (None, &[heads]) => heads,
        (None, _) => {
            return Err("does not show its number of attention heads: state it with --heads".to_owned());
        }
    };

    let mut put = |name: &str, value: Json| given.insert(name.to_owned(), value);
    put("architectures", json!([class]));
    put("model_type", json!("bert"));
    put("vocab_size", json!(vocab));
    put("hidden_size", json!(hidden));
    put("num_hidden_layers", json!(layers));
    put("num_attention_heads", json!(heads));
    put("intermediate_size", json!(inner));
    put("max_position_embeddings", json!(positions));
    put("type_vocab_size", json!(types));
    put("torch_dtype", json!("float32"));
    put("hidden_act", json!(activation(graph)?));
    if let Some(epsilon) = epsilon(graph)? {
        put("layer_norm_eps", json!(epsilon));
    }
    if let Some(labels) = labels {
        let named =
            given.get("id2label").and_then(Json::as_object).is_some_and(|names| names.len() == labels);
        if !named {
            let names = (0..labels).map(|label| (label.to_string(), json!(format!("LABEL_{label}"))));
            given.insert("id2label".to_owned(), Json::Object(names.collect()));
        }
    }
    Ok(given)
}

/// Numbers of heads that states of this width are reshaped to: `[…, heads, width]` at the end of a shape of four,
/// where either may be left to follow from the other.
fn head_counts(graph: &Graph<'_>, hidden: usize) -> Vec<usize> {
    let mut counts = BTreeSet::new();
    for node in graph.nodes.iter().filter(|node| node.operation == "Reshape") {
        let Some(shape) = node.inputs.get(1) else { continue };
        let sizes: Vec<Option<f32>> = match graph.producer(shape) {
            Some(concat) if concat.operation == "Concat" => {
                concat.inputs.iter().map(|part| one_size(graph, part)).collect()
            }
            _ => match constant(graph, shape) {
                Ok(Some(values)) => values.data.into_iter().map(Some).collect(),
                _ => continue,
            },
        };
        let &[_, _, Some(heads), Some(width)] = &sizes[..] else { continue };
        let (heads, width) = match (size(heads), size(width)) {
            (Some(heads), Some(width)) => (heads, width),
            (Some(heads), None) if width == -1.0 && heads > 0 => (heads, hidden / heads),
            (None, Some(width)) if heads == -1.0 && width > 0 => (hidden / width, width),
            _ => continue,
        };
        if heads > 1 && width > 1 && heads.checked_mul(width) == Some(hidden) {
            counts.insert(heads);
        }
    }
    counts.into_iter().collect()
}

fn one_size(graph: &Graph<'_>, name: &str) -> Option<f32> {
    match constant(graph, name).ok()??.data[..] {
        [value] => Some(value),
        _ => None,
    }
}

fn size(value: f32) -> Option<usize> {
    ((0.0..1e9).contains(&value) && value.fract() == 0.0).then_some(value as usize)
}

/// The nonlinearity of the feed-forward part. A pooler's `Tanh` is one node; an approximated GELU has one per layer.
fn activation(graph: &Graph<'_>) -> Result<&'static str, String> {
    let count = |name: &str| graph.nodes.iter().filter(|node| node.operation == name).count();
    match (count("Erf") + count("Gelu"), count("Tanh"), count("Relu")) {
        (0, 0 | 1, 0) => Err("has none of the activations Erf, Gelu, Tanh and Relu".to_owned()),
        (0, 0 | 1, _) => Ok("relu"),
        (0, _, 0) => Ok("gelu_new"),
        (0, ..) => Err("has both Tanh and Relu".to_owned()),
        _ => Ok("gelu"),
    }
}

/// The small number under the roots of normalization layers.
fn epsilon(graph: &Graph<'_>) -> Result<Option<f64>, String> {
    for node in &graph.nodes {
        if node.operation == "LayerNormalization"
            && let Some(Attribute::Float(epsilon)) = node.attribute("epsilon")
        {
            return Ok(Some(shortest(*epsilon)));
        }
        if node.operation != "Sqrt" {
            continue;
        }
        let sum = node.inputs.first().and_then(|input| graph.producer(input));
        for input in sum.filter(|sum| sum.operation == "Add").into_iter().flat_map(|sum| &sum.inputs) {
            if let Some(values) = constant(graph, input)?
                && let [epsilon] = values.data[..]
                && epsilon > 0.0
                && epsilon < 0.1
            {
                return Ok(Some(shortest(epsilon)));
            }
        }
    }
    Ok(None)
}

/// The number with the fewest digits that rounds to this one: 1e-12 and not 9.99999996e-13.
fn shortest(value: f32) -> f64 {
    format!("{value:e}").parse().unwrap_or_else(|_| value.into())
}
