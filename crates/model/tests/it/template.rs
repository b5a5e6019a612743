//! Chat templates against what `transformers` renders, and against templates that mean harm.

use std::time::{Duration, Instant};

use byzerllm_core::{Message, Role};
use byzerllm_model::{
    ChatTemplate, Checkpoint, Compute, SpecialTokens, TemplateError, template_from_tokenizer_config,
};
use serde_json::{Map, Value, json};

use crate::support::{copy_of, fixtures};

fn fixture(path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}")))
        .unwrap()
}

fn messages(conversation: &Value) -> Vec<Message> {
    let message = |value: &Value| {
        let mut fields: Map<String, Value> = value.as_object().unwrap().clone();
        let role = match fields.shift_remove("role").unwrap().as_str().unwrap() {
            "system" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            _ => Role::Tool,
        };
        let content = fields.shift_remove("content").unwrap();
        Message {
            role,
            content: content.as_str().unwrap_or_default().to_owned(),
            parts: Vec::new(),
            extra: fields,
        }
    };
    conversation.as_array().unwrap().iter().map(message).collect()
}

fn check_fixture(path: &str) -> usize {
    let fixture = fixture(path);
    let mut checked = 0;
    for template in fixture["templates"].as_array().unwrap() {
        let tokens = SpecialTokens::from_tokenizer_config(&template["tokens"]);
        let name = &template["name"];
        let chat = ChatTemplate::new(template["source"].as_str().unwrap(), tokens).unwrap();
        for case in template["cases"].as_array().unwrap() {
            let messages = messages(&fixture["conversations"][case["conversation"].as_str().unwrap()]);
            let tools = case["tools"].as_bool().unwrap().then(|| json!([fixture["tool"]]));
            let rendered = chat.render(&messages, tools.as_ref(), case["prompt"].as_bool().unwrap());
            let label = format!("{name} {} {} {}", case["conversation"], case["tools"], case["prompt"]);
            match (case["text"].as_str(), rendered) {
                (Some(expected), Ok(text)) => assert_eq!(text, expected, "{label}"),
                (None, Err(TemplateError::Refused { reason, .. })) => {
                    assert_eq!((&case["refused"], &case["error"]), (&json!(true), &json!(reason)), "{label}");
                }
                (None, Err(TemplateError::Failed { .. })) => assert_eq!(case["refused"], false, "{label}"),
                (_, rendered) => panic!("{label}: {rendered:?}, expected {case}"),
            }
            checked += 1;
        }
    }
    checked
}

#[test]
fn templates_render_as_in_transformers() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokenizer/templates.json");
    assert_eq!(check_fixture(path), 9 * 20);
}

#[test]
fn further_templates_render_as_in_transformers() {
    // Written by make.py's third argument; holds templates that may not be copied into the repository.
    match std::env::var("BYZERLLM_TEST_TEMPLATES") {
        Ok(path) => assert!(check_fixture(&path) > 0),
        Err(_) => println!("skipped: BYZERLLM_TEST_TEMPLATES names no fixture of further templates"),
    }
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, SpecialTokens::default())
        .unwrap_or_else(|error| panic!("{error}: {source:.100}"))
}

fn render(source: &str) -> Result<String, TemplateError> {
    template(source).render(&[Message::new(Role::User, "hello")], None, true)
}

