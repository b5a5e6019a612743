//! From a vendor's pieces to our events: the contract of the stream, upheld for all vendors.

use std::collections::VecDeque;

use byzerllm_core::{
    Error, ErrorDetail, ErrorKind, Event, FinishReason, Result, Signature, ToolCallDelta, Usage, UsageSource,
};

use crate::Delta;

/// The most tool calls of one choice.
const MAX_CALLS: u32 = 1024;

/// Puts an answer together.
pub(crate) struct Assembly {
    vendor: &'static str,
    /// The events that are ready, in order.
    pub(crate) ready: VecDeque<Event>,
    choices: Vec<Choice>,
    unfinished: usize,
    usage: Option<Usage>,
    /// Whether anything but usage came since the usage.
    stale: bool,
    /// The vendor's id of the request.
    pub(crate) request_id: Option<String>,
    ended: bool,
    /// Bytes of text of all kinds.
    bytes: u64,
}

#[derive(Default)]
struct Choice {
    finished: bool,
    /// The JSON arguments of its tool calls.
    calls: Vec<String>,
    /// The stop string that ends it.
    stop: Option<String>,
}

impl Assembly {
    pub(crate) fn new(vendor: &'static str, choices: u32) -> Self {
        let mut list = Vec::new();
        list.resize_with(choices as usize, Choice::default);
        Self {
            vendor,
            ready: VecDeque::new(),
            unfinished: list.len(),
            choices: list,
            usage: None,
            stale: false,
            request_id: None,
            ended: false,
            bytes: 0,
        }
    }

    /// Takes the pieces of one frame.
    ///
    /// # Errors
    /// [`ErrorKind::Upstream`] when they break the order that every vendor promises.
    pub(crate) fn take(&mut self, deltas: &mut Vec<Delta>) -> Result<()> {
        // Usage counts for the whole frame that it came in, wherever in it.
        let (mut spent, mut said) = (false, false);
        for delta in deltas.drain(..) {
            match delta {
                Delta::RequestId(id) => {
                    if self.request_id.is_none() && !id.is_empty() {
                        self.request_id = Some(id);
                    }
                }
                Delta::Usage(usage) => {
                    self.usage = Some(Usage { source: UsageSource::Reported, ..usage });
                    spent = true;
                }
                Delta::End => self.ended = true,
                Delta::Text(choice, text) => {
                    if !text.is_empty() {
                        said = true;
                        self.open(choice)?;
                        self.bytes += text.len() as u64;
                        self.ready.push_back(Event::Text { choice, text, logprobs: None });
                    }
                }
                Delta::Logprobs(choice, logprobs) => {
                    if !logprobs.is_empty() {
                        self.open(choice)?;
                        match self.ready.back_mut() {
                            Some(Event::Text { choice: of, logprobs: free @ None, .. }) if *of == choice => {
                                *free = Some(logprobs);
                            }
                            _ => {
                                let (text, logprobs) = (String::new(), Some(logprobs));
                                self.ready.push_back(Event::Text { choice, text, logprobs });
                            }
                        }
                    }
                }
                Delta::Reasoning(choice, text) => {
                    if !text.is_empty() {
                        said = true;
                        self.open(choice)?;
                        self.bytes += text.len() as u64;
                        self.ready.push_back(Event::Reasoning { choice, text });
                    }
                }
                Delta::ToolCall(choice, delta) => said |= self.tool_call(choice, delta)?,
                Delta::Signature(choice, signature) => self.signature(choice, signature)?,
                Delta::Stop(choice, stop) => self.open(choice)?.stop = Some(stop),
                Delta::Finished(choice, reason) => self.finish(choice, reason)?,
            }
        }
        self.stale = !spent && (self.stale || said);
        Ok(())
    }

    fn tool_call(&mut self, choice: u32, delta: ToolCallDelta) -> Result<bool> {
        if delta.id.is_none() && delta.name.is_none() && delta.arguments.is_empty() {
            return Ok(false);
        }
        if delta.index >= MAX_CALLS {
            return Err(self.odd(format_args!("a tool call with the number {}", delta.index)));
        }
        let calls = &mut self.open(choice)?.calls;
        let index = delta.index as usize;
        if calls.len() <= index {
            calls.resize_with(index + 1, String::new);
        }
        calls[index].push_str(&delta.arguments);
        let name = delta.name.as_ref().map_or(0, String::len);
        self.bytes += (delta.arguments.len() + name) as u64;
        self.ready.push_back(Event::ToolCall { choice, delta });
        Ok(true)
    }

