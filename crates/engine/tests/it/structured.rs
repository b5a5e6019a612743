//! Answers that must look like something always do; what cannot be enforced is refused, and nobody else waits.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use byzerllm_core::{
    ChatModel, ChatRequest, ChatResponse, ErrorKind, FinishReason, Input, RequestContext, ResponseFormat,
    Sampling,
};
use byzerllm_engine::LocalModel;
use futures::StreamExt;
use futures::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::fake::{END, Shape};
use crate::text::{ask, block_on, greedy, model};

fn shape() -> Shape {
    Shape { context_length: 512, block_tokens: 16, ..Shape::default() }
}

/// Random text that closes its strings and brackets soon enough.
fn request(format: ResponseFormat, seed: u64) -> ChatRequest {
    let likely = [(b'"', 5.5), (b'}', 3.0), (b']', 3.0), (b',', 0.5)];
    let mut bias: BTreeMap<u32, f32> = likely.map(|(byte, bias)| (u32::from(byte), bias)).into();
    bias.insert(END, 3.0);
    let sampling = Sampling {
        temperature: Some(1.0),
        seed: Some(seed),
        max_tokens: Some(440),
        logit_bias: Some(bias),
        ..Sampling::default()
    };
    ChatRequest { sampling, format, ..ChatRequest::new("hash", Input::Text(format!("Prompt {seed}"))) }
}

/// The texts of complete answers; most must be complete.
async fn complete(model: &LocalModel, format: &ResponseFormat, seeds: u64) -> Vec<String> {
    let answers = join_all((0..seeds).map(|seed| ask(model, request(format.clone(), seed)))).await;
    let mut texts = Vec::new();
    for answer in answers {
        let choice = &answer.choices[0];
        match &choice.finish_reason {
            FinishReason::Stop => texts.push(choice.text.clone()),
            FinishReason::Length => {}
            other => panic!("{format:?}: {other:?} after {:?}", choice.text),
        }
    }
    assert!(texts.len() as u64 * 10 >= seeds * 7, "{format:?}: {} of {seeds} are complete", texts.len());
    texts
}

fn parsed(texts: &[String]) -> Vec<Value> {
    texts
        .iter()
        .map(|text| serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}")))
        .collect()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Person {
    name: String,
    age: u8,
    size: Option<f64>,
    color: Color,
    tags: Vec<String>,
    home: Address,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Color {
    Red,
    Grün,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Address {
    street: String,
    #[serde(default)]
    number: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tree {
    value: i64,
    children: Vec<Tree>,
}

fn person() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "size": {"type": "number", "minimum": -1e6, "maximum": 1e6},
            "color": {"enum": ["red", "grün"]},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 5}, "minItems": 1, "maxItems": 3},
            "home": {"$ref": "#/$defs/address"}
        },
        "required": ["name", "age", "color", "tags", "home"],
        "additionalProperties": false,
        "$defs": {"address": {
            "type": "object",
            "properties": {"street": {"type": "string", "maxLength": 8}, "number": {"type": "integer", "minimum": -99, "maximum": 9999}},
            "required": ["street"],
            "additionalProperties": false
        }}
    })
}

#[test]
fn json_is_always_what_was_asked_for() {
    block_on(async {
        let (model, _) = model(&shape(), 400, |_| {});
        for value in parsed(&complete(&model, &ResponseFormat::JsonObject, 30).await) {
            assert!(value.is_object(), "{value}");
        }
        let mut sizes = 0;
        for value in parsed(&complete(&model, &ResponseFormat::JsonSchema(person()), 60).await) {
            let person: Person =
                serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("{e}: {value}"));
            assert!((1..=12).contains(&person.name.chars().count()) && person.age <= 150, "{person:?}");
            assert!((1..=3).contains(&person.tags.len()), "{person:?}");
            assert!(
                person.home.street.chars().count() <= 8
                    && person.home.number.is_none_or(|n| (-99..=9999).contains(&n))
            );
            assert!(matches!(person.color, Color::Red | Color::Grün));
            sizes += u32::from(person.size.is_some());
        }
        assert!(sizes > 0, "an optional member appears sometimes");
        let tree = json!({"$ref": "#/$defs/tree", "$defs": {"tree": {
            "type": "object",
            "properties": {"value": {"type": "integer", "minimum": -9, "maximum": 9}, "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
            "required": ["value", "children"],
            "additionalProperties": false
        }}});
        let mut nested = false;
        for value in parsed(&complete(&model, &ResponseFormat::JsonSchema(tree), 30).await) {
            let tree: Tree = serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("{e}: {value}"));
            nested |= !tree.children.is_empty();
            assert!(tree.value.abs() <= 9 && tree.children.iter().all(|child| child.value.abs() <= 9));
        }
        assert!(nested, "a reference to itself is followed sometimes");
        let number = json!({"anyOf": [{"type": "boolean"}, {"type": "null"}, {"const": {"a": [1]}}, {"type": "string", "pattern": "^é[0-9]{2}$"}]});
        for value in parsed(&complete(&model, &ResponseFormat::JsonSchema(number), 40).await) {
            let fits = value.is_boolean()
                || value.is_null()
                || value == json!({"a": [1]})
                || value.as_str().is_some_and(|text| text.chars().count() == 3 && text.starts_with('é'));
            assert!(fits, "{value}");
        }
    });
}

