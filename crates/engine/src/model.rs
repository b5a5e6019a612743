//! A deployed model: validates requests, turns input into ids and the engine's updates into events.

use std::fmt;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use async_trait::async_trait;
use byzerllm_core::{
    ChatModel, ChatRequest, Error, ErrorKind, EventStream, Input, Message, Part, RequestContext, Result,
    Sampling,
};
use byzerllm_model::{Adapter, ChatTemplate, Network, Tokenizer};
use futures::StreamExt;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::adapters::{AdapterStatus, Names};
use crate::adjust::Adjustments;
use crate::answer::{Answer, AnswerSetup};
use crate::compiler::Compiler;
use crate::constraint::ConstraintSpec;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::intake::{Shared, Submission};
use crate::metrics::EngineMetrics;
use crate::options::{EngineOptions, random};
use crate::prefix::KeyMaker;
use crate::probe::ProbeState;
use crate::sampler::SamplerSettings;
use crate::scheduler::{Scheduler, SchedulerConfig};
use crate::token_stream::{TokenRequest, TokenStream};
use crate::tools::{self, Format, Reading};

/// Text of at least so many bytes is encoded off the caller's task.
const LARGE_INPUT: usize = 16 << 10;

/// Inputs that are rendered and encoded off their callers' tasks at the same time.
const RENDERERS: usize = 2;

/// What a model needs besides its network to read and write text.
#[derive(Debug, Clone)]
pub struct ModelText {
    /// Text to ids and back.
    pub tokenizer: Tokenizer,
    /// Renders conversations.
    pub template: Option<ChatTemplate>,
    /// Tokens that end an answer.
    pub end_tokens: Vec<u32>,
    /// The deployment's name, for messages.
    pub name: String,
}

impl ModelText {
    fn render(
        &self,
        messages: &[Message],
        tools: Option<&Value>,
        add_generation_prompt: bool,
    ) -> Result<String> {
        let template =
            self.template.as_ref().ok_or_else(|| EngineError::NoTemplate { name: self.name.clone() })?;
        if messages.is_empty() {
            return Err(Error::invalid(
                "messages",
                "the conversation is empty; give it at least one message",
            ));
        }
        self.check_images(messages)?;
        Ok(template.render(messages, tools, add_generation_prompt)?)
    }

    /// Refuses pictures, which a template would leave out without a word.
    fn check_images(&self, messages: &[Message]) -> Result<()> {
        let is_image = |part: &Part| matches!(part, Part::Image { .. });
        let image = messages.iter().enumerate().find_map(|(place, message)| {
            message.parts.iter().position(is_image).map(|part| format!("messages[{place}].content[{part}]"))
        });
        match image {
            Some(place) => {
                let message =
                    format!("`{place}` is an image, and '{}' takes text only; remove it", self.name);
                Err(Error::new(ErrorKind::Unsupported, message).with_param(place))
            }
            None => Ok(()),
        }
    }

    /// The prompt's ids and the rendered conversation. A rendered template writes its own special tokens, so that none are added to it.
    fn ids(&self, input: &Input, tools: Option<&Value>) -> Result<(Vec<u32>, String)> {
        let mut rendered = String::new();
        let ids = match input {
            Input::Messages(messages) => {
                rendered = self.render(messages, tools, true)?;
                self.tokenizer.encode(&rendered, false)?
            }
            Input::Text(text) => self.tokenizer.encode(text, true)?,
            Input::Tokens(ids) => ids.clone(),
        };
        if ids.is_empty() {
            // What the tokenizer puts around an empty text can stand alone.
            return Ok((self.tokenizer.encode("", true)?, rendered));
        }
        Ok((ids, rendered))
    }
}

