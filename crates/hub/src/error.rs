//! What can go wrong on the way to a model, each with what to do about it.

use std::io;
use std::path::Path;

use byzerllm_core::{Error, ErrorKind};

/// A failure. Its text says what failed, [`Problem::remedy`] what to do.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// What was typed names no model.
    #[error("{text:?} names no model: {why}")]
    Reference {
        /// What was typed.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The hub, index or server does not have it.
    #[error("{what} was not found at {place}")]
    Missing {
        /// The thing.
        what: String,
        /// Host name.
        place: String,
        /// The nearest thing that exists, or what to check.
        hint: String,
    },
    /// A credential is missing or not good enough.
    #[error("{place} does not give {what} to {}", if *.had_token { "this token" } else { "anonymous users" })]
    Denied {
        /// The thing.
        what: String,
        /// Host name.
        place: String,
        /// The environment variable that holds the token.
        variable: &'static str,
        /// Whether a token was sent.
        had_token: bool,
        /// Whether the owner has to accept each user.
        gated: bool,
    },
    /// The cache does not have it and the network must not be used.
    #[error("{what} is not in the cache and the network is off")]
    Offline {
        /// The thing.
        what: String,
    },
    /// A connection failed too often, or the server answered with an error.
    #[error("{place}: {why}")]
    Network {
        /// Host name.
        place: String,
        /// What happened.
        why: String,
    },
    /// A server's answer makes no sense, or is hostile.
    #[error("the answer of {place} cannot be used: {why}")]
    Answer {
        /// Host name.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file is not what it should be.
    #[error("{file} has the checksum {found}, expected {expected}; what was downloaded is deleted")]
    Checksum {
        /// The file.
        file: String,
        /// What the source promised.
        expected: String,
        /// What came.
        found: String,
    },
    /// A name that must not become a path.
    #[error("the file name {name:?} is refused: {why}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        why: &'static str,
    },
    /// Several files could be meant.
    #[error("{what}: {options}")]
    Choice {
        /// What is unclear.
        what: String,
        /// What there is.
        options: String,
    },
    /// The disk is too small.
    #[error("{need} bytes are needed in {place} and {free} are free")]
    Space {
        /// Bytes to come.
        need: u64,
        /// Bytes there are.
        free: u64,
        /// The cache.
        place: String,
    },
    /// The file system refused something.
    #[error("cannot {what} {path}: {source}")]
    Disk {
        /// A verb.
        what: &'static str,
        /// The path.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The environment or a settings file is wrong or lacks something.
    #[error("{what}")]
    Setting {
        /// What is wrong.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// Somebody else is using it.
    #[error("{what}")]
    Busy {
        /// What is in use.
        what: String,
    },
}

impl Problem {
    /// What to do about it, as a sentence.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Reference { .. } => {
                "Write ORG/NAME[@REVISION], pypi:PACKAGE==VERSION, https://…/file.gguf#sha256=…, \
                 or a path that exists."
                    .into()
            }
            Self::Missing { hint, .. } => hint.clone(),
            Self::Denied { variable, gated, had_token, .. } => {
                let ask = if *gated { "Ask its owner for access on its page, then set" } else { "Set" };
                let kind = if *had_token { "a token that may read it" } else { "your token" };
                format!("{ask} {variable} to {kind}; a misspelt name looks the same to the hub.")
            }
            Self::Offline { .. } => {
                "Run `byzerllm pull` with a network, without --offline and BYZERLLM_OFFLINE.".into()
            }
            Self::Network { .. } => {
                "Check the network, proxy and mirror settings and run again: what is complete is kept.".into()
            }
            Self::Answer { .. } => {
                "Check the address of the hub or mirror; if it is right, do not trust this model.".into()
            }
            Self::Checksum { .. } => {
                "Run again to download it afresh; if it happens twice, the source has changed or is broken."
                    .into()
            }
            Self::Name { .. } => "Do not use this model: its names could leave the cache.".into(),
            Self::Choice { .. } => "Choose with --file PATTERN, for example --file '*Q8_0*'.".into(),
            Self::Space { .. } => {
                "Free space with `byzerllm models remove NAME`, or set BYZERLLM_CACHE to a larger disk."
                    .into()
            }
            Self::Disk { .. } => "Check the cache directory; BYZERLLM_CACHE chooses another one.".into(),
            Self::Setting { remedy, .. } => remedy.clone(),
            Self::Busy { .. } => "Wait until the other byzerllm is done and run again.".into(),
        }
    }

    pub(crate) fn disk(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Disk { what, path: path.display().to_string(), source }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::Reference { .. } | Self::Choice { .. } | Self::Setting { .. } => ErrorKind::InvalidRequest,
            Self::Missing { .. } | Self::Offline { .. } => ErrorKind::NotFound,
            Self::Denied { .. } => ErrorKind::PermissionDenied,
            Self::Network { .. } | Self::Answer { .. } | Self::Checksum { .. } | Self::Name { .. } => {
                ErrorKind::Upstream
            }
            Self::Space { .. } | Self::Disk { .. } => ErrorKind::Unavailable,
            Self::Busy { .. } => ErrorKind::Conflict,
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::new(problem.kind(), format!("{problem}; {}", problem.remedy())).with_source(problem)
    }
}
