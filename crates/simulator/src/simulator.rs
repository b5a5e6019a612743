//! A running simulator, and what a test does with it.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use byzerllm_core::{Error, ErrorKind, Result};
use tokio::sync::oneshot;

use crate::bill::Line;
use crate::desk::Desk;
use crate::fault::Fault;
use crate::http::Request;
use crate::model::Script;
use crate::refusal::Refusal;
use crate::server;
use crate::vendors;

/// How a simulator starts.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The port; 0 takes a free one.
    pub port: u16,
    /// What opens.
    pub credentials: Credentials,
    /// Time between two events of an answer.
    pub pace: Duration,
    /// A fault of every request.
    pub fault: Option<Fault>,
}

/// What a client must show, and what it may ask for. Each vendor uses those that it has.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The key. Zhipu's has two halves with a point between them.
    pub api_key: String,
    /// The secret beside the key: Qianfan's `secret_key`, Spark's `api_secret`.
    pub secret: String,
    /// Spark's `appid`, MiniMax's `group_id`.
    pub app_id: String,
    /// Models beside the vendor's own.
    pub models: Vec<String>,
}

impl Default for Credentials {
    fn default() -> Self {
        Self {
            api_key: "0123456789abcdef.simulator".to_owned(),
            secret: "simulator-secret".to_owned(),
            app_id: "simulator-app".to_owned(),
            models: Vec::new(),
        }
    }
}

impl Credentials {
    pub(crate) fn opens(&self, key: &str) -> Result<(), Refusal> {
        if key == self.api_key { Ok(()) } else { Err(Refusal::BadCredential) }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("models", &self.models).finish_non_exhaustive()
    }
}

/// A vendor that runs on this machine until it is dropped. It has a thread of its own and needs no runtime of the caller.
pub struct Simulator {
    vendor: &'static str,
    url: String,
    origin: String,
    credentials: Credentials,
    desk: Arc<Desk>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Simulator {
    /// Starts a vendor, one of [`crate::VENDORS`], with or without `saas/`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a vendor that there is not; [`ErrorKind::Conflict`] for a port that is taken.
    pub fn start(vendor: &str, options: Options) -> Result<Self> {
        let (vendor, protocol) = vendors::find(vendor)?;
        let main = listen(options.port)?;
        let elsewhere = listen(0)?;
        let address = main.local_addr().map_err(failed)?;
        let scheme = if protocol.socket() { "ws" } else { "http" };
        let origin = format!("{scheme}://{address}");
        let url = format!("{origin}{}", protocol.base());
        let other = format!("{scheme}://{}", elsewhere.local_addr().map_err(failed)?);
        let credentials = options.credentials.clone();
        let desk = Arc::new(Desk::new(protocol, options, other));
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let at = Arc::clone(&desk);
        let serve = move || runtime.block_on(server::serve(main, elsewhere, at, stopped));
        let thread =
            std::thread::Builder::new().name(format!("simulator-{vendor}")).spawn(serve).map_err(failed)?;
        Ok(Self { vendor, url, origin, credentials, desk, stop: Some(stop), thread: Some(thread) })
    }

    /// The vendor's name.
    #[must_use]
    pub fn vendor(&self) -> &'static str {
        self.vendor
    }

    /// Where the API is: what a deployment's `saas.base_url` holds.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Scheme, host and port.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// What opens.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The `saas.*` parameters (without `saas.`) of a deployment that talks to it: where it is, what opens, a model.
    #[must_use]
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let key = ("api_key", self.credentials.api_key.clone());
        let secret = |name| (name, self.credentials.secret.clone());
        let model = |name: &str| ("model", name.to_owned());
        let base = ("base_url", self.url.clone());
        match self.vendor {
            "azure_openai" => {
                vec![("azure_endpoint", self.origin.clone()), ("azure_deployment", "gpt-4o".to_owned()), key]
            }
            "zhipu" => vec![base, key, model("glm-4")],
            "qianwen" => vec![base, key, model("qwen-plus")],
            "qianwen_vl" => vec![base, key, model("qwen-vl-plus")],
            "baichuan" => vec![base, key, model("Baichuan4-Turbo")],
            "minimax" => {
                vec![base, key, ("group_id", self.credentials.app_id.clone()), model("abab6.5s-chat")]
            }
            "qianfan" => vec![base, key, secret("secret_key"), model("ERNIE-3.5-8K")],
            "sparkdesk" => vec![
                ("gpt_url", format!("{}/v3.5/chat", self.origin)),
                ("domain", "generalv3.5".to_owned()),
                ("appid", self.credentials.app_id.clone()),
                key,
                secret("api_secret"),
            ],
            "claude" => vec![base, key, model("claude-3-5-haiku-20241022")],
            "gemini" => vec![base, key, model("gemini-2.5-flash")],
            "deepseek" => vec![base, key, model("deepseek-chat")],
            "moonshot" => vec![base, key, model("moonshot-v1-8k")],
            "siliconflow" => vec![base, key, model("Qwen/Qwen3-8B")],
            "volcengine" => vec![base, key, model("doubao-seed-1-6")],
            _ => vec![base, key, model("gpt-4o-mini")],
        }
    }

    /// What is to be paid: one line per request that the vendor began to work on, in their order.
    #[must_use]
    pub fn bill(&self) -> Vec<Line> {
        self.desk.bill()
    }

    /// Every request to the vendor, in their order, refused ones and those for tokens included.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.desk.requests()
    }

    /// Every request that came to the origin that [`Fault::Redirect`] sends to. It is never answered with more than 404.
    #[must_use]
    pub fn elsewhere(&self) -> Vec<Request> {
        self.desk.elsewhere()
    }

    /// The next request for an answer or for vectors meets this fault. Several wait in a queue, one for each request.
    pub fn fault(&self, fault: Fault) {
        self.desk.queue_fault(fault);
    }

    /// From now on every request meets this fault, or none.
    pub fn always(&self, fault: Option<Fault>) {
        self.desk.set_always(fault);
    }

    /// The next request is answered with this. Several wait in a queue, one for each request.
    pub fn script(&self, script: Script) {
        self.desk.queue_script(script);
    }

    /// Forgets bill, requests, faults and scripts.
    pub fn clear(&self) {
        self.desk.clear();
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The other end is gone when the thread has ended by itself.
            let _gone = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by its own thread.
            let _panicked = thread.join();
        }
    }
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulator")
            .field("vendor", &self.vendor)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

fn listen(port: u16) -> Result<TcpListener> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).map_err(|error| {
        let message =
            format!("could not listen on 127.0.0.1:{port}: {error}; name another port, or 0 for a free one");
        Error::new(ErrorKind::Conflict, message).with_param("port")
    })?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn failed(error: std::io::Error) -> Error {
    Error::internal(format!("could not start the simulator: {error}")).with_source(error)
}
