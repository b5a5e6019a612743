//! Connections to vendors: which are used again, and what comes before, beside and after an answer.

use byzerllm_core::{ChatRequest, ErrorKind, Input, RequestContext};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::mini::{STOP, TEXT, USAGE, ask, open, refusal, request, text};
use crate::server::{Server, Step, reply};

fn whole() -> ChatRequest {
    ChatRequest { whole: true, ..request() }
}

fn bytes(steps: Vec<Step>) -> Vec<u8> {
    let bytes =
        steps.into_iter().filter_map(|step| if let Step::Send(bytes) = step { Some(bytes) } else { None });
    bytes.collect::<Vec<_>>().concat()
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_end_a_connection() {
    let answer = bytes(reply(200, &[], &format!("[{TEXT},{STOP},{USAGE}]")));
    let with = |more: &[u8]| vec![Step::Send([&answer[..], more].concat())];
    // The second answer is followed by what looks like another one's.
    let server = Server::start([with(b""), with(b"HTTP/1.1 200 OK\r\n"), with(b"")]).await;
    let model = open(&server.url(), &[("max_retries", "0")]);
    for _ in 0..3 {
        let items = ask(&model, whole(), RequestContext::local()).await;
        assert!(text(&items).1.is_none(), "{items:?}");
    }
    let used: Vec<usize> = server.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(used, [0, 0, 1]);
}

#[tokio::test]
async fn bytes_that_come_while_nobody_asks_end_a_connection() {
    let answer = || reply(200, &[], &format!("[{TEXT},{STOP},{USAGE}]"));
    let mut late = answer();
    // A chunk of its own, so that it is not read with the answer.
    late.push(Step::Send(b"HTTP/1.1 408 Request Timeout\r\n\r\n".to_vec()));
    let server = Server::start([late, answer()]).await;
    let model = open(&server.url(), &[("max_retries", "0")]);
    for _ in 0..2 {
        let items = ask(&model, whole(), RequestContext::local()).await;
        assert!(text(&items).1.is_none(), "{items:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(server.seen()[1].connection, 1);
}

#[tokio::test]
async fn heads_before_the_answer_and_in_pieces_are_read() {
    let answer = bytes(reply(200, &[("x-request-id", "v-7")], &format!("[{TEXT},{STOP},{USAGE}]")));
    let early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n";
    let all = [&early[..], &answer].concat();
    let together = vec![Step::Send(all.clone())];
    let trickled = all.iter().map(|byte| Step::Send(vec![*byte])).collect();
    let server = Server::start([together, trickled]).await;
    let model = open(&server.url(), &[("max_retries", "0")]);
    for _ in 0..2 {
        let items = ask(&model, whole(), RequestContext::local()).await;
        let (said, error) = text(&items);
        assert!(error.is_none() && said == "Hé", "{items:?}");
    }
    assert!(server.seen().iter().all(|seen| seen.connection == 0));
}

#[tokio::test]
async fn an_answer_may_come_before_the_question_is_read() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let refuse = bytes(reply(413, &[], r#"{"error":{"status":413,"message":"too long"}}"#));
    let server = tokio::spawn(async move {
        let mut kept = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut start = [0; 1024];
            stream.read_exact(&mut start).await.unwrap();
            stream.write_all(&refuse).await.unwrap();
            // Open, and never read again.
            kept.push(stream);
        }
        kept.len()
    });
    let model = open(&url, &[("max_retries", "0")]);
    for _ in 0..2 {
        let long = ChatRequest { input: Input::Text("x".repeat(32 << 20)), ..whole() };
        let items = ask(&model, long, RequestContext::local()).await;
        assert_eq!(refusal(&items).kind(), ErrorKind::TooLarge, "{items:?}");
    }
    assert_eq!(server.await.unwrap(), 2, "a question that was not sent whole ends its connection");
}
