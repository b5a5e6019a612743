//! Traces, as a collector receives them from the real server.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use crate::harness::{World, fixture};

const PATIENCE: Duration = Duration::from_secs(60);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const CANARY: &str = "zzcanaryzz";

/// What one POST brought: its head, and its body.
type Post = (String, Vec<u8>);

/// A collector that takes everything. Its address, and what it was sent.
fn collector() -> (String, mpsc::Receiver<Post>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (send, posts) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, send) = (stream.unwrap(), send.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while let Some(post) = receive(&mut reader) {
                    let _nobody = send.send(post);
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                }
            });
        }
    });
    (address, posts)
}

fn receive(reader: &mut BufReader<TcpStream>) -> Option<Post> {
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
        head.push_str(&line);
        head.push('\n');
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// A field of a protocol buffer: its number, and its bytes or its number's value.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => Field::Bytes(cut(&mut bytes, 8)),
            2 => {
                let length = varint(&mut bytes) as usize;
                Field::Bytes(cut(&mut bytes, length))
            }
            5 => Field::Bytes(cut(&mut bytes, 4)),
            other => panic!("no wire type: {other}"),
        };
        found.push((tag >> 3, field));
    }
    found
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(number) => panic!("{number} is no message"),
        }
    }

    fn text(self) -> String {
        String::from_utf8(self.bytes().to_vec()).unwrap()
    }

    fn hex(self) -> String {
        self.bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = cut(bytes, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

fn cut<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (head, tail) = bytes.split_at(length);
    *bytes = tail;
    head
}

fn one(bytes: &[u8], number: u64) -> Field<'_> {
    fields(bytes).into_iter().find(|field| field.0 == number).unwrap_or((0, Field::Bytes(&[]))).1
}

fn all(bytes: &[u8], number: u64) -> Vec<&[u8]> {
    fields(bytes).into_iter().filter(|field| field.0 == number).map(|field| field.1.bytes()).collect()
}

/// The attributes of a resource or a span, as text.
fn attributes(pairs: &[&[u8]]) -> BTreeMap<String, String> {
    pairs.iter().map(|pair| (one(pair, 1).text(), value(one(pair, 2).bytes()))).collect()
}

fn value(any: &[u8]) -> String {
    match fields(any).first().unwrap() {
        (1, text) => text.text(),
        (3, Field::Number(number)) => number.to_string(),
        (4, double) => f64::from_le_bytes(double.bytes().try_into().unwrap()).to_string(),
        (5, list) => format!("{:?}", all(list.bytes(), 1).into_iter().map(value).collect::<Vec<_>>()),
        other => panic!("no value: {other:?}"),
    }
}

#[derive(Debug)]
struct Span {
    trace: String,
    id: String,
    parent: String,
    name: String,
    kind: Field<'static>,
    attributes: BTreeMap<String, String>,
}

/// The resource's attributes, and the spans, of an `ExportTraceServiceRequest`.
fn decode(body: &[u8]) -> (BTreeMap<String, String>, Vec<Span>) {
    let (mut resource, mut spans) = (BTreeMap::new(), Vec::new());
    for group in all(body, 1) {
        resource.extend(attributes(&all(one(group, 1).bytes(), 1)));
        for span in all(group, 2).into_iter().flat_map(|scope| all(scope, 2)) {
            assert!(all(span, 11).is_empty(), "no log record is a part of a trace");
            spans.push(Span {
                trace: one(span, 1).hex(),
                id: one(span, 2).hex(),
                parent: one(span, 4).hex(),
                name: one(span, 5).text(),
                kind: match one(span, 6) {
                    Field::Number(kind) => Field::Number(kind),
                    Field::Bytes(_) => Field::Bytes(&[]),
                },
                attributes: attributes(&all(span, 9)),
            });
        }
    }
    (resource, spans)
}

