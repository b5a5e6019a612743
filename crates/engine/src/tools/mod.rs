//! Tool calls and reasoning in the text that a model writes.
//!
//! A [`Format`] is one file and one line in [`FORMATS`]; the chat template's own text says which one a model speaks.
//! Parsers work character by character, so that no way of cutting a text into pieces changes the result.
//!
//! A call whose name is no tool's, or that is no JSON, is never passed on as a call. Where nothing of it was sent yet,
//! it is text, and a notice says why; where its arguments broke off while they were sent, the choice fails.

mod call;
mod grammar;
mod hermes;
mod json;
mod llama;
mod mistral;
mod parts;
mod prose;
mod request;
#[cfg(test)]
mod tests;
mod thoughts;

use std::fmt;
use std::sync::Arc;

use byzerllm_core::Tool;
use serde_json::{Value, json};

use self::call::Call;
use self::thoughts::Thoughts;
use crate::options::random;

pub(crate) use self::grammar::constraint;
pub(crate) use self::parts::{Part, Parts};
pub(crate) use self::request::format_of;

/// Reads the calls of one answer.
trait CallParser: Send {
    /// Takes a character.
    fn push(&mut self, c: char, out: &mut Parts);
    /// Ends the answer; `cut` says that the model would have gone on.
    fn finish(&mut self, cut: bool, out: &mut Parts);
}

/// What the ids of calls look like. Templates check them when they come back.
#[derive(Debug, Clone, Copy)]
enum Ids {
    /// As OpenAI writes them.
    Prefixed,
    /// Nine letters or digits.
    NineLetters,
}

/// How an answer that is one call looks.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// Between markers.
    Marked { open: &'static str, close: &'static str },
    /// The object alone, after a tag or without it.
    Bare { tag: &'static str },
    /// In a list after a marker.
    List { open: &'static str },
}

/// How a family of models writes calls.
pub(crate) struct Format {
    name: &'static str,
    /// Texts of which a template of this format holds one.
    any: &'static [&'static str],
    /// Texts of which it holds none.
    none: &'static [&'static str],
    /// Whether its markers are special tokens, which a text otherwise lacks.
    special: bool,
    ids: Ids,
    /// What the arguments are called.
    arguments: &'static str,
    shape: Shape,
    parser: fn(Arc<[String]>) -> Box<dyn CallParser>,
}

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// All formats.
static FORMATS: &[&Format] = &[&hermes::FORMAT, &mistral::FORMAT, &llama::FORMAT];

impl Format {
    /// The format of a chat template.
    pub(crate) fn of(template: &str) -> Option<&'static Self> {
        let has = |texts: &[&str]| texts.iter().any(|text| template.contains(text));
        FORMATS.iter().copied().find(|format| has(format.any) && !has(format.none))
    }

    /// Whether special tokens belong to the text.
    pub(crate) fn special(&self) -> bool {
        self.special
    }

    /// A new id.
    pub(crate) fn id(&self) -> String {
        let letters = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let bytes: [u8; 24] = random();
        let mut letters = bytes.iter().map(|byte| char::from(letters[usize::from(*byte) % letters.len()]));
        match self.ids {
            Ids::Prefixed => format!("call_{}", letters.collect::<String>()),
            Ids::NineLetters => letters.by_ref().take(9).collect(),
        }
    }
}

/// Tools as chat templates expect them: OpenAI's shape.
pub(crate) fn for_template(tools: &[Tool]) -> Value {
    let describe = |tool: &Tool| {
        let any = || json!({"type": "object", "properties": {}});
        let mut function = serde_json::Map::new();
        function.insert("name".to_owned(), tool.name.as_str().into());
        function.insert("description".to_owned(), tool.description.as_deref().unwrap_or_default().into());
        function.insert("parameters".to_owned(), tool.parameters.clone().unwrap_or_else(any));
        json!({"type": "function", "function": function})
    };
    tools.iter().map(describe).collect()
}

/// What the text of an answer holds beside text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading {
    /// For models that reason: whether the prompt has begun it.
    opened: Option<bool>,
    /// How calls are written, and the names of the tools.
    calls: Option<(&'static Format, Arc<[String]>)>,
    /// The first call ends the answer.
    single: bool,
    /// White space before the answer is none of it.
    trims: bool,
}

