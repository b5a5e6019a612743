//! A chat request in OpenAI's words.

use byzerllm_core::{ChatRequest, Error, ErrorKind, ResponseFormat, Result, ToolChoice};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::message::{WireMessage, messages};
use super::{Quirks, Takes};

/// The body of a chat request.
#[derive(Debug, Serialize)]
pub struct Body<'a> {
    /// The model's name at the vendor.
    pub model: &'a str,
    /// The conversation.
    pub messages: Vec<WireMessage<'a>>,
    /// Whether the answer comes piece by piece.
    pub stream: bool,
    /// What a stream reports beside the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<Value>,
    /// Randomness.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// Nucleus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// How many choices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<u32>,
    /// The tools.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<WireTool<'a>>,
    /// What is sent as it stands: the rest of the parameters, and [`ChatRequest::extra`].
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A tool.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum WireTool<'a> {
    /// A function.
    Function {
        /// `function`.
        r#type: &'static str,
        /// The function.
        function: WireFunction<'a>,
    },
    /// A tool that the vendor runs itself.
    Own(Value),
}

/// A function that the model may call.
#[derive(Debug, Serialize)]
pub struct WireFunction<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<&'a Value>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    strict: bool,
}

/// Writes a request, or names what the vendor does not take.
pub(super) fn encode(quirks: &Quirks, model: &str, request: &ChatRequest) -> Result<Vec<u8>> {
    let refuse = Refusals { quirks };
    refuse.impossible(request)?;
    let mut body = Body {
        model,
        messages: messages(quirks, &request.input)?,
        stream: !request.whole,
        stream_options: (!request.whole && quirks.stream_options).then(|| json!({"include_usage": true})),
        temperature: None,
        top_p: None,
        n: (request.n != 1).then_some(request.n),
        tools: tools(quirks, request)?,
        rest: Map::new(),
    };
    if request.n != 1 {
        refuse.unless(Takes::N, "n")?;
    }
    sampling(quirks, request, &mut body)?;
    choice(quirks, request, &mut body)?;
    format(quirks, &request.format, &mut body)?;
    for (name, value) in &request.extra {
        if !quirks.extra.contains(&name.as_str()) {
            return Err(refuse.extra(name));
        }
        if !quirks.extra_tools.contains(&name.as_str()) {
            body.rest.insert(name.clone(), value.clone());
        }
    }
    if let Some(adjust) = quirks.adjust {
        adjust(&mut body)?;
    }
    serde_json::to_vec(&body)
        .map_err(|error| Error::internal("a request cannot be written as JSON").with_source(error))
}

struct Refusals<'a> {
    quirks: &'a Quirks,
}

impl Refusals<'_> {
    fn unless(&self, takes: Takes, name: &'static str) -> Result<()> {
        if self.quirks.takes.has(takes) { Ok(()) } else { Err(self.unsupported(name)) }
    }

    fn unsupported(&self, name: &'static str) -> Error {
        let message = format!("{} takes no '{name}' for this model; leave it out", self.quirks.vendor);
        Error::new(ErrorKind::Unsupported, message).with_param(name)
    }

    fn extra(&self, name: &str) -> Error {
        let vendor = self.quirks.vendor;
        let near = byzerllm_core::nearest(name, self.quirks.extra.iter().copied());
        let shown: String = name.chars().take(64).collect();
        let shown = shown.escape_debug();
        let hint = near.map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
        Error::new(ErrorKind::Unsupported, format!("{vendor} knows no parameter '{shown}'{hint}"))
            .with_param(name.to_owned())
    }

    /// What no vendor of this dialect has.
    fn impossible(&self, request: &ChatRequest) -> Result<()> {
        let best_of = request.best_of.is_some_and(|best_of| best_of != request.n);
        for (given, name) in [
            (request.echo, "echo"),
            (best_of, "best_of"),
            (request.prompt_logprobs.is_some(), "prompt_logprobs"),
        ] {
            if given {
                return Err(self.unsupported(name));
            }
        }
        Ok(())
    }
}

