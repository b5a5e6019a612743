//! A hostile vendor that echoes the key wherever it can: it shows nowhere.

use std::io;
use std::sync::{Arc, Mutex};

use byzerllm_core::{ChatModel, Error, RequestContext};
use tracing_subscriber::fmt::MakeWriter;

use crate::mini::{KEY, Ledger, TEXT, ask, open, request, text};
use crate::server::{Server, Step, reply, stream};

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Everything that an error shows, to clients and in logs.
fn shown(error: &Error) -> String {
    let mut all = format!("{error} {error:?} {}", serde_json::to_string(error).unwrap());
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        all.push_str(&format!("{inner} {inner:?}"));
        cause = inner.source();
    }
    all
}

#[tokio::test]
async fn the_key_shows_nowhere() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    // With one subscriber alone, what another test logs first would be decided by that test's thread, which has none.
    let _other = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    let _logging = tracing::subscriber::set_default(subscriber);
    let half = KEY.split_once('.').unwrap().1;
    let echo = format!("your key {KEY} or only {half}\r\nis wrong");
    let event =
        |status: u16| serde_json::json!({ "error": { "status": status, "message": echo } }).to_string();
    let elsewhere = format!("http://{KEY}.evil.test/?key={KEY}");
    let id = format!(r#"{{"id":"{KEY}"}}"#);
    let replies: Vec<(&str, Vec<Step>)> = vec![
        ("body", reply(400, &[("x-request-id", KEY)], &echo)),
        ("error", reply(500, &[("x-request-id", KEY), ("www-authenticate", KEY)], &echo)),
        ("redirect", reply(302, &[("location", &elsewhere)], &echo)),
        ("stream", stream([TEXT, event(500).as_str()])),
        ("first event", stream([event(401).as_str()])),
        ("id", stream([id.as_str(), TEXT])),
        ("not HTTP", vec![Step::Send(format!("{KEY}\r\n\r\n").into_bytes()), Step::Close]),
        ("header", vec![Step::Send(format!("HTTP/1.1 200 OK\r\n{KEY}\r\n\r\n").into_bytes()), Step::Close]),
    ];
    for (name, reply) in replies {
        let server = Server::start([reply]).await;
        let ledger = Arc::new(Ledger::default());
        let model = open(&server.url(), &[("max_retries", "0")]);
        let items = ask(&model, request(), ledger.context()).await;
        let error = text(&items).1.unwrap();
        for leak in
            [shown(error), format!("{:?}", ledger.settlements()), format!("{items:?} {:?}", model.metrics())]
        {
            assert!(!leak.contains(KEY) && !leak.contains(half), "{name}: {leak}");
        }
        assert!(!error.message().contains('\n'), "{name}");
    }
    // What was asked for is not logged either: neither prompts nor answers.
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("attempt failed") && log.contains("vendor=\"mini\""), "{log}");
    assert!(!log.contains(KEY) && !log.contains(half) && !log.contains("Hello"), "{log}");
}

#[tokio::test]
async fn the_key_does_not_show_in_what_holds_it() {
    let parameters = byzerllm_providers::Parameters::new(
        &crate::mini::MINI,
        [("api_key", KEY), ("base_url", "http://a.test")],
    );
    let shown = format!("{:?}", parameters.unwrap());
    assert!(!shown.contains("canary"), "{shown}");
    let model = open("http://127.0.0.1:1", &[("max_retries", "0")]);
    let error = model.chat(request(), RequestContext::local()).await.err().unwrap();
    assert!(!self::shown(&error).contains("canary"));
}
