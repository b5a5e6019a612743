//! `byzerllm doctor`: one line per check, and how to mend what is wrong.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use byzerllm_client::{Client, runtime_file};
use serde::Serialize;
use serde_json::json;

use crate::arguments::DoctorArguments;
use crate::machine::Machine;
use crate::output::{Failure, Outcome, Output, bytes};
use crate::serve::default_state;

/// Less memory than this serves no model of use.
const LITTLE_MEMORY: u64 = 1 << 30;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warning,
    Problem,
}

/// One check.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, detail: detail.into(), fix: None }
    }

    fn warning(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warning, detail: detail.into(), fix: Some(fix.into()) }
    }

    fn problem(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Problem, detail: detail.into(), fix: Some(fix.into()) }
    }
}

/// Runs every check; a problem makes the exit code 1, a warning does not.
pub(crate) async fn doctor(arguments: DoctorArguments, output: Output) -> Outcome {
    let machine = Machine::read();
    let mut checks = vec![processor(&machine), instructions(&machine), memory(&machine)];
    match arguments.state.map_or_else(default_state, |state| Ok(std::path::absolute(state)?)) {
        Ok(state) => checks.push(state_directory(&state)),
        Err(failure) => {
            checks.push(Check::problem("state", failure.message(), "Set HOME or use --state DIR."));
        }
    }
    checks.push(runtime_directory());
    checks.push(port(arguments.port));
    checks.push(server().await);

    let bad = checks.iter().any(|check| check.verdict == Verdict::Problem);
    if arguments.json {
        output.json(&json!({ "ok": !bad, "machine": machine, "checks": checks }))?;
    } else {
        for check in &checks {
            output.line(line(check, output))?;
            if let Some(fix) = &check.fix {
                output.line(format_args!("         fix: {fix}"))?;
            }
        }
    }
    if bad { Err(Failure::silent()) } else { Ok(()) }
}

fn line(check: &Check, output: Output) -> String {
    let paint = output.paint();
    let mark = match check.verdict {
        Verdict::Ok => paint.green("ok      "),
        Verdict::Warning => paint.yellow("warning "),
        Verdict::Problem => paint.red("problem "),
    };
    format!("{mark} {}: {}", check.name, check.detail)
}

fn processor(machine: &Machine) -> Check {
    let online = std::fs::read_to_string("/proc/cpuinfo")
        .map(|text| text.lines().filter(|line| line.starts_with("processor")).count())
        .unwrap_or(machine.cores)
        .max(machine.cores);
    let detail = format!("{}, {} of {online} cores usable", machine.processor, machine.cores);
    if machine.cores < online {
        return Check::warning(
            "processor",
            detail,
            "Affinity or a control group's CPU quota holds the rest back; widen it for more speed.",
        );
    }
    Check::ok("processor", detail)
}

fn instructions(machine: &Machine) -> Check {
    let detail = machine.isa.clone();
    if byzerllm_kernels::Isa::active() < byzerllm_kernels::Isa::detect() {
        let variable = byzerllm_kernels::Isa::VARIABLE;
        return Check::warning("instructions", detail, format!("{variable} forces a slower set; unset it."));
    }
    if byzerllm_kernels::Isa::active() == byzerllm_kernels::Isa::Scalar {
        return Check::warning(
            "instructions",
            detail,
            "No AVX2 here: answers are right but slow. Use a machine with AVX2 or AVX-512.",
        );
    }
    Check::ok("instructions", detail)
}

fn memory(machine: &Machine) -> Check {
    let total = machine.memory_bytes.map_or_else(|| "unknown".to_owned(), bytes);
    match byzerllm_runtime::available_memory() {
        Some(available) if available < LITTLE_MEMORY => Check::warning(
            "memory",
            format!("{} available of {total}", bytes(available)),
            "Close other programs or raise the control group's memory limit.",
        ),
        Some(available) => Check::ok("memory", format!("{} available of {total}", bytes(available))),
        None => Check::ok("memory", total),
    }
}

/// The state directory, or where it would be made.
fn state_directory(state: &Path) -> Check {
    let name = "state";
    let shown = state.display();
    let metadata = match std::fs::metadata(state) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let parent = existing_parent(state);
            return if writable(&parent) {
                Check::ok(name, format!("{shown} will be made"))
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
    Check::ok(name, shown.to_string())
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

fn runtime_directory() -> Check {
    match runtime_file::directory() {
        Ok(directory) => Check::ok("runtime files", directory.display().to_string()),
        Err(error) => Check::problem(
            "runtime files",
            error.message(),
            "Servers leave their address and token there: mend it, or set XDG_RUNTIME_DIR to a private directory.",
        ),
    }
}

fn port(port: u16) -> Check {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Check::ok("port", format!("{port} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => match runtime_file::find(Some(port)) {
            Ok(Some(record)) => {
                Check::ok("port", format!("{port} is held by your byzerllm server (process {})", record.pid))
            }
            _ => Check::warning(
                "port",
                format!("{port} is in use by another program"),
                "Serve on another one with --port N.",
            ),
        },
        Err(error) => Check::problem("port", format!("{port}: {error}"), "Serve on a port above 1023."),
    }
}

/// The server that commands without --url would use.
async fn server() -> Check {
    let name = "server";
    let record = match runtime_file::find(None) {
        Ok(Some(record)) => record,
        Ok(None) | Err(_) => return Check::ok(name, "none is running"),
    };
    let answer = match Client::new(&record.url, None) {
        Ok(client) => client.healthy().await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(()) => Check::ok(name, format!("{} answers (process {})", record.url, record.pid)),
        Err(error) => Check::problem(
            name,
            format!("{} does not answer: {}", record.url, error.message()),
            format!("Restart it: `kill {}`, then `byzerllm serve`.", record.pid),
        ),
    }
}

#[cfg(test)]
mod tests {
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
    fn an_occupied_port_is_a_warning() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let check = port(listener.local_addr().unwrap().port());
        assert_eq!(check.verdict, Verdict::Warning);
    }
}
