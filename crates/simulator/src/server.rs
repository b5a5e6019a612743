//! Connections, and what the simulator remembers of them.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::bill::{Ending, Line, Task};
use crate::delivery::{Step, steps};
use crate::fault::{Fault, RetryAfter};
use crate::http::{Connection, Request, Whole};
use crate::model::{self, Script};
use crate::protocol::{Door, Frame, Job, Protocol, Reply};
use crate::refusal::Refusal;
use crate::simulator::Options;
use crate::tokens::Tokens;
use crate::websocket;

/// The field with which a request asks for a fault of its own.
const FAULT_HEADER: &str = "x-simulator-fault";

/// The paths under which the simulator itself is spoken to.
const ADMIN: &str = "/simulator/";

/// What all connections share.
pub(crate) struct Desk {
    protocol: Box<dyn Protocol>,
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
struct Sending {
    steps: Vec<Step>,
    line: Option<usize>,
    broken: bool,
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

    fn door(&self, now: u64) -> Door<'_> {
        Door { now, credentials: &self.options.credentials }
    }

    fn next_id(&self) -> String {
        let mut state = self.state();
        state.number += 1;
        self.protocol.id(state.number)
    }

    /// The fault that a request meets, if any.
    fn next_fault(&self, request: &Request) -> Option<Fault> {
        let own = request.header(FAULT_HEADER).and_then(|text| text.parse().ok());
        own.or_else(|| {
            let mut state = self.state();
            state.faults.pop_front().or(state.always)
        })
    }

