//! Test doubles and the conformance kit that every [`crate::ChatModel`] passes.
//!
//! [`ScriptedModel`] answers with a given text, [`Gate`] lets a test decide when it goes on, [`checked`] watches
//! a stream for violations of the contract in [`crate::Event`]'s module, and [`conformance`] asks a model
//! everything that the contract promises.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::{Stream, StreamExt, future, stream};

use crate::{
    ChatModel, ChatRequest, Error, ErrorKind, Event, EventStream, FinishReason, Input, Message, ModelHandle,
    ModelInfo, Notice, RequestContext, Result, Sampling, TokenLogprob, Usage, UsageHook, collect,
};

mod encoders;

pub use encoders::{embedding_conformance, rerank_conformance};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets a test decide when a [`ScriptedModel`] sends its next word. Clones share the gate.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<Mutex<GateState>>);

#[derive(Debug, Default)]
struct GateState {
    permits: usize,
    open: bool,
    waiting: Vec<Waker>,
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn closed() -> Self {
        Self::default()
    }

    /// Lets `words` more words pass.
    pub fn allow(&self, words: usize) {
        self.change(|state| state.permits += words);
    }

    /// Lets everything pass from now on.
    pub fn open(&self) {
        self.change(|state| state.open = true);
    }

    /// How many of the allowed words have not passed.
    #[must_use]
    pub fn left(&self) -> usize {
        lock(&self.0).permits
    }

