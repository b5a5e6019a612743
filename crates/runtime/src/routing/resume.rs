//! Going on from the text so far.

use std::sync::Arc;

use byzerllm_core::{
    ChatRequest, Error, ErrorKind, Event, Input, Message, Notice, ResponseFormat, Result, Role, Takeover,
};

use super::{ENGINE, Targets};

/// What was said to the caller, as far as another target may have to go on from it.
#[derive(Debug)]
pub(super) struct Said {
    request: Option<Arc<ChatRequest>>,
    text: String,
    /// White space at the end of `text` that the target did not see and may say again.
    overlap: String,
}

impl Said {
    /// Nothing yet. The text is kept only where it may be needed and a text can be gone on from: one answer, of free form.
    pub(super) fn new(request: &ChatRequest, takeover: Takeover) -> Self {
        let one_text = request.n == 1
            && request.best_of.is_none_or(|best_of| best_of == 1)
            && !request.echo
            && request.format == ResponseFormat::Text;
        let kept = takeover == Takeover::Continue && one_text;
        Self { request: kept.then(|| Arc::new(request.clone())), text: String::new(), overlap: String::new() }
    }

    /// Notes an event; nothing is left of one that says again what was said.
    pub(super) fn hear(&mut self, event: Event) -> Option<Event> {
        if self.request.is_none() {
            return Some(event);
        }
        match event {
            Event::Text { choice, text, logprobs } => {
                let text = self.without_overlap(text);
                if text.is_empty() && logprobs.as_ref().is_none_or(Vec::is_empty) {
                    return None;
                }
                self.text.push_str(&text);
                Some(Event::Text { choice, text, logprobs })
            }
            // A call cannot be gone on from.
            Event::ToolCall { .. } => {
                self.request = None;
                Some(event)
            }
            Event::Notice { notice: Notice::Restarted } => {
                self.text.clear();
                self.overlap.clear();
                Some(event)
            }
            other => Some(other),
        }
    }

    fn without_overlap(&mut self, text: String) -> String {
        if self.overlap.is_empty() {
            return text;
        }
        let same = self.overlap.chars().zip(text.chars()).take_while(|(a, b)| a == b);
        let length: usize = same.map(|(a, _)| a.len_utf8()).sum();
        if length < text.len() {
            self.overlap.clear();
        } else {
            self.overlap.drain(..length);
        }
        text[length..].to_owned()
    }

    /// What a target needs to go on; nothing when it cannot be gone on from what was said.
    pub(super) fn resumable(&self) -> Option<Resumed> {
        let request = self.request.clone()?;
        (!self.text.is_empty()).then(|| Resumed { request, text: self.text.clone() })
    }

    /// A target goes on that did not see the white space at the end.
    pub(super) fn expect_again(&mut self, white_space: &str) {
        white_space.clone_into(&mut self.overlap);
    }
}

/// A request whose answer is half said.
#[derive(Debug)]
pub(super) struct Resumed {
    request: Arc<ChatRequest>,
    text: String,
}

impl Resumed {
    /// Whether so many generated tokens are all that was asked for.
    pub(super) fn is_at_limit(&self, used: u32) -> bool {
        self.request.sampling.max_tokens.is_some_and(|max| used >= max)
    }

    /// The white space at the end of the text.
    pub(super) fn white_space(&self) -> &str {
        &self.text[self.text.trim_end().len()..]
    }

