//! What commands say when they cannot do their work: one line what failed, one line what to do, and the exit code.

use std::net::TcpListener;

use crate::harness::{Done, World, fixture};

#[track_caller]
fn refused(done: &Done, code: i32, message: &str, help: &str) {
    assert_eq!(done.code, code, "{done:?}");
    assert_eq!(done.out, "", "results only on standard output");
    let lines: Vec<&str> = done.err.lines().collect();
    assert_eq!(lines.len(), 2, "{done:?}");
    assert!(lines[0].starts_with("error: ") && lines[0].contains(message), "{done:?}");
    assert!(lines[1].starts_with(" help: ") && lines[1].contains(help), "{done:?}");
}

#[test]
fn misuse_is_exit_code_2() {
    let world = World::new();
    for arguments in [
        &["serv"][..],
        &["serve", "--port", "70000"],
        &["serve", "--host", "example"],
        &["deploy", "--name", "chat"],
        &["deploy", "--name", "a", "--model", "b", "--set", "temperature"],
        &["bench", "--model", "x", "--streams", "0"],
        &["generate", "--model", "x", "--prompt", "y", "--raw", "--system", "z"],
    ] {
        let done = world.run(arguments);
        assert_eq!(done.code, 2, "{done:?}");
        assert!(done.err.contains("error:"), "{done:?}");
    }
}

#[test]
fn beyond_loopback_a_key_is_needed_and_tls_is_advised() {
    let world = World::new();
    let done = world.run(&["serve", "--host", "0.0.0.0"]);
    refused(&done, 2, "there is no key", "byzerllm keys create --name NAME --state /");
    world.run(&["keys", "create", "--name", "app"]).ok();
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let done = world.run(&["serve", "--host", "0.0.0.0", "--port", &port]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.starts_with("warning: keys and texts travel unencrypted"), "{done:?}");
    assert!(done.err.contains("already in use"), "{done:?}");
    let done =
        world.run(&["serve", "--port", "0", "--ssl-certfile", "none.pem", "--ssl-keyfile", "none.pem"]);
    refused(&done, 1, "none.pem' cannot be read", "PEM files");
    assert_eq!(world.run(&["serve", "--ssl-certfile", "cert.pem"]).code, 2);
}

#[test]
fn an_occupied_port_names_the_fix() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    refused(&World::new().run(&["serve", "--port", &port]), 1, "already in use", "--port");
}

#[test]
fn a_missing_server_is_said_plainly() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for arguments in [
        &["list", "--url", &url][..],
        &["undeploy", "chat", "--url", &url],
        &["deploy", "--name", "chat", "--model", "/tmp/model.gguf", "--url", &url],
        &["generate", "--model", "chat", "--prompt", "x", "--url", &url],
    ] {
        refused(&world.run(arguments), 1, &format!("no byzerllm server answers at {url}"), "byzerllm serve");
    }
}

#[test]
fn a_misspelt_setting_names_the_nearest_one() {
    let world = World::new();
    let done = world.run(&["deploy", "--name", "chat", "--model", "m.gguf", "--set", "temprature=0.2"]);
    refused(&done, 2, "did you mean 'temperature'", "byzerllm deploy --help");
}

#[test]
fn a_path_that_is_not_there_is_named() {
    let world = World::new();
    for arguments in [
        &["inspect", "./missing.gguf"][..],
        &["generate", "--model", "./missing.gguf", "--prompt", "x"],
        &["bench", "--model", "./missing.gguf"],
    ] {
        let done = world.run(arguments);
        assert_eq!(done.code, 1, "{done:?}");
        assert!(done.err.contains("missing.gguf"), "{done:?}");
    }
}

#[test]
fn one_state_directory_has_one_server() {
    let world = World::new();
    let _first = world.serve();
    let done = world.run(&["serve", "--port", "0", "--state", world.path("state").to_str().unwrap()]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("process") || done.err.contains("pid"), "{done:?}");
}

#[test]
fn secrets_are_never_printed() {
    let world = World::new();
    let serving = world.serve();
    let record = std::fs::read_dir(world.path("runtime/byzerllm")).unwrap().next().unwrap().unwrap().path();
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    let token = record["token"].as_str().unwrap();
    assert_eq!(token.len(), 64);
    let model = fixture("llama-tied-f32");
    for arguments in [
        &["doctor", "--port", "0", "-vv"][..],
        &["list", "--url", &serving.url, "--json", "-vv"],
        &["deploy", "--name", "chat", "--model", &model, "--url", &serving.url, "--json", "-vv"],
        &["inspect", "chat", "--url", &serving.url, "--json", "-vv"],
    ] {
        let done = world.run(arguments);
        assert!(!done.out.contains(token) && !done.err.contains(token), "{arguments:?} shows the token");
    }
}
