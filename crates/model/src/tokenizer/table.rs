//! What each token id stands for: its text, its bytes and whether it is special. Two flat arenas, looked up in O(1).

/// Built once at load, never changed.
#[derive(Debug, Default)]
pub(crate) struct TokenTable {
    texts: String,
    text_ends: Vec<u32>,
    bytes: Vec<u8>,
    byte_ends: Vec<u32>,
    flags: Vec<u8>,
    /// How many leading spaces of a decoded text belong to the tokenizer and not to the text.
    pub(crate) leading_spaces: usize,
}

const PRESENT: u8 = 1;
const SPECIAL: u8 = 2;

/// The table would need more than 4 GiB of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLarge;

impl TokenTable {
    /// Appends the next id. `bytes` writes what the token stands for.
    pub(crate) fn push(
        &mut self,
        text: &str,
        special: bool,
        bytes: impl FnOnce(&str, &mut Vec<u8>),
    ) -> Result<(), TooLarge> {
        self.texts.push_str(text);
        bytes(text, &mut self.bytes);
        self.end(PRESENT | if special { SPECIAL } else { 0 })
    }

    /// Appends an id that stands for nothing.
    pub(crate) fn push_absent(&mut self) -> Result<(), TooLarge> {
        self.end(0)
    }

    fn end(&mut self, flags: u8) -> Result<(), TooLarge> {
        self.text_ends.push(u32::try_from(self.texts.len()).map_err(|_| TooLarge)?);
        self.byte_ends.push(u32::try_from(self.bytes.len()).map_err(|_| TooLarge)?);
        self.flags.push(flags);
        Ok(())
    }

    /// The number of ids, absent ones included.
    pub(crate) fn len(&self) -> usize {
        self.flags.len()
    }

    fn flags(&self, id: u32) -> u8 {
        self.flags.get(id as usize).copied().unwrap_or(0)
    }

    /// Whether the id is a special token.
    pub(crate) fn is_special(&self, id: u32) -> bool {
        self.flags(id) & SPECIAL != 0
    }

    /// The token's text as the vocabulary writes it.
    pub(crate) fn text(&self, id: u32) -> Option<&str> {
        let range = self.range(&self.text_ends, id)?;
        self.texts.get(range)
    }

    /// The bytes that the token stands for.
    pub(crate) fn bytes(&self, id: u32) -> Option<&[u8]> {
        let range = self.range(&self.byte_ends, id)?;
        self.bytes.get(range)
    }

    fn range(&self, ends: &[u32], id: u32) -> Option<std::ops::Range<usize>> {
        if self.flags(id) & PRESENT == 0 {
            return None;
        }
        let index = id as usize;
        let start = if index == 0 { 0 } else { ends[index - 1] as usize };
        Some(start..ends[index] as usize)
    }
}
