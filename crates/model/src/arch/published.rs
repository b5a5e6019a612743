//! The names that the model's published class gives its matrices: those of the file itself in Hugging Face's layout,
//! and translated ones in GGUF files. Adapters are written in published names.

use super::fields::Fields;
use super::source::{Format, Source};
use crate::adapter::RowOrder;

/// GGUF's word for a matrix of a layer, and the published one of the families that are named like Llama.
const LAYER: [(&str, &str); 7] = [
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Published names of a checkpoint's tensors.
pub(crate) struct Published {
    /// In GGUF files: the width of a head whose halves alternate in queries and keys, where they do.
    gguf: Option<Option<usize>>,
}

impl Published {
    pub(crate) fn new(source: &Source) -> Self {
        let Format::Gguf { file, architecture } = &source.format else { return Self { gguf: None } };
        // Files of other families keep the published order.
        let width =
            if architecture == "llama" { head_width(&Fields::gguf(file, architecture)) } else { None };
        Self { gguf: Some(width) }
    }

    /// The module that a tensor is the weight of, and the order of its rows; `None` when it has no published name.
    pub(crate) fn module(&self, tensor: &str) -> Option<(String, RowOrder)> {
        let name = tensor.strip_suffix(".weight")?;
        let Some(width) = self.gguf else { return Some((name.to_owned(), RowOrder::Published)) };
        if name == "output" {
            return Some(("lm_head".to_owned(), RowOrder::Published));
        }
        let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
        let &(_, published) = LAYER.iter().find(|(known, _)| *known == part)?;
        let order = match width {
            Some(width) if matches!(part, "attn_q" | "attn_k") => RowOrder::Alternating(width),
            _ => RowOrder::Published,
        };
        Some((format!("model.layers.{layer}.{published}"), order))
    }
}

fn head_width(fields: &Fields<'_>) -> Option<usize> {
    let stated = fields.positive_or_absent("attention.key_length").ok().flatten();
    let width = stated.or_else(|| {
        let heads = fields.positive("attention.head_count").ok()?;
        Some(fields.positive("embedding_length").ok()? / heads)
    });
    width.filter(|&width| width > 0)
}
