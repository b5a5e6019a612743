//! The named ways of cutting a text into words before byte-level BPE merges inside them.

use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::punctuation::Punctuation;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

/// What stands behind a name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steps {
    cuts: &'static [Cut],
    /// Text is put into Unicode's composed form first.
    pub(crate) nfc: bool,
    /// A whole word that is a token is that token, whatever the merges say.
    pub(crate) ignore_merges: bool,
    /// The beginning-of-sequence token is added when the file does not say.
    pub(crate) adds_bos: bool,
}

/// One cut; each cuts the pieces that the one before has left.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// Every match of the pattern is a piece, and so is what lies between.
    Pattern(&'static str),
    /// Every digit is a piece.
    SingleDigits,
    /// Every run of digits is a piece.
    DigitRuns,
    /// Every run of punctuation is a piece.
    Punctuation,
    /// GPT-2's pattern, then bytes become characters.
    Gpt2,
    /// Bytes become characters.
    Bytes,
}

/// Names that [`steps`] knows.
pub(crate) const NAMES: [&str; 19] = [
    "gpt-2",
    "phi-2",
    "mpt",
    "olmo",
    "smollm",
    "starcoder",
    "refact",
    "command-r",
    "falcon",
    "qwen2",
    "deepseek-r1-qwen",
    "llama-bpe",
    "llama3",
    "llama-v3",
    "deepseek-llm",
    "deepseek-coder",
    "deepseek-v3",
    "glm4",
    "chatglm-bpe",
];

const PLAIN: Steps = Steps { cuts: &[Cut::Gpt2], nfc: false, ignore_merges: false, adds_bos: false };

const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// Letters with case, of the scripts that DeepSeek's first vocabulary names one by one.
const DEEPSEEK_LETTERS: &str = concat!(
    r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝ",
    r"Ὗ-\u{1F7D}ᾀ-ᾴᾶ-ᾼ\u{1FBE}ῂ-ῄῆ-ῌῐ-\u{1FD3}ῖ-\u{1FDB}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u{2126}ℨ\u{212A}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ",
    r"𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"
);
const DEEPSEEK_PUNCTUATION: &str =
    r"\s?[!-/:-~\u{FF01}-\u{FF0F}\u{FF1A}-\u{FF5E}\u{2018}-\u{201F}\u{3000}-\u{3002}]+";

const DEEPSEEK_V3: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"##,
    r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// The steps behind a name of llama.cpp's list, or nothing for a name we do not know.
pub(crate) fn steps(name: &str) -> Option<Steps> {
    Some(match name {
        "gpt-2" | "phi-2" => PLAIN,
        "mpt" | "olmo" => Steps { nfc: true, ..PLAIN },
        "smollm" | "starcoder" | "refact" => Steps { cuts: &[Cut::SingleDigits, Cut::Gpt2], ..PLAIN },
        "command-r" => Steps { cuts: &[Cut::SingleDigits, Cut::Gpt2], nfc: true, ..PLAIN },
        "falcon" => Steps {
            cuts: &[Cut::Punctuation, Cut::Gpt2, Cut::DigitRuns, Cut::Pattern("[0-9][0-9][0-9]")],
            ..PLAIN
        },
        "qwen2" | "deepseek-r1-qwen" => {
            Steps { cuts: &[Cut::Pattern(QWEN2), Cut::Bytes], nfc: true, ..PLAIN }
        }
        "llama-bpe" | "llama3" | "llama-v3" => {
            Steps { cuts: &[Cut::Pattern(LLAMA3), Cut::Bytes], ignore_merges: true, adds_bos: true, ..PLAIN }
        }
        "glm4" | "chatglm-bpe" => {
            Steps { cuts: &[Cut::Pattern(LLAMA3), Cut::Bytes], ignore_merges: true, ..PLAIN }
        }
        "deepseek-llm" => Steps {
            cuts: &[
                Cut::Pattern(r"[\r\n]"),
                Cut::Pattern(DEEPSEEK_LETTERS),
                Cut::Pattern(DEEPSEEK_PUNCTUATION),
                Cut::Pattern(r"\s+$"),
                Cut::Pattern(r"[\u{4E00}-\u{9FA5}\u{800}-\u{4E00}\u{AC00}-\u{D7FF}]+"),
                Cut::SingleDigits,
                Cut::Bytes,
            ],
            ..PLAIN
        },
        "deepseek-coder" => Steps {
            cuts: &[
                Cut::Pattern(r"[\r\n]"),
                Cut::Pattern(r"\s?\p{L}+"),
                Cut::Pattern(r"\s?\p{P}+"),
                Cut::Pattern(r"[\u{4E00}-\u{9FA5}\u{800}-\u{4E00}\u{AC00}-\u{D7FF}]+"),
                Cut::SingleDigits,
                Cut::Bytes,
            ],
            ..PLAIN
        },
        "deepseek-v3" => Steps {
            cuts: &[
                Cut::Pattern(r"\p{N}{1,3}"),
                Cut::Pattern("[\u{4E00}-\u{9FA5}\u{3040}-\u{309F}\u{30A0}-\u{30FF}]+"),
                Cut::Pattern(DEEPSEEK_V3),
                Cut::Bytes,
            ],
            ..PLAIN
        },
        _ => return None,
    })
}

impl Steps {
    /// Compiles the steps.
    pub(crate) fn pre_tokenizer(&self) -> tokenizers::Result<PreTokenizerWrapper> {
        let mut cuts = Vec::with_capacity(self.cuts.len());
        for cut in self.cuts {
            cuts.push(match cut {
                Cut::Pattern(pattern) => {
                    let pattern = SplitPattern::Regex((*pattern).to_owned());
                    PreTokenizerWrapper::Split(Split::new(pattern, SplitDelimiterBehavior::Isolated, false)?)
                }
                Cut::SingleDigits => PreTokenizerWrapper::Digits(Digits::new(true)),
                Cut::DigitRuns => PreTokenizerWrapper::Digits(Digits::new(false)),
                Cut::Punctuation => {
                    PreTokenizerWrapper::Punctuation(Punctuation::new(SplitDelimiterBehavior::Contiguous))
                }
                Cut::Gpt2 => PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, false, true)),
                Cut::Bytes => PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, false, false)),
            });
        }
        Ok(PreTokenizerWrapper::Sequence(Sequence::new(cuts)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_steps_that_compile() {
        for name in NAMES {
            steps(name).unwrap_or_else(|| panic!("{name}")).pre_tokenizer().unwrap();
        }
        assert!(steps("unheard-of").is_none());
    }
}
