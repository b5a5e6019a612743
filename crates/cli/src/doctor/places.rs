//! What doctor says about directories and files: the state, the runtime files, the pulled models, the package.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use byzerllm_client::runtime_file::{self, Leftover};
use byzerllm_hub::{Hub, Settings};

use crate::output::bytes;
use crate::version::VERSION;

use super::Check;

/// Less room than this leaves no place for deployments and keys.
const LITTLE_ROOM: u64 = 64 << 20;

/// The state directory, or where it would be made.
pub(super) fn state_directory(state: &Path) -> Check {
    let name = "state";
    let shown = state.display();
    let metadata = match std::fs::metadata(state) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let parent = existing_parent(state);
            return if writable(&parent) {
                enough_room(state, room(&parent), Check::ok(name, format!("{shown} will be made")))
            } else {
                Check::problem(
                    name,
                    format!("{shown} cannot be made: {} is not writable", parent.display()),
                    "Make that directory writable or use another one with --state DIR.",
                )
            };
        }
        Err(error) => {
            return Check::problem(name, format!("{shown}: {error}"), "Use another one with --state DIR.");
        }
    };
    if !metadata.is_dir() {
        return Check::problem(name, format!("{shown} is no directory"), "Use another one with --state DIR.");
    }
    if own_user().is_some_and(|user| user != metadata.uid()) {
        return Check::problem(
            name,
            format!("{shown} belongs to another user"),
            "Use one of your own with --state DIR.",
        );
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return Check::problem(
            name,
            format!("{shown} is open to other users"),
            format!("Run `chmod 700 '{shown}'`."),
        );
    }
    if !writable(state) {
        return Check::problem(
            name,
            format!("{shown} is not writable"),
            format!("Run `chmod u+w '{shown}'`."),
        );
    }
    enough_room(state, room(state), Check::ok(name, shown.to_string()))
}

/// The check that went well so far, unless the disk is full.
fn enough_room(state: &Path, room: Option<u64>, well: Check) -> Check {
    match room {
        Some(room) if room < LITTLE_ROOM => Check::problem(
            "state",
            format!("only {} are free for {}", bytes(room), state.display()),
            "Free some space (`byzerllm models size` tells what pulled models take) or use another disk with --state DIR.",
        ),
        _ => well,
    }
}

fn existing_parent(path: &Path) -> PathBuf {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/")).to_owned()
}

/// Tries, because permission bits do not tell about read-only mounts.
fn writable(directory: &Path) -> bool {
    let probe = directory.join(format!(".byzerllm-doctor-{}", std::process::id()));
    let written = std::fs::OpenOptions::new().write(true).create_new(true).open(&probe).is_ok();
    written && std::fs::remove_file(&probe).is_ok()
}

fn own_user() -> Option<u32> {
    std::fs::metadata("/proc/self").ok().map(|metadata| metadata.uid())
}

/// Bytes that can still be written where a directory is.
fn room(directory: &Path) -> Option<u64> {
    let status = rustix::fs::statvfs(directory).ok()?;
    Some(status.f_bavail.saturating_mul(status.f_frsize))
}

/// The directory in which servers leave their address, and what lies there that no server wrote or needs.
pub(super) fn runtime_directory() -> Check {
    let name = "runtime files";
    let leftovers =
        runtime_file::directory().and_then(|directory| Ok((runtime_file::leftovers(&directory)?, directory)));
    let (leftovers, directory) = match leftovers {
        Ok(found) => found,
        Err(error) => {
            return Check::problem(
                name,
                error.message(),
                "Servers leave their address and token there: mend it, or set XDG_RUNTIME_DIR to a private directory.",
            );
        }
    };
    let refused = leftovers.iter().find_map(|leftover| match leftover {
        Leftover::Refused(path, why) => Some((path, why)),
        Leftover::Dead(..) => None,
    });
    if let Some((path, why)) = refused {
        let path = path.display();
        return Check::problem(
            name,
            format!("{why} ({path})"),
            format!(
                "Nobody reads it, so its server is not found: run `rm '{path}'` and start that server again."
            ),
        );
    }
    match &leftovers[..] {
        [Leftover::Dead(path, pid), ..] => Check::warning(
            name,
            format!("{} is left from a server that did not end well (process {pid})", path.display()),
            "Nothing to do: it is ignored, and the next command removes it. The server's log may say why it ended.",
        ),
        _ => Check::ok(name, directory.display().to_string()),
    }
}

