//! Values of a graph that do not depend on its input: tensors of the file, and what casts, factors and dequantizations
//! make of them.

use super::graph::{Attribute, Graph, Node, Values};

/// Operations between a stored tensor and its use.
const MAX_DEPTH: usize = 8;

/// The values behind a name; `None` when they depend on the input.
pub(super) fn constant(graph: &Graph<'_>, name: &str) -> Result<Option<Values>, String> {
    evaluate(graph, name, MAX_DEPTH)
}

fn evaluate(graph: &Graph<'_>, name: &str, depth: usize) -> Result<Option<Values>, String> {
    if let Some(tensor) = graph.tensors.get(name) {
        return tensor.values().map_err(|problem| format!("tensor {name:?} {problem}"));
    }
    let (Some(node), Some(depth)) = (graph.producer(name), depth.checked_sub(1)) else { return Ok(None) };
    let input = |index: usize| match node.inputs.get(index) {
        Some(name) if !name.is_empty() => evaluate(graph, name, depth),
        _ => Ok(None),
    };
    let failed = |problem: String| format!("node {:?} {problem}", node.name);
    match node.operation {
        "Constant" => match node.attribute("value") {
            Some(Attribute::Tensor(tensor)) => tensor.values().map_err(failed),
            _ => Ok(scalar(node)),
        },
        "Identity" | "Cast" => input(0),
        "Mul" | "Sub" => {
            let (Some(left), Some(right)) = (input(0)?, input(1)?) else { return Ok(None) };
            let subtract = node.operation == "Sub";
            match subtract {
                true => combine(left, &right, |a, b| a - b),
                // Either side may be the smaller one.
                false if left.data.len() < right.data.len() => combine(right, &left, |a, b| a * b),
                false => combine(left, &right, |a, b| a * b),
            }
            .map(Some)
            .map_err(failed)
        }
        "DequantizeLinear" => {
            let (Some(codes), Some(scale)) = (input(0)?, input(1)?) else { return Ok(None) };
            let axis = node.integer("axis").unwrap_or(1);
            dequantize(codes, &scale, input(2)?.as_ref(), axis).map(Some).map_err(failed)
        }
        "Transpose" => match input(0)? {
            Some(values) if values.shape.len() == 2 => {
                let order = match node.attribute("perm") {
                    Some(Attribute::Integers(order)) => order.as_slice(),
                    _ => &[1, 0],
                };
                Ok(Some(if order == [0, 1] { values } else { transposed(&values) }))
            }
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

/// A constant that is written as an attribute of another type.
fn scalar(node: &Node<'_>) -> Option<Values> {
    let data =
        match (node.attribute("value_float"), node.attribute("value_int"), node.attribute("value_ints")) {
            (Some(Attribute::Float(value)), _, _) => {
                return Some(Values { shape: Vec::new(), data: vec![*value] });
            }
            (_, Some(Attribute::Integer(value)), _) => {
                return Some(Values { shape: Vec::new(), data: vec![*value as f32] });
            }
            (_, _, Some(Attribute::Integers(values))) => {
                values.iter().map(|value| *value as f32).collect::<Vec<_>>()
            }
            _ => return None,
        };
    Some(Values { shape: vec![data.len()], data })
}

/// Codes times their scale: `(codes - zero) * scale`, with one scale and zero, or one per place of `axis`.
pub(super) fn dequantize(
    codes: Values,
    scale: &Values,
    zero: Option<&Values>,
    axis: i64,
) -> Result<Values, String> {
    let shape = &codes.shape;
    let rank = i64::try_from(shape.len()).unwrap_or(i64::MAX);
    let axis = if axis < 0 { axis + rank } else { axis };
    let line = |values: &Values| -> Result<Values, String> {
        if values.data.len() == 1 {
            return Ok(values.clone());
        }
        let place = usize::try_from(axis).ok().filter(|axis| *axis < shape.len());
        let place = place.ok_or_else(|| format!("has no axis {axis} in the shape {shape:?}"))?;
        let mut aligned = vec![1; shape.len()];
        aligned[place] = values.data.len();
        Ok(Values { shape: aligned, data: values.data.clone() })
    };
    let scale = line(scale)?;
    let zero = zero.map(line).transpose()?;
    let codes = match &zero {
        Some(zero) => combine(codes, zero, |code, zero| code - zero)?,
        None => codes,
    };
    combine(codes, &scale, |code, scale| code * scale)
}

/// Combines values with others of the same shape, or of one that repeats within it.
fn combine(mut left: Values, right: &Values, combine: impl Fn(f32, f32) -> f32) -> Result<Values, String> {
    if let [value] = right.data[..] {
        left.data.iter_mut().for_each(|one| *one = combine(*one, value));
        return Ok(left);
    }
    let wrong = || format!("joins the shapes {:?} and {:?}", left.shape, right.shape);
    let missing = left.shape.len().checked_sub(right.shape.len()).ok_or_else(wrong)?;
    let fits =
        left.shape[missing..].iter().zip(&right.shape).all(|(whole, part)| part == whole || *part == 1);
    if !fits || right.data.is_empty() {
        return Err(wrong());
    }
    // Steps through `right` per dimension of `left`: none where it repeats.
    let mut steps = vec![0; left.shape.len()];
    let mut step = 1;
    for (index, size) in right.shape.iter().enumerate().rev() {
        if *size > 1 {
            steps[missing + index] = step;
        }
        step *= size;
    }
    for (mut place, one) in left.data.iter_mut().enumerate() {
        let mut index = 0;
        for (size, step) in left.shape.iter().zip(&steps).rev() {
            index += place % size * step;
            place /= size;
        }
        *one = combine(*one, right.data[index]);
    }
    Ok(left)
}

/// A matrix with rows and columns exchanged.
pub(super) fn transposed(values: &Values) -> Values {
    let [rows, columns] = values.shape[..] else { return values.clone() };
    let mut data = Vec::with_capacity(values.data.len());
    for column in 0..columns {
        data.extend((0..rows).map(|row| values.data[row * columns + column]));
    }
    Values { shape: vec![columns, rows], data }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(shape: &[usize], data: &[f32]) -> Values {
        Values { shape: shape.to_vec(), data: data.to_vec() }
    }

    #[test]
    fn codes_are_scaled_along_their_axis() {
        let codes = values(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let by_column = dequantize(codes.clone(), &values(&[3], &[1.0, 10.0, 100.0]), None, 1).unwrap();
        assert_eq!(by_column.data, [1.0, 20.0, 300.0, 4.0, 50.0, 600.0]);
        let zero = values(&[2], &[1.0, 4.0]);
        let by_row = dequantize(codes.clone(), &values(&[2], &[2.0, 10.0]), Some(&zero), -2).unwrap();
        assert_eq!(by_row.data, [0.0, 2.0, 4.0, 0.0, 10.0, 20.0]);
        assert!(dequantize(codes.clone(), &values(&[4], &[0.0; 4]), None, 1).is_err());
        assert!(dequantize(codes, &values(&[3], &[0.0; 3]), None, 7).is_err());
    }

    #[test]
    fn a_transposed_matrix_has_columns_for_rows() {
        let flipped = transposed(&values(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
        assert_eq!(flipped, values(&[3, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
    }
}
