//! A vendor's model behind our traits: transport, retries, accounting and the stream contract, once for all vendors.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use byzerllm_core::{
    Attempt, ChatModel, ChatRequest, EmbeddingModel, EmbeddingRequest, Embeddings, Ending, Error, ErrorKind,
    EventStream, Input, Message, ModelHandle, ModelInfo, RequestContext, Reservation, Result, Settlement,
    Task, Usage, UsageSource, nearest,
};
use futures::StreamExt;
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep, timeout_at};

use crate::answer::{Answer, Parts};
use crate::metrics::{Counters, count};
use crate::redact::Redactor;
use crate::transport::{
    Body, Breaker, Clock, Failure, Head, Http, Jitter, Limits, MAX_BODY, Permit, Phase, Tokens, retry_after,
    wait_before,
};
use crate::{Dialect, Features, Outbound, Parameters, ProviderMetrics, Secret, Signing, Vendor};

/// The most choices of one request.
const MAX_CHOICES: u32 = 128;
/// The largest error body that is read, in bytes.
const MAX_REFUSAL: usize = 1 << 20;

/// A model at a vendor.
pub struct ProviderModel {
    shared: Arc<Shared>,
}

/// What the requests of a deployment share.
pub(crate) struct Shared {
    pub(crate) vendor: &'static str,
    deployment: Arc<str>,
    model: Arc<str>,
    pub(crate) dialect: Arc<dyn Dialect>,
    features: Features,
    http: Http,
    limits: Limits,
    max_retries: u32,
    max_output_tokens: Option<u32>,
    pub(crate) redactor: Redactor,
    tokens: Tokens,
    breaker: Arc<Breaker>,
    jitter: Jitter,
    pub(crate) counters: Counters,
    info: Arc<ModelInfo>,
}

/// One request on its way: its clock, and what was tried.
struct Call {
    context: RequestContext,
    clock: Clock,
    task: Task,
    /// Attempts so far, for the ledger.
    attempts: u32,
    /// Attempts at the present message that failed.
    failed: u32,
    /// Whether a token was fetched anew because the vendor called the old one wrong.
    renewed: bool,
}

/// A message that is about to be sent, and what it may cost.
struct Ready {
    outbound: Outbound,
    ticket: Ticket,
    prompt_bytes: u64,
    token: Option<Arc<Secret>>,
}

/// What one attempt has reserved. Dropping it leaves the whole reservation spent.
pub(crate) struct Ticket {
    reservation: Option<Box<dyn Reservation>>,
    number: u32,
    begun: Instant,
    first: Option<Duration>,
}

impl Ticket {
    /// The first piece of the answer came.
    pub(crate) fn first_event(&mut self) {
        if self.first.is_none() {
            self.first = Some(self.begun.elapsed());
        }
    }
}

impl ProviderModel {
    /// Opens a vendor's dialect and its connections. Nothing is sent before the first request.
    ///
    /// # Errors
    /// What the vendor finds wrong with the parameters; a certificate file that cannot be read.
    pub fn open(vendor: &'static Vendor, deployment: &str, parameters: &Parameters) -> Result<Arc<Self>> {
        let dialect = (vendor.open)(parameters)?;
        let http = Http::new(vendor.name, deployment, parameters)?;
        let redactor = Redactor::new(parameters.secrets().chain(http.secret()));
        let count = |name| parameters.count(name).map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        let info = info(vendor, &*dialect, parameters, count("context_length"));
        let shared = Shared {
            vendor: vendor.name,
            deployment: deployment.into(),
            model: dialect.model().into(),
            features: dialect.features(),
            dialect,
            http,
            limits: Limits::new(parameters),
            max_retries: count("max_retries").unwrap_or_default(),
            max_output_tokens: count("max_output_tokens").filter(|tokens| *tokens > 0),
            redactor,
            tokens: Tokens::default(),
            breaker: Arc::default(),
            jitter: Jitter::new(RandomState::new().hash_one(deployment)),
            counters: Counters::default(),
            info: Arc::new(info),
        };
        Ok(Arc::new(Self { shared: Arc::new(shared) }))
    }

