//! What ChatGLM's tokenizers do to a text before their vocabulary sees it: special tokens are cut out, and line
//! breaks, tabs and runs of spaces become symbols of their own.

use std::collections::HashMap;

/// The first character that stands for a symbol while a text is tokenized.
const FIRST_ATOM: u32 = 0xF_0000;
/// Marks what no text may become; it is no character.
const NEVER: char = '\u{10FFFF}';
/// As many symbols as there are characters to stand for them.
pub(super) const MAX_SYMBOLS: usize = 0xFFFE;
/// The longest run of spaces that is one symbol.
const LONGEST_BLANK: usize = 80;

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'t> {
    Text(&'t str),
    Special(u32),
}

/// How texts are read.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    /// Tokens that are found in a text wherever they stand. They begin with a bracket.
    pub(super) special: Vec<(String, u32)>,
    /// A token that is a word, and is meant only directly behind one of the others.
    pub(super) behind: Option<(String, u32)>,
    /// Symbols, when the vocabulary has its own for blanks.
    pub(super) symbols: Option<Symbols>,
}

impl Reading {
    /// Cuts a text at its special tokens.
    pub(super) fn split<'t>(&self, text: &'t str) -> Vec<Part<'t>> {
        let mut parts = Vec::new();
        let (mut start, mut at, mut after_special) = (0, 0, false);
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let found = if rest.starts_with(['[', '<']) {
                self.special.iter().find(|(token, _)| rest.starts_with(token.as_str()))
            } else {
                self.behind.iter().find(|(token, _)| after_special && rest.starts_with(token.as_str()))
            };
            match found {
                Some((token, id)) => {
                    parts.extend(text.get(start..at).filter(|part| !part.is_empty()).map(Part::Text));
                    parts.push(Part::Special(*id));
                    at += token.len();
                    start = at;
                    after_special = true;
                }
                None => {
                    at += rest.chars().next().map_or(1, char::len_utf8);
                    after_special = false;
                }
            }
        }
        parts.extend(text.get(start..).filter(|part| !part.is_empty()).map(Part::Text));
        parts
    }

    /// The text as the vocabulary's model reads it.
    pub(super) fn rewrite(&self, text: &str) -> String {
        self.symbols.as_ref().map_or_else(|| text.to_owned(), |symbols| symbols.rewrite(text))
    }

    /// The id of a special token.
    pub(super) fn id(&self, token: &str) -> Option<u32> {
        let known = self.special.iter().chain(&self.behind).find(|(text, _)| text == token);
        known.map(|(_, id)| *id).or_else(|| self.symbols.as_ref()?.ids.get(token).copied())
    }
}

/// The symbols of a vocabulary; each has a character that stands for it inside of the model.
#[derive(Debug, Clone, Default)]
pub(super) struct Symbols {
    /// By their first character, longest first.
    atoms: HashMap<char, Vec<(String, char)>>,
    ids: HashMap<String, u32>,
}

impl Symbols {
    /// Adds a symbol; the character that stands for it, or nothing when there are too many.
    pub(super) fn insert(&mut self, text: &str, id: u32) -> Option<char> {
        let atom = u32::try_from(self.ids.len()).ok().filter(|&count| (count as usize) < MAX_SYMBOLS)?;
        let atom = char::from_u32(FIRST_ATOM + atom)?;
        let first = text.chars().next()?;
        let same = self.atoms.entry(first).or_default();
        same.push((text.to_owned(), atom));
        same.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        self.ids.insert(text.to_owned(), id);
        Some(atom)
    }

    /// Writes the character of a symbol, or its text when the vocabulary lacks it.
    fn push(&self, symbol: &str, out: &mut String) {
        let same = symbol.chars().next().and_then(|first| self.atoms.get(&first));
        match same.and_then(|same| same.iter().find(|(text, _)| text == symbol)) {
            Some((_, atom)) => out.push(*atom),
            None => out.push_str(symbol),
        }
    }