#[test]
fn expressions_grammars_and_choices_are_matched_as_a_whole() {
    block_on(async {
        let (model, _) = model(&shape(), 400, |_| {});
        let date = ResponseFormat::Regex(r"[0-9]{4}/[0-9]{2}(-é+|\.)".into());
        for text in complete(&model, &date, 40).await {
            let (digits, rest) = text.split_at(7);
            assert!(digits.bytes().enumerate().all(|(place, byte)| if place == 4 {
                byte == b'/'
            } else {
                byte.is_ascii_digit()
            }));
            assert!(
                rest == "."
                    || rest
                        .strip_prefix('-')
                        .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c == 'é')),
                "{text:?}"
            );
        }
        let sums = ResponseFormat::Grammar(
            "start: term (\"+\" term)*\nterm: NUMBER | \"(\" start \")\"\nNUMBER: /[1-9][0-9]?/\n".into(),
        );
        let mut brackets = 0;
        for text in complete(&model, &sums, 40).await {
            assert!(text.bytes().all(|byte| byte.is_ascii_digit() || b"+()".contains(&byte)), "{text:?}");
            let depth = text.bytes().fold(0i32, |depth, byte| {
                assert!(depth >= 0);
                depth + i32::from(byte == b'(') - i32::from(byte == b')')
            });
            assert!(depth == 0 && !text.ends_with('+') && !text.contains("++") && !text.contains("()"));
            brackets += text.matches('(').count();
        }
        assert!(brackets > 0);
        let choices = ["yes", "yesterday", "no\n\"way\"", "凉"].map(String::from).to_vec();
        let mut seen = std::collections::BTreeSet::new();
        for text in complete(&model, &ResponseFormat::Choice(choices.clone()), 60).await {
            assert!(choices.contains(&text), "{text:?}");
            seen.insert(text);
        }
        assert!(seen.len() >= 3, "{seen:?}");
    });
}

#[test]
fn constraints_go_with_everything_else() {
    block_on(async {
        let (model, _) = model(&shape(), 400, |_| {});
        let schema = ResponseFormat::JsonSchema(person());
        // Several choices, candidates, log probabilities.
        let mut many = request(schema.clone(), 3);
        many.n = 3;
        many.best_of = Some(5);
        many.sampling.logprobs = Some(2);
        let answer = ask(&model, many).await;
        assert_eq!(answer.choices.len(), 3);
        for choice in &answer.choices {
            assert!(
                choice.finish_reason == FinishReason::Length
                    || serde_json::from_str::<Person>(&choice.text).is_ok()
            );
            assert!(choice.logprobs.as_ref().unwrap().iter().all(|token| token.logprob.unwrap() < 0.0));
        }
        // Too few tokens cut the text.
        let mut short = request(schema.clone(), 3);
        short.sampling.max_tokens = Some(5);
        let answer = ask(&model, short).await;
        assert_eq!(answer.choices[0].finish_reason, FinishReason::Length);
        // A stop string ends it as it ends any text.
        let mut stopped = request(schema, 3);
        stopped.sampling.stop = Some(vec!["\"age\"".into()]);
        let answer = ask(&model, stopped).await;
        assert_eq!(answer.choices[0].finish_reason, FinishReason::Stop);
        assert!(answer.choices[0].text.contains("name") && !answer.choices[0].text.contains("age"));
        // A text that is complete ends whatever the limits on its end say.
        let mut forced = request(ResponseFormat::Choice(vec!["yes".into(), "no".into()]), 1);
        forced.sampling.ignore_end = Some(true);
        forced.sampling.min_tokens = Some(50);
        let answer = ask(&model, forced).await;
        assert!(["yes", "no"].contains(&answer.choices[0].text.as_str()));
        assert_eq!(answer.choices[0].finish_reason, FinishReason::Stop);
        // Where the end is ignored and more may come, more comes.
        let mut endless = request(ResponseFormat::Regex("a+".into()), 1);
        endless.sampling.ignore_end = Some(true);
        endless.sampling.max_tokens = Some(30);
        let answer = ask(&model, endless).await;
        assert_eq!(answer.choices[0].text, "a".repeat(30));
        // A bias cannot break a constraint.
        let mut pushed = request(ResponseFormat::Regex("[ab]{4}".into()), 1);
        pushed.sampling.logit_bias =
            Some(BTreeMap::from([(u32::from(b'c'), 100.0), (u32::from(b'b'), -100.0)]));
        assert_eq!(ask(&model, pushed).await.choices[0].text, "aaaa");
    });
}

