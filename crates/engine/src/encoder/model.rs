//! A deployed encoder: validates requests, turns texts into ids and rows into vectors or scores.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use byzerllm_core::{
    EmbeddingModel, EmbeddingRequest, Embeddings, Error, ErrorKind, Notice, RequestContext, RerankModel,
    RerankRequest, RerankScores, Result, ScoreScale, Usage,
};
use byzerllm_model::encoder::{Encoder, EncoderTokenizer, Task};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use super::desk::Desk;
use super::input::{Length, Prepared, Texts, prepare, presence};
use super::options::{EncoderOptions, EncoderText, Matryoshka};
use super::worker::Worker;
use crate::metrics::EngineMetrics;
use crate::probe::ProbeState;

/// Requests of at least so many bytes of text are tokenized off the caller's task.
const LARGE_INPUT: usize = 16 << 10;
/// Large requests that are tokenized at the same time.
const TOKENIZERS: usize = 2;

/// Parameters of our own encoders beside those that every model has.
const NORMALIZE: &str = "normalize";
const MAX_LENGTH: &str = "max_length";

/// An embedding or reranking model that our own engine runs. Dropping it ends the engine's thread.
pub struct LocalEncoder {
    pub(super) desk: Arc<Desk>,
    pub(super) probe: ProbeState,
    text: EncoderText,
    task: Task,
    max_length: usize,
    tokenizers: Arc<Semaphore>,
}

impl fmt::Debug for LocalEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalEncoder").field("name", &self.text.name).finish_non_exhaustive()
    }
}

