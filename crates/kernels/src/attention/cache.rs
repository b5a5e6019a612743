//! The paged key/value cache of one layer.
//!
//! Within a block each head has tiles of 16 slots. A tile of keys is stored value by value with its slots in the
//! lanes; a tile of values is stored slot by slot, padded to whole vectors. In a cache of bytes each tile begins with
//! a scale per slot, and every byte is 128 more than its code; a lane of a tile of keys holds four values of a slot, a
//! lane of a tile of values one value of four slots: what integer products want.
#![expect(unsafe_code, reason = "typed access to aligned bytes, written by many workers")]
#![expect(unsafe_op_in_unsafe_fn, reason = "every line is a vector operation or a raw access")]

use std::ops::Range;

use super::AttentionSequence;
use super::rotation::{self, rotate};
use crate::error::KernelError;
use crate::lanes::{Kernel, LANES, Lanes, dispatch};
use crate::math::step_and_factor;
use crate::memory::{AlignedBytes, Shared};
use crate::norm::{load_some, store_some};
use crate::rows::split;
use crate::threads::Turn;

/// Bytes of a lane.
pub(super) const QUAD: usize = 4;

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheType {
    /// 32-bit floats.
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// 8-bit integers that share one scale per token and head.
    I8,
}

impl CacheType {
    /// The word that status uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            CacheType::F32 => "f32",
            CacheType::F16 => "f16",
            CacheType::I8 => "i8",
        }
    }

    /// Bytes of one value.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            CacheType::F32 => 4,
            CacheType::F16 => 2,
            CacheType::I8 => 1,
        }
    }

    /// Bytes before the values of a tile: the scales of its slots.
    pub(super) const fn header(self) -> usize {
        match self {
            CacheType::F32 | CacheType::F16 => 0,
            CacheType::I8 => LANES * size_of::<f32>(),
        }
    }
}

/// The size of a cache plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheShape {
    /// Number of blocks.
    pub blocks: usize,
    /// Tokens in a block.
    pub block_tokens: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Values per head.
    pub head_dim: usize,
    /// How they are stored.
    pub kind: CacheType,
}

impl CacheShape {
    pub(super) const fn tiles(&self) -> usize {
        self.block_tokens.div_ceil(LANES)
    }

    /// Values per slot of a tile of values.
    pub(super) const fn padded_dim(&self) -> usize {
        self.head_dim.div_ceil(LANES) * LANES
    }

    /// Values per slot of a tile of keys.
    pub(super) const fn key_dim(&self) -> usize {
        match self.kind {
            CacheType::F32 | CacheType::F16 => self.head_dim,
            CacheType::I8 => self.head_dim.next_multiple_of(QUAD),
        }
    }

    /// Bytes of a tile of keys.
    const fn key_tile(&self) -> usize {
        self.kind.header() + self.key_dim() * LANES * self.kind.bytes()
    }

    /// Bytes of a tile of values.
    const fn value_tile(&self) -> usize {
        self.kind.header() + self.padded_dim() * LANES * self.kind.bytes()
    }

    /// Bytes of one block: the keys of every head, then the values of every head.
    fn block_bytes(&self) -> Option<usize> {
        // More than any element and its share of a scale take.
        self.head_dim.checked_mul(16 * LANES)?;
        let tile = self.key_tile().checked_add(self.value_tile())?;
        self.kv_heads.checked_mul(self.tiles())?.checked_mul(tile)
    }

    /// Bytes of a plane of this shape; `None` when that overflows.
    #[must_use]
    pub fn bytes(&self) -> Option<usize> {
        self.block_bytes()?.checked_mul(self.blocks)
    }
}

/// Keys and values of one layer.
pub struct CachePlane {
    data: AlignedBytes,
    shape: CacheShape,
    block_bytes: usize,
    /// Per key head and channel, what keys and queries are multiplied by before they are rounded to bytes.
    key_factors: Vec<f32>,
    query_factors: Vec<f32>,
}

impl std::fmt::Debug for CachePlane {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("CachePlane").field("shape", &self.shape).finish()
    }
}

impl CachePlane {
    /// A cache of zeros. The system provides its memory as blocks are first written.
    ///
    /// # Errors
    /// When a dimension is zero, or the memory cannot be had.
    pub fn new(shape: CacheShape) -> Result<Self, KernelError> {
        if shape.blocks == 0 || shape.block_tokens == 0 || shape.kv_heads == 0 || shape.head_dim == 0 {
            return Err(KernelError::Empty);
        }
        let too_large = KernelError::TooLarge { rows: shape.blocks, cols: shape.block_tokens };
        let bytes = shape.bytes().ok_or(too_large)?;
        let factors = vec![1.0; shape.kv_heads * shape.head_dim];
        Ok(Self {
            data: AlignedBytes::zeroed(bytes)?,
            shape,
            block_bytes: bytes / shape.blocks,
            key_factors: factors.clone(),
            query_factors: factors,
        })
    }

