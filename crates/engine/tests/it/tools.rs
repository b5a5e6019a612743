//! Tool calls and reasoning through the whole engine, with a network that says what a test wants.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use byzerllm_core::{ChatModel, ResponseFormat};
use byzerllm_core::{
    ChatRequest, ChatResponse, ErrorKind, Event, FinishReason, Input, Message, Notice, RequestContext,
    Result, Role, Sampling, Tool, ToolChoice, collect,
};
use byzerllm_engine::{EngineOptions, LocalModel, ModelText};
use byzerllm_model::config::CacheGroup;
use byzerllm_model::{ChatTemplate, Network, NetworkTraits, PackedBatch, Rows, SpecialTokens};
use futures::StreamExt;
use serde_json::json;

use crate::fake::{END, VOCAB};
use crate::text::{block_on, tokenizer};

const TEMPLATE: &str = "{% for t in tools %}{{ t.function.name }} {{ t.function.parameters | tojson }} <tool_call>\n{% endfor %}\
    {% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}<think> is known.";

/// Says its bytes after whatever prompt comes first, then ends. Afterwards it says nothing that is allowed.
struct Script {
    traits: NetworkTraits,
    bytes: Vec<u8>,
    prompt: AtomicUsize,
    logits: Vec<f32>,
}

impl Script {
    fn new(text: &str) -> Self {
        let traits = NetworkTraits {
            vocab_size: VOCAB,
            hidden_size: 1,
            context_length: 2048,
            position_width: 1,
            block_bytes: vec![100],
            cache_groups: vec![CacheGroup { layers: vec![0], window: None, floats_per_token: 1 }],
            chunkable_prefill: true,
            shareable_prefix: true,
            weight_bytes: 0,
            block_tokens: 16,
            compute: "script".to_owned(),
        };
        Self { traits, bytes: text.as_bytes().to_vec(), prompt: AtomicUsize::new(0), logits: Vec::new() }
    }
}

impl Network for Script {
    fn traits(&self) -> &NetworkTraits {
        &self.traits
    }

    fn allocate_cache(&mut self, _blocks: &[usize]) -> Result<()> {
        Ok(())
    }

    fn copy_block(&mut self, _group: usize, _from: u32, _to: u32) {}

    fn forward(&mut self, batch: &PackedBatch<'_>) -> Result<Rows<'_>> {
        self.logits.clear();
        for &row in batch.rows {
            let place = batch.positions[row as usize] as usize + 1;
            if self.prompt.load(Ordering::Relaxed) == 0 {
                self.prompt.store(place, Ordering::Relaxed);
            }
            let said = place - self.prompt.load(Ordering::Relaxed);
            let next = self.bytes.get(said).map_or(END as usize, |&byte| usize::from(byte));
            let start = self.logits.len();
            self.logits.resize(start + VOCAB, 0.0);
            self.logits[start + next] = 50.0;
        }
        Ok(Rows::new(&self.logits, VOCAB))
    }
}

fn model(template: &str, text: &str) -> Arc<LocalModel> {
    let text_parts = ModelText {
        tokenizer: tokenizer(),
        template: Some(ChatTemplate::new(template, SpecialTokens::default()).unwrap()),
        end_tokens: vec![END],
        name: "script".to_owned(),
    };
    let options = EngineOptions { cache_bytes: 100 * 1024, ..EngineOptions::default() };
    Arc::new(LocalModel::start(Box::new(Script::new(text)), text_parts, options).unwrap())
}

fn request() -> ChatRequest {
    let city = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
        "additionalProperties": false});
    let weather = Tool {
        name: "weather".to_owned(),
        description: Some("w".to_owned()),
        parameters: Some(city),
        strict: false,
    };
    let input = Input::Messages(vec![Message::new(Role::User, "Hi")]);
    ChatRequest {
        tools: vec![weather],
        sampling: Sampling { temperature: Some(0.0), max_tokens: Some(200), ..Sampling::default() },
        ..ChatRequest::new("script", input)
    }
}

fn answer(text: &str, request: ChatRequest) -> ChatResponse {
    let model = model(TEMPLATE, text);
    block_on(async { collect(model.chat(request, RequestContext::local()).await.unwrap()).await.unwrap() })
}

