//! Runs the binary in a world of its own: nothing of the user's home or running servers is seen.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

/// A home directory, a runtime directory and a state directory.
pub(crate) struct World {
    directory: TempDir,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    pub(crate) fn new(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Asserts success and returns standard output.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["home", "runtime"] {
            let path = directory.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        }
        Self { directory }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_byzerllm"));
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("runtime"))
            .env_remove("XDG_STATE_HOME")
            .env_remove("XDG_CACHE_HOME")
            .env_remove("BYZERLLM_CACHE")
            .env_remove("BYZERLLM_OFFLINE")
            .env_remove("BYZERLLM_URL")
            .env_remove("BYZERLLM_API_KEY")
            .env_remove("BYZERLLM_LOG")
            .env_remove("BYZERLLM_MASTER_KEY_FILE")
            .env_remove("OPENAI_API_KEY")
            .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
            .env_remove("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
            .env_remove("NO_COLOR")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        Done::new(&self.command(arguments).output().unwrap())
    }

    /// Runs a command with text on standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Done {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Done::new(&child.wait_with_output().unwrap())
    }

    /// Starts a server on a free port with the state directory of this world.
    pub(crate) fn serve(&self) -> Serving {
        self.serve_with(&[])
    }

    /// The same with further options.
    pub(crate) fn serve_with(&self, options: &[&str]) -> Serving {
        self.serve_in(options, &[])
    }

    /// The same with further variables of the environment.
    pub(crate) fn serve_in(&self, options: &[&str], environment: &[(&str, &str)]) -> Serving {
        self.start(options, environment, Stdio::null())
    }

    /// The same, with what it logs in a file.
    pub(crate) fn serve_logging(&self, log: &Path, environment: &[(&str, &str)]) -> Serving {
        self.start(&[], environment, std::fs::File::create(log).unwrap().into())
    }

    fn start(&self, options: &[&str], environment: &[(&str, &str)], log: Stdio) -> Serving {
        let state = self.path("state");
        let plain = ["serve", "--port", "0", "--threads", "1", "--state", state.to_str().unwrap()];
        let mut command = self.command(&[&plain[..], options].concat());
        let mut child = command.envs(environment.iter().copied()).stderr(log).spawn().unwrap();
        let mut first = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut first).unwrap();
        let url = first.split_whitespace().find(|word| word.starts_with("http"));
        let url = url.unwrap_or_else(|| panic!("no address in {first:?}")).trim_end_matches(',').to_owned();
        Serving { child, url }
    }
}

/// A running server; killed when dropped.
pub(crate) struct Serving {
    child: Child,
    pub(crate) url: String,
}

impl Serving {
    /// As `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by name and returns the exit code.
    pub(crate) fn signal(mut self, name: &str) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// A tiny checkpoint with random weights and a chat template.
pub(crate) fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures").join(name);
    path.canonicalize().unwrap().to_str().unwrap().to_owned()
}
