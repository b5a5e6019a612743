//! The server's side of a WebSocket, written out for the sake of faults inside frames.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use tokio::io::AsyncWriteExt;

use crate::http::{Connection, Request, answer_head};

/// Appended to a client's key, as RFC 6455 says.
const KEY: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Answers the handshake; `false` when the request names no key.
pub(crate) async fn accept(connection: &mut Connection, request: &Request) -> io::Result<bool> {
    let Some(key) = request.header("sec-websocket-key") else { return Ok(false) };
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{KEY}").as_bytes());
    let headers = [
        ("upgrade".to_owned(), "websocket".to_owned()),
        ("connection".to_owned(), "Upgrade".to_owned()),
        ("sec-websocket-accept".to_owned(), STANDARD.encode(hash)),
    ];
    connection.stream.write_all(&answer_head(101, &headers)).await?;
    Ok(true)
}

/// The next message of the client; `None` when it closes.
pub(crate) async fn message(connection: &mut Connection) -> io::Result<Option<String>> {
    let mut whole = Vec::new();
    loop {
        let head = connection.bytes(2).await?;
        let (last, code) = (head[0] & 0x80 != 0, head[0] & 0x0f);
        let length = match head[1] & 0x7f {
            126 => connection.bytes(2).await?.into_iter().fold(0, |sum, byte| sum << 8 | usize::from(byte)),
            127 => connection.bytes(8).await?.into_iter().fold(0, |sum, byte| sum << 8 | usize::from(byte)),
            short => usize::from(short),
        };
        if head[1] & 0x80 == 0 {
            return Err(io::Error::other("a client's frame must be masked"));
        }
        let mask = connection.bytes(4).await?;
        let mut data = connection.bytes(length).await?;
        for (byte, mask) in data.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        match code {
            CONTINUATION | TEXT | BINARY => whole.extend(data),
            PING => connection.stream.write_all(&frame(PONG, &data)).await?,
            CLOSE => return Ok(None),
            _ => {}
        }
        if last && matches!(code, CONTINUATION | TEXT | BINARY) {
            return Ok(Some(String::from_utf8_lossy(&whole).into_owned()));
        }
    }
}

/// A frame with a text.
pub(crate) fn text(data: &[u8]) -> Vec<u8> {
    frame(TEXT, data)
}

/// The head of a text frame of that length.
pub(crate) fn text_head(length: u64) -> Vec<u8> {
    head(TEXT, length)
}

/// The frame that ends a connection in good order.
pub(crate) fn close() -> Vec<u8> {
    frame(CLOSE, &1000_u16.to_be_bytes())
}

fn frame(code: u8, data: &[u8]) -> Vec<u8> {
    let mut frame = head(code, data.len() as u64);
    frame.extend(data);
    frame
}

fn head(code: u8, length: u64) -> Vec<u8> {
    let mut head = vec![0x80 | code];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => head.push(short),
        (_, Ok(medium)) => {
            head.push(126);
            head.extend(medium.to_be_bytes());
        }
        _ => {
            head.push(127);
            head.extend(length.to_be_bytes());
        }
    }
    head
}
