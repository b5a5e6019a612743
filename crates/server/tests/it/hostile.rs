//! Hostile traffic over real sockets, while someone else's answer is being decoded by a real network. Progress is
//! counted in tokens that arrive while the hostile thing is known to be there, never in time.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use byzerllm_core::Result;
use byzerllm_core::testing::{Gate, ScriptedModel};
use byzerllm_runtime::testing::ScriptedLoader;
use byzerllm_runtime::{
    DeploymentSpec, Inspection, Limits, LoadContext, LoadedModel, Loader, LocalLoader, MemoryNeed, Runtime,
    RuntimeOptions,
};
use byzerllm_server::Timeouts;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::listening::{self, Running, post};
use crate::support::App;

/// For what must happen at all, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(120);

/// Tokens that must arrive while something hostile is there.
const ENOUGH: usize = 400;

async fn start(runtime: &Runtime, timeouts: Timeouts, connections: Option<usize>) -> Running {
    listening::start(runtime, timeouts, connections, PATIENCE).await
}

async fn read(stream: &mut TcpStream, until: &str) -> String {
    listening::read(stream, until, PATIENCE).await
}

/// Reads one answer whose length is known.
async fn whole(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let reading = async {
        loop {
            let text = String::from_utf8_lossy(&bytes);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                if body.len() >= length.parse().unwrap() {
                    return text.into_owned();
                }
            }
            assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "an answer breaks off");
        }
    };
    timeout(PATIENCE, reading).await.expect("an answer")
}

async fn until(what: &str, condition: impl FnMut() -> bool) {
    listening::until(what, PATIENCE, condition).await;
}

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/llama-tied-f32")
}

/// A runtime with the real network `story`, and one with a template of someone's choice, if one is given.
async fn real(template: Option<&str>) -> (Runtime, Option<tempfile::TempDir>) {
    let runtime_options = RuntimeOptions { threads: Some(1), ..RuntimeOptions::default() };
    let runtime = Runtime::open(runtime_options).await.unwrap();
    runtime.deploy(DeploymentSpec::new("story", tiny())).await.unwrap();
    let copy = match template {
        Some(template) => {
            let copy = tempfile::tempdir().unwrap();
            for entry in std::fs::read_dir(tiny()).unwrap() {
                let entry = entry.unwrap();
                std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
            }
            std::fs::write(copy.path().join("chat_template.jinja"), template).unwrap();
            runtime.deploy(DeploymentSpec::new("trap", copy.path())).await.unwrap();
            Some(copy)
        }
        None => None,
    };
    (runtime, copy)
}

/// Loads `story` from its file, and a script for every other name.
struct Mixed(Arc<ScriptedLoader>);

impl Loader for Mixed {
    fn need(&self, spec: &DeploymentSpec) -> Result<MemoryNeed> {
        if spec.name == "story" { LocalLoader.need(spec) } else { self.0.need(spec) }
    }

    fn load(&self, spec: &DeploymentSpec, context: &LoadContext) -> Result<LoadedModel> {
        if spec.name == "story" { LocalLoader.load(spec, context) } else { self.0.load(spec, context) }
    }

    fn inspect(&self, path: &Path) -> Result<Inspection> {
        LocalLoader.inspect(path)
    }
}