    /// Divides each channel of the keys by its factor (kv_heads * head_dim of them) before it is rounded to bytes,
    /// and multiplies the queries: products stay the same, and no channel drowns the others. No effect on floats.
    ///
    /// # Panics
    /// When there is another number of factors.
    #[must_use]
    pub fn balanced(mut self, factors: &[f32]) -> Self {
        assert!(factors.len() == self.query_factors.len(), "one factor per key head and channel");
        self.key_factors = factors.iter().map(|factor| 1.0 / factor).collect();
        self.query_factors = factors.to_vec();
        self
    }

    /// The factors of one head's queries.
    pub(super) fn query_factors(&self, head: usize) -> &[f32] {
        &self.query_factors[head * self.shape.head_dim..][..self.shape.head_dim]
    }

    /// The size it was made with.
    #[must_use]
    pub fn shape(&self) -> &CacheShape {
        &self.shape
    }

    /// Bytes reserved; the system provides them as they are written.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Where the keys of a tile begin, in bytes.
    pub(super) fn keys_at(&self, block: u32, head: usize, tile: usize) -> usize {
        let tile = (head * self.shape.tiles() + tile) * self.shape.key_tile();
        block as usize * self.block_bytes + tile + self.shape.kind.header()
    }

    /// Where the values of a tile begin, in bytes.
    pub(super) fn values_at(&self, block: u32, head: usize, tile: usize) -> usize {
        let keys = self.shape.kv_heads * self.shape.tiles() * self.shape.key_tile();
        let tile = (head * self.shape.tiles() + tile) * self.shape.value_tile();
        block as usize * self.block_bytes + keys + tile + self.shape.kind.header()
    }

    pub(super) fn data(&self) -> *const u8 {
        self.data.as_ptr()
    }

    /// Stores the keys and values of the rows of a batch: `rows` has rows of `stride` floats with the keys
    /// (kv_heads * head_dim) at `offset` and the values behind them.
    ///
    /// # Panics
    /// When a sequence names a row, block or position that does not exist.
    pub fn write(
        &mut self,
        turn: &Turn<'_>,
        rows: &[f32],
        stride: usize,
        offset: usize,
        sequences: &[AttentionSequence<'_>],
    ) {
        let shape = self.shape;
        let width = shape.kv_heads * shape.head_dim;
        assert!(offset + 2 * width <= stride, "rows are too short for keys and values");
        for sequence in sequences {
            assert!(sequence.rows.end * stride <= rows.len(), "a sequence exceeds the batch");
            let places = sequence.first_position..sequence.first_position + sequence.rows.len();
            if !places.is_empty() {
                let blocks = places.start / shape.block_tokens..=(places.end - 1) / shape.block_tokens;
                let known = |block: &u32| (*block as usize) < shape.blocks;
                assert!(sequence.blocks[blocks].iter().all(known), "a block lies outside the cache");
            }
        }
        let isa = turn.isa();
        let data = Shared::new(self.data.as_mut_ptr());
        let plane = &*self;
        let store = |sequence: &AttentionSequence<'_>, range: Range<usize>| {
            for index in range {
                let place = sequence.first_position + index;
                let block = sequence.blocks[place / shape.block_tokens];
                let row = &rows[(sequence.rows.start + index) * stride + offset..][..2 * width];
                let token = Token { plane, data, block, slot: place % shape.block_tokens, row };
                // SAFETY: block and slot exist, and each token has a slot of its own.
                unsafe { dispatch(isa, token) };
            }
        };
        if let [sequence] = sequences {
            split(turn, sequence.rows.len(), 2 * width, &|range| store(sequence, range));
        } else {
            let most = sequences.iter().map(|sequence| sequence.rows.len()).max().unwrap_or(0);
            split(turn, sequences.len(), most * 2 * width, &|range| {
                for sequence in &sequences[range] {
                    store(sequence, 0..sequence.rows.len());
                }
            });
        }
    }

    /// Makes block `to` equal to block `from`.
    ///
    /// # Panics
    /// When one does not exist.
    pub fn copy_block(&mut self, from: u32, to: u32) {
        let (from, to) = (from as usize, to as usize);
        assert!(from < self.shape.blocks && to < self.shape.blocks, "no such block in the cache");
        let len = self.block_bytes;
        // SAFETY: any bytes may be copied within the plane's own memory.
        let data = unsafe { std::slice::from_raw_parts_mut(self.data.as_mut_ptr(), self.data.len()) };
        data.copy_within(from * len..(from + 1) * len, to * len);
    }
}

/// One token on its way into the cache.
struct Token<'a> {
    plane: &'a CachePlane,
    data: Shared<u8>,
    block: u32,
    slot: usize,
    /// Its keys, then its values.
    row: &'a [f32],
}

