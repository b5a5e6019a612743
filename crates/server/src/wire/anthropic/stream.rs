//! The answer of `POST /v1/messages` piece by piece: a start, per block a start, deltas and a stop, then why it ended
//! with the tokens spent, and the end.

use byzerllm_core::{Error, Event, Notice, Result, Usage, extra_content};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::answer::{ContentBlock, MessageAnswer, MessageUsage, STOP_REASONS, stop_reason};
use crate::sse::{Encode, Lines};
use crate::wire::chat_answer::{incomplete, restarted};
use crate::wire::describe::words;
use crate::wire::error::AnthropicErrorBody;
use crate::wire::notes::Notes;
use crate::wire::sequence::{Piece, Sequence, Step};

/// One event.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum MessageEvent {
    /// The answer begins; the tokens of its prompt come at its end.
    MessageStart {
        /// The answer, without content.
        message: Box<MessageAnswer>,
    },
    /// A block begins.
    ContentBlockStart {
        /// Its place.
        index: usize,
        /// The block, empty.
        content_block: ContentBlock,
    },
    /// A block goes on.
    ContentBlockDelta {
        /// Its place.
        index: usize,
        /// What is added.
        delta: BlockDelta,
    },
    /// A block is over.
    ContentBlockStop {
        /// Its place.
        index: usize,
    },
    /// The answer is over.
    MessageDelta {
        /// Why.
        delta: MessageEnd,
        /// The tokens spent.
        usage: MessageUsage,
        /// What there is to tell beside the answer.
        #[serde(skip_serializing_if = "Option::is_none")]
        byzerllm: Option<Notes>,
    },
    /// The stream is over.
    MessageStop,
}

/// What is added to a block.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "MessageBlockDelta")]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(clippy::enum_variant_names, reason = "the words of the API")]
pub(crate) enum BlockDelta {
    /// Text.
    TextDelta {
        /// Whole characters.
        text: String,
    },
    /// Thoughts.
    ThinkingDelta {
        /// Whole characters.
        thinking: String,
    },
    /// What proves that the thoughts are the vendor's own; the last of their block.
    SignatureDelta {
        /// All of it.
        signature: String,
    },
    /// Arguments.
    InputJsonDelta {
        /// The next piece of their JSON.
        partial_json: String,
    },
}

/// Why an answer ended.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct MessageEnd {
    #[schemars(transform = words(STOP_REASONS))]
    stop_reason: &'static str,
    /// The stop sequence that ended the answer, where the model or its vendor says which.
    stop_sequence: Option<String>,
}

/// Turns the events of one request into theirs.
pub(crate) struct MessageEvents {
    id: String,
    model: String,
    sequence: Sequence,
    /// How many blocks began.
    blocks: usize,
    open: Option<Piece>,
    reason: Option<&'static str>,
    stop: Option<String>,
    usage: Option<Usage>,
    notes: Notes,
}

impl MessageEvents {
    pub(crate) fn new(id: String, model: String) -> Self {
        let (sequence, notes) = (Sequence::default(), Notes::default());
        Self { id, model, sequence, blocks: 0, open: None, reason: None, stop: None, usage: None, notes }
    }

    fn step(&mut self, step: Step) -> Option<MessageEvent> {
        if matches!(step, Step::Open(_)) {
            self.blocks += 1;
        }
        let index = self.blocks.saturating_sub(1);
        Some(match step {
            Step::Open(piece) => {
                self.open = Some(piece.clone());
                let content_block = match piece {
                    Piece::Text => ContentBlock::Text { text: String::new() },
                    Piece::Reasoning => {
                        ContentBlock::Thinking { thinking: String::new(), signature: String::new() }
                    }
                    Piece::Hidden(data) => ContentBlock::RedactedThinking { data },
                    Piece::Call { id, name, signature } => {
                        let input = Value::Object(Map::new());
                        let extra_content = signature.as_deref().map(extra_content);
                        ContentBlock::ToolUse { id, name, input, partial_input: None, extra_content }
                    }
                };
                MessageEvent::ContentBlockStart { index, content_block }
            }
            Step::More(text) => {
                let delta = match self.open.as_ref()? {
                    Piece::Text => BlockDelta::TextDelta { text },
                    Piece::Reasoning => BlockDelta::ThinkingDelta { thinking: text },
                    Piece::Call { .. } => BlockDelta::InputJsonDelta { partial_json: text },
                    Piece::Hidden(_) => return None,
                };
                MessageEvent::ContentBlockDelta { index, delta }
            }
            Step::Sign(signature) => {
                MessageEvent::ContentBlockDelta { index, delta: BlockDelta::SignatureDelta { signature } }
            }
            Step::Close => {
                self.open = None;
                MessageEvent::ContentBlockStop { index }
            }
        })
    }
}

impl Encode for MessageEvents {
    type Chunk = MessageEvent;

    const DONE: Option<&'static str> = None;

    fn event(&mut self, _prompt: usize, event: Event) -> Result<Vec<MessageEvent>> {
        self.notes.see(&event);
        let steps = match event {
            Event::Started { .. } => {
                let message = MessageAnswer::begun(self.id.clone(), self.model.clone());
                return Ok(vec![MessageEvent::MessageStart { message: Box::new(message) }]);
            }
            Event::Notice { notice: Notice::Restarted } if self.blocks > 0 => return Err(restarted()),
            Event::Finished { reason, stop, .. } => {
                self.reason = Some(stop_reason(&reason, stop.as_deref())?);
                self.stop = stop;
                self.sequence.end()
            }
            Event::Usage { usage } => {
                self.usage = Some(usage);
                Vec::new()
            }
            event => self.sequence.see(event),
        };
        Ok(steps.into_iter().filter_map(|step| self.step(step)).collect())
    }

    fn end(&mut self) -> Result<Vec<MessageEvent>> {
        let (Some(usage), Some(stop_reason)) = (self.usage.take(), self.reason) else {
            return Err(incomplete());
        };
        let delta = MessageEnd { stop_reason, stop_sequence: self.stop.take() };
        let byzerllm = std::mem::take(&mut self.notes).some();
        Ok(vec![
            MessageEvent::MessageDelta { delta, usage: MessageUsage::from(&usage), byzerllm },
            MessageEvent::MessageStop,
        ])
    }

    fn failed(&mut self, error: &Error, lines: &mut Lines) {
        lines.event(Some("error"), &AnthropicErrorBody::new(error, None, None));
    }

    fn name(chunk: &MessageEvent) -> Option<&'static str> {
        Some(match chunk {
            MessageEvent::MessageStart { .. } => "message_start",
            MessageEvent::ContentBlockStart { .. } => "content_block_start",
            MessageEvent::ContentBlockDelta { .. } => "content_block_delta",
            MessageEvent::ContentBlockStop { .. } => "content_block_stop",
            MessageEvent::MessageDelta { .. } => "message_delta",
            MessageEvent::MessageStop => "message_stop",
        })
    }
}
