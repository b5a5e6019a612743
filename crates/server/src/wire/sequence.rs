//! The pieces of an answer one after another, for APIs in which one piece ends before the next begins.
//!
//! A model may write several calls at once. Then all but the first wait until the first one's arguments are whole, or
//! the answer is over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use byzerllm_core::{Event, Signature, ToolCallDelta};
use serde::de::IgnoredAny;

/// What a piece is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Text.
    Text,
    /// What the model thinks.
    Reasoning,
    /// A call.
    Call {
        /// Its id.
        id: String,
        /// The function's name.
        name: String,
        /// The vendor's signature of it.
        signature: Option<String>,
    },
    /// Reasoning that only the vendor can read. It has no text.
    Hidden(String),
}

/// What happens to the one piece that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// It begins.
    Open(Piece),
    /// It goes on.
    More(String),
    /// The vendor signs it: reasoning, which ends here.
    Sign(String),
    /// It ends.
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Text,
    Reasoning,
    Call(u32),
    Hidden,
}

#[derive(Debug)]
struct Waiting {
    key: Key,
    piece: Piece,
    text: String,
    signature: Option<String>,
}

/// Puts the events of one choice into order.
#[derive(Debug, Default)]
pub(crate) struct Sequence {
    /// The open piece, and the arguments so far when it is a call.
    open: Option<(Key, String)>,
    waiting: VecDeque<Waiting>,
    /// The calls that are over.
    closed: BTreeSet<u32>,
    /// Signatures of calls that have not begun.
    signatures: BTreeMap<u32, String>,
}

impl Sequence {
    /// The steps for an event. Events that add nothing to the answer have none.
    pub(crate) fn see(&mut self, event: Event) -> Vec<Step> {
        let (key, piece, text) = match event {
            Event::Text { text, .. } => (Key::Text, Piece::Text, text),
            Event::Reasoning { text, .. } => (Key::Reasoning, Piece::Reasoning, text),
            Event::ToolCall { delta: ToolCallDelta { index, id, name, arguments }, .. } => {
                let signature = self.signatures.remove(&index);
                let (id, name) = (id.unwrap_or_default(), name.unwrap_or_default());
                (Key::Call(index), Piece::Call { id, name, signature }, arguments)
            }
            Event::Signature { signature: Signature::ToolCall { index, signature }, .. } => {
                self.signatures.insert(index, signature);
                return Vec::new();
            }
            Event::Signature { signature: Signature::Reasoning { signature }, .. } => {
                return self.sign(signature);
            }
            Event::Signature { signature: Signature::Hidden { data }, .. } => {
                (Key::Hidden, Piece::Hidden(data), String::new())
            }
            _ => return Vec::new(),
        };
        let mut steps = Vec::new();
        self.add(Waiting { key, piece, text, signature: None }, &mut steps);
        steps
    }

    /// Ends the reasoning that is signed. Where there is none, its text was not told.
    fn sign(&mut self, signature: String) -> Vec<Step> {
        let mut steps = Vec::new();
        if matches!(self.open, Some((Key::Reasoning, _))) {
            steps.push(Step::Sign(signature));
            self.close(&mut steps);
            return steps;
        }
        let unsigned = |waiting: &&mut Waiting| waiting.key == Key::Reasoning && waiting.signature.is_none();
        if let Some(waiting) = self.waiting.back_mut().filter(unsigned) {
            waiting.signature = Some(signature);
            return steps;
        }
        let (piece, text) = (Piece::Reasoning, String::new());
        self.add(Waiting { key: Key::Reasoning, piece, text, signature: Some(signature) }, &mut steps);
        steps
    }

    /// The steps that end the answer.
    pub(crate) fn end(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        self.close(&mut steps);
        while let Some(next) = self.waiting.pop_front() {
            self.begin(next, &mut steps);
            self.close(&mut steps);
        }
        steps
    }

    fn add(&mut self, next: Waiting, steps: &mut Vec<Step>) {
        if let Some((key, arguments)) = self.open.as_mut().filter(|(key, _)| *key == next.key) {
            if matches!(key, Key::Call(_)) {
                arguments.push_str(&next.text);
            }
            if !next.text.is_empty() {
                steps.push(Step::More(next.text));
            }
            return self.catch_up(steps);
        }
        // A model that adds to arguments that were whole adds white space.
        if matches!(next.key, Key::Call(index) if self.closed.contains(&index)) {
            return;
        }
        if self.may_close() {
            self.close(steps);
            self.begin(next, steps);
        } else {
            self.wait(next);
        }
    }

    fn wait(&mut self, next: Waiting) {
        let same = match next.key {
            Key::Call(_) => self.waiting.iter_mut().find(|waiting| waiting.key == next.key),
            Key::Hidden => None,
            _ => self.waiting.back_mut().filter(|last| last.key == next.key && last.signature.is_none()),
        };
        match same {
            Some(waiting) => waiting.text.push_str(&next.text),
            None => self.waiting.push_back(next),
        }
    }