impl Kernel for Token<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let shape = self.plane.shape;
        let (tile, lane) = (self.slot / LANES, self.slot % LANES);
        let (keys, values) = self.row.split_at(shape.kv_heads * shape.head_dim);
        let mut rotated = [0.0; rotation::LONGEST];
        for head in 0..shape.kv_heads {
            let part = head * shape.head_dim..(head + 1) * shape.head_dim;
            let (keys, values) = (&keys[part.clone()], &values[part]);
            let key = self.data.at(self.plane.keys_at(self.block, head, tile));
            let value = self.data.at(self.plane.values_at(self.block, head, tile));
            let padded = shape.padded_dim();
            let slot = lane * padded;
            let (mut key_factor, mut value_factor) = (1.0, 1.0);
            let mut keys = keys;
            if shape.kind == CacheType::I8 {
                keys =
                    prepared_head::<L>(keys, &self.plane.key_factors[head * shape.head_dim..], &mut rotated);
                key_factor = store_scale::<L>(key, lane, keys);
                value_factor = store_scale::<L>(value, lane, values);
            }
            for at in (0..shape.head_dim).step_by(LANES) {
                let (keys, values) = (load_some::<L>(keys, at), load_some::<L>(values, at));
                let count = LANES.min(shape.head_dim - at);
                match shape.kind {
                    CacheType::F32 => {
                        let mut lanes = [0.0; LANES];
                        L::store(lanes.as_mut_ptr(), keys);
                        scatter(key.cast::<f32>().add(lane + at * LANES), &lanes[..count]);
                        L::store(value.cast::<f32>().add(slot + at), values);
                    }
                    CacheType::F16 => {
                        let mut lanes = [0; LANES];
                        L::store_f16(lanes.as_mut_ptr(), keys);
                        scatter(key.cast::<u16>().add(lane + at * LANES), &lanes[..count]);
                        L::store_f16(value.cast::<u16>().add(slot + at), values);
                    }
                    CacheType::I8 => {
                        let mut quads = [[0_i8; QUAD]; LANES / QUAD];
                        L::store_i8(quads.as_mut_ptr().cast(), L::mul(keys, L::splat(key_factor)));
                        let quads = quads.map(|quad| quad.map(|code| (code as u8) ^ 128));
                        let first = key.cast::<[u8; QUAD]>().add(lane + at / QUAD * LANES);
                        scatter(first, &quads[..count.div_ceil(QUAD)]);
                        let mut codes = [0_i8; LANES];
                        L::store_i8(codes.as_mut_ptr(), L::mul(values, L::splat(value_factor)));
                        let first = value.add((lane / QUAD * padded + at) * QUAD + lane % QUAD);
                        for (index, code) in codes.iter().enumerate() {
                            first.add(index * QUAD).write((*code as u8) ^ 128);
                        }
                    }
                }
            }
        }
    }
}

/// A head times its factors and rotated, in a buffer; too long a head as it is.
#[inline(always)]
pub(super) unsafe fn prepared_head<'a, L: Lanes>(
    head: &'a [f32],
    factors: &[f32],
    buffer: &'a mut [f32; rotation::LONGEST],
) -> &'a [f32] {
    if head.len() > rotation::LONGEST {
        return head;
    }
    let buffer = &mut buffer[..head.len()];
    for at in (0..head.len()).step_by(LANES) {
        store_some::<L>(buffer, at, L::mul(load_some::<L>(head, at), load_some::<L>(factors, at)));
    }
    rotate::<L>(buffer.as_mut_ptr(), head.len());
    buffer
}

/// Stores the scale of one slot before the `tile` of bytes; returns the factor that turns its values into codes.
#[inline(always)]
unsafe fn store_scale<L: Lanes>(tile: *mut u8, lane: usize, values: &[f32]) -> f32 {
    let (scale, factor) = scale_and_factor::<L>(values);
    tile.sub(CacheType::I8.header()).cast::<f32>().add(lane).write(scale);
    factor
}

/// The value of one step of codes of -127..=127 that hold these values, and the factor that turns values into codes.
#[inline(always)]
pub(super) unsafe fn scale_and_factor<L: Lanes>(values: &[f32]) -> (f32, f32) {
    let mut largest = L::splat(0.0);
    let mut broken = false;
    for at in (0..values.len()).step_by(LANES) {
        let values = load_some::<L>(values, at);
        largest = L::max(largest, L::abs(values));
        broken |= L::any_nan(values);
    }
    step_and_factor(L::greatest(largest), broken, 127.0)
}

/// Writes one lane of consecutive vectors.
///
/// # Safety
/// The vectors exist.
#[inline(always)]
unsafe fn scatter<T: Copy>(to: *mut T, values: &[T]) {
    for (index, value) in values.iter().enumerate() {
        to.add(index * LANES).write(*value);
    }
}
