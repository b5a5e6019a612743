//! The format of Mistral: `[TOOL_CALLS][{"name": …, "arguments": {…}}, …]`.

use std::sync::Arc;

use super::call::{Call, Members};
use super::json::is_space;
use super::parts::Parts;
use super::prose::Prose;
use super::{CallParser, Format, Ids, Shape, broken, unfinished};

const OPEN: &str = "[TOOL_CALLS]";
static MEMBERS: Members = Members { arguments: &["arguments"] };

pub(super) static FORMAT: Format = Format {
    name: "mistral",
    any: &[OPEN],
    // Later templates write each call as a name and its arguments.
    none: &["[ARGS]", "[CALL_ID]"],
    special: true,
    arguments: "arguments",
    shape: Shape::List { open: OPEN },
    ids: Ids::NineLetters,
    parser: |tools| Box::new(Mistral::new(tools)),
};

/// What the list of calls goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Bracket,
    Call,
    CommaOrBracket,
}

struct Mistral {
    tools: Arc<[String]>,
    prose: Prose,
    list: Option<Due>,
    /// What the model wrote of the list since its last call.
    held: String,
    call: Option<Call>,
}

impl Mistral {
    fn new(tools: Arc<[String]>) -> Self {
        Self { tools, prose: Prose::new(&[OPEN]), list: None, held: String::new(), call: None }
    }

    fn prose(&mut self, c: char, out: &mut Parts) {
        let mut text = String::new();
        let marker = self.prose.step(c, &mut text);
        out.text(&text);
        if let Some(marker) = marker {
            self.held = std::mem::take(&mut self.prose.space) + marker;
            self.list = Some(Due::Bracket);
        }
    }

    fn list(&mut self, due: Due, c: char, out: &mut Parts) {
        self.list = match (due, c) {
            (_, c) if is_space(c) => Some(due),
            (Due::Bracket, '[') | (Due::CommaOrBracket, ',') => Some(Due::Call),
            (Due::CommaOrBracket, ']') => {
                self.held.clear();
                self.list = None;
                return;
            }
            (Due::Call, '{') => {
                let before = std::mem::take(&mut self.held);
                let mut call = Call::new(&MEMBERS, self.tools.clone(), before);
                // A first bracket breaks nothing.
                if call.push(c, out).is_ok() {
                    self.call = Some(call);
                }
                self.list = Some(Due::CommaOrBracket);
                return;
            }
            _ => {
                self.give_up(out);
                return self.prose(c, out);
            }
        };
        self.held.push(c);
    }

    fn give_up(&mut self, out: &mut Parts) {
        self.list = None;
        out.text(&std::mem::take(&mut self.held));
        out.broken("the list of calls is not valid JSON", false);
    }
}

impl CallParser for Mistral {
    fn push(&mut self, c: char, out: &mut Parts) {
        let Some(call) = &mut self.call else {
            return match self.list {
                Some(due) => self.list(due, c, out),
                None => self.prose(c, out),
            };
        };
        match call.push(c, out) {
            Ok(false) => {}
            Ok(true) => self.call = None,
            Err(why) => {
                broken(self.call.take(), &why.0, out);
                self.list = None;
                self.prose(c, out);
            }
        }
    }

    fn finish(&mut self, cut: bool, out: &mut Parts) {
        let in_call = self.call.is_some();
        unfinished(self.call.take(), cut, out);
        // Calls of a list that has no end are calls.
        let complete = out.any_complete() && self.list == Some(Due::CommaOrBracket);
        if self.list.is_some() && !in_call && !complete {
            if cut {
                out.text(&std::mem::take(&mut self.held));
            } else {
                self.give_up(out);
            }
        }
        let rest = self.prose.finish(out.any_complete());
        out.text(&rest);
    }
}
