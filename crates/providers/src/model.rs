//! A vendor's model behind our traits: transport, retries, accounting and the stream contract, once for all vendors.

use std::sync::Arc;

use async_trait::async_trait;
use byzerllm_core::{
    ChatModel, ChatRequest, EmbeddingModel, EmbeddingRequest, Embeddings, Error, ErrorKind, EventStream,
    Input, Message, ModelHandle, ModelInfo, RequestContext, Result, Task, nearest,
};
use serde_json::{Map, Value};

use crate::deployment::{Shared, number};
use crate::{Dialect, Features, Parameters, ProviderMetrics, Vendor};

/// The most choices of one request.
const MAX_CHOICES: u32 = 128;

/// A model at a vendor.
pub struct ProviderModel {
    shared: Arc<Shared>,
    info: Arc<ModelInfo>,
}

impl ProviderModel {
    /// Opens a vendor's dialect and its connections. Nothing is sent before the first request.
    ///
    /// # Errors
    /// What the vendor finds wrong with the parameters; a certificate file that cannot be read.
    pub fn open(vendor: &'static Vendor, deployment: &str, parameters: &Parameters) -> Result<Arc<Self>> {
        let shared = Shared::open(vendor, deployment, parameters)?;
        let info = info(vendor, &*shared.dialect, parameters);
        Ok(Arc::new(Self { shared: Arc::new(shared), info: Arc::new(info) }))
    }

    /// What it can do.
    #[must_use]
    pub fn handle(self: &Arc<Self>) -> ModelHandle {
        let Features { chat, embeddings, .. } = self.shared.features;
        ModelHandle {
            info: Arc::clone(&self.info),
            defaults: self.shared.dialect.defaults(),
            chat: chat.then(|| Arc::clone(self) as Arc<dyn ChatModel>),
            embed: embeddings.then(|| Arc::clone(self) as Arc<dyn EmbeddingModel>),
            rerank: None,
        }
    }

    /// What it has done so far.
    #[must_use]
    pub fn metrics(&self) -> ProviderMetrics {
        self.shared.counters.read(self.shared.breaker.state())
    }

    fn no_tokenizer(&self, what: &str) -> Error {
        let vendor = self.shared.vendor;
        let message =
            format!("saas/{vendor} {what} on its side only; use a deployment with a local model for this");
        Error::new(ErrorKind::Unsupported, message)
    }
}

fn info(vendor: &Vendor, dialect: &dyn Dialect, parameters: &Parameters) -> ModelInfo {
    let mut details = Map::new();
    details.insert("vendor".to_owned(), Value::from(vendor.name));
    details.insert("model".to_owned(), Value::from(dialect.model()));
    let features = dialect.features();
    let tasks = [(features.chat, "chat"), (features.embeddings, "embeddings")];
    let tasks: Vec<&str> = tasks.into_iter().filter(|(has, _)| *has).map(|(_, task)| task).collect();
    details.insert("tasks".to_owned(), Value::from(tasks));
    if let Some(url) = dialect.base_url().or_else(|| parameters.url("base_url")) {
        let mut url = url.clone();
        url.set_query(None);
        url.set_fragment(None);
        details.insert("base_url".to_owned(), Value::from(url.as_str()));
    }
    ModelInfo {
        engine: format!("saas/{}", vendor.name),
        context_length: number(parameters, "context_length").filter(|length| *length > 0),
        chat_template: dialect.features().chat,
        compute: "remote".to_owned(),
        details,
        ..ModelInfo::default()
    }
}

#[async_trait]
impl ChatModel for ProviderModel {
    async fn chat(&self, mut request: ChatRequest, context: RequestContext) -> Result<EventStream> {
        let shared = &self.shared;
        shared.check_chat(&request)?;
        if request.sampling.max_tokens.is_none() {
            request.sampling.max_tokens = shared.max_output_tokens;
        }
        let mut call = shared.call(context, Task::Chat)?;
        loop {
            match shared.try_chat(&mut call, &request).await {
                Ok(mut answer) => {
                    answer.start(call.context.id, call.context.on_usage);
                    return Ok(Box::into_pin(answer));
                }
                Err(failure) => shared.again(&mut call, failure).await?,
            }
        }
    }