fn refusal(template: &str, request: ChatRequest) -> (ErrorKind, Option<String>) {
    let model = model(template, "x");
    let outcome = block_on(model.chat(request, RequestContext::local()));
    let error = outcome.err().expect("a refusal");
    (error.kind(), error.param().map(str::to_owned))
}

const CALL: &str = "<think>\nRain?\n</think>\n\nOne moment.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Łódź\"}}\n</tool_call>";

#[test]
fn calls_and_reasoning_leave_the_text() {
    let response = answer(CALL, request());
    let choice = &response.choices[0];
    assert_eq!((choice.text.as_str(), choice.reasoning.as_str()), ("One moment.", "Rain?"));
    assert_eq!(choice.finish_reason, FinishReason::ToolCalls);
    let [(id, name, arguments)] = &choice.tool_calls[..] else { panic!("{:?}", choice.tool_calls) };
    assert!(id.starts_with("call_") && id.len() > 20, "{id}");
    assert_eq!((name.as_str(), arguments.as_str()), ("weather", "{\"city\": \"Łódź\"}"));
    assert!(response.usage.reasoning_tokens > 0);
    assert!(response.usage.reasoning_tokens < response.usage.completion_tokens);
}

#[test]
fn arguments_come_as_they_are_written() {
    let model = model(TEMPLATE, CALL);
    let events: Vec<Event> = block_on(async {
        let stream = model.chat(request(), RequestContext::local()).await.unwrap();
        stream.map(|event| event.unwrap()).collect().await
    });
    let pieces: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            Event::ToolCall { delta, .. } if !delta.arguments.is_empty() => Some(delta.arguments.as_str()),
            _ => None,
        })
        .collect();
    assert!(pieces.len() > 5, "{pieces:?}");
}

#[test]
fn log_probabilities_cover_every_token() {
    let mut request = request();
    request.sampling.logprobs = Some(0);
    let response = answer(CALL, request);
    assert_eq!(response.choices[0].logprobs.as_ref().unwrap().len(), CALL.len());
    assert_eq!(response.choices[0].text, "One moment.");
}

#[test]
fn an_invalid_call_is_text_with_a_notice() {
    let text = "<tool_call>{\"name\": \"rm\", \"arguments\": {}}</tool_call>";
    let response = answer(text, request());
    let choice = &response.choices[0];
    assert_eq!((choice.text.as_str(), &choice.finish_reason), (text, &FinishReason::Stop));
    assert!(choice.tool_calls.is_empty());
    let reason = "there is no tool 'rm'".to_owned();
    assert!(
        response.notices.contains(&Notice::InvalidToolCall { choice: 0, reason }),
        "{:?}",
        response.notices
    );
}

#[test]
fn a_call_that_breaks_while_it_is_sent_fails_its_choice() {
    let response =
        answer("<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": Paris}}</tool_call>", request());
    let FinishReason::Error(detail) = &response.choices[0].finish_reason else {
        panic!("{:?}", response.choices)
    };
    assert_eq!(detail.kind, ErrorKind::Upstream);
    // The token limit is no mistake of the model.
    let mut short = request();
    short.sampling.max_tokens = Some(60);
    let cut =
        answer("<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris, France\"}}", short);
    assert_eq!(cut.choices[0].finish_reason, FinishReason::Length);
}

#[test]
fn without_tools_or_with_none_calls_are_text() {
    let text = "<tool_call>{\"name\": \"weather\"}</tool_call>";
    for change in [(|request: &mut ChatRequest| request.tools.clear()) as fn(&mut ChatRequest), |request| {
        request.tool_choice = ToolChoice::None;
    }] {
        let mut request = request();
        change(&mut request);
        let response = answer(text, request);
        assert_eq!(response.choices[0].text, text);
        assert_eq!(response.choices[0].finish_reason, FinishReason::Stop);
    }
}

#[test]
fn required_and_named_calls_are_enforced() {
    for choice in [ToolChoice::Required, ToolChoice::Named("weather".to_owned())] {
        let mut request = request();
        request.tool_choice = choice;
        request.sampling.max_tokens = Some(1000);
        // The network wants to say something else; whatever it says, it says it as a call.
        request.sampling.logit_bias = Some([(u32::from(b'"'), 60.0)].into());
        let response = answer("No, I will not.", request);
        let choice = &response.choices[0];
        assert_eq!(choice.finish_reason, FinishReason::ToolCalls, "{choice:?}");
        assert_eq!((choice.text.as_str(), choice.tool_calls[0].1.as_str()), ("", "weather"));
        let arguments: serde_json::Value = serde_json::from_str(&choice.tool_calls[0].2).unwrap();
        assert!(arguments["city"].is_string(), "{arguments}");
    }
}

