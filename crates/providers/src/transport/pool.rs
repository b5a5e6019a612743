//! Connections that wait for the next message.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use url::Url;

use super::connection::Connection;

/// A connection that waited longer is not used again: servers close theirs after a minute or so.
const KEPT: Duration = Duration::from_secs(45);
/// So many connections wait at most.
const MOST: usize = 1024;
/// So often those are closed that the server has closed, or that waited too long.
const SWEEP: Duration = Duration::from_secs(15);

/// The waiting connections of a deployment.
#[derive(Clone, Default)]
pub(crate) struct Pool(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    /// The latest last.
    connections: Vec<(Connection, Instant)>,
    /// Whether a task looks after them.
    swept: bool,
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// The connection to the URL's origin that has waited the shortest.
    pub(crate) fn take(&self, url: &Url) -> Option<Connection> {
        let mut waiting = lock(&self.0);
        // A deployment has one origin, nearly always.
        let at = waiting.connections.iter().rposition(|(connection, _)| connection.origin.is_of(url))?;
        let (connection, since) = waiting.connections.remove(at);
        if since.elapsed() < KEPT {
            return Some(connection);
        }
        // All others to there have waited longer still.
        waiting.connections.retain(|(other, _)| other.origin != connection.origin);
        None
    }

    /// Takes a connection whose last answer was read to its end.
    pub(crate) fn put(&self, connection: Connection) {
        let mut waiting = lock(&self.0);
        if waiting.connections.len() < MOST {
            waiting.connections.push((connection, Instant::now()));
        }
        if !std::mem::replace(&mut waiting.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(&self.0)));
        }
    }
}

/// Closes what nobody should use again, until nothing waits any more.
async fn sweep(pool: Weak<Mutex<Waiting>>) {
    loop {
        sleep(SWEEP).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut waiting = lock(&pool);
        // Nobody is to be woken: who takes a connection looks at it again.
        let mut context = Context::from_waker(Waker::noop());
        waiting
            .connections
            .retain_mut(|(connection, since)| since.elapsed() < KEPT && connection.is_quiet(&mut context));
        if waiting.connections.is_empty() {
            waiting.swept = false;
            return;
        }
    }
}
