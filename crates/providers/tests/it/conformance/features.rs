//! What each vendor can do, feature by feature. The table in docs/vendors.md is written by this test.

use byzerllm_core::{
    EmbeddingInput, EmbeddingRequest, ErrorKind, FinishReason, Input, Message, Part, Role, Tool, UsageSource,
};
use byzerllm_providers::{Features, VENDORS};
use byzerllm_simulator::{Fault, RetryAfter, Script, TAIL};
use serde_json::{Map, Value, json};

use super::world::{CASES, Case, World, question};

const COLUMNS: [&str; 8] =
    ["chat", "stream", "tools", "reasoning", "usage", "embeddings", "images", "errors"];
const BEGIN: &str = "<!-- table: begin, written by the conformance tests -->";
const END: &str = "<!-- table: end -->";

#[test]
fn no_vendor_is_left_out() {
    for vendor in VENDORS {
        assert!(CASES.iter().any(|case| case.vendor == vendor.name), "{} is not tested", vendor.name);
    }
}

#[tokio::test]
async fn the_table_of_vendors_is_true() {
    let mut rows = vec![
        format!("| vendor | {} |", COLUMNS.join(" | ")),
        format!("|---|{}", "---|".repeat(COLUMNS.len())),
    ];
    for case in CASES {
        let cells = cells(case).await.map(|able| if able { "yes" } else { "–" });
        let page = format!("vendors/{}.md", case.vendor.trim_start_matches("reasoning_"));
        rows.push(format!("| [{}]({page}) | {} |", case.title, cells.join(" | ")));
    }
    let table = format!("{BEGIN}\n{}\n{END}", rows.join("\n"));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/vendors.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let wanted = format!("{before}{table}{after}");
    if std::env::var_os("BYZERLLM_UPDATE").is_some() {
        std::fs::write(path, &wanted).unwrap();
    } else {
        assert_eq!(page, wanted, "docs/vendors.md is old; run this test with BYZERLLM_UPDATE=1");
    }
}

/// Every cell is what was seen, and what was seen is what the dialect says of itself.
async fn cells(case: &Case) -> [bool; COLUMNS.len()] {
    let world = World::new(case, &[]);
    let Features { chat, stream, tools, usage, images, .. } = world.features;
    assert!(chat, "{} does not chat", case.title);
    let seen_chat = chats(&world, case).await;
    let seen_stream = streams(&world, case).await;
    let seen = [
        seen_chat,
        seen_stream,
        calls_tools(&world, case).await,
        reasons(case).await,
        reports(&world, case).await,
        embeds(case).await,
        sees(&world, case).await,
        errs(case).await,
    ];
    let [saw_chat, saw_stream, saw_tools, _, saw_usage, _, saw_images, _] = seen;
    assert_eq!(
        (saw_chat, saw_stream, saw_tools, saw_usage, saw_images),
        (chat, stream, tools, usage, images),
        "{}: the dialect says otherwise of itself",
        case.title
    );
    seen
}

async fn chats(world: &World, case: &Case) -> bool {
    let came = world.ask(question("hello", true)).await;
    assert_eq!(came.text, format!("hello{TAIL}"), "{}: {:?}", case.title, came.error);
    assert_eq!(came.finish, Some(FinishReason::Stop), "{}", case.title);
    assert!(came.id.is_some(), "{}: no id of the vendor", case.title);
    true
}

async fn streams(world: &World, case: &Case) -> bool {
    let came = world.ask(question("hello", false)).await;
    assert_eq!(came.text, format!("hello{TAIL}"), "{}: {:?}", case.title, came.error);
    assert!(came.pieces > 3, "{}: {} pieces", case.title, came.pieces);
    let mut short = question("a long question that is cut in its middle", false);
    short.sampling.max_tokens = Some(4);
    let came = world.ask(short).await;
    match &came.error {
        None => assert_eq!(came.finish, Some(FinishReason::Length), "{}: {}", case.title, came.text),
        // A vendor that takes no bound says so.
        Some(error) => {
            assert_eq!((error.kind(), error.param()), (ErrorKind::Unsupported, Some("max_tokens")));
        }
    }
    true
}

