//! Reasoning: what an answer begins with between `<think>` and `</think>`.

use super::parts::Parts;
use super::prose::Prose;

const OPEN: &str = "<think>";
pub(super) const CLOSE: &str = "</think>";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Before,
    Inside {
        said: bool,
    },
    /// White space between reasoning and answer.
    Between,
    Over,
}

/// Takes the reasoning off an answer.
#[derive(Debug)]
pub(super) struct Thoughts {
    state: State,
    prose: Prose,
}

impl Thoughts {
    /// For a template that knows reasoning: whether the prompt has begun it already.
    pub(super) fn opened(template: &str, prompt: &str) -> Option<bool> {
        let knows = template.contains(OPEN) || template.contains(CLOSE);
        knows.then(|| prompt.trim_end().ends_with(OPEN))
    }

    /// Before an answer, or within its reasoning.
    pub(super) fn new(inside: bool) -> Self {
        let state = if inside { State::Inside { said: false } } else { State::Before };
        Self { state, prose: Prose::new(if inside { &[CLOSE] } else { &[OPEN] }) }
    }

    /// Whether the model reasons.
    pub(super) fn inside(&self) -> bool {
        matches!(self.state, State::Inside { .. })
    }

    /// Takes a character; adds to `answer` what is no reasoning.
    pub(super) fn step(&mut self, c: char, out: &mut Parts, answer: &mut String) {
        let mut text = String::new();
        match self.state {
            State::Before => {
                if self.prose.step(c, &mut text).is_some() {
                    self.state = State::Inside { said: false };
                    self.prose = Prose::new(&[CLOSE]);
                } else if !text.is_empty() {
                    self.state = State::Over;
                    answer.push_str(&text);
                }
            }
            State::Inside { said } => {
                let closed = self.prose.step(c, &mut text).is_some();
                self.think(&text, said, out);
                if closed {
                    self.state = State::Between;
                }
            }
            State::Between if c.is_whitespace() => {}
            State::Between | State::Over => {
                self.state = State::Over;
                answer.push(c);
            }
        }
    }

    fn think(&mut self, text: &str, said: bool, out: &mut Parts) {
        let text = if said { text } else { text.trim_start() };
        out.reasoning(text);
        self.state = State::Inside { said: said || !text.is_empty() };
    }

    /// Ends the answer.
    pub(super) fn finish(&mut self, out: &mut Parts, answer: &mut String) {
        match self.state {
            State::Before => answer.push_str(&self.prose.finish(false)),
            State::Inside { said } => {
                let rest = self.prose.finish(true);
                self.think(&rest, said, out);
            }
            State::Between | State::Over => {}
        }
        self.state = State::Over;
    }
}
