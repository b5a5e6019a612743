//! A matrix of integer codes in its packed layout, and how it becomes blocks that products read.

use std::sync::Arc;

use byzerllm_kernels::{TensorType, dequantize};

/// Columns of a block of any encoding that codes are kept in.
pub(super) const BLOCK: usize = 32;
/// Where the code of each of eight neighbouring rows stands in a word of AWQ.
const AWQ_PLACES: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// Who packed the codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Zeros are stored less this number.
    Gptq {
        zero_offset: u8,
    },
    Awq,
}

/// Little-endian 32-bit words without alignment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words<'a>(pub(super) &'a [u8]);

impl Words<'_> {
    fn get(self, index: usize) -> u32 {
        let bytes = &self.0[4 * index..4 * index + 4];
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    fn len(self) -> usize {
        self.0.len() / 4
    }
}

/// A matrix of codes, or some of its rows, still as the file has it.
#[derive(Debug, Clone)]
pub struct IntegerMatrix<'a> {
    pub(super) layout: Layout,
    /// Bits of a code: 4 or 8.
    pub(super) bits: u32,
    /// Rows and columns of the whole matrix.
    pub(super) shape: (usize, usize),
    /// The first of the chosen rows, and their number.
    pub(super) range: (usize, usize),
    /// Columns per group.
    pub(super) group: usize,
    pub(super) codes: Words<'a>,
    pub(super) zeros: Words<'a>,
    pub(super) scales: (TensorType, &'a [u8]),
    /// For each place the column that stands there once columns of one group are neighbours, and the group of each
    /// column; `None` when they are neighbours already.
    pub(super) order: Option<Arc<Order>>,
    pub(super) kind: TensorType,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Order {
    columns: Arc<[u32]>,
    groups: Vec<u32>,
}

impl<'a> IntegerMatrix<'a> {
    /// The encoding of [`Self::encode`].
    #[must_use]
    pub fn kind(&self) -> TensorType {
        self.kind
    }

    /// The order of the columns in [`Self::encode`], when it is not that of the matrix: products gather their input
    /// by it. GPTQ with activation order has it.
    #[must_use]
    pub fn order(&self) -> Option<&Arc<[u32]>> {
        self.order.as_ref().filter(|_| self.kind != TensorType::F32).map(|order| &order.columns)
    }

    /// Some of its rows; `first + count` is at most the number of rows.
    #[must_use]
    pub fn select(&self, first: usize, count: usize) -> Self {
        Self { range: (self.range.0 + first, count), ..self.clone() }
    }

    /// The packed codes of the whole matrix.
    pub(crate) fn words(&self) -> &'a [u8] {
        self.codes.0
    }

    /// Rows of the whole matrix.
    pub(crate) fn rows(&self) -> usize {
        self.shape.0
    }

    /// The first of the chosen rows.
    pub(crate) fn first_row(&self) -> usize {
        self.range.0
    }

    /// Brings columns of one group together. Whether each group then has whole blocks; `None` when a number of a
    /// group is out of range.
    pub(super) fn set_order(&mut self, index: &Words<'a>, groups: usize) -> Option<bool> {
        let (_, columns) = self.shape;
        let of: Vec<u32> = (0..columns).map(|column| index.get(column)).collect();
        let mut counts = vec![0_usize; groups];
        for &group in &of {
            *counts.get_mut(group as usize)? += 1;
        }
        if of.iter().enumerate().all(|(column, &group)| column / self.group == group as usize) {
            return Some(columns == self.group || self.group.is_multiple_of(BLOCK));
        }
        let mut order: Vec<u32> = (0..columns as u32).collect();
        order.sort_by_key(|&column| of[column as usize]);
        self.order = Some(Arc::new(Order { columns: order.into(), groups: of }));
        Some(counts.iter().all(|count| count.is_multiple_of(BLOCK)))
    }

    /// Whether every zero is the code in the middle.
    pub(super) fn zeros_in_the_middle(&self) -> bool {
        let middle = 1_u32 << (self.bits - 1);
        let stored = match self.layout {
            Layout::Gptq { zero_offset } => middle - u32::from(zero_offset),
            Layout::Awq => middle,
        };
        let word = (0..self.per_word() as u32).fold(0, |word, place| word | stored << (self.bits * place));
        (0..self.zeros.len()).all(|index| self.zeros.get(index) == word)
    }

    fn per_word(&self) -> usize {
        32 / self.bits as usize
    }

    /// The code at a place of a word.
    fn unpacked(&self, word: u32, place: usize) -> u8 {
        (word >> (self.bits * place as u32)) as u8 & (u8::MAX >> (8 - self.bits))
    }

    fn code(&self, row: usize, column: usize) -> u8 {
        let (rows, _) = self.shape;
        let per_word = self.per_word();
        match self.layout {
            Layout::Gptq { .. } => {
                self.unpacked(self.codes.get(column / per_word * rows + row), column % per_word)
            }
            Layout::Awq => {
                let word = self.codes.get(column * (rows / per_word) + row / per_word);
                self.unpacked(word, AWQ_PLACES[row % per_word])
            }
        }
    }

    /// The code that stands for zero. Version 1 stores the smallest one as the largest.
    fn zero(&self, row: usize, group: usize) -> u8 {
        let per_word = self.per_word();
        let word = self.zeros.get(group * (self.shape.0 / per_word) + row / per_word);
        match self.layout {
            Layout::Gptq { zero_offset } => {
                let stored = self.unpacked(word, row % per_word);
                stored.wrapping_add(zero_offset) & (u8::MAX >> (8 - self.bits))
            }
            Layout::Awq => self.unpacked(word, AWQ_PLACES[row % per_word]),
        }
    }

    fn scale(&self, row: usize, group: usize) -> f32 {
        let (kind, bytes) = self.scales;
        let width = kind.block_bytes();
        let at = (group * self.shape.0 + row) * width;
        let mut value = [0.0];
        // One value of a float type always fits.
        let _ = dequantize(kind, &bytes[at..at + width], &mut value);
        value[0]
    }

    fn group_of(&self, column: usize) -> usize {
        match &self.order {
            Some(order) => order.groups[column] as usize,
            None => column / self.group,
        }
    }

    /// The chosen rows in the encoding [`Self::kind`], columns in the order [`Self::order`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.encode_as(self.kind)
    }

    /// The chosen rows as f32, columns in the matrix's own order.
    #[must_use]
    pub fn values(&self) -> Vec<u8> {
        self.encode_as(TensorType::F32)
    }

    fn encode_as(&self, kind: TensorType) -> Vec<u8> {
        let (first, count) = self.range;
        // The columns are a whole number of blocks of any kind that is chosen.
        let row_bytes = kind.row_bytes(self.shape.1).unwrap_or(0);
        let mut bytes = vec![0; count * row_bytes];
        // Words hold several rows or several columns, and neighbours of them share cache lines.
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let rows_each = count.div_ceil(4 * threads).next_multiple_of(16);
        let mut chunks = bytes.chunks_mut((rows_each * row_bytes).max(1)).enumerate().collect::<Vec<_>>();
        let queue = std::sync::Mutex::new(&mut chunks);
        let next = || queue.lock().ok().and_then(|mut chunks| chunks.pop());
        std::thread::scope(|scope| {
            for _ in 0..threads.min(count.div_ceil(rows_each.max(1))) {
                scope.spawn(|| {
                    while let Some((chunk, bytes)) = next() {
                        self.encode_rows(kind, first + chunk * rows_each, row_bytes, bytes);
                    }
                });
            }
        });
        bytes
    }

    fn encode_rows(&self, kind: TensorType, first: usize, row_bytes: usize, bytes: &mut [u8]) {
        let count = bytes.len() / row_bytes;
        let block_bytes = kind.block_bytes();
        if kind == TensorType::F32 {
            for column in 0..self.shape.1 {
                let group = self.group_of(column);
                for row in 0..count {
                    let code = f32::from(self.code(first + row, column));
                    let zero = f32::from(self.zero(first + row, group));
                    let value = self.scale(first + row, group) * (code - zero);
                    bytes[row * row_bytes + 4 * column..][..4].copy_from_slice(&value.to_le_bytes());
                }
            }
            return;
        }
        let mut columns = [0_usize; BLOCK];
        for block in 0..self.shape.1 / BLOCK {
            for (place, column) in columns.iter_mut().enumerate() {
                let place = block * BLOCK + place;
                *column = self.order.as_ref().map_or(place, |order| order.columns[place] as usize);
            }
            let group = self.group_of(columns[0]);
            for row in 0..count {
                let to = &mut bytes[row * row_bytes + block * block_bytes..][..block_bytes];
                let scale = self.scale(first + row, group);
                if kind == TensorType::Q8_0 {
                    let (front, codes) = to.split_at_mut(block_bytes - BLOCK);
                    front.copy_from_slice(&half::f16::from_f32(scale).to_le_bytes());
                    for (code, &column) in codes.iter_mut().zip(&columns) {
                        *code = self.code(first + row, column).wrapping_sub(128);
                    }
                    continue;
                }
                let (front, codes) = to.split_at_mut(block_bytes - BLOCK / 2);
                if kind == TensorType::Q4_0 {
                    front.copy_from_slice(&half::f16::from_f32(scale).to_le_bytes());
                } else {
                    let minimum = -scale * f32::from(self.zero(first + row, group));
                    front[..4].copy_from_slice(&scale.to_le_bytes());
                    front[4..].copy_from_slice(&minimum.to_le_bytes());
                }
                for (place, code) in codes.iter_mut().enumerate() {
                    let low = self.code(first + row, columns[place]);
                    let high = self.code(first + row, columns[place + BLOCK / 2]);
                    *code = low | high << 4;
                }
            }
        }
    }
}
