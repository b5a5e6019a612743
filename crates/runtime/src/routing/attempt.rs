//! Asking targets until one begins to answer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use byzerllm_core::{
    ChatRequest, Error, ErrorKind, Event, EventStream, FinishReason, RequestContext, Result, Takeover,
};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};

use super::policy::{Failures, another_may_do_better, combined};
use super::tally::{Attempt, Tally};
use super::{Route, Standing};
use crate::metrics::count;

/// A target that answers: its stream, and the events up to the first piece of the answer.
pub(super) struct Begun {
    pub(super) target: usize,
    pub(super) stream: EventStream,
    pub(super) events: VecDeque<Event>,
    pub(super) attempt: Attempt,
    /// Whether it was faster than the one before it, which has not failed.
    pub(super) hedge: bool,
}

/// What a search for a target needs.
pub(super) struct Search<'a> {
    pub(super) route: &'a Arc<Route>,
    pub(super) context: &'a RequestContext,
    pub(super) takeover: Takeover,
    pub(super) tally: &'a Arc<Tally>,
}

impl Search<'_> {
    /// Asks the targets one after another, and with hedging two at a time, until one sends the first piece of its
    /// answer; the others are cancelled. `request` writes the request for a target, or refuses the target; `asked` gets
    /// those that were asked.
    ///
    /// # Errors
    /// The failure that another target could not mend, or the sum of all failures.
    pub(super) async fn begin(
        &self,
        targets: Vec<usize>,
        asked: &mut Vec<usize>,
        mut request: impl FnMut(usize) -> Result<ChatRequest>,
    ) -> Result<Begun> {
        let route = self.route;
        let mut waiting = targets.into_iter();
        let mut running: FuturesUnordered<BoxFuture<'static, (usize, Result<Begun>)>> =
            FuturesUnordered::new();
        let mut failures: Failures<'_> = Vec::new();
        let patience = route.spec.hedge_after_ms.filter(|_| self.takeover >= Takeover::BeforeFirst);
        let hedge = patience.map(|ms| tokio::time::sleep(Duration::from_millis(ms)));
        let mut hedge = std::pin::pin!(futures::future::OptionFuture::from(hedge));
        let mut hedged = patience.is_none();
        let mut hedge_target = None;
        loop {
            if running.is_empty() {
                let Some(target) = waiting.next() else { return Err(combined(&route.name, failures)) };
                asked.push(target);
                match request(target) {
                    Ok(request) => running.push(self.ask(target, request)),
                    Err(error) => failures.push((route.target(target), error)),
                }
                continue;
            }
            tokio::select! {
                biased;
                Some((target, outcome)) = running.next() => match outcome {
                    Ok(begun) => {
                        route.chooser.answered(target);
                        let hedge = hedge_target == Some(target) && failures.is_empty();
                        return Ok(Begun { hedge, ..begun });
                    }
                    Err(error) => {
                        route.chooser.failed(target, &error);
                        let name = route.target(target);
                        tracing::debug!(route = %route.name, target = name, %error, "a target failed");
                        let over = self.takeover < Takeover::BeforeFirst
                            || !another_may_do_better(error.kind())
                            || self.is_late();
                        if over {
                            return Err(error);
                        }
                        failures.push((name, error));
                    }
                },
                _ = &mut hedge, if !hedged => {
                    hedged = true;
                    // One that would only wait is no help.
                    if let Some(target) = waiting.as_slice().first().copied()
                        && route.standing(target) == Standing::Free
                        && let Ok(request) = request(target)
                    {
                        waiting.next();
                        count(&route.counters.hedges);
                        hedge_target = Some(target);
                        asked.push(target);
                        running.push(self.ask(target, request));
                    }
                }
            }
        }
    }

    /// Whether the caller's deadline has passed, so that nobody needs to be asked any more.
    pub(super) fn is_late(&self) -> bool {
        self.context.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn ask(&self, target: usize, request: ChatRequest) -> BoxFuture<'static, (usize, Result<Begun>)> {
        let attempt = self.tally.attempt();
        let context = RequestContext {
            on_usage: Some(attempt.hook()),
            hops: self.context.hops + 1,
            takeover: self.takeover,
            ..self.context.clone()
        };
        let route = Arc::clone(self.route);
        async move {
            let outcome = first_piece(&route, target, request, context, attempt.clone()).await;
            if let Err(error) = &outcome
                && let Some(usage) = error.usage()
            {
                attempt.spent(usage);
            }
            (target, outcome)
        }
        .boxed()
    }
}

/// Waits for the first piece of a target's answer.
async fn first_piece(
    route: &Route,
    target: usize,
    request: ChatRequest,
    context: RequestContext,
    attempt: Attempt,
) -> Result<Begun> {
    let alone = request.n == 1;
    let mut stream = route.targets.chat(route.target(target), request, context).await?;
    let mut events = VecDeque::new();
    loop {
        let event = match stream.next().await {
            Some(event) => event?,
            None => return Err(ended_early()),
        };
        if let Event::Finished { reason: FinishReason::Error(detail), .. } = &event
            && alone
        {
            return Err(Error::new(detail.kind, detail.message.clone()));
        }
        let first =
            !matches!(event, Event::Started { .. } | Event::PromptLogprobs { .. } | Event::Notice { .. });
        events.push_back(event);
        if first {
            return Ok(Begun { target, stream, events, attempt, hedge: false });
        }
    }
}

pub(super) fn ended_early() -> Error {
    Error::new(ErrorKind::Upstream, "the answer ended before it was complete; send the request again")
}
