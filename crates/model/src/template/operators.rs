//! The operators that make, compare or search texts and containers, paid for.
//!
//! The engine's own operators have no hook, so that [`super::program`] turns their instructions into calls of these
//! filters, whose names no template can write.

use std::sync::Arc;

use minijinja::machinery::Instruction;
use minijinja::value::{Rest, Tuple, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::budget::Budget;
use super::python;

/// No slot of the engine's filter cache.
const UNCACHED: u8 = u8::MAX;

/// The guarded form of an instruction, or nothing when it needs no guard.
pub(crate) fn guarded<'source>(instruction: &Instruction<'source>) -> Option<Instruction<'source>> {
    let filter = |name, count: usize| {
        u16::try_from(count).ok().map(|count| Instruction::ApplyFilter(name, Some(count), UNCACHED))
    };
    match instruction {
        Instruction::Add => filter("+", 2),
        Instruction::Mul => filter("*", 2),
        Instruction::StringConcat => filter("~", 2),
        Instruction::Eq => filter("==", 2),
        Instruction::Ne => filter("!=", 2),
        Instruction::Lt => filter("<", 2),
        Instruction::Lte => filter("<=", 2),
        Instruction::Gt => filter(">", 2),
        Instruction::Gte => filter(">=", 2),
        Instruction::In => filter("?", 2),
        Instruction::Slice => filter("[:]", 4),
        Instruction::BuildList(Some(count)) if *count > 0 => filter("[]", *count),
        Instruction::BuildTuple(Some(count)) if *count > 0 => filter("()", *count),
        Instruction::BuildMap(pairs) if *pairs > 0 => filter("{}", pairs.saturating_mul(2)),
        Instruction::BuildList(None) => Some(Instruction::ApplyFilter("[]", None, UNCACHED)),
        Instruction::BuildTuple(None) => Some(Instruction::ApplyFilter("()", None, UNCACHED)),
        _ => None,
    }
}

/// Registers the filters that [`guarded`] names.
pub(crate) fn register(environment: &mut Environment<'_>, budget: &Arc<Budget>) {
    let mut binary = |name: &'static str, run: fn(&Budget, &Value, &Value) -> Result<Value, Error>| {
        let budget = Arc::clone(budget);
        environment.add_filter(name, move |left: &Value, right: &Value| run(&budget, left, right));
    };
    binary("+", add);
    binary("*", multiply);
    binary("~", concatenate);
    binary("==", |budget, left, right| compare(budget, left, right, |left, right| left == right));
    binary("!=", |budget, left, right| compare(budget, left, right, |left, right| left != right));
    binary("<", |budget, left, right| compare(budget, left, right, |left, right| left < right));
    binary("<=", |budget, left, right| compare(budget, left, right, |left, right| left <= right));
    binary(">", |budget, left, right| compare(budget, left, right, |left, right| left > right));
    binary(">=", |budget, left, right| compare(budget, left, right, |left, right| left >= right));

    let purse = Arc::clone(budget);
    environment.add_filter("?", move |state: &State, item: &Value, container: &Value| {
        contains(&purse, state, item, container)
    });
    let purse = Arc::clone(budget);
    environment.add_filter("[:]", move |value: &Value, start: Value, stop: Value, step: Value| {
        slice(&purse, value, &start, &stop, &step)
    });
    let purse = Arc::clone(budget);
    environment.add_filter("[]", move |items: Rest<Value>| purse.made(Value::from(items.0)));
    let purse = Arc::clone(budget);
    environment.add_filter("()", move |items: Rest<Value>| purse.made(Value::from(Tuple::from(items.0))));
    let purse = Arc::clone(budget);
    environment.add_filter("{}", move |items: Rest<Value>| {
        let pairs = items.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
        purse.made(Value::from_pairs(pairs))
    });
}

