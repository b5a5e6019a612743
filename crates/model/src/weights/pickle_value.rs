//! What the pickle of a state dictionary is made of.

use std::sync::Arc;

use byzerllm_kernels::TensorType;

use super::Encoding;

/// A whole number of a pickle.
pub(crate) type Number = i64;

/// A name of Python's that has a meaning here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Element),
}

/// The type of a storage's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Element {
    known: Option<TensorType>,
    name: &'static str,
    /// Bytes of a value.
    pub(crate) size: usize,
}

impl Element {
    pub(crate) fn encoding(self) -> Encoding {
        match self.known {
            Some(kind) => Encoding::Known(kind),
            None => Encoding::Other(self.name),
        }
    }
}

impl Class {
    /// A storage class by its name in `torch`.
    pub(crate) fn storage(name: &str) -> Option<Self> {
        let (known, name, size) = match name {
            "FloatStorage" => (Some(TensorType::F32), "F32", 4),
            "HalfStorage" => (Some(TensorType::F16), "F16", 2),
            "BFloat16Storage" => (Some(TensorType::BF16), "BF16", 2),
            "DoubleStorage" => (None, "F64", 8),
            "LongStorage" => (None, "I64", 8),
            "IntStorage" => (None, "I32", 4),
            "ShortStorage" => (None, "I16", 2),
            "CharStorage" => (None, "I8", 1),
            "ByteStorage" => (None, "U8", 1),
            "BoolStorage" => (None, "BOOL", 1),
            _ => return None,
        };
        Some(Self::Storage(Element { known, name, size }))
    }
}

/// A file of the archive and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoragePlace {
    pub(crate) element: Element,
    pub(crate) key: Arc<str>,
    pub(crate) values: usize,
}

/// A view of a storage; offset and strides count values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tensor {
    pub(crate) storage: Arc<StoragePlace>,
    pub(crate) offset: usize,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<usize>,
}

/// A value on the stack. A copy costs nothing, so that a pickle which copies a lot takes no more than it is long.
/// Lists hold nothing: no part of a state dictionary is in one.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    None,
    Bool(#[expect(dead_code, reason = "flags of tensors are read and mean nothing here")] bool),
    Number(Number),
    Float,
    Text(Arc<str>),
    /// With the depth of its nesting.
    Tuple(Arc<[Value]>, u8),
    List,
    /// An index into the dictionaries of the machine.
    Dictionary(usize),
    Class(Class),
    Storage(Arc<StoragePlace>),
    Tensor(Arc<Tensor>),
}

impl Value {
    /// A tuple, unless it is nested deeper than any state dictionary needs: dropping one takes stack.
    pub(crate) fn tuple(values: Vec<Value>) -> Option<Self> {
        let depth = |value: &Value| if let Value::Tuple(_, depth) = value { *depth } else { 0 };
        let depth = values.iter().map(depth).max().unwrap_or(0) + 1;
        (depth <= MAX_DEPTH).then(|| Self::Tuple(values.into(), depth))
    }
}

const MAX_DEPTH: u8 = 32;

/// Entries in the order in which they were put in.
#[derive(Debug, Default)]
pub(crate) struct Dictionary {
    pub(crate) entries: Vec<(Value, Value)>,
}
