//! What the simulator decides and remembers: answers, faults, the bill, and the paths of its own.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::bill::{Ending, Line, Task};
use crate::delivery::{Step, steps};
use crate::fault::{Fault, RetryAfter};
use crate::http::{Request, Whole};
use crate::model::{self, Script};
use crate::protocol::{Door, Frame, Job, Protocol, Reply};
use crate::refusal::Refusal;
use crate::simulator::Options;
use crate::tokens::Tokens;

/// The field with which a request asks for a fault of its own.
const FAULT_HEADER: &str = "x-simulator-fault";

/// The paths under which the simulator itself is spoken to.
pub(crate) const ADMIN: &str = "/simulator/";

/// What all connections share.
pub(crate) struct Desk {
    pub(crate) protocol: Box<dyn Protocol>,
    options: Options,
    /// The origin that a redirect names.
    other: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bill: Vec<Line>,
    requests: Vec<Request>,
    elsewhere: Vec<Request>,
    faults: VecDeque<Fault>,
    always: Option<Fault>,
    scripts: VecDeque<Script>,
    number: u64,
}

/// What is sent, and the line of the bill that it belongs to.
pub(crate) struct Sending {
    pub(crate) steps: Vec<Step>,
    pub(crate) line: Option<usize>,
    pub(crate) broken: bool,
}

