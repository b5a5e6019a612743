//! A process that locks itself up, looked at from inside. Each test runs this program again as that process; the test
//! program's own threads would be in the way, so it has none.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program of tests")]

use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use byzerllm_sandbox::{Error, FileLayer, Layer, Limits, Policy, Scratch, enter};

const INSIDE: &str = "BYZERLLM_TEST_INSIDE";
const DIRECTORY: &str = "BYZERLLM_TEST_DIRECTORY";

const TESTS: &[(&str, fn())] = &[
    ("with_every_layer", with_every_layer),
    ("without_namespaces", without_namespaces),
    ("without_landlock", without_landlock),
    ("without_any_file_layer", without_any_file_layer),
    ("without_the_filter_it_refuses", without_the_filter_it_refuses),
    ("with_threads_it_refuses", with_threads_it_refuses),
];

fn main() -> ExitCode {
    if let Ok(inside) = std::env::var(INSIDE) {
        TESTS.iter().find(|(name, _)| *name == inside).unwrap().1();
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let mut failed = false;
    for (name, _) in TESTS.iter().filter(|(name, _)| wanted.iter().all(|word| name.contains(word))) {
        let program = std::env::current_exe().unwrap();
        // Made here: a locked-up process could not remove it.
        let directory = tempfile::tempdir().unwrap();
        let status =
            Command::new(program).env(INSIDE, name).env(DIRECTORY, directory.path()).status().unwrap();
        println!("test {name} ... {}", if status.success() { "ok" } else { "FAILED" });
        failed |= !status.success();
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn policy(read: PathBuf, without: &[Layer]) -> Policy {
    Policy {
        read: vec![read],
        scratch: Some(Scratch { bytes: 1 << 20, files: 16 }),
        limits: Limits { cpu_seconds: 60, memory_bytes: 64 << 20, open_files: 32 },
        first_closed_descriptor: 3,
        without: without.to_vec(),
    }
}

/// Two directories with a file each; the first may be read.
fn files() -> (PathBuf, PathBuf) {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    let (open, secret) = (directory.join("open"), directory.join("secret"));
    for path in [&open, &secret] {
        fs::create_dir(path).unwrap();
        fs::write(path.join("file"), "content").unwrap();
    }
    (open, secret)
}

fn denied<T: std::fmt::Debug>(result: std::io::Result<T>) {
    let error = result.unwrap_err();
    let denied = [ErrorKind::PermissionDenied, ErrorKind::NotFound, ErrorKind::ReadOnlyFilesystem];
    assert!(denied.contains(&error.kind()), "{error}");
}

/// Looks around with these layers missing; `possible` is what then keeps it from files, by what the kernel has.
fn check(without: &[Layer], possible: &[FileLayer]) {
    let (open, secret) = files();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Its descriptor is closed for it.
    std::mem::forget(listener);
    let report = enter(&policy(open.clone(), without)).unwrap();
    assert!(possible.contains(&report.file_layer), "{report:?}");

    denied(fs::read(secret.join("file")));
    denied(fs::write(open.join("new"), "x"));
    denied(fs::read_dir("/etc"));
    denied(TcpStream::connect(address));
    denied(Command::new("/bin/true").status());
    denied(std::thread::Builder::new().spawn(|| ()).map(|_| ()));
    if report.file_layer == FileLayer::NoOpens {
        denied(fs::read(open.join("file")));
        assert!(report.scratch.is_none());
    } else {
        assert_eq!(fs::read(open.join("file")).unwrap(), b"content");
    }
    if let Some(scratch) = report.scratch {
        fs::write(scratch.join("a"), vec![0; 600 << 10]).unwrap();
        let error = fs::write(scratch.join("b"), vec![0; 600 << 10]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        let files = (0..100).take_while(|number| fs::write(scratch.join(number.to_string()), "").is_ok());
        assert!(files.count() < 16);
    }
    // More memory than the limit is refused; a little is there.
    let mut much: Vec<u8> = Vec::new();
    assert!(much.try_reserve_exact(128 << 20).is_err());
    assert!(much.try_reserve_exact(8 << 20).is_ok());
}

fn with_every_layer() {
    check(&[], &[FileLayer::Landlock, FileLayer::Namespace, FileLayer::NoOpens]);
}

fn without_namespaces() {
    check(&[Layer::Namespace], &[FileLayer::Landlock, FileLayer::NoOpens]);
}

fn without_landlock() {
    check(&[Layer::Landlock], &[FileLayer::Namespace, FileLayer::NoOpens]);
}

fn without_any_file_layer() {
    check(&[Layer::Landlock, Layer::Namespace], &[FileLayer::NoOpens]);
}

fn without_the_filter_it_refuses() {
    let error = enter(&policy(PathBuf::from("/usr"), &[Layer::Seccomp])).unwrap_err();
    assert!(error.to_string().contains("system calls cannot be filtered (seccomp)"), "{error}");
}

fn with_threads_it_refuses() {
    let (_sender, receiver) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || receiver.recv());
    let error = enter(&policy(PathBuf::from("/usr"), &[])).unwrap_err();
    assert!(matches!(error, Error::Threads(2)), "{error}");
}
