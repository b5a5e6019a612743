//! The state dictionary in a torch file: a pickle, read by an interpreter of the few operations that such files use.
//!
//! Nothing is executed. A pickle may name any function of Python; here a name is looked up in a fixed list and has a
//! fixed meaning, and any other name, operation or state is refused with its name.

use std::sync::Arc;

use super::pickle_value::{Class, Dictionary, Number, StoragePlace, Tensor, Value};

/// Values on the stack, or remembered.
const MAX_VALUES: usize = 4 << 20;
/// Bytes of a pickle; a state dictionary needs about 200 per tensor.
const MAX_PICKLE_BYTES: usize = 64 << 20;
/// The longest text.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// Why a pickle is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is no pickle or contradicts itself.
    Malformed(String),
    /// It asks for what is not on the list.
    Unsupported(String),
}

fn malformed<T>(problem: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Malformed(problem.into()))
}

fn tuple(values: Vec<Value>) -> Result<Value, Refusal> {
    Value::tuple(values).ok_or_else(|| Refusal::Malformed("nests tuples too deeply".to_owned()))
}

/// A tensor under its name.
pub(crate) type Named = (Arc<str>, Arc<Tensor>);

/// An entry of the stack.
enum Entry {
    Value(Value),
    Mark,
}

struct Machine<'a> {
    bytes: &'a [u8],
    position: usize,
    stack: Vec<Entry>,
    memo: Vec<Option<Value>>,
    /// Dictionaries and lists, which a pickle fills after it has remembered them.
    dictionaries: Vec<Dictionary>,
}

/// Reads a whole pickle, which must be a dictionary of tensors, possibly with other values between them.
pub(crate) fn read(bytes: &[u8]) -> Result<Vec<Named>, Refusal> {
    if bytes.len() > MAX_PICKLE_BYTES {
        return malformed(format!("has {} bytes, more than {MAX_PICKLE_BYTES}", bytes.len()));
    }
    let mut machine =
        Machine { bytes, position: 0, stack: Vec::new(), memo: Vec::new(), dictionaries: Vec::new() };
    let root = machine.run()?;
    machine.tensors(&root)
}

