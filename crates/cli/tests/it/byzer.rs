//! The command line of Byzer-LLM: the forms its users have in their scripts.

use serde_json::Value;

use crate::harness::{Serving, World, fixture};

fn status(world: &World, serving: &Serving) -> Value {
    let text = world.run(&["list", "--url", &serving.url, "--json"]).ok();
    serde_json::from_str::<Value>(&text).unwrap()["deployments"][0].clone()
}

#[test]
fn deploy_query_stat_and_undeploy_as_before() {
    let world = World::new();
    let serving = world.serve();
    let model = fixture("llama-tied-f32");
    let form =
        ["deploy", "--model", "chat", "--pretrained_model_type", "custom/llama2", "--model_path", &model];
    let more = [
        "--gpus_per_worker",
        "4",
        "--cpus-per-worker=0",
        "--num_workers",
        "2",
        "--worker_concurrency",
        "3",
        "--infer_backend",
        "ray/vllm",
        "--ray_address",
        "auto",
        "--infer_params",
        "generation.temperature=0 max_tokens=4",
        "backend.max_model_len=64",
        "backend.gpu_memory_utilization=0.9",
    ];
    let done = world.run(&[&form[..], &more].concat());
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.out.starts_with("chat is ready at "), "{done:?}");
    for words in [
        "without effect here: backend.gpu_memory_utilization='0.9', num_gpus=4.0, infer_backend",
        "--ray-address has no effect",
    ] {
        assert_eq!(done.err.matches(words).count(), 1, "{words} in {done:?}");
    }
    let spec = &status(&world, &serving)["spec"];
    assert_eq!((&spec["name"], &spec["model"]), (&Value::from("chat"), &Value::from(model.as_str())));
    assert_eq!(spec["defaults"]["max_tokens"], 4);
    assert_eq!(spec["limits"]["concurrency"], 6);
    assert_eq!(spec["limits"]["context_length"], 64);
    assert_eq!(spec["labels"]["backend"], "ray/vllm");
    assert_eq!(spec["labels"]["without_effect"][1], "num_gpus=4.0");
    let table = world.run(&["list"]);
    assert!(table.err.contains("chat runs on byzerllm's own engine") && table.err.contains("num_gpus=4.0"));
    let strict = world.run(&[&["deploy", "--model", "strict", "--strict"], &form[3..], &more].concat());
    assert_eq!(strict.code, 1, "{strict:?}");
    assert!(strict.err.contains("num_gpus=4.0") && strict.err.contains("strict"), "{strict:?}");
    assert_eq!(world.run(&["stat", "--model", "strict"]).code, 1, "nothing was deployed");

    let wrong =
        ["deploy", "--model", "wrong", "--pretrained_model_type", "custom/qwen", "--model_path", &model];
    let wrong = world.run(&wrong);
    assert_eq!(wrong.code, 1, "{wrong:?}");
    for words in ["'custom/qwen' stands for", "LlamaForCausalLM", "write 'llama' or 'custom/auto'"] {
        assert!(wrong.err.contains(words), "{words} in {wrong:?}");
    }

    let other = fixture("qwen2-bf16");
    let again = world.run(&["deploy", "--model", "chat", "--model-path", &other]);
    assert_eq!(again.code, 0, "{again:?}");
    assert!(again.out.contains("chat is already deployed"), "{again:?}");
    assert_eq!(status(&world, &serving)["spec"]["model"], model.as_str(), "what was there stays");

    let answer = world.run(&["query", "--model", "chat", "--query", "hello"]).ok();
    let file = world.path("answer.txt");
    let file = file.to_str().unwrap();
    world.run(&["query", "--model", "chat", "--query", "hello", "--output_file", file]).ok();
    assert_eq!(std::fs::read_to_string(file).unwrap().trim_end_matches('\n'), answer.trim_end_matches('\n'));
    let raw = world.run(&["query", "--model", "chat", "--query", "hello", "--template", "empty"]).ok();
    assert_ne!(raw, answer, "without the template it is another prompt");
    let sound = world.path("answer.mp3");
    let done =
        world.run(&["query", "--model", "chat", "--query", "x", "--output_file", sound.to_str().unwrap()]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("no mp3 file in base64") && !sound.exists(), "{done:?}");

    let table = world.run(&["stat", "--model", "chat"]).ok();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1], ["chat", "ready", "0", "6", "1000"]);
    assert_eq!(world.run(&["stat", "--model", "none"]).code, 1);

    assert!(world.run(&["undeploy", "--model", "chat", "--force"]).ok().starts_with("chat is gone"));
    assert!(world.run(&["undeploy", "--model", "chat"]).ok().starts_with("chat is not deployed"));
    assert_eq!(world.run(&["undeploy", "chat"]).code, 1, "our own form says that nothing was there");
}

