//! The bytes of GGUF metadata: version 3, little endian.

/// Metadata in the making: encoded pairs in order.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    bytes: Vec<u8>,
    count: u64,
}

const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const BOOL: u32 = 7;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

impl Metadata {
    fn text_bytes(&mut self, text: &str) {
        self.bytes.extend((text.len() as u64).to_le_bytes());
        self.bytes.extend(text.as_bytes());
    }

    fn key(&mut self, key: &str, kind: u32) {
        self.text_bytes(key);
        self.bytes.extend(kind.to_le_bytes());
        self.count += 1;
    }

    fn array(&mut self, key: &str, kind: u32, length: usize) {
        self.key(key, ARRAY);
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend((length as u64).to_le_bytes());
    }

    /// A pair as another file has it.
    pub(super) fn raw(&mut self, pair: &[u8]) {
        self.bytes.extend(pair);
        self.count += 1;
    }

    pub(super) fn number(&mut self, key: &str, value: u32) {
        self.key(key, U32);
        self.bytes.extend(value.to_le_bytes());
    }

    /// A size or count; those that are beyond 32 bits are cut, which no model reaches.
    pub(super) fn size(&mut self, key: &str, value: usize) {
        self.number(key, u32::try_from(value).unwrap_or(u32::MAX));
    }

    pub(super) fn float(&mut self, key: &str, value: f32) {
        self.key(key, F32);
        self.bytes.extend(value.to_le_bytes());
    }

    pub(super) fn flag(&mut self, key: &str, value: bool) {
        self.key(key, BOOL);
        self.bytes.push(value.into());
    }

    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.key(key, TEXT);
        self.text_bytes(value);
    }

    pub(super) fn texts(&mut self, key: &str, values: &[String]) {
        self.array(key, TEXT, values.len());
        values.iter().for_each(|value| self.text_bytes(value));
    }

    pub(super) fn integers(&mut self, key: &str, values: &[i32]) {
        self.array(key, I32, values.len());
        self.bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    pub(super) fn floats(&mut self, key: &str, values: &[f32]) {
        self.array(key, F32, values.len());
        self.bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    /// Pairs so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Their bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