fn weather() -> Tool {
    let parameters =
        json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    Tool {
        name: "weather".to_owned(),
        description: Some("of a city".to_owned()),
        parameters: Some(parameters),
        strict: false,
    }
}

async fn calls_tools(world: &World, case: &Case) -> bool {
    let mut able = true;
    for whole in [false, true] {
        let mut request = question("please call weather", whole);
        request.tools = vec![weather()];
        let came = world.ask(request).await;
        if let Some(error) = &came.error {
            assert_eq!(
                (error.kind(), error.param()),
                (ErrorKind::Unsupported, Some("tools")),
                "{}: {error}",
                case.title
            );
            able = false;
            continue;
        }
        assert_eq!(came.finish, Some(FinishReason::ToolCalls), "{}", case.title);
        assert_eq!(came.calls.len(), 1, "{}", case.title);
        assert_eq!(came.calls[0].0, "weather", "{}", case.title);
        let arguments: Value = serde_json::from_str(&came.calls[0].1).unwrap();
        assert_eq!(arguments, json!({"city": "北京"}), "{}", case.title);
    }
    if able {
        let came = world.ask(after_the_call()).await;
        assert_eq!(came.error.map(|error| error.to_string()), None, "{}", case.title);
        assert!(
            came.text.starts_with("The tool said: ") && came.text.contains("sunny"),
            "{}: {}",
            case.title,
            came.text
        );
    }
    able
}

