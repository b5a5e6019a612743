//! Reading one block of a quantized encoding into codes, scales and minima. Both decoding to floats and packing
//! for the kernels build on it.

use half::f16;

use super::formats::TensorType;

/// One block: the value of a code is `scale * (code - zero) + minimum`, per group.
pub(crate) struct Block {
    pub(crate) codes: [u8; 256],
    pub(crate) scales: [f32; 16],
    pub(crate) minima: [f32; 16],
    /// In the K encodings: what all scales, and all minima, are multiples of.
    pub(crate) shared: (f32, f32),
    /// In the K encodings: the multiples of each group.
    pub(crate) factors: [(i8, i8); 16],
}

/// Group length, code that means zero, whether there are minima.
const fn grouping(kind: TensorType) -> (usize, u8, bool) {
    match kind {
        TensorType::Q4_0 => (32, 8, false),
        TensorType::Q5_0 => (32, 16, false),
        TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4K | TensorType::Q5K | TensorType::Int4 => {
            (32, 0, true)
        }
        TensorType::Q2K => (16, 0, true),
        TensorType::Q3K => (16, 4, false),
        TensorType::Q6K => (16, 32, false),
        TensorType::Q8_0 | TensorType::F32 | TensorType::F16 | TensorType::BF16 => (32, 128, false),
    }
}

impl Block {
    pub(crate) fn new() -> Self {
        Self {
            codes: [0; 256],
            scales: [0.0; 16],
            minima: [0.0; 16],
            shared: (0.0, 0.0),
            factors: [(0, 0); 16],
        }
    }

    /// The code that means zero.
    pub(crate) const fn zero(kind: TensorType) -> u8 {
        grouping(kind).1
    }

    /// Sets what the groups share, and their multiples of it.
    fn share(&mut self, scale: f32, minimum: f32, factors: impl Iterator<Item = (i8, i8)>) {
        self.shared = (scale, minimum);
        for (group, factors) in factors.enumerate() {
            self.factors[group] = factors;
            self.scales[group] = scale * f32::from(factors.0);
            self.minima[group] = minimum * f32::from(factors.1);
        }
    }

    /// The values of the block that was decoded last.
    pub(crate) fn values(&self, kind: TensorType, out: &mut [f32]) {
        let (group, zero, minima) = grouping(kind);
        for (index, (values, codes)) in
            out.chunks_exact_mut(group).zip(self.codes.chunks_exact(group)).enumerate()
        {
            let (scale, minimum) = (self.scales[index], self.minima[index]);
            for (value, code) in values.iter_mut().zip(codes) {
                let scaled = scale * f32::from(i16::from(*code) - i16::from(zero));
                *value = if minima { scaled + minimum } else { scaled };
            }
        }
    }
}

