//! Which names may become paths below the cache.

use crate::{Problem, Result};

/// Whether an honest repository can have this name at all; a listing with another one is refused as a whole.
pub(crate) fn is_hostile(name: &str) -> bool {
    name.is_empty()
        || name.starts_with('/')
        || name.contains(['\0', '\\'])
        || name.split('/').any(|part| part == "..")
}

/// Checks a relative path that will be written, part by part, for every system that could share the cache.
pub(crate) fn check(name: &str) -> Result<()> {
    let refuse = |why| Err(Problem::Name { name: name.chars().take(200).collect(), why });
    if name.len() > 1024 || name.split('/').count() > 16 {
        return refuse("it is too long");
    }
    if name.starts_with('/') {
        return refuse("it is absolute");
    }
    for part in name.split('/') {
        if part.is_empty() || part == "." || part == ".." {
            return refuse("it leaves its directory");
        }
        if part.len() > 255 {
            return refuse("it is too long");
        }
        if part.chars().any(|c| c.is_control() || "\\:*?\"<>|".contains(c)) {
            return refuse("it has a character that is not allowed in names");
        }
        if part.ends_with(['.', ' ']) || part.starts_with(' ') {
            return refuse("it begins or ends with a space or a dot");
        }
        if is_device(part) {
            return refuse("it is the name of a device");
        }
    }
    Ok(())
}

fn is_device(part: &str) -> bool {
    let stem = part.split('.').next().unwrap_or(part).trim_end().to_ascii_uppercase();
    match stem.as_str() {
        "CON" | "PRN" | "AUX" | "NUL" => true,
        _ => {
            (stem.starts_with("COM") || stem.starts_with("LPT"))
                && stem.len() == 4
                && stem.as_bytes()[3].is_ascii_digit()
        }
    }
}

/// Whether a text is one plain name: what organisations, models, packages and revisions are called.
pub(crate) fn is_plain(part: &str) -> bool {
    !part.is_empty()
        && part.len() <= 128
        && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && !part.starts_with(['.', '-'])
        && check(part).is_ok()
}

/// `*` and `?` match within and across directories; the rest is literal. Letters match in any case.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.to_lowercase().chars().collect();
    let name: Vec<char> = name.to_lowercase().chars().collect();
    let (mut p, mut n, mut star, mut mark) = (0, 0, None, 0);
    while n < name.len() {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some(p);
            mark = n;
            p += 1;
        } else if p < pattern.len() && (pattern[p] == '?' || pattern[p] == name[n]) {
            p += 1;
            n += 1;
        } else if let Some(at) = star {
            p = at + 1;
            mark += 1;
            n = mark;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// The candidate that is nearest to a misspelt word, when one is near.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(2);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edit distance of two short words, in any case of letters.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.to_lowercase().chars().take(128).collect();
    let right: Vec<char> = right.to_lowercase().chars().take(128).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let next = (corner + usize::from(a != b)).min(row[j] + 1).min(row[j + 1] + 1);
            corner = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_relative_paths_are_written() {
        for good in ["config.json", "a/b/model-00001-of-00002.safetensors", "模型.gguf", ".hidden"] {
            assert!(check(good).is_ok(), "{good}");
        }
        let long = "a/".repeat(20);
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a//b",
            "./a",
            "a\\b",
            "a\0b",
            "c:x",
            "NUL",
            "con.txt",
            "COM1.gguf",
            "a.",
            "a ",
            " a",
            "a\nb",
            "x\u{1b}[0m",
            &long,
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn patterns_take_stars_and_question_marks() {
        assert!(matches("*Q8_0*", "dir/model-q8_0.gguf"));
        assert!(matches("model.???f", "model.gguf"));
        assert!(matches("**", ""));
        assert!(!matches("*.bin", "model.gguf"));
        assert!(!matches("?", ""));
        assert!(!matches(&"*a".repeat(30), &"b".repeat(1000)));
    }

    #[test]
    fn the_nearest_name_is_near() {
        assert_eq!(nearest("confg.json", ["config.json", "tokenizer.json"]), Some("config.json"));
        assert_eq!(nearest("weights", ["config.json"]), None);
    }
}