    /// Decides what is sent for a request to the vendor. `fault` is what it meets when that was decided before.
    fn answer(&self, request: &Request, decided: Option<Option<Fault>>) -> Sending {
        let id = self.next_id();
        let now = seconds();
        let plain = |whole: Whole| Sending {
            steps: steps(Reply::Whole(whole), None, false, Duration::ZERO, Frame::new(&Value::Null, false)),
            line: None,
            broken: false,
        };
        let job = match self.protocol.read(request, &self.door(now)).and_then(unfiltered) {
            Ok(Job::Free(whole)) => return plain(whole),
            Ok(job) => job,
            Err(refusal) => {
                let whole = self.protocol.refuse(&refusal, request, &id);
                return if self.protocol.socket() && request.upgrades() {
                    message(&whole)
                } else {
                    plain(whole)
                };
            }
        };
        let fault = decided.unwrap_or_else(|| self.next_fault(request));
        if let Some(whole) = fault.and_then(|fault| self.refused(fault, request, &id, now)) {
            return if self.protocol.socket() { message(&whole) } else { plain(whole) };
        }
        let shown = |tokens| match fault {
            Some(Fault::NoUsage) => None,
            Some(Fault::ZeroUsage) => Some(Tokens::default()),
            _ => Some(tokens),
        };
        let (model, task, tokens, reply, error) = match job {
            Job::Free(whole) => return plain(whole),
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
        let steps = steps(reply, fault, self.protocol.numbered(), self.options.pace, error);
        Sending { steps, line: Some(line), broken }
    }

    /// The answer to a request that is refused on purpose.
    fn refused(&self, fault: Fault, request: &Request, id: &str, now: u64) -> Option<Whole> {
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

    fn end(&self, line: Option<usize>, ending: Ending) {
        let mut state = self.state();
        // The bill may have been cleared meanwhile.
        if let Some(line) = line.and_then(|line| state.bill.get_mut(line)) {
            line.ending = ending;
        }
    }

    /// Sends an answer and keeps how it ended. That stands in the bill before the client can know it.
    async fn deliver(&self, connection: &mut Connection, sending: &Sending) -> io::Result<Sent> {
        let Some((last, before)) = sending.steps.split_last() else { return Ok(Sent::All) };
        let mut sent = send(connection, before).await;
        if matches!(sent, Ok(Sent::All)) {
            if !sending.broken {
                self.end(sending.line, Ending::Answered);
            }
            sent = send(connection, std::slice::from_ref(last)).await;
        }
        if !sending.broken && !matches!(sent, Ok(Sent::All)) {
            self.end(sending.line, Ending::Dropped);
        }
        sent
    }

    /// Answers a request to the simulator itself.
    fn administer(&self, path: &str, request: &Request) -> Whole {
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

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Serves both listeners until told to stop.
pub(crate) async fn serve(
    main: TcpListener,
    elsewhere: TcpListener,
    desk: Arc<Desk>,
    stopped: oneshot::Receiver<()>,
) {
    let listeners = (tokio::net::TcpListener::from_std(main), tokio::net::TcpListener::from_std(elsewhere));
    let (Ok(main), Ok(elsewhere)) = listeners else { return };
    let accept = async {
        loop {
            tokio::select! {
                Ok((stream, _)) = main.accept() => {
                    tokio::spawn(talk(stream, Arc::clone(&desk)));
                }
                Ok((stream, _)) = elsewhere.accept() => {
                    tokio::spawn(listen_elsewhere(stream, Arc::clone(&desk)));
                }
            }
        }
    };
    tokio::select! {
        () = accept => {}
        _ = stopped => {}
    }
}

/// The other origin: it remembers what came and knows nothing.
async fn listen_elsewhere(stream: TcpStream, desk: Arc<Desk>) {
    let mut connection = Connection { stream, pending: Vec::new() };
    while let Ok(Some(request)) = connection.request().await {
        desk.state().elsewhere.push(request);
        let whole = Whole::json(404, &json!({ "error": "nothing is here" }));
        let reply = Reply::Whole(whole);
        let steps = steps(reply, None, false, Duration::ZERO, Frame::new(&Value::Null, false));
        if !matches!(send(&mut connection, &steps).await, Ok(Sent::All)) {
            return;
        }
    }
}

/// One connection to the vendor. What goes wrong on it concerns nobody else.
async fn talk(stream: TcpStream, desk: Arc<Desk>) {
    let _no_matter = stream.set_nodelay(true);
    let mut connection = Connection { stream, pending: Vec::new() };
    while let Ok(Some(request)) = connection.request().await {
        let sending = if let Some(path) = request.path.strip_prefix(ADMIN) {
            let whole = desk.administer(path, &request);
            let steps =
                steps(Reply::Whole(whole), None, false, Duration::ZERO, Frame::new(&Value::Null, false));
            Sending { steps, line: None, broken: false }
        } else {
            desk.state().requests.push(request.clone());
            if desk.protocol.socket() && request.upgrades() {
                // One conversation per connection, as the vendor has it.
                let _closed = converse(&mut connection, &desk, request).await;
                return;
            }
            desk.answer(&request, None)
        };
        let sent = desk.deliver(&mut connection, &sending).await;
        let last = request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if last || !matches!(sent, Ok(Sent::All)) {
            return;
        }
    }
}

/// A conversation over a WebSocket: handshake, one message, its answer.
async fn converse(connection: &mut Connection, desk: &Desk, request: Request) -> io::Result<()> {
    let id = desk.next_id();
    let admitted = desk.protocol.read(&request, &desk.door(seconds()));
    let refusal = admitted.err().filter(|refusal| *refusal != Refusal::NoJson);
    let fault = if refusal.is_none() { desk.next_fault(&request) } else { None };
    let at_the_door = match fault {
        Some(Fault::ErrorWithStatus200) | None => None,
        Some(fault) => desk.refused(fault, &request, &id, seconds()),
    };
    if let Some(whole) = refusal.map(|refusal| desk.protocol.refuse(&refusal, &request, &id)).or(at_the_door)
    {
        let none = Frame::new(&Value::Null, false);
        send(connection, &steps(Reply::Whole(whole), None, false, Duration::ZERO, none)).await?;
        return Ok(());
    }
    if !websocket::accept(connection, &request).await? {
        return Ok(());
    }
    let Some(message) = websocket::message(connection).await? else { return Ok(()) };
    let request = Request { body: message, ..request };
    desk.state().requests.push(request.clone());
    let sending = desk.answer(&request, Some(fault));
    let sent = desk.deliver(connection, &sending).await;
    if matches!(sent, Ok(Sent::All)) {
        // The client answers the close frame; a client that does not is not waited for.
        let _left = tokio::time::timeout(Duration::from_secs(1), connection.more()).await;
    }
    Ok(())
}

/// How far an answer came.
enum Sent {
    All,
    /// The connection is over, as planned.
    Over,
    /// The client left.
    Left,
}

async fn send(connection: &mut Connection, steps: &[Step]) -> io::Result<Sent> {
    for step in steps {
        match step {
            Step::Write(bytes) => connection.stream.write_all(bytes).await?,
            Step::Fill(count) => {
                let letters = vec![b'x'; 16 << 10];
                let mut left = *count;
                while left > 0 {
                    let part = usize::try_from(left).unwrap_or(usize::MAX).min(letters.len());
                    connection.stream.write_all(&letters[..part]).await?;
                    left -= part as u64;
                }
            }
            Step::Pause(time) => {
                if left_within(connection, Some(*time)).await {
                    return Ok(Sent::Left);
                }
            }
            Step::Silence => {
                left_within(connection, None).await;
                return Ok(Sent::Left);
            }
            Step::Reset => {
                // What was written shall arrive: a reset overtakes what the peer has not read yet.
                tokio::time::sleep(Duration::from_millis(20)).await;
                connection.stream.set_zero_linger()?;
                return Ok(Sent::Over);
            }
            Step::Close => {
                connection.stream.shutdown().await?;
                return Ok(Sent::Over);
            }
        }
    }
    Ok(Sent::All)
}

/// Waits so long, or without end, and says whether the client left meanwhile. What it sends is kept.
async fn left_within(connection: &mut Connection, time: Option<Duration>) -> bool {
    let leaves = async { while connection.more().await.unwrap_or(false) {} };
    match time {
        Some(time) => tokio::time::timeout(time, leaves).await.is_ok(),
        None => {
            leaves.await;
            true
        }
    }
}
