//! Scripts for shells, and what a real bash makes of one.

use std::process::Command;

use crate::harness::World;

#[test]
fn every_shell_has_a_script() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = world.run(&["completion", shell]).ok();
        assert!(script.contains("undeploy") && script.contains("pretrained-model-type"), "{shell}");
    }
    assert_eq!(world.run(&["completion", "cmd"]).code, 2);
}

#[test]
fn bash_completes_commands_options_and_values() {
    if Command::new("bash").arg("--version").output().is_err() {
        return;
    }
    let world = World::new();
    let script = world.path("completion.bash");
    std::fs::write(&script, world.run(&["completion", "bash"]).ok()).unwrap();
    let complete = |words: &[&str]| {
        let line = format!(
            "source '{}'; COMP_WORDS=({}); COMP_CWORD={}; _byzerllm byzerllm \"${{COMP_WORDS[COMP_CWORD]}}\" \
             \"${{COMP_WORDS[COMP_CWORD-1]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script.display(),
            words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
            words.len() - 1
        );
        let output = Command::new("bash").args(["--norc", "-c", &line]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete(&["byzerllm", "dep"]), ["deploy"]);
    assert_eq!(complete(&["byzerllm", "deploy", "--pretr"]), ["--pretrained-model-type"]);
    assert_eq!(complete(&["byzerllm", "completion", "zs"]), ["zsh"]);
    assert!(complete(&["byzerllm", "keys", ""]).contains(&"rotate".to_owned()));
}
