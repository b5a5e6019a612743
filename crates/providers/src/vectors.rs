//! Vectors for texts: in batches as large as the vendor takes.

use byzerllm_core::{
    EmbeddingRequest, Embeddings, Ending, Error, RequestContext, Result, Task, Usage, UsageSource,
};

use crate::Signing;
use crate::deployment::{Call, Ready, Shared, judge};
use crate::metrics::count;
use crate::transport::{Failure, MAX_BODY};

impl Shared {
    /// Embeds all inputs of a request, or none.
    pub(crate) async fn embed(
        &self,
        request: EmbeddingRequest,
        context: RequestContext,
    ) -> Result<Embeddings> {
        let mut call = self.call(context, Task::Embedding)?;
        let most = self.dialect.embedding_batch().max(1);
        let embeddings = if request.inputs.len() <= most {
            self.embed_batch(&mut call, &request).await?
        } else {
            let EmbeddingRequest { model, inputs, dimensions, truncate, prompt, extra } = request;
            let mut all: Option<Embeddings> = None;
            for inputs in inputs.chunks(most) {
                let (model, prompt, extra) = (model.clone(), prompt.clone(), extra.clone());
                let inputs = inputs.to_vec();
                let batch = EmbeddingRequest { model, inputs, dimensions, truncate, prompt, extra };
                let more = self.embed_batch(&mut call, &batch).await;
                match (&mut all, more) {
                    (Some(all), Ok(more)) => {
                        all.vectors.extend(more.vectors);
                        all.usage.add(&more.usage);
                        all.notices.extend(more.notices);
                    }
                    (None, Ok(more)) => all = Some(more),
                    (Some(all), Err(error)) => return Err(error.with_usage(all.usage.clone())),
                    (None, Err(error)) => return Err(error),
                }
            }
            all.ok_or_else(|| {
                Error::internal("a request for vectors was cut into no batches; please report this")
            })?
        };
        let length = embeddings.vectors.first().map(Vec::len);
        if embeddings.vectors.iter().any(|vector| Some(vector.len()) != length) {
            return Err(self.odd("vectors of several lengths"));
        }
        Ok(embeddings)
    }

    async fn embed_batch(&self, call: &mut Call, request: &EmbeddingRequest) -> Result<Embeddings> {
        call.failed = 0;
        loop {
            match self.try_embed(call, request).await {
                Ok(embeddings) => return Ok(embeddings),
                Err(failure) => self.again(call, failure).await?,
            }
        }
    }

    async fn try_embed(&self, call: &mut Call, request: &EmbeddingRequest) -> Result<Embeddings, Failure> {
        let permit = self.enter()?;
        let encode = |signing: &Signing<'_>| self.dialect.embed(request, signing);
        let attempt = async {
            let Ready { outbound, ticket, prompt_bytes, token } =
                self.prepare(call, (0, Some(0)), encode).await?;
            let (head, body, ticket) = self.exchange(call, outbound, ticket, token.as_ref()).await?;
            let id = head.request_id().map(|id| self.redactor.id(id));
            let read = match body.whole(MAX_BODY, &call.clock, self.vendor).await {
                Ok(bytes) => {
                    self.read_vectors(request, &bytes).map_err(|error| Failure::said(error, head.status))
                }
                Err(failure) => Err(failure),
            };
            match read {
                Ok(mut embeddings) => {
                    // Vectors are made of at least one token.
                    let believed = embeddings.usage.prompt_tokens > 0;
                    let usage = &mut embeddings.usage;
                    let reported = if believed {
                        usage.source = UsageSource::Reported;
                        Some(usage.clone())
                    } else {
                        count(&self.counters.unreported);
                        let prompt_tokens = u32::try_from(prompt_bytes).unwrap_or(u32::MAX);
                        *usage = Usage { prompt_tokens, source: UsageSource::Estimated, ..Usage::default() };
                        None
                    };
                    self.settle(ticket, Ending::Answered, reported, id, Some(head.status));
                    Ok(embeddings)
                }
                Err(failure) => {
                    let failure = self.give_up(failure, ticket, Some(head.status));
                    Err(self.renew(failure, token.as_ref()))
                }
            }
        };
        let result = attempt.await;
        judge(permit, &result);
        result
    }

    fn read_vectors(&self, request: &EmbeddingRequest, body: &[u8]) -> Result<Embeddings> {
        let embeddings = self.dialect.embedded(body)?;
        let (asked, got) = (request.inputs.len(), embeddings.vectors.len());
        if asked != got {
            return Err(self.odd(&format!("{got} vectors for {asked} texts")));
        }
        Ok(embeddings)
    }
}
