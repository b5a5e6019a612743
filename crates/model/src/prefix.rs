//! Prompts of prefix language models (GLM): a context that is read in both directions, then what is written after it.

use byzerllm_kernels::Mask;

/// Which tokens of a prompt say where its context ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixContext {
    /// The token after the context (`<sop>`): everything before the first one is read in both directions.
    pub start: u32,
    /// Tokens that stand for what is to be written (`[gMASK]`, `[MASK]`), the preferred one first.
    pub masks: [u32; 2],
}

impl PrefixContext {
    /// Finds the context of a prompt. A prompt without the start token is all context, and one without a mask is as
    /// if its context ended with one.
    #[must_use]
    pub fn read(&self, prompt: &[u32]) -> PromptContext {
        let place = |token: u32| prompt.iter().position(|&id| id == token);
        let length = place(self.start).unwrap_or(prompt.len());
        let mask = self.masks.iter().find_map(|&mask| place(mask)).unwrap_or(length.saturating_sub(1));
        PromptContext { length, mask: u32::try_from(mask).unwrap_or(u32::MAX) }
    }
}

/// The context of one prompt. It does not change while an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptContext {
    /// Its tokens; they must be computed in one step.
    pub length: usize,
    /// The place of its mask, which all tokens after the context share as their first position.
    pub mask: u32,
}

impl PromptContext {
    /// Who sees whom in a sequence that begins with the prompt.
    #[must_use]
    pub fn mask(&self) -> Mask {
        Mask::Prefix(self.length)
    }

    /// The two positions of the token at `place`: places count in the context, steps from 1 on after it.
    #[must_use]
    pub fn position(&self, place: usize) -> [u32; 2] {
        match place.checked_sub(self.length) {
            None => [u32::try_from(place).unwrap_or(u32::MAX), 0],
            Some(step) => [self.mask, u32::try_from(step + 1).unwrap_or(u32::MAX)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKENS: PrefixContext = PrefixContext { start: 9, masks: [8, 7] };

    fn positions(prompt: &[u32], count: usize) -> Vec<[u32; 2]> {
        let context = TOKENS.read(prompt);
        (0..count).map(|place| context.position(place)).collect()
    }

    #[test]
    fn what_follows_the_context_shares_the_place_of_the_mask() {
        assert_eq!(TOKENS.read(&[1, 2, 8, 9]).mask(), Mask::Prefix(3));
        assert_eq!(positions(&[1, 2, 8, 9], 6), [[0, 0], [1, 0], [2, 0], [2, 1], [2, 2], [2, 3]]);
        // A mask in the middle; the preferred one wins wherever it stands.
        assert_eq!(positions(&[1, 7, 2, 9, 3], 5), [[0, 0], [1, 0], [2, 0], [1, 1], [1, 2]]);
        assert_eq!(TOKENS.read(&[7, 1, 8, 9]).mask, 2);
    }

    #[test]
    fn prompts_without_these_tokens_are_all_context() {
        assert_eq!(positions(&[1, 2, 3], 5), [[0, 0], [1, 0], [2, 0], [2, 1], [2, 2]]);
        assert_eq!(positions(&[9, 1], 3), [[0, 1], [0, 2], [0, 3]]);
    }
}
