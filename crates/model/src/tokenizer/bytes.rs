//! The reversible mapping between bytes and printable characters that byte-level BPE vocabularies are written in.

/// The byte that a character stands for.
fn char_to_byte(character: char) -> Option<u8> {
    let code = u32::from(character);
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => u8::try_from(code).ok(),
        0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// Bytes as a byte-level vocabulary writes them.
pub(crate) fn byte_level_text(bytes: &[u8]) -> String {
    let character = |byte: u8| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        0..=0x20 => char::from_u32(0x100 + u32::from(byte)).unwrap_or_default(),
        0x7f..=0xa0 => char::from_u32(0x121 + u32::from(byte) - 0x7f).unwrap_or_default(),
        0xad => '\u{143}',
    };
    bytes.iter().map(|byte| character(*byte)).collect()
}

/// Appends the bytes that a byte-level token stands for. A token with a character outside the mapping stands for its
/// own text, as in the `ByteLevel` decoder of Hugging Face.
pub(crate) fn byte_level_bytes(token: &str, out: &mut Vec<u8>) {
    let start = out.len();
    for character in token.chars() {
        if let Some(byte) = char_to_byte(character) {
            out.push(byte);
        } else {
            out.truncate(start);
            out.extend_from_slice(token.as_bytes());
            return;
        }
    }
}

/// The byte that a fallback token (`<0x0A>`) stands for.
pub(crate) fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 || digits.starts_with('+') {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table as the vocabularies' makers define it: printable Latin-1 bytes stand for themselves, the other 68
    /// take the characters from U+0100 on, in byte order.
    fn byte_to_char() -> Vec<char> {
        let mut spare = (0x100u32..).filter_map(char::from_u32);
        (0..=255u8)
            .map(|byte| match byte {
                0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
                _ => spare.next().unwrap(),
            })
            .collect()
    }

    #[test]
    fn every_byte_survives_the_round_trip() {
        let table = byte_to_char();
        for byte in 0..=255u8 {
            assert_eq!(char_to_byte(table[usize::from(byte)]), Some(byte));
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(byte_level_text(&all), table.iter().collect::<String>());
        assert_eq!((table[usize::from(b' ')], table[usize::from(b'\n')]), ('Ġ', 'Ċ'));
    }

    #[test]
    fn fallback_tokens_are_exact() {
        assert_eq!(fallback_byte("<0x0A>"), Some(10));
        for wrong in ["<0xA>", "<0x0AB>", "<0x+1>", "<0xZZ>", "0x0A"] {
            assert_eq!(fallback_byte(wrong), None, "{wrong}");
        }
    }
}
