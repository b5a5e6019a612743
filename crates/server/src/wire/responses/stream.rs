//! The answer of `POST /v1/responses` event by event, numbered.

use byzerllm_core::{Error, Event, Notice, Result, Usage};
use schemars::JsonSchema;
use serde::Serialize;

use super::answer::{Head, IncompleteDetails, Item, Part, ResponseAnswer, Status, incomplete_details};
use crate::sse::{Encode, Lines};
use crate::wire::chat_answer::{incomplete, restarted};
use crate::wire::notes::Notes;
use crate::wire::sequence::{Piece, Sequence, Step};

/// One event with its number.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ResponseStreamEvent")]
pub(crate) struct ResponseEvent {
    /// Counts from 0.
    sequence_number: u64,
    #[serde(flatten)]
    event: Kind,
}

/// What happens.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
#[serde(tag = "type")]
enum Kind {
    /// The request was accepted.
    #[serde(rename = "response.created")]
    Created { response: Box<ResponseAnswer> },
    /// The model works.
    #[serde(rename = "response.in_progress")]
    InProgress { response: Box<ResponseAnswer> },
    /// An item begins.
    #[serde(rename = "response.output_item.added")]
    ItemAdded { output_index: usize, item: Item },
    /// A part of an item begins.
    #[serde(rename = "response.content_part.added")]
    PartAdded {
        #[serde(flatten)]
        place: Place,
        part: Part,
    },
    /// Text of a message goes on.
    #[serde(rename = "response.output_text.delta")]
    TextDelta {
        #[serde(flatten)]
        place: Place,
        delta: String,
        /// Always empty.
        logprobs: Vec<()>,
    },
    /// Text of a message is over.
    #[serde(rename = "response.output_text.done")]
    TextDone {
        #[serde(flatten)]
        place: Place,
        text: String,
        /// Always empty.
        logprobs: Vec<()>,
    },
    /// Text of reasoning goes on.
    #[serde(rename = "response.reasoning_text.delta")]
    ReasoningDelta {
        #[serde(flatten)]
        place: Place,
        delta: String,
    },
    /// Text of reasoning is over.
    #[serde(rename = "response.reasoning_text.done")]
    ReasoningDone {
        #[serde(flatten)]
        place: Place,
        text: String,
    },
    /// A part of an item is over.
    #[serde(rename = "response.content_part.done")]
    PartDone {
        #[serde(flatten)]
        place: Place,
        part: Part,
    },
    /// Arguments of a call go on.
    #[serde(rename = "response.function_call_arguments.delta")]
    ArgumentsDelta { item_id: String, output_index: usize, delta: String },
    /// Arguments of a call are over.
    #[serde(rename = "response.function_call_arguments.done")]
    ArgumentsDone { item_id: String, output_index: usize, name: String, arguments: String },
    /// An item is over.
    #[serde(rename = "response.output_item.done")]
    ItemDone { output_index: usize, item: Item },
    /// The answer is over.
    #[serde(rename = "response.completed")]
    Completed { response: Box<ResponseAnswer> },
    /// The answer was cut.
    #[serde(rename = "response.incomplete")]
    Incomplete { response: Box<ResponseAnswer> },
    /// The answer failed.
    #[serde(rename = "response.failed")]
    Failed { response: Box<ResponseAnswer> },
}

/// Where a part is.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(inline)]
struct Place {
    item_id: String,
    output_index: usize,
    /// Always 0: an item has one part.
    content_index: usize,
}

/// The item that is open, and its text so far.
struct Open {
    piece: Piece,
    id: String,
    text: String,
    /// The vendor's signature of it.
    signature: Option<String>,
}

/// Turns the events of one request into theirs.
pub(crate) struct ResponseEvents {
    head: Head,
    sequence: Sequence,
    number: u64,
    open: Option<Open>,
    /// The items that are over.
    output: Vec<Item>,
    /// Whether the model finished, and why its answer is not complete.
    finished: Option<Option<IncompleteDetails>>,
    usage: Option<Usage>,
    notes: Notes,
}

