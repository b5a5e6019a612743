//! Which server a command talks to.

use byzerllm_client::{Client, runtime_file};

use crate::output::{Failure, Outcome};

/// Where a server listens unless told otherwise.
pub(crate) const DEFAULT_URL: &str = "http://127.0.0.1:8000";

/// The key for a server that is not this user's own.
pub(crate) const KEY_VARIABLE: &str = "BYZERLLM_API_KEY";

/// A server's address and the client for it.
pub(crate) struct Connection {
    pub(crate) url: String,
    pub(crate) client: Client,
}

impl Connection {
    /// The given address, else this user's running server, else the default address.
    pub(crate) fn open(url: Option<&str>) -> Outcome<Self> {
        let url = match url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => match runtime_file::find(None).map_err(Failure::from)? {
                Some(record) => record.url,
                None => DEFAULT_URL.to_owned(),
            },
        };
        let key = std::env::var(KEY_VARIABLE).ok().filter(|key| !key.is_empty());
        let client = Client::new(&url, None).map_err(Failure::from)?.or_token(key);
        Ok(Self { url, client })
    }

    /// Turns a failed call into a failure that tells a missing server from a refused request.
    pub(crate) async fn explain(&self, error: byzerllm_core::Error) -> Failure {
        use byzerllm_core::ErrorKind::{Unavailable, Upstream};
        // Its own words say more about a server that answers and is not trusted.
        let untrusted = error.message().contains("certificate");
        if !untrusted
            && matches!(error.kind(), Upstream | Unavailable)
            && self.client.healthy().await.is_err()
        {
            let url = &self.url;
            return Failure::new(
                format!("no byzerllm server answers at {url}"),
                "Start one with `byzerllm serve`, or name the right one with --url.",
            );
        }
        Failure::from(error)
    }
}
