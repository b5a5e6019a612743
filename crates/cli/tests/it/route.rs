//! Several deployments behind one name, and answers that are kept, from the command line.

use serde_json::Value;

use crate::harness::{Done, World, fixture};

/// What was said by a command that ended with this code.
fn refused(done: Done, code: i32) -> String {
    assert_eq!(done.code, code, "{done:?}");
    done.err
}

#[test]
fn a_route_answers_in_the_name_of_others() {
    let world = World::new();
    let serving = world.serve();
    let model = fixture("llama-tied-f32");
    let url = serving.url.as_str();
    let deploy = |options: &[&str]| world.run(&[&["deploy", "--url", url], options].concat());
    deploy(&["--name", "a", "--model", &model]).ok();
    deploy(&["--name", "b", "--model", &model, "--set", "requests_per_minute=100"]).ok();
    let said = deploy(&["--name", "best", "--route", "a=3,b", "--set", "route.after_first=restart"]).ok();
    assert!(said.starts_with("best is ready at "), "{said}");
    let ask = |name: &str| {
        let options = ["--prompt", "hello", "--temperature", "0", "--max-tokens", "8"];
        world.run(&[&["generate", "--url", url, "--model", name], &options[..]].concat())
    };
    assert_eq!(ask("best").ok(), ask("a").ok());
    let listed: Value = serde_json::from_str(&world.run(&["list", "--url", url, "--json"]).ok()).unwrap();
    let best =
        listed["deployments"].as_array().unwrap().iter().find(|one| one["spec"]["name"] == "best").unwrap();
    assert_eq!(best["spec"]["route"]["targets"][0], serde_json::json!({"deployment": "a", "weight": 3}));
    assert_eq!(best["spec"]["route"]["fallback"]["after_first"], "restart");
    assert!(world.run(&["list", "--url", url]).ok().contains("route to a, b"));
    // The other way round it would go in a circle; a target that is not there has a neighbour.
    let said = refused(deploy(&["--name", "a", "--route", "best"]), 1);
    assert!(said.contains("lead back to itself"), "{said}");
    let said = refused(deploy(&["--name", "other", "--route", "bset"]), 1);
    assert!(said.contains("Did you mean 'best'?"), "{said}");
    refused(deploy(&["--name", "both", "--route", "a", "--model", &model]), 2);
    refused(deploy(&["--name", "bad", "--route", "a=many"]), 2);
    refused(deploy(&["--name", "bad", "--model", &model, "--set", "route.after_first=restart"]), 2);

    deploy(&["--name", "kept", "--model", &model, "--set", "answer_cache_bytes=1MiB"]).ok();
    let (first, again) = (ask("kept"), ask("kept"));
    assert!(
        !first.err.contains("an earlier request") && again.err.contains("an earlier request"),
        "{}",
        again.err
    );
    assert_eq!(first.ok(), again.ok());
}
