//! An ONNX file's graph (`onnx.proto` of the ONNX standard, IR versions 3 to 13), borrowed from the mapped file.

use std::collections::HashMap;

use crate::wire::{Fields, Wire};

/// Nodes and tensors of a graph; real encoders have a few thousand.
const MAX_NODES: usize = 1 << 18;
const MAX_DIMENSIONS: usize = 8;

/// A graph with the places where each value is made and read.
#[derive(Debug, Default)]
pub(super) struct Graph<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) tensors: HashMap<&'a str, Tensor<'a>>,
    /// The node that makes a value.
    producers: HashMap<&'a str, usize>,
    /// The nodes that read a value.
    consumers: HashMap<&'a str, Vec<usize>>,
}

/// One operation.
#[derive(Debug, Default)]
pub(super) struct Node<'a> {
    pub(super) name: &'a str,
    pub(super) operation: &'a str,
    pub(super) inputs: Vec<&'a str>,
    pub(super) outputs: Vec<&'a str>,
    pub(super) attributes: Vec<(&'a str, Attribute<'a>)>,
}

/// A constant of an operation.
#[derive(Debug)]
pub(super) enum Attribute<'a> {
    Integer(i64),
    Float(f32),
    Integers(Vec<i64>),
    Tensor(Tensor<'a>),
    Other,
}

/// A constant tensor.
#[derive(Debug, Default, Clone)]
pub(super) struct Tensor<'a> {
    pub(super) shape: Vec<usize>,
    /// `TensorProto.DataType`.
    kind: u64,
    raw: Option<&'a [u8]>,
    /// Values of tensors that are written number by number.
    numbers: Vec<f64>,
    external: bool,
}

/// Values of a tensor as floats.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Values {
    pub(super) shape: Vec<usize>,
    pub(super) data: Vec<f32>,
}

impl<'a> Graph<'a> {
    /// Reads a whole file.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut graph = None;
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            if let (7, Wire::Bytes(bytes)) = (number, value) {
                graph = Some(bytes);
            }
        }
        let bytes = graph.ok_or("has no graph: is it an ONNX file?")?;
        let mut graph = Self::default();
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Wire::Bytes(bytes)) => {
                    if graph.nodes.len() == MAX_NODES {
                        return Err(format!("has more than {MAX_NODES} nodes"));
                    }
                    graph.nodes.push(Node::read(bytes)?);
                }
                (5, Wire::Bytes(bytes)) => {
                    if graph.tensors.len() == MAX_NODES {
                        return Err(format!("has more than {MAX_NODES} tensors"));
                    }
                    let (name, tensor) = Tensor::read(bytes)?;
                    if graph.tensors.insert(name, tensor).is_some() {
                        return Err(format!("has the tensor {name:?} twice"));
                    }
                }
                _ => {}
            }
        }
        for (index, node) in graph.nodes.iter().enumerate() {
            for output in node.outputs.iter().filter(|name| !name.is_empty()) {
                graph.producers.insert(output, index);
            }
            for input in node.inputs.iter().filter(|name| !name.is_empty()) {
                graph.consumers.entry(input).or_default().push(index);
            }
        }
        Ok(graph)
    }

    /// The node that makes a value.
    pub(super) fn producer(&self, value: &str) -> Option<&Node<'a>> {
        self.nodes.get(*self.producers.get(value)?)
    }

    /// The nodes that read a value.
    pub(super) fn consumers(&self, value: &str) -> impl Iterator<Item = &Node<'a>> {
        self.consumers.get(value).into_iter().flatten().filter_map(|index| self.nodes.get(*index))
    }
}

impl<'a> Node<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut node = Self::default();
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            let Wire::Bytes(bytes) = value else { continue };
            match number {
                1 => node.inputs.push(text(bytes)?),
                2 => node.outputs.push(text(bytes)?),
                3 => node.name = text(bytes)?,
                4 => node.operation = text(bytes)?,
                5 => node.attributes.push(attribute(bytes)?),
                _ => {}
            }
        }
        Ok(node)
    }

    /// An attribute by name.
    pub(super) fn attribute(&self, name: &str) -> Option<&Attribute<'a>> {
        self.attributes.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// A whole number by name.
    pub(super) fn integer(&self, name: &str) -> Option<i64> {
        match self.attribute(name)? {
            Attribute::Integer(value) => Some(*value),
            _ => None,
        }
    }
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "has a name that is not valid UTF-8".to_owned())
}

fn attribute<'a>(bytes: &'a [u8]) -> Result<(&'a str, Attribute<'a>), String> {
    let mut name = "";
    let mut attribute = Attribute::Other;
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Wire::Bytes(bytes)) => name = text(bytes)?,
            (2, Wire::Four(bytes)) => attribute = Attribute::Float(f32::from_le_bytes(bytes)),
            (3, Wire::Number(value)) => attribute = Attribute::Integer(value.cast_signed()),
            (5, Wire::Bytes(bytes)) => attribute = Attribute::Tensor(Tensor::read(bytes)?.1),
            (8, value) => {
                let mut list = match attribute {
                    Attribute::Integers(list) => list,
                    _ => Vec::new(),
                };
                integers(value, |number| list.push(number.cast_signed()))?;
                attribute = Attribute::Integers(list);
            }
            _ => {}
        }
    }
    Ok((name, attribute))
}

