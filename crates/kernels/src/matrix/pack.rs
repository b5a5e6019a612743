//! Bringing a panel of encoded rows into the packed order.

use half::f16;

use super::layout::{GROUP, HALF, PANEL, Packing, Record, SHARED, WIDE, zero_code};
use crate::quant::{Block, TensorType, TensorView, decode, dequantize};

/// Packs rows `start..start + columns` of `view` into the zeroed bytes of one panel.
pub(super) fn pack_panel(
    view: &TensorView<'_>,
    start: usize,
    columns: usize,
    packing: Packing,
    to: &mut [u8],
) {
    for lane in 0..columns {
        let row = view.row(start + lane);
        match (packing.record(), view.kind()) {
            (None, kind) => pack_floats(kind, row, lane, to),
            (Some(record), kind) if kind.is_float() => round_floats(kind, row, lane, record, to),
            (Some(record), TensorType::Q4_0 | TensorType::Q4_1) => {
                pack_nibbles(view.kind(), row, lane, record, to);
            }
            (Some(record), kind) => pack_codes(kind, row, lane, record, to),
        }
    }
}

/// Floats keep their bytes; only their places change.
fn pack_floats(kind: TensorType, row: &[u8], lane: usize, to: &mut [u8]) {
    match kind.block_bytes() {
        4 => pack_words::<4>(row, lane, to),
        _ => pack_words::<2>(row, lane, to),
    }
}

fn pack_words<const BYTES: usize>(row: &[u8], lane: usize, to: &mut [u8]) {
    for (values, word) in to.chunks_exact_mut(BYTES * PANEL).zip(row.chunks_exact(BYTES)) {
        values[lane * BYTES..(lane + 1) * BYTES].copy_from_slice(word);
    }
}

/// Writes one lane's scale and minimum at the front of a record.
fn write_front(record: Record, lane: usize, scale: f32, minimum: f32, to: &mut [u8]) {
    for (slot, value) in [scale, minimum].into_iter().enumerate().take(if record.minima { 2 } else { 1 }) {
        let place = slot * PANEL + lane;
        match record.scales {
            HALF => to[2 * place..2 * place + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes()),
            WIDE => to[4 * place..4 * place + 4].copy_from_slice(&value.to_le_bytes()),
            _ => {}
        }
    }
}

/// Writes one lane of what 256 columns share.
fn write_prefix(record: Record, lane: usize, block: &Block, to: &mut [u8]) {
    let slots = if record.minima { 2 } else { 1 };
    for (slot, value) in [block.shared.0, block.shared.1].into_iter().enumerate().take(slots) {
        let at = 2 * (slot * PANEL + lane);
        to[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
    }
    let factors = to[2 * slots * PANEL..].chunks_exact_mut(slots * PANEL).zip(block.factors);
    for (to, (scale, minimum)) in factors {
        to[lane] = scale as u8;
        if record.minima {
            to[PANEL + lane] = minimum as u8;
        }
    }
}

/// 4-bit blocks hold their nibbles in the packed order already.
fn pack_nibbles(kind: TensorType, row: &[u8], lane: usize, record: Record, to: &mut [u8]) {
    let header = record.front();
    let blocks = row.chunks_exact(kind.block_bytes());
    for (to, block) in to.chunks_exact_mut(record.bytes()).zip(blocks) {
        let codes = &block[block.len() - 16..];
        to[2 * lane..2 * lane + 2].copy_from_slice(&block[..2]);
        if record.minima {
            let at = 2 * (PANEL + lane);
            to[at..at + 2].copy_from_slice(&block[2..4]);
        }
        for (to, word) in to[header..].chunks_exact_mut(4 * PANEL).zip(codes.chunks_exact(4)) {
            to[4 * lane..4 * lane + 4].copy_from_slice(word);
        }
    }
}

fn pack_codes(kind: TensorType, row: &[u8], lane: usize, record: Record, to: &mut [u8]) {
    let shift = (zero_code(record.bits, record.minima) - i32::from(Block::zero(kind))) as u8;
    let per_block = kind.block_len() / record.group;
    let mut block = Block::new();
    let blocks = row.chunks_exact(kind.block_bytes());
    for (to, bytes) in to.chunks_exact_mut(record.prefix() + per_block * record.bytes()).zip(blocks) {
        decode(kind, bytes, &mut block);
        let (prefix, to) = to.split_at_mut(record.prefix());
        if record.scales == SHARED {
            write_prefix(record, lane, &block, prefix);
        }
        if shift != 0 {
            for code in &mut block.codes[..kind.block_len()] {
                *code = code.wrapping_add(shift);
            }
        }
        let groups = block.codes.chunks_exact(record.group).enumerate();
        for (to, (index, codes)) in to.chunks_exact_mut(record.bytes()).zip(groups) {
            write_front(record, lane, block.scales[index], block.minima[index], to);
            write_codes(record, lane, codes, &mut to[record.front()..]);
        }
    }
}

/// Writes one lane's codes of a group: `to` begins after the scales and minima.
fn write_codes(record: Record, lane: usize, codes: &[u8], to: &mut [u8]) {
    if record.bits == 8 {
        for (to, word) in to.chunks_exact_mut(4 * PANEL).zip(codes.chunks_exact(4)) {
            to[4 * lane..4 * lane + 4].copy_from_slice(word);
        }
        return;
    }
    let mut nibbles = to;
    if record.bits == 5 {
        let (bits, rest) = nibbles.split_at_mut(4 * PANEL);
        nibbles = rest;
        for (bits, word) in bits.chunks_exact_mut(PANEL / 2).zip(codes.chunks_exact(4)) {
            // The upper half of a lane's four bits belongs to odd lanes.
            let upper =
                word.iter().enumerate().fold(0, |set, (place, code)| set | ((code >> 4) & 1) << place);
            bits[lane / 2] |= upper << (4 * (lane % 2));
        }
    }
    let (first, second) = codes.split_at(16);
    let words = first.chunks_exact(4).zip(second.chunks_exact(4));
    for (to, (low, high)) in nibbles.chunks_exact_mut(4 * PANEL).zip(words) {
        for (to, (low, high)) in to[4 * lane..4 * lane + 4].iter_mut().zip(low.iter().zip(high)) {
            *to = (low & 15) | (high << 4);
        }
    }
}

/// Rounds floats to 8 bits per group.
fn round_floats(kind: TensorType, row: &[u8], lane: usize, record: Record, to: &mut [u8]) {
    let bytes = kind.block_bytes();
    for (to, encoded) in to.chunks_exact_mut(record.bytes()).zip(row.chunks(GROUP * bytes)) {
        let mut values = [0.0_f32; GROUP];
        // Whole values of a one-value block always fit.
        let _ = dequantize(kind, encoded, &mut values[..encoded.len() / bytes]);
        let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        // Below the normal numbers there is no inverse; such values are zeros.
        let inverse = 127.0 / largest;
        let inverse = if inverse.is_finite() { inverse } else { 0.0 };
        let codes =
            values.map(|value| ((value * inverse).round_ties_even() as i32 + 128).clamp(0, 255) as u8);
        write_front(record, lane, largest / 127.0, 0.0, to);
        write_codes(record, lane, &codes, &mut to[record.front()..]);
    }
}
