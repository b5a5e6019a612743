//! Quantization while a checkpoint is packed: which matrices become what.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use byzerllm_kernels::{KernelError, TensorType, TensorView, Turn};
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value as Json, json};

use crate::decoder_weights::{DecoderWeights, LinearWeights, MatrixPart};

/// How many bits the weights of a checkpoint of floats are brought to while it is loaded, or how they are said to be
/// quantized already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quantization {
    /// They stay as the file has them.
    Off,
    /// 4 bits: Q4_K where 256 divides the columns, else Q4_0 where 32 does; the output head has 8.
    Four,
    /// 8 bits: Q8_0 where 32 divides the columns.
    Eight,
    /// The checkpoint is one of GPTQ; any other is refused.
    Gptq,
    /// The checkpoint is one of AWQ; any other is refused.
    Awq,
}

impl Quantization {
    /// Every choice.
    pub const ALL: [Quantization; 5] = [Self::Four, Self::Eight, Self::Off, Self::Gptq, Self::Awq];

    /// The word that options and status use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Four => "4",
            Self::Eight => "8",
            Self::Gptq => "gptq",
            Self::Awq => "awq",
        }
    }

    /// Whether it changes weights while they are loaded.
    #[must_use]
    pub const fn changes(self) -> bool {
        matches!(self, Self::Four | Self::Eight)
    }

    /// The method that the checkpoint is said to be packed by.
    pub(crate) fn declared(self) -> Option<&'static str> {
        matches!(self, Self::Gptq | Self::Awq).then(|| self.as_str())
    }

    /// What a matrix of this encoding becomes; `None` when it stays.
    #[must_use]
    pub fn target(self, kind: TensorType, columns: usize) -> Option<TensorType> {
        let more_than_8_bits = kind.is_float();
        let target = match self {
            Self::Off | Self::Gptq | Self::Awq => return None,
            Self::Eight => TensorType::Q8_0,
            Self::Four if columns.is_multiple_of(TensorType::Q4K.block_len()) => TensorType::Q4K,
            Self::Four => TensorType::Q4_0,
        };
        let fewer = more_than_8_bits || (self == Self::Four && kind == TensorType::Q8_0);
        (fewer && columns.is_multiple_of(target.block_len())).then_some(target)
    }

    /// What the output head of this encoding becomes: errors there reach every token, so that it keeps 8 bits.
    #[must_use]
    pub fn head_target(self, kind: TensorType, columns: usize) -> Option<TensorType> {
        match self {
            Self::Off | Self::Gptq | Self::Awq => None,
            Self::Four | Self::Eight => Self::Eight.target(kind, columns),
        }
    }

    /// Marks the matrices that are quantized when they are packed. Routers of experts stay exact.
    pub(crate) fn mark(self, weights: &mut DecoderWeights<'_>) {
        for layer in &mut weights.layers {
            self.mark_linear(&mut layer.qkv);
            self.mark_linear(&mut layer.out);
            for mlp in &mut layer.mlp {
                self.mark_linear(&mut mlp.up);
                self.mark_linear(&mut mlp.down);
            }
        }
        if let Some(head) = &mut weights.head {
            self.mark_head(head);
        }
    }

    fn mark_linear(self, linear: &mut LinearWeights<'_>) {
        each_part(linear, |kind, columns| self.target(kind, columns));
    }

    /// Marks the output head.
    pub(crate) fn mark_head(self, head: &mut LinearWeights<'_>) {
        each_part(head, |kind, columns| self.head_target(kind, columns));
    }
}

/// Codes in an order of their own stay as they are.
fn each_part(linear: &mut LinearWeights<'_>, target: impl Fn(TensorType, usize) -> Option<TensorType>) {
    let kinds: Vec<TensorType> = linear.stored_kinds().collect();
    let ordered = linear.column_order().is_some();
    for (part, kind) in linear.parts.iter_mut().zip(kinds) {
        let stays = ordered || (part.integers.is_some() && part.low_rank.is_none());
        part.target = if stays { None } else { target(kind, part.columns) };
    }
}

/// The bytes of a part in the encoding in which it is packed; `stored` are those of `kind`.
pub(crate) fn encoded<'a>(
    turn: &Turn<'_>,
    part: &MatrixPart<'_>,
    kind: TensorType,
    stored: Cow<'a, [u8]>,
) -> Result<Cow<'a, [u8]>, KernelError> {
    let Some(target) = part.target else { return Ok(stored) };
    // All columns count alike, and yet the scales are searched for.
    let alike = vec![1.0; part.columns];
    let view = TensorView::new(kind, part.rows, part.columns, &stored)?;
    Ok(Cow::Owned(view.encoded(turn, target, Some(&alike))?))
}

/// What quantization at load makes of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantizationReport {
    /// What was asked for.
    pub asked: Quantization,
    /// Matrices that are quantized.
    pub quantized: usize,
    /// Matrices that stay, because they have no more bits already or because their columns fit no block.
    pub kept: usize,
    /// What is told where it changes nothing, or not everything.
    pub notice: Option<String>,
}

