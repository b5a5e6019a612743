//! Decoding against values that the Python package `gguf` produced.

use byzerllm_kernels::{TensorType, dequantize};

use crate::support::bits;

static FIXTURE: &[u8] = include_bytes!("../fixtures/dequant.bin");

fn take<'a>(rest: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (head, tail) = rest.split_at(count);
    *rest = tail;
    head
}

fn number(rest: &mut &[u8]) -> u32 {
    u32::from_le_bytes(take(rest, 4).try_into().unwrap())
}

#[test]
fn values_equal_those_of_the_reference() {
    let mut rest = FIXTURE;
    let mut seen = Vec::new();
    while !rest.is_empty() {
        let kind = TensorType::from_gguf_id(number(&mut rest)).unwrap();
        let (bytes, values) = (number(&mut rest) as usize, number(&mut rest) as usize);
        let encoded = take(&mut rest, bytes);
        let expected: Vec<f32> = take(&mut rest, 4 * values)
            .chunks_exact(4)
            .map(|four| f32::from_le_bytes(four.try_into().unwrap()))
            .collect();
        // One byte further on, so that nothing may rely on alignment.
        let mut shifted = vec![0];
        shifted.extend_from_slice(encoded);
        let mut found = vec![0.0; values];
        dequantize(kind, &shifted[1..], &mut found).unwrap();
        assert_eq!(bits(&found), bits(&expected), "{kind}");
        seen.push(kind);
    }
    let in_gguf = TensorType::ALL.iter().filter(|kind| TensorType::from_gguf_id(kind.gguf_id()).is_some());
    assert_eq!(seen.len(), in_gguf.count());
}

#[test]
fn wrong_lengths_are_refused() {
    for kind in TensorType::ALL {
        let mut out = vec![0.0; kind.block_len()];
        assert!(dequantize(kind, &vec![0; kind.block_bytes()], &mut out).is_ok());
        assert!(dequantize(kind, &vec![0; kind.block_bytes() + 1], &mut out).is_err());
        assert!(dequantize(kind, &[], &mut out).is_err());
    }
}