    fn change(&self, change: impl FnOnce(&mut GateState)) {
        let waiting = {
            let mut state = lock(&self.0);
            change(&mut state);
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    async fn pass(&self) {
        future::poll_fn(|context| {
            let mut state = lock(&self.0);
            if state.open {
                return Poll::Ready(());
            }
            if state.permits > 0 {
                state.permits -= 1;
                return Poll::Ready(());
            }
            state.waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// A model that answers every request with the same text, one word per token, embeds texts and scores pairs.
///
/// It honours `n`, `max_tokens`, `stop`, `logprobs` (with made-up numbers), `echo`, prompt log probabilities and
/// deadlines, and validates requests as a real model does. Without a gate it never waits.
pub struct ScriptedModel {
    text: String,
    gate: Option<Gate>,
    refusal: Option<Error>,
    failure: Option<(usize, Error)>,
    context_length: usize,
    active: Arc<AtomicUsize>,
    requests: Mutex<Vec<ChatRequest>>,
}

impl ScriptedModel {
    /// A model that answers `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            gate: None,
            refusal: None,
            failure: None,
            context_length: 4096,
            active: Arc::default(),
            requests: Mutex::default(),
        }
    }

    /// Every word waits for the gate.
    #[must_use]
    pub fn with_gate(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    /// Every request fails before its first event.
    #[must_use]
    pub fn refusing(mut self, error: Error) -> Self {
        self.refusal = Some(error);
        self
    }

    /// Every stream fails once so many words (of all choices) were sent.
    #[must_use]
    pub fn failing_after(mut self, words: usize, error: Error) -> Self {
        self.failure = Some((words, error));
        self
    }

    /// Prompts of at least so many words are refused; the default is 4096.
    #[must_use]
    pub fn with_context_length(mut self, words: usize) -> Self {
        self.context_length = words;
        self
    }

    /// Streams that are neither finished nor dropped.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::SeqCst)
    }

    /// The requests that were accepted, in order.
    pub fn requests(&self) -> Vec<ChatRequest> {
        lock(&self.requests).clone()
    }

    /// A handle as a deployment holds it.
    #[must_use]
    pub fn handle(self: &Arc<Self>) -> ModelHandle {
        let info = ModelInfo {
            architectures: vec!["Scripted".to_owned()],
            engine: "scripted".to_owned(),
            context_length: u32::try_from(self.context_length).ok(),
            chat_template: true,
            compute: "none".to_owned(),
            ..ModelInfo::default()
        };
        ModelHandle {
            info: Arc::new(info),
            defaults: Sampling::default(),
            chat: Some(self.clone()),
            embed: Some(self.clone()),
            rerank: Some(self.clone()),
        }
    }

    /// The answer to one choice: its words and why it ends.
    fn answer(&self, sampling: &Sampling) -> (Vec<String>, FinishReason) {
        let cut = sampling.stop.iter().flatten().filter_map(|stop| self.text.find(stop.as_str())).min();
        let mut words = words(&self.text[..cut.unwrap_or(self.text.len())]);
        match sampling.max_tokens {
            Some(limit) if words.len() > limit as usize => {
                words.truncate(limit as usize);
                (words, FinishReason::Length)
            }
            _ => (words, FinishReason::Stop),
        }
    }

    fn prompt(&self, input: &Input) -> Result<String> {
        match input {
            Input::Messages(messages) => self.apply_template(messages, true),
            Input::Text(text) => Ok(text.clone()),
            Input::Tokens(ids) => Ok(ids.iter().map(|id| format!(" {id}")).collect()),
        }
    }

    fn script(&self, request: &ChatRequest, prompt: &str, context: &RequestContext) -> VecDeque<Step> {
        let mut steps = VecDeque::new();
        let mut free = |event| steps.push_back(Step { event, word: false });
        free(Event::Started { request_id: context.id.clone(), vendor_request_id: None });
        if let Some(top) = request.prompt_logprobs {
            let mut logprobs: Vec<_> = words(prompt).iter().map(|word| fake_logprob(word, top)).collect();
            if let Some(first) = logprobs.first_mut() {
                (first.logprob, first.top) = (None, Vec::new());
            }
            free(Event::PromptLogprobs { logprobs });
        }
        if request.echo && !prompt.is_empty() {
            for choice in 0..request.n {
                free(Event::Text { choice, text: prompt.to_owned(), logprobs: None });
            }
        }
        let (words, reason) = self.answer(&request.sampling);
        for word in words {
            for choice in 0..request.n {
                let logprobs = request.sampling.logprobs.map(|top| vec![fake_logprob(&word, top)]);
                let event = Event::Text { choice, text: word.clone(), logprobs };
                steps.push_back(Step { event, word: true });
            }
        }
        for choice in 0..request.n {
            let event = Event::Finished { choice, reason: reason.clone(), stop: None };
            steps.push_back(Step { event, word: false });
        }
        steps
    }
}

/// Cuts before each run of white space.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut after_space = true;
    for character in text.chars() {
        let space = character.is_whitespace();
        match words.last_mut() {
            Some(word) if after_space || !space => word.push(character),
            _ => words.push(character.to_string()),
        }
        after_space = space;
    }
    words
}

fn fake_id(word: &str) -> u32 {
    word.bytes().fold(7, |hash: u32, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte))) % 50_000
}

fn fake_logprob(word: &str, top: u32) -> TokenLogprob {
    let id = fake_id(word);
    let alternative = |rank: u32| match rank {
        0 => (id, word.as_bytes().to_vec(), -0.5),
        _ => (50_000 + rank, format!(" other{rank}").into_bytes(), -1.0 - rank as f32),
    };
    TokenLogprob {
        id,
        bytes: word.as_bytes().to_vec(),
        logprob: Some(-0.5),
        top: (0..top).map(alternative).collect(),
    }
}

struct Step {
    event: Event,
    word: bool,
}

/// One answer in progress; reports its usage when it ends, however it ends.
struct Script {
    steps: VecDeque<Step>,
    gate: Option<Gate>,
    failure: Option<(usize, Error)>,
    deadline: Option<Instant>,
    usage: Usage,
    hook: Option<UsageHook>,
    over: bool,
    active: Arc<AtomicUsize>,
}

impl Script {
    async fn next(&mut self) -> Option<Result<Event>> {
        if self.over {
            return None;
        }
        let Some(step) = self.steps.front() else {
            self.over = true;
            return Some(Ok(Event::Usage { usage: self.usage.clone() }));
        };
        if step.word {
            if let Some((words, error)) = &self.failure
                && self.usage.completion_tokens as usize >= *words
            {
                self.over = true;
                return Some(Err(error.duplicate().with_usage(self.usage.clone())));
            }
            if let Some(gate) = &self.gate {
                gate.pass().await;
            }
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.over = true;
                return Some(Err(deadline_passed().with_usage(self.usage.clone())));
            }
            self.usage.completion_tokens += 1;
        }
        self.steps.pop_front().map(|step| Ok(step.event))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.active.fetch_sub(1, Ordering::SeqCst);
        if let Some(hook) = self.hook.take() {
            hook(&self.usage);
        }
    }
}

fn deadline_passed() -> Error {
    Error::new(ErrorKind::DeadlineExceeded, "the deadline passed; allow more time or ask for fewer tokens")
}