    fn finish(&mut self, choice: u32, reason: FinishReason) -> Result<()> {
        if self.choices.get(choice as usize).is_some_and(|known| known.finished) {
            return Ok(());
        }
        let state = self.open(choice)?;
        state.finished = true;
        let calls = std::mem::take(&mut state.calls);
        let stop = state.stop.take();
        self.unfinished -= 1;
        let mut reason = match reason {
            // What a vendor says that was told which tool to call.
            FinishReason::Stop if !calls.is_empty() => FinishReason::ToolCalls,
            reason => reason,
        };
        if reason == FinishReason::ToolCalls {
            for (index, arguments) in (0..).zip(&calls) {
                if arguments.trim().is_empty() {
                    // A call without arguments.
                    let delta = ToolCallDelta { index, id: None, name: None, arguments: "{}".to_owned() };
                    self.ready.push_back(Event::ToolCall { choice, delta });
                } else if serde_json::from_str::<serde::de::IgnoredAny>(arguments).is_err() {
                    let message =
                        format!("the model called tool {index} with arguments that are not JSON; ask again");
                    reason = FinishReason::Error(ErrorDetail { kind: ErrorKind::Upstream, message });
                    break;
                }
            }
        }
        let stop = stop.filter(|stop| reason == FinishReason::Stop && !stop.is_empty());
        self.ready.push_back(Event::Finished { choice, reason, stop });
        Ok(())
    }

    fn signature(&mut self, choice: u32, signature: Signature) -> Result<()> {
        if signature.is_empty() {
            return Ok(());
        }
        let calls = self.open(choice)?.calls.len();
        if let Signature::ToolCall { index, .. } = signature
            && ((index as usize) < calls || index >= MAX_CALLS)
        {
            return Err(self.odd(format_args!("a signature of tool call {index}, which began without it")));
        }
        self.ready.push_back(Event::Signature { choice, signature });
        Ok(())
    }

    fn open(&mut self, choice: u32) -> Result<&mut Choice> {
        match self.choices.get(choice as usize) {
            None => return Err(self.odd(format_args!("choice {choice}, which was not asked for"))),
            Some(state) if state.finished => {
                return Err(self.odd(format_args!("more of choice {choice} after its end")));
            }
            Some(_) => {}
        }
        // Looked up twice, as the borrow of the first would outlive the error.
        Ok(&mut self.choices[choice as usize])
    }

    fn odd(&self, what: std::fmt::Arguments<'_>) -> Error {
        let vendor = self.vendor;
        let message = format!("saas/{vendor} sent {what}: the answer cannot be trusted; ask again");
        Error::new(ErrorKind::Upstream, message)
    }

    /// Whether every choice is over.
    pub(crate) fn is_finished(&self) -> bool {
        self.unfinished == 0
    }

