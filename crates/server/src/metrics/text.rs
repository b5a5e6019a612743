//! Prometheus' text exposition format, version 0.0.4.

use std::fmt::{Display, Write};

use byzerllm_runtime::Histogram;

/// The content type of the format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a metric is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A page of metrics. A metric's samples follow it at once.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
    name: &'static str,
}

/// Names and values of labels.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Page {
    /// Begins a metric. The help is a line of ours.
    pub(super) fn metric(&mut self, kind: Kind, name: &'static str, help: &str) {
        self.name = name;
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {}", kind.as_str()));
    }

    pub(super) fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        self.write("", labels, value);
    }

    pub(super) fn histogram(&mut self, labels: Labels<'_>, histogram: &Histogram) {
        let mut sum = 0;
        for (bound, count) in histogram.bounds.iter().chain(&[f64::INFINITY]).zip(&histogram.counts) {
            sum += count;
            let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
            self.write("_bucket", &[labels, &[("le", bound.as_str())]].concat(), sum);
        }
        self.write("_sum", labels, histogram.sum.as_secs_f64());
        self.write("_count", labels, sum);
    }

    fn write(&mut self, suffix: &str, labels: Labels<'_>, value: impl Display) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        for (place, (name, value)) in labels.iter().enumerate() {
            self.text.push(if place == 0 { '{' } else { ',' });
            self.text.push_str(name);
            self.text.push_str("=\"");
            for character in value.chars() {
                match character {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    character => self.text.push(character),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        self.line(format_args!(" {value}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let _infallible = writeln!(self.text, "{line}");
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn labels_cannot_leave_their_quotes() {
        let mut page = Page::default();
        page.metric(Kind::Gauge, "g", "Help.");
        page.sample(&[("a", "x\"} 1\ny\\"), ("b", "é")], 2.5);
        page.sample(&[], 0);
        let expected = "# HELP g Help.\n# TYPE g gauge\ng{a=\"x\\\"} 1\\ny\\\\\",b=\"é\"} 2.5\ng 0\n";
        assert_eq!(page.finish(), expected);
    }

    #[test]
    fn buckets_add_up() {
        let mut page = Page::default();
        page.metric(Kind::Histogram, "h", "Help.");
        let sum = Duration::from_millis(12_500);
        page.histogram(&[("a", "x")], &Histogram { bounds: &[0.05, 1.0], counts: vec![2, 0, 1], sum });
        let expected = "# HELP h Help.\n# TYPE h histogram\nh_bucket{a=\"x\",le=\"0.05\"} 2\n\
            h_bucket{a=\"x\",le=\"1\"} 2\nh_bucket{a=\"x\",le=\"+Inf\"} 3\nh_sum{a=\"x\"} 12.5\nh_count{a=\"x\"} 3\n";
        assert_eq!(page.finish(), expected);
    }
}
