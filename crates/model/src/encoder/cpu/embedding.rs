//! The sum of the embeddings of a token, its place and its type.

use std::sync::Mutex;

use byzerllm_kernels::{KernelError, Turn, dequantize, each_row};

use super::layer::resize;
use crate::decoder_weights::LookupTable;
use crate::encoder::config::EncoderPositions;
use crate::encoder::{EncoderConfig, EncoderInput, EncoderWeights};

/// The tables. Words stay as they are mapped; the small tables are floats.
pub(super) struct Embedding {
    words: LookupTable,
    /// `(rows, H)`, from the row of the first token on.
    positions: Option<Vec<f32>>,
    /// `(types, H)`.
    types: Option<Vec<f32>>,
    width: usize,
    /// Per token of a step, its text and its place there.
    places: Vec<(usize, usize)>,
}

impl Embedding {
    pub(super) fn new(config: &EncoderConfig, weights: &EncoderWeights<'_>) -> Result<Self, KernelError> {
        let width = config.hidden_size;
        check(&weights.words, (config.vocab_size, width))?;
        let positions = match (&config.positions, &weights.positions) {
            (EncoderPositions::Learned { rows, offset }, Some(table)) => {
                check(table, (*rows, width))?;
                if offset.saturating_add(config.max_length) > *rows {
                    let wanted = (offset.saturating_add(config.max_length), width);
                    return Err(KernelError::Shape { wanted, found: (*rows, width), bias: 0 });
                }
                let mut values = decoded(table)?;
                values.drain(..offset * width);
                Some(values)
            }
            (EncoderPositions::Learned { rows, .. }, None) => {
                return Err(KernelError::Shape { wanted: (*rows, width), found: (0, 0), bias: 0 });
            }
            (EncoderPositions::Rope(_), _) => None,
        };
        let types = match &weights.token_types {
            Some(table) => {
                check(table, (config.token_types, width))?;
                Some(decoded(table)?)
            }
            None => None,
        };
        Ok(Self { words: weights.words.clone(), positions, types, width, places: Vec::new() })
    }

    /// Bytes of one row of the table of words.
    pub(super) fn row_bytes(&self) -> usize {
        self.words.kind.row_bytes(self.width).unwrap_or(0)
    }

    /// Bytes of all tables.
    pub(super) fn bytes(&self) -> usize {
        let floats = [&self.positions, &self.types].map(|table| table.as_ref().map_or(0, Vec::len));
        self.words.data.as_slice().len() + floats.iter().sum::<usize>() * size_of::<f32>()
    }

    /// The sums of all tokens, `(T, H)`. Ids and types exist, and no text is too long.
    pub(super) fn look_up(
        &mut self,
        turn: &Turn<'_>,
        texts: &[EncoderInput<'_>],
        into: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        self.places.clear();
        for (index, text) in texts.iter().enumerate() {
            self.places.extend((0..text.ids.len()).map(|place| (index, place)));
        }
        resize(into, self.places.len() * self.width);
        let failed = Mutex::new(None);
        let bytes = self.row_bytes();
        each_row(turn, into, self.width, &|row, values| {
            let (text, place) = self.places[row];
            let word = texts[text].ids[place] as usize;
            let encoded = self.words.data.as_slice().get(word * bytes..(word + 1) * bytes).unwrap_or(&[]);
            if let Err(error) = dequantize(self.words.kind, encoded, values) {
                *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
                return;
            }
            if let Some(positions) = &self.positions {
                add(values, &positions[place * self.width..][..self.width]);
            }
            if let Some(types) = &self.types {
                add(values, &types[usize::from(texts[text].types[place]) * self.width..][..self.width]);
            }
        });
        failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

fn add(into: &mut [f32], from: &[f32]) {
    into.iter_mut().zip(from).for_each(|(into, from)| *into += from);
}

fn check(table: &LookupTable, wanted: (usize, usize)) -> Result<(), KernelError> {
    let found = (table.rows, table.columns);
    if found == wanted { Ok(()) } else { Err(KernelError::Shape { wanted, found, bias: 0 }) }
}

fn decoded(table: &LookupTable) -> Result<Vec<f32>, KernelError> {
    let count = table.rows.checked_mul(table.columns);
    let count = count.ok_or(KernelError::TooLarge { rows: table.rows, cols: table.columns })?;
    let mut values = vec![0.0; count];
    dequantize(table.kind, table.data.as_slice(), &mut values)?;
    Ok(values)
}
