//! Connections: what the desk decided is put on the socket.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::bill::Ending;
use crate::delivery::Step;
use crate::desk::{ADMIN, Desk, Sending, seconds};
use crate::fault::Fault;
use crate::http::{Connection, Request, Whole};
use crate::refusal::Refusal;
use crate::websocket;

/// How long to wait when no connection can be accepted: descriptors come back when others end.
const RECOVERY: Duration = Duration::from_millis(50);

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
                accepted = main.accept() => match accepted {
                    Ok((stream, _)) => {
                        tokio::spawn(talk(stream, Arc::clone(&desk)));
                    }
                    Err(_) => tokio::time::sleep(RECOVERY).await,
                },
                accepted = elsewhere.accept() => match accepted {
                    Ok((stream, _)) => {
                        tokio::spawn(listen_elsewhere(stream, Arc::clone(&desk)));
                    }
                    Err(_) => tokio::time::sleep(RECOVERY).await,
                },
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
        desk.came_elsewhere(request);
        let whole = Whole::json(404, &json!({ "error": "nothing is here" }));
        let sending = Sending::whole(whole);
        if !matches!(send(&mut connection, &sending.steps).await, Ok(Sent::All)) {
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
            Sending::whole(desk.administer(path, &request))
        } else {
            desk.came(request.clone());
            if desk.protocol.socket() && request.upgrades() {
                // One conversation per connection, as the vendor has it.
                let _closed = converse(&mut connection, &desk, request).await;
                return;
            }
            desk.answer(&request, None)
        };
        let sent = deliver(&desk, &mut connection, &sending).await;
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
        send(connection, &Sending::whole(whole).steps).await?;
        return Ok(());
    }
    if !websocket::accept(connection, &request).await? {
        return Ok(());
    }
    let Some(message) = websocket::message(connection).await? else { return Ok(()) };
    let request = Request { body: message, ..request };
    desk.came(request.clone());
    let sending = desk.answer(&request, Some(fault));
    let sent = deliver(desk, connection, &sending).await;
    if matches!(sent, Ok(Sent::All)) {
        // The client answers the close frame; a client that does not is not waited for.
        let _left = tokio::time::timeout(Duration::from_secs(1), connection.more()).await;
    }
    Ok(())
}

/// Sends an answer and keeps how it ended. That stands in the bill before the client can know it.
async fn deliver(desk: &Desk, connection: &mut Connection, sending: &Sending) -> io::Result<Sent> {
    let Some((last, before)) = sending.steps.split_last() else { return Ok(Sent::All) };
    let mut sent = send(connection, before).await;
    if matches!(sent, Ok(Sent::All)) {
        if !sending.broken {
            desk.end(sending.line, Ending::Answered);
        }
        sent = send(connection, std::slice::from_ref(last)).await;
    }
    if !sending.broken && !matches!(sent, Ok(Sent::All)) {
        desk.end(sending.line, Ending::Dropped);
    }
    sent
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
