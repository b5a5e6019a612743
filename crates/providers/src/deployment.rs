//! One deployment at a vendor: its attempts, from the reservation to the settlement, and what follows when they fail.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use byzerllm_core::{
    Attempt, ChatRequest, Ending, Error, ErrorKind, RequestContext, Reservation, Result, Settlement, Task,
    Usage,
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::answer::{Answer, Parts};
use crate::metrics::{Counters, count};
use crate::redact::Redactor;
use crate::transport::{
    Body, Breaker, Clock, Failure, Head, Http, Jitter, Limits, Permit, Phase, Tokens, retry_after,
    wait_before,
};
use crate::{Dialect, Features, Outbound, Parameters, Secret, Signing, TokenRequest, Vendor};

/// The largest error body that is read, in bytes.
const MAX_REFUSAL: usize = 1 << 20;

/// What the requests of a deployment share.
pub(crate) struct Shared {
    pub(crate) vendor: &'static str,
    deployment: Arc<str>,
    pub(crate) model: Arc<str>,
    pub(crate) dialect: Arc<dyn Dialect>,
    pub(crate) features: Features,
    http: Http,
    limits: Limits,
    max_retries: u32,
    pub(crate) max_output_tokens: Option<u32>,
    pub(crate) redactor: Redactor,
    tokens: Tokens,
    pub(crate) breaker: Arc<Breaker>,
    jitter: Jitter,
    pub(crate) counters: Counters,
}

/// One request on its way: its clock, and what was tried.
pub(crate) struct Call {
    pub(crate) context: RequestContext,
    pub(crate) clock: Clock,
    task: Task,
    /// Attempts so far, for the ledger.
    attempts: u32,
    /// Attempts at the present message that failed.
    pub(crate) failed: u32,
    /// Whether a token was fetched anew because the vendor called the old one wrong.
    renewed: bool,
}

/// A message that is about to be sent, and what it may cost.
pub(crate) struct Ready {
    pub(crate) outbound: Outbound,
    pub(crate) ticket: Ticket,
    pub(crate) prompt_bytes: u64,
    pub(crate) token: Option<Arc<Secret>>,
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

impl Shared {
    pub(crate) fn open(vendor: &Vendor, deployment: &str, parameters: &Parameters) -> Result<Self> {
        let dialect = (vendor.open)(parameters)?;
        let http = Http::new(vendor.name, deployment, parameters)?;
        let redactor = Redactor::new(parameters.secrets().chain(http.secret()));
        Ok(Self {
            vendor: vendor.name,
            deployment: deployment.into(),
            model: dialect.model().into(),
            features: dialect.features(),
            dialect,
            http,
            limits: Limits::new(parameters),
            max_retries: number(parameters, "max_retries").unwrap_or_default(),
            max_output_tokens: number(parameters, "max_output_tokens").filter(|tokens| *tokens > 0),
            redactor,
            tokens: Tokens::default(),
            breaker: Arc::default(),
            jitter: Jitter::new(RandomState::new().hash_one(deployment)),
            counters: Counters::default(),
        })
    }

    pub(crate) fn call(&self, context: RequestContext, task: Task) -> Result<Call> {
        let now = Instant::now();
        let clock = self.limits.start(now, context.deadline);
        if clock.end() <= now {
            return Err(clock.error(Phase::Total, self.vendor));
        }
        count(&self.counters.requests);
        Ok(Call { context, clock, task, attempts: 0, failed: 0, renewed: false })
    }

    pub(crate) async fn try_chat(
        self: &Arc<Self>,
        call: &mut Call,
        request: &ChatRequest,
    ) -> Result<Box<Answer>, Failure> {
        let permit = self.enter()?;
        let bounds = (self.dialect.prompt_beyond(request), self.dialect.completion_bound(request));
        let encode = |signing: &Signing<'_>| self.dialect.chat(request, signing);
        let attempt = async {
            let Ready { outbound, ticket, prompt_bytes, token } = self.prepare(call, bounds, encode).await?;
            let framing = outbound.framing;
            let (head, body, ticket) = self.exchange(call, outbound, ticket, token.as_ref()).await?;
            let (decoder, choices, clock) = (self.dialect.decoder(request), request.n, call.clock);
            let parts = Parts { head, body, framing, decoder, choices, clock, ticket, prompt_bytes };
            // Boxed at once, as it is of a kilobyte and goes through several hands.
            let mut answer = Box::new(Answer::new(Arc::clone(self), parts));
            answer.prime().await.map_err(|failure| self.renew(failure, token.as_ref()))?;
            Ok(answer)
        };
        let result = attempt.await;
        judge(permit, &result);
        result
    }