#[test]
fn a_thousand_messages_render() {
    let fixture = fixture(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokenizer/templates.json"));
    for row in fixture["templates"].as_array().unwrap().iter().take(9) {
        if !["smollm2", "qwen2.5", "qwen3", "deepseek_v3"].contains(&row["name"].as_str().unwrap()) {
            continue;
        }
        let tokens = SpecialTokens::from_tokenizer_config(&row["tokens"]);
        let chat = ChatTemplate::new(row["source"].as_str().unwrap(), tokens).unwrap();
        let long = "长文本 with words. ".repeat(200);
        let turn = |index: usize| {
            let role = if index.is_multiple_of(2) { Role::User } else { Role::Assistant };
            Message::new(role, format!("{index} {long}"))
        };
        let conversation: Vec<Message> = (0..1_000).map(turn).collect();
        let text =
            chat.render(&conversation, None, true).unwrap_or_else(|error| panic!("{}: {error}", row["name"]));
        assert!(text.len() > 1_000 * long.len(), "{}", row["name"]);
    }
}

#[test]
fn errors_name_the_line() {
    let syntax = ChatTemplate::new("a\nb\n{% if %}", SpecialTokens::default()).unwrap_err();
    assert!(matches!(syntax, TemplateError::Syntax { line: 3, .. }), "{syntax}");
    for source in ["\n{%}", "\n{%}%}", "\n{%generation%}{%}", "\n{%"] {
        let syntax = ChatTemplate::new(source, SpecialTokens::default()).unwrap_err();
        assert!(matches!(syntax, TemplateError::Syntax { line: 2, .. }), "{source:?}: {syntax}");
    }
    let refused = render("a\n\n{{ raise_exception('only\ntools') }}").unwrap_err();
    assert_eq!(refused, TemplateError::Refused { line: 3, reason: "only\ntools".to_owned() });
    let failed = render("\n{{ messages[0].content + 1 }}").unwrap_err();
    assert!(matches!(failed, TemplateError::Failed { line: 2, .. }), "{failed}");
    let unknown = render("\n\n\n{{ 1|no_such_filter }}").unwrap_err();
    assert!(matches!(unknown, TemplateError::Failed { line: 4, .. }), "{unknown}");
    let include = render("{% include 'x' %}").unwrap_err();
    assert!(matches!(include, TemplateError::Failed { line: 1, .. }), "{include}");
}

/// Runs a template and returns what came of it, in bounded time.
fn attempt(source: &str) -> Result<String, TemplateError> {
    let start = Instant::now();
    let outcome = ChatTemplate::new(source, SpecialTokens::default())
        .and_then(|template| template.render(&[Message::new(Role::User, "hello")], None, true));
    let elapsed = start.elapsed();
    // Generous: a debug build on a busy machine. Without limits these take hours or the machine's memory.
    assert!(elapsed < Duration::from_secs(300), "{source:.200}: {elapsed:?}");
    outcome
}

/// Each of these asks for far more memory or time than a template may have.
#[test]
fn greedy_templates_are_stopped() {
    let doubling = |step: &str| {
        format!(
            "{{% set ns = namespace(x='abcdefgh', l=[1]) %}}{{% for i in range(64) %}}{step}{{% endfor %}}"
        )
    };
    let loops = |body: &str| {
        format!(
            "{{% for a in range(10000) %}}{{% for b in range(10000) %}}{{% for c in range(10000) %}}{body}{{% endfor \
             %}}{{% endfor %}}{{% endfor %}}"
        )
    };
    let sources = [
        "{% for i in range(10**9) %}x{% endfor %}".to_owned(),
        "{{ 'x' * 10**9 }}".to_owned(),
        "{{ 'x' * 1000000000 }}".to_owned(),
        "{% set n = messages|length * 90000000 %}{{ 'x' * n }}".to_owned(),
        "{% set n = messages|length * 90000000 %}{{ ([1] * n)|length }}".to_owned(),
        "{% set n = messages|length * 90000000 %}{{ ((1,) * n)|length }}".to_owned(),
        "{{ (1,) * 99999999 }}".to_owned(),
        doubling("{% set ns.x = ns.x ~ ns.x %}"),
        doubling("{% set ns.x = ns.x + ns.x %}"),
        doubling("{% set ns.l = ns.l + ns.l %}"),
        doubling("{% set ns.x = ns.x|replace('a', ns.x) %}"),
        doubling("{% set ns.x = ns.x.replace('', ns.x) %}"),
        doubling("{% set ns.x = [ns.x, ns.x]|join(ns.x) %}"),
        doubling("{% set ns.x = ns.x.join([ns.x, ns.x]) %}"),
        doubling("{% set t %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = t %}"),
        doubling("{% set ns.l = [ns.l, ns.l] %}") + "{{ ns.l }}",
        doubling("{% set ns.l = {'a': ns.l, 'b': ns.l} %}") + "{{ ns.l|tojson }}",
        doubling("{% set ns.l = dict(a=ns.l, b=ns.l) %}") + "{{ ns.l == ns.l }}",
        doubling("{% set ns.x = '%s%s'|format(ns.x, ns.x) %}"),
        doubling("{% set ns.x = '{0}{0}'.format(ns.x) %}"),
        "{{ '%999999999d'|format(1) }}".to_owned(),
        "{{ '{:>999999999}'.format('x') }}".to_owned(),
        "{{ 'a\nb'|indent(999999999) }}".to_owned(),
        "{{ [1]|batch(999999999, 'x')|list }}".to_owned(),
        "{{ [1]|slice(999999999)|list }}".to_owned(),
        "{{ [[1]]|tojson(indent=999999999) }}".to_owned(),
        loops(""),
        loops("{{ messages }}"),
        loops(&"text ".repeat(20_000)),
        format!("{{% set t %}}{}{{% endset %}}", loops(&"text ".repeat(20_000))),
        loops("{% if messages[0].content in messages %}{% endif %}"),
        format!("{{% set x = 'ab' * 500000 %}}{}", loops("{% if (x ~ 'c') == (x ~ 'd') %}{% endif %}")),
        format!("{{% set x = 'ab' * 500000 %}}{}", loops("{% if 'c' in x %}{% endif %}")),
        format!("{{% set x = 'ab' * 500000 %}}{}", loops("{{ x|length }}{{ x.count('b') }}")),
    ];
    for source in &sources {
        let outcome = attempt(source);
        assert!(matches!(outcome, Err(TemplateError::Limit { .. })), "{source:.200}: {outcome:.200?}");
    }
}

/// Each of these would overflow the stack of a naive parser, compiler, renderer or destructor. Most are refused; what
/// is accepted must end.
#[test]
fn deep_templates_do_not_overflow_the_stack() {
    let sources = [
        "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}".to_owned(),
        "{% macro m(n) %}{{ m(n + 1) }}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}".to_owned(),
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}".to_owned(),
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}".to_owned(),
        "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns|tojson }}".to_owned(),
        "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}{% endfor %}".to_owned(),
        "{% set ns = namespace(l=[1]) %}{% for i in range(9999) %}{% set ns.l = ns.l|batch(1) %}{% endfor %}".to_owned(),
        "{% set ns = namespace(t=namespace()) %}{% for i in range(9999) %}{% set n = namespace() %}{% set n.x = ns.t \
         %}{% set ns.t = n %}{% endfor %}"
            .to_owned(),
        format!("{{{{ 'x'{} }}}}", " ~ 'x'".repeat(40_000)),
        format!("{{{{ x{} }}}}", ".x".repeat(100_000)),
        format!("{{{{ x{} }}}}", "|upper".repeat(30_000)),
        format!("{{{{ {}1{} }}}}", "(".repeat(50_000), ")".repeat(50_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(50_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(50_000)),
        format!("{{{{ {}{} }}}}", "[".repeat(50_000), "]".repeat(50_000)),
        "{% if 1 %}".repeat(20_000),
        format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 1 %}".repeat(20_000)),
        format!("{{% if 0 %}}{}{{% endif %}}", "{% else %}{% if 0 %}".repeat(10_000)),
        format!("{{{{ {}1 }}}}", "1 if 0 else ".repeat(20_000)),
        "x".repeat(1 << 20),
    ];
    for source in &sources {
        drop(attempt(source));
    }
    let nested = attempt("{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}\n{{ m(0) }}").unwrap_err();
    assert!(matches!(nested, TemplateError::Failed { .. }), "{nested}");
}