    /// Whether the vendor marked the end of the whole answer.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether anything came that tells of an answer.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0 && self.usage.is_none() && self.unfinished == self.choices.len()
    }

    /// The tokens as the vendor reported them, when that covers all of the answer and can be true.
    pub(crate) fn reported(&self) -> Option<&Usage> {
        self.usage.as_ref().filter(|usage| {
            !self.stale && usage.prompt_tokens > 0 && (usage.completion_tokens > 0 || self.bytes == 0)
        })
    }

    /// The tokens as far as they are known: reported, or bounded by the bytes of the request and of what came.
    pub(crate) fn usage(&self, prompt_bytes: u64) -> Usage {
        let bound = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        self.reported().cloned().unwrap_or_else(|| Usage {
            prompt_tokens: bound(prompt_bytes),
            completion_tokens: bound(self.bytes),
            source: UsageSource::Estimated,
            ..Usage::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Delta {
        Delta::Text(0, text.to_owned())
    }

    fn usage(prompt_tokens: u32, completion_tokens: u32) -> Delta {
        Delta::Usage(Usage { prompt_tokens, completion_tokens, ..Usage::default() })
    }

    fn call(index: u32, arguments: &str) -> Delta {
        let (id, name) = (Some("c".to_owned()), Some("f".to_owned()));
        Delta::ToolCall(0, ToolCallDelta { index, id, name, arguments: arguments.to_owned() })
    }

    fn stop() -> Delta {
        Delta::Finished(0, FinishReason::Stop)
    }

    fn fold(frames: impl IntoIterator<Item = Vec<Delta>>) -> (Assembly, Result<()>) {
        let mut assembly = Assembly::new("test", 1);
        let result = frames.into_iter().try_for_each(|mut frame| assembly.take(&mut frame));
        (assembly, result)
    }

    #[test]
    fn usage_is_believed_when_it_can_be_true() {
        let cases: [(&str, Vec<Vec<Delta>>, bool); 8] = [
            ("last", vec![vec![text("a")], vec![stop()], vec![usage(3, 1)]], true),
            ("in the same frame", vec![vec![usage(3, 1), text("a"), stop()]], true),
            ("cumulative", vec![vec![usage(3, 1), text("a")], vec![text("b"), usage(3, 2), stop()]], true),
            ("older than the text", vec![vec![usage(3, 1), text("a")], vec![text("b"), stop()]], false),
            ("zero", vec![vec![text("a"), stop(), usage(3, 0)]], false),
            ("no prompt", vec![vec![text("a"), stop(), usage(0, 1)]], false),
            ("nothing said", vec![vec![stop(), usage(3, 0)]], true),
            ("missing", vec![vec![text("a"), stop()]], false),
        ];
        for (name, frames, believed) in cases {
            let (assembly, result) = fold(frames);
            assert!(result.is_ok(), "{name}");
            assert_eq!(assembly.reported().is_some(), believed, "{name}");
            let expected = if believed { UsageSource::Reported } else { UsageSource::Estimated };
            assert_eq!(assembly.usage(10).source, expected, "{name}");
        }
    }

    #[test]
    fn the_order_is_upheld() {
        for (name, frames, message) in [
            ("text after the end", vec![vec![text("a"), stop()], vec![text("b")]], "after its end"),
            ("a foreign choice", vec![vec![Delta::Text(1, "a".to_owned())]], "choice 1"),
            ("a far tool call", vec![vec![call(u32::MAX, "")]], "tool call"),
        ] {
            let error = fold(frames).1.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Upstream, "{name}");
            assert!(error.message().contains(message), "{name}: {error}");
        }
        let harmless = vec![vec![text("a"), stop()], vec![stop(), text("")], vec![Delta::End, Delta::End]];
        let (assembly, result) = fold(harmless);
        assert!(result.is_ok() && assembly.is_finished() && assembly.is_ended());
        assert_eq!(assembly.ready.len(), 2);
    }

    #[test]
    fn tool_calls_end_with_arguments_that_are_json() {
        let reason = |frames| {
            let (assembly, result) = fold(frames);
            result.unwrap();
            match assembly.ready.back() {
                Some(Event::Finished { reason, .. }) => (reason.clone(), assembly.ready.len()),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(reason(vec![vec![call(0, "{"), call(0, "}"), stop()]]), (FinishReason::ToolCalls, 3));
        assert_eq!(reason(vec![vec![call(0, ""), stop()]]), (FinishReason::ToolCalls, 3), "filled with {{}}");
        assert!(matches!(reason(vec![vec![call(0, "{"), stop()]]).0, FinishReason::Error(_)));
        let cut = Delta::Finished(0, FinishReason::Length);
        assert_eq!(reason(vec![vec![call(0, "{"), cut]]).0, FinishReason::Length);
    }

    #[test]
    fn log_probabilities_stand_beside_their_text() {
        let logprob =
            byzerllm_core::TokenLogprob { id: 1, bytes: vec![97], logprob: Some(-1.0), top: Vec::new() };
        let logprobs = || Delta::Logprobs(0, vec![logprob.clone()]);
        let (assembly, _) = fold([vec![text("a"), logprobs()], vec![logprobs()]]);
        let seen: Vec<_> = assembly
            .ready
            .iter()
            .map(|event| match event {
                Event::Text { text, logprobs, .. } => (text.as_str(), logprobs.is_some()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(seen, [("a", true), ("", true)]);
    }
}
