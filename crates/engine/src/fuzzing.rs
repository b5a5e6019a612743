//! What a model may write: anything. The function takes any bytes, asserts what must hold of the answer read from
//! them, and returns how much memory reading may have held at once.
//!
//! The fuzz targets call it, and so does the test below with every file of `fuzz/corpus`.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::tools::{Format, Part, Reading};

/// Templates of every format, with and without reasoning.
const TEMPLATES: [&str; 8] = [
    "{% if tools %}<tool_call>{% endif %}",
    "{% if tools %}<|python_tag|>{% endif %}",
    "{% if tools %}[TOOL_CALLS]{% endif %}",
    "<think>",
    "<think>{% if tools %}<tool_call>{% endif %}",
    "<think>{% if tools %}<|python_tag|>{% endif %}",
    "<think>{% if tools %}[TOOL_CALLS]{% endif %}",
    "{{ messages }}",
];

/// An answer: the first byte says of which template, the second whether the prompt has begun the reasoning and whether
/// the token limit cut the answer, the third how it is cut into pieces; the rest is its text.
pub fn tool_calls(bytes: &[u8]) -> usize {
    let [template, how, seed, answer @ ..] = bytes else { return 1 << 20 };
    let answer = String::from_utf8_lossy(answer);
    let template = TEMPLATES[usize::from(*template) % TEMPLATES.len()];
    let prompt = if how & 1 == 1 { "<think>\n" } else { "" };
    let cut = how & 2 == 2;
    let tools: Arc<[String]> = ["weather".to_owned(), "add".to_owned()].into();
    let reading = Reading::new(template, prompt, Format::of(template).map(|format| (format, tools)));
    let Some(whole) = read(&reading, [&*answer], cut) else { return 1 << 20 };
    assert_eq!(read(&reading, pieces(&answer, *seed), cut).as_ref(), Some(&whole), "in pieces");
    let characters = answer.char_indices().map(|(at, c)| &answer[at..at + c.len_utf8()]);
    assert_eq!(read(&reading, characters, cut).as_ref(), Some(&whole), "character by character");

    let (parts, called) = whole;
    let (mut said, mut begun) = (String::new(), 0);
    for part in &parts {
        match part {
            Part::Start { index, name } => {
                assert_eq!(*index, begun, "calls are numbered");
                assert!(["weather", "add"].contains(&name.as_str()), "{name} is no tool");
                begun += 1;
            }
            Part::Arguments { index, text } => {
                assert_eq!(index + 1, begun, "arguments follow the start of their call");
                if called {
                    assert!(serde_json::from_str::<Map<String, Value>>(text).is_ok(), "{text}");
                }
            }
            Part::Text(text) => said.push_str(text),
            Part::Reasoning(_) | Part::Broken { .. } => {}
        }
    }
    assert!(!called || begun > 0);
    let hidden = parts.iter().any(|part| matches!(part, Part::Start { .. } | Part::Reasoning(_)));
    if !hidden && !template.contains("think") {
        assert_eq!(said, answer, "without a call nothing is lost or doubled");
    }
    (1 << 20) + 64 * bytes.len()
}

/// The parts of an answer, neighbours of one kind as one, and whether it is a call.
fn read<'a>(
    reading: &Reading,
    pieces: impl IntoIterator<Item = &'a str>,
    cut: bool,
) -> Option<(Vec<Part>, bool)> {
    let mut reader = reading.reader()?;
    let mut parts = Vec::new();
    for piece in pieces {
        reader.push(piece).into_iter().for_each(|part| join(&mut parts, part));
    }
    reader.finish(cut).into_iter().for_each(|part| join(&mut parts, part));
    Some((parts, reader.called()))
}

fn join(parts: &mut Vec<Part>, part: Part) {
    match (parts.last_mut(), part) {
        (Some(Part::Text(text)), Part::Text(more)) | (Some(Part::Reasoning(text)), Part::Reasoning(more)) => {
            text.push_str(&more);
        }
        (Some(Part::Arguments { index, text }), Part::Arguments { index: same, text: more })
            if *index == same =>
        {
            text.push_str(&more);
        }
        (_, part) => parts.push(part),
    }
}

/// A text in pieces of up to eight characters.
fn pieces(text: &str, seed: u8) -> impl Iterator<Item = &str> {
    let (mut rest, mut state) = (text, u32::from(seed));
    std::iter::from_fn(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let end = rest.char_indices().nth((state >> 29) as usize + 1).map_or(rest.len(), |(at, _)| at);
        let (piece, after) = rest.split_at(end);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    #[test]
    fn corpus_of_tool_calls() {
        super::replay::replay("tool_calls", super::tool_calls);
    }
}
