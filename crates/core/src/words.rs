//! Misspelt words.

/// The candidate that a misspelt word most likely means; nothing when there are no candidates.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let short: String = word.chars().take(64).collect::<String>().to_lowercase();
    // The beginning of a word means that word, whatever else is shorter.
    let rank = |candidate: &'a str| {
        let begins = short.len() >= 3 && candidate.starts_with(&short);
        (!begins, edit_distance(&short, candidate), candidate)
    };
    candidates.into_iter().map(rank).min().map(|(_, _, candidate)| candidate)
}

/// Insertions, deletions, substitutions and swaps of neighbours that turn one text into the other.
fn edit_distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let width = right.len() + 1;
    let mut table: Vec<usize> = (0..width).collect();
    for (i, a) in left.iter().enumerate() {
        let row = table.len();
        table.push(i + 1);
        for (j, b) in right.iter().enumerate() {
            let above = table[row - width + j + 1] + 1;
            let before = table[row + j] + 1;
            let mut best = above.min(before).min(table[row - width + j] + usize::from(a != b));
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                best = best.min(table[row - 2 * width + j - 1] + 1);
            }
            table.push(best);
        }
    }
    table[table.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_definition() {
        for (a, b, distance) in
            [("", "", 0), ("", "ab", 2), ("ab", "ba", 1), ("kitten", "sitting", 3), ("seed", "sede", 1)]
        {
            assert_eq!(edit_distance(a, b), distance, "{a} {b}");
            assert_eq!(edit_distance(b, a), distance, "{b} {a}");
        }
    }
}