/// Whole numbers, packed or one by one.
fn integers(value: Wire<'_>, mut push: impl FnMut(u64)) -> Result<(), String> {
    match value {
        Wire::Number(number) => push(number),
        Wire::Bytes(bytes) => {
            let mut fields = Fields::new(bytes);
            while !fields.is_empty() {
                push(fields.varint()?);
            }
        }
        _ => return Err("has a list of another type than its numbers".to_owned()),
    }
    Ok(())
}

impl<'a> Tensor<'a> {
    fn read(bytes: &'a [u8]) -> Result<(&'a str, Self), String> {
        let mut name = "";
        let mut tensor = Self::default();
        let mut dimensions = Vec::new();
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, value) => integers(value, |size| dimensions.push(size))?,
                (2, Wire::Number(kind)) => tensor.kind = kind,
                (4, Wire::Bytes(bytes)) => {
                    let values = bytes.as_chunks::<4>().0;
                    tensor.numbers.extend(values.iter().map(|value| f64::from(f32::from_le_bytes(*value))));
                }
                (4, Wire::Four(bytes)) => tensor.numbers.push(f32::from_le_bytes(bytes).into()),
                // Bytes and short numbers are widened; long ones are only shapes and places here.
                (5 | 7, value) => integers(value, |number| tensor.numbers.push(number.cast_signed() as f64))?,
                (8, Wire::Bytes(bytes)) => name = text(bytes)?,
                (9, Wire::Bytes(bytes)) => tensor.raw = Some(bytes),
                (10, Wire::Bytes(bytes)) => {
                    tensor
                        .numbers
                        .extend(bytes.as_chunks::<8>().0.iter().map(|value| f64::from_le_bytes(*value)));
                }
                (13, _) => tensor.external = true,
                _ => {}
            }
        }
        if dimensions.len() > MAX_DIMENSIONS {
            return Err(format!("has a tensor {name:?} of {} dimensions", dimensions.len()));
        }
        for size in dimensions {
            let size =
                usize::try_from(size).map_err(|_| format!("has a tensor {name:?} of {size} values"))?;
            tensor.shape.push(size);
        }
        Ok((name, tensor))
    }

    /// Whether the values are floats of some width.
    pub(super) fn is_float(&self) -> bool {
        matches!(self.kind, 1 | 10 | 11 | 16)
    }

    /// The values as floats; `None` for types that hold no numbers.
    pub(super) fn values(&self) -> Result<Option<Values>, String> {
        if self.external {
            return Err("is kept in another file, which is not supported".to_owned());
        }
        let count = self.shape.iter().try_fold(1_usize, |count, size| count.checked_mul(*size));
        let count = count.ok_or_else(|| format!("has the shape {:?}", self.shape))?;
        let data = match self.raw {
            Some(raw) => match self.raw_values(raw, count)? {
                Some(data) => data,
                None => return Ok(None),
            },
            None => self.numbers.iter().map(|value| *value as f32).collect(),
        };
        if data.len() != count {
            return Err(format!("has {} values for the shape {:?}", data.len(), self.shape));
        }
        Ok(Some(Values { shape: self.shape.clone(), data }))
    }

    fn raw_values(&self, raw: &[u8], count: usize) -> Result<Option<Vec<f32>>, String> {
        let width = match self.kind {
            2 | 3 | 9 => 1,
            10 | 16 => 2,
            1 | 6 => 4,
            7 | 11 => 8,
            _ => return Ok(None),
        };
        if count.checked_mul(width) != Some(raw.len()) {
            return Err(format!("has {} bytes for the shape {:?}", raw.len(), self.shape));
        }
        Ok(Some(match self.kind {
            2 | 9 => raw.iter().map(|value| f32::from(*value)).collect(),
            3 => raw.iter().map(|value| f32::from(value.cast_signed())).collect(),
            10 => words(raw, |bytes| half::f16::from_le_bytes(bytes).to_f32()),
            16 => words(raw, |bytes| half::bf16::from_le_bytes(bytes).to_f32()),
            1 => words(raw, f32::from_le_bytes),
            6 => words(raw, |bytes| i32::from_le_bytes(bytes) as f32),
            7 => words(raw, |bytes| i64::from_le_bytes(bytes) as f32),
            _ => words(raw, |bytes| f64::from_le_bytes(bytes) as f32),
        }))
    }
}

fn words<const N: usize>(raw: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    raw.as_chunks::<N>().0.iter().map(|bytes| value(*bytes)).collect()
}
