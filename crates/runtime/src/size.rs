//! Sizes in bytes as people write and read them.

use byzerllm_core::{Error, Result};

const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1000),
    ("MB", 1000_u64.pow(2)),
    ("GB", 1000_u64.pow(3)),
    ("TB", 1000_u64.pow(4)),
    ("KIB", 1 << 10),
    ("MIB", 1 << 20),
    ("GIB", 1 << 30),
    ("TIB", 1 << 40),
];

/// Reads `1073741824`, `512MiB`, `1.5 GiB` or `2GB`; a single letter (`4G`) is binary.
///
/// # Errors
/// [`byzerllm_core::ErrorKind::InvalidRequest`] when the text is not a size.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let bad = || {
        Error::new(
            byzerllm_core::ErrorKind::InvalidRequest,
            format!("'{}' is not a size; write bytes or a unit, like 512MiB or 2GiB", text.escape_debug()),
        )
    };
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let unit = unit.trim().to_ascii_uppercase();
    let factor = match unit.as_str() {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        other => UNITS.iter().find(|(name, _)| *name == other).ok_or_else(bad)?.1,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(bad);
    }
    let value = number.parse::<f64>().map_err(|_| bad())? * factor as f64;
    // 2^63 is far beyond any memory and exactly representable.
    if value.is_finite() && value < 9_223_372_036_854_775_808.0 { Ok(value as u64) } else { Err(bad()) }
}

/// Writes a size with a binary unit: `1.5 GiB`.
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    for (unit, size) in [("TiB", 1_u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= size {
            return format!("{:.1} {unit}", bytes as f64 / size as f64);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_written() {
        for (text, bytes) in [
            ("0", 0),
            ("123", 123),
            ("512MiB", 512 << 20),
            ("512 mib", 512 << 20),
            ("1.5GiB", 3 << 29),
            ("2GB", 2_000_000_000),
            ("4G", 4 << 30),
            ("7b", 7),
        ] {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "MiB", "-1", "1.2.3", "12 parsecs", "99999999999TiB", "1e9", "1e999", "NaN"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_written_for_people() {
        assert_eq!(format_bytes(1023), "1023 B");
        assert_eq!(format_bytes(3 << 29), "1.5 GiB");
    }
}
