//! How long to wait before the next attempt.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::RETRY_AFTER;

/// The first wait is up to this; each further one up to twice as long.
const BASE: Duration = Duration::from_millis(250);
/// No wait of our own choice is longer.
const LONGEST: Duration = Duration::from_secs(8);
/// A vendor that wants us to wait longer is not asked again: the caller is told instead.
pub(crate) const LONGEST_ASKED: Duration = Duration::from_secs(60);

/// Random numbers for waits (SplitMix64). Same seed, same waits.
#[derive(Debug)]
pub(crate) struct Jitter(AtomicU64);

impl Jitter {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    pub(crate) fn next(&self) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15;
        let mut bits = self.0.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

/// The wait after so many failed attempts, at least 1: exponential with full jitter, and no less than the vendor asked
/// for. `None` when the vendor asked for more than a minute.
pub(crate) fn wait_before(failed: u32, asked: Option<Duration>, jitter: &Jitter) -> Option<Duration> {
    let most = BASE.saturating_mul(1 << failed.saturating_sub(1).min(16)).min(LONGEST);
    let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
    let own = Duration::from_micros(jitter.next() % (most + 1));
    match asked {
        Some(asked) if asked > LONGEST_ASKED => None,
        Some(asked) => Some(own.max(asked)),
        None => Some(own),
    }
}

/// When the vendor wants to be asked again, as far as no clock is needed: `retry-after-ms`, or `Retry-After` in seconds.
pub(crate) fn retry_after_span(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let millis = number("retry-after-ms").map(|millis| millis / 1000.0);
    Duration::try_from_secs_f64(millis.or_else(|| number("retry-after"))?).ok()
}

/// The same, where `Retry-After` may also be a date.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    if let Some(span) = retry_after_span(headers) {
        return Some(span);
    }
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_spread() {
        let jitter = Jitter::new(7);
        for failed in 1..40 {
            let most = BASE.saturating_mul(1 << (failed - 1).min(16)).min(LONGEST);
            let waits: Vec<_> = (0..200).map(|_| wait_before(failed, None, &jitter).unwrap()).collect();
            assert!(waits.iter().all(|wait| *wait <= most), "{failed}");
            assert!(waits.iter().any(|wait| *wait < most / 4), "{failed}");
            assert!(waits.iter().any(|wait| *wait > most * 3 / 4), "{failed}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_waits() {
        let waits = |seed| {
            let jitter = Jitter::new(seed);
            (1..9).map(|failed| wait_before(failed, None, &jitter)).collect::<Vec<_>>()
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }

    #[test]
    fn what_the_vendor_asks_for_is_kept_up_to_a_minute() {
        let jitter = Jitter::new(1);
        let asked = Duration::from_secs(30);
        assert_eq!(wait_before(1, Some(asked), &jitter), Some(asked));
        assert_eq!(wait_before(1, Some(LONGEST_ASKED), &jitter), Some(LONGEST_ASKED));
        assert_eq!(wait_before(1, Some(Duration::from_secs(61)), &jitter), None);
    }

    #[test]
    fn all_forms_of_the_field_are_read() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let read = |name, value: &'static str| {
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
            retry_after(&headers, now)
        };
        assert_eq!(read(RETRY_AFTER, "7"), Some(Duration::from_secs(7)));
        assert_eq!(read(RETRY_AFTER, " 0.5"), Some(Duration::from_millis(500)));
        assert_eq!(read(RETRY_AFTER, "Sun, 06 Nov 1994 08:49:47 GMT"), Some(Duration::from_secs(10)));
        assert_eq!(read(RETRY_AFTER, "Sun, 06 Nov 1994 08:49:27 GMT"), Some(Duration::ZERO));
        assert_eq!(
            read(http::HeaderName::from_static("retry-after-ms"), "20"),
            Some(Duration::from_millis(20))
        );
        for odd in ["-1", "soon", "", "1e99", "NaN"] {
            assert_eq!(read(RETRY_AFTER, odd), None, "{odd}");
        }
    }
}
