//! Text in which markers may stand.

/// Finds markers. What could become one is held back, and so is white space, which belongs to a marker that follows.
#[derive(Debug)]
pub(super) struct Prose {
    /// The first character of a marker is nowhere else in it.
    markers: &'static [&'static str],
    /// White space before `start`.
    pub(super) space: String,
    /// The start of a marker.
    start: String,
}

impl Prose {
    pub(super) fn new(markers: &'static [&'static str]) -> Self {
        Self { markers, space: String::new(), start: String::new() }
    }

    /// Whether a marker could be under way.
    pub(super) fn in_marker(&self) -> bool {
        !self.start.is_empty()
    }

    /// Takes a character, adds to `text` what is certainly none of a marker. The marker that is complete, if one is.
    pub(super) fn step(&mut self, c: char, text: &mut String) -> Option<&'static str> {
        loop {
            let held = self.start.len();
            self.start.push(c);
            if let Some(marker) = self.markers.iter().find(|marker| marker.starts_with(&self.start)) {
                if marker.len() == self.start.len() {
                    self.start.clear();
                    return Some(marker);
                }
                return None;
            }
            self.start.truncate(held);
            if held > 0 {
                text.push_str(&std::mem::take(&mut self.space));
                text.push_str(&std::mem::take(&mut self.start));
                continue;
            }
            if c.is_whitespace() {
                self.space.push(c);
            } else {
                text.push_str(&std::mem::take(&mut self.space));
                text.push(c);
            }
            return None;
        }
    }

    /// Ends the text. White space at its end is left out where `trim` says so.
    pub(super) fn finish(&mut self, trim: bool) -> String {
        let space = std::mem::take(&mut self.space);
        let start = std::mem::take(&mut self.start);
        if trim && start.is_empty() { String::new() } else { space + &start }
    }
}
