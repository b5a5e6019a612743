//! What a checkpoint can be written as, and which of its matrices become what.

use std::fmt;
use std::str::FromStr;

use byzerllm_kernels::TensorType;

/// The format of the file or directory that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    /// One GGUF file.
    Gguf,
    /// A directory as `transformers` reads it.
    Safetensors,
}

/// How the weights are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputType {
    /// An encoding of GGUF, or floats.
    Tensor(TensorType),
    /// GPTQ's layout with so many bits (4 or 8), symmetric.
    Gptq(u32),
}

/// The words of the types, by format.
const TYPES: [(&str, OutputType, bool, bool); 11] = [
    ("q4_0", OutputType::Tensor(TensorType::Q4_0), true, false),
    ("q4_1", OutputType::Tensor(TensorType::Q4_1), true, false),
    ("q4_k", OutputType::Tensor(TensorType::Q4K), true, false),
    ("q5_k", OutputType::Tensor(TensorType::Q5K), true, false),
    ("q6_k", OutputType::Tensor(TensorType::Q6K), true, false),
    ("q8_0", OutputType::Tensor(TensorType::Q8_0), true, false),
    ("f16", OutputType::Tensor(TensorType::F16), true, true),
    ("bf16", OutputType::Tensor(TensorType::BF16), true, true),
    ("f32", OutputType::Tensor(TensorType::F32), true, true),
    ("gptq4", OutputType::Gptq(4), false, true),
    ("gptq8", OutputType::Gptq(8), false, true),
];

impl OutputType {
    /// The words that can be given.
    pub fn words() -> impl Iterator<Item = &'static str> {
        TYPES.iter().map(|(word, ..)| *word)
    }

    /// Whether a format can hold it.
    #[must_use]
    pub fn fits(self, format: OutputFormat) -> bool {
        TYPES.iter().any(|(_, kind, gguf, safetensors)| {
            *kind == self && if format == OutputFormat::Gguf { *gguf } else { *safetensors }
        })
    }

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        TYPES.iter().find(|(_, kind, ..)| *kind == self).map_or("", |(word, ..)| word)
    }
}

impl fmt::Display for OutputType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl FromStr for OutputType {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let found = TYPES.iter().find(|(known, ..)| *known == word.to_lowercase());
        found.map(|(_, kind, ..)| *kind).ok_or_else(|| {
            let words: Vec<&str> = Self::words().collect();
            format!("unknown type {word:?}: use {}", words.join(", "))
        })
    }
}

/// What a matrix becomes in a GGUF file. Table and head, where errors reach every token, get at least 6 bits; where 256
/// does not divide the columns, the encoding of 32 values with the next higher number of bits stands in.
pub(super) fn matrix_type(asked: TensorType, columns: usize, outer: bool) -> TensorType {
    let wanted = match asked {
        TensorType::Q4_0 | TensorType::Q4_1 | TensorType::Q4K | TensorType::Q5K if outer => TensorType::Q6K,
        other => other,
    };
    if columns.is_multiple_of(wanted.block_len()) {
        return wanted;
    }
    let instead = match wanted {
        TensorType::Q4K => TensorType::Q5_0,
        TensorType::Q5K => TensorType::Q5_1,
        TensorType::Q6K => TensorType::Q8_0,
        _ => TensorType::F16,
    };
    if columns.is_multiple_of(instead.block_len()) { instead } else { TensorType::F16 }
}

/// The number that `general.file_type` has for files of mostly this encoding (llama.cpp's `llama_ftype`).
pub(super) fn file_type(kind: TensorType) -> u32 {
    match kind {
        TensorType::F32 => 0,
        TensorType::F16 => 1,
        TensorType::Q4_0 => 2,
        TensorType::Q4_1 => 3,
        TensorType::Q8_0 => 7,
        TensorType::Q5_0 => 8,
        TensorType::Q5_1 => 9,
        TensorType::Q2K => 10,
        TensorType::Q3K => 11,
        TensorType::Q4K => 14,
        TensorType::Q5K => 16,
        TensorType::Q6K => 18,
        TensorType::BF16 => 32,
        // Not an encoding of GGUF files.
        TensorType::Int4 => 1024,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_and_belongs_to_a_format() {
        for word in OutputType::words() {
            let kind: OutputType = word.parse().unwrap();
            assert_eq!(kind.to_string(), word);
            assert!(kind.fits(OutputFormat::Gguf) || kind.fits(OutputFormat::Safetensors), "{word}");
        }
        assert!("q3_k".parse::<OutputType>().unwrap_err().contains("q4_k"));
        assert!(!OutputType::Gptq(4).fits(OutputFormat::Gguf));
        assert!(!OutputType::Tensor(TensorType::Q4K).fits(OutputFormat::Safetensors));
    }

    #[test]
    fn columns_decide_on_the_block() {
        assert_eq!(matrix_type(TensorType::Q4K, 512, false), TensorType::Q4K);
        assert_eq!(matrix_type(TensorType::Q4K, 512, true), TensorType::Q6K);
        assert_eq!(matrix_type(TensorType::Q4K, 576, false), TensorType::Q5_0);
        assert_eq!(matrix_type(TensorType::Q4_0, 576, false), TensorType::Q4_0);
        assert_eq!(matrix_type(TensorType::Q4_0, 576, true), TensorType::Q8_0);
        assert_eq!(matrix_type(TensorType::Q8_0, 40, false), TensorType::F16);
    }
}