/// A model that our own engine runs. Dropping it ends the engine's thread.
pub struct LocalModel {
    pub(crate) shared: Arc<Shared>,
    pub(crate) probe: ProbeState,
    text: Arc<ModelText>,
    compiler: Arc<Compiler>,
    /// Places to render conversations in.
    renderers: Arc<Semaphore>,
    adapters: Names,
    vocab_size: usize,
    context_length: usize,
    max_sequences: usize,
}

impl fmt::Debug for LocalModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalModel").field("name", &self.text.name).finish_non_exhaustive()
    }
}

impl LocalModel {
    /// Allocates the cache and starts the engine's thread.
    ///
    /// # Errors
    /// [`byzerllm_core::ErrorKind::InvalidRequest`] when the cache cannot hold one context, or the network's own error.
    pub fn start(
        mut network: Box<dyn Network>,
        text: ModelText,
        options: EngineOptions,
    ) -> Result<LocalModel> {
        let traits = network.traits();
        if traits.block_bytes.len() != traits.cache_groups.len() {
            return Err(EngineError::Layout("block_bytes and cache_groups differ in length").into());
        }
        if traits.block_tokens == 0 || traits.position_width == 0 || traits.vocab_size == 0 {
            return Err(EngineError::Layout("a size is 0").into());
        }
        let (queue_limit, prefix_cache) = (options.queue_limit, options.prefix_cache);
        let keys = KeyMaker::new(options.hash_key);
        let limits = options.limits(traits)?;
        let (vocab_size, context_length) = (traits.vocab_size, limits.context_length);
        let max_sequences = limits.max_sequences;
        let config = SchedulerConfig::new(traits, limits, prefix_cache);
        network.allocate_cache(&config.limits.blocks)?;
        let (commands, receiver) = mpsc::channel();
        let shared = Arc::new(Shared::new(text.name.clone(), commands, queue_limit, max_sequences));
        let scheduler = Scheduler::new(config, keys);
        let engine = Engine::new(network, scheduler, receiver, shared.clone());
        std::thread::Builder::new()
            .name("byzerllm-engine".to_owned())
            // Grammars nest as deeply as their authors like.
            .stack_size(16 << 20)
            .spawn({
                let shared = shared.clone();
                move || {
                    engine.run();
                    shared.gone.send_replace(true);
                }
            })
            .map_err(EngineError::Thread)?;
        let text = Arc::new(text);
        Ok(Self {
            shared,
            probe: ProbeState::default(),
            compiler: Compiler::new(text.clone(), vocab_size),
            text,
            renderers: Arc::new(Semaphore::new(RENDERERS)),
            adapters: Names::default(),
            vocab_size,
            context_length,
            max_sequences,
        })
    }

    /// The engine's numbers as of its last step.
    #[must_use]
    pub fn metrics(&self) -> EngineMetrics {
        let metrics = self.shared.gauges.snapshot();
        // Requests that the engine's thread has not seen yet wait too.
        EngineMetrics { waiting: metrics.waiting.max(self.shared.queued()), ..metrics }
    }

    /// Tokens that fit into one sequence.
    #[must_use]
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// Takes an adapter between two steps, on a thread that may wait for one; requests whose model is `deployment:name` use it from then on. Streams go
    /// on meanwhile.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when the name is taken, [`ErrorKind::Unsupported`] when the network takes none.
    pub fn load_adapter(&self, name: &str, adapter: Adapter) -> Result<()> {
        self.adapters.load(&self.shared, name, adapter)
    }

    /// Refuses new requests for an adapter at once, and returns when those that use it have ended and its memory is
    /// free. Dropping the future does not stop that.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], naming the nearest name.
    pub async fn unload_adapter(&self, name: &str) -> Result<()> {
        self.adapters.unload(&self.shared, &self.text.name, name).await
    }

    /// The adapters that requests can use, by name.
    #[must_use]
    pub fn adapters(&self) -> Vec<AdapterStatus> {
        self.adapters.list()
    }

    /// Tells the engine to end after the step in work; what still runs fails with [`byzerllm_core::ErrorKind::Unavailable`].
    pub fn shutdown(&self) {
        self.shared.stop();
    }