impl Desk {
    pub(crate) fn new(protocol: Box<dyn Protocol>, options: Options, other: String) -> Self {
        let state = State { always: options.fault, ..State::default() };
        Self { protocol, options, other, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn bill(&self) -> Vec<Line> {
        self.state().bill.clone()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    pub(crate) fn came(&self, request: Request) {
        self.state().requests.push(request);
    }

    pub(crate) fn came_elsewhere(&self, request: Request) {
        self.state().elsewhere.push(request);
    }

    pub(crate) fn elsewhere(&self) -> Vec<Request> {
        self.state().elsewhere.clone()
    }

    pub(crate) fn queue_fault(&self, fault: Fault) {
        self.state().faults.push_back(fault);
    }

    pub(crate) fn set_always(&self, fault: Option<Fault>) {
        self.state().always = fault;
    }

    pub(crate) fn queue_script(&self, script: Script) {
        self.state().scripts.push_back(script);
    }

    pub(crate) fn clear(&self) {
        let mut state = self.state();
        *state = State { number: state.number, always: self.options.fault, ..State::default() };
    }

    pub(crate) fn door(&self, now: u64) -> Door<'_> {
        Door { now, credentials: &self.options.credentials }
    }

    pub(crate) fn next_id(&self) -> String {
        let mut state = self.state();
        state.number += 1;
        self.protocol.id(state.number)
    }

    /// The fault that a request meets, if any.
    pub(crate) fn next_fault(&self, request: &Request) -> Option<Fault> {
        let own = request.header(FAULT_HEADER).and_then(|text| text.parse().ok());
        own.or_else(|| {
            let mut state = self.state();
            state.faults.pop_front().or(state.always)
        })
    }

    /// Decides what is sent for a request to the vendor. `fault` is what it meets when that was decided before.
    pub(crate) fn answer(&self, request: &Request, decided: Option<Option<Fault>>) -> Sending {
        let id = self.next_id();
        let now = seconds();
        let job = match self.protocol.read(request, &self.door(now)).and_then(unfiltered) {
            Ok(Job::Free(whole)) => return Sending::whole(whole),
            Ok(job) => job,
            Err(refusal) => {
                let whole = self.protocol.refuse(&refusal, request, &id);
                return if self.protocol.socket() && request.upgrades() {
                    message(&whole)
                } else {
                    Sending::whole(whole)
                };
            }
        };
        let fault = decided.unwrap_or_else(|| self.next_fault(request));
        if let Some(whole) = fault.and_then(|fault| self.refused(fault, request, &id, now)) {
            return if self.protocol.socket() { message(&whole) } else { Sending::whole(whole) };
        }
        let shown = |tokens| match fault {
            Some(Fault::NoUsage) => None,
            Some(Fault::ZeroUsage) => Some(Tokens::default()),
            _ => Some(tokens),
        };
        let (model, task, tokens, reply, error) = match job {
            Job::Free(whole) => return Sending::whole(whole),
            Job::Chat(chat) => {
                let script = self.state().scripts.pop_front();
                let mut answer = model::answer(&chat, script.as_ref(), &id, now, self.protocol.reasons());
                answer.shown = shown(answer.tokens);
                let reply = self.protocol.answer(&chat, &answer);
                let error = self.protocol.stream_error(&chat, &id);
                (chat.model, Task::Chat, answer.tokens, reply, error)
            }
            Job::Embed(embed) => {
                let (vectors, tokens) = model::embed(&embed);
                let whole = self.protocol.embedded(&embed, &vectors, shown(tokens), &id);
                (embed.model, Task::Embedding, tokens, Reply::Whole(whole), Frame::new(&Value::Null, false))
            }
        };
        let reply = match (fault, reply) {
            // There is no stream to break: the vendor breaks after its work.
            (Some(Fault::StreamError), Reply::Whole(_)) => {
                Reply::Whole(self.protocol.refuse(&Refusal::Broken, request, &id))
            }
            (_, reply) => reply,
        };
        let broken = fault.is_some_and(|fault| !fault.is_harmless() && !matches!(fault, Fault::Oversized(_)));
        let ending = if broken { Ending::Broken } else { Ending::Open };
        let line = Line { request_id: id, model, task, tokens, ending };
        let line = {
            let mut state = self.state();
            state.bill.push(line);
            state.bill.len() - 1
        };
        let steps = steps(reply, fault, self.protocol.numbered(request), self.options.pace, error);
        Sending { steps, line: Some(line), broken }
    }

    /// The answer to a request that is refused on purpose.
    pub(crate) fn refused(&self, fault: Fault, request: &Request, id: &str, now: u64) -> Option<Whole> {
        let html = |status: u16, title: &str| Whole {
            status,
            headers: vec![("content-type".to_owned(), "text/html; charset=utf-8".to_owned())],
            body: format!("<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>")
                .into_bytes(),
        };
        let whole = match fault {
            Fault::Status(status, retry) => {
                let refusal = match status {
                    429 => Refusal::RateLimited,
                    503 | 529 => Refusal::Overloaded,
                    _ => Refusal::Broken,
                };
                let mut whole = match status {
                    // Not the vendor speaks here but the proxy before it.
                    502 => html(502, "502 Bad Gateway"),
                    _ => self.protocol.refuse(&refusal, request, id),
                };
                whole.status = status;
                match retry {
                    RetryAfter::Unsaid => whole,
                    RetryAfter::Seconds(seconds) => whole.with("retry-after", seconds.to_string()),
                    RetryAfter::Date(seconds) => {
                        let then = UNIX_EPOCH + Duration::from_secs(now + u64::from(seconds));
                        whole.with("retry-after", httpdate::fmt_http_date(then))
                    }
                }
            }
            Fault::ErrorWithStatus200 => {
                let mut whole = self.protocol.refuse(&Refusal::Overloaded, request, id);
                whole.status = 200;
                whole
            }
            Fault::WebPage => html(200, "Sign in"),
            Fault::Redirect => {
                let query: Vec<String> =
                    request.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let location = format!("{}{}?{}", self.other, request.path, query.join("&"));
                Whole { status: 307, headers: vec![("location".to_owned(), location)], body: Vec::new() }
            }
            _ => return None,
        };
        Some(whole)
    }

    pub(crate) fn end(&self, line: Option<usize>, ending: Ending) {
        let mut state = self.state();
        // The bill may have been cleared meanwhile.
        if let Some(line) = line.and_then(|line| state.bill.get_mut(line)) {
            line.ending = ending;
        }
    }

    /// Answers a request to the simulator itself.
    pub(crate) fn administer(&self, path: &str, request: &Request) -> Whole {
        let body = request.json();
        let times = body.get("times").and_then(Value::as_u64).unwrap_or(1).min(10_000);
        let done = Whole::json(200, &json!({ "ok": true }));
        match (request.method.as_str(), path) {
            ("GET", "bill") => Whole::json(200, &json!(self.bill())),
            ("GET", "requests") => Whole::json(200, &json!(self.requests())),
            ("GET", "elsewhere") => Whole::json(200, &json!(self.elsewhere())),
            ("POST", "fault") => match body["fault"].as_str().unwrap_or_default().parse::<Fault>() {
                Ok(fault) => {
                    (0..times).for_each(|_| self.queue_fault(fault));
                    done
                }
                Err(error) => Whole::json(400, &json!({ "error": error.message() })),
            },
            ("POST", "script") => match serde_json::from_value::<Script>(body) {
                Ok(script) => {
                    self.queue_script(script);
                    done
                }
                Err(error) => Whole::json(400, &json!({ "error": error.to_string() })),
            },
            ("DELETE", "bill" | "requests" | "fault" | "script") => {
                self.clear();
                done
            }
            _ => {
                let paths = "GET bill, requests, elsewhere; POST fault, script; DELETE bill";
                Whole::json(404, &json!({ "error": format!("under {ADMIN} there are: {paths}") }))
            }
        }
    }
}

impl Sending {
    /// A body that belongs to no line of the bill.
    pub(crate) fn whole(whole: Whole) -> Self {
        let none = Frame::new(&Value::Null, false);
        Self {
            steps: steps(Reply::Whole(whole), None, false, Duration::ZERO, none),
            line: None,
            broken: false,
        }
    }
}

/// Refuses what the vendor's filter does not let through.
fn unfiltered(job: Job) -> Result<Job, Refusal> {
    match job {
        Job::Chat(chat) if model::is_filtered(&chat) => Err(Refusal::Filtered),
        job => Ok(job),
    }
}

/// A refusal as the one message of a WebSocket.
fn message(whole: &Whole) -> Sending {
    let frame =
        Frame { head: String::new(), data: String::from_utf8_lossy(&whole.body).into_owned(), text: false };
    let reply = Reply::Messages(vec![frame.clone()]);
    Sending { steps: steps(reply, None, false, Duration::ZERO, frame), line: None, broken: false }
}

/// Seconds since 1970.
pub(crate) fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
