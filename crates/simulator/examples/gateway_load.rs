//! Both ends of a gateway's measurement, used by `bench/gateway.py`: an upstream that answers at once, and a client.
//!
//! ```text
//! gateway_load upstream --port 9001 [--answer TEXT]
//! gateway_load load --port 8000 --path /v1/chat/completions --body BODY --connections 32 --seconds 10 [--rate 5000]
//! gateway_load streams --port 8000 --path … --body BODY --connections 8 --seconds 10
//! gateway_load hold --port 8000 --path … --body BODY --connections 5000 --seconds 20
//! ```
//!
//! Both speak just as much HTTP/1.1 as they need, so that they cost little beside the gateway: the upstream on one thread, and
//! `load` with one per connection. With a rate, requests begin at fixed times whether or not earlier ones are answered in
//! time, and latency counts from when a request should have begun: a gateway that falls behind cannot hide it. Without one,
//! each connection asks again at once.
//!
//! The upstream answers a body that holds `"stream":true` with server-sent events, one every `--every` microseconds; each
//! carries the time at which it was written, so that `streams` knows how long it was under way. Each stream has a time of its
//! own, as answers of different requests have: with `--together 1` all of them tick at once. With `--events 0` the upstream
//! sends one event and then nothing, for `hold`.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measuring program: it stops at the first surprise"
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn main() {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let mut options = BTreeMap::new();
    while let Some(name) = words.next() {
        options.insert(
            name.trim_start_matches("--").to_owned(),
            words.next().expect("every option has a value"),
        );
    }
    let options = Arc::new(Options(options));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        match command.as_str() {
            "upstream" => upstream(options).await,
            "load" => load(&options),
            "streams" => streams(options).await,
            "hold" => hold(options).await,
            other => println!("unknown command '{other}': upstream, load, streams or hold"),
        }
    });
}

struct Options(BTreeMap<String, String>);

impl Options {
    fn text(&self, name: &str, default: &str) -> String {
        self.0.get(name).cloned().unwrap_or_else(|| default.to_owned())
    }

    fn number(&self, name: &str, default: u64) -> u64 {
        self.0.get(name).map_or(default, |text| text.parse().expect("a number"))
    }

    /// The request as it goes over the wire.
    fn request(&self) -> Vec<u8> {
        let body = std::fs::read_to_string(self.text("body", "/dev/null")).expect("the body's file");
        let (path, key) = (self.text("path", "/v1/chat/completions"), self.text("key", "none"));
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\nAuthorization: Bearer {key}\r\n\
             Content-Length: {length}\r\n\r\n{body}",
            self.number("port", 0)
        )
        .into_bytes()
    }

    async fn connect(&self) -> TcpStream {
        let port = u16::try_from(self.number("port", 0)).unwrap();
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("somebody listens");
        stream.set_nodelay(true).unwrap();
        stream
    }
}

/// Microseconds since 1970: one clock for all processes of a machine.
fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

/// The end of the header block, and the length that it announces.
fn header(buffer: &[u8]) -> Option<(usize, Option<usize>)> {
    let end = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .map(|value| value.trim().parse().unwrap());
    Some((end, length))
}

async fn upstream(options: Arc<Options>) {
    let port = u16::try_from(options.number("port", 0)).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        tokio::spawn(answer(stream, Arc::clone(&options)));
    }
}

async fn answer(mut stream: TcpStream, options: Arc<Options>) {
    let text = options.text("answer", "Paris is the capital of France.");
    let body = format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"static","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":14,"completion_tokens":8,"total_tokens":22}}}}"#
    );
    let whole = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (events, every) =
        (options.number("events", 100), Duration::from_micros(options.number("every", 1000)));
    let mut buffer = Vec::with_capacity(8192);
    loop {
        let (end, length) = loop {
            if let Some((end, length)) = header(&buffer) {
                break (end, length.unwrap_or(0));
            }
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        };
        while buffer.len() < end + length {
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let streamed = find(&buffer[end..end + length], b"\"stream\":true")
            || find(&buffer[end..end + length], b"\"stream\": true");
        buffer.drain(..end + length);
        if !streamed {
            if stream.write_all(whole.as_bytes()).await.is_err() {
                return;
            }
        } else if events == 0 {
            if stream.write_all(&[HEAD.as_bytes(), &event()].concat()).await.is_err() {
                return;
            }
            return std::future::pending().await;
        } else {
            let plain = stream.into_std().unwrap();
            let together = options.number("together", 0) > 0;
            let relayed = tokio::task::spawn_blocking(move || relay(plain, events, every, together));
            match relayed.await.unwrap() {
                Ok(plain) => stream = TcpStream::from_std(plain).unwrap(),
                Err(_) => return,
            }
        }
    }
}