#[test]
fn what_a_model_cannot_do_is_refused() {
    let tools = Some("tools".to_owned());
    let plain = "{{ messages[0].content }}";
    assert_eq!(refusal(plain, request()), (ErrorKind::Unsupported, tools.clone()));
    let unknown = "{{ tools }}{{ messages[0].content }}";
    assert_eq!(refusal(unknown, request()), (ErrorKind::Unsupported, tools.clone()));
    let text = ChatRequest { input: Input::Text("x".to_owned()), ..request() };
    assert_eq!(refusal(TEMPLATE, text), (ErrorKind::InvalidRequest, tools.clone()));
    let format = ChatRequest { format: ResponseFormat::JsonObject, ..request() };
    assert_eq!(refusal(TEMPLATE, format).1.as_deref(), Some("response_format"));
    let twice = ChatRequest { tools: [request().tools, request().tools].concat(), ..request() };
    assert_eq!(refusal(TEMPLATE, twice), (ErrorKind::InvalidRequest, tools));
    for choice in [ToolChoice::Named("rm".to_owned()), ToolChoice::Required] {
        let named = choice != ToolChoice::Required;
        let tools = if named { request().tools } else { Vec::new() };
        let request = ChatRequest { tool_choice: choice, tools, ..request() };
        assert_eq!(refusal(TEMPLATE, request).1.as_deref(), Some("tool_choice"));
    }
}

#[test]
fn tokens_become_text_again() {
    let model = model(TEMPLATE, "x");
    let ids = model.tokenize("Łódź <s>").unwrap();
    assert_eq!(model.detokenize(&ids).unwrap(), "Łódź <s>");
    assert_eq!(model.detokenize(&[VOCAB as u32]).unwrap_err().kind(), ErrorKind::InvalidRequest);
}

const TWO: &str = "Hm. <tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}</tool_call>\n\
    <tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}</tool_call>";

#[test]
fn without_parallel_calls_the_first_one_ends_the_answer() {
    let response = answer(TWO, request());
    assert_eq!(response.choices[0].tool_calls.len(), 2);
    let all = response.usage.completion_tokens;
    for change in [|_: &mut ChatRequest| {}, |request: &mut ChatRequest| request.tools[0].strict = true] {
        let mut request = ChatRequest { parallel_tool_calls: false, ..request() };
        change(&mut request);
        let response = answer(TWO, request);
        let choice = &response.choices[0];
        assert_eq!((choice.text.as_str(), &choice.finish_reason), ("Hm.", &FinishReason::ToolCalls));
        let [(_, name, arguments)] = &choice.tool_calls[..] else { panic!("{:?}", choice.tool_calls) };
        assert_eq!((name.as_str(), arguments.as_str()), ("weather", "{\"city\": \"Paris\"}"));
        assert!(response.usage.completion_tokens < all);
    }
}

#[test]
fn strict_tools_are_enforced_while_the_model_decides() {
    let mut strict = request();
    strict.tools[0].strict = true;
    strict.tools[0].parameters = Some(
        json!({"type": "object", "properties": {"city": {"enum": ["Rome"]}}, "required": ["city"], "additionalProperties": false}),
    );
    // What is no call is free, what is one obeys, whatever the network wants to say.
    let response = answer("No, I <b> will not.", strict.clone());
    assert_eq!(response.choices[0].text, "No, I <b> will not.");
    let wrong = "Let me see. <tool_call>{\"name\": \"weather\", \"arguments\": {\"town\": 7}}</tool_call>";
    let response = answer(wrong, strict);
    let choice = &response.choices[0];
    assert_eq!((choice.text.as_str(), &choice.finish_reason), ("Let me see.", &FinishReason::ToolCalls));
    let arguments: serde_json::Value = serde_json::from_str(&choice.tool_calls[0].2).unwrap();
    assert_eq!(arguments, json!({"city": "Rome"}));
    // Without strict it is passed on as it is written.
    let response = answer(wrong, request());
    assert_eq!(response.choices[0].tool_calls[0].2, "{\"town\": 7}");
}
