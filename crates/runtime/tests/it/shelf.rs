//! Models that tests plan, behind a loader that looks them up by name.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use byzerllm_core::{
    ChatModel, ChatRequest, EmbeddingModel, EmbeddingRequest, Embeddings, Error, ErrorKind, Event,
    EventStream, FinishReason, Input, Message, ModelHandle, ModelInfo, RequestContext, Result, Role,
    Sampling, Usage, UsageHook,
};
use byzerllm_runtime::{
    BreakerState, DeploymentSpec, Inspection, LoadContext, LoadedModel, Loader, MemoryNeed, ProviderMetrics,
    Worker,
};
use futures::StreamExt;

/// Gives every deployment the model of its name.
pub(crate) struct Shelf(BTreeMap<String, ModelHandle>, BTreeMap<String, Arc<AtomicBool>>);

impl Shelf {
    pub(crate) fn of(models: &[(&str, &Arc<Parrot>)]) -> Arc<Self> {
        let handle = |(name, model): &(&str, &Arc<Parrot>)| ((*name).to_owned(), model.handle());
        let broken = |(name, model): &(&str, &Arc<Parrot>)| ((*name).to_owned(), Arc::clone(&model.broken));
        Arc::new(Self(models.iter().map(handle).collect(), models.iter().map(broken).collect()))
    }
}

impl Loader for Shelf {
    fn need(&self, _spec: &DeploymentSpec) -> Result<MemoryNeed> {
        Ok(MemoryNeed::default())
    }

    fn load(&self, spec: &DeploymentSpec, _context: &LoadContext) -> Result<LoadedModel> {
        let missing = || Error::new(ErrorKind::NotFound, "the shelf has no such model");
        let handle = self.0.get(&spec.name).ok_or_else(missing)?.clone();
        let broken = self.1.get(&spec.name).cloned().unwrap_or_default();
        Ok(LoadedModel { handle, worker: Arc::new(Idle(broken)) })
    }

    fn inspect(&self, _path: &Path) -> Result<Inspection> {
        Err(Error::new(ErrorKind::Unsupported, "nothing to look at"))
    }

    fn available_memory(&self, _promised: u64) -> Option<u64> {
        None
    }
}

struct Idle(Arc<AtomicBool>);

#[async_trait]
impl Worker for Idle {
    async fn probe(&self, _deadline: Instant) -> Result<()> {
        Ok(())
    }

    fn provider_metrics(&self) -> Option<ProviderMetrics> {
        let open = self.0.load(Ordering::SeqCst);
        let breaker = if open { BreakerState::Open } else { BreakerState::Closed };
        Some(ProviderMetrics {
            requests: 0,
            attempts: 0,
            retries: 0,
            failures: Vec::new(),
            shed: 0,
            dropped: 0,
            unreported: 0,
            breaker,
        })
    }

    fn shutdown(&self) {}
}

/// What a model does with one request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Plan {
    /// It answers.
    Answer,
    /// It answers, and takes so long before each piece.
    Slowly(Duration),
    /// It refuses the request.
    Refuse(ErrorKind),
    /// It fails after so many pieces.
    Fail(usize, ErrorKind),
    /// Its stream ends after so many pieces, without a word.
    Vanish(usize),
}

/// A model that says the same every time, character by character in pieces of two; a piece is a token. It goes on from an
/// assistant's message at the end of a conversation when it is built so.
pub(crate) struct Parrot {
    text: String,
    continues: bool,
    plans: Mutex<VecDeque<Plan>>,
    requests: Mutex<Vec<ChatRequest>>,
    active: Arc<AtomicUsize>,
    broken: Arc<AtomicBool>,
}

impl Parrot {
    /// It answers `text`; requests follow the plans, and further ones are answered.
    pub(crate) fn new(text: &str, plans: impl IntoIterator<Item = Plan>) -> Arc<Self> {
        Arc::new(Self {
            text: text.to_owned(),
            continues: true,
            plans: Mutex::new(plans.into_iter().collect()),
            requests: Mutex::default(),
            active: Arc::default(),
            broken: Arc::default(),
        })
    }

    /// Opens its circuit breaker.
    pub(crate) fn break_circuit(&self) {
        self.broken.store(true, Ordering::SeqCst);
    }

    /// It cannot go on from a message, and has no tokenizer.
    pub(crate) fn closed(text: &str) -> Arc<Self> {
        let parrot = Self { continues: false, ..Arc::into_inner(Self::new(text, [])).unwrap() };
        Arc::new(parrot)
    }

    pub(crate) fn requests(&self) -> Vec<ChatRequest> {
        self.requests.lock().unwrap().clone()
    }

    /// Streams that are neither finished nor dropped.
    pub(crate) fn active(&self) -> usize {
        self.active.load(Ordering::SeqCst)
    }

