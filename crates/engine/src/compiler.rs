//! Compiles constraints for one model: off the engine's thread, a few at a time, under a deadline, with a small cache.
//!
//! The vocabulary's prefix tree is built when the first constraint comes. A compilation that outlives its deadline
//! keeps its place until it ends, so that hostile specifications can never take more threads than there are places.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use byzerllm_core::{Error, ErrorKind, Result};
use llguidance::ParserFactory;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use tokio::sync::{Semaphore, oneshot};

use crate::constraint::{Constraint, ConstraintSpec, Limits, refused};
use crate::error::EngineError;
use crate::model::ModelText;

/// Compilations at the same time.
const PLACES: usize = 2;

/// How long a compilation may take, waiting included.
const DEADLINE: Duration = Duration::from_secs(10);

/// Compiled specifications that are kept.
const KEPT: usize = 32;

/// The grammar compiler calls itself for every level of its input; the limits bound the levels.
const STACK: usize = 64 << 20;

/// Longer tokens are left out of constrained answers; the prefix tree has no room for them.
const LONGEST_TOKEN: usize = 1000;

/// A model's compiler of constraints.
pub(crate) struct Compiler {
    text: Arc<ModelText>,
    vocab_size: usize,
    limits: Limits,
    factory: OnceLock<Option<ParserFactory>>,
    /// Oldest first.
    cache: Mutex<Vec<([u8; 32], Arc<Constraint>)>>,
    places: Arc<Semaphore>,
}

impl Compiler {
    pub(crate) fn new(text: Arc<ModelText>, vocab_size: usize) -> Arc<Self> {
        Arc::new(Self {
            text,
            vocab_size,
            limits: Limits::default(),
            factory: OnceLock::new(),
            cache: Mutex::default(),
            places: Arc::new(Semaphore::new(PLACES)),
        })
    }

    /// One constraint for each of `choices`.
    pub(crate) async fn constraints(
        self: &Arc<Self>,
        spec: ConstraintSpec,
        choices: u32,
        deadline: Option<Instant>,
    ) -> Result<Vec<Constraint>> {
        self.limits.check(&spec)?;
        let ours = Instant::now() + DEADLINE;
        let work = self.clone().compile_aside(spec, choices);
        if tokio::runtime::Handle::try_current().is_err() {
            return work.await;
        }
        let first = deadline.map_or(ours, |deadline| deadline.min(ours));
        match tokio::time::timeout_at(first.into(), work).await {
            Ok(constraints) => constraints,
            Err(_) if first < ours => Err(EngineError::Late.into()),
            Err(_) if self.places.available_permits() == 0 => Err(Error::new(
                ErrorKind::Overloaded,
                "the compiler of answer formats is busy or this format is too complex; simplify it or try again later",
            )),
            Err(_) => Err(refused("the answer's format took too long to compile; simplify it")),
        }
    }

    async fn compile_aside(self: Arc<Self>, spec: ConstraintSpec, choices: u32) -> Result<Vec<Constraint>> {
        let place = self.places.clone().acquire_owned().await.map_err(|_| broken())?;
        let (answer, result) = oneshot::channel();
        std::thread::Builder::new()
            .name("byzerllm-grammar".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                // Nobody waits any more when the deadline has passed.
                let _ = answer.send(self.compile(spec, choices));
                drop(place);
            })
            .map_err(EngineError::Thread)?;
        result.await.map_err(|_| broken())?
    }

    fn compile(&self, spec: ConstraintSpec, choices: u32) -> Result<Vec<Constraint>> {
        let key = spec.key();
        let compiled = match self.cached(&key) {
            Some(compiled) => compiled,
            None => {
                let factory = self.factory.get_or_init(|| self.build()).as_ref().ok_or_else(broken)?;
                let compiled = Arc::new(Constraint::compile(spec, factory)?);
                self.keep(key, compiled.clone());
                compiled
            }
        };
        Ok((0..choices).map(|_| compiled.fresh()).collect())
    }

    fn cached(&self, key: &[u8; 32]) -> Option<Arc<Constraint>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let place = cache.iter().position(|(other, _)| other == key)?;
        let entry = cache.remove(place);
        let compiled = entry.1.clone();
        cache.push(entry);
        Some(compiled)
    }

    fn keep(&self, key: [u8; 32], compiled: Arc<Constraint>) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.retain(|(other, _)| *other != key);
        if cache.len() == KEPT {
            cache.remove(0);
        }
        cache.push((key, compiled));
    }

    /// Builds the vocabulary's prefix tree. The library asserts what it expects of a vocabulary.
    fn build(&self) -> Option<ParserFactory> {
        let built = catch_unwind(AssertUnwindSafe(|| {
            let env: TokEnv = Arc::new(ApproximateTokEnv::new(self.tree()));
            let slices = SlicedBiasComputer::json_slices();
            ParserFactory::new(&env, InferenceCapabilities::default(), &slices)
        }));
        let Ok(Ok(mut factory)) = built else {
            tracing::error!("the vocabulary has no prefix tree, so that no answer format can be enforced");
            return None;
        };
        *factory.limits_mut() = self.limits.parser.clone();
        factory.quiet();
        Some(factory)
    }

    fn tree(&self) -> TokTrie {
        let tokenizer = &self.text.tokenizer;
        let mut ends: Vec<u32> =
            self.text.end_tokens.iter().copied().filter(|&id| (id as usize) < self.vocab_size).collect();
        let mut words: Vec<Vec<u8>> = (0..self.vocab_size as u32)
            .map(|id| {
                let bytes = tokenizer.token_bytes(id).filter(|bytes| bytes.len() < LONGEST_TOKEN);
                let bytes = bytes.unwrap_or_default();
                if !bytes.is_empty() && (tokenizer.is_special(id) || ends.contains(&id)) {
                    // No text contains the marker, so that a special token is never a way to write its name.
                    return [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat();
                }
                bytes.to_vec()
            })
            .collect();
        if ends.is_empty() {
            // The end needs an id; the network has no logit for this one, so it is never drawn.
            ends.push(words.len() as u32);
            words.push(Vec::new());
        }
        let info = TokRxInfo::new(words.len() as u32, ends[0]);
        TokTrie::from(&info, &words).with_eos_tokens(&ends)
    }
}

fn broken() -> Error {
    Error::internal("the answer's format cannot be enforced with this model's vocabulary; please report this")
}