    /// Begins what waits, as far as what is open is whole.
    fn catch_up(&mut self, steps: &mut Vec<Step>) {
        while !self.waiting.is_empty() && self.may_close() {
            self.close(steps);
            if let Some(next) = self.waiting.pop_front() {
                self.begin(next, steps);
            }
        }
    }

    fn may_close(&self) -> bool {
        match &self.open {
            Some((Key::Call(_), arguments)) => serde_json::from_str::<IgnoredAny>(arguments).is_ok(),
            _ => true,
        }
    }

    fn begin(&mut self, next: Waiting, steps: &mut Vec<Step>) {
        let Waiting { key, piece, text, signature } = next;
        steps.push(Step::Open(piece));
        if !text.is_empty() {
            steps.push(Step::More(text.clone()));
        }
        let ends = key == Key::Hidden || signature.is_some();
        steps.extend(signature.map(Step::Sign));
        self.open = Some((key, if matches!(key, Key::Call(_)) { text } else { String::new() }));
        if ends {
            self.close(steps);
        }
    }

    fn close(&mut self, steps: &mut Vec<Step>) {
        if let Some((key, _)) = self.open.take() {
            if let Key::Call(index) = key {
                self.closed.insert(index);
            }
            steps.push(Step::Close);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Event {
        Event::Text { choice: 0, text: text.to_owned(), logprobs: None }
    }

    fn call(index: u32, begins: bool, arguments: &str) -> Event {
        let name = begins.then(|| format!("f{index}"));
        let delta = ToolCallDelta { index, id: name.clone(), name, arguments: arguments.to_owned() };
        Event::ToolCall { choice: 0, delta }
    }

    fn written(events: Vec<Event>) -> String {
        let mut sequence = Sequence::default();
        let mut steps: Vec<Step> = events.into_iter().flat_map(|event| sequence.see(event)).collect();
        steps.extend(sequence.end());
        steps
            .iter()
            .map(|step| match step {
                Step::Open(Piece::Text) => "<text:".to_owned(),
                Step::Open(Piece::Reasoning) => "<thought:".to_owned(),
                Step::Open(Piece::Call { id, name, signature }) => {
                    assert_eq!(id, name);
                    format!("<{name}{}:", signature.as_deref().unwrap_or_default())
                }
                Step::Open(Piece::Hidden(data)) => format!("<hidden:{data}"),
                Step::Sign(signature) => format!("={signature}"),
                Step::More(text) => format!("{text}|"),
                Step::Close => ">".to_owned(),
            })
            .collect()
    }

    #[test]
    fn pieces_follow_each_other() {
        let thought = Event::Reasoning { choice: 0, text: "hm".to_owned() };
        let events = vec![
            thought,
            text("a"),
            text("b"),
            call(0, true, ""),
            call(0, false, "{"),
            call(0, false, "}"),
            call(1, true, "{}"),
            text("c"),
        ];
        assert_eq!(written(events), "<thought:hm|><text:a|b|><f0:{|}|><f1:{}|><text:c|>");
        assert_eq!(written(Vec::new()), "");
    }

    #[test]
    fn signatures_end_what_they_sign() {
        let thought = |text: &str| Event::Reasoning { choice: 0, text: text.to_owned() };
        let signed = |signature| Event::Signature { choice: 0, signature };
        let of_thought = |word: &str| signed(Signature::Reasoning { signature: word.to_owned() });
        let hidden = |word: &str| signed(Signature::Hidden { data: word.to_owned() });
        let of_call = |index| signed(Signature::ToolCall { index, signature: "#".to_owned() });
        let events = vec![
            thought("a"),
            of_thought("1"),
            hidden("x"),
            thought("b"),
            of_thought("2"),
            of_thought("3"),
            text("c"),
            of_call(0),
            call(0, true, "{}"),
        ];
        assert_eq!(written(events), "<thought:a|=1><hidden:x><thought:b|=2><thought:=3><text:c|><f0#:{}|>");
        // Behind a call that is not whole they wait.
        let events = vec![
            call(0, true, "{"),
            thought("a"),
            of_thought("1"),
            thought("b"),
            of_thought("2"),
            hidden("x"),
            of_call(1),
            call(1, true, "{}"),
            call(0, false, "}"),
        ];
        assert_eq!(written(events), "<f0:{|}|><thought:a|=1><thought:b|=2><hidden:x><f1#:{}|>");
    }

    #[test]
    fn calls_that_are_written_at_once_wait_for_each_other() {
        let events = vec![
            call(0, true, "{"),
            call(1, true, "["),
            call(2, true, "{}"),
            text("x"),
            call(1, false, "]"),
            text("y"),
            call(0, false, "}"),
            call(0, false, " "),
            call(2, false, " "),
        ];
        assert_eq!(written(events), "<f0:{|}|><f1:[]|><f2:{}|><text:xy|>");
        // What is never whole is told as it is.
        assert_eq!(
            written(vec![call(0, true, "{"), call(1, true, "{"), text("z")]),
            "<f0:{|><f1:{|><text:z|>"
        );
    }
}
