//! Keys from the command line: on a state alone, and through the server that holds it.

use serde_json::Value;

use crate::harness::{Serving, World, fixture};

fn keys(world: &World, arguments: &[&str]) -> Vec<Value> {
    let text = world.run(&[&["keys", "list", "--json"], arguments].concat()).ok();
    serde_json::from_str::<Value>(&text).unwrap()["keys"].as_array().unwrap().clone()
}

/// Asks a server for its models as another program with a key would.
fn listed(world: &World, serving: &Serving, key: &str) -> Option<Vec<String>> {
    let arguments =
        ["generate", "--url", &serving.url, "--model", "chat", "--prompt", "x", "--max-tokens", "1"];
    // Another user of the machine sees no runtime file.
    let done = world
        .command(&arguments)
        .env("XDG_RUNTIME_DIR", "/nonexistent")
        .env("TMPDIR", world.path("home"))
        .env("BYZERLLM_API_KEY", key)
        .output()
        .unwrap();
    done.status.success().then(Vec::new)
}

#[test]
fn keys_of_a_state_without_a_server() {
    let world = World::new();
    let state = world.path("state");
    let at = ["--state", state.to_str().unwrap()];
    let run = |arguments: &[&str]| world.run(&[&["keys"], arguments, &at].concat());
    let done = run(&["create", "--name", "app", "--scope", "inference:chat", "--expires", "30d"]);
    let key = done.out.trim().to_owned();
    assert!(key.starts_with("bz-") && done.out.lines().count() == 1, "{done:?}");
    assert!(done.err.contains("'app' (inference:chat)") && !done.err.contains(&key), "{done:?}");
    done.ok();
    let table = run(&["list"]).ok();
    assert!(
        table.contains("app") && table.contains("in 30 d") && table.contains("inference:chat"),
        "{table}"
    );
    assert!(!table.contains(key.rsplit('-').next().unwrap()), "{table}");
    let text = run(&["rotate", "app", "--grace", "1h", "--json"]).ok();
    let made: Value = serde_json::from_str(&text).unwrap();
    assert_ne!(made["key"], key.as_str());
    assert!(run(&["list"]).ok().contains("old one"), "the old one is accepted for an hour");
    assert!(run(&["revoke", "app"]).ok().starts_with("app is revoked at "));
    assert_eq!(keys(&world, &at)[0]["active"], false);

    let again = run(&["revoke", "app"]);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(
        again.err.contains("no key named 'app'") && again.err.contains("byzerllm keys list"),
        "{again:?}"
    );
    for wrong in [
        &["create", "--name", "x", "--scope", "root"][..],
        &["create", "--name", "x", "--expires", "soon"],
        &["create"],
    ] {
        assert_eq!(run(wrong).code, 2, "{wrong:?}");
    }
    assert_eq!(run(&["create", "--name", "a b"]).code, 1);
}

#[test]
fn keys_through_a_running_server() {
    let world = World::new();
    let serving = world.serve();
    world.run(&["deploy", "--name", "chat", "--model", &fixture("llama-tied-f32")]).ok();
    assert!(listed(&world, &serving, "").is_some(), "open before the first key");
    let state = world.path("state");
    // The state's server is found by its directory, by itself, and by its address.
    let key = world.run(&["keys", "create", "--name", "a", "--state", state.to_str().unwrap()]).ok();
    let other = world
        .run(&["keys", "create", "--name", "b", "--scope", "inference:other", "--url", &serving.url])
        .ok();
    let admin = world.run(&["keys", "create", "--name", "c", "--scope", "admin"]).ok();
    assert!(listed(&world, &serving, "").is_none(), "closed from the first key on");
    assert!(listed(&world, &serving, key.trim()).is_some());
    assert!(listed(&world, &serving, other.trim()).is_none());
    assert!(listed(&world, &serving, admin.trim()).is_none());
    // The user of the server goes on as before.
    let own = ["generate", "--model", "chat", "--prompt", "x", "--max-tokens", "1", "--url", &serving.url];
    world.run(&own).ok();
    world.run(&["keys", "revoke", "a"]).ok();
    assert!(listed(&world, &serving, key.trim()).is_none());
    assert_eq!(keys(&world, &[]).len(), 3);
    serving.kill();
    assert_eq!(keys(&world, &["--state", state.to_str().unwrap()]).len(), 3);
}

#[test]
fn away_from_loopback_a_key_comes_first() {
    let world = World::new();
    let state = world.path("state");
    let state = state.to_str().unwrap();
    let done = world.run(&["serve", "--host", "0.0.0.0", "--port", "0", "--state", state]);
    assert_eq!(done.code, 2, "{done:?}");
    let command = format!("byzerllm keys create --name NAME --state {state}");
    assert!(done.err.contains(&command), "{done:?}");
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    world.run(&words).ok();

    // With a certificate that no authority knows: the user's own commands trust it through the runtime file.
    let made = rcgen::generate_simple_self_signed(vec!["llm.example".to_owned()]).unwrap();
    std::fs::write(world.path("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(world.path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let tls = ["--host", "0.0.0.0", "--ssl-certfile", "cert.pem", "--ssl-keyfile", "key.pem"];
    let serving = world.serve_with(&tls);
    assert!(serving.url.starts_with("https://127.0.0.1:"), "{}", serving.url);
    assert!(world.run(&["list"]).err.contains("Nothing is deployed"));
    world.run(&["keys", "create", "--name", "second", "--url", &serving.url]).ok();
    let stranger = world
        .command(&["list", "--url", &serving.url])
        .env("XDG_RUNTIME_DIR", "/nonexistent")
        .env("TMPDIR", world.path("home"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&stranger.stderr).into_owned();
    assert!(
        said.contains("certificate") && said.contains("SSL_CERT_FILE"),
        "nobody else trusts it: {stranger:?}"
    );
    assert_eq!(serving.signal("TERM"), Some(0));
}
