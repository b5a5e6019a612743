//! What the simulated model answers: a fixed function of the request, unless a test wrote a [`Script`].

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::schema;
use crate::tokens::{self, Tokens};

/// A conversation, read from any vendor's form of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chat {
    pub(crate) model: String,
    pub(crate) turns: Vec<Turn>,
    pub(crate) tools: Vec<Tool>,
    pub(crate) choice: Choice,
    pub(crate) stream: bool,
    pub(crate) max_tokens: Option<u64>,
    pub(crate) n: u32,
    pub(crate) stop: Vec<String>,
    pub(crate) thinking: bool,
    pub(crate) format: Format,
    /// The bytes of the request, which no bill exceeds.
    pub(crate) bytes: u64,
    /// What only this vendor's answer depends on.
    pub(crate) wish: Wish,
    /// MiniMax: the name of the bot that answers.
    pub(crate) bot: String,
}

/// Wishes about the form of an answer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wish {
    /// OpenAI: the stream ends with the usage.
    pub(crate) usage: bool,
    /// DashScope: pieces instead of the whole text so far.
    pub(crate) incremental: bool,
    /// DashScope: `message` instead of `text`.
    pub(crate) message: bool,
    /// OpenAI: the older API, whose choices hold a text.
    pub(crate) completion: bool,
    /// Gemini: a stream as a JSON array instead of events.
    pub(crate) array: bool,
    /// MiniMax: `chatcompletion_pro`.
    pub(crate) pro: bool,
    /// Qianfan: its first API.
    pub(crate) first: bool,
}

/// One message.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turn {
    pub(crate) role: String,
    pub(crate) text: String,
    pub(crate) images: u64,
}

/// A function that the model may call.
#[derive(Debug, Clone)]
pub(crate) struct Tool {
    pub(crate) name: String,
    pub(crate) parameters: Value,
}

/// Whether it must.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Choice {
    None,
    #[default]
    Auto,
    Required,
    Named(String),
}

/// What the answer must look like.
#[derive(Debug, Clone, Default)]
pub(crate) enum Format {
    #[default]
    Text,
    Json,
    Schema(Value),
}

/// Texts to embed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Embed {
    pub(crate) model: String,
    pub(crate) texts: Vec<String>,
    pub(crate) dimensions: usize,
    pub(crate) base64: bool,
    pub(crate) bytes: u64,
}

/// What the model shall answer, exactly. Pieces are sent as they are given, one event each.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Script {
    /// Reasoning, where the vendor has it.
    pub reasoning: Vec<String>,
    /// Text.
    pub text: Vec<String>,
    /// Tool calls: name and arguments, in pieces.
    pub calls: Vec<(String, Vec<String>)>,
    /// Why it ends; otherwise it follows from the rest.
    pub finish: Option<Finish>,
    /// What the bill says; otherwise counted. A test's own responsibility.
    pub usage: Option<ScriptUsage>,
}

/// Token counts of a [`Script`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScriptUsage {
    /// Of the prompt.
    pub prompt: u64,
    /// Of the prompt, from the cache.
    pub cached: u64,
    /// Generated.
    pub completion: u64,
    /// Generated as reasoning.
    pub reasoning: u64,
}

impl Script {
    /// A text in pieces.
    #[must_use]
    pub fn text<S: Into<String>>(pieces: impl IntoIterator<Item = S>) -> Self {
        Self { text: pieces.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// It was complete, or a stop string came.
    Stop,
    /// The token limit.
    Length,
    /// Tool calls.
    ToolCalls,
    /// The vendor's filter.
    ContentFilter,
}

/// One choice of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) reasoning: Vec<String>,
    pub(crate) text: Vec<String>,
    pub(crate) calls: Vec<Call>,
    pub(crate) finish: Finish,
    /// The stop string that ended it.
    pub(crate) stop: Option<String>,
}

/// One call of a tool.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) arguments: Vec<String>,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) choices: Vec<Said>,
    /// What is billed.
    pub(crate) tokens: Tokens,
    /// What the answer says about it.
    pub(crate) shown: Option<Tokens>,
}

/// The longest answer of a model when the request names no limit.
pub(crate) const MAX_OUTPUT: u64 = 4096;

/// What a simulated model appends to what it echoes: characters of three and four bytes, and one of several code points.
pub const TAIL: &str = " 你好，世界 🌍👩‍🚀";

/// Whether a vendor's filter refuses the question.
pub(crate) fn is_filtered(chat: &Chat) -> bool {
    last_text(chat).contains("filter me")
}

