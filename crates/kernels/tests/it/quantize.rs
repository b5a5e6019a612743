//! Encoding against the `gguf` package and llama.cpp, and over hostile values.

use byzerllm_kernels::{KernelError, TensorType, dequantize, quantize};
use proptest::prelude::*;

static FIXTURE: &[u8] = include_bytes!("../fixtures/quantize.bin");

fn take<'a>(rest: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (head, tail) = rest.split_at(count);
    *rest = tail;
    head
}

fn number(rest: &mut &[u8]) -> usize {
    u32::from_le_bytes(take(rest, 4).try_into().unwrap()) as usize
}

fn double(rest: &mut &[u8]) -> f64 {
    f64::from_le_bytes(take(rest, 8).try_into().unwrap())
}

fn floats(rest: &mut &[u8], count: usize) -> Vec<f32> {
    let bytes = take(rest, 4 * count);
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

fn encoded(kind: TensorType, values: &[f32], importance: Option<&[f32]>) -> Vec<u8> {
    let mut out = vec![0xa5; kind.row_bytes(values.len()).unwrap()];
    quantize(kind, values, importance, &mut out).unwrap();
    out
}

fn decoded(kind: TensorType, bytes: &[u8], count: usize) -> Vec<f32> {
    let mut values = vec![0.0; count];
    dequantize(kind, bytes, &mut values).unwrap();
    values
}

/// The root of the mean weighted square of differences.
fn distance(found: &[f32], values: &[f32], importance: Option<&[f32]>) -> f64 {
    let squares = found.iter().zip(values).enumerate().map(|(i, (found, value))| {
        let weight = importance.map_or(1.0, |importance| f64::from(importance[i % importance.len()]));
        (f64::from(*found) - f64::from(*value)).powi(2) * weight
    });
    (squares.sum::<f64>() / values.len() as f64).sqrt()
}

#[test]
fn errors_are_at_most_those_of_the_references_and_plain_bytes_are_equal() {
    let mut rest = FIXTURE;
    let (columns, rows) = (number(&mut rest), number(&mut rest));
    let importance = floats(&mut rest, columns);
    let values = floats(&mut rest, columns * rows);
    let mut seen = 0;
    while !rest.is_empty() {
        let kind = TensorType::from_gguf_id(number(&mut rest) as u32).unwrap();
        let equal = number(&mut rest) == 1;
        let (plain, weighted) = (double(&mut rest), double(&mut rest));
        let own = encoded(kind, &values, None);
        if equal {
            let count = number(&mut rest);
            assert_eq!(own, take(&mut rest, count), "{kind}");
        }
        let error = distance(&decoded(kind, &own, values.len()), &values, None);
        assert!(error <= 1.02 * plain, "{kind}: {error} against {plain}");
        let own = encoded(kind, &values, Some(&importance));
        let error = distance(&decoded(kind, &own, values.len()), &values, Some(&importance));
        assert!(error <= 1.02 * weighted, "{kind} with importance: {error} against {weighted}");
        println!("{kind}: {:.4} of the reference's error with importance", error / weighted);
        seen += 1;
    }
    assert_eq!(seen, 8);
}

#[test]
fn importance_moves_the_error_to_other_columns() {
    let mut rest = FIXTURE;
    let (columns, rows) = (number(&mut rest), number(&mut rest));
    let importance = floats(&mut rest, columns);
    let values = floats(&mut rest, columns * rows);
    for kind in [TensorType::Q4_0, TensorType::Q4K, TensorType::Q5K, TensorType::Q6K] {
        let error = |given: Option<&[f32]>| {
            let bytes = encoded(kind, &values, given);
            distance(&decoded(kind, &bytes, values.len()), &values, Some(&importance))
        };
        let (with, without) = (error(Some(&importance)), error(None));
        assert!(with < without, "{kind}: {with} against {without}");
    }
}

#[test]
fn what_cannot_be_encoded_is_named() {
    let mut out = vec![0; 144];
    let mut values = vec![0.5; 256];
    values[9] = f32::NAN;
    let error = quantize(TensorType::Q4K, &values, None, &mut out).unwrap_err();
    assert_eq!(error, KernelError::NotFinite { what: "value", index: 9 });
    values[9] = f32::NEG_INFINITY;
    assert!(quantize(TensorType::Q4K, &values, None, &mut out).is_err());
    values[9] = 0.0;
    for bad in [-1.0, f32::NAN, f32::INFINITY] {
        let mut importance = vec![1.0; 256];
        importance[3] = bad;
        let error = quantize(TensorType::Q4K, &values, Some(&importance), &mut out).unwrap_err();
        assert_eq!(error, KernelError::NotFinite { what: "importance", index: 3 });
    }
    assert!(quantize(TensorType::Q4K, &values, Some(&[1.0; 128]), &mut out).is_err());
    assert!(quantize(TensorType::Q4K, &values, Some(&[]), &mut out).is_err());
    assert!(quantize(TensorType::Q4K, &values[1..], None, &mut out).is_err());
    assert!(quantize(TensorType::Q4K, &values, None, &mut out[1..]).is_err());
    for kind in TensorType::ALL.into_iter().filter(|kind| !TensorType::ENCODED.contains(kind)) {
        let error = quantize(kind, &values, None, &mut out).unwrap_err();
        assert_eq!(error, KernelError::Encoding { kind });
    }
    let mut out = [0; 2];
    assert!(matches!(quantize(TensorType::F16, &[1e6], None, &mut out), Err(KernelError::Range { .. })));
    assert!(matches!(
        quantize(TensorType::BF16, &[f32::MAX], None, &mut out),
        Err(KernelError::Range { .. })
    ));
    quantize(TensorType::BF16, &[1e6], None, &mut out).unwrap();
}

/// Values of every size, zeros and numbers below the normal ones among them.
fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        Just(0.0_f32),
        Just(f32::MAX),
        Just(f32::MIN),
        Just(f32::MIN_POSITIVE / 8.0),
        Just(f32::from_bits(1)),
        any::<f32>().prop_filter("finite", |value| value.is_finite()),
        -1.0_f32..1.0,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn finite_values_become_finite_values(
        values in prop::collection::vec(value(), 256),
        importance in prop::option::of(prop::collection::vec(prop_oneof![Just(0.0_f32), 0.0_f32..1e30], 256)),
    ) {
        for kind in TensorType::ENCODED.into_iter().filter(|kind| !kind.is_float()) {
            let bytes = encoded(kind, &values, importance.as_deref());
            prop_assert!(decoded(kind, &bytes, 256).iter().all(|value| value.is_finite()), "{kind}");
        }
    }

    #[test]
    fn errors_stay_below_a_step(values in prop::collection::vec(-1.0_f32..1.0, 256), scale in -4_i32..10) {
        let values: Vec<f32> = values.iter().map(|value| value * (scale as f32).exp2()).collect();
        let largest = values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        for (kind, steps) in [
            (TensorType::Q4_0, 7.0), (TensorType::Q5_0, 15.0), (TensorType::Q8_0, 120.0), (TensorType::Q4K, 6.0),
            (TensorType::Q5K, 12.0), (TensorType::Q6K, 24.0),
        ] {
            let found = decoded(kind, &encoded(kind, &values, None), 256);
            for (found, value) in found.iter().zip(&values) {
                prop_assert!((found - value).abs() <= largest / steps, "{kind}: {found} for {value}");
            }
        }
    }

    #[test]
    fn encoding_is_stable(values in prop::collection::vec(-1.0_f32..1.0, 256)) {
        // What was decoded from 8 bits is encoded to the same codes again.
        let once = encoded(TensorType::Q8_0, &values, None);
        let again = decoded(TensorType::Q8_0, &encoded(TensorType::Q8_0, &decoded(TensorType::Q8_0, &once, 256), None), 256);
        for (first, second) in decoded(TensorType::Q8_0, &once, 256).iter().zip(&again) {
            prop_assert!((first - second).abs() <= first.abs() * 1e-3 + 1e-6);
        }
    }
}