#[test]
fn a_huge_loop_fails_at_once() {
    let start = Instant::now();
    let outcome = render("{% for i in range(10**9) %}x{% endfor %}");
    assert!(outcome.is_err() && start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
}

#[test]
fn modest_repetition_works() {
    assert_eq!(
        render("{% for n in range(3) %}{{ '=' * n }}{{ '-' * 3 }}{% endfor %}").unwrap(),
        "---=---==---"
    );
    assert_eq!(render("{{ messages|length * 1000000 }}").unwrap(), "1000000");
}

#[test]
fn extra_fields_and_variables_reach_the_template() {
    let mut message = Message::new(Role::Assistant, "text");
    message.extra.insert("name".to_owned(), json!("bob"));
    message.extra.insert("role".to_owned(), json!("system"));
    message.extra.insert("tool_calls".to_owned(), json!([{"id": 1, "z": 1, "a": 2}]));
    let chat = template(
        "{{ messages[0].role }} {{ messages[0].name }} {{ messages[0].tool_calls|tojson }} {{ flag }}",
    );
    let variables = json!({"flag": false}).as_object().unwrap().clone();
    let text = chat.render_with(&[message], &variables).unwrap();
    assert_eq!(text, r#"assistant bob [{"id": 1, "z": 1, "a": 2}] False"#);
    assert_eq!(chat.source().chars().next(), Some('{'));
}

#[test]
fn dates_have_the_form_that_is_asked_for() {
    let text = render("{{ strftime_now('%Y-%m-%d') }}").unwrap();
    let parts: Vec<u32> = text.split('-').map(|part| part.parse().unwrap()).collect();
    assert!(parts[0] >= 2024 && (1..=12).contains(&parts[1]) && (1..=31).contains(&parts[2]), "{text}");
}

#[test]
fn templates_are_found_in_tokenizer_configs() {
    let named = |names: &[&str]| {
        let list: Vec<Value> =
            names.iter().map(|name| json!({"name": name, "template": format!("T{name}")})).collect();
        template_from_tokenizer_config(&json!({ "chat_template": list }))
    };
    assert_eq!(template_from_tokenizer_config(&json!({"chat_template": "x"})).as_deref(), Some("x"));
    assert_eq!(named(&["rag", "tool_use", "default"]).as_deref(), Some("Tdefault"));
    assert_eq!(named(&["rag", "tool_use"]).as_deref(), Some("Ttool_use"));
    assert_eq!(named(&["rag"]), None);
    for wrong in
        [json!({}), json!({"chat_template": 1}), json!({"chat_template": [1, {"name": "default"}]}), json!(1)]
    {
        assert_eq!(template_from_tokenizer_config(&wrong), None, "{wrong}");
    }
    let config = json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": null, "unk_token": {"x": 1}});
    let expected =
        SpecialTokens { bos: Some("<s>".into()), eos: Some("</s>".into()), ..SpecialTokens::default() };
    assert_eq!(SpecialTokens::from_tokenizer_config(&config), expected);
}

/// A fixture without its template, and with other words in its `config.json`.
fn without_template(fixture: &str, words: &Value) -> tempfile::TempDir {
    let copy = copy_of(fixture);
    let read = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(copy.path().join(name)).unwrap()).unwrap()
    };
    let (mut tokenizer, mut config) = (read("tokenizer_config.json"), read("config.json"));
    tokenizer.as_object_mut().unwrap().remove("chat_template");
    config.as_object_mut().unwrap().extend(words.as_object().unwrap().clone());
    std::fs::write(copy.path().join("tokenizer_config.json"), tokenizer.to_string()).unwrap();
    std::fs::write(copy.path().join("config.json"), config.to_string()).unwrap();
    copy
}

