//! Methods of Python's strings, dicts and lists, paid for.

use minijinja::value::{Tuple, ValueKind, from_args};
use minijinja::{Error, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::budget::Budget;
use super::python;

/// Calls a method that the value itself does not have.
pub(crate) fn call(
    budget: &Budget,
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if value.kind() == ValueKind::Seq {
        budget.walk(value)?;
    } else {
        budget.look(value)?;
    }
    for argument in args {
        budget.walk(argument)?;
    }
    if let Some(text) = value.as_str() {
        match method {
            "replace" => {
                if let [from, to, ..] = args {
                    pay_for_replace(budget, text, from, to)?;
                }
            }
            "join" => {
                let (items,): (&Value,) = from_args(args)?;
                return join(budget, items, text, None);
            }
            "format" => pay_for_format(budget, text, args)?,
            "removeprefix" => {
                let (prefix,): (&str,) = from_args(args)?;
                return budget.made(Value::from(text.strip_prefix(prefix).unwrap_or(text)));
            }
            "removesuffix" => {
                let (suffix,): (&str,) = from_args(args)?;
                return budget.made(Value::from(text.strip_suffix(suffix).unwrap_or(text)));
            }
            "partition" => {
                let (separator,): (&str,) = from_args(args)?;
                let (left, right) = text.split_once(separator).unwrap_or((text, ""));
                let middle = if left.len() == text.len() { "" } else { separator };
                return budget.made(Value::from(Tuple::from([left, middle, right].map(Value::from))));
            }
            _ => {}
        }
    }
    budget.made(unknown_method_callback(state, value, method, args)?)
}

/// `separator.join(items)`, each item as `{{ item }}` would print it.
pub(crate) fn join(
    budget: &Budget,
    items: &Value,
    separator: &str,
    attribute: Option<&str>,
) -> Result<Value, Error> {
    let mut out = String::new();
    for (index, item) in items.try_iter()?.enumerate() {
        if index > 0 {
            budget.memory(separator.len())?;
            out.push_str(separator);
        }
        let item = match attribute {
            Some(attribute) => item.get_attr(attribute)?,
            None => item,
        };
        budget.work(16)?;
        out.push_str(&python::text(&item, budget)?);
    }
    Ok(Value::from(out))
}

/// Pays for the text that a replacement makes.
pub(crate) fn pay_for_replace(budget: &Budget, text: &str, from: &Value, to: &Value) -> Result<(), Error> {
    let (from, to) = (from.as_str().unwrap_or_default(), to.as_str().unwrap_or_default());
    budget.work(text.len())?;
    // An empty pattern matches between all characters.
    let matches = if from.is_empty() { text.chars().count() + 1 } else { text.matches(from).count() };
    budget.memory(matches.saturating_mul(to.len()).saturating_add(text.len()))
}

/// Refuses formats whose result may be much longer than their parts: computed or huge widths.
pub(crate) fn pay_for_format(budget: &Budget, format: &str, args: &[Value]) -> Result<(), Error> {
    let (mut digits, mut depth, mut computed) = (0usize, 0usize, false);
    let mut characters = format.chars().peekable();
    let mut longest = 0;
    while let Some(character) = characters.next() {
        digits = if character.is_ascii_digit() { digits + 1 } else { 0 };
        longest = longest.max(digits);
        match character {
            '*' => computed = true,
            '{' if depth == 0 && characters.peek() == Some(&'{') => {
                characters.next();
            }
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        computed |= depth > 1;
    }
    if computed || longest > 3 {
        return Err(budget.exceed("a format has a computed or huge width"));
    }
    for argument in args {
        budget.walk(argument)?;
        if let Some(text) = argument.as_str() {
            // One argument may be used by many fields.
            budget.memory(text.len().saturating_mul(format.matches(['{', '%']).count()))?;
        }
    }
    budget.memory(format.len().saturating_mul(64))
}