    /// Waits until the engine's thread has ended and freed the network's memory.
    pub async fn closed(&self) {
        let mut gone = self.shared.gone.subscribe();
        // The sender lives as long as `self`.
        let _ = gone.wait_for(|gone| *gone).await;
    }

    /// Generates ids from ids, without text: for measurements.
    ///
    /// # Errors
    /// As [`ChatModel::chat`].
    pub fn token_stream(&self, request: TokenRequest) -> Result<TokenStream> {
        let adapter = request.adapter.map(|name| self.adapters.lease(&self.text.name, &name)).transpose()?;
        let mut sampling = request.sampling;
        self.check_sampling(&sampling)?;
        if request.ignore_end {
            sampling.ignore_end = Some(true);
            sampling.stop_token_ids = None;
        }
        let max_tokens = self.check_length(request.prompt.len(), sampling.max_tokens, false)?;
        check_min_tokens(&sampling, max_tokens)?;
        let submission = Submission {
            max_tokens,
            choices: 1,
            settings: self.settings(&sampling),
            adjustments: Adjustments::new(&sampling, &request.prompt),
            constraints: Vec::new(),
            end_tokens: self.end_tokens(&sampling),
            ignored_end: self.ignored_end(&sampling),
            logprobs: None,
            prompt_logprobs: None,
            deadline: None,
            domain: request.domain,
            adapter,
            prompt: self.check_ids(request.prompt)?,
        };
        Ok(TokenStream::new(self.shared.submit(submission)?))
    }

    fn settings(&self, sampling: &Sampling) -> SamplerSettings {
        SamplerSettings::new(sampling, || u64::from_le_bytes(random()))
    }

    fn end_tokens(&self, sampling: &Sampling) -> Vec<u32> {
        let asked = sampling.stop_token_ids.as_deref().unwrap_or_default();
        let own = if ignores_end(sampling) { &[][..] } else { &self.text.end_tokens[..] };
        let mut ids = [own, asked].concat();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn ignored_end(&self, sampling: &Sampling) -> Vec<u32> {
        if ignores_end(sampling) { self.text.end_tokens.clone() } else { Vec::new() }
    }

    fn check_ids(&self, ids: Vec<u32>) -> Result<Vec<u32>, EngineError> {
        if ids.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        match ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            Some(&id) => Err(EngineError::UnknownToken { id, vocab_size: self.vocab_size }),
            None => Ok(ids),
        }
    }

    /// How many tokens may follow a prompt. What does not fit is refused, unless it may be clipped to the room.
    fn check_length(&self, prompt: usize, max_tokens: Option<u32>, clip: bool) -> Result<u32, EngineError> {
        let context_length = self.context_length;
        let too_long = EngineError::TooLong { prompt, max_tokens, context_length };
        let room = context_length.checked_sub(prompt);
        match (room, max_tokens) {
            (Some(room), Some(max_tokens)) if max_tokens as usize <= room => Ok(max_tokens),
            (Some(room), None) if room > 0 => Ok(u32::try_from(room).unwrap_or(u32::MAX)),
            (Some(room), Some(_)) if room > 0 && clip => Ok(u32::try_from(room).unwrap_or(u32::MAX)),
            _ => Err(too_long),
        }
    }

    /// Renders and encodes the input. A template is a stranger's program that may use all it is allowed to, so a
    /// conversation is rendered off the caller's task, a few at a time; and so is a large text.
    async fn prompt_ids(&self, request: &ChatRequest) -> Result<(Vec<u32>, String)> {
        let input = &request.input;
        let tools = (!request.tools.is_empty()).then(|| tools::for_template(&request.tools));
        let small = match input {
            Input::Messages(_) => false,
            Input::Text(text) => text.len() < LARGE_INPUT,
            Input::Tokens(_) => true,
        };
        if small || tokio::runtime::Handle::try_current().is_err() {
            return self.text.ids(input, tools.as_ref());
        }
        let broken = || Error::internal("the prompt could not be encoded; please report this");
        let place = self.renderers.clone().acquire_owned().await.map_err(|_| broken())?;
        let (text, input) = (self.text.clone(), input.clone());
        let render = move || {
            let ids = text.ids(&input, tools.as_ref());
            drop(place);
            ids
        };
        tokio::task::spawn_blocking(render).await.map_err(|error| broken().with_source(error))?
    }

