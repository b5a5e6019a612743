//! The crates depend on each other in one direction only. ARCHITECTURE.md draws the picture; a new edge is added here
//! and there together, with its reason.

use std::collections::BTreeMap;
use std::path::Path;

/// Every allowed edge between crates of the workspace.
const ALLOWED: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("kernels", &[]),
    ("model", &["core", "kernels"]),
    ("engine", &["core", "kernels", "model"]),
    ("providers", &["client", "core"]),
    ("simulator", &["core"]),
    ("runtime", &["core", "engine", "kernels", "model", "providers"]),
    ("server", &["core", "runtime"]),
    ("client", &["core"]),
    ("hub", &["core"]),
    ("sandbox", &[]),
    (
        "cli",
        &[
            "client",
            "core",
            "engine",
            "hub",
            "kernels",
            "model",
            "providers",
            "runtime",
            "server",
            "simulator",
        ],
    ),
    ("python", &["cli", "client", "core", "runtime", "sandbox"]),
];

/// The crates of ours named in the `[dependencies]` of a manifest.
fn dependencies(manifest: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(manifest).unwrap();
    let mut inside = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') {
            inside = line.trim() == "[dependencies]";
        } else if inside && let Some(rest) = line.strip_prefix("byzerllm-") {
            found.push(rest.split(['.', ' ', '=']).next().unwrap().to_owned());
        }
    }
    found
}

#[test]
fn crates_depend_in_one_direction() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let mut manifests: Vec<_> = std::fs::read_dir(root.join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("Cargo.toml").exists())
        .collect();
    manifests.push(root.join("python"));
    assert_eq!(manifests.len(), ALLOWED.len(), "a crate is missing from the table of this test");
    for path in manifests {
        let name = path.file_name().unwrap().to_str().unwrap();
        let expected = allowed.get(name).unwrap_or_else(|| panic!("crate {name} is missing from the table"));
        for dependency in dependencies(&path.join("Cargo.toml")) {
            assert!(expected.contains(&dependency.as_str()), "{name} must not depend on {dependency}");
        }
    }
}
