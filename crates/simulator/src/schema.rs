//! A value that a JSON Schema accepts, for tool calls and structured answers.

use serde_json::{Map, Value, json};

/// How deep schemas are followed; deeper values are `null`.
const DEPTH: u32 = 8;

/// A small value of that shape. Always the same one.
pub(crate) fn sample(schema: &Value) -> Value {
    let value = of(schema, schema, DEPTH);
    if value.is_null() { json!({}) } else { value }
}

fn of(schema: &Value, root: &Value, depth: u32) -> Value {
    if depth == 0 {
        return Value::Null;
    }
    for key in ["const", "default"] {
        if let Some(value) = schema.get(key) {
            return value.clone();
        }
    }
    if let Some(value) = schema.pointer("/enum/0") {
        return value.clone();
    }
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let target = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        return target.map_or(Value::Null, |target| of(target, root, depth - 1));
    }
    for key in ["/anyOf/0", "/oneOf/0", "/allOf/0"] {
        if let Some(first) = schema.pointer(key) {
            return of(first, root, depth - 1);
        }
    }
    let kind = schema.get("type").map(|kind| kind.get(0).unwrap_or(kind)).and_then(Value::as_str);
    match kind.map(str::to_ascii_lowercase).as_deref() {
        Some("string") => text(schema),
        Some("integer") => schema.get("minimum").and_then(Value::as_i64).unwrap_or(1).into(),
        Some("number") => schema.get("minimum").and_then(Value::as_f64).unwrap_or(1.5).into(),
        Some("boolean") => true.into(),
        Some("array") => {
            let item = schema.get("items").map(|items| of(items, root, depth - 1));
            Value::Array(item.into_iter().collect())
        }
        Some("null") => Value::Null,
        _ => {
            let mut object = Map::new();
            for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten()
            {
                object.insert(name.clone(), of(property, root, depth - 1));
            }
            Value::Object(object)
        }
    }
}

fn text(schema: &Value) -> Value {
    let shortest = schema.get("minLength").and_then(Value::as_u64).unwrap_or(0).min(1000);
    let longest = schema.get("maxLength").and_then(Value::as_u64).unwrap_or(1000);
    let mut text: String = "北京".chars().take(usize::try_from(longest).unwrap_or(2)).collect();
    while (text.chars().count() as u64) < shortest {
        text.push('x');
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_the_schemas_shape() {
        let schema = json!({
            "type": "object",
            "properties": {
                "city": {"type": "string"}, "days": {"type": "integer", "minimum": 3},
                "unit": {"enum": ["C", "F"]}, "at": {"$ref": "#/$defs/point"}, "tags": {"type": "array", "items": {"type": "string"}}
            },
            "$defs": {"point": {"type": "object", "properties": {"x": {"type": "number"}}}}
        });
        let expected = json!({"city": "北京", "days": 3, "unit": "C", "at": {"x": 1.5}, "tags": ["北京"]});
        assert_eq!(sample(&schema), expected);
    }

    #[test]
    fn a_schema_that_holds_itself_ends() {
        let schema = json!({"type": "object", "properties": {"next": {"$ref": "#"}}});
        assert!(sample(&schema).to_string().len() < 200);
    }
}