    /// The request for the rest of the answer, `used` tokens of which are said, and whether the target is not shown the
    /// white space at the end of the text. Vendors refuse to go on from white space.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the target cannot go on from a text, and what its template finds wrong.
    pub(super) fn request(
        &self,
        targets: &dyn Targets,
        target: &str,
        used: u32,
    ) -> Result<(ChatRequest, bool)> {
        let mut request = (*self.request).clone();
        let sampling = &mut request.sampling;
        sampling.max_tokens = sampling.max_tokens.map(|max| max.saturating_sub(used).max(1));
        sampling.min_tokens = sampling.min_tokens.map(|min| min.saturating_sub(used));
        request.prompt_logprobs = None;
        if let Input::Text(text) = &mut request.input {
            text.push_str(&self.text);
            return Ok((request, false));
        }
        let handle = targets.model(target)?;
        // The ids of one vocabulary are noise in another, and nobody knows whom a route asks.
        let model = handle.chat.filter(|_| handle.info.engine != ENGINE).ok_or_else(|| cannot(target))?;
        match &mut request.input {
            Input::Messages(messages) => {
                if let Some(field) = model.continuation() {
                    let mut so_far = Message::new(Role::Assistant, self.text.trim_end());
                    if !field.is_empty() {
                        so_far.extra.insert(field.to_owned(), true.into());
                    }
                    messages.push(so_far);
                    return Ok((request, true));
                }
                if !request.tools.is_empty() || messages.iter().any(Message::has_images) {
                    return Err(cannot(target));
                }
                let text = model.apply_template(messages, true)? + &self.text;
                request.input = Input::Tokens(model.tokenize(&text)?);
                Ok((request, false))
            }
            Input::Tokens(ids) => {
                ids.extend(model.tokenize(&self.text)?);
                Ok((request, false))
            }
            Input::Text(_) => Ok((request, false)),
        }
    }
}

fn cannot(target: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("'{target}' cannot go on from a text"))
}

#[cfg(test)]
mod tests {
    use byzerllm_core::ToolCallDelta;

    use super::*;

    fn request() -> ChatRequest {
        ChatRequest::new("chat", Input::Text("prompt".to_owned()))
    }

    fn text(text: &str) -> Event {
        Event::Text { choice: 0, text: text.to_owned(), logprobs: None }
    }

    #[test]
    fn white_space_that_is_said_again_is_left_out() {
        for (pieces, expected) in [
            (&[" \n", "two"][..], "one \ntwo"),
            (&[" ", "\n", "two"], "one \ntwo"),
            (&["two"], "one \ntwo"),
            (&[" two"], "one \ntwo"),
            (&[" \n\ntwo"], "one \n\ntwo"),
            (&["\n two"], "one \n\n two"),
        ] {
            let mut said = Said::new(&request(), Takeover::Continue);
            let mut heard = String::new();
            let mut hear = |said: &mut Said, piece: &str| {
                if let Some(Event::Text { text, .. }) = said.hear(text(piece)) {
                    assert!(!text.is_empty());
                    heard.push_str(&text);
                }
            };
            hear(&mut said, "one \n");
            let resumed = said.resumable().unwrap();
            assert_eq!(resumed.white_space(), " \n");
            said.expect_again(resumed.white_space());
            for piece in pieces {
                hear(&mut said, piece);
            }
            assert_eq!(heard, expected, "{pieces:?}");
            assert_eq!(said.text, expected);
        }
    }

    #[test]
    fn only_one_free_text_can_be_gone_on_from() {
        let with = |change: fn(&mut ChatRequest)| {
            let mut request = request();
            change(&mut request);
            request
        };
        let said = |request: &ChatRequest, takeover| {
            let mut said = Said::new(request, takeover);
            said.hear(text("one"));
            said
        };
        assert!(said(&request(), Takeover::Continue).resumable().is_some());
        assert!(said(&request(), Takeover::Restart).resumable().is_none());
        assert!(Said::new(&request(), Takeover::Continue).resumable().is_none(), "nothing was said");
        for request in [
            with(|request| request.n = 2),
            with(|request| request.best_of = Some(2)),
            with(|request| request.echo = true),
            with(|request| request.format = ResponseFormat::JsonObject),
        ] {
            assert!(said(&request, Takeover::Continue).resumable().is_none(), "{request:?}");
        }
        let mut calling = said(&request(), Takeover::Continue);
        let delta = ToolCallDelta { index: 0, id: None, name: None, arguments: String::new() };
        calling.hear(Event::ToolCall { choice: 0, delta });
        assert!(calling.resumable().is_none());
    }
}