/// A client that behaves: it asks for one long answer after the other and counts the events of their streams.
struct Reader {
    tokens: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Reader {
    async fn start(address: SocketAddr) -> Self {
        let tokens = Arc::new(AtomicUsize::new(0));
        let counted = tokens.clone();
        let body = json!({"model": "story", "prompt": "Once", "stream": true, "max_tokens": 200, "ignore_eos": true});
        let body = body.to_string();
        let task = tokio::spawn(async move {
            loop {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let asked = post(address, "/v1/completions", &body)
                    .replace("\r\n\r\n{", "\r\nconnection: close\r\n\r\n{");
                stream.write_all(asked.as_bytes()).await.unwrap();
                let mut buffer = [0; 4096];
                let (mut seen, mut whole) = (0, Vec::new());
                loop {
                    let count = stream.read(&mut buffer).await.unwrap();
                    whole.extend_from_slice(&buffer[..count]);
                    let text = String::from_utf8_lossy(&whole);
                    let now = text.matches("data: {").count();
                    counted.fetch_add(now - seen, SeqCst);
                    seen = now;
                    if count == 0 {
                        assert!(text.starts_with("HTTP/1.1 200") && text.contains("[DONE]"), "{text}");
                        assert!(!text.contains("\"error\""), "{text}");
                        break;
                    }
                }
            }
        });
        let reader = Self { tokens, task };
        until("the first tokens", || reader.tokens() > 0).await;
        reader
    }

    fn tokens(&self) -> usize {
        self.tokens.load(SeqCst)
    }

    /// Waits until so many more tokens have come while `there` holds.
    async fn goes_on(&self, tokens: usize, what: &str, mut there: impl FnMut() -> bool) {
        let begin = self.tokens();
        until(&format!("tokens beside {what}"), || {
            assert!(there(), "{what} is over after {} tokens", self.tokens() - begin);
            assert!(!self.task.is_finished(), "the well-behaved client failed beside {what}");
            self.tokens() - begin >= tokens
        })
        .await;
    }

    async fn finish(self) {
        self.task.abort();
        let _cancelled = self.task.await;
    }
}

/// Clients that send the same request again and again.
struct Flood {
    answered: Arc<AtomicUsize>,
    in_flight: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Flood {
    fn start(
        address: SocketAddr,
        path: &str,
        body: &Value,
        clients: usize,
        status: &'static [&'static str],
    ) -> Self {
        let request: Arc<str> = post(address, path, &body.to_string()).into();
        let (answered, in_flight) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let stopping = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            let (request, answered, in_flight, stopping) =
                (request.clone(), answered.clone(), in_flight.clone(), stopping.clone());
            tasks.spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                while !stopping.load(SeqCst) {
                    in_flight.fetch_add(1, SeqCst);
                    stream.write_all(request.as_bytes()).await.unwrap();
                    let answer = whole(&mut stream).await;
                    let line = answer.lines().next().unwrap_or_default();
                    assert!(status.iter().any(|status| line.contains(status)), "{answer}");
                    in_flight.fetch_sub(1, SeqCst);
                    answered.fetch_add(1, SeqCst);
                }
            });
        }
        Self { answered, in_flight, stopping, tasks }
    }

    fn answered(&self) -> usize {
        self.answered.load(SeqCst)
    }

    async fn stop(mut self) {
        self.stopping.store(true, SeqCst);
        while let Some(client) = self.tasks.join_next().await {
            client.unwrap();
        }
    }
}

