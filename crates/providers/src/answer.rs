//! One answer in progress: reads the body, keeps the time, settles the reservation, and is the stream of events.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use byzerllm_client::sse::Parser;
use byzerllm_core::{Ending, Error, ErrorKind, Event, FinishReason, RequestId, Result, Usage, UsageHook};
use futures::Stream;
use http::header::CONTENT_TYPE;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::assembly::Assembly;
use crate::deployment::{Shared, Ticket};
use crate::metrics::count;
use crate::transport::{Body, Clock, Failure, Head, MAX_BODY, MAX_EVENT, Phase, Piece, passed, too_large};
use crate::{Decode, Delta, Frame, Framing};

/// A vendor that has finished every choice is waited for so long, for its usage and its mark of the end.
const GRACE: Duration = Duration::from_secs(5);

/// An answer in one piece: its id, its text, its end, its usage, and the end of the whole.
const USUAL: usize = 5;

/// How the bytes are read.
enum Reading {
    /// Events were asked for, and something else may come: the first character tells.
    Unknown,
    Events(Parser),
    Whole(BytesMut),
}

/// One answer.
pub(crate) struct Answer {
    shared: Arc<Shared>,
    head: Head,
    /// `None` once the vendor has marked the end.
    body: Option<Body>,
    reading: Reading,
    decoder: Box<dyn Decode>,
    deltas: Vec<Delta>,
    assembly: Assembly,
    clock: Clock,
    timer: Option<Pin<Box<Sleep>>>,
    /// Since when nothing has come, if someone waits.
    waiting: Option<Instant>,
    heard: bool,
    ticket: Option<Ticket>,
    prompt_bytes: u64,
    /// The vendor's id of the request without credentials, once somebody asked for it.
    request_id: Option<String>,
    hook: Option<UsageHook>,
    failure: Option<Failure>,
    over: bool,
}

/// What an answer is made of.
pub(crate) struct Parts {
    pub(crate) head: Head,
    pub(crate) body: Body,
    pub(crate) framing: Framing,
    pub(crate) decoder: Box<dyn Decode>,
    pub(crate) choices: u32,
    pub(crate) clock: Clock,
    pub(crate) ticket: Ticket,
    pub(crate) prompt_bytes: u64,
}

impl Answer {
    pub(crate) fn new(shared: Arc<Shared>, parts: Parts) -> Self {
        let Parts { head, body, framing, decoder, choices, clock, ticket, prompt_bytes } = parts;
        let kind = head.headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        let reading = match framing {
            Framing::Sse if kind.starts_with(b"text/event-stream") => Reading::Events(Parser::new(MAX_EVENT)),
            Framing::Sse => Reading::Unknown,
            Framing::Whole | Framing::WebSocket => Reading::Whole(BytesMut::new()),
        };
        let mut assembly = Assembly::new(shared.vendor, choices);
        assembly.request_id = head.request_id().map(str::to_owned);
        Self {
            shared,
            head,
            body: Some(body),
            reading,
            decoder,
            deltas: Vec::with_capacity(USUAL),
            assembly,
            clock,
            timer: None,
            waiting: None,
            heard: false,
            ticket: Some(ticket),
            prompt_bytes,
            request_id: None,
            hook: None,
            failure: None,
            over: false,
        }
    }

    /// Waits for the first piece of the answer. Until then nothing is lost by another attempt.
    pub(crate) async fn prime(&mut self) -> Result<(), Failure> {
        std::future::poll_fn(|cx| {
            while self.assembly.ready.is_empty() && !self.over {
                ready!(self.poll_read(cx));
            }
            Poll::Ready(())
        })
        .await;
        if self.assembly.ready.is_empty()
            && let Some(failure) = self.failure.take()
        {
            return Err(failure);
        }
        if let Some(ticket) = &mut self.ticket {
            ticket.first_event();
        }
        Ok(())
    }

    /// Hands the answer to the caller.
    pub(crate) fn start(&mut self, request_id: RequestId, hook: Option<UsageHook>) {
        let vendor_request_id = self.request_id();
        self.assembly.ready.push_front(Event::Started { request_id, vendor_request_id });
        self.hook = hook;
        if self.over {
            self.tell();
        }
    }

