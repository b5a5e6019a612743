//! Looking up what `env:NAME` and `file:PATH` stand for.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use byzerllm_core::{Error, Result};
use byzerllm_providers::Secret;

/// The most bytes of a file with a secret.
const MAX_BYTES: u64 = 64 << 10;

/// Whether a variable may have this name.
pub(super) fn check_variable(parameter: &str, name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(plain) {
        // What follows `env:` may be the credential, by mistake.
        return Err(invalid(
            parameter,
            format!("{parameter} names no variable; write env:NAME, like env:OPENAI_API_KEY"),
        ));
    }
    Ok(())
}

/// Whether a file may have this path.
pub(super) fn check_path(parameter: &str, path: &str) -> Result<()> {
    if !Path::new(path).is_absolute() {
        let message = format!(
            "{parameter} names no absolute path; write file:/absolute/path, on the machine that runs the model"
        );
        return Err(invalid(parameter, message));
    }
    Ok(())
}

/// The value of a variable of this process.
pub(super) fn variable(parameter: &str, name: &str) -> Result<Secret> {
    check_variable(parameter, name)?;
    let lacking = |what: &str| {
        invalid(
            parameter,
            format!(
                "{parameter} is env:{name}, and {} has {what}; set {name} where that process is started, or give \
                 file:PATH",
                this_process()
            ),
        )
    };
    match std::env::var(name) {
        Ok(value) if value.trim().is_empty() => Err(lacking("an empty variable of this name")),
        Ok(value) => Ok(Secret::new(value.trim())),
        Err(std::env::VarError::NotPresent) => Err(lacking("no such variable")),
        Err(std::env::VarError::NotUnicode(_)) => Err(lacking("there something that is no text")),
    }
}

/// What a file holds, without white space around it.
pub(super) fn file(parameter: &str, path: &str) -> Result<Secret> {
    check_path(parameter, path)?;
    let wrong = |what: String| invalid(parameter, format!("{parameter} is file:{path}, {what}"));
    // Not blocking: a pipe without a writer must not hold up the load.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path);
    let file = opened.map_err(|error| {
        wrong(format!(
            "and {} cannot open it: {error}; make it readable there, or give env:NAME",
            this_process()
        ))
        .with_source(error)
    })?;
    let unread =
        |error: std::io::Error| wrong(format!("which cannot be read: {error}; repair it")).with_source(error);
    let metadata = file.metadata().map_err(unread)?;
    if !metadata.is_file() {
        return Err(wrong("which is no regular file; name the file that holds the secret".to_owned()));
    }
    if metadata.mode() & 0o006 != 0 {
        return Err(wrong(format!(
            "which every user of the machine may read or write; `chmod 600 {path}` it"
        )));
    }
    if metadata.len() > MAX_BYTES {
        return Err(wrong(
            "which is larger than 64 KiB; name the file that holds the secret alone".to_owned(),
        ));
    }
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(unread)?;
    let secret = text.trim();
    if secret.is_empty() {
        return Err(wrong("which is empty; write the secret into it".to_owned()));
    }
    Ok(Secret::new(secret))
}

/// This process, for people who look for it.
fn this_process() -> String {
    let program = std::env::current_exe().ok();
    let name = program.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy());
    format!(
        "the process that runs the model ({}, {})",
        name.as_deref().unwrap_or("unnamed"),
        std::process::id()
    )
}

fn invalid(parameter: &str, message: String) -> Error {
    Error::invalid(parameter.to_owned(), message)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn written(text: impl AsRef<[u8]>, mode: u32) -> (tempfile::TempDir, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let path = path.to_str().unwrap().to_owned();
        (directory, path)
    }

    #[test]
    fn a_file_gives_its_text_without_the_line_end() {
        let (_directory, path) = written("sk-canary\r\n", 0o600);
        assert_eq!(file("saas.api_key", &path).unwrap().expose(), "sk-canary");
    }

    #[test]
    fn files_that_are_no_secrets_are_refused_with_advice() {
        for (text, mode, part) in [
            (b"sk-canary".to_vec(), 0o644, "chmod 600"),
            (b" \n".to_vec(), 0o600, "is empty"),
            (vec![b'x'; 70_000], 0o600, "64 KiB"),
            (vec![0xFF, 0xFE], 0o600, "cannot be read"),
        ] {
            let (_directory, path) = written(text, mode);
            let error = file("saas.api_key", &path).unwrap_err();
            assert!(error.message().contains(part) && error.message().contains(&path), "{error}");
            assert!(!error.message().contains("canary"), "{error}");
            assert_eq!(error.param(), Some("saas.api_key"));
        }
        let error = file("saas.api_key", "/dev/null").unwrap_err();
        assert!(error.message().contains("no regular file"), "{error}");
        let error = file("saas.api_key", "/nowhere/key").unwrap_err();
        assert!(error.message().contains(&std::process::id().to_string()), "{error}");
    }

    #[test]
    fn a_variable_that_is_not_there_is_told_with_the_process() {
        let error = variable("saas.api_key", "BYZERLLM_TEST_NO_SUCH_VARIABLE").unwrap_err();
        let pid = std::process::id().to_string();
        assert!(
            error.message().contains("BYZERLLM_TEST_NO_SUCH_VARIABLE") && error.message().contains(&pid),
            "{error}"
        );
        assert!(!variable("saas.api_key", "PATH").unwrap().expose().is_empty());
    }
}
