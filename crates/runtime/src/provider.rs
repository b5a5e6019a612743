//! Deployments of vendors' models: what is said about one, where its secrets are, and how it is opened.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use byzerllm_core::{Error, Result};
use byzerllm_providers::{
    Kind, Parameter, Parameters, ProviderMetrics, ProviderModel, Vendor, find, find_parameter,
};
use schemars::JsonSchema;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::loader::{LoadedModel, Worker};
use crate::secrets::{Form, Sealer, SecretText, Slot};

/// A vendor's model. `Serialize` and `Debug` write references to secrets, and `***` in place of secrets.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProviderSpec {
    /// The vendor's name, with or without `saas/`.
    pub vendor: String,
    /// Its parameters by name, without `saas.`. Secrets are `env:NAME` or `file:PATH`, which the process that runs the
    /// model looks up, or literal.
    #[serde(default)]
    pub parameters: BTreeMap<String, SecretText>,
}

impl ProviderSpec {
    /// A vendor's model without parameters.
    pub fn new(vendor: impl Into<String>) -> Self {
        Self { vendor: vendor.into(), parameters: BTreeMap::new() }
    }

    /// Sets one parameter by any of its names, in place of what it was.
    ///
    /// # Errors
    /// [`byzerllm_core::ErrorKind::NotFound`] for a vendor and [`byzerllm_core::ErrorKind::InvalidRequest`] for a
    /// parameter that nobody knows, naming the nearest.
    pub fn set(&mut self, key: &str, value: impl Into<SecretText>) -> Result<()> {
        let parameter = find_parameter(find(&self.vendor)?, key)?;
        self.parameters.insert(parameter.name.to_owned(), value.into());
        Ok(())
    }

    /// The name of the vendor's model: the given one, else the table's.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        let usual = || find_parameter(find(&self.vendor).ok()?, "model").ok()?.default;
        self.parameters.get("model").map(SecretText::expose).or_else(usual)
    }

    /// The parameters that hold the secret itself and no reference to it.
    pub fn literals(&self) -> impl Iterator<Item = &str> {
        let literal =
            |(key, value): &(&String, &SecretText)| value.is_literal() && self.is_secret(key, value);
        self.parameters.iter().filter(literal).map(|(key, _)| key.as_str())
    }

    /// The same under the table's names.
    pub(crate) fn normalized(&self) -> Result<Self> {
        let vendor = find(&self.vendor)?;
        let mut parameters = BTreeMap::new();
        for (key, value) in &self.parameters {
            let name = find_parameter(vendor, key)?.name;
            if parameters.insert(name.to_owned(), value.clone()).is_some() {
                let message = format!("saas.{name} is given twice, under two of its names; leave one out");
                return Err(Error::invalid(format!("saas.{name}"), message));
            }
        }
        Ok(Self { vendor: vendor.name.to_owned(), parameters })
    }

    /// Checks everything that can be checked without the secrets themselves.
    pub(crate) fn validate(&self) -> Result<()> {
        let vendor = find(&self.vendor)?;
        let mut given = Vec::new();
        for (key, value) in &self.parameters {
            let parameter = find_parameter(vendor, key)?;
            let secret = takes_secrets(parameter) && (parameter.kind == Kind::Secret || !value.is_literal());
            if secret {
                value.check(&format!("saas.{}", parameter.name))?;
            }
            given.push((key.as_str(), if secret { "unknown-yet" } else { value.expose() }));
        }
        Parameters::new(vendor, given).map(|_| ())
    }

    /// Its parameters with the secrets that they refer to.
    fn resolve(&self, deployment: &str, vendor: &Vendor, sealer: Option<&Sealer>) -> Result<Parameters> {
        let mut resolved = Vec::new();
        for (key, value) in &self.parameters {
            let parameter = find_parameter(vendor, key)?;
            if takes_secrets(parameter) {
                let name = slot_name(parameter.name);
                let secret = value.resolve(Slot { deployment, parameter: &name }, sealer)?;
                resolved.push((key.as_str(), secret));
            } else {
                resolved.push((key.as_str(), byzerllm_providers::Secret::new(value.expose())));
            }
        }
        Parameters::new(vendor, resolved.iter().map(|(key, secret)| (*key, secret.expose())))
    }

    /// The same with literal secrets sealed, as it may be stored. `in_use` says whether secrets are sealed already.
    pub(crate) fn sealed(
        &self,
        deployment: &str,
        sealer: &Sealer,
        in_use: impl FnOnce() -> Result<bool>,
    ) -> Result<Self> {
        let mut sealed = self.clone();
        let keys: Vec<String> = self.literals().map(str::to_owned).collect();
        if keys.is_empty() {
            return Ok(sealed);
        }
        let mut in_use = in_use()?;
        for key in keys {
            let Some(value) = sealed.parameters.get_mut(&key) else { continue };
            let name = slot_name(&key);
            let Form::Literal(text) = value.form() else { continue };
            let closed = sealer.seal(Slot { deployment, parameter: &name }, text, in_use)?;
            *value = closed;
            in_use = true;
        }
        Ok(sealed)
    }

    /// Whether a secret is sealed in it.
    pub(crate) fn has_sealed(&self) -> bool {
        self.parameters.values().any(|value| matches!(value.form(), Form::Sealed(_)))
    }

    /// Its parameters with their secrets.
    pub(crate) fn exposed(&self) -> Value {
        let pair = |(key, value): (&String, &SecretText)| (key.clone(), Value::from(value.expose()));
        self.parameters.iter().map(pair).collect::<Map<_, _>>().into()
    }

    /// Its parameters as they may be shown.
    fn shown(&self) -> BTreeMap<&str, &str> {
        let pairs = self.parameters.iter().map(|(key, value)| {
            let shown = if self.is_secret(key, value) { value.shown() } else { value.expose() };
            (key.as_str(), shown)
        });
        pairs.collect()
    }

    /// Whether a value is for nobody's eyes. What is unknown is.
    fn is_secret(&self, key: &str, value: &SecretText) -> bool {
        let known = find(&self.vendor).and_then(|vendor| find_parameter(vendor, key));
        match known {
            Ok(parameter) if parameter.kind == Kind::Secret => true,
            Ok(parameter) if takes_secrets(parameter) => {
                // A proxy's URL may hold a password.
                matches!(value.form(), Form::Sealed(_)) || value.expose().contains('@')
            }
            Ok(_) => false,
            Err(_) => true,
        }
    }
}