    fn rewrite(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let mut taken = first.len_utf8();
            match first {
                '\n' => self.push("<n>", &mut out),
                '\t' => self.push("<|tab|>", &mut out),
                ' ' => {
                    taken = rest.bytes().take_while(|byte| *byte == b' ').count();
                    let mut left = taken;
                    while left > 1 {
                        let run = left.min(LONGEST_BLANK);
                        self.push(&blank(run), &mut out);
                        left -= run;
                    }
                    out.extend(std::iter::repeat_n(' ', left));
                }
                // Characters that stand for something else here cannot stand for themselves.
                '\u{F0000}'..='\u{FFFFD}' | NEVER => out.push(char::REPLACEMENT_CHARACTER),
                _ => {
                    let symbol = self.atoms.get(&first);
                    match symbol
                        .and_then(|same| same.iter().find(|(text, _)| rest.starts_with(text.as_str())))
                    {
                        Some((text, atom)) => {
                            taken = text.len();
                            out.push(*atom);
                        }
                        None => out.push(first),
                    }
                }
            }
            rest = rest.get(taken..).unwrap_or_default();
        }
        out
    }
}

/// The symbol of a run of spaces.
pub(super) fn blank(length: usize) -> String {
    format!("<|blank_{length}|>")
}

/// The symbols of blanks that ChatGLM-6B's code adds to a vocabulary without them.
pub(super) fn blanks() -> impl Iterator<Item = String> {
    std::iter::once("<|tab|>".to_owned()).chain((2..=LONGEST_BLANK).map(blank))
}

/// The text that a symbol stands for.
pub(super) fn meaning(symbol: &str) -> Option<String> {
    match symbol {
        "<n>" => Some("\n".to_owned()),
        "<|tab|>" => Some("\t".to_owned()),
        other => {
            let length: usize = other.strip_prefix("<|blank_")?.strip_suffix("|>")?.parse().ok()?;
            (2..=LONGEST_BLANK).contains(&length).then(|| " ".repeat(length))
        }
    }
}

/// A text that no input contains, for pieces that no text may become.
pub(super) fn unwritable(id: usize) -> String {
    format!("{NEVER}{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading() -> Reading {
        Reading {
            special: vec![("[gMASK]".to_owned(), 1), ("<|user|>".to_owned(), 2)],
            behind: Some(("sop".to_owned(), 3)),
            symbols: None,
        }
    }

    #[test]
    fn special_tokens_are_cut_out() {
        use Part::{Special, Text};
        let reading = reading();
        assert_eq!(
            reading.split("[gMASK]sop<|user|>\n sophisticated sop<"),
            [Special(1), Special(3), Special(2), Text("\n sophisticated sop<")]
        );
        assert_eq!(reading.split("sop"), [Text("sop")]);
        assert_eq!(reading.split("a[gMASK] sop"), [Text("a"), Special(1), Text(" sop")]);
        assert_eq!(reading.split("<<|user|>世"), [Text("<"), Special(2), Text("世")]);
        assert_eq!(reading.split(""), []);
    }

    #[test]
    fn blanks_become_symbols() {
        let mut symbols = Symbols::default();
        let mut atoms = Vec::new();
        for (id, text) in (0..).zip(["<n>".to_owned()].into_iter().chain(blanks())) {
            atoms.push(symbols.insert(&text, id).unwrap());
        }
        let reading = Reading { symbols: Some(symbols), ..Reading::default() };
        let text = |parts: &[&str]| parts.concat();
        let atom = |index: usize| atoms[index].to_string();
        assert_eq!(reading.rewrite("a\n\tb c"), text(&["a", &atom(0), &atom(1), "b c"]));
        assert_eq!(reading.rewrite("<n><|blank_2|><n"), text(&[&atom(0), &atom(2), "<n"]));
        let long = format!("a{}b", " ".repeat(81));
        assert_eq!(reading.rewrite(&long), text(&["a", &atom(80), " b"]));
        assert_eq!(reading.rewrite("\u{F0000}\u{10FFFF}"), "\u{FFFD}\u{FFFD}");
        assert_eq!((reading.id("<|tab|>"), reading.id("<tab>")), (Some(1), None));
        assert_eq!(meaning("<|blank_80|>").unwrap().len(), 80);
        assert!(
            meaning("<|blank_81|>").is_none() && meaning("<|blank_1|>").is_none() && meaning("n").is_none()
        );
    }
}