#[async_trait]
impl ChatModel for ScriptedModel {
    async fn chat(&self, request: ChatRequest, context: RequestContext) -> Result<EventStream> {
        if let Some(error) = &self.refusal {
            return Err(error.duplicate());
        }
        request.sampling.validate()?;
        if !(1..=128).contains(&request.n) {
            return Err(Error::invalid("n", format!("n must be 1 to 128, got {}", request.n)));
        }
        if context.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(deadline_passed());
        }
        let prompt = self.prompt(&request.input)?;
        let prompt_tokens = words(&prompt).len();
        if prompt_tokens >= self.context_length {
            let length = self.context_length;
            let message = format!("the prompt has {prompt_tokens} tokens, the context length is {length}");
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        let steps = self.script(&request, &prompt, &context);
        let choices = request.n;
        lock(&self.requests).push(request);
        self.active.fetch_add(1, Ordering::SeqCst);
        let script = Script {
            steps,
            gate: self.gate.clone(),
            failure: self.failure.as_ref().map(|(words, error)| (*words, error.duplicate())),
            deadline: context.deadline,
            usage: Usage { prompt_tokens: prompt_tokens as u32, ..Usage::default() },
            hook: context.on_usage,
            over: false,
            active: self.active.clone(),
        };
        let events = stream::unfold(script, |mut script| async move {
            let item = script.next().await?;
            Some((item, script))
        });
        Ok(checked(events.boxed(), choices))
    }

    fn apply_template(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let mut text: String =
            messages.iter().map(|m| format!("{}: {}\n", m.role.as_str(), m.content)).collect();
        if add_generation_prompt {
            text.push_str("assistant:");
        }
        Ok(text)
    }

    fn tokenize(&self, text: &str) -> Result<Vec<u32>> {
        Ok(words(text).iter().map(|word| fake_id(word)).collect())
    }

    async fn count_tokens(&self, request: &ChatRequest) -> Result<u32> {
        Ok(words(&self.prompt(&request.input)?).len() as u32)
    }

    fn detokenize(&self, ids: &[u32]) -> Result<String> {
        Ok(ids.iter().map(|id| format!(" {id}")).collect())
    }
}

/// Watches a stream of `choices` choices in debug builds: a violation of the contract becomes an
/// [`ErrorKind::Internal`] error that names it. Release builds pass the stream through.
#[must_use]
pub fn checked(stream: EventStream, choices: u32) -> EventStream {
    if cfg!(debug_assertions) { Checked::new(stream, choices).boxed() } else { stream }
}

/// The watching stream behind [`checked`].
pub struct Checked {
    inner: EventStream,
    contract: Contract,
    over: bool,
}

impl Checked {
    /// Watches `inner`, which answers with `choices` choices.
    #[must_use]
    pub fn new(inner: EventStream, choices: u32) -> Self {
        Self { inner, contract: Contract { choices, ..Contract::default() }, over: false }
    }
}

impl Stream for Checked {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(None);
        }
        let Poll::Ready(item) = this.inner.poll_next_unpin(context) else { return Poll::Pending };
        let verdict = match &item {
            Some(Ok(event)) => this.contract.see(event),
            Some(Err(error)) if this.contract.started && error.usage().is_none() => {
                Err(format!("an error without the usage so far: {error}"))
            }
            Some(Err(_)) => Ok(()),
            None => this.contract.end(),
        };
        this.over = !matches!(&item, Some(Ok(_)));
        Poll::Ready(match verdict {
            Ok(()) => item,
            Err(violation) => {
                this.over = true;
                let message = format!("the model broke the event contract: {violation}; please report this");
                Some(
                    Err(Error::internal(message).with_usage(this.contract.usage.clone().unwrap_or_default())),
                )
            }
        })
    }
}

/// What was seen of a stream so far.
#[derive(Default)]
struct Contract {
    choices: u32,
    started: bool,
    prompt_logprobs: bool,
    delta: bool,
    finished: BTreeSet<u32>,
    arguments: BTreeMap<(u32, u32), String>,
    usage: Option<Usage>,
}

