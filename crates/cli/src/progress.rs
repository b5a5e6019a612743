//! Bars for work whose share that is done is known: on a terminal, nothing elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Steps of a whole bar.
const STEPS: u64 = 1000;

/// A bar that shows a share of the whole, with the time that is left.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// An empty bar behind what is being done.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        let bar = ProgressBar::new(STEPS);
        if let Ok(style) = ProgressStyle::with_template("{msg} {bar:24} {percent:>3} % {elapsed} {eta}") {
            bar.set_style(style);
        }
        bar.set_message(message.into());
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    /// Shows a share from 0 to 1.
    pub(crate) fn share(&self, share: f32) {
        self.0.set_position((f64::from(share.clamp(0.0, 1.0)) * STEPS as f64) as u64);
    }

    /// Whether nobody sees it.
    pub(crate) fn is_hidden(&self) -> bool {
        self.0.is_hidden()
    }

    /// Takes it away.
    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_part_of_the_bar() {
        let bar = Progress::new("quantizing");
        for (share, position) in [(0.25, 250), (-1.0, 0), (7.0, 1000), (f32::NAN, 0)] {
            bar.share(share);
            assert_eq!(bar.0.position(), position, "{share}");
        }
    }
}
