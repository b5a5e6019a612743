//! What a file's content must be, and the reading that checks it.

use std::io::Read;

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// A checksum that a source promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sum {
    /// SHA-256 of the content.
    Sha256(String),
    /// Git's object name: SHA-1 of a header with the length, and the content. All that hubs give for small files.
    Git(String),
}

impl Sum {
    /// A SHA-256, when the text is one.
    pub(crate) fn sha256(text: &str) -> Option<Self> {
        let text = text.trim().trim_matches('"').to_ascii_lowercase();
        is_hex(&text, 64).then_some(Self::Sha256(text))
    }

    /// A git object name, when the text is one.
    pub(crate) fn git(text: &str) -> Option<Self> {
        let text = text.trim().trim_matches('"').to_ascii_lowercase();
        is_hex(&text, 40).then_some(Self::Git(text))
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Sha256(text) | Self::Git(text) => text,
        }
    }
}

pub(crate) fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Both sums of a file, in one reading.
#[derive(Debug)]
pub(crate) struct Sums {
    pub(crate) sha256: String,
    git: Option<String>,
    pub(crate) size: u64,
}

impl Sums {
    /// Reads to the end. The length must be known for git's sum; without it only SHA-256 is computed.
    pub(crate) fn of(mut source: impl Read, git_length: Option<u64>) -> std::io::Result<Self> {
        let mut sha256 = Context::new(&SHA256);
        let mut git = git_length.map(|length| {
            let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
            context.update(format!("blob {length}\0").as_bytes());
            context
        });
        let mut buffer = vec![0; 1 << 20];
        let mut size = 0;
        loop {
            let read = source.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            sha256.update(&buffer[..read]);
            if let Some(git) = &mut git {
                git.update(&buffer[..read]);
            }
            size += read as u64;
        }
        Ok(Self {
            sha256: hex(sha256.finish().as_ref()),
            git: git.map(|git| hex(git.finish().as_ref())),
            size,
        })
    }

    /// The sum of the expected kind, when it differs.
    pub(crate) fn contradicts(&self, expected: &Sum) -> Option<String> {
        let found = match expected {
            Sum::Sha256(_) => &self.sha256,
            Sum::Git(_) => self.git.as_ref()?,
        };
        (found != expected.as_str()).then(|| found.clone())
    }
}

/// SHA-256 of a few bytes, as the name of a lock or an unfinished download.
pub(crate) fn key(text: &str) -> String {
    hex(ring::digest::digest(&SHA256, text.as_bytes()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_tools() {
        let sums = Sums::of(&b"hello\n"[..], Some(6)).unwrap();
        assert_eq!(sums.sha256, "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");
        let git = Sum::git("\"ce013625030ba8dba906f756967f9e9ca394464a\"").unwrap();
        assert_eq!(sums.contradicts(&git), None);
        assert!(sums.contradicts(&Sum::sha256(&"0".repeat(64)).unwrap()).is_some());
        assert!(Sum::sha256("W/\"short\"").is_none());
    }
}
