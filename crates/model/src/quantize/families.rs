//! The families that can be written: the names of their tensors in both formats, and the order of rows.

/// Families whose names and metadata are known here: the class in `config.json`, the name in GGUF files, whether rows of
/// queries and keys are reordered there.
static FAMILIES: [Family; 4] = [
    Family { class: "LlamaForCausalLM", model_type: "llama", gguf: "llama", interleaved: true },
    Family { class: "MistralForCausalLM", model_type: "mistral", gguf: "llama", interleaved: true },
    Family { class: "Qwen2ForCausalLM", model_type: "qwen2", gguf: "qwen2", interleaved: false },
    Family { class: "Qwen3ForCausalLM", model_type: "qwen3", gguf: "qwen3", interleaved: false },
];

/// A family that can be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Family {
    /// The class in `config.json`.
    pub(super) class: &'static str,
    /// `model_type` in `config.json`.
    pub(super) model_type: &'static str,
    /// `general.architecture` in GGUF files.
    pub(super) gguf: &'static str,
    /// Whether GGUF files pair neighbouring rows of queries and keys for the rotary embedding, where Hugging Face's pair
    /// halves of a head.
    pub(super) interleaved: bool,
}

impl Family {
    /// The family of a class; Llama's old spelling is known too.
    pub(super) fn of_class(class: &str) -> Option<&'static Self> {
        let class = if class == "LLaMAForCausalLM" { "LlamaForCausalLM" } else { class };
        FAMILIES.iter().find(|family| family.class == class)
    }

    /// The classes that can be written.
    pub(super) fn classes() -> String {
        FAMILIES.map(|family| family.class).join(", ")
    }
}

/// A tensor's place in what is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) rows: Rows,
}

/// The order of a tensor's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// As they are.
    Same,
    /// From halves of each of so many heads to neighbours.
    Interleave(usize),
    /// From neighbours to halves of each of so many heads.
    Halve(usize),
}

impl Rows {
    /// Rows of the outermost dimension.
    pub(super) fn unit(self, shape: &[usize]) -> usize {
        shape.first().copied().unwrap_or(1)
    }

    /// For each row that is written, the one that it is read from; `None` for the order that they are in.
    pub(super) fn order(self, shape: &[usize]) -> Option<impl Iterator<Item = usize>> {
        let rows = self.unit(shape);
        let (heads, interleave) = match self {
            Self::Same => return None,
            Self::Interleave(heads) => (heads, true),
            Self::Halve(heads) => (heads, false),
        };
        let width = rows / heads.max(1);
        let half = width / 2;
        Some((0..rows).map(move |row| {
            let (head, place) = (row / width, row % width);
            let from =
                if interleave { place % 2 * half + place / 2 } else { place % half * 2 + place / half };
            head * width + from
        }))
    }
}

/// Names outside of the layers: Hugging Face's, GGUF's.
const OUTSIDE: [(&str, &str); 3] =
    [("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")];

/// Names inside of a layer.
const INSIDE: [(&str, &str); 11] = [
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// The module and the kind (`weight` or `bias`) of a tensor.
fn split(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('.').filter(|(_, kind)| matches!(*kind, "weight" | "bias"))
}

/// GGUF's name of a tensor of Hugging Face's; `None` when it has none. `heads` are those of queries and keys.
pub(super) fn to_gguf(family: &Family, name: &str, heads: (usize, usize)) -> Option<Target> {
    let (module, kind) = split(name)?;
    if let Some((_, gguf)) = OUTSIDE.iter().find(|(own, _)| *own == module) {
        return Some(Target { name: format!("{gguf}.{kind}"), rows: Rows::Same });
    }
    let (layer, part) = module.strip_prefix("model.layers.")?.split_once('.')?;
    let (_, gguf) = INSIDE.iter().find(|(own, _)| *own == part)?;
    let rows = match *gguf {
        "attn_q" if family.interleaved => Rows::Interleave(heads.0),
        "attn_k" if family.interleaved => Rows::Interleave(heads.1),
        _ => Rows::Same,
    };
    Some(Target { name: format!("blk.{layer}.{gguf}.{kind}"), rows })
}

/// Hugging Face's name of a tensor of GGUF's; `None` when it has none.
pub(super) fn to_hugging_face(family: &Family, name: &str, heads: (usize, usize)) -> Option<Target> {
    let (module, kind) = split(name)?;
    if let Some((own, _)) = OUTSIDE.iter().find(|(_, gguf)| *gguf == module) {
        return Some(Target { name: format!("{own}.{kind}"), rows: Rows::Same });
    }
    let (layer, part) = module.strip_prefix("blk.")?.split_once('.')?;
    let (own, _) = INSIDE.iter().find(|(_, gguf)| *gguf == part)?;
    let rows = match part {
        "attn_q" if family.interleaved => Rows::Halve(heads.0),
        "attn_k" if family.interleaved => Rows::Halve(heads.1),
        _ => Rows::Same,
    };
    Some(Target { name: format!("model.layers.{layer}.{own}.{kind}"), rows })
}

/// Whether a tensor of a checkpoint is derived from the configuration and left out: tables of rotary frequencies.
pub(super) fn is_derived(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq") || name == "rope_freqs.weight"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for class in ["LlamaForCausalLM", "Qwen2ForCausalLM"] {
            let family = Family::of_class(class).unwrap();
            for (own, gguf) in [
                ("model.embed_tokens.weight", "token_embd.weight"),
                ("model.layers.12.self_attn.q_proj.bias", "blk.12.attn_q.bias"),
                ("model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight"),
            ] {
                let target = to_gguf(family, own, (4, 2)).unwrap();
                assert_eq!(target.name, gguf);
                assert_eq!(target.rows != Rows::Same, family.interleaved && gguf.contains("attn_q"));
                assert_eq!(to_hugging_face(family, gguf, (4, 2)).unwrap().name, own);
            }
            assert_eq!(to_gguf(family, "model.layers.0.mlp.experts.0.w1.weight", (4, 2)), None);
            assert_eq!(to_gguf(family, "model.layers.0.mlp.down_proj.qweight", (4, 2)), None);
        }
    }

    #[test]
    fn rows_are_reordered_within_their_heads() {
        let order: Vec<usize> = Rows::Interleave(2).order(&[8, 3]).unwrap().collect();
        assert_eq!(order, [0, 2, 1, 3, 4, 6, 5, 7]);
        let order: Vec<usize> = Rows::Interleave(1).order(&[6]).unwrap().collect();
        assert_eq!(order, [0, 3, 1, 4, 2, 5]);
        let back: Vec<usize> = Rows::Halve(1).order(&[6]).unwrap().map(|row| order[row]).collect();
        assert_eq!(back, [0, 1, 2, 3, 4, 5]);
        assert!(Rows::Same.order(&[6]).is_none());
    }
}