impl Machine<'_> {
    fn run(&mut self) -> Result<Value, Refusal> {
        loop {
            let [operation] = self.take()?;
            if operation == b'.' {
                return self.pop();
            }
            self.step(operation)?;
            if self.stack.len() > MAX_VALUES || self.dictionaries.len() > MAX_VALUES {
                return malformed("holds too many values");
            }
        }
    }

    fn step(&mut self, operation: u8) -> Result<(), Refusal> {
        let value = match operation {
            0x80 => {
                let [version] = self.take()?;
                return match version {
                    2..=5 => Ok(()),
                    _ => Err(Refusal::Unsupported(format!("pickle protocol {version}"))),
                };
            }
            // A frame's length: the frames follow each other in any case.
            0x95 => return self.take::<8>().map(drop),
            b'(' => {
                self.stack.push(Entry::Mark);
                return Ok(());
            }
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'K' => Value::Number(u8::from_le_bytes(self.take()?).into()),
            b'M' => Value::Number(u16::from_le_bytes(self.take()?).into()),
            b'J' => Value::Number(i32::from_le_bytes(self.take()?).into()),
            0x8a => {
                let [length] = self.take()?;
                Value::Number(self.long(length.into())?)
            }
            b'G' => {
                self.take::<8>()?;
                Value::Float
            }
            b'X' => {
                let length = u32::from_le_bytes(self.take()?);
                Value::Text(self.text(length as usize)?.into())
            }
            0x8c => {
                let [length] = self.take()?;
                Value::Text(self.text(length.into())?.into())
            }
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                Value::Class(class(&module, &name)?)
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => Value::Class(class(&module, &name)?),
                _ => return malformed("names a class by something other than texts"),
            },
            b')' => tuple(Vec::new())?,
            0x85..=0x87 => {
                let count = usize::from(operation - 0x84);
                let mut values = Vec::with_capacity(count);
                for _ in 0..count {
                    values.push(self.pop()?);
                }
                values.reverse();
                tuple(values)?
            }
            b't' => tuple(self.pop_to_mark()?)?,
            b'}' => self.new_dictionary(),
            b']' => Value::List,
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                return self.set_items(vec![key, value]);
            }
            b'u' => {
                let values = self.pop_to_mark()?;
                return self.set_items(values);
            }
            b'a' => {
                self.pop()?;
                return self.expect_list();
            }
            b'e' => {
                self.pop_to_mark()?;
                return self.expect_list();
            }
            b'q' => {
                let [place] = self.take()?;
                return self.remember(place.into());
            }
            b'r' => {
                let place = u32::from_le_bytes(self.take()?);
                return self.remember(place as usize);
            }
            0x94 => return self.remember(self.memo.len()),
            b'h' => {
                let [place] = self.take()?;
                self.recall(place.into())?
            }
            b'j' => {
                let place = u32::from_le_bytes(self.take()?);
                self.recall(place as usize)?
            }
            b'Q' => match self.pop()? {
                Value::Tuple(values, _) => storage(&values)?,
                _ => return malformed("has a persistent id that is no tuple"),
            },
            b'R' => {
                let arguments = self.pop()?;
                let callee = self.pop()?;
                let Value::Tuple(arguments, _) = arguments else {
                    return malformed("calls something without a tuple of arguments");
                };
                self.call(&callee, &arguments)?
            }
            // The attributes of a state dictionary (`_metadata`) say nothing about the tensors.
            b'b' => {
                self.pop()?;
                return match self.stack.last() {
                    Some(Entry::Value(Value::Dictionary(_))) => Ok(()),
                    _ => Err(Refusal::Unsupported("the state of an object (BUILD)".to_owned())),
                };
            }
            b'0' => return self.pop().map(drop),
            other => {
                return Err(Refusal::Unsupported(format!("the pickle operation {}", operation_name(other))));
            }
        };
        self.stack.push(Entry::Value(value));
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let bytes = self.bytes.get(self.position..).and_then(|rest| rest.first_chunk::<N>());
        self.position += N;
        bytes.copied().ok_or_else(|| Refusal::Malformed("ends in the middle of an operation".to_owned()))
    }

    fn text(&mut self, length: usize) -> Result<String, Refusal> {
        if length > MAX_TEXT_BYTES {
            return malformed(format!("has a text of {length} bytes"));
        }
        let Some(bytes) = self.bytes.get(self.position..self.position + length) else {
            return malformed("ends in the middle of a text");
        };
        self.position += length;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => malformed("has a text that is not valid UTF-8"),
        }
    }

    fn line(&mut self) -> Result<String, Refusal> {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        let end = rest.iter().take(MAX_TEXT_BYTES).position(|byte| *byte == b'\n');
        let Some(end) = end else { return malformed("ends in the middle of a name") };
        let line = self.text(end)?;
        self.position += 1;
        Ok(line)
    }

    /// A whole number of up to eight bytes; larger ones are no size of anything.
    fn long(&mut self, length: usize) -> Result<Number, Refusal> {
        let Some(bytes) = self.bytes.get(self.position..self.position + length).filter(|_| length <= 8)
        else {
            return malformed(format!("has a number of {length} bytes"));
        };
        self.position += length;
        let negative = bytes.last().is_some_and(|byte| *byte >= 0x80);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide[..length].copy_from_slice(bytes);
        Ok(i64::from_le_bytes(wide))
    }

    fn pop(&mut self) -> Result<Value, Refusal> {
        match self.stack.pop() {
            Some(Entry::Value(value)) => Ok(value),
            _ => malformed("takes a value from an empty stack"),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, Refusal> {
        let mut values = Vec::new();
        loop {
            match self.stack.pop() {
                Some(Entry::Value(value)) => values.push(value),
                Some(Entry::Mark) => break,
                None => return malformed("has no mark where one is needed"),
            }
        }
        values.reverse();
        Ok(values)
    }

    fn new_dictionary(&mut self) -> Value {
        self.dictionaries.push(Dictionary::default());
        Value::Dictionary(self.dictionaries.len() - 1)
    }

    fn set_items(&mut self, values: Vec<Value>) -> Result<(), Refusal> {
        let Some(Entry::Value(Value::Dictionary(index))) = self.stack.last() else {
            return malformed("puts entries into something other than a dictionary");
        };
        let Some(dictionary) = self.dictionaries.get_mut(*index) else {
            return malformed("puts entries into an unknown dictionary");
        };
        if !values.len().is_multiple_of(2) {
            return malformed("has a key without a value");
        }
        let mut values = values.into_iter();
        while let (Some(key), Some(value)) = (values.next(), values.next()) {
            dictionary.entries.push((key, value));
        }
        Ok(())
    }

    fn expect_list(&self) -> Result<(), Refusal> {
        match self.stack.last() {
            Some(Entry::Value(Value::List)) => Ok(()),
            _ => malformed("appends to something other than a list"),
        }
    }

    fn remember(&mut self, place: usize) -> Result<(), Refusal> {
        let Some(Entry::Value(value)) = self.stack.last() else {
            return malformed("remembers a value of an empty stack");
        };
        let value = value.clone();
        // Writers number the entries one after another.
        if place > self.memo.len() {
            return malformed(format!("remembers a value as number {place} after {}", self.memo.len()));
        }
        if place == self.memo.len() {
            if place >= MAX_VALUES {
                return malformed("remembers too many values");
            }
            self.memo.push(Some(value));
        } else {
            self.memo[place] = Some(value);
        }
        Ok(())
    }

    fn recall(&mut self, place: usize) -> Result<Value, Refusal> {
        match self.memo.get(place).cloned().flatten() {
            Some(value) => Ok(value),
            None => malformed(format!("asks for the value {place}, which was never remembered")),
        }
    }

    fn call(&mut self, callee: &Value, arguments: &[Value]) -> Result<Value, Refusal> {
        let Value::Class(class) = callee else { return malformed("calls something that is no class") };
        match class {
            Class::OrderedDict if arguments.is_empty() => Ok(self.new_dictionary()),
            Class::OrderedDict => Err(Refusal::Unsupported("an OrderedDict with arguments".to_owned())),
            Class::RebuildTensor => rebuild_tensor(arguments).map(|tensor| Value::Tensor(Arc::new(tensor))),
            Class::RebuildParameter => match arguments.first() {
                Some(Value::Tensor(tensor)) => Ok(Value::Tensor(Arc::clone(tensor))),
                _ => malformed("makes a parameter of something other than a tensor"),
            },
            Class::Storage(_) => Err(Refusal::Unsupported("a call of a storage class".to_owned())),
        }
    }

    /// The tensors of the dictionary, or of the dictionary that it holds as `state_dict`.
    fn tensors(&mut self, root: &Value) -> Result<Vec<Named>, Refusal> {
        let Value::Dictionary(index) = root else { return malformed("is no dictionary of tensors") };
        let mut entries = self.entries(*index);
        let inner = entries.iter().find_map(|(key, value)| match (key, value) {
            (Value::Text(key), Value::Dictionary(inner)) if &**key == "state_dict" => Some(*inner),
            _ => None,
        });
        if let Some(inner) = inner.filter(|inner| inner != index) {
            entries = self.entries(inner);
        }
        let mut tensors = Vec::new();
        for (key, value) in entries {
            if let (Value::Text(key), Value::Tensor(tensor)) = (key, value) {
                tensors.push((key, tensor));
            }
        }
        Ok(tensors)
    }

    fn entries(&mut self, index: usize) -> Vec<(Value, Value)> {
        self.dictionaries
            .get_mut(index)
            .map(|dictionary| std::mem::take(&mut dictionary.entries))
            .unwrap_or_default()
    }
}

/// The meaning of a name, or a refusal with the name.
fn class(module: &str, name: &str) -> Result<Class, Refusal> {
    let found = match (module, name) {
        ("collections", "OrderedDict") => Some(Class::OrderedDict),
        ("torch._utils", "_rebuild_tensor_v2") => Some(Class::RebuildTensor),
        ("torch._utils", "_rebuild_parameter") => Some(Class::RebuildParameter),
        ("torch" | "torch.storage", _) => Class::storage(name),
        _ => None,
    };
    found.ok_or_else(|| {
        let full: String = format!("{module}.{name}").escape_debug().take(200).collect();
        Refusal::Unsupported(format!("the name {full}"))
    })
}

/// A persistent id: `("storage", class, key, device, values)`.
fn storage(id: &[Value]) -> Result<Value, Refusal> {
    match id {
        [
            Value::Text(kind),
            Value::Class(Class::Storage(element)),
            Value::Text(key),
            Value::Text(_),
            Value::Number(values),
        ] if &**kind == "storage" => match usize::try_from(*values) {
            Ok(values) => {
                let place = StoragePlace { element: *element, key: Arc::clone(key), values };
                Ok(Value::Storage(Arc::new(place)))
            }
            Err(_) => malformed("has a storage of a negative length"),
        },
        _ => malformed("has a persistent id that is no storage"),
    }
}

/// `(storage, offset, shape, strides, requires_grad, hooks, …)`.
fn rebuild_tensor(arguments: &[Value]) -> Result<Tensor, Refusal> {
    let [
        Value::Storage(storage),
        Value::Number(offset),
        Value::Tuple(shape, _),
        Value::Tuple(strides, _),
        ..,
    ] = arguments
    else {
        return malformed("makes a tensor of the wrong arguments");
    };
    let sizes = |values: &[Value]| -> Option<Vec<usize>> {
        values
            .iter()
            .map(|value| match value {
                Value::Number(number) => usize::try_from(*number).ok(),
                _ => None,
            })
            .collect()
    };
    match (usize::try_from(*offset), sizes(shape), sizes(strides)) {
        (Ok(offset), Some(shape), Some(strides)) if shape.len() == strides.len() => {
            Ok(Tensor { storage: Arc::clone(storage), offset, shape, strides })
        }
        _ => malformed("has a tensor with an absurd shape"),
    }
}

/// The name of an operation that is not on the list, as far as it has ever been used for harm.
fn operation_name(operation: u8) -> String {
    let name = match operation {
        b'i' => "INST",
        b'o' => "OBJ",
        0x81 => "NEWOBJ",
        0x92 => "NEWOBJ_EX",
        b'P' => "PERSID",
        0x82..=0x84 => "EXT",
        b'S' | b'T' | b'U' => "STRING",
        b'F' | b'I' | b'L' => "a number as text",
        0x8b => "LONG4",
        b'B' | b'C' | 0x8e => "BYTES",
        _ => return format!("{operation:#04x}"),
    };
    format!("{name} ({operation:#04x})")
}
