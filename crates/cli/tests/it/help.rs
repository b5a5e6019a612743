//! Help texts, as snapshots: what scripts and people rely on does not change by accident.

use crate::harness::World;

#[test]
fn help_of_every_command() {
    let world = World::new();
    insta::assert_snapshot!("help", world.run(&["--help"]).ok());
    for command in [
        "serve",
        "deploy",
        "undeploy",
        "list",
        "adapters",
        "stat",
        "vendors",
        "keys",
        "usage",
        "budgets",
        "prices",
        "pull",
        "models",
        "convert",
        "inspect",
        "quantize",
        "chat",
        "generate",
        "run",
        "embed",
        "rerank",
        "query",
        "simulate",
        "bench",
        "doctor",
        "completion",
        "version",
    ] {
        insta::assert_snapshot!(format!("help_{command}"), world.run(&[command, "--help"]).ok());
    }
    for action in ["create", "list", "rotate", "revoke"] {
        insta::assert_snapshot!(format!("help_keys_{action}"), world.run(&["keys", action, "--help"]).ok());
    }
    insta::assert_snapshot!("help_convert_onnx_bert", world.run(&["convert", "onnx-bert", "--help"]).ok());
    for (command, actions) in
        [("budgets", &["set", "list", "remove"][..]), ("prices", &["list", "set", "import", "remove"])]
    {
        for action in actions {
            let name = format!("help_{command}_{action}");
            insta::assert_snapshot!(name, world.run(&[command, action, "--help"]).ok());
        }
    }
}

#[test]
fn the_version_is_the_packages() {
    let world = World::new();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(world.run(&["version"]).ok(), format!("byzerllm {version}\n"));
    let json: serde_json::Value = serde_json::from_str(&world.run(&["version", "--json"]).ok()).unwrap();
    assert_eq!(json["version"], version);
}

#[test]
fn colour_only_when_asked_for() {
    let world = World::new();
    assert!(!world.run(&["doctor", "--port", "0"]).out.contains('\u{1b}'));
    assert!(world.run(&["doctor", "--port", "0", "--color", "always"]).out.contains('\u{1b}'));
}
