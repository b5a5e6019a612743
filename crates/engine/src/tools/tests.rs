//! Calls of every format, whole and in pieces.

use proptest::prelude::*;

use super::*;

const HERMES: &str = "{% if tools %}<tool_call>{% endif %}";
const LLAMA: &str = "{% if tools %}<|python_tag|>{% endif %}";
const MISTRAL: &str = "{% if tools %}[TOOL_CALLS]{% endif %}";

fn reading(template: &str, prompt: &str) -> Reading {
    let tools: Arc<[String]> = ["weather".to_owned(), "add".to_owned()].into();
    Reading::new(template, prompt, Format::of(template).map(|format| (format, tools)))
}

/// Neighbours of one kind as one part.
fn joined(parts: Vec<Part>) -> Vec<Part> {
    let mut all = Vec::new();
    for part in parts {
        match (all.last_mut(), &part) {
            (Some(Part::Text(text)), Part::Text(more))
            | (Some(Part::Reasoning(text)), Part::Reasoning(more)) => {
                text.push_str(more);
            }
            (Some(Part::Arguments { text, index }), Part::Arguments { text: more, index: same })
                if index == same =>
            {
                text.push_str(more);
            }
            _ => all.push(part),
        }
    }
    all
}

fn read(reading: &Reading, pieces: &[&str], cut: bool) -> (Vec<Part>, bool) {
    let mut reader = reading.reader().unwrap();
    let mut parts: Vec<Part> = pieces.iter().flat_map(|piece| reader.push(piece)).collect();
    parts.extend(reader.finish(cut));
    let called = reader.called();
    (joined(parts), called)
}

fn parts(template: &str, text: &str) -> (Vec<Part>, bool) {
    read(&reading(template, ""), &[text], false)
}

fn text(text: &str) -> Part {
    Part::Text(text.to_owned())
}

fn call(index: u32, name: &str, arguments: &str) -> [Part; 2] {
    [Part::Start { index, name: name.to_owned() }, Part::Arguments { index, text: arguments.to_owned() }]
}

fn broke(reason: &str, sent: bool) -> Part {
    Part::Broken { reason: reason.to_owned(), sent }
}

