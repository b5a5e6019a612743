//! A JSON object, checked character by character.
//!
//! The scanner says of each character which part of the outermost object it belongs to, so that a member can be passed
//! on while it is still being written. What it accepts, `serde_json` accepts: depth is bounded and an escaped
//! surrogate needs its pair.

/// Brackets within brackets.
const MAX_DEPTH: usize = 64;

/// Where a character stands in the outermost object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Its brackets, commas, colons, and white space between them.
    Structure,
    /// A member's name, quotes included.
    Key,
    /// A member's value.
    Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The object's own bracket.
    Start,
    /// A value, or the end of an empty array.
    Value {
        or_end: bool,
    },
    /// A member's name, or the end of an empty object.
    Key {
        or_end: bool,
    },
    /// Within a string.
    Text {
        key: bool,
        step: TextStep,
    },
    Colon,
    /// A comma or a closing bracket.
    After,
    Number(NumberStep),
    /// What is left of `true`, `false` or `null`.
    Literal(&'static str),
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TextStep {
    Plain,
    Escape,
    Hex { digits: u8, code: u16 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NumberStep {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

impl NumberStep {
    fn next(self, c: char) -> Option<Self> {
        match (self, c) {
            (Self::Minus, '0') => Some(Self::Zero),
            (Self::Minus, '1'..='9') | (Self::Integer, '0'..='9') => Some(Self::Integer),
            (Self::Zero | Self::Integer, '.') => Some(Self::Point),
            (Self::Point | Self::Fraction, '0'..='9') => Some(Self::Fraction),
            (Self::Zero | Self::Integer | Self::Fraction, 'e' | 'E') => Some(Self::E),
            (Self::E, '+' | '-') => Some(Self::Sign),
            (Self::E | Self::Sign | Self::Exponent, '0'..='9') => Some(Self::Exponent),
            _ => None,
        }
    }

    fn may_end(self) -> bool {
        matches!(self, Self::Zero | Self::Integer | Self::Fraction | Self::Exponent)
    }
}

/// What JSON calls white space.
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// The state of one object.
#[derive(Debug)]
pub(super) struct Scanner {
    state: State,
    /// One entry per open bracket: whether it is an object's.
    open: Vec<bool>,
    /// The second half of an escaped surrogate pair is due.
    low_due: bool,
}

impl Scanner {
    pub(super) fn new() -> Self {
        Self { state: State::Start, open: Vec::new(), low_due: false }
    }

    /// Whether the object is complete.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes a character; `None` when no object goes on like this.
    pub(super) fn step(&mut self, c: char) -> Option<Place> {
        let deep = self.open.len() > 1;
        let place = match self.state {
            _ if deep => Place::Value,
            State::Key { .. } if c == '"' => Place::Key,
            State::Text { key: true, .. } => Place::Key,
            State::Value { .. } if !is_space(c) => Place::Value,
            State::Text { .. } | State::Literal(_) => Place::Value,
            State::Number(step) if step.next(c).is_some() => Place::Value,
            _ => Place::Structure,
        };
        self.state = self.next(c)?;
        Some(place)
    }

    fn next(&mut self, c: char) -> Option<State> {
        match self.state {
            State::Start | State::Value { .. } | State::Key { .. } | State::Colon | State::After
                if is_space(c) =>
            {
                Some(self.state)
            }
            State::Start if c == '{' => self.begin(true),
            State::Value { or_end: true } if c == ']' => self.end(false),
            State::Value { .. } => self.value(c),
            State::Key { or_end: true } if c == '}' => self.end(true),
            State::Key { .. } if c == '"' => Some(State::Text { key: true, step: TextStep::Plain }),
            State::Colon if c == ':' => Some(State::Value { or_end: false }),
            State::Text { key, step } => self.text(key, step, c),
            State::Number(step) => match step.next(c) {
                Some(step) => Some(State::Number(step)),
                None if step.may_end() => self.after(c),
                None => None,
            },
            State::Literal(rest) => {
                let rest = rest.strip_prefix(c)?;
                Some(if rest.is_empty() { State::After } else { State::Literal(rest) })
            }
            State::After => self.after(c),
            State::Start | State::Key { .. } | State::Colon | State::Done => None,
        }
    }

    fn begin(&mut self, object: bool) -> Option<State> {
        if self.open.len() == MAX_DEPTH {
            return None;
        }
        self.open.push(object);
        Some(if object { State::Key { or_end: true } } else { State::Value { or_end: true } })
    }

    fn end(&mut self, object: bool) -> Option<State> {
        (self.open.pop()? == object).then_some(())?;
        Some(if self.open.is_empty() { State::Done } else { State::After })
    }

    fn after(&mut self, c: char) -> Option<State> {
        match c {
            ',' if *self.open.last()? => Some(State::Key { or_end: false }),
            ',' => Some(State::Value { or_end: false }),
            '}' => self.end(true),
            ']' => self.end(false),
            c if is_space(c) => Some(State::After),
            _ => None,
        }
    }

    fn value(&mut self, c: char) -> Option<State> {
        match c {
            '{' => self.begin(true),
            '[' => self.begin(false),
            '"' => Some(State::Text { key: false, step: TextStep::Plain }),
            't' => Some(State::Literal("rue")),
            'f' => Some(State::Literal("alse")),
            'n' => Some(State::Literal("ull")),
            '-' => Some(State::Number(NumberStep::Minus)),
            c => NumberStep::Minus.next(c).map(State::Number),
        }
    }

    fn text(&mut self, key: bool, step: TextStep, c: char) -> Option<State> {
        let step = match (step, c) {
            (TextStep::Plain, '\\') => TextStep::Escape,
            (TextStep::Escape, 'u') => TextStep::Hex { digits: 0, code: 0 },
            (TextStep::Hex { digits, code }, c) => {
                let code = code << 4 | u16::try_from(c.to_digit(16)?).ok()?;
                if digits < 3 { TextStep::Hex { digits: digits + 1, code } } else { self.unit(code)? }
            }
            _ if self.low_due => return None,
            (TextStep::Plain, '"') => return Some(if key { State::Colon } else { State::After }),
            (TextStep::Plain, c) if c >= ' ' => TextStep::Plain,
            (TextStep::Escape, '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't') => TextStep::Plain,
            _ => return None,
        };
        Some(State::Text { key, step })
    }

    fn unit(&mut self, code: u16) -> Option<TextStep> {
        let low = (0xdc00..0xe000).contains(&code);
        if low != self.low_due {
            return None;
        }
        self.low_due = (0xd800..0xdc00).contains(&code);
        Some(TextStep::Plain)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepts(text: &str) -> bool {
        let mut scanner = Scanner::new();
        text.chars().all(|c| scanner.step(c).is_some()) && scanner.is_done()
    }

    #[test]
    fn it_agrees_with_a_parser() {
        for text in [
            "{}",
            r#" {"a": 1, "b": [true, false, null, -0.5e+10, 0, []], "c": {"d": "\u00e9\ud83d\ude00\n\"x"}}"#,
            r#"{"a":01}"#,
            r#"{"a":1.}"#,
            r#"{"a":-}"#,
            r#"{"a":1e}"#,
            r#"{"a":"\ud83d"}"#,
            r#"{"a":"\ude00"}"#,
            r#"{"a":"\ud83dx"}"#,
            r#"{"a":"\ud83d\n"}"#,
            r#"{"a":"\x"}"#,
            "{\"a\":\"\n\"}",
            r#"{"a":tru}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":1,}"#,
            r#"{"a" 1}"#,
            r#"{a: 1}"#,
            r#"{"a":[1}"#,
            r#"{"a":{"b":1]}"#,
            "{",
            "[]",
            "1",
            "{}}",
        ] {
            let parsed = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).is_ok();
            assert_eq!(accepts(text), parsed, "{text}");
        }
        let deep = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(accepts(&deep(MAX_DEPTH - 1)) && !accepts(&deep(MAX_DEPTH)));
    }

    #[test]
    fn places_are_those_of_the_outermost_object() {
        let mut scanner = Scanner::new();
        let places: String = r#"{"a" : {"b": 1} ,"c":2 }"#
            .chars()
            .map(|c| match scanner.step(c) {
                Some(Place::Structure) => 's',
                Some(Place::Key) => 'k',
                Some(Place::Value) => 'v',
                None => '!',
            })
            .collect();
        assert_eq!(places, "skkksssvvvvvvvvsskkksvss");
    }

    proptest! {
        #[test]
        fn random_texts(text in r#"\{("[a\\u0d8\n]{0,4}" ?: ?([0-9.eE+-]{1,4}|"[a\\"u]{0,3}"|\[1?\]|\{\}|true),?){0,3}\}"#) {
            let parsed = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text);
            // Numbers beyond floating point are JSON all the same.
            let parsed = match parsed {
                Err(error) if error.to_string().contains("out of range") => return Ok(()),
                parsed => parsed.is_ok(),
            };
            prop_assert_eq!(accepts(&text), parsed);
        }
    }
}
