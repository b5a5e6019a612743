//! Calls of every format, whole and in pieces, and the grammars that enforce them.

use byzerllm_core::{ChatRequest, Input, Message, Role, ToolChoice};
use llguidance::ParserFactory;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::*;
use crate::constraint::{Constraint, Limits};

const HERMES: &str = "{% if tools %}<tool_call>{% endif %}";
const LLAMA: &str = "{% if tools %}<|python_tag|>{% endif %}";
const MISTRAL: &str = "{% if tools %}[TOOL_CALLS]{% endif %}";

fn reading(template: &str, prompt: &str) -> Reading {
    let tools: Arc<[String]> = ["weather".to_owned(), "add".to_owned()].into();
    Reading::new(template, prompt, Format::of(template).map(|format| (format, tools)))
}

/// Neighbours of one kind as one part.
fn joined(parts: Vec<Part>) -> Vec<Part> {
    let mut all = Vec::new();
    for part in parts {
        match (all.last_mut(), &part) {
            (Some(Part::Text(text)), Part::Text(more))
            | (Some(Part::Reasoning(text)), Part::Reasoning(more)) => {
                text.push_str(more);
            }
            (Some(Part::Arguments { text, index }), Part::Arguments { text: more, index: same })
                if index == same =>
            {
                text.push_str(more);
            }
            _ => all.push(part),
        }
    }
    all
}

fn read(reading: &Reading, pieces: &[&str], cut: bool) -> (Vec<Part>, bool) {
    let mut reader = reading.reader().unwrap();
    let mut parts: Vec<Part> = pieces.iter().flat_map(|piece| reader.push(piece)).collect();
    parts.extend(reader.finish(cut));
    let called = reader.called();
    (joined(parts), called)
}

fn parts(template: &str, text: &str) -> (Vec<Part>, bool) {
    read(&reading(template, ""), &[text], false)
}

fn text(text: &str) -> Part {
    Part::Text(text.to_owned())
}

fn call(index: u32, name: &str, arguments: &str) -> [Part; 2] {
    [Part::Start { index, name: name.to_owned() }, Part::Arguments { index, text: arguments.to_owned() }]
}

fn broke(reason: &str, sent: bool) -> Part {
    Part::Broken { reason: reason.to_owned(), sent }
}

#[test]
fn the_rest_of_a_roles_line_is_no_part_of_an_answer() {
    let glm = "{{ '[gMASK]sop' }}{{ '<|' ~ role ~ '|>\n ' ~ message.content }}";
    for pieces in [&["\n 你好，\n", " 世界 "][..], &["\n", " ", "你好，", "\n 世界 "], &["你好，\n 世界 "]]
    {
        assert_eq!(read(&reading(glm, ""), pieces, false).0, [text("你好，\n 世界 ")]);
    }
    assert_eq!(read(&reading(glm, ""), &["\n", " "], false).0, []);
    assert_eq!(parts(HERMES, "\n Hello").0, [text("\n Hello")], "other families mean it");
}