impl LocalEncoder {
    /// Starts the engine's thread.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for a classifier with more than two labels, which is no reranker, and
    /// [`ErrorKind::InvalidRequest`] when the options leave no room for a text.
    pub fn start(network: Box<dyn Encoder>, text: EncoderText, options: EncoderOptions) -> Result<Self> {
        let traits = network.traits();
        let (task, width) = (traits.task, traits.width);
        if task == Task::Rerank && !(1..=2).contains(&width) {
            let message = format!(
                "the classifier has {width} labels; a reranker has one, or two of which the second says that the \
                 passage answers the query"
            );
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let cap = options.max_length.map_or(usize::MAX, |length| length as usize);
        let max_length = traits.max_length.min(cap);
        if max_length == 0 || width == 0 {
            let message = "an input must have room for at least one token; set a longer context_length";
            return Err(Error::invalid("context_length", message));
        }
        let desk = Arc::new(Desk::new(text.name.clone(), width, options));
        Worker::start(network, &desk, text.name.clone())?;
        let tokenizers = Arc::new(Semaphore::new(TOKENIZERS));
        Ok(Self { desk, probe: ProbeState::default(), text, task, max_length, tokenizers })
    }

    /// What it does.
    #[must_use]
    pub fn task(&self) -> Task {
        self.task
    }

    /// Tokens of the longest input, special tokens included.
    #[must_use]
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The engine's numbers at present.
    #[must_use]
    pub fn metrics(&self) -> EngineMetrics {
        self.desk.metrics()
    }

    /// Tells the engine to end after the step in work; what still runs fails with [`ErrorKind::Unavailable`].
    pub fn shutdown(&self) {
        self.desk.stop();
    }

    /// Waits until the engine's thread has ended and freed the network's memory.
    pub async fn closed(&self) {
        let mut gone = self.desk.gone.subscribe();
        // The sender lives as long as `self`.
        let _ = gone.wait_for(|gone| *gone).await;
    }

    /// The rows of all texts one after another, what was spent and what was cut.
    async fn rows(
        &self,
        texts: Texts,
        length: Length,
        context: &RequestContext,
    ) -> Result<(Vec<f32>, Usage, Vec<Notice>)> {
        self.desk.alive()?;
        let most = self.desk.options().max_inputs;
        if texts.len() > most {
            let message = format!("{} inputs in one request; at most {most} are allowed", texts.len());
            return Err(Error::invalid("input", message));
        }
        let Prepared { sequences, usage, notices } = self.prepare(texts, length, context).await?;
        let rows = self.desk.submit(sequences, context.deadline)?.rows(context.deadline).await?;
        if let Some(hook) = &context.on_usage {
            hook(&usage);
        }
        Ok((rows, usage, notices))
    }

    async fn prepare(&self, texts: Texts, length: Length, context: &RequestContext) -> Result<Prepared> {
        let (present, seen) = presence();
        let deadline = context.deadline;
        if texts.bytes() < LARGE_INPUT || tokio::runtime::Handle::try_current().is_err() {
            return prepare(&texts, &self.text.tokenizer, length, deadline, &seen);
        }
        let broken = || Error::internal("the texts could not be tokenized; please report this");
        let place = self.tokenizers.clone().acquire_owned().await.map_err(|_| broken())?;
        let tokenizer: EncoderTokenizer = self.text.tokenizer.clone();
        let work = move || {
            let prepared = prepare(&texts, &tokenizer, length, deadline, &seen);
            drop(place);
            prepared
        };
        let prepared = tokio::task::spawn_blocking(work).await;
        drop(present);
        prepared.map_err(|error| broken().with_source(error))?
    }

    /// The parameters of our own: whether vectors are to have unit length, and how long inputs may be.
    fn own_parameters(&self, extra: &Map<String, Value>, truncate: bool) -> Result<(Option<bool>, Length)> {
        let mut length = Length { limit: self.max_length, truncate };
        let mut normalize = None;
        for (name, value) in extra {
            match (name.as_str(), value) {
                (_, Value::Null) => {}
                (NORMALIZE, Value::Bool(wanted)) if self.task == Task::Embed => normalize = Some(*wanted),
                (NORMALIZE, _) if self.task == Task::Embed => {
                    return Err(Error::invalid(NORMALIZE, "`normalize` must be true or false"));
                }
                (MAX_LENGTH, value) => {
                    let most = self.max_length;
                    let wanted = value.as_u64().and_then(|number| usize::try_from(number).ok());
                    length.limit = wanted.filter(|wanted| (1..=most).contains(wanted)).ok_or_else(|| {
                        let message = format!(
                            "`max_length` must be a number from 1 to {most}, the tokens that the model reads at most"
                        );
                        Error::invalid(MAX_LENGTH, message)
                    })?;
                }
                (unknown, _) => {
                    let shown: String = unknown.chars().take(64).collect();
                    let known = match self.task {
                        Task::Embed => "`normalize` and `max_length`",
                        Task::Generate | Task::Rerank => "`max_length`",
                    };
                    let name = &self.text.name;
                    let message = format!("'{name}' has no parameter `{shown}`; its own are {known}");
                    return Err(Error::invalid(shown, message));
                }
            }
        }
        Ok((normalize, length))
    }

    /// How many numbers a vector keeps.
    fn kept(&self, dimensions: Option<u32>) -> Result<usize> {
        let width = self.desk.width;
        let Some(wanted) = dimensions else { return Ok(width) };
        let refuse = |message: String| Err(Error::invalid("dimensions", message));
        let name = &self.text.name;
        match usize::try_from(wanted) {
            Ok(0) | Err(_) => refuse("`dimensions` must be at least 1".to_owned()),
            Ok(wanted) if wanted == width => Ok(width),
            Ok(wanted) if wanted > width => {
                refuse(format!("`dimensions` is {wanted}, and the vectors of '{name}' have {width} numbers"))
            }
            Ok(kept) => match &self.text.matryoshka {
                Matryoshka::Any => Ok(kept),
                Matryoshka::Lengths(lengths) if lengths.contains(&wanted) => Ok(kept),
                Matryoshka::Lengths(lengths) => {
                    let lengths: Vec<String> = lengths.iter().map(ToString::to_string).collect();
                    refuse(format!("`dimensions` of '{name}' can be {} or {width}", lengths.join(", ")))
                }
                Matryoshka::None => refuse(format!(
                    "'{name}' was not trained to have its vectors cut (its files declare no Matryoshka lengths); leave \
                     `dimensions` out or give {width}"
                )),
            },
        }
    }

    fn wrong_task(&self) -> Error {
        let name = &self.text.name;
        let message = match self.task {
            Task::Embed => format!("'{name}' makes embeddings and scores no pairs"),
            Task::Generate | Task::Rerank => {
                format!("'{name}' scores pairs of texts and makes no embeddings")
            }
        };
        Error::new(ErrorKind::Unsupported, message).with_param("model")
    }
}

impl Drop for LocalEncoder {
    fn drop(&mut self) {
        self.desk.stop();
    }
}

#[async_trait]
impl EmbeddingModel for LocalEncoder {
    async fn embed(&self, mut request: EmbeddingRequest, context: RequestContext) -> Result<Embeddings> {
        if self.task != Task::Embed {
            return Err(self.wrong_task());
        }
        if request.inputs.is_empty() {
            return Err(Error::invalid("input", "input is empty; send at least one text"));
        }
        let kept = self.kept(request.dimensions)?;
        let (normalize, length) = self.own_parameters(&request.extra, request.truncate)?;
        if normalize == Some(false) && self.text.normalized {
            let message = format!(
                "the checkpoint of '{}' makes vectors of unit length, and what was before is not kept; leave \
                 `normalize` out",
                self.text.name
            );
            return Err(Error::invalid(NORMALIZE, message));
        }
        let (rows, usage, notices) = self.rows(Texts::of(&mut request), length, &context).await?;
        let cut = kept < self.desk.width;
        // A vector of unit length stays as it is, to the bit.
        let scale = if self.text.normalized { cut } else { normalize == Some(true) };
        let vector = |row: &[f32]| {
            let mut vector = row[..kept].to_vec();
            if scale {
                to_unit_length(&mut vector);
            }
            vector
        };
        let vectors = rows.chunks_exact(self.desk.width).map(vector).collect();
        Ok(Embeddings { vectors, usage, notices })
    }