#[test]
fn templates_say_which_format_they_speak() {
    let name = |template: &str| Format::of(template).map(|format| format.name);
    assert_eq!(name(HERMES), Some("hermes"));
    assert_eq!(name(LLAMA), Some("llama"));
    assert_eq!(name(MISTRAL), Some("mistral"));
    assert_eq!(
        name(r#"Respond in the format {"name": function name, "parameters": dictionary}"#),
        Some("llama")
    );
    assert_eq!(name("{{ messages }}"), None);
    assert_eq!(name("<tool_call><function=f>"), None);
    assert_eq!(name("[TOOL_CALLS]f[ARGS]{}"), None);
}

#[test]
fn hermes_calls() {
    let answer = "Let me see.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>\n\
                  <tool_call>{\"arguments\": {\"a\": [1, {}]}, \"name\": \"add\"}</tool_call>\n";
    let mut want = vec![text("Let me see.")];
    want.extend(call(0, "weather", r#"{"city": "Paris"}"#));
    want.extend(call(1, "add", r#"{"a": [1, {}]}"#));
    assert_eq!(parts(HERMES, answer), (want, true));

    let plain = "No call: a < b, <tool_cal, </tool_call> and {\"name\": 1}. \n";
    assert_eq!(parts(HERMES, plain), (vec![text(plain)], false));
    let nothing = r#"<tool_call>{"name": "add"}"#;
    assert_eq!(parts(HERMES, nothing), (call(0, "add", "{}").to_vec(), true));
    let quoted = r#"<tool_call>{"name": "add", "arguments": "{\"a\": \"\\n\"}"}</tool_call>"#;
    assert_eq!(parts(HERMES, quoted), (call(0, "add", r#"{"a": "\n"}"#).to_vec(), true));
}

#[test]
fn what_is_no_call_is_text_and_reported() {
    for (answer, reason) in [
        (r#"<tool_call>{"name": "rm", "arguments": {}}</tool_call>"#, "there is no tool 'rm'"),
        (r#"<tool_call>{"name": "add", "arguments": 5}</tool_call>"#, "its arguments are not an object"),
        (r#"<tool_call>{"name": "add", "arguments": "5"}</tool_call>"#, "its arguments are not an object"),
        (r#"<tool_call>{"name": 5}</tool_call>"#, "its name is not a text"),
        (r#"<tool_call>{"arguments": {}}</tool_call>"#, "it has no name"),
        (r#"<tool_call>{"name": "add" "x"}</tool_call>"#, "it is not valid JSON"),
        (r#"<tool_call>{"name": "add", "name": "add"}</tool_call>"#, "it has 'name' twice"),
        ("<tool_call>add(1, 2)</tool_call>", "it is not valid JSON"),
        (r#"<tool_call>{"name": "add", "#, "the answer ends within it"),
    ] {
        let (got, called) = parts(HERMES, answer);
        assert!(!called, "{answer}");
        let said: String = got
            .iter()
            .filter_map(|part| if let Part::Text(text) = part { Some(text.as_str()) } else { None })
            .collect();
        assert_eq!(said, answer);
        assert!(got.contains(&broke(reason, false)), "{answer}: {got:?}");
        assert!(!got.iter().any(|part| matches!(part, Part::Start { .. })), "{answer}");
    }
    // A good call beside a bad one stays good.
    let (got, called) = parts(HERMES, r#"<tool_call>{</tool_call> <tool_call>{"name": "add"}</tool_call>"#);
    assert!(called);
    assert_eq!(got[2..], [&[text("</tool_call>")][..], &call(0, "add", "{}")].concat());
}

#[test]
fn a_call_that_breaks_while_it_is_sent_is_fatal_unless_the_limit_cut_it() {
    let (got, called) = parts(HERMES, r#"<tool_call>{"name": "add", "arguments": {"a": oops"#);
    assert!(!called && got.contains(&broke("it is not valid JSON", true)), "{got:?}");
    let open = r#"<tool_call>{"name": "add", "arguments": {"a": 1}"#;
    let (got, called) = parts(HERMES, open);
    assert!(!called && got.contains(&broke("the answer ends within it", true)), "{got:?}");
    let (got, called) = read(&reading(HERMES, ""), &[open], true);
    assert_eq!((got, called), (call(0, "add", r#"{"a": 1}"#).to_vec(), false));
}

#[test]
fn llama_calls() {
    for answer in [
        r#"{"name": "add", "parameters": {"a": 1}}"#,
        "\n <|python_tag|> {\"type\": \"function\", \"name\": \"add\", \"parameters\": {\"a\": 1}}\n",
    ] {
        assert_eq!(parts(LLAMA, answer), (call(0, "add", r#"{"a": 1}"#).to_vec(), true), "{answer}");
    }
    let two = r#"<|python_tag|>{"name": "add", "parameters": {}}; {"name": "weather", "arguments": {}}"#;
    assert_eq!(parts(LLAMA, two).0, [call(0, "add", "{}"), call(1, "weather", "{}")].concat());
    // JSON is an answer like any other, until it says to be a call.
    for answer in ["Here: {\"name\": \"add\"}", r#"{"city": "Paris"} is it"#, "{x}", r#"{"a"#] {
        assert_eq!(parts(LLAMA, answer), (vec![text(answer)], false), "{answer}");
    }
    let (got, called) = parts(LLAMA, r#"{"name": "rm", "parameters": {}}"#);
    assert!(!called && got.contains(&broke("there is no tool 'rm'", false)), "{got:?}");
    let (got, _) = parts(LLAMA, "<|python_tag|>print(1)");
    assert_eq!(got, [broke("no JSON object follows the marker", false), text("<|python_tag|>print(1)")]);
}

#[test]
fn mistral_calls() {
    let answer = r#"Wait. [TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}, "id": "x"}, {"name": "weather", "arguments": {}}] "#;
    let mut want = vec![text("Wait.")];
    want.extend(call(0, "add", r#"{"a": 1}"#));
    want.extend(call(1, "weather", "{}"));
    assert_eq!(parts(MISTRAL, answer), (want, true));
    let (got, called) = parts(MISTRAL, r#"[TOOL_CALLS]{"name": "add"}"#);
    assert!(!called);
    assert_eq!(got[0], text("[TOOL_CALLS]"));
    assert_eq!(got[1], broke("the list of calls is not valid JSON", false));
    assert!(parts(MISTRAL, r#"[TOOL_CALLS][{"name": "add"}"#).1, "a list without its end");
    assert_eq!(parts(MISTRAL, "a [TOOL] b[").0, [text("a [TOOL] b[")]);
    assert_eq!(Format::of(MISTRAL).unwrap().id().len(), 9);
}

#[test]
fn reasoning_is_apart() {
    let thinking = "{% if tools %}<tool_call>{% endif %}<think>";
    let answer = "<think>\nWell, a <b>.\n</think>\n\nYes.";
    let want = vec![Part::Reasoning("Well, a <b>.".to_owned()), text("Yes.")];
    assert_eq!(parts(thinking, answer).0, want);
    assert_eq!(read(&reading("<think>", "x<think>\n"), &["Well, a <b>.\n</think>\n\nYes."], false).0, want);
    assert_eq!(read(&reading("<think>", "x"), &["No. <think>"], false).0, [text("No. <think>")]);
    let (got, called) =
        parts(thinking, "<think>x<tool_call></think>\n<tool_call>{\"name\": \"add\"}</tool_call>");
    assert!(called);
    assert_eq!(got, [&[Part::Reasoning("x<tool_call>".to_owned())][..], &call(0, "add", "{}")].concat());
    assert_eq!(
        read(&reading("<think>", ""), &["<think>\n on and"], true).0,
        [Part::Reasoning("on and".to_owned())]
    );
}

fn fragment() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &[
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<|python_tag|>",
        "[TOOL_CALLS]",
        "[",
        "]",
        "{",
        "}",
        "\"",
        "{\"name\": \"add\"",
        ", \"arguments\": {\"a\": 1}}",
        "{\"name\": \"weather\", \"parameters\": {\"ü\": \"\\u00fc\"}}",
        "{\"name\": \"rm\"}",
        ";",
        ",",
        " ",
        "\n",
        "text",
        "<",
        "日本",
        "\\",
        "<tool_",
        "<|py",
    ];
    prop_oneof![proptest::sample::select(WORDS).prop_map(str::to_owned), "[a-z<\\[{\" ]{0,4}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn pieces_make_no_difference(
        fragments in proptest::collection::vec(fragment(), 0..12),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        template in proptest::sample::select(&[HERMES, LLAMA, MISTRAL, "<think><tool_call>", "<think>"][..]),
        inside: bool,
        cut: bool,
    ) {
        let answer = fragments.concat();
        let reading = reading(template, if inside { "<think>\n" } else { "" });
        let whole = read(&reading, &[&answer], cut);
        let mut places: Vec<usize> = cuts.iter().map(|index| index.index(answer.len() + 1)).collect();
        places.extend([0, answer.len()]);
        places.retain(|&place| answer.is_char_boundary(place));
        places.sort_unstable();
        let pieces: Vec<&str> = places.windows(2).map(|pair| &answer[pair[0]..pair[1]]).collect();
        prop_assert_eq!(&read(&reading, &pieces, cut), &whole);
        let characters: Vec<String> = answer.chars().map(String::from).collect();
        let characters: Vec<&str> = characters.iter().map(String::as_str).collect();
        prop_assert_eq!(&read(&reading, &characters, cut), &whole);

        // What is passed on as calls is valid, and nothing is lost or doubled where there are none.
        let (parts, called) = whole;
        let mut said = String::new();
        for part in &parts {
            match part {
                Part::Arguments { text, .. } if called => {
                    let parsed = serde_json::from_str::<serde_json::Map<String, Value>>(text);
                    prop_assert!(parsed.is_ok(), "{text}");
                }
                Part::Start { name, .. } => prop_assert!(name == "add" || name == "weather"),
                Part::Text(text) => said.push_str(text),
                _ => {}
            }
        }
        let sent = parts.iter().any(|part| matches!(part, Part::Start { .. } | Part::Reasoning(_)));
        if !sent && !template.contains("think") {
            prop_assert_eq!(said, answer);
        }
    }
}
