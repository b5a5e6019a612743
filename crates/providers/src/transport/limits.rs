//! Time limits: each is named in the error that says that it passed.

use std::time::Duration;

use byzerllm_core::{Error, ErrorKind};
use tokio::time::Instant;

use crate::Parameters;

/// The limits of a deployment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) connect: Duration,
    pub(crate) first_byte: Duration,
    pub(crate) idle: Duration,
    pub(crate) total: Duration,
}

impl Limits {
    pub(crate) fn new(parameters: &Parameters) -> Self {
        // The table of parameters gives each a default.
        let limit = |name| parameters.seconds(name).unwrap_or(Duration::from_secs(60));
        Self {
            connect: limit("connect_timeout"),
            first_byte: limit("first_byte_timeout"),
            idle: limit("idle_timeout"),
            total: limit("timeout"),
        }
    }

    /// Starts the clock of a request that the caller wants answered by `deadline`.
    pub(crate) fn start(&self, now: Instant, deadline: Option<std::time::Instant>) -> Clock {
        let own = now + self.total;
        let (end, callers) = match deadline.map(Instant::from_std) {
            Some(deadline) if deadline < own => (deadline, true),
            _ => (own, false),
        };
        Clock { limits: *self, end, callers, attempt: now }
    }
}

/// The clock of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    limits: Limits,
    end: Instant,
    callers: bool,
    attempt: Instant,
}

/// Which limit passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Connect,
    FirstByte,
    Idle,
    /// The whole request, by the deployment's limit or the caller's.
    Total,
}

impl Clock {
    /// Begins an attempt.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.attempt = now;
    }

    /// When all must be over.
    pub(crate) fn end(&self) -> Instant {
        self.end
    }

    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    /// When a connection must stand that is begun now.
    pub(crate) fn connect(&self) -> (Instant, Phase) {
        self.earlier(Instant::now() + self.limits.connect, Phase::Connect)
    }

    /// When the first piece of the answer must be there.
    pub(crate) fn first_byte(&self) -> (Instant, Phase) {
        self.earlier(self.attempt + self.limits.first_byte, Phase::FirstByte)
    }

    /// When the next piece must be there.
    pub(crate) fn idle(&self, since: Instant) -> (Instant, Phase) {
        self.earlier(since + self.limits.idle, Phase::Idle)
    }

    fn earlier(&self, at: Instant, phase: Phase) -> (Instant, Phase) {
        if self.end <= at { (self.end, Phase::Total) } else { (at, phase) }
    }

    /// Says that a limit passed.
    pub(crate) fn error(&self, phase: Phase, vendor: &str) -> Error {
        let (name, limit, what) = match phase {
            Phase::Total if self.callers => {
                let message = "the deadline of the request passed; ask for less, or allow more time";
                return Error::new(ErrorKind::DeadlineExceeded, message);
            }
            Phase::Connect => ("connect_timeout", self.limits.connect, "no connection stood"),
            Phase::FirstByte => ("first_byte_timeout", self.limits.first_byte, "no piece of the answer came"),
            Phase::Idle => ("idle_timeout", self.limits.idle, "the answer stood still"),
            Phase::Total => ("timeout", self.limits.total, "the answer was not complete"),
        };
        let seconds = limit.as_secs_f64();
        let message = format!("saas/{vendor}: {what} within {seconds} s; saas.{name} allows more");
        Error::new(ErrorKind::DeadlineExceeded, message).with_param(format!("saas.{name}"))
    }
}