/// A conversation in which the tool was called and has answered.
fn after_the_call() -> byzerllm_core::ChatRequest {
    let mut call = Message::new(Role::Assistant, "");
    let calls = json!([{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": {"city": "北京"}}}]);
    call.extra.insert("tool_calls".to_owned(), calls);
    let mut result = Message::new(Role::Tool, r#"{"sky": "sunny"}"#);
    result.extra.extend(Map::from_iter([
        ("tool_call_id".to_owned(), "call_1".into()),
        ("name".to_owned(), "weather".into()),
    ]));
    let mut request = question("please call weather", false);
    request.tools = vec![weather()];
    if let Input::Messages(messages) = &mut request.input {
        messages.extend([call, result]);
    }
    request
}

async fn reasons(case: &Case) -> bool {
    let world = World::new(case, case.reasons);
    for whole in [false, true] {
        let script = Script {
            reasoning: vec!["嗯".to_owned(), "…hm".to_owned()],
            ..Script::text(["well", " 好"])
        };
        world.vendor.script(script);
        let came = world.ask(question("think", whole)).await;
        assert_eq!(
            (came.text.as_str(), came.error.is_none()),
            ("well 好", true),
            "{}: {:?}",
            case.title,
            came.error
        );
        if came.reasoning != "嗯…hm" {
            assert!(
                came.reasoning.is_empty() && !world.features.reasoning,
                "{}: {}",
                case.title,
                came.reasoning
            );
            return false;
        }
    }
    // A server that speaks OpenAI's dialect may send some although OpenAI does not.
    world.features.reasoning
}

/// Every number of the bill is the number that was reported.
async fn reports(world: &World, case: &Case) -> bool {
    let mut all = true;
    for whole in [false, true] {
        world.vendor.clear();
        let before = world.book.rows().len();
        let came =
            world.ask(question("what was cached costs less, and this is a longer question", whole)).await;
        let (usage, bill) = (came.usage.unwrap(), world.vendor.bill()[0].tokens);
        all &= usage.source == UsageSource::Reported;
        assert_eq!(
            (u64::from(usage.prompt_tokens), u64::from(usage.completion_tokens)),
            (bill.prompt, bill.completion),
            "{}",
            case.title
        );
        assert!(
            usage.cached_tokens == 0 || u64::from(usage.cached_tokens) == bill.cached,
            "{}: {usage:?}",
            case.title
        );
        let row = world.book.rows()[before].clone();
        assert_eq!(row.settlement.unwrap().usage, Some(usage), "{}: the book says otherwise", case.title);
        assert!(row.attempt.prompt_tokens >= bill.prompt, "{}", case.title);
        assert!(row.attempt.completion_tokens.is_none_or(|most| most >= bill.completion), "{}", case.title);
    }
    all
}

async fn embeds(case: &Case) -> bool {
    if case.vectors.is_empty() {
        let world = World::new(case, &[]);
        assert!(world.model.handle().embed.is_none() || world.features.embeddings, "{}", case.title);
        return false;
    }
    let world = World::new(case, case.vectors);
    let texts = ["甲", "b", "c"].map(|text| EmbeddingInput::Text(text.to_owned()));
    let request = EmbeddingRequest {
        model: "d".to_owned(),
        inputs: texts.to_vec(),
        dimensions: None,
        truncate: false,
        prompt: None,
        extra: Map::new(),
    };
    let made = world.model.handle().embed.unwrap().embed(request, world.context()).await;
    let made = made.unwrap_or_else(|error| panic!("{}: {error}", case.title));
    assert_eq!(made.vectors.len(), 3, "{}", case.title);
    assert!(made.vectors[0].len() > 100 && made.vectors[0] != made.vectors[1], "{}", case.title);
    let bill = world.vendor.bill();
    let billed: u64 = bill.iter().map(|line| line.tokens.prompt).sum();
    match made.usage.source {
        UsageSource::Reported => assert_eq!(u64::from(made.usage.prompt_tokens), billed, "{}", case.title),
        _ => assert!(u64::from(made.usage.prompt_tokens) >= billed, "{}", case.title),
    }
    world.book.covers(&bill, case.title);
    true
}

async fn sees(world: &World, case: &Case) -> bool {
    let picture = Part::Image { url: "data:image/png;base64,iVBORw0KGgo=".to_owned(), detail: None };
    let parts = vec![Part::Text { text: "what is this".to_owned() }, picture];
    let mut request = question("", false);
    request.input = Input::Messages(vec![Message::of_parts(Role::User, parts)]);
    let came = world.ask(request).await;
    match came.error {
        Some(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{}: {error}", case.title);
            false
        }
        None => {
            assert!(came.text.contains("what is this [images: 1]"), "{}: {}", case.title, came.text);
            true
        }
    }
}

/// A wrong key, an unknown model, the filter, a full vendor: each as its kind, with the vendor's id where it has one.
async fn errs(case: &Case) -> bool {
    let wrong = World::new(case, &[("api_key", "0123456789abcdef.wrong")]);
    let error = wrong.ask(question("hi", false)).await.error.unwrap();
    let denied = [ErrorKind::Unauthenticated, ErrorKind::PermissionDenied];
    assert!(denied.contains(&error.kind()), "{}: {:?} {error}", case.title, error.kind());
    assert!(!error.to_string().contains("0123456789abcdef.wrong"), "{}: {error}", case.title);
    let world = World::new(case, &[]);
    let refused = world.ask(question("filter me", false)).await;
    let filtered = refused.finish == Some(FinishReason::ContentFilter);
    assert!(filtered || refused.error.is_some(), "{}: {refused:?}", case.title);
    if let Some(error) = &refused.error {
        assert!(!error.kind().is_retryable(), "{}: {:?} {error}", case.title, error.kind());
    }
    world.vendor.fault(Fault::Status(429, RetryAfter::Seconds(3)));
    let error = world.ask(question("hi", false)).await.error.unwrap();
    assert!(
        matches!(error.kind(), ErrorKind::RateLimited | ErrorKind::Overloaded),
        "{}: {error}",
        case.title
    );
    assert!(world.vendor.bill().is_empty(), "{}", case.title);
    world.book.covers(&[], case.title);
    true
}