#[test]
fn company_and_preemption_change_no_constrained_answer() {
    block_on(async {
        let small = Shape { context_length: 256, ..shape() };
        let (crowded, _) = model(&small, 20, |options| options.max_sequences = 6);
        let (alone, _) = model(&small, 1000, |_| {});
        let formats = [
            ResponseFormat::JsonSchema(person()),
            ResponseFormat::Text,
            ResponseFormat::JsonObject,
            ResponseFormat::Regex("([a-z]{3} ){5,20}".into()),
        ];
        let requests: Vec<ChatRequest> = (0..16u64)
            .map(|seed| {
                let mut request = request(formats[seed as usize % 4].clone(), seed);
                request.sampling.max_tokens = Some(150);
                request.sampling.frequency_penalty = Some(0.1);
                request.n = 1 + seed as u32 % 2;
                request
            })
            .collect();
        let together: Vec<ChatResponse> =
            join_all(requests.iter().map(|request| ask(&crowded, request.clone()))).await;
        for (request, response) in requests.into_iter().zip(together) {
            assert_eq!(response.choices, ask(&alone, request).await.choices);
        }
        assert!(crowded.metrics().preemptions > 0);
    });
}

async fn refusal(model: &LocalModel, format: ResponseFormat) -> byzerllm_core::Error {
    match model.chat(request(format.clone(), 1), RequestContext::local()).await {
        Ok(_) => panic!("accepted {}", format!("{format:?}").chars().take(200).collect::<String>()),
        Err(error) => error,
    }
}

#[test]
fn what_cannot_be_enforced_is_refused() {
    block_on(async {
        let (model, _) = model(&shape(), 400, |_| {});
        let cases = [
            (ResponseFormat::JsonSchema(json!({"type": "strange"})), "strange"),
            (ResponseFormat::JsonSchema(json!("no object")), "object"),
            (ResponseFormat::JsonSchema(json!({"$ref": "#/$defs/missing"})), "missing"),
            (ResponseFormat::JsonSchema(json!({"$ref": "https://example.com/schema"})), "example.com"),
            (ResponseFormat::JsonSchema(json!({"type": "integer", "minimum": 5, "maximum": 4})), "minimum"),
            (ResponseFormat::Regex("a(b".into()), "regex"),
            (ResponseFormat::Regex(String::new()), "empty"),
            (ResponseFormat::Regex("(?=a)b".into()), "look"),
            (ResponseFormat::Grammar("start: other".into()), "other"),
            (ResponseFormat::Grammar("  ".into()), "empty"),
            (ResponseFormat::Choice(Vec::new()), "empty"),
            (ResponseFormat::Choice(vec!["a".into(), String::new()]), "empty"),
            (ResponseFormat::Choice(vec!["a".into(); 2000]), "1024"),
        ];
        for (format, reason) in cases {
            let error = refusal(&model, format.clone()).await;
            assert_eq!(
                (error.kind(), error.param()),
                (ErrorKind::InvalidRequest, Some("response_format")),
                "{format:?}"
            );
            assert!(error.to_string().contains(reason), "{format:?}: {error}");
            assert!(!error.to_string().contains("non-verbose"), "{error}");
        }
        // The engine is as well as before.
        ask(&model, greedy(Input::Text("Hi".into()), 3)).await;
    });
}

fn deep_schema(depth: usize) -> Value {
    (0..depth).fold(json!({"type": "string"}), |inner, _| {
        let mut schema = serde_json::Map::new();
        schema.insert("items".into(), inner);
        Value::Object(schema)
    })
}

#[test]
fn a_schema_of_ten_thousand_levels_is_refused() {
    // The value itself needs the stack when it is copied and freed.
    let thread = std::thread::Builder::new().stack_size(256 << 20).spawn(|| {
        block_on(async {
            let (model, _) = model(&shape(), 400, |_| {});
            let mut request = request(ResponseFormat::Text, 1);
            request.format = ResponseFormat::JsonSchema(deep_schema(10_000));
            let error = model.chat(request, RequestContext::local()).await.map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest);
            assert!(error.to_string().contains("nested deeper"), "{error}");
        });
    });
    thread.unwrap().join().unwrap();
}

