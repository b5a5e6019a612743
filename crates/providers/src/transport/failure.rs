//! An attempt that failed, and what follows from it.

use byzerllm_core::{Error, ErrorKind};

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What the caller is told when nothing helps.
    pub(crate) error: Error,
    /// Whether another attempt may help.
    pub(crate) retry: bool,
    /// Whether the vendor may bill for it.
    pub(crate) billed: bool,
    /// What it tells of the deployment, for the circuit breaker: whether it works.
    pub(crate) works: Option<bool>,
}

impl Failure {
    /// Nothing was sent, and another attempt may reach the vendor.
    pub(crate) fn unreachable(error: Error) -> Self {
        Self { error, retry: true, billed: false, works: Some(false) }
    }

    /// The message was sent, and what came back is no answer; another attempt may get one.
    pub(crate) fn broken(error: Error) -> Self {
        Self { error, retry: true, billed: true, works: Some(false) }
    }

    /// Nothing was sent, and nothing would be different the next time.
    pub(crate) fn hopeless(error: Error) -> Self {
        Self { error, retry: false, billed: false, works: None }
    }

    /// The time for the whole request is over.
    pub(crate) fn late(error: Error, billed: bool) -> Self {
        Self { error, retry: false, billed, works: None }
    }

    /// A copy, for those who waited for the same thing.
    pub(crate) fn duplicate(&self) -> Self {
        Self { error: self.error.duplicate(), ..*self }
    }

    /// The vendor's own error, with the status of its answer.
    pub(crate) fn said(error: Error, status: u16) -> Self {
        let kind = error.kind();
        let refused = match status {
            // Some vendors say no with status 200.
            200..300 => certain(kind),
            400 | 401 | 403 | 404 | 413 | 422 | 429 => true,
            _ => false,
        };
        let ill =
            status >= 500 || status == 408 || matches!(kind, ErrorKind::Upstream | ErrorKind::Unavailable);
        Self { retry: kind.is_retryable(), billed: !refused, works: Some(!ill), error }
    }
}

/// Whether a vendor that says this has certainly done nothing that it bills.
pub(crate) const fn certain(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::InvalidRequest
            | ErrorKind::Unauthenticated
            | ErrorKind::PermissionDenied
            | ErrorKind::NotFound
            | ErrorKind::TooLarge
            | ErrorKind::Unsupported
            | ErrorKind::RateLimited
            | ErrorKind::Overloaded
    )
}