    pub(crate) fn handle(self: &Arc<Self>) -> ModelHandle {
        ModelHandle {
            info: Arc::new(ModelInfo::default()),
            defaults: Sampling::default(),
            chat: Some(Arc::clone(self) as Arc<dyn ChatModel>),
            embed: Some(Arc::clone(self) as Arc<dyn EmbeddingModel>),
            rerank: None,
        }
    }

    fn plan(&self) -> Plan {
        self.plans.lock().unwrap().pop_front().unwrap_or(Plan::Answer)
    }

    /// What is left to say.
    fn rest(&self, request: &ChatRequest) -> Vec<String> {
        let prefix = match &request.input {
            Input::Messages(messages) => match messages.last() {
                Some(message) if message.role == Role::Assistant => message.content.clone(),
                _ => String::new(),
            },
            Input::Text(text) => text.strip_prefix("prompt").unwrap_or_default().to_owned(),
            Input::Tokens(_) => String::new(),
        };
        let rest = self.text.strip_prefix(prefix.as_str()).unwrap_or("(lost the thread)");
        let characters: Vec<char> = rest.chars().collect();
        characters.chunks(2).map(|piece| piece.iter().collect()).collect()
    }
}

/// One answer in progress; it is counted as long as it lives, and tells its usage at the end.
struct Speech {
    events: VecDeque<Event>,
    plan: Plan,
    over: bool,
    usage: Usage,
    active: Arc<AtomicUsize>,
    hook: Option<UsageHook>,
}

impl Speech {
    async fn next(&mut self) -> Option<Result<Event>> {
        if let Plan::Slowly(pause) = self.plan {
            tokio::time::sleep(pause).await;
        }
        if self.over {
            return None;
        }
        let said = self.usage.completion_tokens as usize;
        let begun = !matches!(self.events.front(), Some(Event::Started { .. }));
        match self.plan {
            Plan::Fail(after, kind) if begun && said >= after => {
                self.over = true;
                return Some(Err(Error::new(kind, "failed as planned").with_usage(self.usage.clone())));
            }
            Plan::Vanish(after) if begun && said >= after => return None,
            _ => {}
        }
        let event = self.events.pop_front();
        self.usage.completion_tokens += u32::from(matches!(event, Some(Event::Text { .. })));
        self.over = event.is_none();
        Some(Ok(event.unwrap_or_else(|| Event::Usage { usage: self.usage.clone() })))
    }
}

impl Drop for Speech {
    fn drop(&mut self) {
        self.active.fetch_sub(1, Ordering::SeqCst);
        if let Some(hook) = self.hook.take() {
            hook(&self.usage);
        }
    }
}

#[async_trait]
impl ChatModel for Parrot {
    async fn chat(&self, request: ChatRequest, context: RequestContext) -> Result<EventStream> {
        let plan = self.plan();
        if let Plan::Refuse(kind) = plan {
            return Err(Error::new(kind, "refused as planned"));
        }
        let mut pieces = self.rest(&request);
        let mut reason = FinishReason::Stop;
        if let Some(max) = request.sampling.max_tokens
            && pieces.len() > max as usize
        {
            pieces.truncate(max as usize);
            reason = FinishReason::Length;
        }
        self.requests.lock().unwrap().push(request);
        self.active.fetch_add(1, Ordering::SeqCst);
        let start = Event::Started { request_id: context.id, vendor_request_id: Some("vendor".to_owned()) };
        let texts = pieces.into_iter().map(|text| Event::Text { choice: 0, text, logprobs: None });
        let speech = Speech {
            events: std::iter::once(start)
                .chain(texts)
                .chain([Event::Finished { choice: 0, reason, stop: None }])
                .collect(),
            plan,
            over: false,
            usage: Usage { prompt_tokens: 5, ..Usage::default() },
            active: Arc::clone(&self.active),
            hook: context.on_usage,
        };
        let events = futures::stream::unfold(speech, |mut speech| async move {
            let item = speech.next().await?;
            Some((item, speech))
        });
        Ok(events.boxed())
    }

    fn apply_template(&self, _messages: &[Message], _add_generation_prompt: bool) -> Result<String> {
        Err(Error::new(ErrorKind::Unsupported, "a vendor's model"))
    }

    fn tokenize(&self, _text: &str) -> Result<Vec<u32>> {
        Err(Error::new(ErrorKind::Unsupported, "a vendor's model"))
    }

    fn continuation(&self) -> Option<&'static str> {
        self.continues.then_some("partial")
    }
}

#[async_trait]
impl EmbeddingModel for Parrot {
    async fn embed(&self, request: EmbeddingRequest, _context: RequestContext) -> Result<Embeddings> {
        if let Plan::Refuse(kind) = self.plan() {
            return Err(Error::new(kind, "refused as planned"));
        }
        self.active.fetch_add(1, Ordering::SeqCst);
        let vectors = request.inputs.iter().map(|_| vec![self.text.len() as f32]).collect();
        Ok(Embeddings { vectors, usage: Usage { prompt_tokens: 3, ..Usage::default() }, notices: Vec::new() })
    }
}
