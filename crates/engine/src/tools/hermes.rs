//! The format of Hermes and Qwen: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, any number of them.

use std::sync::Arc;

use super::call::{Call, Members};
use super::parts::Parts;
use super::prose::Prose;
use super::{CallParser, Format, Ids, Shape, broken, unfinished};

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
static MEMBERS: Members = Members { arguments: &["arguments"] };

pub(super) static FORMAT: Format = Format {
    name: "hermes",
    any: &[OPEN],
    // Templates with the same marker around calls that are not JSON.
    none: &["<function=", "<arg_key>"],
    special: false,
    arguments: "arguments",
    shape: Shape::Marked { open: "<tool_call>\n", close: "\n</tool_call>" },
    ids: Ids::Prefixed,
    parser: |tools| Box::new(Hermes::new(tools)),
};

struct Hermes {
    tools: Arc<[String]>,
    prose: Prose,
    call: Option<Call>,
}

impl Hermes {
    fn new(tools: Arc<[String]>) -> Self {
        Self { tools, prose: Prose::new(&[OPEN, CLOSE]), call: None }
    }

    fn prose(&mut self, c: char, out: &mut Parts) {
        let mut text = String::new();
        let marker = self.prose.step(c, &mut text);
        out.text(&text);
        match marker {
            Some(OPEN) => {
                let before = std::mem::take(&mut self.prose.space) + OPEN;
                self.call = Some(Call::new(&MEMBERS, self.tools.clone(), before));
            }
            Some(_) if out.any_complete() => self.prose.space.clear(),
            Some(close) => out.text(&(std::mem::take(&mut self.prose.space) + close)),
            None => {}
        }
    }
}

impl CallParser for Hermes {
    fn push(&mut self, c: char, out: &mut Parts) {
        let Some(call) = &mut self.call else { return self.prose(c, out) };
        match call.push(c, out) {
            Ok(false) => {}
            Ok(true) => self.call = None,
            Err(why) => {
                broken(self.call.take(), &why.0, out);
                self.prose(c, out);
            }
        }
    }

    fn finish(&mut self, cut: bool, out: &mut Parts) {
        unfinished(self.call.take(), cut, out);
        let rest = self.prose.finish(out.any_complete());
        out.text(&rest);
    }
}
