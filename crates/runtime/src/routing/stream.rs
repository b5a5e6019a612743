//! An answer that may change hands.

use std::collections::VecDeque;
use std::sync::Arc;

use byzerllm_core::{
    ChatRequest, Error, Event, EventStream, FinishReason, Notice, RequestContext, Result, Takeover, Usage,
};
use futures::StreamExt;

use super::Route;
use super::attempt::{Begun, Search, ended_early};
use super::policy::another_may_do_better;
use super::resume::Said;
use super::tally::{Attempt, Closing};
use crate::metrics::count;

/// The answer to a routed request. Fields drop in this order: what was consumed is known before it is told.
pub(super) struct Answer {
    current: Option<EventStream>,
    route: Arc<Route>,
    request: ChatRequest,
    context: RequestContext,
    takeover: Takeover,
    /// Targets that were asked.
    asked: Vec<usize>,
    /// The one that answers.
    target: usize,
    /// What is to be sent before anything else.
    queue: VecDeque<Event>,
    said: Said,
    finished: u32,
    attempt: Attempt,
    /// Generated tokens of the targets that this one goes on from.
    used: u32,
    over: bool,
    closing: Closing,
}

impl Answer {
    /// The answer that the last of the targets that were asked, or with hedging the one before it, begins.
    pub(super) fn new(
        route: Arc<Route>,
        request: ChatRequest,
        context: RequestContext,
        takeover: Takeover,
        asked: Vec<usize>,
        begun: Begun,
        mut closing: Closing,
    ) -> Self {
        closing.begun = true;
        let mut answer = Self {
            current: None,
            said: Said::new(&request, takeover),
            route,
            request,
            context,
            takeover,
            asked,
            target: begun.target,
            queue: VecDeque::new(),
            finished: 0,
            attempt: begun.attempt.clone(),
            used: 0,
            over: false,
            closing,
        };
        let expected = answer.asked.first().copied();
        let counters = &answer.route.counters;
        if expected != Some(begun.target) {
            count(if begun.hedge { &counters.hedges_won } else { &counters.fallbacks });
        }
        let notice = (expected != Some(begun.target)).then(|| answer.failed_over(begun.target));
        answer.take(begun, |events, queue| {
            queue.extend(events.pop_front());
            queue.extend(notice);
        });
        answer
    }

    /// The events of the answer.
    pub(super) fn into_stream(self) -> EventStream {
        futures::stream::unfold(self, |mut answer| async move {
            let item = answer.next().await?;
            Some((item, answer))
        })
        .boxed()
    }

    fn failed_over(&self, target: usize) -> Event {
        Event::Notice { notice: Notice::FailedOver { to: self.route.target(target).to_owned() } }
    }

    /// Goes on with another target's answer; `head` says what comes before its pieces.
    fn take(&mut self, mut begun: Begun, head: impl FnOnce(&mut VecDeque<Event>, &mut VecDeque<Event>)) {
        self.target = begun.target;
        head(&mut begun.events, &mut self.queue);
        for event in begun.events {
            if let Some(event) = self.pass(event) {
                self.queue.push_back(event);
            }
        }
        self.current = Some(begun.stream);
        self.attempt = begun.attempt;
    }

