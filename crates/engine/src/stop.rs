//! Stop strings, found across the borders of tokens.
//!
//! The text ends at the stop string that is complete first; of several that are complete with the same character the
//! longest wins. This does not depend on how the text is cut into pieces. Text that may be the beginning of a stop
//! string is held back until that is decided.

/// Looks for stop strings in text that comes in pieces.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopMatcher {
    stops: Vec<String>,
    held: String,
    stopped: Option<String>,
}

impl StopMatcher {
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new(), stopped: None }
    }

    /// Whether a stop string was found; nothing follows it.
    pub(crate) fn stopped(&self) -> bool {
        self.stopped.is_some()
    }

    /// The stop string that was found.
    pub(crate) fn found(&self) -> Option<&str> {
        self.stopped.as_deref()
    }

    /// Adds text and returns what is certain not to be part of a stop string.
    pub(crate) fn push(&mut self, text: &str) -> String {
        if self.stopped.is_some() {
            return String::new();
        }
        if self.stops.is_empty() {
            return text.to_owned();
        }
        self.held.push_str(text);
        let first = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()).map(|start| (start + stop.len(), start, stop)))
            .min();
        if let Some((_, start, stop)) = first {
            self.stopped = Some(stop.clone());
            self.held.truncate(start);
            return std::mem::take(&mut self.held);
        }
        let kept = self.stops.iter().map(|stop| longest_beginning(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - kept);
        std::mem::replace(&mut self.held, rest)
    }

    /// No more text comes: returns what was held back.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// The length of the longest end of `text` that is a beginning of `stop`, but not all of it.
fn longest_beginning(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    (1..=longest)
        .rev()
        .find(|&length| {
            text.is_char_boundary(text.len() - length) && stop.starts_with(&text[text.len() - length..])
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(text: &str, stops: &[String]) -> (String, bool) {
        // By the book: the first place where some stop string is complete, its longest match.
        for end in 1..=text.len() {
            if text.is_char_boundary(end)
                && let Some(longest) =
                    stops.iter().filter(|stop| text[..end].ends_with(*stop)).max_by_key(|stop| stop.len())
            {
                return (text[..end - longest.len()].to_owned(), true);
            }
        }
        (text.to_owned(), false)
    }

    #[test]
    fn nothing_of_a_stop_string_is_shown() {
        let mut matcher = StopMatcher::new(vec!["\n\n".into(), "END".into()]);
        assert_eq!(matcher.push("one\n"), "one");
        assert_eq!(matcher.push("two E"), "\ntwo ");
        assert_eq!(matcher.push("N"), "");
        assert_eq!(matcher.push("Dx"), "");
        assert_eq!(matcher.found(), Some("END"));
        assert_eq!(matcher.finish(), "");
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_text(
            text in "[abc界]{0,40}",
            stops in prop::collection::vec("[abc界]{1,4}", 0..4),
            cuts in prop::collection::vec(0usize..40, 0..12),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|&cut| cut <= text.len() && text.is_char_boundary(cut)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut matcher = StopMatcher::new(stops.clone());
            let mut shown = String::new();
            for pair in cuts.windows(2) {
                shown.push_str(&matcher.push(&text[pair[0]..pair[1]]));
            }
            if !matcher.stopped() {
                shown.push_str(&matcher.finish());
            }
            prop_assert_eq!((shown, matcher.stopped()), whole(&text, &stops));
        }
    }
}