impl Contract {
    fn see(&mut self, event: &Event) -> Result<(), String> {
        if self.usage.is_some() {
            return Err(format!("an event after the usage: {event:?}"));
        }
        if !self.started && !matches!(event, Event::Started { .. }) {
            return Err(format!("the first event is not the start: {event:?}"));
        }
        match event {
            Event::Started { .. } if self.started => return Err("a second start".to_owned()),
            Event::Started { .. } => self.started = true,
            Event::PromptLogprobs { .. } if self.delta || self.prompt_logprobs => {
                return Err("prompt log probabilities twice or after a delta".to_owned());
            }
            Event::PromptLogprobs { .. } => self.prompt_logprobs = true,
            Event::Notice { notice: Notice::Restarted } => {
                self.finished.clear();
                self.arguments.clear();
            }
            Event::Notice { .. } => {}
            Event::Text { choice, text, logprobs } => {
                self.delta(*choice)?;
                if text.is_empty() && logprobs.as_ref().is_none_or(Vec::is_empty) {
                    return Err(format!("an empty text delta of choice {choice}"));
                }
            }
            Event::Reasoning { choice, text } => {
                self.delta(*choice)?;
                if text.is_empty() {
                    return Err(format!("an empty reasoning delta of choice {choice}"));
                }
            }
            Event::ToolCall { choice, delta } => {
                self.delta(*choice)?;
                self.arguments.entry((*choice, delta.index)).or_default().push_str(&delta.arguments);
            }
            Event::Signature { choice, signature } => {
                self.delta(*choice)?;
                if signature.is_empty() {
                    return Err(format!("an empty signature of choice {choice}"));
                }
                if let crate::Signature::ToolCall { index, .. } = signature
                    && self.arguments.contains_key(&(*choice, *index))
                {
                    return Err(format!(
                        "the signature of call {index} of choice {choice} comes after its beginning"
                    ));
                }
            }
            Event::Finished { choice, reason, .. } => {
                self.delta(*choice)?;
                self.finished.insert(*choice);
                if *reason == FinishReason::ToolCalls {
                    self.check_arguments(*choice)?;
                }
            }
            Event::Usage { usage } => {
                if self.finished.len() != self.choices as usize {
                    let (finished, choices) = (self.finished.len(), self.choices);
                    return Err(format!("usage after {finished} of {choices} choices finished"));
                }
                self.usage = Some(usage.clone());
            }
        }
        Ok(())
    }

    fn delta(&mut self, choice: u32) -> Result<(), String> {
        self.delta = true;
        if choice >= self.choices {
            return Err(format!("an event of choice {choice}, but there are {}", self.choices));
        }
        if self.finished.contains(&choice) {
            return Err(format!("an event of choice {choice} after its end"));
        }
        Ok(())
    }

    fn check_arguments(&self, choice: u32) -> Result<(), String> {
        for ((owner, index), json) in &self.arguments {
            if *owner == choice && serde_json::from_str::<serde::de::IgnoredAny>(json).is_err() {
                return Err(format!("the arguments of call {index} of choice {choice} are not valid JSON"));
            }
        }
        Ok(())
    }

    fn end(&self) -> Result<(), String> {
        if self.usage.is_some() { Ok(()) } else { Err("the stream ended without usage".to_owned()) }
    }
}

/// Runs `model` through everything that the contract promises. The model must be idle, take at least one of
/// `n = 3` and accept text input; panics with `name` and the broken promise.
pub async fn conformance(model: Arc<dyn ChatModel>, name: &str) {
    well_formed(&*model, name).await;
    interleaved(&*model, name).await;
    choices(&*model, name).await;
    dropped(&*model, name).await;
    refused(&*model, name).await;
    late(&*model, name).await;
    // After all this the model still answers: nothing was leaked.
    well_formed(&*model, name).await;
}

fn request(prompt: &str, max_tokens: u32) -> ChatRequest {
    let sampling = Sampling { temperature: Some(0.0), max_tokens: Some(max_tokens), ..Sampling::default() };
    ChatRequest { sampling, ..ChatRequest::new("conformance", Input::Text(prompt.to_owned())) }
}

/// A context whose usage reports are collected.
fn watched() -> (RequestContext, Arc<Mutex<Vec<Usage>>>) {
    let reports: Arc<Mutex<Vec<Usage>>> = Arc::default();
    let seen = reports.clone();
    let hook: UsageHook = Arc::new(move |usage| lock(&seen).push(usage.clone()));
    (RequestContext { on_usage: Some(hook), ..RequestContext::local() }, reports)
}

#[expect(clippy::panic, reason = "a test kit reports by panicking")]
fn fail(name: &str, what: impl std::fmt::Display) -> ! {
    panic!("{name}: {what}")
}

