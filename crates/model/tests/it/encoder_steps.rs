//! Steps of encoders: many texts are cut into several, and a warm one takes no memory.

use byzerllm_kernels::Compute;
use byzerllm_model::EncoderInput;

use crate::allocations::peak;
use crate::encoders::{network, open};

/// Texts of lengths that a step holds some of: ids and types that every model has.
fn texts(max_length: usize, vocabulary: usize) -> Vec<(Vec<u32>, Vec<u8>)> {
    let mut state = 7_u64;
    let mut below = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit
    };
    (0..150)
        .map(|_| {
            let length = 1 + below(max_length);
            ((0..length).map(|_| below(vocabulary) as u32).collect(), vec![0; length])
        })
        .collect()
}

#[test]
fn several_steps_are_as_many_texts_alone_and_warm_ones_take_no_memory() {
    for name in ["gguf-bert-cls", "distilbert-dense", "roberta-labels"] {
        let checkpoint = open(name);
        let config = checkpoint.config();
        let texts = texts(config.max_length, config.vocab_size);
        let inputs: Vec<EncoderInput<'_>> =
            texts.iter().map(|(ids, types)| EncoderInput { ids, types }).collect();
        assert!(inputs.iter().map(|text| text.ids.len()).sum::<usize>() > 2048, "{name}: several steps");
        for compute in Compute::ALL {
            let mut network = network(&checkpoint, compute, 2);
            let all: Vec<Vec<f32>> = {
                let rows = network.encode(&inputs).unwrap();
                assert_eq!(rows.len(), inputs.len());
                (0..rows.len()).map(|row| rows.row(row).to_vec()).collect()
            };
            let (again, most) = peak(|| network.encode(&inputs).unwrap().row(0).to_vec().len());
            assert_eq!(again, network.traits().width);
            assert!(most <= again * size_of::<f32>(), "{name} {compute}: a warm step took {most} bytes");
            for (input, row) in inputs.iter().zip(&all).step_by(7) {
                let alone = network.encode(std::slice::from_ref(input)).unwrap();
                assert_eq!(alone.row(0), &row[..], "{name} {compute}");
            }
        }
    }
}
