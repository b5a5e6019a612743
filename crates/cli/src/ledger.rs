//! Where usage, budgets and prices are: at the server that holds the state, or on the state itself when none runs.

use std::path::PathBuf;

use byzerllm_client::runtime_file;
use byzerllm_core::{Error, ErrorKind};
use byzerllm_runtime::Ledger;

use crate::arguments::LedgerPlaceArguments;
use crate::connection::Connection;
use crate::output::{Failure, Outcome};
use crate::serve::default_state;

/// Where the ledger is.
pub(crate) enum Place {
    Server(Connection),
    Disk(Box<Ledger>, PathBuf),
}

impl Place {
    /// The state that was named, else the server that was named or runs, else the default state.
    pub(crate) fn open(arguments: &LedgerPlaceArguments) -> Outcome<Self> {
        if let Some(state) = &arguments.state {
            return Self::of_state(std::path::absolute(state)?);
        }
        if arguments.server.url.is_some() || runtime_file::find(None)?.is_some() {
            return Ok(Self::Server(Connection::open(arguments.server.url.as_deref())?));
        }
        Self::of_state(default_state()?)
    }

    fn of_state(state: PathBuf) -> Outcome<Self> {
        match Ledger::open(&state) {
            Ok(ledger) => Ok(Self::Disk(Box::new(ledger), state)),
            Err(error) if error.kind() == ErrorKind::Conflict => match runtime_file::find_state(&state)? {
                Some(record) => Ok(Self::Server(Connection::open(Some(&record.url))?)),
                None => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn words(&self) -> String {
        match self {
            Self::Server(connection) => connection.url.clone(),
            Self::Disk(_, state) => state.display().to_string(),
        }
    }

    /// What went wrong, with what to do; `command` lists what there is.
    pub(crate) async fn explain(&self, error: Error, command: &str) -> Failure {
        match (error.kind(), self) {
            (ErrorKind::NotFound, _) => {
                Failure::new(error.message(), format!("`byzerllm {command} list` shows their numbers."))
            }
            (_, Self::Server(connection)) => connection.explain(error).await,
            (_, Self::Disk(..)) => error.into(),
        }
    }
}