/// Whether the parameter may be given as a reference.
fn takes_secrets(parameter: &Parameter) -> bool {
    parameter.kind == Kind::Secret || parameter.name == "proxies"
}

fn slot_name(parameter: &str) -> String {
    format!("saas.{parameter}")
}

impl Serialize for ProviderSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("ProviderSpec", 2)?;
        fields.serialize_field("vendor", &self.vendor)?;
        fields.serialize_field("parameters", &self.shown())?;
        fields.end()
    }
}

impl fmt::Debug for ProviderSpec {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ProviderSpec")
            .field("vendor", &self.vendor)
            .field("parameters", &self.shown())
            .finish()
    }
}

/// Opens a vendor's model: looks up its secrets and makes it ready to connect. Sends nothing.
pub(crate) fn load(name: &str, provider: &ProviderSpec, sealer: Option<&Sealer>) -> Result<LoadedModel> {
    let vendor = find(&provider.vendor)?;
    let parameters = provider.resolve(name, vendor, sealer)?;
    let model = ProviderModel::open(vendor, name, &parameters)?;
    tracing::info!(deployment = name, vendor = vendor.name, "opened");
    Ok(LoadedModel { handle: model.handle(), worker: Arc::new(ProviderWorker(model)) })
}

/// A vendor's model has no threads to watch: whether the vendor answers shows in its requests.
struct ProviderWorker(Arc<ProviderModel>);

#[async_trait]
impl Worker for ProviderWorker {
    async fn probe(&self, _deadline: Instant) -> Result<()> {
        Ok(())
    }

    fn provider_metrics(&self) -> Option<ProviderMetrics> {
        Some(self.0.metrics())
    }