/// What the prompts of ChatGLM and GLM-4 begin with. These models write the rest of the line of a role, a line break and,
/// ChatGLM3, a space before an answer; their published code takes it away.
const LINE_OF_A_ROLE: &str = "[gMASK]";

impl Reading {
    /// For an answer to a conversation; `prompt` is the rendered conversation or its end.
    pub(crate) fn new(template: &str, prompt: &str, calls: Option<(&'static Format, Arc<[String]>)>) -> Self {
        let trims = template.contains(LINE_OF_A_ROLE);
        Self { opened: Thoughts::opened(template, prompt), calls, single: false, trims }
    }

    /// Lets the first complete call end an answer.
    pub(crate) fn with_single_call(self, single: bool) -> Self {
        Self { single, ..self }
    }

    /// For models that reason: whether the prompt has begun it.
    pub(crate) fn opened(&self) -> Option<bool> {
        self.opened
    }

    /// The format of calls.
    pub(crate) fn format(&self) -> Option<&'static Format> {
        self.calls.as_ref().map(|(format, _)| *format)
    }

    /// A reader for one choice, when the text holds more than text.
    pub(crate) fn reader(&self) -> Option<Reader> {
        let thoughts = self.opened.map(Thoughts::new);
        let calls = self.calls.as_ref().map(|(format, tools)| (format.parser)(tools.clone()));
        let (single, trims) = (self.single, self.trims);
        (thoughts.is_some() || calls.is_some() || trims).then(|| Reader {
            thoughts,
            calls,
            single,
            trims,
            parts: Parts::default(),
        })
    }
}

/// Reads the text of one choice.
pub(crate) struct Reader {
    thoughts: Option<Thoughts>,
    calls: Option<Box<dyn CallParser>>,
    single: bool,
    /// Nothing but white space was written yet, and it is left out.
    trims: bool,
    parts: Parts,
}

impl Reader {
    /// Whether the model reasons at the moment.
    pub(crate) fn thinks(&self) -> bool {
        self.thoughts.as_ref().is_some_and(Thoughts::inside)
    }

    /// Whether the answer ends here, whatever the model goes on to write.
    pub(crate) fn is_over(&self) -> bool {
        self.single && self.parts.any_complete()
    }

    /// Whether the answer is made of complete calls and text.
    pub(crate) fn called(&self) -> bool {
        self.parts.called()
    }

    /// The parts that a piece of text completes.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Part> {
        let mut answer = String::new();
        for c in text.chars() {
            if self.is_over() {
                break;
            }
            match &mut self.thoughts {
                Some(thoughts) => {
                    thoughts.step(c, &mut self.parts, &mut answer);
                    self.read(&std::mem::take(&mut answer));
                }
                None => self.read(c.encode_utf8(&mut [0; 4])),
            }
        }
        self.parts.take()
    }

    /// The parts that were held back; `cut` says that the model would have gone on.
    pub(crate) fn finish(&mut self, cut: bool) -> Vec<Part> {
        if let Some(mut thoughts) = self.thoughts.take() {
            let mut answer = String::new();
            thoughts.finish(&mut self.parts, &mut answer);
            self.read(&answer);
        }
        let over = self.is_over();
        if let Some(calls) = self.calls.as_mut().filter(|_| !over) {
            calls.finish(cut, &mut self.parts);
        }
        self.parts.take()
    }

    fn read(&mut self, answer: &str) {
        let answer = if self.trims { answer.trim_start() } else { answer };
        self.trims &= answer.is_empty();
        let Some(calls) = &mut self.calls else { return self.parts.text(answer) };
        for c in answer.chars() {
            if self.single && self.parts.any_complete() {
                return;
            }
            calls.push(c, &mut self.parts);
        }
    }
}

/// A call that turned out to be none.
fn broken(call: Option<Call>, reason: &str, out: &mut Parts) {
    let Some(call) = call else { return };
    let sent = call.sent();
    out.text(&call.into_raw());
    out.broken(reason, sent);
}

/// A call that the answer's end leaves open. One that the token limit cut is no mistake of the model.
fn unfinished(call: Option<Call>, cut: bool, out: &mut Parts) {
    match call {
        Some(call) if cut => out.text(&call.into_raw()),
        call => broken(call, "the answer ends within it", out),
    }
}