    fn extra_parameters(&self) -> &[&'static str] {
        &[NORMALIZE, MAX_LENGTH]
    }
}

#[async_trait]
impl RerankModel for LocalEncoder {
    async fn rerank(&self, request: RerankRequest, context: RequestContext) -> Result<RerankScores> {
        if self.task != Task::Rerank {
            return Err(self.wrong_task());
        }
        let RerankRequest { pairs, scale, truncate, extra, .. } = request;
        if pairs.is_empty() {
            return Err(Error::invalid("documents", "there is nothing to score; send at least one document"));
        }
        let (_, length) = self.own_parameters(&extra, truncate)?;
        let (rows, usage, notices) = self.rows(Texts::Pairs(pairs), length, &context).await?;
        let scale = scale.unwrap_or(ScoreScale::Logit);
        let score = |row: &[f32]| {
            // Of two labels the second is the positive one: its log odds are the difference.
            let logit = if let [no, yes] = row { yes - no } else { row.first().copied().unwrap_or(0.0) };
            scale.of_logit(logit)
        };
        let scores = rows.chunks_exact(self.desk.width).map(score).collect();
        Ok(RerankScores { scores, scale, usage, notices })
    }

    fn extra_parameters(&self) -> &[&'static str] {
        &[MAX_LENGTH]
    }
}

/// Scales a vector to unit length; one of zeros stays.
fn to_unit_length(vector: &mut [f32]) {
    let square: f64 = vector.iter().map(|number| f64::from(*number) * f64::from(*number)).sum();
    if square > 0.0 {
        let factor = 1.0 / square.sqrt();
        vector.iter_mut().for_each(|number| *number = (f64::from(*number) * factor) as f32);
    }
}