fn unsupported(operator: &str, left: &Value, right: &Value) -> Error {
    let reason = format!("{operator} does not take {} and {}", left.kind(), right.kind());
    Error::new(ErrorKind::InvalidOperation, reason)
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

/// Both values as integers, as far as Python counts them as such.
fn integers(left: &Value, right: &Value) -> Option<(i128, i128)> {
    let integer = |value: &Value| match value.kind() {
        ValueKind::Bool => Some(i128::from(value.is_true())),
        ValueKind::Number if value.is_integer() => i128::try_from(value.clone()).ok(),
        _ => None,
    };
    Some((integer(left)?, integer(right)?))
}

fn floats(left: &Value, right: &Value) -> Option<(f64, f64)> {
    let float = |value: &Value| match value.kind() {
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        ValueKind::Number => f64::try_from(value.clone()).ok(),
        _ => None,
    };
    Some((float(left)?, float(right)?))
}

/// An integer in the smallest form that holds it.
fn integer_value(number: i128) -> Value {
    i64::try_from(number).map_or_else(|_| Value::from(number), Value::from)
}

fn add(budget: &Budget, left: &Value, right: &Value) -> Result<Value, Error> {
    if let (Some(left), Some(right)) = (left.as_str(), right.as_str()) {
        budget.memory(left.len() + right.len())?;
        return Ok(Value::from([left, right].concat()));
    }
    if is_list(left) && is_list(right) && left.is_tuple() == right.is_tuple() {
        let mut items = Vec::new();
        for item in left.try_iter()?.chain(right.try_iter()?) {
            budget.memory(32)?;
            items.push(item);
        }
        return Ok(if left.is_tuple() { Value::from(Tuple::from(items)) } else { Value::from(items) });
    }
    if let Some((left_number, right_number)) = integers(left, right) {
        let sum = left_number.checked_add(right_number);
        return sum.map(integer_value).ok_or_else(|| unsupported("+", left, right));
    }
    floats(left, right)
        .map(|(left, right)| Value::from(left + right))
        .ok_or_else(|| unsupported("+", left, right))
}

fn multiply(budget: &Budget, left: &Value, right: &Value) -> Result<Value, Error> {
    if let Some((left_number, right_number)) = integers(left, right) {
        let product = left_number.checked_mul(right_number);
        return product.map(integer_value).ok_or_else(|| unsupported("*", left, right));
    }
    if let Some((left, right)) = floats(left, right) {
        return Ok(Value::from(left * right));
    }
    let (repeated, count) =
        if left.as_str().is_some() || is_list(left) { (left, right) } else { (right, left) };
    let count = integers(count, count).ok_or_else(|| unsupported("*", left, right))?.0;
    let count = usize::try_from(count.max(0)).map_err(|_| budget.exceed("it repeats too much"))?;
    if let Some(text) = repeated.as_str() {
        let bytes = text.len().checked_mul(count).ok_or_else(|| budget.exceed("it repeats too much"))?;
        budget.memory(bytes)?;
        return Ok(Value::from(text.repeat(count)));
    }
    if !is_list(repeated) {
        return Err(unsupported("*", left, right));
    }
    let items: Vec<Value> = repeated.try_iter()?.collect();
    let bytes = items.len().checked_mul(count).and_then(|items| items.checked_mul(32));
    budget.memory(bytes.ok_or_else(|| budget.exceed("it repeats too much"))?)?;
    let mut list = Vec::new();
    // An empty list stays empty, however often it is repeated.
    for _ in 0..if items.is_empty() { 0 } else { count } {
        list.extend_from_slice(&items);
    }
    Ok(if repeated.is_tuple() { Value::from(Tuple::from(list)) } else { Value::from(list) })
}

fn concatenate(budget: &Budget, left: &Value, right: &Value) -> Result<Value, Error> {
    let mut text = python::text(left, budget)?;
    match right.as_str() {
        Some(right) => {
            budget.memory(right.len())?;
            text.push_str(right);
        }
        None => text.push_str(&python::text(right, budget)?),
    }
    Ok(Value::from(text))
}

/// Compares after paying for everything that the comparison may look at.
pub(crate) fn compare(
    budget: &Budget,
    left: &Value,
    right: &Value,
    run: fn(&Value, &Value) -> bool,
) -> Result<Value, Error> {
    budget.walk(left)?;
    budget.walk(right)?;
    Ok(Value::from(run(left, right)))
}

/// `item in container`.
pub(crate) fn contains(
    budget: &Budget,
    state: &State,
    item: &Value,
    container: &Value,
) -> Result<Value, Error> {
    budget.walk(item)?;
    if container.kind() == ValueKind::Map {
        budget.look(container)?;
    } else {
        budget.walk(container)?;
    }
    minijinja::tests::is_in(state, item, container).map(Value::from)
}

/// `value[start:stop:step]`.
fn slice(budget: &Budget, value: &Value, start: &Value, stop: &Value, step: &Value) -> Result<Value, Error> {
    let number = |value: &Value| {
        if value.is_none() || value.is_undefined() {
            return Ok(None);
        }
        let reason = || Error::new(ErrorKind::InvalidOperation, "slice bounds must be integers");
        value.as_i64().map(Some).ok_or_else(reason)
    };
    let (start, stop, step) = (number(start)?, number(stop)?, number(step)?.unwrap_or(1));
    if step == 0 {
        return Err(Error::new(ErrorKind::InvalidOperation, "the step of a slice must not be zero"));
    }
    if let Some(text) = value.as_str() {
        budget.work(text.len())?;
        if text.is_ascii() {
            let picked = pick(text.as_bytes(), start, stop, step);
            budget.memory(picked.len())?;
            return Ok(Value::from(picked.into_iter().map(char::from).collect::<String>()));
        }
        budget.memory(text.len())?;
        let characters: Vec<char> = text.chars().collect();
        return Ok(Value::from(pick(&characters, start, stop, step).into_iter().collect::<String>()));
    }
    if value.is_undefined() || value.is_none() {
        return Ok(Value::from(Vec::<Value>::new()));
    }
    if !is_list(value) {
        let reason = format!("a value of type {} cannot be sliced", value.kind());
        return Err(Error::new(ErrorKind::InvalidOperation, reason));
    }
    budget.memory(value.len().unwrap_or_default().saturating_mul(32))?;
    let items: Vec<Value> = value.try_iter()?.collect();
    let picked = pick(&items, start, stop, step);
    Ok(if value.is_tuple() { Value::from(Tuple::from(picked)) } else { Value::from(picked) })
}

/// The items that a Python slice picks.
fn pick<T: Clone>(items: &[T], start: Option<i64>, stop: Option<i64>, step: i64) -> Vec<T> {
    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
    // The bounds of a falling slice lie one to the left.
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let bound = |index: i64| if index < 0 { index.saturating_add(length) } else { index }.clamp(low, high);
    let (first, last) = if step > 0 { (low, high) } else { (high, low) };
    let (mut index, last) = (start.map_or(first, bound), stop.map_or(last, bound));
    let mut picked = Vec::new();
    while if step > 0 { index < last } else { index > last } {
        picked.extend(usize::try_from(index).ok().and_then(|index| items.get(index)).cloned());
        index = index.saturating_add(step);
    }
    picked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_pick_what_python_picks() {
        let items: Vec<i32> = (0..5).collect();
        assert_eq!(pick(&items, Some(1), None, 1), [1, 2, 3, 4]);
        assert_eq!(pick(&items, None, Some(-1), 2), [0, 2]);
        assert_eq!(pick(&items, None, None, -1), [4, 3, 2, 1, 0]);
        assert_eq!(pick(&items, Some(3), Some(0), -2), [3, 1]);
        assert_eq!(pick(&items, Some(-100), Some(100), 3), [0, 3]);
        assert_eq!(pick(&items, Some(i64::MIN), Some(i64::MAX), i64::MAX), [0]);
        assert!(pick(&items, Some(4), Some(1), 1).is_empty());
    }
}
