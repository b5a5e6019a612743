//! The work of a decoder's steps, counted from its packed weights.

use byzerllm_kernels::CacheType;

use super::CpuOptions;
use super::layer::{Layer, Linear};
use crate::decoder_weights::LookupTable;
use crate::work::{AttentionWork, ExpertWork, LayerWork, ProductWork, WorkModel};

pub(super) fn model(
    options: &CpuOptions,
    layers: &[Layer],
    head: &Linear,
    embedding: &LookupTable,
) -> WorkModel {
    WorkModel {
        layers: layers.iter().map(|packed| layer(options, packed)).collect(),
        head: ProductWork::of([&head.matrix]),
        embedding_bytes: embedding.kind.row_bytes(embedding.columns).unwrap_or(0) as u64,
    }
}

fn layer(options: &CpuOptions, layer: &Layer) -> LayerWork {
    let own = [Some(&layer.qkv), Some(&layer.out), layer.router.as_ref()];
    let own = own.into_iter().flatten().map(|linear| &linear.matrix);
    let mlp = layer.mlp.iter().take(1).flat_map(|mlp| [&mlp.up.matrix, &mlp.down.matrix]);
    let (dense, experts) = match &layer.config.mlp.experts {
        Some(config) => {
            let (count, per_token) = (config.count, config.per_token.min(config.count));
            (ProductWork::of(own), Some(ExpertWork { each: ProductWork::of(mlp), count, per_token }))
        }
        None => (ProductWork::of(own.chain(mlp)), None),
    };
    let shape = options.cache_shape(&layer.config.attention, 1);
    let cache_bytes = shape.bytes().unwrap_or(0) / options.block_tokens.max(1);
    LayerWork {
        dense,
        experts,
        attention: AttentionWork {
            width: (layer.attention.heads * layer.attention.head_dim) as u64,
            window: layer.attention.window,
            cache_bytes: cache_bytes as u64,
            integer_scores: options.cache == CacheType::I8,
            integer_values: options.cache == CacheType::I8,
        },
    }
}
