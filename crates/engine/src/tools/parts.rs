//! What a text is made of: prose, reasoning, calls.

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Text for the reader.
    Text(String),
    /// Reasoning that precedes it.
    Reasoning(String),
    /// A call begins.
    Start {
        /// Which call of the answer.
        index: u32,
        /// A tool's name.
        name: String,
    },
    /// The next piece of its arguments.
    Arguments {
        /// Which call of the answer.
        index: u32,
        /// JSON, in part.
        text: String,
    },
    /// Something that looked like a call is none.
    Broken {
        /// Why.
        reason: String,
        /// Whether a part of it was sent already.
        sent: bool,
    },
}

/// Parts in order. Pieces of one kind that follow one another are one part.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    list: Vec<Part>,
    begun: u32,
    complete: u32,
}

impl Parts {
    /// Takes what has come together.
    pub(crate) fn take(&mut self) -> Vec<Part> {
        std::mem::take(&mut self.list)
    }

    /// Whether there is a complete call and no other.
    pub(crate) fn called(&self) -> bool {
        self.complete > 0 && self.complete == self.begun
    }

    pub(super) fn any_complete(&self) -> bool {
        self.complete > 0
    }

    pub(super) fn text(&mut self, more: &str) {
        match self.list.last_mut() {
            _ if more.is_empty() => {}
            Some(Part::Text(text)) => text.push_str(more),
            _ => self.list.push(Part::Text(more.to_owned())),
        }
    }

    pub(super) fn reasoning(&mut self, more: &str) {
        match self.list.last_mut() {
            _ if more.is_empty() => {}
            Some(Part::Reasoning(text)) => text.push_str(more),
            _ => self.list.push(Part::Reasoning(more.to_owned())),
        }
    }

    pub(super) fn start(&mut self, name: &str) {
        self.list.push(Part::Start { index: self.begun, name: name.to_owned() });
        self.begun += 1;
    }

    pub(super) fn arguments(&mut self, more: &str) {
        match self.list.last_mut() {
            Some(Part::Arguments { text, .. }) => text.push_str(more),
            _ => {
                self.list
                    .push(Part::Arguments { index: self.begun.saturating_sub(1), text: more.to_owned() });
            }
        }
    }

    pub(super) fn end(&mut self) {
        self.complete += 1;
    }

    pub(super) fn broken(&mut self, reason: impl Into<String>, sent: bool) {
        self.list.push(Part::Broken { reason: reason.into(), sent });
    }
}
