//! Measures any server that speaks OpenAI's API.

use std::time::{SystemTime, UNIX_EPOCH};

use byzerllm_client::openai::OpenAi;
use serde_json::json;

use super::report::Facts;
use super::{Run, Work, random};
use crate::output::{Failure, Outcome};

/// Frequent English words: in most vocabularies each is one token with its leading space.
const WORDS: [&str; 64] = [
    "time",
    "year",
    "people",
    "way",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
    "student",
    "group",
    "country",
    "problem",
    "hand",
    "part",
    "place",
    "case",
    "week",
    "company",
    "system",
    "program",
    "question",
    "work",
    "government",
    "number",
    "night",
    "point",
    "home",
    "water",
    "room",
    "mother",
    "area",
    "money",
    "story",
    "fact",
    "month",
    "lot",
    "right",
    "study",
    "book",
    "eye",
    "job",
    "word",
    "business",
    "issue",
    "side",
    "kind",
    "head",
    "house",
    "service",
    "friend",
    "father",
    "power",
    "hour",
    "game",
    "line",
    "end",
    "member",
    "law",
];

/// A server and one of its models.
pub(crate) struct Remote {
    client: OpenAi,
    url: String,
    model: String,
    /// Sets the prompts of this measurement apart from those of an earlier one, which the server may have cached.
    stamp: u32,
}

impl Remote {
    pub(crate) fn new(url: &str, model: &str) -> Outcome<Self> {
        let key = std::env::var("OPENAI_API_KEY").ok().filter(|key| !key.is_empty());
        let stamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_micros());
        Ok(Self { client: OpenAi::new(url, key)?, url: url.to_owned(), model: model.to_owned(), stamp })
    }

    pub(super) async fn run(&self, work: Work) -> Outcome<Run> {
        let body = json!({
            "model": self.model,
            "messages": [{ "role": "user", "content": prompt(self.stamp, work.number, work.prompt_tokens) }],
            "max_tokens": work.new_tokens,
            "temperature": 0,
        });
        let timing = self.client.chat(&body).await?;
        if timing.first_token().is_none() {
            return Err(Failure::new(
                format!("{} sent no text", self.url),
                "Check the model's name with the server's /v1/models.",
            ));
        }
        let count = |reported: Option<u64>, otherwise: u32| {
            reported.and_then(|count| u32::try_from(count).ok()).unwrap_or(otherwise)
        };
        Ok(Run {
            started: timing.started,
            prompt_tokens: count(timing.prompt_tokens, work.prompt_tokens),
            completion_tokens: count(
                timing.completion_tokens,
                u32::try_from(timing.chunks.len()).unwrap_or(u32::MAX),
            ),
            pieces: timing.chunks,
        })
    }

    pub(super) fn facts(self) -> Facts {
        Facts { target: self.url, model: self.model, compute: None, kernels: None, threads: None }
    }
}

/// About as many tokens as wanted, together with a request that keeps the answer going.
fn prompt(stamp: u32, number: u32, tokens: u32) -> String {
    const TASK: &str = " Count upwards from one in words and never stop.";
    let words = tokens.saturating_sub(12).max(1) as usize;
    let mut text = format!("{stamp}-{number}");
    for index in random(number).take(words) {
        text.push(' ');
        text.push_str(WORDS[index as usize % WORDS.len()]);
    }
    text.push('.');
    text.push_str(TASK);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_have_about_the_wanted_length_and_differ_early() {
        assert_eq!(prompt(1, 3, 512), prompt(1, 3, 512));
        let words = prompt(1, 3, 512).split_whitespace().count();
        assert!((500..=520).contains(&words), "{words}");
        assert_ne!(prompt(1, 3, 512)[..8], prompt(1, 4, 512)[..8]);
        assert_ne!(prompt(1, 3, 512)[..8], prompt(2, 3, 512)[..8]);
    }
}
