//! What a key may do: a set of scopes, ordered by what they cover.
//!
//! `inference:*` covers `inference:NAME` for every name. `admin` covers `metrics`, which tells less than an admin sees
//! anyway, but no inference: who may deploy may not thereby ask. A set covers another when it covers each of its scopes;
//! nothing is derived in any other way.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use byzerllm_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spec::validate_name;

/// One thing that a key may do. Written `admin`, `metrics`, `inference:*` or `inference:DEPLOYMENT`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub enum Scope {
    /// The admin routes: deployments and keys.
    Admin,
    /// Reading the metrics, which name all deployments.
    Metrics,
    /// Inference with every deployment, present and future.
    EveryDeployment,
    /// Inference with the deployment of this name.
    Deployment(String),
}

impl Scope {
    fn covers(&self, other: &Scope) -> bool {
        self == other
            || matches!(
                (self, other),
                (Self::EveryDeployment, Self::Deployment(_)) | (Self::Admin, Self::Metrics)
            )
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin => out.write_str("admin"),
            Self::Metrics => out.write_str("metrics"),
            Self::EveryDeployment => out.write_str("inference:*"),
            Self::Deployment(name) => write!(out, "inference:{name}"),
        }
    }
}

impl FromStr for Scope {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None if text == "admin" => return Ok(Self::Admin),
            None if text == "metrics" => return Ok(Self::Metrics),
            Some(("inference", "*")) => return Ok(Self::EveryDeployment),
            Some(("inference", name)) if validate_name(name).is_ok() => {
                return Ok(Self::Deployment(name.to_owned()));
            }
            _ => {}
        }
        let shown: String = text.chars().take(60).collect();
        let message = format!(
            "'{}' is no scope; write inference:*, inference:DEPLOYMENT, metrics or admin",
            shown.escape_debug()
        );
        Err(Error::invalid("scopes", message))
    }
}

impl TryFrom<String> for Scope {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.to_string()
    }
}

/// A set of scopes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Scopes(BTreeSet<Scope>);

impl Scopes {
    /// The most scopes that a key may carry.
    pub const MAX: usize = 256;

    /// Everything: what the admin token of a running server holds, and who owns the state directory.
    #[must_use]
    pub fn all() -> Self {
        Self(BTreeSet::from([Scope::Admin, Scope::EveryDeployment]))
    }

    /// Inference with every deployment.
    #[must_use]
    pub fn inference() -> Self {
        Self(BTreeSet::from([Scope::EveryDeployment]))
    }

    /// Whether whoever holds `self` may do everything that `other` allows.
    #[must_use]
    pub fn cover(&self, other: &Scopes) -> bool {
        other.0.iter().all(|wanted| self.0.iter().any(|held| held.covers(wanted)))
    }

    /// Whether the admin routes may be called.
    #[must_use]
    pub fn admin(&self) -> bool {
        self.0.contains(&Scope::Admin)
    }

    /// Whether the metrics may be read.
    #[must_use]
    pub fn metrics(&self) -> bool {
        self.0.iter().any(|scope| scope.covers(&Scope::Metrics))
    }

    /// Whether a deployment may be asked.
    #[must_use]
    pub fn deployment(&self, name: &str) -> bool {
        self.every_deployment()
            || self.0.iter().any(|scope| matches!(scope, Scope::Deployment(allowed) if allowed == name))
    }

    /// Whether every deployment may be asked, so that nothing needs to be hidden.
    #[must_use]
    pub fn every_deployment(&self) -> bool {
        self.0.contains(&Scope::EveryDeployment)
    }

    /// Whether any deployment, even one that does not exist yet, may be asked.
    #[must_use]
    pub fn any_inference(&self) -> bool {
        self.0.iter().any(|scope| matches!(scope, Scope::EveryDeployment | Scope::Deployment(_)))
    }

    /// The scopes in order.
    pub fn iter(&self) -> impl Iterator<Item = &Scope> {
        self.0.iter()
    }

    /// How many scopes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is allowed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().collect())
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, scope) in self.0.iter().enumerate() {
            write!(out, "{}{scope}", if place == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_they_are_written() {
        for text in ["admin", "metrics", "inference:*", "inference:chat", "inference:聊天-1.b"] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "Admin",
            "admin:",
            "admin:*",
            "metrics:*",
            "metrics:a",
            "inference",
            "inference:",
            "inference:a b",
            "inference:**",
            "inference:..",
            "inference:a,admin",
            "*",
            "inference:'; DROP TABLE keys; --",
        ] {
            let error = text.parse::<Scope>().unwrap_err();
            assert_eq!(error.param(), Some("scopes"), "{text}");
            assert!(error.message().contains("inference:DEPLOYMENT"), "{error}");
        }
    }

    #[test]
    fn admin_is_not_inference() {
        let set =
            |text: &str| text.split_whitespace().map(|scope| scope.parse().unwrap()).collect::<Scopes>();
        let admin = set("admin");
        assert!(admin.admin() && !admin.any_inference() && !admin.deployment("chat"));
        assert!(!admin.cover(&set("inference:chat")) && admin.cover(&set("")));
        let metrics = set("metrics");
        assert!(metrics.metrics() && !metrics.admin() && !metrics.any_inference());
        assert!(admin.metrics() && admin.cover(&metrics) && !metrics.cover(&admin));
        let every = set("inference:*");
        assert!(!every.metrics() && !every.cover(&metrics));
        assert!(
            every.deployment("x") && every.cover(&set("inference:a inference:*")) && !every.cover(&admin)
        );
        let one = set("inference:a");
        assert!(one.deployment("a") && !one.deployment("A") && !one.deployment("*") && !one.cover(&every));
        assert!(Scopes::all().cover(&set("admin metrics inference:* inference:b")));
    }
}