    fn check_sampling(&self, sampling: &Sampling) -> Result<()> {
        sampling.validate()?;
        let mut biased = sampling.logit_bias.iter().flatten().map(|(&id, _)| id);
        match biased.find(|&id| id as usize >= self.vocab_size) {
            Some(id) => Err(EngineError::BiasedToken { id, vocab_size: self.vocab_size }.into()),
            None => Ok(()),
        }
    }

    /// Refuses parameters that only models of vendors have.
    fn check_vendors_words(&self, request: &ChatRequest) -> Result<()> {
        let name = &self.text.name;
        if let Some(parameter) = request.extra.keys().next() {
            let shown: String = parameter.chars().take(64).collect();
            let message = format!("'{name}' runs here and has no parameter `{shown}` of its own; remove it");
            return Err(Error::invalid(shown, message));
        }
        Ok(())
    }

    fn validate(&self, request: &ChatRequest, context: &RequestContext) -> Result<()> {
        self.check_sampling(&request.sampling)?;
        self.check_vendors_words(request)?;
        if request.n == 0 || request.n as usize > self.max_sequences {
            return Err(EngineError::Choices { n: request.n, limit: self.max_sequences }.into());
        }
        if let Some(best_of) = request.best_of
            && (best_of < request.n || best_of as usize > self.max_sequences)
        {
            return Err(EngineError::BestOf { best_of, n: request.n, limit: self.max_sequences }.into());
        }
        if let Some(top) = request.prompt_logprobs.filter(|&top| top > Sampling::MAX_LOGPROBS) {
            let max = Sampling::MAX_LOGPROBS;
            let message = format!("prompt_logprobs must be at most {max}, got {top}");
            return Err(Error::invalid("prompt_logprobs", message));
        }
        if context.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(EngineError::Late.into());
        }
        Ok(self.shared.alive()?)
    }

    /// What the answer must look like.
    fn constraint_of(
        &self,
        request: &ChatRequest,
        format: Option<&'static Format>,
        opened: Option<bool>,
    ) -> Option<ConstraintSpec> {
        let tokenizer = &self.text.tokenizer;
        let special = |text: &str| match tokenizer.encode(text, false).ok()?[..] {
            [id] => tokenizer.is_special(id).then_some(id),
            _ => None,
        };
        format
            .and_then(|format| tools::constraint(format, request, &special, opened))
            .or_else(|| ConstraintSpec::of(&request.format))
    }

    /// What the answer's text may hold beside text.
    fn reading(&self, request: &ChatRequest, prompt: &str, format: Option<&'static Format>) -> Reading {
        match (&request.input, &self.text.template) {
            (Input::Messages(_), Some(template)) => {
                let names = || request.tools.iter().map(|tool| tool.name.clone()).collect();
                let source = template.source_for(!request.tools.is_empty());
                Reading::new(source, prompt, format.map(|format| (format, names())))
                    .with_single_call(!request.parallel_tool_calls)
            }
            _ => Reading::default(),
        }
    }
}

fn ignores_end(sampling: &Sampling) -> bool {
    sampling.ignore_end.unwrap_or(false)
}

fn check_min_tokens(sampling: &Sampling, max_tokens: u32) -> Result<(), EngineError> {
    match sampling.min_tokens {
        Some(min_tokens) if min_tokens > max_tokens => Err(EngineError::MinTokens { min_tokens, max_tokens }),
        _ => Ok(()),
    }
}