impl QuantizationReport {
    /// Counts the matrices that were marked.
    pub(crate) fn new(asked: Quantization, weights: &DecoderWeights<'_>) -> Self {
        let (mut quantized, mut kept, mut narrow, mut floats) = (0, 0, 0, 0);
        for layer in &weights.layers {
            let mlp = layer.mlp.iter().flat_map(|mlp| [&mlp.up, &mlp.down]);
            for part in [&layer.qkv, &layer.out].into_iter().chain(mlp).flat_map(|linear| &linear.parts) {
                match part.target {
                    Some(_) => quantized += 1,
                    None => {
                        kept += 1;
                        narrow += usize::from(!part.packed_kind().is_float());
                        floats += usize::from(part.packed_kind().is_float());
                    }
                }
            }
        }
        let bits = asked.as_str();
        let notice = if !asked.changes() || kept == 0 {
            None
        } else if quantized == 0 && narrow > 0 {
            Some(format!(
                "the checkpoint is quantized already and is used as it is: quantization {bits} changes nothing"
            ))
        } else if narrow > 0 {
            Some(format!("{narrow} matrices are quantized already and are used as they are"))
        } else {
            Some(format!("{floats} matrices stay floats: 32 does not divide their columns"))
        };
        Self { asked, quantized, kept, notice }
    }

    /// For status and listings.
    pub(crate) fn json(&self) -> Json {
        let mut json = json!({"asked": self.asked, "quantized": self.quantized, "kept": self.kept});
        if let Some(notice) = &self.notice {
            json["notice"] = json!(notice);
        }
        json
    }
}

impl fmt::Display for Quantization {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl FromStr for Quantization {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word.trim().to_lowercase().as_str() {
            "4" | "true" => Ok(Self::Four),
            "8" => Ok(Self::Eight),
            "off" | "false" => Ok(Self::Off),
            "gptq" => Ok(Self::Gptq),
            "awq" => Ok(Self::Awq),
            _ => {
                let shown: String = word.chars().take(32).collect();
                Err(format!(
                    "unknown quantization {shown:?}: use 4, 8, true (which is 4), false or off, or gptq or awq for checkpoints of these"
                ))
            }
        }
    }
}

impl Serialize for Quantization {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Quantization {
    /// Reads a word, a number or a truth.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl Visitor<'_> for Words {
            type Value = Quantization;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("4, 8, true, false, \"off\", \"gptq\" or \"awq\"")
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Quantization, E> {
                word.parse().map_err(E::custom)
            }

            fn visit_bool<E: serde::de::Error>(self, on: bool) -> Result<Quantization, E> {
                self.visit_str(if on { "true" } else { "false" })
            }

            fn visit_u64<E: serde::de::Error>(self, bits: u64) -> Result<Quantization, E> {
                self.visit_str(&bits.to_string())
            }

            fn visit_i64<E: serde::de::Error>(self, bits: i64) -> Result<Quantization, E> {
                self.visit_str(&bits.to_string())
            }
        }
        deserializer.deserialize_any(Words).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_numbers_and_truths_are_read() {
        let read = |text: &str| serde_json::from_str::<Quantization>(text);
        for (text, expected) in [
            ("\"4\"", Quantization::Four),
            ("4", Quantization::Four),
            ("true", Quantization::Four),
            ("\"True\"", Quantization::Four),
            ("8", Quantization::Eight),
            ("false", Quantization::Off),
            ("\"off\"", Quantization::Off),
            ("\"GPTQ\"", Quantization::Gptq),
            ("\"awq\"", Quantization::Awq),
        ] {
            assert_eq!(read(text).unwrap(), expected, "{text}");
        }
        for text in ["5", "\"\"", "-4", "\"int4\"", "null", "4.5"] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(read("5").unwrap_err().to_string().contains("use 4, 8, true"));
        for choice in Quantization::ALL {
            assert_eq!(read(&serde_json::to_string(&choice).unwrap()).unwrap(), choice);
        }
    }

    #[test]
    fn blocks_follow_the_columns() {
        let four = |kind, columns| Quantization::Four.target(kind, columns);
        assert_eq!(four(TensorType::BF16, 512), Some(TensorType::Q4K));
        assert_eq!(four(TensorType::BF16, 576), Some(TensorType::Q4_0));
        assert_eq!(four(TensorType::BF16, 40), None);
        assert_eq!(four(TensorType::Q8_0, 256), Some(TensorType::Q4K));
        assert_eq!(four(TensorType::Q6K, 256), None);
        assert_eq!(Quantization::Eight.target(TensorType::F32, 64), Some(TensorType::Q8_0));
        assert_eq!(Quantization::Eight.target(TensorType::Q4_0, 64), None);
        assert_eq!(Quantization::Four.head_target(TensorType::F16, 256), Some(TensorType::Q8_0));
        assert_eq!(Quantization::Off.head_target(TensorType::F16, 256), None);
    }
}