/// Whether the pulled models still have all their files, by their sizes.
pub(super) fn models() -> Check {
    let name = "models";
    let hub = match Settings::from_environment() {
        Ok(settings) => Hub::new(settings),
        Err(problem) => return Check::problem(name, problem.to_string(), problem.remedy()),
    };
    let damaged = hub.damaged();
    let Some(first) = damaged.first() else {
        return Check::ok(name, format!("{} in {}", hub.models().len(), hub.directory().display()));
    };
    let more = match damaged.len() {
        1 => String::new(),
        count => format!(" and {} more files", count - 1),
    };
    Check::problem(
        name,
        format!("{}: {} {}{more}", first.name, first.file, first.problem),
        format!(
            "Pull it again: `byzerllm models remove {0}`, then `byzerllm pull {0}`; `byzerllm models verify` \
             compares checksums, too.",
            first.name
        ),
    )
}

/// The package in the active virtual environment, when it is of another version than this command.
pub(super) fn python_package(environment: Option<&OsStr>) -> Option<Check> {
    let libraries = std::fs::read_dir(Path::new(environment?).join("lib")).ok()?;
    let packages =
        libraries.flatten().filter_map(|python| std::fs::read_dir(python.path().join("site-packages")).ok());
    let versions = packages.flatten().flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        Some(name.strip_prefix("byzerllm-")?.strip_suffix(".dist-info")?.to_owned())
    });
    let version = versions.min()?;
    let name = "python package";
    if version == VERSION {
        return Some(Check::ok(name, version));
    }
    Some(Check::problem(
        name,
        format!("the virtual environment has byzerllm {version}, and this command is {VERSION}"),
        format!("Run `pip install --upgrade byzerllm=={VERSION}`, or the command of that environment."),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn an_open_state_directory_is_a_problem_with_its_fix() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        assert_eq!(state_directory(&state).verdict, Verdict::Ok);
        std::fs::create_dir(&state).unwrap();
        std::fs::set_permissions(&state, PermissionsExt::from_mode(0o755)).unwrap();
        let check = state_directory(&state);
        assert_eq!(check.verdict, Verdict::Problem);
        assert!(check.fix.unwrap().contains("chmod 700"));
        std::fs::set_permissions(&state, PermissionsExt::from_mode(0o700)).unwrap();
        assert_eq!(state_directory(&state).verdict, Verdict::Ok);
    }

    #[test]
    fn a_file_is_no_state_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(state_directory(file.path()).verdict, Verdict::Problem);
    }

    #[test]
    fn a_full_disk_is_a_problem() {
        let check = enough_room(Path::new("/state"), Some(1 << 20), Check::ok("state", "/state"));
        assert_eq!(check.verdict, Verdict::Problem);
        assert!(check.detail.contains("1.0 MiB"), "{check:?}");
        assert_eq!(
            enough_room(Path::new("/s"), Some(1 << 40), Check::ok("state", "/s")).verdict,
            Verdict::Ok
        );
        assert!(room(Path::new("/")).is_some());
    }

    #[test]
    fn a_package_of_another_version_is_a_problem() {
        let environment = tempfile::tempdir().unwrap();
        let packages = environment.path().join("lib/python3.12/site-packages");
        let verdict = || python_package(Some(environment.path().as_os_str())).map(|check| check.verdict);
        std::fs::create_dir_all(packages.join("byzerllm")).unwrap();
        assert_eq!(verdict(), None);
        std::fs::create_dir(packages.join(format!("byzerllm-{VERSION}.dist-info"))).unwrap();
        assert_eq!(verdict(), Some(Verdict::Ok));
        std::fs::create_dir(packages.join("byzerllm-0.0.1.dist-info")).unwrap();
        assert_eq!(verdict(), Some(Verdict::Problem));
        assert!(python_package(None).is_none());
    }
}
