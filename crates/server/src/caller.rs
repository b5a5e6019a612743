//! Who asks: what the authorisation layer found out, for the handlers behind it.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::Extensions;
use axum::http::request::Parts;
use byzerllm_core::{Domain, Error, ErrorKind, Principal, RequestContext, RequestId, Result, Takeover};
use byzerllm_runtime::{KeyGrant, Scopes, split_model};
use serde::Deserialize;

use crate::error::ApiError;
use crate::router::Access;
use crate::state::AppState;

/// An authorised caller of one route. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    rights: Arc<Rights>,
    /// Whether the request forbids kept answers.
    no_cache: bool,
    /// What may happen to an answer whose deployment fails.
    takeover: Takeover,
}

/// Who it is, and what it may do.
#[derive(Debug)]
struct Rights {
    principal: Principal,
    scopes: Scopes,
    access: Access,
}

impl Caller {
    /// One who needs no key: everyone on a public route, and everyone on loopback before the first key.
    pub(crate) fn open(access: Access) -> Self {
        let scopes = if access == Access::Inference { Scopes::inference() } else { Scopes::default() };
        Self::new(Principal { domain: Domain::LOCAL, key_name: None }, scopes, access)
    }

    /// The holder of the admin token.
    pub(crate) fn owner(access: Access) -> Self {
        Self::new(Principal { domain: Domain::LOCAL, key_name: None }, Scopes::all(), access)
    }

    /// The holder of a key.
    pub(crate) fn with_key(grant: KeyGrant, access: Access) -> Self {
        Self::new(Principal { domain: grant.domain, key_name: Some(grant.name) }, grant.scopes, access)
    }

    fn new(principal: Principal, scopes: Scopes, access: Access) -> Self {
        let rights = Arc::new(Rights { principal, scopes, access });
        Self { rights, no_cache: false, takeover: Takeover::default() }
    }

    /// The same caller, whose request says whether it forbids kept answers.
    pub(crate) fn forbidding_kept_answers(self, no_cache: bool) -> Self {
        Self { no_cache, ..self }
    }

    /// The same caller, who allows so much to happen to an answer whose deployment fails.
    pub(crate) fn allowing(self, takeover: Takeover) -> Self {
        Self { takeover, ..self }
    }

    /// The caller of the request with these extensions.
    pub(crate) fn of(extensions: &Extensions) -> Result<Self> {
        extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Error::internal("the request passed no authorisation; please report this"))
    }

    /// What the caller may do.
    pub(crate) fn scopes(&self) -> &Scopes {
        &self.rights.scopes
    }

    /// The context of a request, or of one of its parts.
    pub(crate) fn context(&self, id: RequestId) -> RequestContext {
        RequestContext {
            no_cache: self.no_cache,
            takeover: self.takeover,
            ..RequestContext::new(id, self.rights.principal.clone())
        }
    }

    /// Whether some deployments are hidden from this caller.
    pub(crate) fn is_limited(&self) -> bool {
        self.rights.access == Access::Inference && !self.rights.scopes.every_deployment()
    }

    /// Whether a deployment is visible, and with it its adapters (`deployment:adapter`).
    pub(crate) fn may_ask(&self, model: &str) -> bool {
        !self.is_limited() || self.rights.scopes.deployment(split_model(model).0)
    }

    /// Refuses a deployment that is not for this caller.
    pub(crate) fn check(&self, deployment: &str) -> Result<()> {
        if self.may_ask(deployment) { Ok(()) } else { Err(hidden()) }
    }

    /// Refuses a body whose `model` is not for this caller, before anything else is said about it. A body that is
    /// clear about its model gives `true`.
    pub(crate) fn check_body(&self, body: &[u8]) -> Result<bool> {
        #[derive(Deserialize)]
        struct Named {
            model: String,
        }
        if !self.is_limited() {
            return Ok(true);
        }
        match serde_json::from_slice::<Named>(body) {
            Ok(named) => self.check(&named.model).map(|()| true),
            Err(_) => Ok(false),
        }
    }

    /// Refuses a body that reads well and still does not say clearly, by one name, whom it asks.
    pub(crate) fn unclear(&self) -> Error {
        hidden()
    }

    /// An error as this caller may see it: what does not exist looks like what is hidden.
    pub(crate) fn shown(&self, error: Error) -> Error {
        if self.is_limited() && error.kind() == ErrorKind::NotFound { hidden() } else { error }
    }
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        Ok(Self::of(&parts.extensions)?)
    }
}

/// The one answer about deployments that do not exist and those of others.
fn hidden() -> Error {
    let message = "this key has no such deployment; GET /v1/models lists those that it may ask";
    Error::new(ErrorKind::NotFound, message).with_param("model")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited() -> Caller {
        let scopes = ["inference:a".parse().unwrap(), "admin".parse().unwrap()].into_iter().collect();
        let grant = KeyGrant { name: "key".to_owned(), domain: Domain(7), scopes };
        Caller::with_key(grant, Access::Inference)
    }

    #[test]
    fn a_body_must_name_one_allowed_model() {
        let caller = limited();
        assert!(caller.check_body(br#"{"model": "a", "prompt": {"model": "b"}}"#).unwrap());
        assert!(caller.check_body(br#"{"model": "a:adapter"}"#).unwrap());
        assert!(caller.check_body(br#"{"model": "b:a"}"#).is_err());
        for body in
            [&br#"{"model": "b"}"#[..], br#"{"\u006dodel": "b"}"#, br#"{"model": "A"}"#, br#"{"model": "*"}"#]
        {
            assert_eq!(caller.check_body(body).unwrap_err().kind(), ErrorKind::NotFound);
        }
        for body in [&b"{}"[..], b"", b"[]", br#"{"model": 1}"#, br#"{"model": "a", "model": "b"}"#] {
            assert!(!caller.check_body(body).unwrap(), "{body:?}");
        }
        assert!(Caller::open(Access::Inference).check_body(b"").unwrap());
    }

    #[test]
    fn work_runs_in_the_domain_of_the_key() {
        let context = limited().context(RequestId("x".to_owned()));
        assert_eq!(context.principal, Principal { domain: Domain(7), key_name: Some("key".to_owned()) });
        let open = Caller::open(Access::Inference).context(RequestId("x".to_owned()));
        assert_eq!(open.principal, Principal::default());
    }

    #[test]
    fn what_does_not_exist_looks_like_what_is_hidden() {
        let unknown = || Error::new(ErrorKind::NotFound, "there is no 'x'; existing ones: a, b");
        let caller = limited();
        assert_eq!(caller.shown(unknown()).message(), caller.check("b").unwrap_err().message());
        assert_eq!(Caller::owner(Access::Inference).shown(unknown()).message(), unknown().message());
        assert_eq!(caller.shown(Error::internal("x")).kind(), ErrorKind::Internal);
    }
}
