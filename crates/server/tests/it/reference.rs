//! The committed references are what the server says of itself. `make reference` writes them again.
//!
//! `docs/reference/http.md` is prose with generated parts between `<!-- generated: NAME -->` and `<!-- end -->`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::contract::DOCUMENT;

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference").join(name)
}

/// Compares a file, or with `BYZERLLM_UPDATE=1` writes it.
fn keep(name: &str, expected: &str) {
    let path = place(name);
    if std::env::var_os("BYZERLLM_UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(&path, expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let line = found.lines().zip(expected.lines()).position(|(found, expected)| found != expected);
    assert!(
        found == expected,
        "docs/reference/{name} is not what the server says (line {}); run `make reference` and review the change",
        line.map_or(found.lines().count().min(expected.lines().count()), |line| line) + 1
    );
}

#[test]
fn the_document_is_current() {
    keep("openapi.json", &format!("{:#}\n", *DOCUMENT));
}

#[test]
fn the_page_is_current() {
    let page = std::fs::read_to_string(place("http.md")).unwrap();
    let parts: [(&str, String); 6] = [
        ("routes", routes()),
        ("fields", fields()),
        ("no effect", no_effect()),
        ("neutral", neutral()),
        ("limits", limits()),
        ("errors", errors()),
    ];
    let mut page = page;
    for (name, text) in parts.iter().chain(&[("other fields", other_fields())]) {
        let open = format!("<!-- generated: {name} -->\n");
        let begin =
            page.find(&open).unwrap_or_else(|| panic!("http.md has no `{}`", open.trim())) + open.len();
        let end = begin + page[begin..].find("<!-- end -->").unwrap();
        page.replace_range(begin..end, &format!("\n{text}\n"));
    }
    assert_eq!(page.matches("<!-- generated: ").count(), parts.len() + 1);
    keep("http.md", &page);
}

/// Method, path and operation in the document's order.
fn operations() -> impl Iterator<Item = (String, &'static str, &'static Value)> {
    let paths: &'static Map<String, Value> = DOCUMENT["paths"].as_object().unwrap();
    paths.iter().flat_map(|(path, item)| {
        let operations = item.as_object().unwrap().iter();
        operations.map(|(method, operation)| (method.to_ascii_uppercase(), path.as_str(), operation))
    })
}

fn routes() -> String {
    let mut text = "| route | who | what |\n|---|---|---|\n".to_owned();
    for (method, path, operation) in operations() {
        let word = |name: &str| operation[name].as_str().unwrap_or_default();
        let more = [word("summary"), word("description")].join(" ");
        writeln!(text, "| `{method} {path}` | {} | {} |", word("x-byzerllm-access"), more.trim()).unwrap();
    }
    text
}

fn resolved(schema: &'static Value) -> &'static Value {
    match schema["$ref"].as_str() {
        Some(reference) => DOCUMENT.pointer(&reference[1..]).unwrap(),
        None => schema,
    }
}

/// The fields of a request by name.
fn properties(path: &str) -> &'static Map<String, Value> {
    let body = &DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"];
    resolved(&body["schema"])["properties"].as_object().unwrap()
}

fn is(schema: &Value, mark: &str) -> bool {
    schema[mark] == true
}

const NO_EFFECT: &str = "x-byzerllm-no-effect";
const NEUTRAL: &str = "x-byzerllm-neutral-only";
const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// Fields of the two generating routes, with the word for where they are.
fn generating(wanted: fn(&Value) -> bool) -> Vec<(&'static str, &'static str, &'static Value)> {
    let (chat, completions) = (properties(CHAT), properties(COMPLETIONS));
    let chosen =
        |fields: &'static Map<String, Value>| fields.iter().filter(move |(_, schema)| wanted(schema));
    let mut all: Vec<_> = chosen(chat)
        .map(|(name, schema)| {
            let both = completions.get(name).is_some_and(wanted);
            (name.as_str(), if both { "both" } else { "chat" }, schema)
        })
        .collect();
    let place = all.iter().position(|(_, place, _)| *place == "both").unwrap_or(all.len());
    let more = chosen(completions).filter(|(name, schema)| {
        chat.get(*name).is_none_or(|other| {
            !is(other, NO_EFFECT) && !is(other, NEUTRAL) && other["type"] != schema["type"]
                || is(other, NEUTRAL) != is(schema, NEUTRAL)
        })
    });
    let more: Vec<_> = more.map(|(name, schema)| (name.as_str(), "completions", schema)).collect();
    all.splice(place..place, more);
    all
}

fn fields() -> String {
    let mut text = "| field | route | value | what it does |\n|---|---|---|---|\n".to_owned();
    for (name, place, schema) in generating(|schema| !is(schema, NO_EFFECT) && !is(schema, NEUTRAL)) {
        row(&mut text, &format!("`{name}` | {place}"), schema);
    }
    text
}

fn row(text: &mut String, start: &str, schema: &'static Value) {
    let about = schema["description"].as_str().or_else(|| resolved(schema)["description"].as_str());
    writeln!(text, "| {start} | {} | {} |", value(schema), about.unwrap_or_default()).unwrap();
}

/// What a field's value may be, in a few words.
fn value(schema: &'static Value) -> String {
    let schema = resolved(schema);
    if let Some(value) = schema.get("const") {
        return format!("`{value}`");
    }
    if let Some(values) = schema["enum"].as_array() {
        let values = values.iter().filter(|value| !value.is_null());
        return values.map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(schemas) = schema[key].as_array() {
            let mut words: Vec<String> =
                schemas.iter().filter(|schema| schema["type"] != "null").map(value).collect();
            words.dedup();
            return words.join(", or ");
        }
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => {
            kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect()
        }
        _ => return "anything".to_owned(),
    };
    let mut words = kinds.join(" or ");
    if kinds == ["array"] {
        let items = value(&schema["items"]);
        words = format!("list of {}", items.strip_suffix(" at least 0").unwrap_or(&items));
    }
    let bound = |name: &str| schema.get(name).filter(|value| !value.is_null());
    let unsigned = schema["format"].as_str().is_some_and(|format| format.starts_with("uint"));
    match (bound("minimum"), bound("exclusiveMinimum"), bound("maximum")) {
        (Some(least), _, Some(most)) => write!(words, ", {least} to {most}"),
        (_, Some(least), Some(most)) => write!(words, ", above {least}, at most {most}"),
        (Some(least), _, None) if !unsigned || least != 0 => write!(words, ", at least {least}"),
        _ => Ok(()),
    }
    .unwrap();
    for (name, unit) in [("maxItems", "items"), ("maxProperties", "members"), ("maxLength", "long")] {
        if let Some(most) = bound(name) {
            write!(words, ", at most {most} {unit}").unwrap();
        }
    }
    words
}

fn listed(fields: &[(&str, String)]) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for (place, (_, field)) in fields.iter().enumerate() {
        let end = if place + 1 == fields.len() { "." } else { "," };
        for word in format!("{field}{end}").split(' ') {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > 120 {
                writeln!(lines, "{line}").unwrap();
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    writeln!(lines, "{line}").unwrap();
    lines
}

fn no_effect() -> String {
    let fields: Vec<_> = generating(|schema| is(schema, NO_EFFECT))
        .into_iter()
        .map(|(name, place, _)| (name, format!("`{name}`{}", only_on(place))))
        .collect();
    listed(&fields)
}

fn only_on(place: &str) -> String {
    if place == "both" { String::new() } else { format!(" ({place})") }
}

fn neutral() -> String {
    let mut text = "| field | route | accepted | what is missing |\n|---|---|---|---|\n".to_owned();
    for (name, place, schema) in generating(|schema| is(schema, NEUTRAL)) {
        let nothing = schema["enum"].as_array().is_some_and(|values| values.contains(&Value::Bool(false)));
        let words = if nothing { "`false`, `0`, `\"\"`, `[]`, `{}`".to_owned() } else { value(schema) };
        let words = if words.is_empty() { "only `null`".to_owned() } else { words };
        let about = schema["description"].as_str().unwrap_or_default();
        writeln!(text, "| `{name}` | {place} | {words} | {about} |").unwrap();
    }
    text
}

fn other_fields() -> String {
    let mut text = String::new();
    for (method, path, operation) in operations() {
        if path == CHAT || path == COMPLETIONS || operation["requestBody"].is_null() {
            continue;
        }
        writeln!(text, "### `{method} {path}`\n\n| field | value | what it does |\n|---|---|---|").unwrap();
        let (mut nothing, mut neutral) = (Vec::new(), Vec::new());
        for (name, schema) in properties(path) {
            if is(schema, NO_EFFECT) {
                nothing.push(format!("`{name}`"));
            } else if is(schema, NEUTRAL) {
                neutral.push(format!("`{name}`"));
            } else {
                row(&mut text, &format!("`{name}`"), schema);
            }
        }
        text.push('\n');
        for (names, what) in
            [(nothing, "Without effect"), (neutral, "Only with a value that asks for nothing")]
        {
            if !names.is_empty() {
                writeln!(text, "{what}: {}.\n", names.join(", ")).unwrap();
            }
        }
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn limits() -> String {
    let mut text = "| what | at most |\n|---|---|\n".to_owned();
    for limit in DOCUMENT["x-byzerllm-limits"].as_array().unwrap() {
        let word = |name: &str| limit[name].as_str().unwrap();
        writeln!(text, "| {} | {} |", word("what"), word("most")).unwrap();
    }
    text
}

fn errors() -> String {
    let mut text = "| `code` | status | `type` | may a retry help |\n|---|---|---|---|\n".to_owned();
    for error in DOCUMENT["x-byzerllm-errors"].as_array().unwrap() {
        let retry = if error["retry"] == true { "yes" } else { "no" };
        let word = |name: &str| error[name].as_str().unwrap();
        writeln!(text, "| `{}` | {} | `{}` | {retry} |", word("code"), error["status"], word("type"))
            .unwrap();
    }
    text
}
