//! Saying no by name: what every dialect refuses in the same words.
//!
//! A parameter that a vendor does not know is refused, never dropped: the answer would be another one than was asked
//! for. A value that means "off" is no parameter.

use byzerllm_core::{ChatRequest, Error, ErrorKind, Input, ResponseFormat, Sampling, ToolChoice};
use http::HeaderMap;

/// The refusal of one parameter: [`ErrorKind::Unsupported`] with its name.
#[must_use]
pub fn refuse(parameter: &'static str, vendor: &str) -> Error {
    let message =
        format!("saas/{vendor} has no parameter '{parameter}'; leave it out, or choose another deployment");
    Error::new(ErrorKind::Unsupported, message).with_param(parameter)
}

/// The names of the parameters that a request uses and a vendor may lack. A value that means "off" does not count.
///
/// Sampling goes by the names of [`Sampling`]; beside them `echo`, `prompt_logprobs`, `best_of`, `n` (above 1),
/// `response_format` (JSON, with or without schema), `guided_decoding` (a regular expression, a grammar or a choice),
/// `tool_choice` (other than `auto`), `parallel_tool_calls` (when false), `prompt` (text instead of messages) and
/// `prompt_token_ids` (token ids instead of messages).
pub fn used(request: &ChatRequest) -> impl Iterator<Item = &'static str> {
    let Sampling {
        temperature,
        top_p,
        top_k,
        min_p,
        seed,
        max_tokens,
        stop,
        stop_token_ids,
        presence_penalty,
        frequency_penalty,
        repetition_penalty,
        logit_bias,
        ignore_end,
        min_tokens,
        logprobs,
    } = &request.sampling;
    let is_not =
        |value: &Option<f32>, off: f32| value.is_some_and(|value| (value - off).abs() > f32::EPSILON);
    let guided = matches!(
        request.format,
        ResponseFormat::Regex(_) | ResponseFormat::Grammar(_) | ResponseFormat::Choice(_)
    );
    let json = matches!(request.format, ResponseFormat::JsonObject | ResponseFormat::JsonSchema(_));
    let table = [
        ("prompt", matches!(request.input, Input::Text(_))),
        ("prompt_token_ids", matches!(request.input, Input::Tokens(_))),
        ("echo", request.echo),
        ("prompt_logprobs", request.prompt_logprobs.is_some()),
        ("n", request.n > 1),
        ("best_of", request.best_of.is_some_and(|best_of| best_of != request.n)),
        ("temperature", is_not(temperature, 1.0)),
        ("top_p", is_not(top_p, 1.0)),
        ("top_k", top_k.is_some_and(|top_k| top_k > 0)),
        ("min_p", is_not(min_p, 0.0)),
        ("seed", seed.is_some()),
        ("max_tokens", max_tokens.is_some()),
        ("stop", stop.as_ref().is_some_and(|stop| !stop.is_empty())),
        ("stop_token_ids", stop_token_ids.as_ref().is_some_and(|ids| !ids.is_empty())),
        ("presence_penalty", is_not(presence_penalty, 0.0)),
        ("frequency_penalty", is_not(frequency_penalty, 0.0)),
        ("repetition_penalty", is_not(repetition_penalty, 1.0)),
        ("logit_bias", logit_bias.as_ref().is_some_and(|bias| !bias.is_empty())),
        ("ignore_end", ignore_end.unwrap_or_default()),
        ("min_tokens", min_tokens.is_some_and(|tokens| tokens > 0)),
        ("logprobs", logprobs.is_some()),
        ("response_format", json),
        ("guided_decoding", guided),
        ("tool_choice", request.tool_choice != ToolChoice::Auto),
        ("parallel_tool_calls", !request.parallel_tool_calls),
    ];
    table.into_iter().filter(|(_, used)| *used).map(|(name, _)| name)
}

/// Refuses the first parameter that a request uses and that is not among the `known` ones, by the names of [`used`].
///
/// ```
/// use byzerllm_core::{ChatRequest, Input};
/// use byzerllm_providers::refusal::unspoken;
///
/// let mut request = ChatRequest::new("m", Input::Messages(Vec::new()));
/// request.sampling.top_p = Some(1.0); // off
/// assert!(unspoken(&request, "zhipu", &["temperature"]).is_ok());
/// request.sampling.top_k = Some(40);
/// assert_eq!(unspoken(&request, "zhipu", &["temperature"]).unwrap_err().param(), Some("top_k"));
/// ```
///
/// # Errors
/// [`ErrorKind::Unsupported`] with the parameter's name.
pub fn unspoken(request: &ChatRequest, vendor: &str, known: &[&str]) -> Result<(), Error> {
    match used(request).find(|name| !known.contains(name)) {
        Some(name) => Err(refuse(name, vendor)),
        None => Ok(()),
    }
}

/// The kind that a status means where the body says nothing better.
#[must_use]
pub const fn kind_of(status: u16) -> ErrorKind {
    match status {
        401 => ErrorKind::Unauthenticated,
        402 | 403 => ErrorKind::PermissionDenied,
        404 => ErrorKind::NotFound,
        408 | 504 => ErrorKind::DeadlineExceeded,
        409 => ErrorKind::Conflict,
        413 => ErrorKind::TooLarge,
        429 => ErrorKind::RateLimited,
        503 | 529 => ErrorKind::Overloaded,
        400..500 => ErrorKind::InvalidRequest,
        _ => ErrorKind::Upstream,
    }
}

/// The first of these header fields that is there, for the vendor's request id.
#[must_use]
pub fn header<'a>(headers: &'a HeaderMap, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| headers.get(*name)?.to_str().ok())
}
