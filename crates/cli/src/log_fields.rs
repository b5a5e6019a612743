//! How the fields of log lines are written.
//!
//! Every request is a span, whose fields are written when it begins, whether or not anything is logged in it: so what no
//! terminal shows is written without the styles of one.

use std::cell::Cell;
use std::fmt::{self, Debug};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::{RecordFields, VisitOutput as _};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, DefaultVisitor, Writer};

/// So many bytes are kept for the next fields.
const KEPT: usize = 1 << 10;

/// The usual form, written faster where it has no styles.
#[derive(Debug, Default)]
pub(crate) struct Fields(DefaultFields);

impl<'writer> FormatFields<'writer> for Fields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        if writer.has_ansi_escapes() {
            return self.0.format_fields(writer, fields);
        }
        thread_local! {
            static TEXT: Cell<String> = const { Cell::new(String::new()) };
        }
        // Once, as what is kept of a span would grow with each piece.
        let mut text = TEXT.take();
        let mut plain = Plain { writer: Writer::new(&mut text), empty: true, result: Ok(()) };
        fields.record(&mut plain);
        let result = plain.result.and_then(|()| writer.write_str(&text));
        text.clear();
        text.shrink_to(KEPT);
        TEXT.set(text);
        result
    }
}

struct Plain<'writer> {
    writer: Writer<'writer>,
    empty: bool,
    result: fmt::Result,
}

impl Plain<'_> {
    fn plain(&mut self, name: &str, value: &dyn Debug) -> fmt::Result {
        if !std::mem::take(&mut self.empty) {
            self.writer.write_char(' ')?;
        }
        self.writer.write_str(name)?;
        self.writer.write_char('=')?;
        write!(self.writer, "{value:?}")
    }

    /// Leaves what is not as simple to the usual form.
    fn usual(&mut self, record: impl FnOnce(&mut DefaultVisitor<'_>)) {
        if self.result.is_err() {
            return;
        }
        let mut visitor = DefaultVisitor::new(self.writer.by_ref(), std::mem::take(&mut self.empty));
        record(&mut visitor);
        self.result = visitor.finish();
    }
}

impl Visit for Plain<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.usual(|visitor| visitor.record_str(field, value)),
            _ => self.record_debug(field, &value),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.usual(|visitor| visitor.record_error(field, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let name = field.name();
        if name == "message" || name.starts_with("r#") || name.starts_with("log.") {
            self.usual(|visitor| visitor.record_debug(field, value));
        } else if self.result.is_ok() {
            self.result = self.plain(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Kept {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn logged(fields: impl for<'w> FormatFields<'w> + Send + Sync + 'static, ansi: bool) -> String {
        let kept = Kept::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(kept.clone())
            .without_time()
            .with_target(false)
            .with_ansi(ansi)
            .fmt_fields(fields)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let source = io::Error::other("the \u{1b}[31mcause");
            let error = byzerllm_core::Error::internal("it broke").with_source(source);
            let error: &dyn std::error::Error = &error;
            let span =
                tracing::info_span!("request", id = %"a b", text = "q\"", later = tracing::field::Empty);
            let _entered = span.enter();
            tracing::warn!(error, number = 3, r#type = ?Some(1), "what \u{1b}[31mhappened");
            span.record("later", 7);
            tracing::info!(message = "only a message");
            tracing::error!(nothing = true);
        });
        let text = kept.0.lock().unwrap().clone();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn fields_are_written_as_they_always_were() {
        let plain = logged(Fields::default(), false);
        assert_eq!(plain, logged(DefaultFields::new(), false));
        assert!(plain.contains("request{id=a b text=\"q\\\"\"") && plain.contains("it broke"), "{plain}");
        assert_eq!(logged(Fields::default(), true), logged(DefaultFields::new(), true));
    }
}
