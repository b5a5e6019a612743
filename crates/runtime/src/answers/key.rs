//! Which requests are the same.

use std::io;

use byzerllm_core::{ChatRequest, Domain, EmbeddingRequest, Error, FrontEnd, RerankRequest, Result};
use serde::Serialize;

/// A keyed hash of everything that an answer depends on.
pub(crate) type Key = [u8; 32];

/// Writes into a hash.
struct Hashing(blake3::Hasher);

impl io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The key of a request whose sampling is resolved.
pub(super) fn chat(hash_key: &Key, domain: Domain, deployment: &str, request: &ChatRequest) -> Result<Key> {
    // How the answer travels and who filled in the defaults does not change it.
    let request = ChatRequest { whole: false, front_end: FrontEnd::OpenAi, ..request.clone() };
    hash(hash_key, &("chat", domain, deployment, request))
}

pub(super) fn embedding(
    hash_key: &Key,
    domain: Domain,
    deployment: &str,
    request: &EmbeddingRequest,
) -> Result<Key> {
    hash(hash_key, &("embedding", domain, deployment, request))
}

pub(super) fn rerank(
    hash_key: &Key,
    domain: Domain,
    deployment: &str,
    request: &RerankRequest,
) -> Result<Key> {
    hash(hash_key, &("rerank", domain, deployment, request))
}

fn hash(hash_key: &Key, value: &impl Serialize) -> Result<Key> {
    let mut hashing = Hashing(blake3::Hasher::new_keyed(hash_key));
    serde_json::to_writer(&mut hashing, value)
        .map_err(|error| Error::internal("the request cannot be written as JSON").with_source(error))?;
    Ok(*hashing.0.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use byzerllm_core::{Input, Message, ResponseFormat, Role, Tool, ToolChoice};
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_that_makes_an_answer_makes_its_key() {
        let base = || ChatRequest::new("chat", Input::Messages(vec![Message::new(Role::User, "hello")]));
        let changes: [fn(&mut ChatRequest); 16] = [
            |request| request.input = Input::Text("hello".to_owned()),
            |request| request.input = Input::Messages(vec![Message::new(Role::System, "hello")]),
            |request| {
                let mut message = Message::new(Role::User, "hello");
                message.extra.insert("name".to_owned(), json!("ann"));
                request.input = Input::Messages(vec![message]);
            },
            |request| request.echo = true,
            |request| request.prompt_logprobs = Some(0),
            |request| request.n = 2,
            |request| request.best_of = Some(2),
            |request| request.sampling.temperature = Some(0.5),
            |request| request.sampling.seed = Some(1),
            |request| request.sampling.max_tokens = Some(1),
            |request| request.format = ResponseFormat::JsonObject,
            |request| {
                let tool = Tool { name: "f".to_owned(), description: None, parameters: None, strict: false };
                request.tools = vec![tool];
            },
            |request| request.tool_choice = ToolChoice::Required,
            |request| request.parallel_tool_calls = false,
            |request| request.clip_max_tokens = true,
            |request| {
                request.extra.insert("top_a".to_owned(), json!(1));
            },
        ];
        let key = |request: &ChatRequest| chat(&[7; 32], Domain(1), "chat", request).unwrap();
        let mut keys: Vec<Key> = changes
            .iter()
            .map(|change| {
                let mut request = base();
                change(&mut request);
                key(&request)
            })
            .collect();
        keys.push(key(&base()));
        keys.push(chat(&[7; 32], Domain(2), "chat", &base()).unwrap());
        keys.push(chat(&[7; 32], Domain(1), "other", &base()).unwrap());
        keys.push(chat(&[8; 32], Domain(1), "chat", &base()).unwrap());
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), count);
        let same = ChatRequest { whole: true, front_end: FrontEnd::Legacy, ..base() };
        assert_eq!(key(&same), key(&base()));
    }
}