    fn shutdown(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::HIDDEN;

    fn openai(parameters: &[(&str, &str)]) -> ProviderSpec {
        let mut spec = ProviderSpec::new("saas/openai");
        for (key, value) in parameters {
            spec.parameters.insert((*key).to_owned(), SecretText::from(*value));
        }
        spec
    }

    #[test]
    fn what_is_shown_holds_no_secret() {
        let spec = openai(&[
            ("api_key", "sk-canary"),
            ("base_url", "https://host/v1"),
            ("proxies", "http://user:canary@proxy:1"),
            ("unknown", "canary"),
        ]);
        let shown = serde_json::to_string(&spec).unwrap();
        for text in [&shown, &format!("{spec:?}"), &format!("{spec:#?}")] {
            assert!(!text.contains("canary") && text.contains("https://host/v1"), "{text}");
        }
        assert_eq!(
            serde_json::to_value(openai(&[("api_key", "env:KEY"), ("proxies", "http://proxy:1")])).unwrap()["parameters"],
            serde_json::json!({ "api_key": "env:KEY", "proxies": "http://proxy:1" })
        );
        let unknown_vendor = ProviderSpec { vendor: "nobody".to_owned(), ..openai(&[("model", "canary")]) };
        assert!(!format!("{unknown_vendor:?}").contains("canary"));
        assert!(spec.exposed().to_string().contains("sk-canary"));
    }

    #[test]
    fn names_are_those_of_the_table() {
        let spec = openai(&[("saas.api_key", "env:KEY"), ("verify", "false")]).normalized().unwrap();
        assert_eq!(spec.vendor, "openai");
        assert_eq!(spec.parameters.keys().collect::<Vec<_>>(), ["api_key", "https_verify"]);
        let error = openai(&[("verify", "false"), ("https_verify", "true")]).normalized().unwrap_err();
        assert!(error.message().contains("saas.https_verify is given twice"), "{error}");
    }

    #[test]
    fn parameters_are_checked_before_secrets_are_there() {
        let message = |spec: &ProviderSpec| spec.validate().unwrap_err().message().to_owned();
        openai(&[("api_key", "env:KEY"), ("model", "m")]).validate().unwrap();
        assert!(message(&openai(&[("api_kye", "canary"), ("model", "m")])).contains("saas.api_key"));
        let wrong = message(&openai(&[("api_key", "sk-canary"), ("model", "m"), ("timeout", "soon")]));
        assert!(wrong.contains("saas.timeout") && !wrong.contains("canary"), "{wrong}");
        assert!(message(&openai(&[("api_key", "***"), ("model", "m")])).contains("in place of a secret"));
        let vendor = ProviderSpec { vendor: "saas/opneai".to_owned(), ..openai(&[]) };
        assert!(message(&vendor).contains("saas/openai"));
    }

    #[test]
    fn literals_are_sealed_and_open_again() {
        let directory = tempfile::tempdir().unwrap();
        let sealer = Sealer::new(None, directory.path());
        let spec = openai(&[("api_key", "sk-canary"), ("model", "m"), ("proxies", "http://u:canary@p:1")]);
        assert_eq!(spec.literals().collect::<Vec<_>>(), ["api_key", "proxies"]);
        let sealed = spec.sealed("chat", &sealer, || Ok(false)).unwrap();
        assert!(sealed.has_sealed() && !sealed.exposed().to_string().contains("canary"));
        let shown = serde_json::to_value(&sealed).unwrap();
        assert_eq!(shown["parameters"]["api_key"], HIDDEN);
        assert_eq!(shown["parameters"]["proxies"], HIDDEN);
        let vendor = find("openai").unwrap();
        let opened = sealed.resolve("chat", vendor, Some(&sealer)).unwrap();
        assert_eq!(opened.secret("api_key").unwrap().expose(), "sk-canary");
        assert_eq!(opened.text("proxies"), "http://u:canary@p:1");
        assert!(sealed.resolve("other", vendor, Some(&sealer)).is_err());
        assert_eq!(sealed.sealed("chat", &sealer, || Ok(true)).unwrap(), sealed, "nothing is left to seal");
        let references = openai(&[("api_key", "env:KEY"), ("model", "m")]);
        let never = || -> Result<bool> { panic!("nobody needs to know") };
        assert_eq!(references.sealed("chat", &sealer, never).unwrap(), references);
    }
}
