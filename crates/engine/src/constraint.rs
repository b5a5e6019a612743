//! What an answer must look like, enforced token by token: JSON, regular expressions, grammars, choices.
//!
//! A specification is checked against [`Limits`] before anything looks at it, compiled off the engine's thread (see
//! `compiler`), and becomes one [`Constraint`] per choice. At each step a constraint says which tokens may come next,
//! end tokens exactly where the text is complete. The work of a step is bounded by the limits of the parser.

use std::borrow::Cow;
use std::fmt;

use byzerllm_core::{Error, ErrorDetail, ErrorKind, ResponseFormat, Result};
use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::SimpleVob;
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

/// What a text must be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ConstraintSpec {
    /// JSON that a schema accepts.
    Json(Value),
    /// Text that a regular expression matches as a whole.
    Regex(String),
    /// Text that a grammar derives, in the Lark dialect of llguidance: `%json {…}` embeds a schema, `<name>` is a
    /// special token.
    Lark(String),
    /// One of these texts.
    Choice(Vec<String>),
}

impl ConstraintSpec {
    /// The specification behind a response format; none for free text.
    pub(crate) fn of(format: &ResponseFormat) -> Option<Self> {
        match format {
            ResponseFormat::Text => None,
            ResponseFormat::JsonObject => Some(Self::Json(json!({"type": "object"}))),
            ResponseFormat::JsonSchema(schema) => Some(Self::Json(schema.clone())),
            ResponseFormat::Regex(regex) => Some(Self::Regex(regex.clone())),
            ResponseFormat::Grammar(grammar) => Some(Self::Lark(grammar.clone())),
            ResponseFormat::Choice(choices) => Some(Self::Choice(choices.clone())),
        }
    }

    /// A name for caches: equal for equal specifications only.
    pub(crate) fn key(&self) -> [u8; 32] {
        let (kind, text) = match self {
            Self::Json(schema) => ("json", schema.to_string()),
            Self::Regex(regex) => ("regex", regex.clone()),
            Self::Lark(grammar) => ("lark", grammar.clone()),
            Self::Choice(choices) => ("choice", json!(choices).to_string()),
        };
        *blake3::Hasher::new()
            .update(kind.as_bytes())
            .update(b"\0")
            .update(text.as_bytes())
            .finalize()
            .as_bytes()
    }

    fn grammar(self) -> TopLevelGrammar {
        match self {
            Self::Json(schema) => TopLevelGrammar::from_json_schema(with_short_spaces(schema)),
            Self::Regex(regex) => TopLevelGrammar::from_regex(&regex),
            Self::Lark(grammar) => TopLevelGrammar::from_lark(grammar),
            Self::Choice(choices) => {
                // A string of this grammar language is written as in JSON.
                let words: Vec<String> = choices.iter().map(|text| json!(text).to_string()).collect();
                TopLevelGrammar::from_lark(format!("start: CHOICE\nCHOICE: {}", words.join(" | ")))
            }
        }
    }
}

/// Small models like to write spaces for ever: between two tokens of JSON at most so many are allowed, unless the
/// schema's `x-guidance` says otherwise.
const SPACES: &str = r"[\x20\x0A\x0D\x09]{1,16}";

/// A schema whose answers have no long runs of spaces.
pub(crate) fn with_short_spaces(schema: Value) -> Value {
    let mut schema = if schema == Value::Bool(true) { json!({}) } else { schema };
    if let Value::Object(members) = &mut schema {
        members.entry("x-guidance").or_insert_with(|| json!({ "whitespace_pattern": SPACES }));
    }
    schema
}

