//! The answers of `POST /v1/completions`: one body, or chunks. Choice `c` of prompt `p` has index `p * n + c`.

use byzerllm_core::{ChatResponse, Event, FinishReason, Notice, Result, TokenLogprob, Usage};
use schemars::JsonSchema;
use serde::Serialize;

use super::WireUsage;
use super::chat_answer::{
    ChoiceError, FINISH_REASONS, Head, all_failed, choice_failed, incomplete, restarted,
};
use super::describe::words;
use super::logprobs::{CompletionLogprobs, Offsets};
use super::notes::Notes;

/// The whole answer, or one chunk of a stream: they have the same shape.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Completion")]
pub(crate) struct CompletionAnswer {
    #[serde(flatten)]
    head: Head,
    choices: Vec<CompletionChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<WireUsage>>,
    /// What there is to tell beside the answer, in the first chunk after it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    byzerllm: Option<Notes>,
}

/// One of the answers.
#[derive(Debug, Serialize, JsonSchema)]
struct CompletionChoice {
    text: String,
    index: usize,
    logprobs: Option<CompletionLogprobs>,
    #[schemars(transform = words(FINISH_REASONS))]
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ChoiceError>,
}

impl CompletionAnswer {
    /// The answers to all prompts, in order. `logprobs` is what the request asked for.
    pub(crate) fn new(
        head: Head,
        responses: Vec<ChatResponse>,
        logprobs: Option<u32>,
        notes: Notes,
    ) -> Result<Self> {
        let reasons =
            responses.iter().flat_map(|response| &response.choices).map(|choice| &choice.finish_reason);
        if let Some(error) = all_failed(reasons) {
            return Err(error);
        }
        let usage = WireUsage::sum(responses.iter().map(|response| &response.usage));
        let mut choices = Vec::new();
        for response in responses {
            for choice in response.choices {
                let prompt = response.prompt_logprobs.iter().flatten().cloned();
                let tokens: Vec<TokenLogprob> = prompt.chain(choice.logprobs.into_iter().flatten()).collect();
                let logprobs = logprobs.map(|top| Offsets::default().piece(&choice.text, tokens, top));
                choices.push(CompletionChoice {
                    text: choice.text,
                    index: choices.len(),
                    logprobs,
                    finish_reason: Some(choice.finish_reason.as_str()),
                    error: ChoiceError::of(&choice.finish_reason),
                });
            }
        }
        Ok(Self { head, choices, usage: Some(Some(usage)), byzerllm: notes.some() })
    }
}

/// Turns the events of all prompts into chunks.
pub(crate) struct CompletionChunks {
    head: Head,
    n: usize,
    logprobs: Option<u32>,
    include_usage: bool,
    prompts: Vec<PromptState>,
    /// What the next chunk tells beside its text.
    notes: Notes,
}

struct PromptState {
    offsets: Vec<Offsets>,
    /// The prompt's own tokens, for the first piece of each choice that has not begun.
    echo: Vec<TokenLogprob>,
    begun: Vec<bool>,
    usage: Option<Usage>,
}

impl CompletionChunks {
    pub(crate) fn new(
        head: Head,
        prompts: usize,
        n: u32,
        logprobs: Option<u32>,
        include_usage: bool,
    ) -> Self {
        let n = n as usize;
        let state = || PromptState {
            offsets: (0..n).map(|_| Offsets::default()).collect(),
            echo: Vec::new(),
            begun: vec![false; n],
            usage: None,
        };
        let prompts = (0..prompts).map(|_| state()).collect();
        Self { head, n, logprobs, include_usage, prompts, notes: Notes::default() }
    }

    fn chunk(&mut self, choice: CompletionChoice) -> Vec<CompletionAnswer> {
        let usage = self.include_usage.then_some(None);
        let byzerllm = std::mem::take(&mut self.notes).some();
        vec![CompletionAnswer { head: self.head.clone(), choices: vec![choice], usage, byzerllm }]
    }

    fn text(
        &mut self,
        prompt: usize,
        choice: u32,
        text: String,
        tokens: Option<Vec<TokenLogprob>>,
    ) -> Option<CompletionChoice> {
        let state = self.prompts.get_mut(prompt)?;
        let place = choice as usize;
        let offsets = state.offsets.get_mut(place)?;
        let begun = std::mem::replace(state.begun.get_mut(place)?, true);
        let echo = if begun { Vec::new() } else { state.echo.clone() };
        let logprobs = match self.logprobs {
            Some(top) if tokens.is_some() || !echo.is_empty() => {
                let tokens = echo.into_iter().chain(tokens.into_iter().flatten()).collect();
                Some(offsets.piece(&text, tokens, top))
            }
            _ => {
                offsets.skip(&text);
                None
            }
        };
        let index = prompt * self.n + place;
        Some(CompletionChoice { text, index, logprobs, finish_reason: None, error: None })
    }

    fn finished(&mut self, prompt: usize, choice: u32, reason: &FinishReason) -> Vec<CompletionAnswer> {
        let mut chunks = Vec::new();
        let owed = self.prompts.get(prompt).is_some_and(|state| {
            !state.echo.is_empty() && state.begun.get(choice as usize).is_some_and(|begun| !begun)
        });
        // A prompt without visible text still has tokens.
        if owed && let Some(choice) = self.text(prompt, choice, String::new(), None) {
            chunks = self.chunk(choice);
        }
        chunks.extend(self.chunk(CompletionChoice {
            text: String::new(),
            index: prompt * self.n + choice as usize,
            logprobs: None,
            finish_reason: Some(reason.as_str()),
            error: ChoiceError::of(reason),
        }));
        chunks
    }
}

impl crate::sse::Encode for CompletionChunks {
    type Chunk = CompletionAnswer;

    fn event(&mut self, prompt: usize, event: Event) -> Result<Vec<CompletionAnswer>> {
        self.notes.see(&event);
        let alone = self.n == 1 && self.prompts.len() == 1;
        let Some(state) = self.prompts.get_mut(prompt) else { return Ok(Vec::new()) };
        Ok(match event {
            Event::Notice { notice: Notice::Restarted } if state.begun.contains(&true) => {
                return Err(restarted());
            }
            Event::PromptLogprobs { logprobs } => {
                state.echo = logprobs;
                Vec::new()
            }
            Event::Text { choice, text, logprobs } => match self.text(prompt, choice, text, logprobs) {
                Some(choice) => self.chunk(choice),
                None => Vec::new(),
            },
            Event::Finished { reason: FinishReason::Error(detail), .. } if alone => {
                return Err(choice_failed(detail));
            }
            Event::Finished { choice, reason, .. } => self.finished(prompt, choice, &reason),
            Event::Usage { usage } => {
                state.usage = Some(usage);
                Vec::new()
            }
            Event::Started { .. }
            | Event::Notice { .. }
            | Event::Reasoning { .. }
            | Event::Signature { .. }
            | Event::ToolCall { .. } => Vec::new(),
        })
    }

    fn end(&mut self) -> Result<Vec<CompletionAnswer>> {
        let usages: Option<Vec<&Usage>> = self.prompts.iter().map(|state| state.usage.as_ref()).collect();
        let Some(usages) = usages else { return Err(incomplete()) };
        if !self.include_usage {
            return Ok(Vec::new());
        }
        let usage = Some(Some(WireUsage::sum(usages)));
        let byzerllm = std::mem::take(&mut self.notes).some();
        Ok(vec![CompletionAnswer { head: self.head.clone(), choices: Vec::new(), usage, byzerllm }])
    }
}