    pub(crate) fn odd(&self, what: &str) -> Error {
        let vendor = self.vendor;
        Error::new(
            ErrorKind::Upstream,
            format!("saas/{vendor} sent {what}; the answer cannot be used, ask again"),
        )
    }

    pub(crate) fn enter(&self) -> Result<Permit, Failure> {
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
    pub(crate) async fn prepare(
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
    pub(crate) async fn exchange(
        &self,
        call: &Call,
        outbound: Outbound,
        ticket: Ticket,
        token: Option<&Arc<Secret>>,
    ) -> Result<(Head, Body, Ticket), Failure> {
        let (failure, status) = match self.http.send(outbound, &call.clock).await {
            Ok((head, body)) if (200..300).contains(&head.status) => return Ok((head, body, ticket)),
            Ok((head, body)) => (Box::pin(self.said_no(&head, body, &call.clock)).await, Some(head.status)),
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
    pub(crate) fn give_up(&self, mut failure: Failure, ticket: Ticket, status: Option<u16>) -> Failure {
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
                tracing::warn!(
                    vendor,
                    deployment,
                    attempt,
                    status,
                    kind = kind.code(),
                    ms = ticket.begun.elapsed().as_millis() as u64,
                    vendor_request_id = id,
                    "attempt failed"
                );
            }
            _ => {
                tracing::debug!(
                    vendor,
                    deployment,
                    attempt,
                    status,
                    ms = ticket.begun.elapsed().as_millis() as u64,
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
        Box::pin(self.fetch_token(call, request)).await
    }

    async fn fetch_token(&self, call: &Call, request: TokenRequest) -> Result<Option<Arc<Secret>>, Failure> {
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
    pub(crate) fn renew(&self, failure: Failure, token: Option<&Arc<Secret>>) -> Failure {
        let wrong = failure.error.kind() == ErrorKind::Unauthenticated;
        match token {
            Some(token) if wrong => {
                self.tokens.forget(token);
                Failure { retry: true, ..failure }
            }
            _ => failure,
        }
    }

    /// The error as the caller sees it: a token that the vendor calls wrong is the deployment's fault, not the caller's.
    fn callers(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::Unauthenticated {
            return error;
        }
        let said =
            format!("{}; check the credentials in the deployment's saas.* parameters", error.message());
        let denied = Error::new(ErrorKind::PermissionDenied, said);
        match error.vendor_request_id() {
            Some(id) => denied.with_vendor_request_id(id),
            None => denied,
        }
    }

    /// Waits before the next attempt, or gives the error if there is to be none.
    pub(crate) async fn again(&self, call: &mut Call, failure: Failure) -> Result<()> {
        let Failure { error, retry, .. } = failure;
        call.failed += 1;
        if !retry || call.failed > self.max_retries {
            return Err(self.callers(error));
        }
        let wait = if error.kind() == ErrorKind::Unauthenticated {
            // Once; a vendor that calls a new token wrong, too, means it.
            if std::mem::replace(&mut call.renewed, true) {
                return Err(self.callers(error));
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

/// A whole number that fits.
pub(crate) fn number(parameters: &Parameters, name: &str) -> Option<u32> {
    parameters.count(name).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
}

/// Tells the circuit breaker how an attempt went. A refusal is the work of a vendor that works.
pub(crate) fn judge<T>(permit: Permit, result: &Result<T, Failure>) {
    match result.as_ref().map_or_else(|failure| failure.works, |_| Some(true)) {
        Some(true) => permit.well(),
        Some(false) => permit.ill(),
        None => {}
    }
}