fn find(text: &[u8], what: &[u8]) -> bool {
    text.windows(what.len()).any(|window| window == what)
}

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

fn chunk(data: &str) -> Vec<u8> {
    format!("{:x}\r\n{data}\r\n", data.len()).into_bytes()
}

/// One piece of text, which tells the time.
fn event() -> Vec<u8> {
    let sent = now();
    let data = format!(
        r#"data: {{"id":"c","object":"chat.completion.chunk","created":1,"model":"static","choices":[{{"index":0,"delta":{{"content":"T{sent} "}},"finish_reason":null}}]}}"#
    );
    chunk(&format!("{data}\n\n"))
}

/// An answer piece by piece, on a thread of its own: the timer of an event loop is a millisecond coarse and would have all
/// streams tick at once.
fn relay(
    mut stream: std::net::TcpStream,
    events: u64,
    every: Duration,
    together: bool,
) -> std::io::Result<std::net::TcpStream> {
    // Streams that begin together are to be out of step nevertheless: the golden ratio spreads any number of them evenly.
    static STREAMS: AtomicU64 = AtomicU64::new(0);
    stream.set_nonblocking(false)?;
    stream.write_all(HEAD.as_bytes())?;
    let period = u64::try_from(every.as_micros()).unwrap().max(1);
    let phase = if together {
        0
    } else {
        STREAMS.fetch_add(1, Ordering::Relaxed).wrapping_mul(618_034) % 1_000_000 * period / 1_000_000
    };
    let first = (now() / period + 1) * period + phase;
    for index in 0..events {
        let rest = (first + index * period).saturating_sub(now());
        if rest > 0 {
            std::thread::sleep(Duration::from_micros(rest));
        }
        stream.write_all(&event())?;
    }
    let end = r#"data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"static","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    stream.write_all(&chunk(&format!("{end}\n\n")))?;
    let usage = r#"data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"static","choices":[],"usage":{"prompt_tokens":14,"completion_tokens":100,"total_tokens":114}}"#;
    stream.write_all(&chunk(&format!("{usage}\n\ndata: [DONE]\n\n")))?;
    stream.write_all(b"0\r\n\r\n")?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Reads one whole answer with a length or in chunks; whether it was a success.
fn whole(stream: &mut std::net::TcpStream, buffer: &mut Vec<u8>) -> bool {
    let mut more = |buffer: &mut Vec<u8>| {
        let mut piece = [0; 16_384];
        let read = stream.read(&mut piece).unwrap_or(0);
        buffer.extend_from_slice(&piece[..read]);
        read > 0
    };
    let (end, length) = loop {
        if let Some(found) = header(buffer) {
            break found;
        }
        if !more(buffer) {
            return false;
        }
    };
    let fine = buffer.starts_with(b"HTTP/1.1 200");
    match length {
        Some(length) => {
            while buffer.len() < end + length {
                if !more(buffer) {
                    return false;
                }
            }
            buffer.drain(..end + length);
        }
        None => {
            while !buffer.ends_with(b"\r\n0\r\n\r\n") {
                if !more(buffer) {
                    return false;
                }
            }
            buffer.clear();
        }
    }
    fine
}

/// One thread per connection: the timer of an event loop is a millisecond coarse, a thread wakes up in time.
fn load(options: &Options) {
    let request = options.request();
    let port = u16::try_from(options.number("port", 0)).unwrap();
    let length = Duration::from_secs(options.number("seconds", 10));
    let rate = options.number("rate", 0);
    // The first tenth warms both sides up and is not counted.
    let (start, warm) = (Instant::now(), length / 10);
    let (errors, next) = (AtomicU64::new(0), AtomicU64::new(0));
    let one = || {
        let connect = || {
            let stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("somebody listens");
            stream.set_nodelay(true).unwrap();
            stream
        };
        let (mut stream, mut buffer, mut times) = (connect(), Vec::with_capacity(4096), Vec::new());
        loop {
            let mut began = Instant::now();
            if rate > 0 {
                let turn = next.fetch_add(1, Ordering::Relaxed);
                #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
                let due = start + Duration::from_secs_f64(turn as f64 / rate as f64);
                if let Some(rest) = due.checked_duration_since(began) {
                    std::thread::sleep(rest);
                }
                began = due;
            }
            if began >= start + length {
                return times;
            }
            if !(stream.write_all(&request).is_ok() && whole(&mut stream, &mut buffer)) {
                errors.fetch_add(1, Ordering::Relaxed);
                stream = connect();
                buffer.clear();
            } else if began >= start + warm {
                times.push(u64::try_from(began.elapsed().as_nanos()).unwrap());
            }
        }
    };
    let mut times = Vec::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.number("connections", 32)).map(|_| scope.spawn(one)).collect();
        for worker in workers {
            times.extend(worker.join().unwrap());
        }
    });
    report(&mut times, (length - warm).as_secs_f64(), errors.load(Ordering::Relaxed));
}