    fn apply_template(&self, _messages: &[Message], _add_generation_prompt: bool) -> Result<String> {
        Err(self.no_tokenizer("renders messages"))
    }

    fn tokenize(&self, _text: &str) -> Result<Vec<u32>> {
        Err(self.no_tokenizer("cuts text into tokens"))
    }

    fn continuation(&self) -> Option<&'static str> {
        self.shared.dialect.continuation()
    }

    fn extra_parameters(&self) -> &[&'static str] {
        self.shared.dialect.extra_parameters()
    }

    fn accounts(&self) -> bool {
        true
    }
}

#[async_trait]
impl EmbeddingModel for ProviderModel {
    async fn embed(&self, request: EmbeddingRequest, context: RequestContext) -> Result<Embeddings> {
        let shared = &self.shared;
        shared.check_extra(&request.extra)?;
        if request.inputs.is_empty() {
            return Err(Error::invalid("input", "there is nothing to embed; give at least one text"));
        }
        shared.check_vectors(&request)?;
        let hook = context.on_usage.clone();
        let embeddings = shared.embed(request, context).await?;
        if let Some(hook) = hook {
            hook(&embeddings.usage);
        }
        Ok(embeddings)
    }

    fn extra_parameters(&self) -> &[&'static str] {
        self.shared.dialect.extra_parameters()
    }

    fn accounts(&self) -> bool {
        true
    }
}

impl Shared {
    /// Refuses what only models of this machine can do, before anything is sent.
    fn check_vectors(&self, request: &EmbeddingRequest) -> Result<()> {
        let vendor = self.vendor;
        let refused = [
            ("truncate", request.truncate, "cuts or refuses long texts as it likes: leave it out"),
            ("prompt", request.prompt.is_some(), "has no prompts by name: put the words into the texts"),
        ];
        match refused.into_iter().find(|(_, asked, _)| *asked) {
            Some((param, _, advice)) => {
                let message = format!("saas/{vendor} does not take `{param}`: it {advice}");
                Err(Error::new(ErrorKind::Unsupported, message).with_param(param))
            }
            None => Ok(()),
        }
    }

    fn check_chat(&self, request: &ChatRequest) -> Result<()> {
        let Features { chat, tools, images, .. } = self.features;
        let vendor = self.vendor;
        let cannot = |param: &'static str, what: &str| {
            let message = format!("saas/{vendor}: the model '{}' {what}; choose another one", self.model);
            Err(Error::new(ErrorKind::Unsupported, message).with_param(param))
        };
        request.sampling.validate()?;
        if !(1..=MAX_CHOICES).contains(&request.n) {
            return Err(Error::invalid("n", format!("n must be 1 to {MAX_CHOICES}, got {}", request.n)));
        }
        self.check_extra(&request.extra)?;
        if !chat {
            return cannot("model", "makes vectors and no text");
        }
        if !tools && !request.tools.is_empty() {
            return cannot("tools", "calls no tools");
        }
        if !images
            && let Input::Messages(messages) = &request.input
            && messages.iter().any(Message::has_images)
        {
            return cannot("messages", "takes no images");
        }
        Ok(())
    }

    fn check_extra(&self, extra: &Map<String, Value>) -> Result<()> {
        let known = self.dialect.extra_parameters();
        let Some(unknown) = extra.keys().find(|name| !known.contains(&name.as_str())) else { return Ok(()) };
        let shown: String = unknown.chars().take(64).collect();
        let shown = shown.escape_debug().to_string();
        let vendor = self.vendor;
        let message = match nearest(unknown, known.iter().copied()) {
            Some(near) => format!("saas/{vendor} has no parameter '{shown}'; did you mean '{near}'?"),
            None => format!("saas/{vendor} has no parameter '{shown}'; leave it out"),
        };
        Err(Error::new(ErrorKind::Unsupported, message).with_param(shown))
    }
}