/// A half-precision number at the start of `bytes`.
fn read_f16(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// A single-precision number at the start of `bytes`.
fn read_f32(bytes: &[u8]) -> f32 {
    f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Decodes one block of a quantized encoding; `bytes` holds exactly one.
pub(crate) fn decode(kind: TensorType, bytes: &[u8], block: &mut Block) {
    match kind {
        TensorType::Q4_0 => {
            block.scales[0] = read_f16(bytes);
            nibbles(&bytes[2..18], &mut block.codes);
        }
        TensorType::Q4_1 => {
            block.scales[0] = read_f16(bytes);
            block.minima[0] = read_f16(&bytes[2..]);
            nibbles(&bytes[4..20], &mut block.codes);
        }
        TensorType::Q5_0 => {
            block.scales[0] = read_f16(bytes);
            nibbles(&bytes[6..22], &mut block.codes);
            fifth_bits(&bytes[2..6], &mut block.codes);
        }
        TensorType::Q5_1 => {
            block.scales[0] = read_f16(bytes);
            block.minima[0] = read_f16(&bytes[2..]);
            nibbles(&bytes[8..24], &mut block.codes);
            fifth_bits(&bytes[4..8], &mut block.codes);
        }
        TensorType::Q8_0 => {
            block.scales[0] = read_f16(bytes);
            for (code, byte) in block.codes.iter_mut().zip(&bytes[2..34]) {
                *code = byte ^ 0x80;
            }
        }
        TensorType::Q2K => decode_q2k(bytes, block),
        TensorType::Q3K => decode_q3k(bytes, block),
        TensorType::Q4K => decode_q4k(bytes, block),
        TensorType::Q5K => decode_q5k(bytes, block),
        TensorType::Q6K => decode_q6k(bytes, block),
        TensorType::Int4 => {
            block.scales[0] = read_f32(bytes);
            block.minima[0] = read_f32(&bytes[4..]);
            nibbles(&bytes[8..24], &mut block.codes);
        }
        TensorType::F32 | TensorType::F16 | TensorType::BF16 => {}
    }
}

/// Sixteen bytes: the low nibbles are the first 16 codes, the high ones the last.
fn nibbles(bytes: &[u8], codes: &mut [u8]) {
    let half = bytes.len();
    let (low, high) = codes[..2 * half].split_at_mut(half);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        *low = byte & 15;
        *high = byte >> 4;
    }
}

fn fifth_bits(bytes: &[u8], codes: &mut [u8]) {
    let bits = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    for (place, code) in codes[..32].iter_mut().enumerate() {
        *code |= (((bits >> place) & 1) as u8) << 4;
    }
}

fn decode_q2k(bytes: &[u8], block: &mut Block) {
    let (scales, rest) = bytes.split_at(16);
    let (codes, factors) = rest.split_at(64);
    let factor = |byte: &u8| ((byte & 15) as i8, (byte >> 4) as i8);
    block.share(read_f16(factors), -read_f16(&factors[2..]), scales.iter().map(factor));
    two_bits(codes, &mut block.codes);
}

/// Each 32 bytes hold four runs of 32 codes, from the low bits up.
fn two_bits(bytes: &[u8], codes: &mut [u8; 256]) {
    for (bytes, codes) in bytes.chunks_exact(32).zip(codes.chunks_exact_mut(128)) {
        for (run, codes) in codes.chunks_exact_mut(32).enumerate() {
            for (code, byte) in codes.iter_mut().zip(bytes) {
                *code = (byte >> (2 * run)) & 3;
            }
        }
    }
}

fn decode_q3k(bytes: &[u8], block: &mut Block) {
    let (high, rest) = bytes.split_at(32);
    let (codes, rest) = rest.split_at(64);
    let factor = |index: usize| {
        // Low four bits in the first eight bytes, the upper two in the last four.
        let low = if index < 8 { rest[index] & 15 } else { rest[index - 8] >> 4 };
        let upper = (rest[8 + index % 4] >> (2 * (index / 4))) & 3;
        ((low | (upper << 4)) as i8 - 32, 0)
    };
    block.share(read_f16(&rest[12..]), 0.0, (0..16).map(factor));
    two_bits(codes, &mut block.codes);
    for (run, codes) in block.codes.chunks_exact_mut(32).enumerate() {
        for (code, high) in codes.iter_mut().zip(high) {
            *code |= ((high >> run) & 1) << 2;
        }
    }
}

/// The 6-bit scales and minima of the eight groups of a block, packed in 12 bytes.
fn six_bit_pairs(packed: &[u8]) -> [(i8, i8); 8] {
    std::array::from_fn(|group| {
        if group < 4 {
            ((packed[group] & 63) as i8, (packed[group + 4] & 63) as i8)
        } else {
            let scale = (packed[group + 4] & 15) | ((packed[group - 4] >> 6) << 4);
            let minimum = (packed[group + 4] >> 4) | ((packed[group] >> 6) << 4);
            (scale as i8, minimum as i8)
        }
    })
}

fn pair_scales(bytes: &[u8], block: &mut Block) {
    let factors = six_bit_pairs(&bytes[4..16]);
    block.share(read_f16(bytes), -read_f16(&bytes[2..]), factors.into_iter());
}

fn decode_q4k(bytes: &[u8], block: &mut Block) {
    pair_scales(bytes, block);
    for (bytes, codes) in bytes[16..144].chunks_exact(32).zip(block.codes.chunks_exact_mut(64)) {
        nibbles(bytes, codes);
    }
}

fn decode_q5k(bytes: &[u8], block: &mut Block) {
    pair_scales(bytes, block);
    let (high, low) = bytes[16..176].split_at(32);
    for (bytes, codes) in low.chunks_exact(32).zip(block.codes.chunks_exact_mut(64)) {
        nibbles(bytes, codes);
    }
    for (run, codes) in block.codes.chunks_exact_mut(32).enumerate() {
        for (code, high) in codes.iter_mut().zip(high) {
            *code |= ((high >> run) & 1) << 4;
        }
    }
}

fn decode_q6k(bytes: &[u8], block: &mut Block) {
    let (low, rest) = bytes.split_at(128);
    let (high, rest) = rest.split_at(64);
    let factors = rest[..16].iter().map(|factor| (i8::from_le_bytes([*factor]), 0));
    block.share(read_f16(&rest[16..]), 0.0, factors);
    let halves = low.chunks_exact(64).zip(high.chunks_exact(32)).zip(block.codes.chunks_exact_mut(128));
    for ((low, high), codes) in halves {
        for place in 0..32 {
            let upper = high[place];
            codes[place] = (low[place] & 15) | ((upper & 3) << 4);
            codes[place + 32] = (low[place + 32] & 15) | (((upper >> 2) & 3) << 4);
            codes[place + 64] = (low[place] >> 4) | (((upper >> 4) & 3) << 4);
            codes[place + 96] = (low[place + 32] >> 4) | ((upper >> 6) << 4);
        }
    }
}