    /// What it can do.
    #[must_use]
    pub fn handle(self: &Arc<Self>) -> ModelHandle {
        let Features { chat, embeddings, .. } = self.shared.features;
        ModelHandle {
            info: Arc::clone(&self.shared.info),
            defaults: self.shared.dialect.defaults(),
            chat: chat.then(|| Arc::clone(self) as Arc<dyn ChatModel>),
            embed: embeddings.then(|| Arc::clone(self) as Arc<dyn EmbeddingModel>),
        }
    }

    /// What it has done so far.
    #[must_use]
    pub fn metrics(&self) -> ProviderMetrics {
        self.shared.counters.read(self.shared.breaker.state())
    }

    fn no_tokenizer(&self, what: &str) -> Error {
        let vendor = self.shared.vendor;
        let message =
            format!("saas/{vendor} {what} on its side only; use a deployment with a local model for this");
        Error::new(ErrorKind::Unsupported, message)
    }
}

fn info(
    vendor: &Vendor,
    dialect: &dyn Dialect,
    parameters: &Parameters,
    context_length: Option<u32>,
) -> ModelInfo {
    let mut details = Map::new();
    details.insert("vendor".to_owned(), Value::from(vendor.name));
    details.insert("model".to_owned(), Value::from(dialect.model()));
    if let Some(url) = dialect.base_url().or_else(|| parameters.url("base_url")) {
        let mut url = url.clone();
        url.set_query(None);
        url.set_fragment(None);
        details.insert("base_url".to_owned(), Value::from(url.as_str()));
    }
    ModelInfo {
        engine: format!("saas/{}", vendor.name),
        context_length: context_length.filter(|length| *length > 0),
        chat_template: dialect.features().chat,
        compute: "remote".to_owned(),
        details,
        ..ModelInfo::default()
    }
}

#[async_trait]
impl ChatModel for ProviderModel {
    async fn chat(&self, mut request: ChatRequest, context: RequestContext) -> Result<EventStream> {
        let shared = &self.shared;
        shared.check_chat(&request)?;
        if request.sampling.max_tokens.is_none() {
            request.sampling.max_tokens = shared.max_output_tokens;
        }
        let mut call = shared.call(context, Task::Chat)?;
        loop {
            match shared.try_chat(&mut call, &request).await {
                Ok(mut answer) => {
                    answer.start(call.context.id, call.context.on_usage);
                    return Ok(answer.boxed());
                }
                Err(failure) => shared.again(&mut call, failure).await?,
            }
        }
    }

    fn apply_template(&self, _messages: &[Message], _add_generation_prompt: bool) -> Result<String> {
        Err(self.no_tokenizer("renders messages"))
    }

    fn tokenize(&self, _text: &str) -> Result<Vec<u32>> {
        Err(self.no_tokenizer("cuts text into tokens"))
    }

    fn continuation(&self) -> Option<&'static str> {
        self.shared.dialect.continuation()
    }

    fn extra_parameters(&self) -> &[&'static str] {
        self.shared.dialect.extra_parameters()
    }

    fn accounts(&self) -> bool {
        true
    }
}

