//! How many tokens a request can have, before anybody has counted them.

use byzerllm_core::{ChatRequest, EmbeddingInput, EmbeddingRequest, Input, Message, Part, RerankRequest};

/// What chat templates put around a message.
const PER_MESSAGE: u64 = 16;
/// What a picture counts, which nobody can know beforehand: a large one of the models that cut pictures into tiles.
const PER_IMAGE: u64 = 1600;

/// Tokens of the prompt at most, and of all answers as far as the request bounds them. A token stands for at least one
/// byte of text.
pub(crate) fn chat_tokens(request: &ChatRequest) -> u64 {
    let prompt = match &request.input {
        Input::Messages(messages) => messages.iter().map(message).fold(0, u64::saturating_add),
        Input::Text(text) => size(text.len()),
        Input::Tokens(ids) => size(ids.len()),
    };
    let tools = request.tools.iter().map(|tool| {
        let parameters = tool.parameters.as_ref().map_or(0, |schema| size(schema.to_string().len()));
        size(tool.name.len() + tool.description.as_ref().map_or(0, String::len)) + parameters + PER_MESSAGE
    });
    let answers = u64::from(request.n.max(request.best_of.unwrap_or(0)));
    let answer = u64::from(request.sampling.max_tokens.unwrap_or(0)).saturating_mul(answers);
    tools.fold(prompt.saturating_add(answer), u64::saturating_add)
}

/// Tokens of all inputs at most.
pub(crate) fn embedding_tokens(request: &EmbeddingRequest) -> u64 {
    let inputs = request.inputs.iter().map(|input| match input {
        EmbeddingInput::Text(text) => size(text.len()) + PER_MESSAGE,
        EmbeddingInput::Tokens(ids) => size(ids.len()),
    });
    inputs.fold(0, u64::saturating_add)
}

/// Tokens of all pairs at most.
pub(crate) fn rerank_tokens(request: &RerankRequest) -> u64 {
    let pairs = request.pairs.iter().map(|pair| size(pair.query.len() + pair.passage.len()) + PER_MESSAGE);
    pairs.fold(0, u64::saturating_add)
}

fn message(message: &Message) -> u64 {
    let text = if message.parts.is_empty() {
        size(message.content.len())
    } else {
        let parts = message.parts.iter().map(|part| match part {
            Part::Text { text } => size(text.len()),
            Part::Image { .. } => PER_IMAGE,
        });
        parts.fold(0, u64::saturating_add)
    };
    let extra: u64 = message.extra.values().map(|value| size(value.to_string().len())).sum();
    text.saturating_add(extra).saturating_add(PER_MESSAGE)
}

fn size(length: usize) -> u64 {
    length as u64
}

#[cfg(test)]
mod tests {
    use byzerllm_core::Role;

    use super::*;

    #[test]
    fn a_request_is_never_thought_smaller_than_its_text_and_its_answer() {
        let mut request =
            ChatRequest::new("m", Input::Messages(vec![Message::new(Role::User, "0123456789")]));
        request.sampling.max_tokens = Some(100);
        request.n = 3;
        assert_eq!(chat_tokens(&request), 10 + PER_MESSAGE + 300);
        request.best_of = Some(5);
        assert_eq!(chat_tokens(&request), 10 + PER_MESSAGE + 500);
        let picture = Part::Image { url: format!("data:{}", "x".repeat(1 << 20)), detail: None };
        let parts = vec![Part::Text { text: "0123".to_owned() }, picture];
        let request = ChatRequest::new("m", Input::Messages(vec![Message::of_parts(Role::User, parts)]));
        assert_eq!(chat_tokens(&request), 4 + PER_IMAGE + PER_MESSAGE, "bytes of a picture are no tokens");
        assert_eq!(chat_tokens(&ChatRequest::new("m", Input::Tokens(vec![1, 2, 3]))), 3);
    }

    #[test]
    fn inputs_to_embed_add_up() {
        let inputs = vec![EmbeddingInput::Text("abc".to_owned()), EmbeddingInput::Tokens(vec![1, 2])];
        let request = EmbeddingRequest {
            model: "m".to_owned(),
            inputs,
            dimensions: None,
            truncate: false,
            prompt: None,
            extra: serde_json::Map::new(),
        };
        assert_eq!(embedding_tokens(&request), 3 + PER_MESSAGE + 2);
    }
}
