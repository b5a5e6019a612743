//! How a command that runs until it is told to end learns that.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::output::Outcome;

/// Ctrl-C and the polite signal of service managers.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From here on neither ends the process. Call it before anybody is told where the process is: who reads that may end
    /// it at once.
    pub(crate) fn listen() -> Outcome<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
        }
    }
}