fn report(nanoseconds: &mut [u64], seconds: f64, errors: u64) {
    nanoseconds.sort_unstable();
    let at = |share: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rank"
        )]
        let rank = (nanoseconds.len().saturating_sub(1) as f64 * share) as usize;
        nanoseconds.get(rank).copied().unwrap_or(0) / 1000
    };
    let count = nanoseconds.len();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let rate = count as f64 / seconds;
    println!(
        r#"{{"count": {count}, "errors": {errors}, "per_second": {rate:.1}, "p50_us": {}, "p99_us": {}}}"#,
        at(0.5),
        at(0.99)
    );
}

/// Reads streams and measures how long each event was under way.
async fn streams(options: Arc<Options>) {
    let request: Arc<[u8]> = options.request().into();
    let length = Duration::from_secs(options.number("seconds", 10));
    let start = Instant::now();
    let workers: Vec<_> = (0..options.number("connections", 8))
        .map(|_| {
            let (options, request) = (Arc::clone(&options), Arc::clone(&request));
            tokio::spawn(async move {
                let (mut stream, mut times, mut errors) = (options.connect().await, Vec::new(), 0_u64);
                while start.elapsed() < length {
                    stream.write_all(&request).await.unwrap();
                    let mut buffer: Vec<u8> = Vec::with_capacity(65_536);
                    let mut seen = 0;
                    while !buffer.ends_with(b"\r\n0\r\n\r\n") {
                        if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                            errors += 1;
                            stream = options.connect().await;
                            break;
                        }
                        let arrived = now();
                        while let Some(at) =
                            buffer[seen..].windows(12).position(|w| w.starts_with(b"\"content\":\"T"))
                        {
                            let from = seen + at + 12;
                            let digits: String = buffer[from..]
                                .iter()
                                .take_while(|b| b.is_ascii_digit())
                                .map(|b| char::from(*b))
                                .collect();
                            if from + digits.len() >= buffer.len() {
                                break;
                            }
                            if let Ok(sent) = digits.parse::<u64>() {
                                times.push(arrived.saturating_sub(sent) * 1000);
                            }
                            seen = from + digits.len();
                        }
                    }
                }
                (times, errors)
            })
        })
        .collect();
    let (mut times, mut errors) = (Vec::new(), 0);
    for worker in workers {
        let (taken, failed) = worker.await.unwrap();
        times.extend(taken);
        errors += failed;
    }
    report(&mut times, length.as_secs_f64(), errors);
}

/// Opens streams and keeps them open.
async fn hold(options: Arc<Options>) {
    let request: Arc<[u8]> = options.request().into();
    let (mut open, mut errors) = (Vec::new(), 0_u64);
    for _ in 0..options.number("connections", 5000) {
        let mut stream = options.connect().await;
        stream.write_all(&request).await.unwrap();
        let mut buffer = Vec::new();
        while !find(&buffer, b"\"content\":\"T") {
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                errors += 1;
                break;
            }
        }
        open.push(stream);
    }
    println!(r#"{{"count": {}, "errors": {errors}}}"#, open.len());
    tokio::time::sleep(Duration::from_secs(options.number("seconds", 20))).await;
}
