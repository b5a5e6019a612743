//! `byzerllm run`: what Python is started with.

use std::os::unix::fs::PermissionsExt;

use crate::harness::World;

/// A Python that shows its arguments, and has the package only when the file `package` lies beside it.
const PYTHON: &str = "#!/bin/sh
case \"$1\" in
  -c) test -f \"${0%/*}/package\" ;;
  *) echo \"$BYZERLLM_MARK\" \"$@\"; exit 5 ;;
esac
";

fn python(world: &World, directory: &str) -> String {
    let path = world.path(directory);
    std::fs::create_dir_all(&path).unwrap();
    let path = path.join("python");
    std::fs::write(&path, PYTHON).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn python_gets_the_program_and_its_arguments_as_they_are() {
    let world = World::new();
    let python = python(&world, "venv/bin");
    let run = |arguments: &[&str]| world.run(&[&["run", "--python", &python], arguments].concat());
    let missing = run(&["program.py"]);
    assert_eq!(missing.code, 1, "{missing:?}");
    assert!(missing.err.contains("has no package byzerllm"), "{missing:?}");
    std::fs::write(world.path("venv/bin/package"), "").unwrap();
    let done = run(&["program.py", "--my_flag", "-m", "--strict", "--", "a b"]);
    assert_eq!((done.code, done.out.trim()), (5, "-m byzerllm run program.py --my_flag -m --strict -- a b"));
    let done = run(&["--strict", "-m", "package"]);
    assert_eq!((done.code, done.out.trim()), (5, "-m byzerllm run --strict -m package"));

    let environment = world.path("venv");
    let mut command = world.command(&["--color", "never", "run", "program.py", "--my_flag"]);
    let done = command.env("VIRTUAL_ENV", environment).env("BYZERLLM_MARK", "found").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), "found -m byzerllm run program.py --my_flag");
}

#[test]
fn mistakes_are_told() {
    let world = World::new();
    for (arguments, message) in [
        (&["run"][..], "PROGRAM"),
        (&["run", "--stritc", "program.py"], "'--stritc' is no option"),
        (&["run", "--python", "/nowhere/python", "program.py"], "/nowhere/python cannot be run"),
    ] {
        let done = world.run(arguments);
        assert_eq!(done.code, 2, "{done:?}");
        assert!(done.err.contains(message), "{done:?}");
    }
}