#[test]
fn templates_say_which_format_they_speak() {
    let name = |template: &str| Format::of(template).map(|format| format.name);
    assert_eq!(name(HERMES), Some("hermes"));
    assert_eq!(name(LLAMA), Some("llama"));
    assert_eq!(name(MISTRAL), Some("mistral"));
    assert_eq!(
        name(r#"Respond in the format {"name": function name, "parameters": dictionary}"#),
        Some("llama")
    );
    assert_eq!(name("{{ messages }}"), None);
    assert_eq!(name("<tool_call><function=f>"), None);
    assert_eq!(name("[TOOL_CALLS]f[ARGS]{}"), None);
}

#[test]
fn hermes_calls() {
    let answer = "Let me see.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>\n\
                  <tool_call>{\"arguments\": {\"a\": [1, {}]}, \"name\": \"add\"}</tool_call>\n";
    let mut want = vec![text("Let me see.")];
    want.extend(call(0, "weather", r#"{"city": "Paris"}"#));
    want.extend(call(1, "add", r#"{"a": [1, {}]}"#));
    assert_eq!(parts(HERMES, answer), (want, true));

    let plain = "No call: a < b, <tool_cal, </tool_call> and {\"name\": 1}. \n";
    assert_eq!(parts(HERMES, plain), (vec![text(plain)], false));
    let nothing = r#"<tool_call>{"name": "add"}"#;
    assert_eq!(parts(HERMES, nothing), (call(0, "add", "{}").to_vec(), true));
    let quoted = r#"<tool_call>{"name": "add", "arguments": "{\"a\": \"\\n\"}"}</tool_call>"#;
    assert_eq!(parts(HERMES, quoted), (call(0, "add", r#"{"a": "\n"}"#).to_vec(), true));
}

#[test]
fn what_is_no_call_is_text_and_reported() {
    for (answer, reason) in [
        (r#"<tool_call>{"name": "rm", "arguments": {}}</tool_call>"#, "there is no tool 'rm'"),
        (r#"<tool_call>{"name": "add", "arguments": 5}</tool_call>"#, "its arguments are not an object"),
        (r#"<tool_call>{"name": "add", "arguments": "5"}</tool_call>"#, "its arguments are not an object"),
        (r#"<tool_call>{"name": 5}</tool_call>"#, "its name is not a text"),
        (r#"<tool_call>{"arguments": {}}</tool_call>"#, "it has no name"),
        (r#"<tool_call>{"name": "add" "x"}</tool_call>"#, "it is not valid JSON"),
        (r#"<tool_call>{"name": "add", "name": "add"}</tool_call>"#, "it has 'name' twice"),
        ("<tool_call>add(1, 2)</tool_call>", "it is not valid JSON"),
        (r#"<tool_call>{"name": "add", "#, "the answer ends within it"),
    ] {
        let (got, called) = parts(HERMES, answer);
        assert!(!called, "{answer}");
        let said: String = got
            .iter()
            .filter_map(|part| if let Part::Text(text) = part { Some(text.as_str()) } else { None })
            .collect();
        assert_eq!(said, answer);
        assert!(got.contains(&broke(reason, false)), "{answer}: {got:?}");
        assert!(!got.iter().any(|part| matches!(part, Part::Start { .. })), "{answer}");
    }
    // A good call beside a bad one stays good.
    let (got, called) = parts(HERMES, r#"<tool_call>{</tool_call> <tool_call>{"name": "add"}</tool_call>"#);
    assert!(called);
    assert_eq!(got[2..], [&[text("</tool_call>")][..], &call(0, "add", "{}")].concat());
}

#[test]
fn a_call_that_breaks_while_it_is_sent_is_fatal_unless_the_limit_cut_it() {
    let (got, called) = parts(HERMES, r#"<tool_call>{"name": "add", "arguments": {"a": oops"#);
    assert!(!called && got.contains(&broke("it is not valid JSON", true)), "{got:?}");
    let open = r#"<tool_call>{"name": "add", "arguments": {"a": 1}"#;
    let (got, called) = parts(HERMES, open);
    assert!(!called && got.contains(&broke("the answer ends within it", true)), "{got:?}");
    let (got, called) = read(&reading(HERMES, ""), &[open], true);
    assert_eq!((got, called), (call(0, "add", r#"{"a": 1}"#).to_vec(), false));
}

#[test]
fn llama_calls() {
    for answer in [
        r#"{"name": "add", "parameters": {"a": 1}}"#,
        "\n <|python_tag|> {\"type\": \"function\", \"name\": \"add\", \"parameters\": {\"a\": 1}}\n",
    ] {
        assert_eq!(parts(LLAMA, answer), (call(0, "add", r#"{"a": 1}"#).to_vec(), true), "{answer}");
    }
    let two = r#"<|python_tag|>{"name": "add", "parameters": {}}; {"name": "weather", "arguments": {}}"#;
    assert_eq!(parts(LLAMA, two).0, [call(0, "add", "{}"), call(1, "weather", "{}")].concat());
    // JSON is an answer like any other, until it says to be a call.
    for answer in ["Here: {\"name\": \"add\"}", r#"{"city": "Paris"} is it"#, "{x}", r#"{"a"#] {
        assert_eq!(parts(LLAMA, answer), (vec![text(answer)], false), "{answer}");
    }
    let (got, called) = parts(LLAMA, r#"{"name": "rm", "parameters": {}}"#);
    assert!(!called && got.contains(&broke("there is no tool 'rm'", false)), "{got:?}");
    let (got, _) = parts(LLAMA, "<|python_tag|>print(1)");
    assert_eq!(got, [broke("no JSON object follows the marker", false), text("<|python_tag|>print(1)")]);
}

#[test]
fn mistral_calls() {
    let answer = r#"Wait. [TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}, "id": "x"}, {"name": "weather", "arguments": {}}] "#;
    let mut want = vec![text("Wait.")];
    want.extend(call(0, "add", r#"{"a": 1}"#));
    want.extend(call(1, "weather", "{}"));
    assert_eq!(parts(MISTRAL, answer), (want, true));
    let (got, called) = parts(MISTRAL, r#"[TOOL_CALLS]{"name": "add"}"#);
    assert!(!called);
    assert_eq!(got[0], text("[TOOL_CALLS]"));
    assert_eq!(got[1], broke("the list of calls is not valid JSON", false));
    assert!(parts(MISTRAL, r#"[TOOL_CALLS][{"name": "add"}"#).1, "a list without its end");
    assert_eq!(parts(MISTRAL, "a [TOOL] b[").0, [text("a [TOOL] b[")]);
    assert_eq!(Format::of(MISTRAL).unwrap().id().len(), 9);
}

#[test]
fn reasoning_is_apart() {
    let thinking = "{% if tools %}<tool_call>{% endif %}<think>";
    let answer = "<think>\nWell, a <b>.\n</think>\n\nYes.";
    let want = vec![Part::Reasoning("Well, a <b>.".to_owned()), text("Yes.")];
    assert_eq!(parts(thinking, answer).0, want);
    assert_eq!(read(&reading("<think>", "x<think>\n"), &["Well, a <b>.\n</think>\n\nYes."], false).0, want);
    assert_eq!(read(&reading("<think>", "x"), &["No. <think>"], false).0, [text("No. <think>")]);
    let (got, called) =
        parts(thinking, "<think>x<tool_call></think>\n<tool_call>{\"name\": \"add\"}</tool_call>");
    assert!(called);
    assert_eq!(got, [&[Part::Reasoning("x<tool_call>".to_owned())][..], &call(0, "add", "{}")].concat());
    assert_eq!(
        read(&reading("<think>", ""), &["<think>\n on and"], true).0,
        [Part::Reasoning("on and".to_owned())]
    );
}

fn fragment() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &[
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<|python_tag|>",
        "[TOOL_CALLS]",
        "[",
        "]",
        "{",
        "}",
        "\"",
        "{\"name\": \"add\"",
        ", \"arguments\": {\"a\": 1}}",
        "{\"name\": \"weather\", \"parameters\": {\"ü\": \"\\u00fc\"}}",
        "{\"name\": \"rm\"}",
        ";",
        ",",
        " ",
        "\n",
        "text",
        "<",
        "日本",
        "\\",
        "<tool_",
        "<|py",
    ];
    prop_oneof![proptest::sample::select(WORDS).prop_map(str::to_owned), "[a-z<\\[{\" ]{0,4}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn pieces_make_no_difference(
        single: bool,
        fragments in proptest::collection::vec(fragment(), 0..12),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        template in proptest::sample::select(&[HERMES, LLAMA, MISTRAL, "<think><tool_call>", "<think>"][..]),
        inside: bool,
        cut: bool,
    ) {
        let answer = fragments.concat();
        let reading = reading(template, if inside { "<think>\n" } else { "" }).with_single_call(single);
        let whole = read(&reading, &[&answer], cut);
        let mut places: Vec<usize> = cuts.iter().map(|index| index.index(answer.len() + 1)).collect();
        places.extend([0, answer.len()]);
        places.retain(|&place| answer.is_char_boundary(place));
        places.sort_unstable();
        let pieces: Vec<&str> = places.windows(2).map(|pair| &answer[pair[0]..pair[1]]).collect();
        prop_assert_eq!(&read(&reading, &pieces, cut), &whole);
        let characters: Vec<String> = answer.chars().map(String::from).collect();
        let characters: Vec<&str> = characters.iter().map(String::as_str).collect();
        prop_assert_eq!(&read(&reading, &characters, cut), &whole);

        // What is passed on as calls is valid, and nothing is lost or doubled where there are none.
        let (parts, called) = whole;
        let mut said = String::new();
        for part in &parts {
            match part {
                Part::Arguments { text, .. } if called => {
                    let parsed = serde_json::from_str::<serde_json::Map<String, Value>>(text);
                    prop_assert!(parsed.is_ok(), "{text}");
                }
                Part::Start { name, .. } => prop_assert!(name == "add" || name == "weather"),
                Part::Text(text) => said.push_str(text),
                _ => {}
            }
        }
        let calls = parts.iter().filter(|part| matches!(part, Part::Start { .. })).count();
        prop_assert!(!(single && called && calls > 1));
        let sent = parts.iter().any(|part| matches!(part, Part::Start { .. } | Part::Reasoning(_)));
        if !sent && !template.contains("think") {
            prop_assert_eq!(said, answer);
        }
    }
}

#[test]
fn the_first_call_ends_an_answer_that_may_have_one() {
    let two = r#"<tool_call>{"name": "add"}</tool_call><tool_call>{"name": "weather"}</tool_call> and text"#;
    let single = reading(HERMES, "").with_single_call(true);
    assert_eq!(read(&single, &[two], false), (call(0, "add", "{}").to_vec(), true));
    // What turned out to be no call ends nothing.
    let answer = r#"<tool_call>{"name": "rm"}</tool_call><tool_call>{"name": "add"}</tool_call>..."#;
    let (parts, called) = read(&single, &[answer], false);
    assert!(called && parts.ends_with(&call(0, "add", "{}")), "{parts:?}");
}

/// The special token of the vocabulary below.
const MARKER: u32 = 256;

/// Bytes, a special token and an end.
fn factory(marker: &str) -> ParserFactory {
    let mut words: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
    words.push([&[TokTrie::SPECIAL_TOKEN_MARKER], marker.as_bytes()].concat());
    words.push(vec![TokTrie::SPECIAL_TOKEN_MARKER, b'e']);
    let trie = TokTrie::from(&TokRxInfo::new(258, 257), &words).with_eos_tokens(&[257]);
    let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let slices = SlicedBiasComputer::json_slices();
    let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices).unwrap();
    *factory.limits_mut() = Limits::default().parser;
    factory.quiet();
    factory
}

fn asking(choice: ToolChoice, parallel: bool) -> ChatRequest {
    let city = json!({"type": "object", "properties": {"city": {"enum": ["Rom", "Łódź"]}}, "required": ["city"],
        "additionalProperties": false});
    let tool = |name: &str, parameters, strict| Tool {
        name: name.to_owned(),
        description: None,
        parameters: Some(parameters),
        strict,
    };
    ChatRequest {
        tools: vec![tool("weather", city.clone(), true), tool("add", city, false)],
        tool_choice: choice,
        parallel_tool_calls: parallel,
        ..ChatRequest::new("m", Input::Messages(vec![Message::new(Role::User, "x")]))
    }
}

/// Where an answer stands: its text so far, and what may follow.
struct Walk {
    constraint: Constraint,
    text: Vec<u8>,
    marker: &'static str,
    special: bool,
    stopped: bool,
}

impl Walk {
    fn new(template: &str, opened: Option<bool>, request: &ChatRequest, special: bool) -> Self {
        let format = Format::of(template).unwrap();
        let marker = match format.shape {
            Shape::Marked { .. } => "unused",
            Shape::Bare { tag } => tag,
            Shape::List { open } => open,
        };
        let id = move |text: &str| (special && text == marker).then_some(MARKER);
        let spec = constraint(format, request, &id, opened).expect("a grammar");
        let constraint = Constraint::compile(spec, &factory(marker)).unwrap();
        Self { constraint, text: Vec::new(), marker, special, stopped: false }
    }

    /// Takes a token if it is possible.
    fn step(&mut self, token: u32) -> bool {
        if self.stopped {
            return false;
        }
        let mut logits = vec![0.0; 258];
        self.constraint.mask().unwrap().apply(&mut logits);
        if logits[token as usize] != 0.0 {
            return false;
        }
        self.stopped = self.constraint.advance(token).unwrap();
        match u8::try_from(token) {
            Ok(byte) => self.text.push(byte),
            Err(_) => self.text.extend(self.marker.as_bytes()),
        }
        true
    }

    /// Says a text as far as it is possible.
    fn say(&mut self, text: &str) -> bool {
        let mut rest = text;
        while !rest.is_empty() {
            match rest.strip_prefix(self.marker).filter(|_| self.special) {
                Some(after) if self.step(MARKER) => rest = after,
                _ => {
                    let width = rest.chars().next().map_or(1, char::len_utf8);
                    if !rest.as_bytes()[..width].iter().all(|&byte| self.step(u32::from(byte))) {
                        return false;
                    }
                    rest = &rest[width..];
                }
            }
        }
        true
    }

    fn may_end(&mut self) -> bool {
        self.stopped || self.constraint.is_complete()
    }
}

/// Whether an answer is possible as a whole.
fn possible(template: &str, opened: Option<bool>, request: &ChatRequest, special: bool, text: &str) -> bool {
    let mut walk = Walk::new(template, opened, request, special);
    walk.say(text) && walk.may_end()
}

const ROME: &str = r#"{"name": "weather", "arguments": {"city": "Rom"}}"#;

#[test]
fn demanded_calls_come_alone_and_in_numbers() {
    let one = format!("<tool_call>\n{ROME}\n</tool_call>");
    let many = |count: usize| vec![one.as_str(); count].join("\n");
    let required = asking(ToolChoice::Required, true);
    for (count, want) in [(0, false), (1, true), (2, true), (16, true), (17, false)] {
        assert_eq!(possible(HERMES, None, &required, false, &many(count)), want, "{count}");
    }
    let single = asking(ToolChoice::Required, false);
    assert!(
        possible(HERMES, None, &single, false, &one) && !possible(HERMES, None, &single, false, &many(2))
    );
    let named = asking(ToolChoice::Named("weather".to_owned()), true);
    assert!(possible(HERMES, None, &named, false, &one) && !possible(HERMES, None, &named, false, &many(2)));
    let other = one.replace("weather", "add");
    assert!(
        possible(HERMES, None, &required, false, &other) && !possible(HERMES, None, &named, false, &other)
    );
    assert!(!possible(HERMES, None, &required, false, &one.replace("Rom", "Paris")));
    assert!(!possible(HERMES, None, &required, false, &format!("Well. {one}")));
    // Reasoning that the prompt began ends first.
    assert!(!possible(HERMES, Some(true), &required, false, &one));
    assert!(possible(
        HERMES,
        Some(true),
        &required,
        false,
        &format!("a <tool_call> is due</think>\n\n{one}")
    ));
    let llama = ROME.replace("arguments", "parameters");
    assert!(possible(LLAMA, None, &required, false, &format!("{llama}; {llama}")));
    for special in [false, true] {
        let list = format!("[TOOL_CALLS][{ROME}, {ROME}]");
        assert!(possible(MISTRAL, None, &required, special, &list), "{special}");
        assert!(!possible(MISTRAL, None, &single, special, &list), "{special}");
    }
}

#[test]
fn strict_arguments_are_enforced_once_a_call_has_begun() {
    let auto = asking(ToolChoice::Auto, true);
    let wrong = ROME.replace("Rom", "Paris");
    let loose = r#"{"name": "add", "arguments": {"anything": [1]}}"#;
    for (template, special, open, close) in [
        (HERMES, false, "<tool_call>", "</tool_call>"),
        (HERMES, false, " Let me see: {\"a\": <tool_cal <tool_call>\n", "\n</tool_call>"),
        (MISTRAL, false, "One moment [TOOL [TOOL_CALLS] [", "]"),
        (MISTRAL, true, "One moment [TOOL_CALL [TOOL_CALLS][", "]"),
        (MISTRAL, true, "[TOOL_CALLS][", "]"),
        (LLAMA, false, "", ""),
        (LLAMA, true, "\n<|python_tag|> ", ""),
        (LLAMA, false, "<|python_tag|>", " "),
    ] {
        let say = |call: &str| {
            let call =
                if template == LLAMA { call.replace("arguments", "parameters") } else { call.to_owned() };
            possible(template, None, &auto, special, &format!("{open}{call}{close}"))
        };
        assert!(say(ROME) && say(loose), "{open}");
        for wrong in [wrong.as_str(), r#"{"name": "rm", "arguments": {}}"#, "text"] {
            // Without a marker another text is no call at all.
            assert!(!say(wrong) || (open.is_empty() && wrong == "text"), "{open}{wrong}");
        }
    }
    for template in [HERMES, LLAMA, MISTRAL] {
        for opened in [None, Some(true), Some(false)] {
            for text in ["", "No call: a < b.\n", " \n日本"] {
                assert!(possible(template, opened, &auto, false, text), "{template} {opened:?} {text:?}");
            }
        }
    }
    let two = format!("<tool_call>{ROME}</tool_call>\n<tool_call>{ROME}</tool_call> done");
    assert!(possible(HERMES, None, &auto, false, &two));
    // What reasoning says of calls is no call.
    let thinking = format!("<think>a <tool_call> is due</think>\n<tool_call>{ROME}</tool_call>");
    assert!(possible(HERMES, Some(false), &auto, false, &thinking));
    assert!(!possible(HERMES, Some(false), &auto, false, &thinking.replace("Rom", "Paris")));
    assert!(possible(HERMES, Some(true), &auto, false, &thinking["<think>".len()..]));
    assert!(!possible(HERMES, None, &auto, false, "a <tool_call> is due"));
    // Without a strict tool nothing is enforced.
    let mut loose = auto;
    loose.tools.iter_mut().for_each(|tool| tool.strict = false);
    assert!(constraint(&hermes::FORMAT, &loose, &|_| None, None).is_none());
}

#[test]
fn whatever_a_grammar_allows_the_parser_reads() {
    let config = Config { failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let (mut calls, mut strict, mut ends) = (0, 0, 0);
    for template in [HERMES, LLAMA, MISTRAL] {
        for opened in [None, Some(false), Some(true)] {
            for (choice, parallel) in
                [(ToolChoice::Auto, true), (ToolChoice::Required, true), (ToolChoice::Required, false)]
            {
                let request = asking(choice.clone(), parallel);
                let special = template == MISTRAL;
                let fresh = Walk::new(template, opened, &request, special);
                for _ in 0..12 {
                    let mut walk = Walk { constraint: fresh.constraint.fresh(), text: Vec::new(), ..fresh };
                    let mut steps = 0;
                    // Most fragments are impossible at most places; what is certain is found by trying.
                    while steps < 400 && !(walk.may_end() && steps > 60) && !walk.stopped {
                        steps += 1;
                        let words = prop_oneof![
                            6 => fragment(),
                            4 => proptest::sample::select(&["{\"name\": \"weather\", ", "\"arguments\": {", "\"parameters\": {",
                                "\"city\": \"Rom\"}}", "\"a\": 1}}", "add\", ", "]", "; ", ", ", "\n</tool_call>"][..])
                                .prop_map(str::to_owned),
                        ];
                        let word = words.new_tree(&mut runner).unwrap().current();
                        walk.say(&word);
                        if word.len() % 5 == 0 {
                            (0..=255).find(|&byte| walk.step(byte));
                        }
                    }
                    let complete = walk.may_end();
                    let Ok(text) = String::from_utf8(walk.text) else { continue };
                    if !complete {
                        continue;
                    }
                    ends += 1;
                    let known = match opened {
                        None => template.to_owned(),
                        Some(_) => format!("{template}<think>"),
                    };
                    let prompt = if opened == Some(true) { "x<think>\n" } else { "" };
                    let (parts, called) = read(&reading(&known, prompt), &[&text], false);
                    assert!(
                        !parts.iter().any(|part| matches!(part, Part::Broken { .. })),
                        "{text:?}: {parts:?}"
                    );
                    assert!(called || choice == ToolChoice::Auto, "{text:?}: {parts:?}");
                    let mut enforced = false;
                    for part in &parts {
                        match part {
                            Part::Start { name, .. } => {
                                calls += 1;
                                enforced = name == "weather";
                            }
                            Part::Arguments { text, .. } if enforced => {
                                strict += 1;
                                let value: Value = serde_json::from_str(text).unwrap();
                                assert!(
                                    value == json!({"city": "Rom"}) || value == json!({"city": "Łódź"}),
                                    "{value}"
                                );
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
    }
    assert!(ends > 100 && calls > 60 && strict > 30, "{ends} answers, {calls} calls, {strict} strict ones");
}