#[async_trait]
impl EmbeddingModel for ProviderModel {
    async fn embed(&self, request: EmbeddingRequest, context: RequestContext) -> Result<Embeddings> {
        let shared = &self.shared;
        shared.check_extra(&request.extra)?;
        if request.inputs.is_empty() {
            return Err(Error::invalid("input", "there is nothing to embed; give at least one text"));
        }
        let hook = context.on_usage.clone();
        let mut call = shared.call(context, Task::Embedding)?;
        let most = shared.dialect.embedding_batch().max(1);
        let embeddings = if request.inputs.len() <= most {
            shared.embed_batch(&mut call, &request).await?
        } else {
            let EmbeddingRequest { model, inputs, dimensions, extra } = request;
            let mut all: Option<Embeddings> = None;
            for inputs in inputs.chunks(most) {
                let (model, extra) = (model.clone(), extra.clone());
                let batch = EmbeddingRequest { model, inputs: inputs.to_vec(), dimensions, extra };
                let more = shared.embed_batch(&mut call, &batch).await;
                match (&mut all, more) {
                    (Some(all), Ok(more)) => {
                        all.vectors.extend(more.vectors);
                        all.usage.add(&more.usage);
                        all.notices.extend(more.notices);
                    }
                    (None, Ok(more)) => all = Some(more),
                    (Some(all), Err(error)) => return Err(error.with_usage(all.usage.clone())),
                    (None, Err(error)) => return Err(error),
                }
            }
            all.ok_or_else(|| {
                Error::internal("a request for vectors was cut into no batches; please report this")
            })?
        };
        let length = embeddings.vectors.first().map(Vec::len);
        if embeddings.vectors.iter().any(|vector| Some(vector.len()) != length) {
            return Err(shared.odd("vectors of several lengths"));
        }
        if let Some(hook) = hook {
            hook(&embeddings.usage);
        }
        Ok(embeddings)
    }

    fn extra_parameters(&self) -> &[&'static str] {
        self.shared.dialect.extra_parameters()
    }

    fn accounts(&self) -> bool {
        true
    }
}