/// Answers a conversation.
pub(crate) fn answer(chat: &Chat, script: Option<&Script>, id: &str, created: u64, reasons: bool) -> Answer {
    let limit = chat.max_tokens.unwrap_or(MAX_OUTPUT);
    let mut choices = Vec::new();
    let mut tokens = Tokens { prompt: prompt_tokens(chat), ..Tokens::default() };
    if last_text(chat).contains("cached") {
        tokens.cached = tokens.prompt / 2;
    }
    for index in 0..chat.n.max(1) {
        let said =
            script.map_or_else(|| improvise(chat, id, index, reasons), |script| perform(script, id, reasons));
        let said = limited(said, limit, &chat.stop);
        tokens.reasoning += tokens::count(&said.reasoning.concat());
        tokens.completion += spent(&said);
        choices.push(said);
    }
    if let Some(usage) = script.and_then(|script| script.usage) {
        tokens = Tokens {
            prompt: usage.prompt,
            cached: usage.cached,
            completion: usage.completion,
            reasoning: usage.reasoning,
        };
    }
    Answer { id: id.to_owned(), created, choices, tokens, shown: Some(tokens) }
}

/// Vectors of length one that depend on nothing but the text.
pub(crate) fn embed(embed: &Embed) -> (Vec<Vec<f32>>, Tokens) {
    let vectors = embed.texts.iter().map(|text| vector(text, embed.dimensions)).collect();
    let counted: u64 = embed.texts.iter().map(|text| tokens::count(text).max(1)).sum();
    (vectors, Tokens { prompt: counted.min(embed.bytes), ..Tokens::default() })
}

/// What stands for a vendor's signature: a fixed function of what is signed, so that it can be checked later.
pub(crate) fn seal(text: &str) -> String {
    format!("{:016x}", hash(text))
}

fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let mut state = hash(text);
    let mut raw = Vec::with_capacity(dimensions);
    for _ in 0..dimensions {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The upper 16 bits, in [-1, 1).
        let upper = u16::try_from(state >> 48).unwrap_or_default();
        raw.push(f32::from(upper) / 32768.0 - 1.0);
    }
    let length = raw.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    raw.into_iter().map(|x| x / length).collect()
}

/// What the prompt of a conversation costs.
pub(crate) fn prompt_tokens(chat: &Chat) -> u64 {
    let of_turn =
        |turn: &Turn| tokens::count(&turn.text) + tokens::PER_MESSAGE + turn.images * tokens::PER_IMAGE;
    let of_tool = |tool: &Tool| tokens::count(&tool.name) + tokens::count(&tool.parameters.to_string());
    let counted = chat.turns.iter().map(of_turn).sum::<u64>() + chat.tools.iter().map(of_tool).sum::<u64>();
    counted.min(chat.bytes).max(1)
}

fn spent(said: &Said) -> u64 {
    let calls =
        said.calls.iter().map(|call| tokens::count(&call.name) + tokens::count(&call.arguments.concat()));
    tokens::count(&said.reasoning.concat()) + tokens::count(&said.text.concat()) + calls.sum::<u64>()
}

pub(crate) fn last_text(chat: &Chat) -> &str {
    chat.turns.iter().rev().find(|turn| turn.role == "user").map_or("", |turn| &turn.text)
}

/// The answer that follows from the request.
fn improvise(chat: &Chat, id: &str, index: u32, reasons: bool) -> Said {
    let question = last_text(chat);
    let reasoning =
        if reasons && chat.thinking { pieces(&format!("用户说: {question}. 🤔")) } else { Vec::new() };
    let after_tool = chat.turns.last().is_some_and(|turn| turn.role == "tool");
    let called = if after_tool { None } else { chosen(chat, question) };
    if let Some(tool) = called {
        let arguments = pieces(&schema::sample(&tool.parameters).to_string());
        let call = Call { id: call_id(id, index, 0), name: tool.name.clone(), arguments };
        return Said {
            reasoning,
            text: Vec::new(),
            calls: vec![call],
            finish: Finish::ToolCalls,
            stop: None,
        };
    }
    let text = match &chat.format {
        Format::Json => json!({ "echo": question }).to_string(),
        Format::Schema(schema) => schema::sample(schema).to_string(),
        Format::Text if after_tool => {
            let result = chat.turns.last().map_or("", |turn| turn.text.as_str());
            format!("The tool said: {result}{TAIL}")
        }
        Format::Text => {
            let images: u64 = chat.turns.iter().map(|turn| turn.images).sum();
            let seen = if images > 0 { format!(" [images: {images}]") } else { String::new() };
            let which = if index > 0 { format!(" ({index})") } else { String::new() };
            format!("{question}{seen}{which}{TAIL}")
        }
    };
    Said { reasoning, text: pieces(&text), calls: Vec::new(), finish: Finish::Stop, stop: None }
}

