//! Connections that wait for the next message.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use url::Url;

use super::connect::Origin;

/// A connection that waited longer is not used again: servers close theirs after a minute or so.
const KEPT: Duration = Duration::from_secs(45);
/// So many connections wait at most.
const MOST: usize = 1024;

/// An HTTP connection. Dropping it closes it, whatever it is doing.
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Full<Bytes>>,
    pub(crate) origin: Origin,
    pub(crate) task: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The waiting connections of a deployment, the latest last.
#[derive(Clone, Default)]
pub(crate) struct Pool(Arc<Mutex<Vec<(Connection, Instant)>>>);

impl Pool {
    /// The connection to the URL's origin that has waited the shortest.
    pub(crate) fn take(&self, url: &Url) -> Option<Connection> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A deployment has one origin, nearly always.
        let at = waiting.iter().rposition(|(connection, _)| connection.origin.is_of(url))?;
        let (connection, since) = waiting.remove(at);
        if since.elapsed() < KEPT {
            return Some(connection);
        }
        // All others to there have waited longer still.
        waiting.retain(|(other, _)| other.origin != connection.origin);
        None
    }

    /// Takes a connection whose last answer was read to its end.
    pub(crate) fn put(&self, connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        let now = Instant::now();
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let old = waiting.iter().take_while(|(_, since)| now.duration_since(*since) >= KEPT).count();
        waiting.drain(..old);
        if waiting.len() < MOST {
            waiting.push((connection, now));
        }
    }
}