async fn events(model: &dyn ChatModel, name: &str, request: ChatRequest) -> Vec<Event> {
    let choices = request.n;
    let (context, reports) = watched();
    let id = context.id.clone();
    let stream = match model.chat(request, context).await {
        Ok(stream) => stream,
        Err(error) => fail(name, format_args!("a valid request was refused: {error}")),
    };
    let items: Vec<_> = Checked::new(stream, choices).collect().await;
    let events: Vec<Event> = items
        .into_iter()
        .map(|item| item.unwrap_or_else(|error| fail(name, format_args!("the stream failed: {error}"))))
        .collect();
    match (events.first(), events.last()) {
        (Some(Event::Started { request_id, .. }), Some(Event::Usage { usage })) => {
            assert_eq!(*request_id, id, "{name}: the request's id");
            let heard = lock(&reports);
            assert_eq!(*heard, std::slice::from_ref(usage), "{name}: the hook hears the usage once");
        }
        _ => fail(name, "a stream that does not begin with a start and end with usage"),
    }
    events
}

async fn well_formed(model: &dyn ChatModel, name: &str) {
    let events = events(model, name, request("Once upon a time", 8)).await;
    let text: String = events
        .iter()
        .filter_map(|event| match event {
            Event::Text { text, .. } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    let Ok(response) = collect(stream::iter(events.into_iter().map(Ok)).boxed()).await else {
        fail(name, "a stream that does not fold")
    };
    assert_eq!(response.choices.len(), 1, "{name}: choices");
    assert_eq!(response.choices[0].text, text, "{name}: the folded text is the streamed text");
    assert!(response.usage.prompt_tokens > 0, "{name}: prompt tokens are counted");
    assert!(response.usage.completion_tokens <= 8, "{name}: max_tokens holds");
}

async fn interleaved(model: &dyn ChatModel, name: &str) {
    let runs = (0..8u32).map(|index| events(model, name, request(&format!("Request {index}"), 4 + index)));
    let all = future::join_all(runs).await;
    assert_eq!(all.len(), 8, "{name}: interleaved requests");
}

async fn choices(model: &dyn ChatModel, name: &str) {
    let events = events(model, name, ChatRequest { n: 3, ..request("Three ways to say it", 6) }).await;
    let finished = events.iter().filter(|event| matches!(event, Event::Finished { .. })).count();
    assert_eq!(finished, 3, "{name}: every choice finishes");
}

async fn dropped(model: &dyn ChatModel, name: &str) {
    for events_before in 0..3 {
        let (context, reports) = watched();
        let stream = match model.chat(request("A story that nobody will hear", 64), context).await {
            Ok(stream) => stream,
            Err(error) => fail(name, format_args!("a valid request was refused: {error}")),
        };
        let seen = stream.take(events_before).count().await;
        assert_eq!(seen, events_before, "{name}: events before the drop");
        assert_eq!(lock(&reports).len(), 1, "{name}: a dropped stream reports its usage once");
    }
}

async fn refused(model: &dyn ChatModel, name: &str) {
    let base = request("Hello", 4);
    let sampling = |change: fn(&mut Sampling)| {
        let mut request = base.clone();
        change(&mut request.sampling);
        request
    };
    let bad = [
        ("n", ChatRequest { n: 0, ..base.clone() }),
        ("temperature", sampling(|s| s.temperature = Some(-1.0))),
        ("top_p", sampling(|s| s.top_p = Some(0.0))),
        ("min_p", sampling(|s| s.min_p = Some(2.0))),
        ("stop", sampling(|s| s.stop = Some(vec![String::new()]))),
        ("top_logprobs", sampling(|s| s.logprobs = Some(1000))),
    ];
    for (parameter, request) in bad {
        match model.chat(request, RequestContext::local()).await {
            Ok(_) => fail(name, format_args!("a bad {parameter} was accepted")),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{name}: kind of a bad {parameter}");
                assert_eq!(error.param(), Some(parameter), "{name}: the parameter at fault");
            }
        }
    }
}

async fn late(model: &dyn ChatModel, name: &str) {
    let past = Instant::now().checked_sub(Duration::from_secs(1)).unwrap_or_else(Instant::now);
    let context = RequestContext { deadline: Some(past), ..RequestContext::local() };
    let outcome = match model.chat(request("Too late", 64), context).await {
        Ok(stream) => collect(Checked::new(stream, 1).boxed()).await.map(|_| ()),
        Err(error) => Err(error),
    };
    let kind = outcome.err().map(|error| error.kind());
    assert_eq!(kind, Some(ErrorKind::DeadlineExceeded), "{name}: a deadline that has passed");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn the_scripted_model_conforms() {
        block_on(conformance(Arc::new(ScriptedModel::new("The quick brown fox jumps over it.")), "scripted"));
    }

    #[test]
    fn the_gate_controls_progress_and_a_drop_frees() {
        block_on(async {
            let gate = Gate::closed();
            let model = ScriptedModel::new("one two three").with_gate(&gate);
            let (context, reports) = watched();
            let mut stream = model.chat(request("hi there", 8), context).await.unwrap();
            assert!(matches!(stream.next().await, Some(Ok(Event::Started { .. }))));
            assert!(futures::poll!(stream.next()).is_pending());
            gate.allow(1);
            assert!(matches!(stream.next().await, Some(Ok(Event::Text { text, .. })) if text == "one"));
            assert!(futures::poll!(stream.next()).is_pending());
            assert_eq!(model.active(), 1);
            drop(stream);
            assert_eq!(model.active(), 0);
            let usage = lock(&reports)[0].clone();
            assert_eq!((usage.prompt_tokens, usage.completion_tokens), (2, 1));
        });
    }

    #[test]
    fn failures_come_before_or_in_the_stream() {
        block_on(async {
            let busy = Error::new(ErrorKind::Overloaded, "busy").with_retry_after(Duration::from_secs(1));
            let model = ScriptedModel::new("one two").refusing(busy);
            let error = model.chat(request("hi", 8), RequestContext::local()).await.err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Overloaded);

            let model = ScriptedModel::new("one two").failing_after(1, Error::internal("broken"));
            let stream = model.chat(request("hi", 8), RequestContext::local()).await.unwrap();
            let error = collect(stream).await.unwrap_err();
            assert_eq!(error.usage().unwrap().completion_tokens, 1);
        });
    }

    #[test]
    fn stops_limits_and_log_probabilities_are_honoured() {
        block_on(async {
            let model = ScriptedModel::new("one two three four");
            let mut asked = request("a b c", 2);
            asked.sampling.logprobs = Some(2);
            asked.prompt_logprobs = Some(1);
            asked.echo = true;
            let response =
                collect(model.chat(asked.clone(), RequestContext::local()).await.unwrap()).await.unwrap();
            assert_eq!(response.choices[0].text, "a b cone two");
            assert_eq!(response.choices[0].finish_reason, FinishReason::Length);
            assert_eq!(response.choices[0].logprobs.as_ref().unwrap()[1].top.len(), 2);
            assert_eq!(response.prompt_logprobs.unwrap().len(), 3);

            asked.sampling = Sampling { stop: Some(vec![" three".to_owned()]), ..Sampling::default() };
            asked.echo = false;
            let response = collect(model.chat(asked, RequestContext::local()).await.unwrap()).await.unwrap();
            assert_eq!(response.choices[0].text, "one two");
            assert_eq!(response.choices[0].finish_reason, FinishReason::Stop);
        });
    }

    #[test]
    fn the_watcher_names_violations() {
        let started = Event::Started { request_id: crate::RequestId("1".into()), vendor_request_id: None };
        let text = |text: &str| Event::Text { choice: 0, text: text.to_owned(), logprobs: None };
        let finished = Event::Finished { choice: 0, reason: FinishReason::Stop, stop: None };
        let usage = Event::Usage { usage: Usage::default() };
        let cases: [(&str, Vec<Event>); 7] = [
            ("not the start", vec![text("a")]),
            ("second start", vec![started.clone(), started.clone()]),
            ("empty text", vec![started.clone(), text("")]),
            ("after its end", vec![started.clone(), finished.clone(), text("a")]),
            ("0 of 1 choices", vec![started.clone(), usage.clone()]),
            ("after the usage", vec![started.clone(), finished.clone(), usage, text("a")]),
            ("without usage", vec![started, finished]),
        ];
        for (violation, events) in cases {
            let inner = stream::iter(events.into_iter().map(Ok)).boxed();
            let items: Vec<_> = block_on(Checked::new(inner, 1).collect());
            let error = items.last().unwrap().as_ref().unwrap_err();
            assert!(error.message().contains(violation), "{violation}: {error}");
        }
    }
}