    /// Notes what is said; what has been said before is left out.
    fn pass(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::Finished { .. } => self.finished += 1,
            Event::Notice { notice: Notice::Restarted } => self.finished = 0,
            _ => {}
        }
        self.said.hear(event)
    }

    async fn next(&mut self) -> Option<Result<Event>> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(Ok(event));
            }
            if self.over {
                return None;
            }
            let item = match &mut self.current {
                Some(stream) => stream.next().await,
                None => None,
            };
            let error = match item {
                Some(Ok(Event::Usage { usage })) => return Some(Ok(self.end(Some(usage)))),
                Some(Ok(Event::Finished { reason: FinishReason::Error(detail), .. }))
                    if self.request.n == 1 =>
                {
                    Error::new(detail.kind, detail.message)
                }
                Some(Ok(event)) => match self.pass(event) {
                    Some(event) => return Some(Ok(event)),
                    None => continue,
                },
                Some(Err(error)) => error,
                None => ended_early(),
            };
            if let Some(error) = self.failed(error).await {
                return Some(Err(error));
            }
        }
    }

    /// The last event.
    fn end(&mut self, usage: Option<Usage>) -> Event {
        // Dropping tells the usage too; what the event said is exact.
        self.current = None;
        if let Some(usage) = usage {
            self.attempt.spent(&usage);
        }
        self.over = true;
        Event::Usage { usage: self.closing.tally.close() }
    }

    /// Lets another target take over, or gives the error that ends the answer.
    async fn failed(&mut self, error: Error) -> Option<Error> {
        self.current = None;
        if let Some(usage) = error.usage() {
            self.attempt.spent(usage);
        }
        self.route.chooser.failed(self.target, &error);
        let used = self.attempt.usage().map_or(0, |usage| usage.completion_tokens);
        self.used = self.used.saturating_add(used);
        let complete = self.finished >= self.request.n;
        let begun =
            if complete || !another_may_do_better(error.kind()) { None } else { self.take_over().await };
        if begun.is_some() {
            tracing::debug!(route = %self.route.name, %error, "another target takes over in the middle of an answer");
            return None;
        }
        self.over = true;
        Some(error.with_usage(self.closing.tally.close()))
    }

    /// Finds a target that goes on, or begins again, as far as that is allowed.
    async fn take_over(&mut self) -> Option<()> {
        let route = Arc::clone(&self.route);
        let resumed = match self.takeover {
            Takeover::Never | Takeover::BeforeFirst => return None,
            Takeover::Continue => Some(self.said.resumable()?),
            Takeover::Restart => None,
        };
        let used = self.used;
        if resumed.as_ref().is_some_and(|resumed| resumed.is_at_limit(used)) {
            self.queue.push_back(Event::Finished { choice: 0, reason: FinishReason::Length, stop: None });
            let last = self.end(None);
            self.queue.push_back(last);
            return Some(());
        }
        let tally = Arc::clone(&self.closing.tally);
        let context = self.context.clone();
        let search = Search { route: &route, context: &context, takeover: self.takeover, tally: &tally };
        if search.is_late() {
            return None;
        }
        let order: Vec<usize> =
            route.order().into_iter().filter(|target| !self.asked.contains(target)).collect();
        // Of the targets that were asked to go on: those that were not shown the white space at the end.
        let mut shortened = Vec::new();
        let begun = search
            .begin(order, &mut self.asked, |target| match &resumed {
                None => Ok(self.request.clone()),
                Some(resumed) => {
                    let (request, is_short) = resumed.request(&*route.targets, route.target(target), used)?;
                    shortened.extend(is_short.then_some(target));
                    Ok(request)
                }
            })
            .await;
        let begun = match begun {
            Ok(begun) => begun,
            Err(error) => {
                tracing::debug!(route = %route.name, %error, "no target could take over in the middle of an answer");
                return None;
            }
        };
        count(if resumed.is_some() { &route.counters.continued } else { &route.counters.restarted });
        let restarted = resumed.is_none().then_some(Event::Notice { notice: Notice::Restarted });
        match &resumed {
            None => {
                self.said = Said::new(&self.request, self.takeover);
                (self.finished, self.used) = (0, 0);
            }
            Some(resumed) if shortened.contains(&begun.target) => {
                self.said.expect_again(resumed.white_space());
            }
            Some(_) => {}
        }
        let taken = self.failed_over(begun.target);
        self.take(begun, |events, queue| {
            queue.extend(restarted);
            queue.push_back(taken);
            // Of these the caller has its own.
            events.retain(|event| !matches!(event, Event::Started { .. } | Event::PromptLogprobs { .. }));
        });
        Some(())
    }
}
