//! Usage, budgets and prices from the command line: on a state alone, and through the server that holds it.

use serde_json::Value;

use crate::harness::{World, fixture};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn budgets_and_prices_of_a_state_without_a_server() {
    let world = World::new();
    let state = world.path("state");
    let at = ["--state", state.to_str().unwrap()];
    let run = |arguments: &[&str]| world.run(&[arguments, &at].concat());
    assert!(run(&["budgets", "list"]).err.contains("No budgets at"));
    assert!(run(&["prices", "list"]).err.contains("No prices at"));
    assert!(run(&["usage"]).err.contains("Nothing was asked"));

    let set = ["prices", "set", "--vendor", "saas/openai", "--model", "gpt-4o*", "--currency", "USD"];
    let amounts = ["--input", "2.5", "--cached-input", "1.25", "--output", "10"];
    assert!(run(&[&set[..], &amounts].concat()).ok().starts_with("1 price is set at "));
    let listed = run(&["prices", "list", "--json"]).ok();
    assert_eq!(json(&listed)["prices"][0]["input"], "2.5");
    let table = run(&["prices", "list"]).ok();
    assert!(table.contains("openai") && table.contains("gpt-4o*") && table.contains("1.25"), "{table}");

    // What was listed can be imported, and takes the place of what is there.
    std::fs::write(world.path("prices.json"), listed.replace("\"10\"", "\"12\"")).unwrap();
    assert!(run(&["prices", "import", "prices.json"]).ok().starts_with("1 price is set at "));
    let again = json(&run(&["prices", "list", "--json"]).ok());
    assert_eq!((again["prices"].as_array().unwrap().len(), &again["prices"][0]["output"]), (1, &"12".into()));
    let done = world.run_with(
        &[&["prices", "import", "-"], &at[..]].concat(),
        r#"[{"vendor": "zhipu", "model": "*", "currency": "CNY", "input": 0.5, "output": "1"}]"#,
    );
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("price 1") && done.err.contains("as \"2.5\""), "{done:?}");

    let budget = ["budgets", "set", "--key", "app", "--limit", "10 USD", "--period", "month"];
    let table = run(&budget).ok();
    assert!(table.contains("key") && table.contains("10 USD") && table.contains("refused"), "{table}");
    run(&["budgets", "set", "--deployment", "chat", "--limit", "1000 tokens", "--period", "day"]).ok();
    let listed = json(&run(&["budgets", "list", "--json"]).ok());
    let budgets = listed["budgets"].as_array().unwrap();
    assert_eq!(budgets.len(), 2);
    assert_eq!((&budgets[1]["name"], &budgets[1]["left"]), (&"app".into(), &"10".into()));
    let id = budgets[1]["id"].to_string();
    assert!(run(&["budgets", "remove", &id]).ok().contains("is removed at"));
    let gone = run(&["budgets", "remove", &id]);
    assert_eq!(gone.code, 1, "{gone:?}");
    assert!(gone.err.contains("no budget") && gone.err.contains("byzerllm budgets list"), "{gone:?}");
    for wrong in [
        &["budgets", "set", "--limit", "10 USD", "--period", "month"][..],
        &["budgets", "set", "--key", "a", "--deployment", "b", "--limit", "10 USD", "--period", "month"],
        &["budgets", "set", "--key", "a", "--limit", "ten", "--period", "month"],
        &["prices", "set", "--vendor", "a", "--model", "b", "--currency", "USD", "--input", "1"],
        &["usage", "--since", "yesterday"],
        &["usage", "--by", "colour"],
    ] {
        assert_eq!(run(wrong).code, 2, "{wrong:?}");
    }
}

#[test]
fn what_a_server_did_is_shown_by_it_and_after_its_death() {
    let world = World::new();
    let state = world.path("state");
    let serving = world.serve();
    world.run(&["deploy", "--name", "chat", "--model", &fixture("llama-tied-f32")]).ok();
    let ask = ["generate", "--url", &serving.url, "--model", "chat", "--prompt", "x", "--max-tokens", "2"];
    world.run(&ask).ok();
    let table = world.run(&["usage"]).ok();
    assert!(table.starts_with("DEPLOYMENT  REQUESTS  ATTEMPTS"), "{table}");
    let report = json(&world.run(&["usage", "--by", "vendor", "--json", "--url", &serving.url]).ok());
    assert_eq!((&report["rows"][0]["name"], &report["total"]["attempts"]), (&"local".into(), &1.into()));
    assert_eq!(report["total"]["tokens"]["counted"]["completion"], 2);
    world.run(&["budgets", "set", "--deployment", "chat", "--limit", "3 tokens", "--period", "total"]).ok();
    let refused = world.run(&ask);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("the budget of deployment 'chat'"), "{refused:?}");
    serving.kill();
    let report = json(&world.run(&["usage", "--json", "--state", state.to_str().unwrap()]).ok());
    assert_eq!((&report["rows"][0]["name"], &report["total"]["attempts"]), (&"chat".into(), &1.into()));
    assert_eq!(report["since"], Value::Null);
}
