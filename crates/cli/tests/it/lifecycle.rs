//! A deployment's life, through the forms that scripts use.

use serde_json::Value;

use crate::harness::{Serving, World, fixture};

fn list(world: &World, serving: &Serving) -> Vec<Value> {
    let text = world.run(&["list", "--url", &serving.url, "--json"]).ok();
    let answer: Value = serde_json::from_str(&text).unwrap();
    answer["deployments"].as_array().unwrap().clone()
}

fn ask(world: &World, serving: &Serving) -> String {
    let arguments = [
        "generate",
        "--url",
        &serving.url,
        "--model",
        "chat",
        "--prompt",
        "hello",
        "--temperature",
        "0",
        "--max-tokens",
        "8",
    ];
    world.run(&arguments).ok()
}

#[test]
fn a_deployment_survives_kill_9() {
    let world = World::new();
    let first = world.serve();
    let model = fixture("llama-tied-f32");
    let arguments =
        ["deploy", "--name", "chat", "--model", &model, "--url", &first.url, "--compute", "exact"];
    let said = world.run(&[&arguments[..], &["--set", "temperature=0.5"]].concat()).ok();
    assert!(said.starts_with("chat is ready at "), "{said}");
    let before = ask(&world, &first);
    first.kill();

    let second = world.serve();
    let status = loop {
        let listed = list(&world, &second);
        assert_eq!(listed.len(), 1);
        match listed[0]["state"].as_str().unwrap() {
            "loading" => continue,
            "ready" => break listed[0].clone(),
            other => panic!("came back as {other}: {listed:?}"),
        }
    };
    assert_eq!(status["spec"]["compute"], "exact");
    let info = &status["info"];
    assert!(info["compute"].as_str().unwrap().starts_with("exact f32:f32x32 f32 "), "{info}");
    assert_eq!(info["details"]["compute_mode"], "exact");
    assert_eq!(
        (&info["details"]["weights"]["F32"], &info["details"]["cache_type"]),
        (&"f32".into(), &"f32".into())
    );
    assert_eq!(status["spec"]["defaults"]["temperature"], 0.5);
    assert_eq!(ask(&world, &second), before, "same model, same greedy answer");
    assert_eq!(second.signal("INT"), Some(0), "the first Ctrl-C drains and ends well");
}

#[test]
fn deploy_replace_and_undeploy() {
    let world = World::new();
    let serving = world.serve();
    // Without --url the user's own server is found.
    let model = fixture("llama-tied-f32");
    world.run(&["deploy", "--name", "chat", "--model", &model]).ok();
    let table = world.run(&["list"]).ok();
    assert!(table.starts_with("NAME") && table.contains("ready") && table.contains(&model), "{table}");
    let other = fixture("qwen2-bf16");
    let text =
        world.run(&["deploy", "--name", "chat", "--model", &other, "--compute", "fast", "--json"]).ok();
    let status: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (status["spec"]["model"].as_str(), status["state"].as_str()),
        (Some(other.as_str()), Some("ready"))
    );

    let missing = world.path("missing.gguf");
    let done = world.run(&["deploy", "--name", "chat", "--model", missing.to_str().unwrap()]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("missing.gguf"), "{done:?}");
    assert_eq!(
        list(&world, &serving)[0]["spec"]["model"],
        other,
        "a failed replacement keeps what was there"
    );

    let text = world.run(&["inspect", "chat", "--json"]).ok();
    let inspection: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(inspection["path"], other);
    // The path in use, not that of a deployment with default options.
    assert!(inspection["info"]["compute"].as_str().unwrap().starts_with("fast "), "{inspection}");
    assert_eq!(inspection["info"]["details"]["cache_type"], "i8");

    assert!(world.run(&["undeploy", "chat", "--url", &serving.url]).ok().starts_with("chat is gone"));
    assert_eq!(list(&world, &serving), Vec::<Value>::new());
    let again = world.run(&["undeploy", "chat"]);
    assert_eq!(again.code, 1, "{again:?}");
    assert_eq!(serving.signal("TERM"), Some(0));
}

#[test]
fn a_conversation_through_a_server() {
    let world = World::new();
    let serving = world.serve();
    world.run(&["deploy", "--name", "chat", "--model", &fixture("llama-tied-f32")]).ok();
    let input = "/set temperature=0\n/set max_tokens=4\nhello\n/clear\nhello\n/nonsense\n";
    let done = world.run_with(&["chat", "--url", &serving.url], input);
    assert_eq!(done.code, 2, "an unknown command ends a script: {done:?}");
    assert!(done.err.contains("there is no /nonsense"), "{done:?}");
    let half = done.out.len() / 2;
    assert!(half > 0 && done.out[..half] == done.out[half..], "greedy answers repeat after /clear: {done:?}");
    assert_eq!(world.run_with(&["chat"], "hello\n/quit\nnever read\n").code, 0);
}

#[test]
fn a_server_is_measured_through_its_api() {
    let world = World::new();
    let serving = world.serve();
    world.run(&["deploy", "--name", "chat", "--model", &fixture("llama-tied-f32")]).ok();
    let arguments = [
        "bench",
        "--url",
        &serving.url,
        "--model",
        "chat",
        "--prompt-tokens",
        "16",
        "--decode-prompt-tokens",
        "16",
        "--decode-tokens",
        "64",
        "--streams",
        "1,2",
        "--repeat",
        "1",
        "--json",
    ];
    let report: Value = serde_json::from_str(&world.run(&arguments).ok()).unwrap();
    assert!(report["prefill_tokens_per_second"].as_f64().unwrap() > 0.0, "{report}");
    assert_eq!(report["decode"][1]["streams"], 2);
    assert!(report["decode"][1]["tokens_per_second"].as_f64().unwrap() > 0.0, "{report}");
}
