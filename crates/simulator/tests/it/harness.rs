//! A client that does nothing for its user: it sends what it is told and shows what came.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use byzerllm_simulator::{Options, Simulator};
use serde_json::Value;

/// What came back.
#[derive(Debug)]
pub(crate) struct Came {
    pub(crate) status: u16,
    pub(crate) head: String,
    /// Chunks undone.
    pub(crate) body: Vec<u8>,
    /// Whether the answer ended as HTTP says.
    pub(crate) complete: bool,
}

impl Came {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The data of server-sent events that are JSON.
    pub(crate) fn events(&self) -> Vec<Value> {
        let text = self.text();
        text.lines()
            .filter_map(|line| serde_json::from_str(line.strip_prefix("data:")?.trim()).ok())
            .collect()
    }

    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
    }
}

pub(crate) fn start(vendor: &str) -> Simulator {
    Simulator::start(vendor, Options::default()).unwrap()
}

/// Sends a request with the usual credential.
pub(crate) fn post(vendor: &Simulator, path: &str, body: &Value) -> Came {
    let bearer = format!("Bearer {}", vendor.credentials().api_key);
    send(vendor, "POST", path, &[("authorization", &bearer)], &body.to_string())
}

/// Sends a request; the path stands after the vendor's base.
pub(crate) fn send(
    vendor: &Simulator,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
    body: &str,
) -> Came {
    let base = vendor.url().strip_prefix(vendor.origin()).unwrap();
    let base = if path.starts_with("/simulator") { "" } else { base };
    let host = vendor.origin().split_once("://").unwrap().1;
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut request = format!("{method} {base}{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    for (name, value) in fields {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    // A reset shows as an answer that is not complete.
    let ended = stream.read_to_end(&mut bytes);
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Came { status: 0, head: String::new(), body: Vec::new(), complete: false };
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    let mut came = Came { status, head, body: bytes[end + 4..].to_vec(), complete: false };
    match came.field("content-length") {
        Some(length) => came.complete = length.parse::<usize>().unwrap() == came.body.len(),
        None => (came.body, came.complete) = without_chunks(&came.body),
    }
    came.complete &= ended.is_ok();
    came
}

fn without_chunks(mut body: &[u8]) -> (Vec<u8>, bool) {
    let mut whole = Vec::new();
    loop {
        let Some(end) = body.windows(2).position(|pair| pair == b"\r\n") else { return (whole, false) };
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        body = &body[end + 2..];
        if size == 0 {
            return (whole, body == b"\r\n");
        }
        if body.len() < size + 2 {
            whole.extend(body);
            return (whole, false);
        }
        whole.extend(&body[..size]);
        body = &body[size + 2..];
    }
}
