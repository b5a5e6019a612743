//! Which failures another target may mend, and what is told when none could.

use std::time::Duration;

use byzerllm_core::{Error, ErrorKind};

/// Whether another target may do better, because the failure is the target's and not the request's.
pub(super) fn another_may_do_better(kind: ErrorKind) -> bool {
    match kind {
        // The vendor, its network, its limits.
        ErrorKind::RateLimited
        | ErrorKind::Overloaded
        | ErrorKind::DeadlineExceeded
        | ErrorKind::Upstream
        | ErrorKind::Unavailable => true,
        // The target's own key, model, context length or abilities; another target has its own.
        ErrorKind::Unauthenticated
        | ErrorKind::PermissionDenied
        | ErrorKind::NotFound
        | ErrorKind::TooLarge
        | ErrorKind::Unsupported => true,
        ErrorKind::InvalidRequest | ErrorKind::Conflict | ErrorKind::Cancelled | ErrorKind::Internal => false,
    }
}

/// Failures of targets, in the order in which they came.
pub(super) type Failures<'a> = Vec<(&'a str, Error)>;

/// The one error of a request that no target answered: of a kind that is worth a retry if there is one, soonest first,
/// with what each target said.
pub(super) fn combined(route: &str, mut failures: Failures<'_>) -> Error {
    let Some(best) = best(&failures) else {
        return Error::new(ErrorKind::Unavailable, format!("no target of '{route}' takes requests"));
    };
    if failures.len() == 1 {
        return failures.swap_remove(best).1;
    }
    let told: Vec<String> =
        failures.iter().map(|(target, error)| format!("'{target}': {}", error.message())).collect();
    let (_, chosen) = &failures[best];
    let message = format!("no target of '{route}' answered; {}", told.join("; "));
    let mut error = Error::new(chosen.kind(), message);
    if let Some(param) = chosen.param() {
        error = error.with_param(param.to_owned());
    }
    if let Some(after) = chosen.retry_after() {
        error = error.with_retry_after(after);
    }
    if let Some(id) = chosen.vendor_request_id() {
        error = error.with_vendor_request_id(id);
    }
    error.with_source(failures.swap_remove(best).1)
}

fn best(failures: &[(&str, Error)]) -> Option<usize> {
    let rank = |error: &Error| {
        (
            !error.kind().is_retryable(),
            error.retry_after().is_none(),
            error.retry_after().unwrap_or(Duration::ZERO),
        )
    };
    let places = failures.iter().enumerate();
    places.min_by_key(|(place, (_, error))| (rank(error), *place)).map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_the_one_that_is_soonest_mended() {
        let after = |seconds| {
            Error::new(ErrorKind::RateLimited, format!("in {seconds} s"))
                .with_retry_after(Duration::from_secs(seconds))
                .with_vendor_request_id("id")
        };
        let failures = vec![
            ("a", Error::new(ErrorKind::Unauthenticated, "wrong key")),
            ("b", after(9)),
            ("c", after(5)),
            ("d", Error::new(ErrorKind::Upstream, "broken")),
        ];
        let error = combined("chat", failures);
        assert_eq!(
            (error.kind(), error.retry_after()),
            (ErrorKind::RateLimited, Some(Duration::from_secs(5)))
        );
        assert_eq!(error.vendor_request_id(), Some("id"));
        for part in ["'chat'", "'a': wrong key", "'b': in 9 s", "'c': in 5 s", "'d': broken"] {
            assert!(error.message().contains(part), "{error}");
        }
    }

    #[test]
    fn a_lone_failure_is_passed_on_as_it_is() {
        let error =
            combined("chat", vec![("a", Error::new(ErrorKind::TooLarge, "too long").with_param("messages"))]);
        assert_eq!(
            (error.kind(), error.message(), error.param()),
            (ErrorKind::TooLarge, "too long", Some("messages"))
        );
        assert_eq!(combined("chat", Vec::new()).kind(), ErrorKind::Unavailable);
    }
}