/// Sends one request and reads the answer to its end.
fn ask(url: &str, path: &str, body: &str) -> String {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         authorization: Bearer {CANARY}-key\r\ntraceparent: 00-{TRACE}-{CALLER}-01\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_request_is_a_span_with_a_generation_below() {
    let (endpoint, posts) = collector();
    let world = World::new();
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=zoo"),
        ("OTEL_SERVICE_NAME", "gateway"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test"),
    ];
    let server = world.serve_in(&[], &environment);
    let model = fixture("llama-tied-f32");
    world.run(&["deploy", "--name", "chat", "--model", &model, "--url", &server.url]).ok();
    let body = format!(
        r#"{{"model":"chat","stream":true,"stream_options":{{"include_usage":true}},"max_tokens":5,"temperature":0,
            "n":2,"prompt":"{CANARY}","user":"{CANARY}"}}"#
    );
    let answer = ask(&server.url, "/v1/completions", &body);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("[DONE]"), "{answer}");
    let missing = ask(&server.url, "/v1/completions", &format!(r#"{{"model":"{CANARY}","prompt":"x"}}"#));
    assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
    assert_eq!(server.signal("TERM"), Some(0));

    let mut spans = Vec::new();
    while let Ok((head, body)) = posts.recv_timeout(Duration::from_millis(100)) {
        assert!(head.starts_with("post /v1/traces http/1.1\n"), "{head}");
        assert!(
            head.contains("content-type: application/x-protobuf\n") && head.contains("x-tenant: zoo\n"),
            "{head}"
        );
        assert!(
            !body.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()),
            "the prompt is in a trace"
        );
        let (resource, some) = decode(&body);
        assert_eq!(resource["service.name"], "gateway");
        assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(resource["deployment.environment"], "test");
        spans.extend(some);
    }
    let ours: Vec<&Span> = spans.iter().filter(|span| span.trace == TRACE).collect();
    let [generation] =
        ours.iter().filter(|span| span.name.starts_with("text_completion")).collect::<Vec<_>>()[..]
    else {
        panic!("one generation: {spans:#?}");
    };
    let http: Vec<&&Span> = ours.iter().filter(|span| span.name == "POST /v1/completions").collect();
    assert_eq!((ours.len(), http.len()), (3, 2), "{spans:#?}");
    assert!(http.iter().all(|span| span.parent == CALLER && span.kind == Field::Number(2)), "{http:#?}");
    let status = |span: &Span| span.attributes["http.response.status_code"].clone();
    let served = http.iter().find(|span| status(span) == "200").unwrap();
    assert!(http.iter().any(|span| status(span) == "404"));
    assert_eq!(served.attributes["http.route"], "/v1/completions");
    assert_eq!(served.attributes["http.request.method"], "POST");
    assert_eq!((&generation.parent, generation.kind), (&served.id, Field::Number(1)));
    assert_eq!(generation.name, "text_completion chat");
    let usage = answer.lines().rfind(|line| line.contains("prompt_tokens")).unwrap();
    let counted = |name: &str| -> String {
        let (_, rest) = usage.split_once(&format!("\"{name}\":")).unwrap();
        rest.chars().take_while(char::is_ascii_digit).collect()
    };
    let attribute = |name: &str| generation.attributes.get(name).map_or("", String::as_str);
    assert_eq!(attribute("gen_ai.usage.input_tokens"), counted("prompt_tokens"));
    assert_eq!(attribute("gen_ai.usage.output_tokens"), counted("completion_tokens"));
    assert_eq!(attribute("gen_ai.request.model"), "chat");
    assert_eq!(attribute("gen_ai.request.max_tokens"), "5");
    assert_eq!(attribute("gen_ai.request.choice.count"), "2");
    assert_eq!(
        attribute("byzerllm.outcome"),
        if attribute(REASONS).contains("stop") { "stop" } else { "length" }
    );
    assert!(
        attribute(REASONS).starts_with("[\"") && attribute(REASONS).contains("\", \""),
        "a list: {generation:#?}"
    );
    // Whatever else a span may tell some day must be added here by hand.
    for (span, known) in [(*generation, GENERATION), (served, HTTP)] {
        let unknown: Vec<&String> =
            span.attributes.keys().filter(|name| !known.contains(&name.as_str())).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
    // Requests of other callers are traces of their own.
    let deployed = spans.iter().find(|span| span.name == "POST /byzerllm/v1/deployments").unwrap();
    assert!(deployed.trace != TRACE && deployed.parent.is_empty(), "{deployed:#?}");
}

const REASONS: &str = "gen_ai.response.finish_reasons";

const GENERATION: &[&str] = &[
    "byzerllm.outcome",
    "byzerllm.queue.seconds",
    "byzerllm.time_to_first_token.seconds",
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.choice.count",
    "gen_ai.request.max_tokens",
    "gen_ai.request.model",
    "gen_ai.request.temperature",
    "gen_ai.request.top_p",
    REASONS,
    "gen_ai.response.id",
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
];

const HTTP: &[&str] =
    &["byzerllm.request.id", "http.request.method", "http.response.status_code", "http.route"];

#[test]
fn what_cannot_be_done_is_refused() {
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
    ] {
        let world = World::new();
        let mut command = world.command(&["serve", "--port", "0"]);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9").env(name, value);
        let done = crate::harness::Done::new(&command.output().unwrap());
        assert_eq!(done.code, 2, "{done:?}");
        assert!(done.err.contains(value), "{done:?}");
    }
}
