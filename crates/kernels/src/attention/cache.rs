//! The paged key/value cache of one layer.
//!
//! Within a block each head has tiles of 16 slots. A tile of keys is stored value by value with its slots in the
//! lanes; a tile of values is stored slot by slot, padded to whole vectors.
#![expect(unsafe_code, reason = "typed access to aligned bytes")]

use half::f16;

use crate::error::KernelError;
use crate::lanes::LANES;
use crate::memory::AlignedBytes;

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheType {
    /// 32-bit floats.
    F32,
    /// 16-bit IEEE floats.
    F16,
}

impl CacheType {
    /// Bytes of one value.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            CacheType::F32 => 4,
            CacheType::F16 => 2,
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

    const fn key_tile(&self) -> usize {
        self.head_dim * LANES
    }

    const fn value_tile(&self) -> usize {
        self.padded_dim() * LANES
    }

    /// Elements of one block: the keys of every head, then the values of every head.
    fn block_len(&self) -> Option<usize> {
        let tile = self.key_tile().checked_add(self.value_tile())?;
        self.kv_heads.checked_mul(self.tiles())?.checked_mul(tile)
    }

    /// Bytes of a plane of this shape; `None` when that overflows.
    #[must_use]
    pub fn bytes(&self) -> Option<usize> {
        self.head_dim.checked_mul(2 * LANES)?;
        self.block_len()?.checked_mul(self.kind.bytes())?.checked_mul(self.blocks)
    }
}

/// Keys and values of one layer.
pub struct CachePlane {
    data: AlignedBytes,
    shape: CacheShape,
    block_len: usize,
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
        let block_len = bytes / shape.kind.bytes() / shape.blocks;
        Ok(Self { data: AlignedBytes::zeroed(bytes)?, shape, block_len })
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

    /// Element index of a tile of keys.
    pub(super) fn keys_at(&self, block: u32, head: usize, tile: usize) -> usize {
        block as usize * self.block_len + (head * self.shape.tiles() + tile) * self.shape.key_tile()
    }

    /// Element index of a tile of values.
    pub(super) fn values_at(&self, block: u32, head: usize, tile: usize) -> usize {
        let keys = self.shape.kv_heads * self.shape.tiles() * self.shape.key_tile();
        block as usize * self.block_len + keys + (head * self.shape.tiles() + tile) * self.shape.value_tile()
    }

    pub(super) fn data(&self) -> *const u8 {
        self.data.as_ptr()
    }

    /// Stores the keys and values (each kv_heads * head_dim) of one token.
    ///
    /// # Panics
    /// When the block or slot does not exist, or a length differs.
    pub fn write(&mut self, block: u32, slot: usize, keys: &[f32], values: &[f32]) {
        let shape = self.shape;
        let width = shape.kv_heads * shape.head_dim;
        assert!((block as usize) < shape.blocks && slot < shape.block_tokens, "no such slot in the cache");
        assert!(keys.len() == width && values.len() == width, "keys or values have another width");
        let (tile, lane) = (slot / LANES, slot % LANES);
        let heads = keys.chunks_exact(shape.head_dim).zip(values.chunks_exact(shape.head_dim));
        for (head, (keys, values)) in heads.enumerate() {
            let key = self.keys_at(block, head, tile) + lane;
            let value = self.values_at(block, head, tile) + lane * shape.padded_dim();
            match shape.kind {
                CacheType::F32 => {
                    let data = self.elements::<f32>();
                    for (to, from) in data[key..].iter_mut().step_by(LANES).zip(keys) {
                        *to = *from;
                    }
                    data[value..value + shape.head_dim].copy_from_slice(values);
                }
                CacheType::F16 => {
                    let data = self.elements::<f16>();
                    for (to, from) in data[key..].iter_mut().step_by(LANES).zip(keys) {
                        *to = f16::from_f32(*from);
                    }
                    for (to, from) in data[value..].iter_mut().zip(values) {
                        *to = f16::from_f32(*from);
                    }
                }
            }
        }
    }

    /// Makes block `to` equal to block `from`.
    ///
    /// # Panics
    /// When one does not exist.
    pub fn copy_block(&mut self, from: u32, to: u32) {
        let (from, to) = (from as usize, to as usize);
        assert!(from < self.shape.blocks && to < self.shape.blocks, "no such block in the cache");
        let len = self.block_len * self.shape.kind.bytes();
        self.elements::<u8>().copy_within(from * len..(from + 1) * len, to * len);
    }

    fn elements<T>(&mut self) -> &mut [T] {
        let len = self.data.len() / size_of::<T>();
        // SAFETY: the bytes are aligned to a cache line, initialised, and any bits are a value of the three plain
        // types that this is used with.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_mut_ptr().cast::<T>(), len) }
    }
}
