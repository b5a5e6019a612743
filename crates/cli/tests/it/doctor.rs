//! What doctor finds when something is wrong, and that it says how to mend it.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Done, World};

/// The report of `doctor --json`, with the exit code checked against it.
#[track_caller]
fn report(command: &mut Command) -> Value {
    let done = Done::new(&command.output().unwrap());
    let report: Value = serde_json::from_str(&done.out).unwrap_or_else(|_| panic!("{done:?}"));
    assert_eq!(report["ok"].as_bool(), Some(done.code == 0), "{done:?}");
    report
}

#[track_caller]
fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let found = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("{name} is not in {report}"))
}

#[track_caller]
fn finds(report: &Value, name: &str, verdict: &str, detail: &str, fix: &str) {
    let found = check(report, name);
    assert_eq!(found["verdict"], verdict, "{found}");
    assert!(found["detail"].as_str().unwrap().contains(detail), "{found}");
    assert!(found["fix"].as_str().unwrap_or_default().contains(fix), "{found}");
}

fn doctor(world: &World, more: &[&str]) -> Command {
    let mut command = world.command(&[&["doctor", "--port", "0", "--json"][..], more].concat());
    for name in ["HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "VIRTUAL_ENV"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn a_healthy_machine_has_no_problem() {
    let world = World::new();
    let report = report(&mut doctor(&world, &[]));
    assert_eq!(report["ok"], true, "{report}");
    for name in [
        "processor",
        "instructions",
        "memory",
        "open files",
        "state",
        "keys",
        "runtime files",
        "models",
        "port",
        "proxies",
        "server",
    ] {
        check(&report, name);
    }
    assert!(!world.path("home/.local").exists(), "looking makes nothing");
}

#[test]
fn the_slow_path_is_named() {
    let world = World::new();
    let report = report(doctor(&world, &[]).env("BYZERLLM_ISA", "scalar"));
    finds(&report, "instructions", "warning", "scalar", "");
    assert!(check(&report, "instructions")["fix"].is_string());
}

#[test]
fn a_state_that_cannot_be_written_is_a_problem() {
    let world = World::new();
    let file = world.path("file");
    std::fs::write(&file, "").unwrap();
    finds(
        &report(&mut doctor(&world, &["--state", file.to_str().unwrap()])),
        "state",
        "problem",
        "no directory",
        "--state DIR",
    );
}

#[test]
fn other_machines_need_a_key() {
    let world = World::new();
    let open = ["--host", "0.0.0.0"];
    finds(&report(&mut doctor(&world, &open)), "keys", "problem", "none", "byzerllm keys create");
    {
        let _serving = world.serve();
        let state = world.path("state");
        let held = [&open[..], &["--state", state.to_str().unwrap()]].concat();
        finds(&report(&mut doctor(&world, &held)), "keys", "problem", "none", "byzerllm keys create");
    }
    world.run(&["keys", "create", "--name", "app"]).ok();
    finds(&report(&mut doctor(&world, &open)), "keys", "ok", "1 active", "");
    world.run(&["keys", "revoke", "app"]).ok();
    finds(
        &report(&mut doctor(&world, &open)),
        "keys",
        "problem",
        "revoked or expired",
        "byzerllm keys create",
    );
}

#[test]
fn runtime_files_that_lead_nowhere_are_named() {
    let world = World::new();
    let directory = world.path("runtime/byzerllm");
    std::fs::create_dir(&directory).unwrap();
    mode(&directory, 0o700);
    let mut child = Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let file = directory.join("server-8123.json");
    let record = json!({
        "url": "http://127.0.0.1:8123", "port": 8123, "pid": pid, "token": "t", "state": null, "started": 1
    });
    std::fs::write(&file, record.to_string()).unwrap();
    mode(&file, 0o600);
    finds(
        &report(&mut doctor(&world, &[])),
        "runtime files",
        "warning",
        &format!("process {pid}"),
        "Nothing to do",
    );
    std::fs::write(&file, "{}").unwrap();
    mode(&file, 0o644);
    finds(&report(&mut doctor(&world, &[])), "runtime files", "problem", "open to other users", "rm '");
    std::fs::remove_file(&file).unwrap();
    mode(&directory, 0o755);
    finds(
        &report(&mut doctor(&world, &[])),
        "runtime files",
        "problem",
        "open to other users",
        "XDG_RUNTIME_DIR",
    );
}

#[test]
fn a_server_is_checked_for_its_answer_and_version() {
    let world = World::new();
    let serving = world.serve();
    finds(&report(&mut doctor(&world, &[])), "server", "ok", &serving.url, "");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    finds(&report(&mut doctor(&world, &["--url", &gone])), "server", "problem", "does not answer", "--url");

    let old = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", old.local_addr().unwrap());
    let answers = std::thread::spawn(move || {
        for stream in old.incoming().take(2) {
            let mut stream = stream.unwrap();
            let mut request = [0_u8; 4096];
            let _length = std::io::Read::read(&mut stream, &mut request).unwrap();
            let body = r#"{"status":"alive","version":"0.0.1"}"#;
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
            let answer = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
            std::io::Write::write_all(&mut stream, answer.as_bytes()).unwrap();
        }
    });
    finds(
        &report(&mut doctor(&world, &["--url", &url])),
        "server",
        "problem",
        "runs version 0.0.1",
        "same version",
    );
    answers.join().unwrap();
}

#[test]
fn a_certificate_and_a_key_that_differ_are_a_problem() {
    let world = World::new();
    let make = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (one, other) = (make(), make());
    let (certificate, key) = (world.path("cert.pem"), world.path("key.pem"));
    std::fs::write(&certificate, one.cert.pem()).unwrap();
    std::fs::write(&key, other.signing_key.serialize_pem()).unwrap();
    mode(&key, 0o600);
    let files = ["--ssl-certfile", certificate.to_str().unwrap(), "--ssl_keyfile", key.to_str().unwrap()];
    finds(&report(&mut doctor(&world, &files)), "certificate", "problem", "not the key", "--ssl-certfile");
    std::fs::write(&key, one.signing_key.serialize_pem()).unwrap();
    finds(&report(&mut doctor(&world, &files)), "certificate", "ok", "valid for", "");
}

#[test]
fn proxies_packages_and_damaged_models_are_found() {
    let world = World::new();
    let packages = world.path("venv/lib/python3.12/site-packages/byzerllm-0.0.1.dist-info");
    std::fs::create_dir_all(&packages).unwrap();
    let model = world.path("cache/models/huggingface/org/name/0123");
    std::fs::create_dir_all(&model).unwrap();
    std::fs::write(model.join("model.gguf"), "half").unwrap();
    let manifest = json!({
        "source": "huggingface", "organisation": "org", "name": "name", "revision": "0123", "asked": ["main"],
        "pulled_at": 1, "files": {"model.gguf": {"size": 8, "sha256": "00"}},
        "picks": {"": {"entry": "model.gguf", "files": ["model.gguf"]}}
    });
    std::fs::write(model.join(".byzerllm.json"), manifest.to_string()).unwrap();
    let report = report(
        doctor(&world, &[])
            .env("HTTP_PROXY", "http://proxy.example:3128")
            .env("VIRTUAL_ENV", world.path("venv"))
            .env("BYZERLLM_CACHE", world.path("cache")),
    );
    finds(&report, "proxies", "warning", "NO_PROXY lacks 127.0.0.1", "export NO_PROXY");
    finds(&report, "python package", "problem", "0.0.1", "pip install");
    finds(
        &report,
        "models",
        "problem",
        "org/name: model.gguf has 4 bytes instead of 8",
        "byzerllm pull org/name",
    );
}

#[test]
fn a_low_limit_on_files_is_a_problem() {
    let world = World::new();
    let line = format!("ulimit -n 100; exec '{}' doctor --port 0 --json", env!("CARGO_BIN_EXE_byzerllm"));
    let plain = doctor(&world, &[]);
    let mut command = Command::new("sh");
    command.args(["-c", &line]).current_dir(plain.get_current_dir().unwrap());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    finds(&report(&mut command), "open files", "problem", "at most 100", "LimitNOFILE");
}