/// What a specification may ask for.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Bytes of the keys, texts and numbers of a schema, with a few for each value.
    pub(crate) schema_bytes: usize,
    /// Values within values.
    pub(crate) schema_depth: usize,
    pub(crate) grammar_bytes: usize,
    pub(crate) regex_bytes: usize,
    /// Brackets within brackets of a grammar or a regular expression.
    pub(crate) nesting: usize,
    pub(crate) choices: usize,
    pub(crate) choice_bytes: usize,
    /// Limits of the parser: of a compilation, and of each step.
    pub(crate) parser: ParserLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            schema_bytes: 128 << 10,
            schema_depth: 64,
            grammar_bytes: 64 << 10,
            regex_bytes: 8 << 10,
            nesting: 100,
            choices: 1024,
            choice_bytes: 64 << 10,
            parser: ParserLimits {
                max_grammar_size: 200_000,
                // Each takes one or two kilobytes in every choice.
                max_lexer_states: 20_000,
                verbose_errors: false,
                ..ParserLimits::default()
            },
        }
    }
}

impl Limits {
    /// Refuses what is too large before it is looked at more closely.
    pub(crate) fn check(&self, spec: &ConstraintSpec) -> Result<()> {
        match spec {
            ConstraintSpec::Json(schema) => self.check_schema(schema),
            ConstraintSpec::Regex(regex) => self.check_text("regular expression", regex, self.regex_bytes),
            ConstraintSpec::Lark(grammar) => self.check_text("grammar", grammar, self.grammar_bytes),
            ConstraintSpec::Choice(choices) => {
                let bytes: usize = choices.iter().map(String::len).sum();
                if choices.is_empty() || choices.iter().any(String::is_empty) {
                    return Err(refused("the list of choices and each choice must not be empty"));
                }
                if choices.len() > self.choices || bytes > self.choice_bytes {
                    let (most, most_bytes) = (self.choices, self.choice_bytes);
                    return Err(refused(format!(
                        "at most {most} choices with {most_bytes} bytes in all are allowed, got {} with {bytes}",
                        choices.len()
                    )));
                }
                Ok(())
            }
        }
    }

    fn check_schema(&self, schema: &Value) -> Result<()> {
        if !schema.is_object() && *schema != Value::Bool(true) {
            return Err(refused("the JSON schema must be an object"));
        }
        let mut bytes = 0;
        let mut open = vec![(schema, 1)];
        while let Some((value, depth)) = open.pop() {
            if depth > self.schema_depth {
                let most = self.schema_depth;
                return Err(refused(format!("the JSON schema is nested deeper than {most} levels")));
            }
            bytes += match value {
                Value::String(text) => text.len() + 4,
                Value::Object(members) => members.keys().map(|key| key.len() + 4).sum::<usize>() + 4,
                _ => 8,
            };
            if bytes > self.schema_bytes {
                let most = self.schema_bytes;
                return Err(refused(format!("the JSON schema has more than {most} bytes")));
            }
            match value {
                Value::Array(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
                Value::Object(members) => open.extend(members.values().map(|member| (member, depth + 1))),
                _ => {}
            }
        }
        Ok(())
    }

    fn check_text(&self, what: &str, text: &str, most: usize) -> Result<()> {
        if text.trim().is_empty() {
            return Err(refused(format!("the {what} is empty")));
        }
        if text.len() > most {
            return Err(refused(format!("the {what} has {} bytes, above the {most} allowed", text.len())));
        }
        // Brackets in texts and classes count too: this guards the stack, not the syntax.
        let mut depth = 0usize;
        for byte in text.bytes() {
            match byte {
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth > self.nesting {
                let most = self.nesting;
                return Err(refused(format!("the {what} is nested deeper than {most} brackets")));
            }
        }
        Ok(())
    }
}

/// The error of a specification that is not enforced.
pub(crate) fn refused(message: impl Into<Cow<'static, str>>) -> Error {
    Error::invalid("response_format", message)
}

/// The place of one choice within what its text must be.
pub(crate) struct Constraint {
    matcher: Matcher,
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraint").field("stopped", &self.matcher.is_stopped()).finish_non_exhaustive()
    }
}

/// The tokens that may come next, a bit for each.
pub(crate) struct Allowed(SimpleVob);

impl Allowed {
    /// Makes all other tokens impossible.
    pub(crate) fn apply(&self, logits: &mut [f32]) {
        let words = self.0.as_slice();
        for (place, logits) in logits.chunks_mut(32).enumerate() {
            match words.get(place).copied().unwrap_or(0) {
                u32::MAX => {}
                0 => logits.fill(f32::NEG_INFINITY),
                word => {
                    for (bit, logit) in logits.iter_mut().enumerate() {
                        if word >> bit & 1 == 0 {
                            *logit = f32::NEG_INFINITY;
                        }
                    }
                }
            }
        }
    }
}

impl Constraint {
    /// Compiles a specification; takes time, so not for the engine's thread.
    pub(crate) fn compile(spec: ConstraintSpec, factory: &ParserFactory) -> Result<Self> {
        let mut matcher = Matcher::new(factory.create_parser(spec.grammar()));
        if let Some(reason) = matcher.get_error() {
            return Err(refused(format!("the answer's format cannot be enforced: {}", plain(&reason))));
        }
        // The first step is the dearest. It is done here, once for all that share the specification.
        matcher.compute_mask().map_err(|error| {
            refused(format!("no answer of this model can have this format: {}", plain(&error.to_string())))
        })?;
        Ok(Self { matcher })
    }