impl Drop for LocalModel {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

#[async_trait]
impl ChatModel for LocalModel {
    async fn chat(&self, request: ChatRequest, context: RequestContext) -> Result<EventStream> {
        self.validate(&request, &context)?;
        let adapter = self.adapters.of_model(&request.model)?;
        let format = tools::format_of(&request, self.text.template.as_ref())?;
        let (prompt, rendered) = self.prompt_ids(&request).await?;
        let prompt = self.check_ids(prompt)?;
        let reading = self.reading(&request, &rendered, format);
        let sampling = &request.sampling;
        let max_tokens = self.check_length(prompt.len(), sampling.max_tokens, request.clip_max_tokens)?;
        check_min_tokens(sampling, max_tokens)?;
        let candidates = request.best_of.unwrap_or(request.n);
        let keep = (candidates > request.n).then_some(request.n);
        let constraints = match self.constraint_of(&request, format, reading.opened()) {
            Some(spec) => self.compiler.constraints(spec, candidates, context.deadline).await?,
            None => Vec::new(),
        };
        let mut decoder = self.text.tokenizer.decoder(!format.is_some_and(Format::special));
        let mut echo = String::new();
        // The answer to a conversation is a text of its own; other answers continue the prompt's text.
        if !matches!(request.input, Input::Messages(_)) || request.echo {
            let mut reader = decoder.clone();
            prompt.iter().for_each(|&id| reader.push_to(id, &mut echo));
            if !matches!(request.input, Input::Messages(_)) {
                decoder = reader;
            }
        }
        if let Input::Text(text) = request.input {
            echo = text;
        }
        let setup = AnswerSetup {
            request_id: context.id,
            choices: candidates,
            keep,
            min_tokens: sampling.min_tokens.unwrap_or(0),
            stops: sampling.stop.clone().unwrap_or_default(),
            logprobs: sampling.logprobs.is_some(),
            prompt_logprobs: request.prompt_logprobs.is_some(),
            echo: request.echo.then_some(echo),
            first_prompt_token: prompt[0],
            prompt_tokens: prompt.len() as u32,
            decoder,
            reading,
            on_usage: context.on_usage,
        };
        let submission = Submission {
            choices: candidates,
            settings: self.settings(sampling),
            adjustments: Adjustments::new(sampling, &prompt),
            constraints,
            max_tokens,
            end_tokens: self.end_tokens(sampling),
            ignored_end: self.ignored_end(sampling),
            // Candidates are compared by their log probabilities.
            logprobs: sampling.logprobs.or(keep.map(|_| 0)),
            prompt_logprobs: request.prompt_logprobs,
            deadline: context.deadline,
            domain: context.principal.domain,
            adapter,
            prompt,
        };
        let ticket = self.shared.submit(submission)?;
        let answer = Answer::new(ticket, self.text.clone(), setup).boxed();
        Ok(byzerllm_core::testing::checked(answer, request.n))
    }

    fn apply_template(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        self.text.render(messages, None, add_generation_prompt)
    }

    fn tokenize(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.text.tokenizer.encode(text, false)?)
    }

    async fn count_tokens(&self, request: &ChatRequest) -> Result<u32> {
        self.check_vendors_words(request)?;
        tools::format_of(request, self.text.template.as_ref())?;
        let (prompt, _) = self.prompt_ids(request).await?;
        Ok(u32::try_from(prompt.len()).unwrap_or(u32::MAX))
    }

    fn detokenize(&self, ids: &[u32]) -> Result<String> {
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            return Err(EngineError::UnknownToken { id, vocab_size: self.vocab_size }.into());
        }
        let mut decoder = self.text.tokenizer.decoder(false);
        let mut text = String::new();
        ids.iter().for_each(|&id| decoder.push_to(id, &mut text));
        text.push_str(&decoder.finish().unwrap_or_default());
        Ok(text)
    }
}