#[test]
fn a_file_overrides_what_is_typed_and_secrets_stay_hidden() {
    let world = World::new();
    let serving = world.serve();
    let model = fixture("llama-tied-f32");
    let file = world.path("config.yml");
    let text = "model: from_file\npretrained_model_type: custom/auto\n\
                model_path: ENV {{MODEL_HOME}}/llama-tied-f32\n\
                infer_params:\n  temperature: 0.25\n  stop: \"a b=c\"\n";
    std::fs::write(&file, text).unwrap();
    let home = std::path::Path::new(&model).parent().unwrap();
    let arguments =
        ["deploy", "--model", "typed", "--file", file.to_str().unwrap(), "--infer_params", "top_k=3"];
    let mut command = world.command(&arguments);
    let done = crate::harness::Done::new(&command.env("MODEL_HOME", home).output().unwrap());
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.err.contains("--model=from_file"), "the result is shown: {done:?}");
    let spec = &status(&world, &serving)["spec"];
    assert_eq!(spec["name"], "from_file");
    assert_eq!((&spec["defaults"]["temperature"], &spec["defaults"]["top_k"]), (&0.25.into(), &3.into()));
    assert_eq!(spec["defaults"]["stop"][0], "a b=c");

    std::fs::write(&file, "infer_params: {saas.api_key: sk-4711}\nmodel_path: /m\n").unwrap();
    let done = world.run(&[&arguments[..5], &["-v"]].concat());
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("saas.api_key=***") && !done.err.contains("4711"), "{done:?}");

    std::fs::write(&file, "modle: chat\n").unwrap();
    let done = world.run(&arguments[..5]);
    assert_eq!(done.code, 2, "{done:?}");
    assert!(done.err.contains("config.yml: there is no option 'modle' of deploy"), "{done:?}");
}

#[test]
fn what_cannot_be_deployed_is_refused_by_name() {
    let world = World::new();
    for (word, message) in [
        ("saas/opneai", "there is no vendor 'saas/opneai'; did you mean 'saas/openai'?"),
        ("custom/whisper", "'custom/whisper': transcription models are not supported"),
        ("custom/lama2", "Did you mean 'custom/llama2'?"),
    ] {
        let done = world.run(&["deploy", "--model", "a", "--pretrained_model_type", word]);
        assert_eq!(done.code, 1, "{done:?}");
        assert!(done.err.contains(message), "{done:?}");
    }
    for (arguments, message) in [
        (&["--pretrained_model_type", "custom/auto"][..], "--model-path is missing"),
        (&["--model_path", "m", "--infer_backend", "tensorrt"], "invalid infer_backend"),
        (&["--model_path", "m", "--infer_params", "temperature"], "no key=value"),
        (&["--model_path", "m", "--name", "b"], "--name"),
    ] {
        let done = world.run(&[&["deploy", "--model", "a"][..], arguments].concat());
        assert_eq!(done.code, 2, "{done:?}");
        assert!(done.err.contains(message), "{done:?}");
    }
    let done = world.run(&["query", "--model", "a", "--query", "b", "--template", "qwen"]);
    assert_eq!(done.code, 2, "{done:?}");
}

#[test]
fn serve_honours_byzer_llms_options_or_says_why_not() {
    let world = World::new();
    for (arguments, message) in [
        (&["--api_key", "sk-4711"][..], "byzerllm keys create"),
        (&["--served_model_name", "x"], "byzerllm deploy --name"),
        (&["--prompt-template", "qwen"], "chat template"),
        (&["--template", "qwen"], "chat template"),
        (&["--response-role", "robot"], "--response-role"),
        (&["--allow_credentials"], "cookies"),
        (&["--allowed-origins", r#"["*"]"#], "Name the origins"),
        (&["--allowed-origins", "*"], "no JSON list"),
        (&["--allowed_headers", r#"["x"]"#], "--allowed-headers"),
        (&["--uvicorn-log-level", "loud"], "--uvicorn-log-level"),
    ] {
        let done = world.run(&[&["serve", "--port", "0"][..], arguments].concat());
        assert_eq!(done.code, 2, "{done:?}");
        assert!(done.err.contains(message) && !done.err.contains("4711"), "{done:?}");
    }
    let serving = world.serve_with(&[
        "--uvicorn_log_level",
        "error",
        "--allowed_origins",
        r#"["https://app.example"]"#,
        "--allowed_methods",
        r#"["*"]"#,
        "--response_role",
        "assistant",
        "--template",
        "auto",
    ]);
    assert_eq!(world.run(&["list", "--url", &serving.url]).code, 0);
}