#[test]
fn a_checkpoint_without_a_template_has_its_familys_format() {
    let dolly = serde_json::json!({"custom_pipelines": {"text-generation": {
        "impl": "instruct_pipeline.InstructionTextGenerationPipeline", "pt": "AutoModelForCausalLM"}}});
    let named = |name: &str| serde_json::json!({"_name_or_path": name});
    let nothing = serde_json::json!({});
    for (fixture, words, expected) in [
        ("baichuan2-7b-f16", &named("baichuan-inc/Baichuan2-7B-Chat"), Some("baichuan2")),
        ("baichuan-13b-bf16", &named("baichuan-inc/Baichuan-13B-Chat"), Some("baichuan")),
        // Base models have the class of the chat models, and the first 7B model had no other.
        ("baichuan2-7b-f16", &nothing, None),
        ("baichuan-13b-bf16", &named("baichuan-inc/Baichuan-13B-Base"), None),
        ("baichuan-7b-bf16", &named("chat"), None),
        ("qwen-bf16", &nothing, Some("qwen")),
        ("moss-bf16", &nothing, Some("moss")),
        ("codegen-f16", &nothing, None),
        ("gpt-neox-f16", &nothing, None),
        ("gpt-neox-f16", &dolly, Some("dolly")),
        ("llama-tied-f32", &named("lmsys/vicuna-7b-v1.5"), Some("vicuna")),
        ("llama-tied-f32", &named("meta-llama/Llama-2-7b-chat-hf"), Some("llama2")),
        ("llama-tied-f32", &named("meta-llama/Llama-2-7b-hf"), None),
    ] {
        let directory = without_template(fixture, words);
        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        let info = checkpoint.info(Compute::Fast);
        let found = info.details.get("prompt_format").and_then(Value::as_str);
        assert_eq!(found, expected, "{fixture}");
        assert_eq!(info.chat_template, expected.is_some(), "{fixture}");
        assert_eq!(checkpoint.chat_template().unwrap().is_some(), expected.is_some(), "{fixture}");
    }
    // Baichuan's chat models name the tokens before questions and answers.
    let directory = without_template("baichuan2-7b-f16", &nothing);
    let turns = serde_json::json!({"user_token_id": 195, "assistant_token_id": 196}).to_string();
    std::fs::write(directory.path().join("generation_config.json"), turns).unwrap();
    assert!(Checkpoint::open(directory.path()).unwrap().chat_template().unwrap().is_some());
    // The checkpoint's own template goes first, and nothing is said of another.
    let own = Checkpoint::open(&fixtures().join("qwen-bf16")).unwrap();
    assert!(!own.info(Compute::Fast).details.contains_key("prompt_format"));
    assert!(!own.chat_template().unwrap().unwrap().source().contains("helpful assistant"));
}