/// Tokens come between the answers to hostile requests: so many for each, on average.
async fn tokens_between(reader: &Reader, flood: &Flood, what: &str, answers: usize, for_each: usize) {
    until(&format!("{what} arrive"), || flood.in_flight.load(SeqCst) > 0).await;
    let (tokens, answered) = (reader.tokens(), flood.answered());
    until(&format!("{what} are answered"), || flood.answered() - answered >= answers).await;
    reader.goes_on(1, what, || true).await;
    let (tokens, answered) = (reader.tokens() - tokens, flood.answered() - answered);
    assert!(tokens >= answered * for_each, "{tokens} tokens beside {answered} answers to {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_that_loops_for_ever() {
    let loops =
        "{% for a in range(100000) %}{% for b in range(10000) %}{% set c = a * b %}{% endfor %}{% endfor %}";
    let (runtime, _copy) = real(Some(loops)).await;
    let server = start(&runtime, Timeouts::default(), None).await;
    let reader = Reader::start(server.address).await;
    let body = json!({"model": "trap", "messages": "Hi"});
    let flood = Flood::start(server.address, "/v1/chat/completions", &body, 8, &["400"]);
    tokens_between(&reader, &flood, "endless templates", 16, 5).await;
    reader.goes_on(ENOUGH, "endless templates", || !flood.tasks.is_empty()).await;
    flood.stop().await;
    reader.finish().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn formats_that_blow_up() {
    let (runtime, _) = real(None).await;
    let server = start(&runtime, Timeouts::default(), None).await;
    let reader = Reader::start(server.address).await;
    // However each of them ends: refused, given up at a step, or answered at last.
    let ends = &["200", "400", "429", "500"];
    for regex in [
        "((((a{1,100}){1,100}){1,100}){1,100}){1,100}",
        "(a{1,1000}){1,1000}",
        "(.*a.{30}b){20}|(.*b.{29}c){21}",
    ] {
        let body = json!({"model": "story", "prompt": "x", "guided_regex": regex, "max_tokens": 20});
        let flood = Flood::start(server.address, "/v1/completions", &body, 2, ends);
        until("formats arrive", || flood.in_flight.load(SeqCst) > 0).await;
        let before = flood.answered();
        reader.goes_on(ENOUGH / 4, "formats that blow up", || !flood.tasks.is_empty()).await;
        until(&format!("{regex} is answered"), || flood.answered() > before).await;
        flood.stop().await;
    }
    reader.finish().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_and_lists_out_of_all_proportion() {
    let (runtime, _) = real(None).await;
    let server = start(&runtime, Timeouts::default(), None).await;
    let reader = Reader::start(server.address).await;
    let tool = |index: usize| json!({"type": "function", "function": {"name": format!("f{index}")}});
    let tools: Vec<Value> = (0..10_000).map(tool).collect();
    for (what, path, body) in [
        ("n = 10^6", "/v1/completions", json!({"model": "story", "prompt": "x", "n": 1_000_000})),
        ("best_of = 10^6", "/v1/completions", json!({"model": "story", "prompt": "x", "best_of": 1_000_000})),
        ("10,000 tools", "/v1/chat/completions", json!({"model": "story", "messages": "x", "tools": tools})),
        ("10,000 prompts", "/v1/completions", json!({"model": "story", "prompt": vec!["x"; 10_000]})),
    ] {
        let flood = Flood::start(server.address, path, &body, 4, &["400"]);
        until(&format!("{what} is answered"), || flood.answered() > 20).await;
        reader.goes_on(ENOUGH, what, || !flood.tasks.is_empty()).await;
        flood.stop().await;
    }
    reader.finish().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_fifty_megabytes() {
    let (runtime, _) = real(None).await;
    let server = start(&runtime, Timeouts::default(), None).await;
    let reader = Reader::start(server.address).await;
    let address = server.address;
    // Some are on their way for as long as tokens are counted; then they arrive whole and are refused.
    let whole = Arc::new(post(address, "/v1/chat/completions", &" ".repeat(50 << 20)));
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(&whole.as_bytes()[..20 << 20]).await.unwrap();
        clients.push(client);
    }
    reader.goes_on(ENOUGH, "half a body", || true).await;
    let mut sending = JoinSet::new();
    for mut client in clients {
        let whole = whole.clone();
        sending.spawn(async move {
            client.write_all(&whole.as_bytes()[20 << 20..]).await.unwrap();
            assert!(read(&mut client, "request_too_large").await.starts_with("HTTP/1.1 413"));
        });
    }
    while let Some(client) = sending.join_next().await {
        client.unwrap();
    }
    reader.goes_on(ENOUGH, "refused bodies", || true).await;
    reader.finish().await;
    server.stop().await;
}

/// Whether the other side has closed.
fn closed(client: &TcpStream) -> bool {
    let mut buffer = [0; 1024];
    loop {
        match client.try_read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_heads_wait_for_their_end_beside_answers() {
    let (runtime, _) = real(None).await;
    let slow = async |address: SocketAddr| {
        let mut slow = Vec::new();
        for place in 0..200 {
            let mut client = TcpStream::connect(address).await.unwrap();
            let start = &b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nx"[..];
            client.write_all(&start[..place % start.len()]).await.unwrap();
            slow.push(client);
        }
        slow
    };
    let server = start(&runtime, Timeouts::default(), None).await;
    let reader = Reader::start(server.address).await;
    let heads = slow(server.address).await;
    reader.goes_on(ENOUGH, "slow heads", || !heads.iter().any(closed)).await;
    reader.finish().await;
    server.stop().await;

    // All of them are closed in the end, those that go on dribbling too.
    let timeouts = Timeouts { head: Duration::from_secs(1), ..Timeouts::default() };
    let server = start(&runtime, timeouts, None).await;
    let reader = Reader::start(server.address).await;
    let heads = slow(server.address).await;
    until("slow heads are closed", || {
        heads.iter().for_each(|client| {
            let _more = client.try_write(b"x");
        });
        heads.iter().all(closed)
    })
    .await;
    reader.goes_on(ENOUGH, "closed heads", || true).await;
    reader.finish().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_send_nothing_make_place_for_those_who_ask() {
    let gate = Gate::closed();
    let app = App::with(ScriptedModel::new("one two").with_gate(&gate)).await;
    let server = start(&app.runtime, Timeouts::default(), Some(8)).await;
    let hello = json!({"model": "chat", "stream": true, "messages": "Hi"}).to_string();
    let mut busy = TcpStream::connect(server.address).await.unwrap();
    busy.write_all(post(server.address, "/v1/chat/completions", &hello).as_bytes()).await.unwrap();
    read(&mut busy, "assistant").await;
    // Half heads, silence, and an answered request after which nothing comes take all places, and more.
    let mut quiet = Vec::new();
    for place in 0..40 {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        let said = match place % 3 {
            0 => String::new(),
            1 => "POST /v1/chat/completions HTTP/1.1\r\nhost:".to_owned(),
            _ => format!("GET /healthz HTTP/1.1\r\nhost: {}\r\n\r\n", server.address),
        };
        client.write_all(said.as_bytes()).await.unwrap();
        if place % 3 == 2 {
            assert!(read(&mut client, "\r\n\r\n").await.starts_with("HTTP/1.1 200"), "{place}");
        }
        quiet.push(client);
    }
    // The first ones had to leave, the last ones are still there, and so is who waits for an answer.
    until("the first ones leave", || quiet[..30].iter().all(closed)).await;
    assert!(quiet[36..].iter().all(|client| !closed(client)));
    gate.open();
    assert!(read(&mut busy, "[DONE]").await.contains("two"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_nothing_is_given_up() {
    const WORDS: usize = 100_000;
    let gate = Gate::closed();
    let app = App::with(ScriptedModel::new("word ".repeat(WORDS)).with_gate(&gate)).await;
    let write = Duration::from_secs(2);
    let server = start(&app.runtime, Timeouts { write, ..Timeouts::default() }, None).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stalled = socket.connect(server.address).await.unwrap();
    let hello = json!({"model": "chat", "stream": true, "messages": "Hi"}).to_string();
    stalled.write_all(post(server.address, "/v1/chat/completions", &hello).as_bytes()).await.unwrap();
    read(&mut stalled, "assistant").await;
    gate.allow(WORDS);
    // The model is asked for no more than the buffers hold, and its work ends with the client's time.
    until("the stalled answer is dropped", || app.model.active() == 0).await;
    let left = gate.left();
    assert!(left > WORDS / 2, "{left} of {WORDS} words are left");
    drop(stalled);
    server.stop().await;
}

/// As many streams as the limit of open files allows, 5,000 at most: each takes a descriptor here and one there.
fn many() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const WANTED: usize = 5_000;
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(1 << 20);
    // The server adds to the soft limit what it needs itself; both ends are in this process.
    setrlimit(Resource::Nofile, Rlimit { current: Some(hard), maximum: limit.maximum }).unwrap();
    let room = usize::try_from(hard.saturating_sub(1_000) / 2).unwrap();
    assert!(room >= WANTED || hard < 11_000, "{room}");
    room.min(WANTED)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_idle_streams() {
    let streams = many();
    let gate = Gate::closed();
    let model = Arc::new(ScriptedModel::new("one two").with_gate(&gate));
    let shared = model.clone();
    let loader = Arc::new(Mixed(ScriptedLoader::new(move |_: &DeploymentSpec| Ok(shared.clone()))));
    let runtime_options = RuntimeOptions { threads: Some(1), ..RuntimeOptions::default() };
    let runtime = Runtime::open_with(runtime_options, loader).await.unwrap();
    let all = Limits { concurrency: Some(streams as u32), ..Limits::default() };
    runtime.deploy(DeploymentSpec { limits: all, ..DeploymentSpec::new("idle", "/") }).await.unwrap();
    let few = Limits { concurrency: Some(2), queue_limit: Some(3), ..Limits::default() };
    runtime.deploy(DeploymentSpec { limits: few, ..DeploymentSpec::new("small", "/") }).await.unwrap();
    runtime.deploy(DeploymentSpec::new("story", tiny())).await.unwrap();
    let server = start(&runtime, Timeouts::default(), None).await;
    let address = server.address;
    let reader = Reader::start(address).await;

    let hello = |model: &str| {
        let body = json!({"model": model, "stream": true, "messages": "Hi"}).to_string();
        post(address, "/v1/chat/completions", &body)
    };
    let mut idle = Vec::new();
    for _ in 0..streams {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(hello("idle").as_bytes()).await.unwrap();
        idle.push(client);
    }
    until("all streams are open", || model.active() == streams).await;
    reader.goes_on(ENOUGH, "idle streams", || model.active() == streams).await;

    // A new request is answered, one too many at once is told when to come back, and nobody hangs.
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(format!("GET /v1/models HTTP/1.1\r\nhost: {address}\r\n\r\n").as_bytes()).await.unwrap();
    assert!(read(&mut client, "small").await.starts_with("HTTP/1.1 200"));
    let mut crowd = Vec::new();
    for _ in 0..5 {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(hello("small").as_bytes()).await.unwrap();
        crowd.push(client);
    }
    // Which of them wait is left to chance.
    until("two run", || model.active() == streams + 2).await;
    let refused = loop {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(hello("small").as_bytes()).await.unwrap();
        // Those that came before may still be on their way to the queue; then this one waits in it.
        let answer = timeout(Duration::from_secs(1), read(&mut client, "\r\n\r\n")).await;
        match answer {
            Ok(answer) => break answer,
            Err(_) => crowd.push(client),
        }
        assert!(crowd.len() < 20, "nobody is refused");
    };
    assert!(refused.starts_with("HTTP/1.1 429") && refused.contains("retry-after: "), "{refused}");
    assert_eq!(model.active(), streams + 2);

    // All of them can still be answered.
    gate.open();
    for client in idle.iter_mut().take(10) {
        assert!(read(client, "[DONE]").await.contains("two"));
    }
    until("all streams end", || model.active() == 0).await;
    reader.finish().await;
    drop((idle, crowd, client));
    server.stop().await;
}
