//! The runtime from outside, over scripted models.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod adapters;
mod answers;
mod chat;
mod deploy;
mod drain;
mod embed;
mod encoders;
mod ledger;
mod ledger_bill;
mod ledger_kill;
mod ledger_runtime;
mod local;
mod metrics;
mod providers;
mod rates;
mod restart;
mod routing;
mod shelf;

use std::path::PathBuf;
use std::sync::Arc;

use byzerllm_core::testing::{Gate, ScriptedModel};
use byzerllm_core::{ChatModel, ChatRequest, EventStream, Input, Message, RequestContext, Role};
use byzerllm_runtime::testing::ScriptedLoader;
use byzerllm_runtime::{DeploymentSpec, Loader, Runtime, RuntimeOptions};

/// A spec of a path that exists.
fn spec(name: &str) -> DeploymentSpec {
    DeploymentSpec::new(name, env!("CARGO_MANIFEST_DIR"))
}

fn options(state: Option<PathBuf>) -> RuntimeOptions {
    RuntimeOptions { state, threads: Some(1), ..RuntimeOptions::default() }
}

async fn embedded(loader: Arc<dyn Loader>) -> Runtime {
    Runtime::open_with(options(None), loader).await.unwrap()
}

fn request(model: &str) -> ChatRequest {
    ChatRequest::new(model, Input::Messages(vec![Message::new(Role::User, "hello")]))
}

async fn answer(runtime: &Runtime, model: &str) -> byzerllm_core::Result<String> {
    let stream = runtime.chat(RequestContext::local(), request(model)).await?;
    let response = byzerllm_core::collect(stream).await?;
    Ok(response.choices[0].text.clone())
}

/// A runtime with one deployment `chat` whose model waits for the gate at every word.
async fn gated(configure: impl FnOnce(&mut DeploymentSpec)) -> (Runtime, Gate, Arc<ScriptedLoader>) {
    let gate = Gate::closed();
    let models = gate.clone();
    let loader =
        ScriptedLoader::new(move |_| Ok(Arc::new(ScriptedModel::new("one two three").with_gate(&models))));
    let runtime = embedded(loader.clone()).await;
    let mut spec = spec("chat");
    configure(&mut spec);
    runtime.deploy(spec).await.unwrap();
    (runtime, gate, loader)
}

/// A deployment of a runtime as a model: neither admission nor whatever else is between must break the contract of
/// streams.
struct Through(Runtime, &'static str);

#[async_trait::async_trait]
impl ChatModel for Through {
    async fn chat(
        &self,
        mut request: ChatRequest,
        context: RequestContext,
    ) -> byzerllm_core::Result<EventStream> {
        request.model = self.1.to_owned();
        self.0.chat(context, request).await
    }

    fn apply_template(&self, messages: &[Message], add: bool) -> byzerllm_core::Result<String> {
        self.0.apply_template(self.1, messages, add)
    }

    fn tokenize(&self, text: &str) -> byzerllm_core::Result<Vec<u32>> {
        self.0.tokenize(self.1, text)
    }
}
