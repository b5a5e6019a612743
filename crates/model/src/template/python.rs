//! Values written as Python writes them, which is what `{{ value }}` prints under Jinja2.

use std::fmt::Write;

use minijinja::value::ValueKind;
use minijinja::{Error, Value};

use super::budget::{Budget, MAX_DEPTH};

/// `str(value)`.
pub(crate) fn text(value: &Value, budget: &Budget) -> Result<String, Error> {
    let mut out = String::new();
    match value.as_str() {
        Some(text) => {
            budget.memory(text.len())?;
            out.push_str(text);
        }
        None if value.is_undefined() => {}
        None => representation(value, budget, 0, &mut out)?,
    }
    Ok(out)
}

/// `repr(value)`.
fn representation(value: &Value, budget: &Budget, depth: usize, out: &mut String) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(budget.exceed("containers are nested too deep"));
    }
    budget.memory(16)?;
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => number(value, out),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            budget.memory(text.len())?;
            quoted(text, out);
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let (open, close) = if value.is_tuple() { ('(', ')') } else { ('[', ']') };
            out.push(open);
            for (index, item) in value.try_iter()?.enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                representation(&item, budget, depth + 1, out)?;
            }
            if value.is_tuple() && value.len() == Some(1) {
                out.push(',');
            }
            out.push(close);
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter()?.enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                representation(&key, budget, depth + 1, out)?;
                out.push_str(": ");
                representation(&value.get_item(&key)?, budget, depth + 1, out)?;
            }
            out.push('}');
        }
        _ => {
            let text = value.to_string();
            budget.memory(text.len())?;
            out.push_str(&text);
        }
    }
    Ok(())
}

/// A number as Python writes it.
pub(crate) fn number(value: &Value, out: &mut String) {
    match f64::try_from(value.clone()) {
        Ok(number) if !value.is_integer() => float(number, out),
        // Writing to a string cannot fail.
        _ => {
            let _ = write!(out, "{value}");
        }
    }
}

fn float(number: f64, out: &mut String) {
    if number.is_nan() {
        out.push_str("nan");
        return;
    }
    if number.is_infinite() {
        out.push_str(if number > 0.0 { "inf" } else { "-inf" });
        return;
    }
    let size = number.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        // Python pads the exponent to two digits and writes its sign.
        let text = format!("{number:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
        let _ = write!(out, "{digits}e{sign}{exponent:0>2}");
    } else {
        let text = format!("{number}");
        out.push_str(&text);
        if !text.contains('.') {
            out.push_str(".0");
        }
    }
}

fn quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            character if character == quote => {
                out.push('\\');
                out.push(character);
            }
            '\0'..='\x1f' | '\x7f'..='\u{a0}' | '\u{ad}' => {
                let _ = write!(out, "\\x{:02x}", u32::from(character));
            }
            character => out.push(character),
        }
    }
    out.push(quote);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_look_as_in_python() {
        let budget = Budget::new(0);
        let list = Value::from(vec![
            Value::from("it's"),
            Value::from("a\n\u{7}"),
            Value::from(true),
            Value::from(()),
            Value::from(1.0),
            Value::from(1e16),
            Value::from(0.000_012),
            Value::from(12345.678),
            Value::from_pairs([("k", 1)]),
        ]);
        let expected = r#"["it's", 'a\n\x07', True, None, 1.0, 1e+16, 1.2e-05, 12345.678, {'k': 1}]"#;
        assert_eq!(text(&list, &budget).unwrap(), expected);
        assert_eq!(text(&Value::UNDEFINED, &budget).unwrap(), "");
    }
}