fn sampling(quirks: &Quirks, request: &ChatRequest, body: &mut Body<'_>) -> Result<()> {
    let refuse = Refusals { quirks };
    let given = &request.sampling;
    // A reasoning model has one temperature and one nucleus, 1: saying so is no request.
    let unless_one =
        |value: Option<f32>, takes| value.filter(|value| quirks.takes.has(takes) || *value != 1.0);
    if let Some(temperature) = unless_one(given.temperature, Takes::TEMPERATURE) {
        refuse.unless(Takes::TEMPERATURE, "temperature")?;
        let (low, high) = quirks.temperature;
        if temperature < low || temperature > high {
            let message =
                format!("{} takes a temperature between {low} and {high}, got {temperature}", quirks.vendor);
            return Err(Error::invalid("temperature", message));
        }
        body.temperature = Some(temperature);
    }
    if let Some(top_p) = unless_one(given.top_p, Takes::TOP_P) {
        refuse.unless(Takes::TOP_P, "top_p")?;
        let (high, excluded) = quirks.top_p;
        if top_p > high || (excluded && top_p >= high) {
            let bound = if excluded { "below" } else { "at most" };
            let message = format!("{} takes a top_p above 0 and {bound} {high}, got {top_p}", quirks.vendor);
            return Err(Error::invalid("top_p", message));
        }
        body.top_p = Some(top_p);
    }
    // Off is not asked for.
    let number = |value: Option<f32>, off: f32| value.filter(|value| *value != off).map(short);
    let stop = given.stop.as_ref().filter(|stop| !stop.is_empty());
    if let Some(stop) = stop
        && stop.len() > quirks.max_stop
        && quirks.takes.has(Takes::STOP)
    {
        let (vendor, max) = (quirks.vendor, quirks.max_stop);
        return Err(Error::invalid(
            "stop",
            format!("{vendor} takes at most {max} stop strings, got {}", stop.len()),
        ));
    }
    let ids = given.stop_token_ids.as_ref().filter(|ids| !ids.is_empty());
    let bias = given.logit_bias.as_ref().filter(|bias| !bias.is_empty());
    let bias = bias.map(|bias| bias.iter().map(|(id, bias)| (id.to_string(), short(*bias))).collect());
    let rest: [(Takes, &'static str, &'static str, Option<Value>); 14] = [
        (Takes::MAX_TOKENS, "max_tokens", quirks.max_tokens, given.max_tokens.map(Value::from)),
        (Takes::STOP, "stop", "stop", stop.map(|stop| json!(stop))),
        (Takes::SEED, "seed", "seed", given.seed.map(Value::from)),
        (
            Takes::PRESENCE_PENALTY,
            "presence_penalty",
            "presence_penalty",
            number(given.presence_penalty, 0.0),
        ),
        (
            Takes::FREQUENCY_PENALTY,
            "frequency_penalty",
            "frequency_penalty",
            number(given.frequency_penalty, 0.0),
        ),
        (Takes::LOGIT_BIAS, "logit_bias", "logit_bias", bias.map(Value::Object)),
        (Takes::LOGPROBS, "logprobs", "logprobs", given.logprobs.map(|_| Value::Bool(true))),
        (Takes::LOGPROBS, "logprobs", "top_logprobs", given.logprobs.filter(|k| *k > 0).map(Value::from)),
        (Takes::TOP_K, "top_k", "top_k", given.top_k.filter(|k| *k > 0).map(Value::from)),
        (Takes::MIN_P, "min_p", "min_p", number(given.min_p, 0.0)),
        (
            Takes::REPETITION_PENALTY,
            "repetition_penalty",
            "repetition_penalty",
            number(given.repetition_penalty, 1.0),
        ),
        (Takes::STOP_TOKEN_IDS, "stop_token_ids", "stop_token_ids", ids.map(|ids| json!(ids))),
        (Takes::IGNORE_END, "ignore_end", "ignore_eos", given.ignore_end.filter(|on| *on).map(Value::Bool)),
        (Takes::MIN_TOKENS, "min_tokens", "min_tokens", given.min_tokens.filter(|n| *n > 0).map(Value::from)),
    ];
    for (takes, name, wire, value) in rest {
        if let Some(value) = value {
            refuse.unless(takes, name)?;
            body.rest.insert(wire.to_owned(), value);
        }
    }
    Ok(())
}