/// The tool that is called: where it must be, or where the message says "call" and a tool's name or "the tool".
fn chosen<'a>(chat: &'a Chat, question: &str) -> Option<&'a Tool> {
    match &chat.choice {
        Choice::None => None,
        Choice::Named(name) => chat.tools.iter().find(|tool| tool.name == *name),
        Choice::Required => chat.tools.first(),
        Choice::Auto => {
            let by_name = |tool: &&Tool| question.contains(&format!("call {}", tool.name));
            let named = chat.tools.iter().find(by_name);
            named.or_else(|| question.contains("call the tool").then(|| chat.tools.first()).flatten())
        }
    }
}

fn perform(script: &Script, id: &str, reasons: bool) -> Said {
    let calls: Vec<Call> = (0..)
        .zip(&script.calls)
        .map(|(number, (name, arguments))| Call {
            id: call_id(id, 0, number),
            name: name.clone(),
            arguments: arguments.clone(),
        })
        .collect();
    let natural = if calls.is_empty() { Finish::Stop } else { Finish::ToolCalls };
    Said {
        reasoning: if reasons { script.reasoning.clone() } else { Vec::new() },
        text: script.text.clone(),
        calls,
        finish: script.finish.unwrap_or(natural),
        stop: None,
    }
}

fn call_id(id: &str, choice: u32, number: u32) -> String {
    let tail: String = id.chars().rev().filter(char::is_ascii_alphanumeric).take(8).collect();
    format!("call_{tail}{choice}{number}")
}

/// The pieces in which a text is sent: one to five characters, so that some cut a picture of several code points.
fn pieces(text: &str) -> Vec<String> {
    let mut left: VecDeque<char> = text.chars().collect();
    let mut pieces = Vec::new();
    let mut size = 0;
    while !left.is_empty() {
        size = size % 5 + 1;
        let end = size.min(left.len());
        pieces.push(left.drain(..end).collect());
    }
    pieces
}

/// Cuts an answer at its token limit and at stop strings.
fn limited(mut said: Said, limit: u64, stop: &[String]) -> Said {
    let text = said.text.concat();
    let found = |stop: &String| text.find(stop.as_str()).map(|place| (place, stop.clone()));
    if let Some((end, stop)) = stop.iter().filter(|stop| !stop.is_empty()).filter_map(found).min() {
        said.text = keep(&said.text, end);
        said.finish = Finish::Stop;
        said.stop = Some(stop);
    }
    let mut left = limit;
    for part in [&mut said.reasoning, &mut said.text] {
        let whole = part.concat();
        let kept = tokens::clip(&whole, left);
        if kept.len() < whole.len() {
            *part = keep(part, kept.len());
            said.finish = Finish::Length;
            said.stop = None;
        }
        left -= tokens::count(kept).min(left);
    }
    let calls: u64 =
        said.calls.iter().map(|c| tokens::count(&c.name) + tokens::count(&c.arguments.concat())).sum();
    if calls > left {
        said.calls.clear();
        said.finish = Finish::Length;
    }
    said
}

/// The first bytes of a text in pieces, in the same pieces.
fn keep(pieces: &[String], bytes: usize) -> Vec<String> {
    let mut left = bytes;
    let mut kept = Vec::new();
    for piece in pieces {
        let part = &piece[..piece.len().min(left)];
        left -= part.len();
        if !part.is_empty() {
            kept.push(part.to_owned());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(text: &str) -> Chat {
        let turn = Turn { role: "user".to_owned(), text: text.to_owned(), images: 0 };
        Chat { model: "m".to_owned(), turns: vec![turn], bytes: 1000, ..Chat::default() }
    }

    #[test]
    fn the_answer_echoes_the_question() {
        let answer = answer(&chat("hi"), None, "r-1", 0, false);
        assert_eq!(answer.choices[0].text.concat(), format!("hi{TAIL}"));
        assert_eq!(answer.tokens.completion, tokens::count(&format!("hi{TAIL}")));
    }

    #[test]
    fn a_limit_cuts_reasoning_before_text() {
        let mut chat = chat("hello there, how are you?");
        (chat.thinking, chat.max_tokens) = (true, Some(5));
        let answer = answer(&chat, None, "r-1", 0, true);
        assert_eq!((answer.choices[0].finish, answer.choices[0].text.len()), (Finish::Length, 0));
        assert!(answer.tokens.completion <= 5 && answer.tokens.reasoning == answer.tokens.completion);
    }

    #[test]
    fn a_stop_string_is_not_sent() {
        let mut chat = chat("one two three");
        chat.stop = vec!["two".to_owned()];
        assert_eq!(answer(&chat, None, "r-1", 0, false).choices[0].text.concat(), "one ");
    }

    #[test]
    fn a_vector_has_length_one() {
        let (vectors, tokens) = embed(&Embed {
            texts: vec!["a".to_owned(), "b".to_owned()],
            dimensions: 16,
            bytes: 50,
            ..Embed::default()
        });
        let length: f32 = vectors[0].iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-5 && vectors[0] != vectors[1]);
        assert_eq!(tokens.prompt, 2);
    }
}