#[test]
fn blow_ups_are_bounded_and_nobody_waits() {
    block_on(async {
        let (model, _) = model(&Shape { context_length: 4096, ..shape() }, 2000, |_| {});
        let all_of: Vec<Value> = (0..14)
            .map(|i| json!({"anyOf": [{"properties": {format!("a{i}"): {"type": "string"}}}, {"properties": {format!("b{i}"): {"type": "integer"}}}]}))
            .collect();
        let alternatives: Vec<String> = (0..400).map(|i| format!("\"w{i}\" start?")).collect();
        let hostile = [
            ResponseFormat::JsonSchema(deep_schema(100)),
            ResponseFormat::Regex("(a{1,1000}){1,1000}".into()),
            ResponseFormat::Regex("((((a{1,100}){1,100}){1,100}){1,100}){1,100}".into()),
            ResponseFormat::Regex("(.*a.{30}b){20}|(.*b.{29}c){21}".into()),
            ResponseFormat::Regex("(".repeat(5_000)),
            ResponseFormat::Grammar("x".repeat(1_000_000)),
            ResponseFormat::Grammar(format!("start: {}", alternatives.join(" | "))),
            ResponseFormat::Grammar("start: start start | start start start | \"a\" |".into()),
            ResponseFormat::JsonSchema(json!({"allOf": all_of})),
            ResponseFormat::JsonSchema(json!({"type": "string", "maxLength": 1_000_000_000})),
            ResponseFormat::JsonSchema(
                json!({"type": "array", "items": {"type": "integer"}, "minItems": 1_000_000_000}),
            ),
            ResponseFormat::JsonSchema(
                json!({"type": "string", "pattern": "(a|b|ab)*c{1,5000}(.{1,500}d){1,500}"}),
            ),
        ];
        let references: serde_json::Map<String, Value> = (0..2_000)
            .map(|i| (format!("d{i}"), json!({"$ref": format!("#/$defs/d{}", (i + 1) % 2_000)})))
            .collect();
        let nested: serde_json::Map<String, Value> = (0..1_000)
            .map(|i| (format!("d{i}"), json!({"items": {"$ref": format!("#/$defs/d{}", i + 1)}, "allOf": [{"$ref": format!("#/$defs/d{}", i + 1)}]})))
            .chain([("d1000".to_owned(), json!({"type": "array"}))])
            .collect();
        let circles = [
            json!({"$ref": "#"}),
            json!({"allOf": [{"$ref": "#"}]}),
            json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}),
            json!({"$ref": "#/$defs/d0", "$defs": references}),
            json!({"$ref": "#/$defs/d0", "$defs": nested}),
            json!({"type": "object", "properties": {"a": {"allOf": [{"$ref": "#"}, {"properties": {"b": {"$ref": "#"}}}]}}, "required": ["a"]}),
        ];
        let chain = |letter: char, rest: &str| {
            let link = |i: usize| format!("{letter}{i}: \"a\" {letter}{}{rest}\n", i + 1);
            let links: String = (0..3_500).map(link).collect();
            format!("start: {letter}0\n{links}{letter}3500: \"b\"\n")
        };
        let chained = ["r", "T"]
            .into_iter()
            .flat_map(|letter| ["", "?"].map(|rest| chain(letter.parse().unwrap(), rest)));
        let hostile = hostile
            .into_iter()
            .chain(chained.map(ResponseFormat::Grammar))
            .chain(circles.map(ResponseFormat::JsonSchema));
        // Someone else's answer, which must go on.
        let mut other = greedy(Input::Text("A long story".into()), 4000);
        other.sampling.ignore_end = Some(true);
        let mut story = model.chat(other, RequestContext::local()).await.unwrap();
        let story = tokio::spawn(async move {
            let (mut longest, mut last, mut events) = (Duration::ZERO, Instant::now(), 0);
            while let Some(event) = story.next().await {
                event.unwrap();
                longest = longest.max(last.elapsed());
                last = Instant::now();
                events += 1;
            }
            (longest, events)
        });
        let mut refused = 0;
        for format in hostile {
            let start = Instant::now();
            let mut request = request(format.clone(), 1);
            request.sampling.max_tokens = Some(60);
            let name: String = format!("{format:?}").chars().take(120).collect();
            let outcome = match model.chat(request, RequestContext::local()).await {
                Ok(stream) => {
                    byzerllm_core::collect(stream).await.map(|answer| answer.choices[0].finish_reason.clone())
                }
                Err(error) => Err(error),
            };
            assert!(start.elapsed() < Duration::from_secs(15), "{name} took {:?}", start.elapsed());
            match outcome {
                Ok(FinishReason::Stop | FinishReason::Length | FinishReason::Error(_)) => {}
                Ok(other) => panic!("{name}: {other:?}"),
                Err(error) => {
                    assert!(
                        matches!(error.kind(), ErrorKind::InvalidRequest | ErrorKind::Overloaded),
                        "{name}: {error}"
                    );
                    refused += 1;
                }
            }
        }
        assert!(refused >= 4, "{refused} were refused");
        let (longest, events) = story.await.unwrap();
        assert!(events > 1000, "{events} events");
        assert!(longest < Duration::from_secs(1), "the other answer waited {longest:?}");
    });
}