/// A number as it was written: 1.1, not the 1.100000023841858 that its 32 bits are among those of 64.
fn short(number: f32) -> Value {
    number.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

fn tools<'a>(quirks: &Quirks, request: &'a ChatRequest) -> Result<Vec<WireTool<'a>>> {
    let refuse = Refusals { quirks };
    if !request.tools.is_empty() {
        refuse.unless(Takes::TOOLS, "tools")?;
    }
    if request.tools.iter().any(|tool| tool.strict) {
        refuse.unless(Takes::STRICT_TOOLS, "tools.strict")?;
    }
    let functions = request.tools.iter().map(|tool| WireTool::Function {
        r#type: "function",
        function: WireFunction {
            name: &tool.name,
            description: tool.description.as_deref(),
            parameters: tool.parameters.as_ref(),
            strict: tool.strict,
        },
    });
    let own = quirks.extra_tools.iter().filter_map(|name| {
        let value = request.extra.get(*name)?;
        Some(WireTool::Own(json!({"type": name, *name: value})))
    });
    Ok(functions.chain(own).collect())
}

fn choice(quirks: &Quirks, request: &ChatRequest, body: &mut Body<'_>) -> Result<()> {
    let refuse = Refusals { quirks };
    let (takes, choice) = match &request.tool_choice {
        ToolChoice::Auto => (Takes::NOTHING, None),
        ToolChoice::None if request.tools.is_empty() => (Takes::NOTHING, None),
        ToolChoice::None => (Takes::CHOICE_NONE, Some(json!("none"))),
        ToolChoice::Required => (Takes::CHOICE_REQUIRED, Some(json!("required"))),
        ToolChoice::Named(name) => {
            (Takes::CHOICE_NAMED, Some(json!({"type": "function", "function": {"name": name}})))
        }
    };
    if let Some(choice) = choice {
        refuse.unless(takes, "tool_choice")?;
        body.rest.insert("tool_choice".to_owned(), choice);
    }
    if !request.parallel_tool_calls && !request.tools.is_empty() {
        refuse.unless(Takes::ONE_CALL, "parallel_tool_calls")?;
        body.rest.insert("parallel_tool_calls".to_owned(), Value::Bool(false));
    }
    Ok(())
}

fn format(quirks: &Quirks, format: &ResponseFormat, body: &mut Body<'_>) -> Result<()> {
    let refuse = Refusals { quirks };
    let (name, value) = match format {
        ResponseFormat::Text => return Ok(()),
        ResponseFormat::JsonObject => {
            refuse.unless(Takes::JSON_OBJECT, "response_format")?;
            ("response_format", json!({"type": "json_object"}))
        }
        ResponseFormat::JsonSchema(schema) => {
            refuse.unless(Takes::JSON_SCHEMA, "response_format")?;
            let strict = quirks.strict_schemas;
            let named = json!({"name": "answer", "schema": schema, "strict": strict});
            ("response_format", json!({"type": "json_schema", "json_schema": named}))
        }
        ResponseFormat::Regex(regex) => {
            refuse.unless(Takes::STRUCTURED_OUTPUTS, "guided_decoding")?;
            ("structured_outputs", json!({"regex": regex}))
        }
        ResponseFormat::Grammar(grammar) => {
            refuse.unless(Takes::STRUCTURED_OUTPUTS, "guided_decoding")?;
            ("structured_outputs", json!({"grammar": grammar}))
        }
        ResponseFormat::Choice(choices) => {
            refuse.unless(Takes::STRUCTURED_OUTPUTS, "guided_decoding")?;
            ("structured_outputs", json!({"choice": choices}))
        }
    };
    body.rest.insert(name.to_owned(), value);
    Ok(())
}