impl Shared {
    fn check_chat(&self, request: &ChatRequest) -> Result<()> {
        let Features { chat, tools, images, .. } = self.features;
        let vendor = self.vendor;
        let cannot = |param: &'static str, what: &str| {
            let message = format!("saas/{vendor}: the model '{}' {what}; choose another one", self.model);
            Err(Error::new(ErrorKind::Unsupported, message).with_param(param))
        };
        request.sampling.validate()?;
        if !(1..=MAX_CHOICES).contains(&request.n) {
            return Err(Error::invalid("n", format!("n must be 1 to {MAX_CHOICES}, got {}", request.n)));
        }
        self.check_extra(&request.extra)?;
        if !chat {
            return cannot("model", "makes vectors and no text");
        }
        if !tools && !request.tools.is_empty() {
            return cannot("tools", "calls no tools");
        }
        if !images
            && let Input::Messages(messages) = &request.input
            && messages.iter().any(Message::has_images)
        {
            return cannot("messages", "takes no images");
        }
        Ok(())
    }

    fn check_extra(&self, extra: &Map<String, Value>) -> Result<()> {
        let known = self.dialect.extra_parameters();
        let Some(unknown) = extra.keys().find(|name| !known.contains(&name.as_str())) else { return Ok(()) };
        let shown: String = unknown.chars().take(64).collect();
        let shown = shown.escape_debug().to_string();
        let vendor = self.vendor;
        let message = match nearest(unknown, known.iter().copied()) {
            Some(near) => format!("saas/{vendor} has no parameter '{shown}'; did you mean '{near}'?"),
            None => format!("saas/{vendor} has no parameter '{shown}'; leave it out"),
        };
        Err(Error::new(ErrorKind::Unsupported, message).with_param(shown))
    }

    fn call(&self, context: RequestContext, task: Task) -> Result<Call> {
        let clock = self.limits.start(context.deadline);
        if clock.is_over() {
            return Err(clock.error(Phase::Total, self.vendor));
        }
        count(&self.counters.requests);
        Ok(Call { context, clock, task, attempts: 0, failed: 0, renewed: false })
    }

    async fn try_chat(self: &Arc<Self>, call: &mut Call, request: &ChatRequest) -> Result<Answer, Failure> {
        let permit = self.enter()?;
        let bounds = (self.dialect.prompt_beyond(request), self.dialect.completion_bound(request));
        let encode = |signing: &Signing<'_>| self.dialect.chat(request, signing);
        let attempt = async {
            let Ready { outbound, ticket, prompt_bytes, token } = self.prepare(call, bounds, encode).await?;
            let framing = outbound.framing;
            let (head, body, ticket) = self.exchange(call, outbound, ticket, token.as_ref()).await?;
            let (decoder, choices, clock) = (self.dialect.decoder(request), request.n, call.clock);
            let parts = Parts { head, body, framing, decoder, choices, clock, ticket, prompt_bytes };
            let mut answer = Answer::new(Arc::clone(self), parts);
            answer.prime().await.map_err(|failure| self.renew(failure, token.as_ref()))?;
            Ok(answer)
        };
        let result = attempt.await;
        judge(permit, &result);
        result
    }

    async fn embed_batch(&self, call: &mut Call, request: &EmbeddingRequest) -> Result<Embeddings> {
        call.failed = 0;
        loop {
            match self.try_embed(call, request).await {
                Ok(embeddings) => return Ok(embeddings),
                Err(failure) => self.again(call, failure).await?,
            }
        }
    }

    async fn try_embed(&self, call: &mut Call, request: &EmbeddingRequest) -> Result<Embeddings, Failure> {
        let permit = self.enter()?;
        let encode = |signing: &Signing<'_>| self.dialect.embed(request, signing);
        let attempt = async {
            let Ready { outbound, ticket, prompt_bytes, token } = self.prepare(call, (0, Some(0)), encode).await?;
            let (head, body, ticket) = self.exchange(call, outbound, ticket, token.as_ref()).await?;
            let id = head.request_id().map(|id| self.redactor.id(id));
            let read = match body.whole(MAX_BODY, &call.clock, self.vendor).await {
                Ok(bytes) => {
                    self.read_vectors(request, &bytes).map_err(|error| Failure::said(error, head.status))
                }
                Err(failure) => Err(failure),
            };
            match read {
                Ok(mut embeddings) => {
                    // Vectors are made of at least one token.
                    let believed = embeddings.usage.prompt_tokens > 0;
                    let usage = &mut embeddings.usage;
                    let reported = if believed {
                        usage.source = UsageSource::Reported;
                        Some(usage.clone())
                    } else {
                        count(&self.counters.unreported);
                        let prompt_tokens = u32::try_from(prompt_bytes).unwrap_or(u32::MAX);
                        *usage = Usage { prompt_tokens, source: UsageSource::Estimated, ..Usage::default() };
                        None
                    };
                    self.settle(ticket, Ending::Answered, reported, id, Some(head.status));
                    Ok(embeddings)
                }
                Err(failure) => {
                    let failure = self.give_up(failure, ticket, Some(head.status));
                    Err(self.renew(failure, token.as_ref()))
                }
            }
        };
        let result = attempt.await;
        judge(permit, &result);
        result
    }

    fn read_vectors(&self, request: &EmbeddingRequest, body: &[u8]) -> Result<Embeddings> {
        let embeddings = self.dialect.embedded(body)?;
        let (asked, got) = (request.inputs.len(), embeddings.vectors.len());
        if asked != got {
            return Err(self.odd(&format!("{got} vectors for {asked} texts")));
        }
        Ok(embeddings)
    }

    fn odd(&self, what: &str) -> Error {
        let vendor = self.vendor;
        Error::new(
            ErrorKind::Upstream,
            format!("saas/{vendor} sent {what}; the answer cannot be used, ask again"),
        )
    }

    fn enter(&self) -> Result<Permit, Failure> {
        self.breaker.enter().map_err(|left| {
            count(&self.counters.shed);
            let vendor = self.vendor;
            let message = format!(
                "saas/{vendor} failed several times in a row and is left alone for {:.0} s; ask again then",
                left.as_secs_f64().ceil()
            );
            Failure::hopeless(Error::new(ErrorKind::Unavailable, message).with_retry_after(left))
        })
    }

    /// Signs and writes the message, and reserves what it may cost: prompt tokens beyond its bytes, and generated ones.
    async fn prepare(
        &self,
        call: &mut Call,
        (beyond, completion_tokens): (u64, Option<u64>),
        encode: impl Fn(&Signing<'_>) -> Result<Outbound> + Send,
    ) -> Result<Ready, Failure> {
        let now = Instant::now();
        call.clock.begin(now);
        let token = self.token(call).await?;
        let signing = Signing { now: SystemTime::now(), token: token.as_deref() };
        let outbound = encode(&signing).map_err(Failure::hopeless)?;
        call.attempts += 1;
        count(&self.counters.attempts);
        if call.failed > 0 {
            count(&self.counters.retries);
        }
        let prompt_bytes = beyond + outbound.body.len() as u64;
        let reservation = match &call.context.accounting {
            None => None,
            Some(accounting) => {
                let attempt = Attempt {
                    request: call.context.id.clone(),
                    principal: call.context.principal.clone(),
                    deployment: Arc::clone(&self.deployment),
                    vendor: self.vendor,
                    model: Arc::clone(&self.model),
                    task: call.task,
                    number: call.attempts,
                    prompt_tokens: prompt_bytes,
                    completion_tokens,
                };
                match timeout_at(call.clock.end(), accounting.begin(attempt)).await {
                    Ok(begun) => Some(begun.map_err(Failure::hopeless)?),
                    Err(_) => return Err(Failure::late(call.clock.error(Phase::Total, self.vendor), false)),
                }
            }
        };
        let ticket = Ticket { reservation, number: call.attempts, begun: now, first: None };
        Ok(Ready { outbound, ticket, prompt_bytes, token })
    }

    /// Sends a message; an answer outside 2xx is an error.
    async fn exchange(
        &self,
        call: &Call,
        outbound: Outbound,
        ticket: Ticket,
        token: Option<&Arc<Secret>>,
    ) -> Result<(Head, Body, Ticket), Failure> {
        let (failure, status) = match self.http.send(outbound, &call.clock).await {
            Ok((head, body)) if (200..300).contains(&head.status) => return Ok((head, body, ticket)),
            Ok((head, body)) => (self.said_no(&head, body, &call.clock).await, Some(head.status)),
            Err(failure) => (failure, None),
        };
        let failure = self.give_up(failure, ticket, status);
        Err(self.renew(failure, token))
    }

    /// Reads why the vendor refused.
    async fn said_no(&self, head: &Head, body: Body, clock: &Clock) -> Failure {
        // A body that breaks or never ends does not change what the status says.
        let body = body.whole(MAX_REFUSAL, clock, self.vendor).await.unwrap_or_default();
        let mut error = self.dialect.error(head.status, &head.headers, &body);
        if error.retry_after().is_none()
            && let Some(after) = retry_after(&head.headers, SystemTime::now())
        {
            error = error.with_retry_after(after);
        }
        if error.vendor_request_id().is_none()
            && let Some(id) = head.request_id()
        {
            error = error.with_vendor_request_id(id);
        }
        Failure::said(error, head.status)
    }

    /// Settles an attempt that failed before its answer began.
    fn give_up(&self, mut failure: Failure, ticket: Ticket, status: Option<u16>) -> Failure {
        failure.error = self.redacted(&failure.error);
        let kind = failure.error.kind();
        let ending = if failure.billed { Ending::Failed(kind) } else { Ending::Refused(kind) };
        let id = failure.error.vendor_request_id().map(str::to_owned);
        self.settle(ticket, ending, None, id, status);
        failure
    }

    /// Ends an attempt: in the ledger, in the log and in the metrics.
    pub(crate) fn settle(
        &self,
        ticket: Ticket,
        ending: Ending,
        usage: Option<Usage>,
        vendor_request_id: Option<String>,
        status: Option<u16>,
    ) {
        let (vendor, deployment, attempt) = (self.vendor, &*self.deployment, ticket.number);
        let id = vendor_request_id.as_deref();
        match &ending {
            Ending::Refused(kind) | Ending::Failed(kind) => {
                self.counters.failed(*kind);
                let (kind, ms) = (kind.code(), ticket.begun.elapsed().as_millis() as u64);
                tracing::warn!(
                    vendor,
                    deployment,
                    attempt,
                    status,
                    kind,
                    ms,
                    vendor_request_id = id,
                    "attempt failed"
                );
            }
            _ => {
                let ms = ticket.begun.elapsed().as_millis() as u64;
                tracing::debug!(
                    vendor,
                    deployment,
                    attempt,
                    status,
                    ms,
                    vendor_request_id = id,
                    "attempt over"
                );
            }
        }
        if let Some(reservation) = ticket.reservation {
            reservation.settle(Settlement { ending, usage, vendor_request_id, first_event: ticket.first });
        }
    }

    /// An error without credentials, those included that the vendor handed out itself.
    pub(crate) fn redacted(&self, error: &Error) -> Error {
        let clean = self.redactor.error(error);
        match self.tokens.current() {
            Some(token) => Redactor::new([&*token]).error(&clean),
            None => clean,
        }
    }

    async fn token(&self, call: &Call) -> Result<Option<Arc<Secret>>, Failure> {
        if let Some(token) = self.tokens.current() {
            return Ok(Some(token));
        }
        let Some(request) = self.dialect.token() else { return Ok(None) };
        let fetch = || async {
            let read = request.read;
            let (head, body) = self.http.send(request.outbound, &call.clock).await?;
            if !(200..300).contains(&head.status) {
                return Err(self.said_no(&head, body, &call.clock).await);
            }
            let bytes = body.whole(MAX_REFUSAL, &call.clock, self.vendor).await?;
            read(&bytes).map_err(|error| Failure::said(error, head.status))
        };
        let waited = timeout_at(call.clock.end(), self.tokens.get(fetch)).await;
        match waited {
            Ok(Ok(token)) => Ok(Some(token)),
            // Whatever went wrong, nothing that is billed was asked for.
            Ok(Err(failure)) => {
                Err(Failure { billed: false, error: self.redacted(&failure.error), ..failure })
            }
            Err(_) => Err(Failure::late(call.clock.error(Phase::Total, self.vendor), false)),
        }
    }

    /// Forgets a token that the vendor calls wrong; another attempt fetches a new one.
    fn renew(&self, failure: Failure, token: Option<&Arc<Secret>>) -> Failure {
        let wrong = failure.error.kind() == ErrorKind::Unauthenticated;
        match token {
            Some(token) if wrong => {
                self.tokens.forget(token);
                Failure { retry: true, ..failure }
            }
            _ => failure,
        }
    }

    /// Waits before the next attempt, or gives the error if there is to be none.
    async fn again(&self, call: &mut Call, failure: Failure) -> Result<()> {
        let Failure { error, retry, .. } = failure;
        call.failed += 1;
        if !retry || call.failed > self.max_retries {
            return Err(error);
        }
        let wait = if error.kind() == ErrorKind::Unauthenticated {
            // Once; a vendor that calls a new token wrong, too, means it.
            if std::mem::replace(&mut call.renewed, true) {
                return Err(error);
            }
            Duration::ZERO
        } else {
            match wait_before(call.failed, error.retry_after(), &self.jitter) {
                Some(wait) => wait,
                None => return Err(error),
            }
        };
        if Instant::now() + wait >= call.clock.end() {
            return Err(error);
        }
        sleep(wait).await;
        Ok(())
    }
}

/// Tells the circuit breaker how an attempt went. A refusal is the work of a vendor that works.
fn judge<T>(permit: Permit, result: &Result<T, Failure>) {
    match result.as_ref().map_or_else(|failure| failure.works, |_| Some(true)) {
        Some(true) => permit.well(),
        Some(false) => permit.ill(),
        None => {}
    }
}