impl ResponseEvents {
    pub(crate) fn new(head: Head) -> Self {
        Self {
            head,
            sequence: Sequence::default(),
            number: 0,
            open: None,
            output: Vec::new(),
            finished: None,
            usage: None,
            notes: Notes::default(),
        }
    }

    fn numbered(&mut self, events: Vec<Kind>) -> Vec<ResponseEvent> {
        let number = |event| {
            self.number += 1;
            ResponseEvent { sequence_number: self.number - 1, event }
        };
        events.into_iter().map(number).collect()
    }

    fn place(&self, id: &str) -> Place {
        Place { item_id: id.to_owned(), output_index: self.output.len(), content_index: 0 }
    }

    fn begin(&mut self, piece: Piece) -> Vec<Kind> {
        let (place, head, status) = (self.output.len(), &self.head, Status::InProgress);
        let (item, part) = match &piece {
            Piece::Text => {
                (Item::message(place, head, status, Vec::new()), Some(Part::output(String::new())))
            }
            Piece::Reasoning => {
                let part = Part::ReasoningText { text: String::new() };
                (Item::reasoning(place, head, status, Vec::new()), Some(part))
            }
            Piece::Hidden(_) => (Item::reasoning(place, head, status, Vec::new()), None),
            Piece::Call { id, name, .. } => {
                (Item::call(place, head, status, (id.clone(), name.clone(), String::new())), None)
            }
        };
        let id = item.id().to_owned();
        let mut events = vec![Kind::ItemAdded { output_index: place, item }];
        events.extend(part.map(|part| Kind::PartAdded { place: self.place(&id), part }));
        self.open = Some(Open { piece, id, text: String::new(), signature: None });
        events
    }

    fn more(&mut self, delta: String) -> Vec<Kind> {
        let place = self.open.as_ref().map(|open| self.place(&open.id));
        let (Some(open), Some(place)) = (&mut self.open, place) else { return Vec::new() };
        open.text.push_str(&delta);
        vec![match open.piece {
            Piece::Text => Kind::TextDelta { place, delta, logprobs: Vec::new() },
            Piece::Reasoning => Kind::ReasoningDelta { place, delta },
            Piece::Hidden(_) => return Vec::new(),
            Piece::Call { .. } => {
                Kind::ArgumentsDelta { item_id: place.item_id, output_index: place.output_index, delta }
            }
        }]
    }

    fn close(&mut self, status: Status) -> Vec<Kind> {
        let Some(Open { piece, id, text, signature }) = self.open.take() else { return Vec::new() };
        let (place, output_index) = (self.place(&id), self.output.len());
        let (mut events, item) = match piece {
            Piece::Text => {
                let part = Part::output(text.clone());
                let item = Item::message(output_index, &self.head, status, vec![part.clone()]);
                let done = Kind::TextDone { place: place.clone(), text, logprobs: Vec::new() };
                (vec![done, Kind::PartDone { place, part }], item)
            }
            Piece::Reasoning => {
                let part = Part::ReasoningText { text: text.clone() };
                let content = if text.is_empty() { Vec::new() } else { vec![part.clone()] };
                let item = Item::reasoning(output_index, &self.head, status, content).signed(signature);
                let done = Kind::ReasoningDone { place: place.clone(), text };
                (vec![done, Kind::PartDone { place, part }], item)
            }
            Piece::Hidden(data) => {
                let item = Item::reasoning(output_index, &self.head, status, Vec::new()).signed(Some(data));
                (Vec::new(), item)
            }
            Piece::Call { id: call, name, .. } => {
                let item = Item::call(output_index, &self.head, status, (call, name.clone(), text.clone()));
                (vec![Kind::ArgumentsDone { item_id: id, output_index, name, arguments: text }], item)
            }
        };
        self.output.push(item.clone());
        events.push(Kind::ItemDone { output_index, item });
        events
    }