    /// Another beginning of the same text, which shares nothing with this one.
    pub(crate) fn fresh(&self) -> Self {
        Self { matcher: self.matcher.deep_clone() }
    }

    /// The tokens that may come next.
    pub(crate) fn mask(&mut self) -> Result<Allowed, ErrorDetail> {
        self.matcher.compute_mask().map(Allowed).map_err(|error| failed(&error.to_string()))
    }

    /// Takes a token. True when nothing can follow it.
    pub(crate) fn advance(&mut self, token: u32) -> Result<bool, ErrorDetail> {
        self.matcher.consume_token(token).map_err(|error| failed(&error.to_string()))?;
        Ok(self.matcher.is_stopped())
    }

    /// Whether the text may end here.
    pub(crate) fn is_complete(&mut self) -> bool {
        self.matcher.is_accepting().unwrap_or(false)
    }
}

fn failed(reason: &str) -> ErrorDetail {
    let message = format!("the answer's format could not be enforced here: {}; simplify it", plain(reason));
    ErrorDetail { kind: ErrorKind::InvalidRequest, message }
}

/// The compiler's reason without its inner state.
fn plain(reason: &str) -> String {
    if reason.starts_with("panic") {
        return "the grammar compiler failed".to_owned();
    }
    let reason = reason.split("\n<").next().unwrap_or_default().trim();
    let mut plain: String = reason.chars().take(400).collect();
    if plain.len() < reason.len() {
        plain.push('…');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_leaves_only_its_tokens() {
        let mut bits = SimpleVob::alloc(70);
        [0, 33, 69].iter().for_each(|&id| bits.allow_token(id));
        let mut logits = vec![1.0f32; 100];
        Allowed(bits).apply(&mut logits);
        let left: Vec<usize> = (0..100).filter(|&id| logits[id] == 1.0).collect();
        assert_eq!(left, [0, 33, 69]);
    }

    #[test]
    fn keys_differ_with_kind_and_text() {
        let keys = [
            ConstraintSpec::Regex("a".into()).key(),
            ConstraintSpec::Lark("a".into()).key(),
            ConstraintSpec::Regex("b".into()).key(),
            ConstraintSpec::Choice(vec!["a".into(), "b".into()]).key(),
            ConstraintSpec::Choice(vec!["a\",\"b".into()]).key(),
        ];
        let mut distinct = keys.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), keys.len());
    }

    #[test]
    fn inner_state_is_not_told() {
        assert_eq!(plain("too bad\n<non-verbose/>"), "too bad");
        assert_eq!(plain("panic: at x.rs:1"), "the grammar compiler failed");
        assert_eq!(plain(&"x".repeat(1000)).chars().count(), 401);
    }
}
