//! The format of Llama 3: the answer is `{"name": …, "parameters": {…}}`, after `<|python_tag|>` or alone, several of
//! them with semicolons between. An object at another place is text, and so is one without a name.

use std::sync::Arc;

use super::call::{Call, Members};
use super::parts::Parts;
use super::prose::Prose;
use super::{CallParser, Format, Ids, Shape, broken, unfinished};

const TAG: &str = "<|python_tag|>";
static MEMBERS: Members = Members { arguments: &["parameters", "arguments"] };

pub(super) static FORMAT: Format = Format {
    name: "llama",
    any: &[TAG, r#"{"name": function name, "parameters":"#],
    none: &[],
    special: false,
    arguments: "parameters",
    shape: Shape::Bare { tag: TAG },
    ids: Ids::Prefixed,
    parser: |tools| Box::new(Llama::new(tools)),
};

struct Llama {
    tools: Arc<[String]>,
    prose: Prose,
    call: Option<Call>,
    /// A call may begin here.
    may_begin: bool,
    /// The tag announced one.
    tagged: bool,
}

impl Llama {
    fn new(tools: Arc<[String]>) -> Self {
        Self { tools, prose: Prose::new(&[TAG]), call: None, may_begin: true, tagged: false }
    }

    fn prose(&mut self, c: char, out: &mut Parts) {
        if self.may_begin && !self.prose.in_marker() {
            if c == '{' {
                let before = std::mem::take(&mut self.prose.space);
                let mut call = Call::new(&MEMBERS, self.tools.clone(), before);
                // A first bracket breaks nothing.
                if call.push(c, out).is_ok() {
                    self.call = Some(call);
                }
                return;
            }
            if c == ';' && out.any_complete() {
                return self.prose.space.push(c);
            }
        }
        let mut text = String::new();
        let marker = self.prose.step(c, &mut text);
        if !text.is_empty() {
            if std::mem::take(&mut self.tagged) {
                out.broken("no JSON object follows the marker", false);
            }
            self.may_begin = false;
        }
        out.text(&text);
        if let Some(tag) = marker {
            // Held like white space: it is text unless a call follows.
            self.prose.space.push_str(tag);
            (self.may_begin, self.tagged) = (true, true);
        }
    }
}

impl CallParser for Llama {
    fn push(&mut self, c: char, out: &mut Parts) {
        let Some(call) = &mut self.call else { return self.prose(c, out) };
        match call.push(c, out) {
            Ok(false) => return,
            Ok(true) => self.call = None,
            Err(why) => {
                let call = self.call.take();
                self.may_begin = false;
                if self.tagged || call.as_ref().is_some_and(|call| call.named() || call.sent()) {
                    broken(call, &why.0, out);
                } else {
                    out.text(&call.map(Call::into_raw).unwrap_or_default());
                }
                self.tagged = false;
                self.prose(c, out);
            }
        }
        self.tagged = false;
    }

    fn finish(&mut self, cut: bool, out: &mut Parts) {
        let announced = self.tagged || self.call.as_ref().is_some_and(|call| call.named() || call.sent());
        unfinished(self.call.take(), cut || !announced, out);
        let rest = self.prose.finish(out.any_complete());
        out.text(&rest);
    }
}