    /// The steps in their words. `last` is how far the last item is.
    fn steps(&mut self, steps: Vec<Step>, last: Status) -> Vec<Kind> {
        let end = steps.len();
        let mut events = Vec::new();
        for (place, step) in steps.into_iter().enumerate() {
            events.extend(match step {
                Step::Open(piece) => self.begin(piece),
                Step::More(text) => self.more(text),
                Step::Sign(signature) => {
                    if let Some(open) = &mut self.open {
                        open.signature = Some(signature);
                    }
                    Vec::new()
                }
                Step::Close if place + 1 == end => self.close(last),
                Step::Close => self.close(Status::Completed),
            });
        }
        events
    }
}

impl Encode for ResponseEvents {
    type Chunk = ResponseEvent;

    const DONE: Option<&'static str> = None;

    fn event(&mut self, _prompt: usize, event: Event) -> Result<Vec<ResponseEvent>> {
        self.notes.see(&event);
        let events = match event {
            Event::Started { .. } => {
                let begun = || Box::new(ResponseAnswer::begun(&self.head));
                vec![Kind::Created { response: begun() }, Kind::InProgress { response: begun() }]
            }
            Event::Notice { notice: Notice::Restarted } if self.open.is_some() || !self.output.is_empty() => {
                return Err(restarted());
            }
            Event::Finished { reason, .. } => {
                let details = incomplete_details(&reason)?;
                let last = if details.is_some() { Status::Incomplete } else { Status::Completed };
                self.finished = Some(details);
                let mut steps = self.sequence.end();
                if steps.is_empty() && self.output.is_empty() {
                    // An answer of nothing is a message, as it is in one piece.
                    steps = vec![Step::Open(Piece::Text), Step::Close];
                }
                self.steps(steps, last)
            }
            Event::Usage { usage } => {
                self.usage = Some(usage);
                Vec::new()
            }
            event => {
                let steps = self.sequence.see(event);
                self.steps(steps, Status::Completed)
            }
        };
        Ok(self.numbered(events))
    }

    fn end(&mut self) -> Result<Vec<ResponseEvent>> {
        let (Some(usage), Some(details)) = (&self.usage, self.finished) else { return Err(incomplete()) };
        let (output, notes) = (std::mem::take(&mut self.output), std::mem::take(&mut self.notes));
        let response = Box::new(ResponseAnswer::over(&self.head, output, details, usage, notes));
        let event = match details {
            Some(_) => Kind::Incomplete { response },
            None => Kind::Completed { response },
        };
        Ok(self.numbered(vec![event]))
    }

    fn failed(&mut self, error: &Error, lines: &mut Lines) {
        self.close(Status::Incomplete);
        let (output, notes) = (std::mem::take(&mut self.output), std::mem::take(&mut self.notes));
        let response = Box::new(ResponseAnswer::failed(&self.head, output, error, notes));
        let events = self.numbered(vec![Kind::Failed { response }]);
        for event in &events {
            lines.event(Self::name(event), event);
        }
    }

    fn name(chunk: &ResponseEvent) -> Option<&'static str> {
        Some(match chunk.event {
            Kind::Created { .. } => "response.created",
            Kind::InProgress { .. } => "response.in_progress",
            Kind::ItemAdded { .. } => "response.output_item.added",
            Kind::PartAdded { .. } => "response.content_part.added",
            Kind::TextDelta { .. } => "response.output_text.delta",
            Kind::TextDone { .. } => "response.output_text.done",
            Kind::ReasoningDelta { .. } => "response.reasoning_text.delta",
            Kind::ReasoningDone { .. } => "response.reasoning_text.done",
            Kind::PartDone { .. } => "response.content_part.done",
            Kind::ArgumentsDelta { .. } => "response.function_call_arguments.delta",
            Kind::ArgumentsDone { .. } => "response.function_call_arguments.done",
            Kind::ItemDone { .. } => "response.output_item.done",
            Kind::Completed { .. } => "response.completed",
            Kind::Incomplete { .. } => "response.incomplete",
            Kind::Failed { .. } => "response.failed",
        })
    }
}