    /// Reads on. Ready when something happened.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let next = match &mut self.body {
            Some(body) => body.poll_piece(cx),
            None => Poll::Ready(None),
        };
        match next {
            Poll::Pending => ready!(self.poll_timer(cx)),
            Poll::Ready(next) => {
                self.waiting = None;
                match next {
                    Some(Ok(piece)) => {
                        self.heard = true;
                        self.read(piece);
                    }
                    // What matters is there.
                    Some(Err(_)) if self.assembly.is_finished() => self.complete(),
                    Some(Err(failure)) => self.fail(failure),
                    None => self.end_of_body(),
                }
            }
        }
        if self.assembly.is_ended() && !self.over {
            if let Some(body) = self.body.take() {
                body.finish(cx);
            }
            self.end();
        }
        Poll::Ready(())
    }

    fn read(&mut self, piece: Piece) {
        let result = match piece {
            Piece::Message(text) => self.frame("", &text),
            Piece::Bytes(bytes) => {
                if matches!(self.reading, Reading::Unknown) {
                    let Some(first) = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) else { return };
                    self.reading = match first {
                        b'{' | b'[' | b'<' => Reading::Whole(BytesMut::new()),
                        _ => Reading::Events(Parser::new(MAX_EVENT)),
                    };
                }
                match &mut self.reading {
                    Reading::Whole(whole) if whole.len() + bytes.len() > MAX_BODY => {
                        let failure = too_large(MAX_BODY, self.shared.vendor);
                        return self.fail(failure);
                    }
                    Reading::Whole(whole) => {
                        whole.extend_from_slice(&bytes);
                        Ok(())
                    }
                    Reading::Events(parser) => {
                        let (decoder, deltas, assembly) =
                            (&mut *self.decoder, &mut self.deltas, &mut self.assembly);
                        parser.push(&bytes, &mut |frame| {
                            let frame = Frame { event: frame.event, id: frame.id, data: frame.data };
                            decode(frame, decoder, deltas, assembly)
                        })
                    }
                    Reading::Unknown => Ok(()),
                }
            }
        };
        if let Err(error) = result {
            self.fail(Failure::said(error, 200));
        }
    }

    fn frame(&mut self, event: &str, data: &str) -> Result<()> {
        decode(Frame { event, id: "", data }, &mut *self.decoder, &mut self.deltas, &mut self.assembly)
    }

    fn end_of_body(&mut self) {
        match std::mem::replace(&mut self.reading, Reading::Unknown) {
            Reading::Events(mut parser) => {
                let (decoder, deltas, assembly) = (&mut *self.decoder, &mut self.deltas, &mut self.assembly);
                let last = parser.finish(&mut |frame| {
                    let frame = Frame { event: frame.event, id: frame.id, data: frame.data };
                    decode(frame, decoder, deltas, assembly)
                });
                // An event that was cut in its middle is what `end` reports; a vendor's error is not.
                if let Err(error) = last
                    && error.kind() != ErrorKind::Upstream
                {
                    return self.fail(Failure::said(error, 200));
                }
            }
            Reading::Whole(whole) if matches!(self.body, Some(Body::Http(_))) => {
                let read = match std::str::from_utf8(&whole) {
                    Ok(text) if text.trim().is_empty() => Ok(()),
                    Ok(text) => self.frame("", text),
                    Err(_) => Err(self.odd("an answer that is not UTF-8")),
                };
                if let Err(error) = read {
                    return self.fail(Failure::said(error, self.head.status));
                }
                if self.assembly.is_empty() {
                    let Head { status, headers } = &self.head;
                    let error = self.shared.dialect.error(*status, headers, &whole);
                    return self.fail(Failure::said(error, self.head.status));
                }
            }
            Reading::Whole(_) | Reading::Unknown => {}
        }
        self.end();
    }

    /// The vendor has said all.
    fn end(&mut self) {
        if self.over {
            return;
        }
        if self.assembly.is_finished() {
            return self.complete();
        }
        let vendor = self.shared.vendor;
        let message = format!("saas/{vendor} ended the answer before it was complete; ask again");
        self.fail(Failure::broken(Error::new(ErrorKind::Upstream, message)));
    }

    /// Ready when a limit passed.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.waiting.get_or_insert_with(Instant::now);
        let finished = self.assembly.is_finished();
        let (until, phase) = if finished {
            ((since + GRACE).min(self.clock.end()), Phase::Idle)
        } else if self.heard {
            self.clock.idle(since)
        } else {
            self.clock.first_byte()
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        loop {
            // A timer that is set too early costs one look at the clock; to set it for every piece would cost more.
            if timer.deadline() > until {
                timer.as_mut().reset(until);
            }
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= until {
                break;
            }
            timer.as_mut().reset(until);
        }
        if finished {
            self.complete();
        } else {
            self.fail(passed(&self.clock, phase, self.shared.vendor));
        }
        Poll::Ready(())
    }

    fn complete(&mut self) {
        self.over = true;
        let usage = self.usage();
        self.assembly.ready.push_back(Event::Usage { usage });
        self.settle(Ending::Answered);
        self.tell();
    }

    fn fail(&mut self, mut failure: Failure) {
        if self.over {
            return;
        }
        self.over = true;
        failure.error = self.shared.redacted(&failure.error).with_usage(self.usage());
        if let (None, Some(id)) = (failure.error.vendor_request_id(), self.request_id()) {
            failure.error = failure.error.with_vendor_request_id(id);
        }
        let kind = failure.error.kind();
        let refused = !failure.billed && self.assembly.is_empty();
        failure.billed = !refused;
        self.settle(if refused { Ending::Refused(kind) } else { Ending::Failed(kind) });
        self.failure = Some(failure);
        self.tell();
    }

    fn settle(&mut self, ending: Ending) {
        let Some(mut ticket) = self.ticket.take() else { return };
        if !self.assembly.ready.is_empty() {
            // An answer in one piece.
            ticket.first_event();
        }
        // What was reported before the end is less than what will be billed.
        let reported = self.assembly.reported().filter(|_| self.assembly.is_finished()).cloned();
        if ending == Ending::Answered && reported.is_none() {
            count(&self.shared.counters.unreported);
        }
        let id = self.request_id();
        self.shared.settle(ticket, ending, reported, id, Some(self.head.status));
    }

    fn request_id(&mut self) -> Option<String> {
        if self.request_id.is_none() {
            self.request_id = self.assembly.request_id.as_deref().map(|id| self.shared.redactor.id(id));
        }
        self.request_id.clone()
    }

    fn usage(&self) -> Usage {
        self.assembly.usage(self.prompt_bytes)
    }

    /// Tells the usage, once.
    fn tell(&mut self) {
        if let Some(hook) = self.hook.take() {
            hook(&self.usage());
        }
    }

    fn odd(&self, what: &str) -> Error {
        Error::new(
            ErrorKind::Upstream,
            format!("saas/{} sent {what}; check saas.base_url", self.shared.vendor),
        )
    }
}

/// Reads a frame into the answer.
pub(crate) fn decode(
    frame: Frame<'_>,
    decoder: &mut dyn Decode,
    deltas: &mut Vec<Delta>,
    assembly: &mut Assembly,
) -> Result<()> {
    // What follows the mark of the end is no part of the answer.
    if assembly.is_ended() {
        return Ok(());
    }
    let read = decoder.frame(frame, deltas);
    // What was said before an error still counts.
    assembly.take(deltas)?;
    read
}

impl Stream for Answer {
    type Item = Result<Event>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(mut event) = this.assembly.ready.pop_front() {
                if let Event::Finished { reason: FinishReason::Error(detail), .. } = &mut event {
                    detail.message = this.shared.redactor.message(&detail.message);
                }
                return Poll::Ready(Some(Ok(event)));
            }
            if let Some(failure) = this.failure.take() {
                return Poll::Ready(Some(Err(failure.error)));
            }
            if this.over {
                return Poll::Ready(None);
            }
            ready!(this.poll_read(cx));
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.over {
            count(&self.shared.counters.dropped);
            self.settle(Ending::Dropped);
            self.tell();
        }
    }
}
