//! What a route is, as the user describes it.

use byzerllm_core::{Error, Result, Takeover};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Several deployments behind one name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// Who answers, and how often. When one fails, the others are asked in this order.
    #[schemars(length(min = 1, max = Self::MAX_TARGETS))]
    pub targets: Vec<Target>,
    /// What happens when a target fails.
    #[serde(default)]
    pub fallback: Fallback,
    /// Asks a second target too when the first has not begun to answer after so many milliseconds. The one that begins
    /// first answers, the other is cancelled. Absent means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub hedge_after_ms: Option<u64>,
}

/// A deployment that a route sends requests to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Its name.
    pub deployment: String,
    /// Its share of the requests, beside the weights of the others; 1 when absent. With 0 it is asked only when others
    /// cannot answer.
    #[serde(default = "one")]
    pub weight: u32,
}

/// What happens when a target fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Fallback {
    /// Whether another target is asked while nothing of the answer was sent.
    pub before_first: bool,
    /// What happens once a part of the answer was sent.
    pub after_first: AfterFirst,
}

/// What happens to an answer whose target fails in the middle of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AfterFirst {
    /// The failure is passed on.
    #[default]
    Error,
    /// Another target goes on from the text so far.
    Continue,
    /// Another target answers from the beginning; what was sent is void.
    Restart,
}

impl std::str::FromStr for AfterFirst {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "error" => Ok(Self::Error),
            "continue" => Ok(Self::Continue),
            "restart" => Ok(Self::Restart),
            _ => Err("route.after_first must be error, continue or restart"),
        }
    }
}

fn one() -> u32 {
    1
}

impl Default for Fallback {
    fn default() -> Self {
        Self { before_first: true, after_first: AfterFirst::Error }
    }
}

impl Fallback {
    /// The most that this declaration allows.
    #[must_use]
    pub const fn takeover(self) -> Takeover {
        match (self.before_first, self.after_first) {
            (false, _) => Takeover::Never,
            (true, AfterFirst::Error) => Takeover::BeforeFirst,
            (true, AfterFirst::Continue) => Takeover::Continue,
            (true, AfterFirst::Restart) => Takeover::Restart,
        }
    }
}

impl RouteSpec {
    /// The most targets of a route.
    pub const MAX_TARGETS: usize = 64;
    /// The highest weight.
    pub const MAX_WEIGHT: u32 = 1_000_000;

    /// A route to these targets, as `--route` has them: `a=3,b=1`, where a weight that is absent is 1.
    ///
    /// # Errors
    /// [`byzerllm_core::ErrorKind::InvalidRequest`] for text that is no such list.
    pub fn parse_targets(text: &str) -> Result<Vec<Target>> {
        text.split(',').map(|part| parse_target(part.trim())).collect()
    }

    /// Checks what can be checked without looking at other deployments.
    ///
    /// # Errors
    /// [`byzerllm_core::ErrorKind::InvalidRequest`] naming the field.
    pub fn validate(&self) -> Result<()> {
        if self.targets.is_empty() || self.targets.len() > Self::MAX_TARGETS {
            let (max, got) = (Self::MAX_TARGETS, self.targets.len());
            return Err(Error::invalid(
                "route.targets",
                format!("a route needs 1 to {max} targets, got {got}"),
            ));
        }
        for (place, target) in self.targets.iter().enumerate() {
            let name = &target.deployment;
            crate::spec::validate_name(name).map_err(|error| error.with_param("route.targets"))?;
            if self.targets[..place].iter().any(|other| other.deployment == *name) {
                return Err(Error::invalid("route.targets", format!("the target '{name}' is there twice")));
            }
            if target.weight > Self::MAX_WEIGHT {
                let max = Self::MAX_WEIGHT;
                return Err(Error::invalid("route.targets", format!("the weight of '{name}' exceeds {max}")));
            }
        }
        if self.targets.iter().all(|target| target.weight == 0) {
            return Err(Error::invalid("route.targets", "at least one target needs a weight above 0"));
        }
        if !self.fallback.before_first && self.fallback.after_first != AfterFirst::Error {
            return Err(Error::invalid(
                "route.after_first",
                "continue and restart need route.before_first=true: whoever may take over in the middle may take over \
                 at the beginning",
            ));
        }
        if self.hedge_after_ms == Some(0) {
            return Err(Error::invalid(
                "route.hedge_after_ms",
                "route.hedge_after_ms must be at least 1; leave it out to ask one target only",
            ));
        }
        if self.hedge_after_ms.is_some() && !self.fallback.before_first {
            return Err(Error::invalid(
                "route.hedge_after_ms",
                "a second target is asked only with route.before_first=true",
            ));
        }
        Ok(())
    }
}

fn parse_target(text: &str) -> Result<Target> {
    let shown: String = text.chars().take(64).collect();
    let bad = || {
        let shown = shown.escape_debug();
        Error::invalid("route.targets", format!("write targets as NAME=WEIGHT,NAME, not '{shown}'"))
    };
    let (name, weight) = match text.split_once('=') {
        Some((name, weight)) => (name.trim(), weight.trim().parse().map_err(|_| bad())?),
        None => (text, one()),
    };
    if name.is_empty() {
        return Err(bad());
    }
    Ok(Target { deployment: name.to_owned(), weight })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(targets: &str) -> RouteSpec {
        RouteSpec { targets: RouteSpec::parse_targets(targets).unwrap(), ..RouteSpec::default() }
    }

    #[test]
    fn targets_are_names_with_weights() {
        let targets = RouteSpec::parse_targets(" a=3, b ,c=0").unwrap();
        let read: Vec<_> = targets.iter().map(|t| (t.deployment.as_str(), t.weight)).collect();
        assert_eq!(read, [("a", 3), ("b", 1), ("c", 0)]);
        for bad in ["", "a,,b", "a=x", "a=-1", "=1", "a=1.5"] {
            assert_eq!(RouteSpec::parse_targets(bad).unwrap_err().param(), Some("route.targets"), "{bad}");
        }
    }

    #[test]
    fn a_route_that_cannot_work_is_refused_by_field() {
        let with = |change: fn(&mut RouteSpec)| {
            let mut spec = route("a,b");
            change(&mut spec);
            spec
        };
        assert!(route("a=3,b=0").validate().is_ok());
        for (field, spec) in [
            ("route.targets", with(|spec| spec.targets.clear())),
            ("route.targets", route("a,b,a")),
            ("route.targets", route("a=0,b=0")),
            ("route.targets", route("a=1000001")),
            ("route.targets", route("a b")),
            ("route.hedge_after_ms", with(|spec| spec.hedge_after_ms = Some(0))),
            (
                "route.hedge_after_ms",
                with(|spec| {
                    spec.hedge_after_ms = Some(5);
                    spec.fallback.before_first = false;
                }),
            ),
            (
                "route.after_first",
                with(|spec| {
                    spec.fallback = Fallback { before_first: false, after_first: AfterFirst::Restart };
                }),
            ),
        ] {
            assert_eq!(spec.validate().unwrap_err().param(), Some(field), "{spec:?}");
        }
    }

    #[test]
    fn what_is_absent_has_its_default() {
        let spec: RouteSpec = serde_json::from_str(r#"{"targets": [{"deployment": "a"}]}"#).unwrap();
        assert_eq!(spec, route("a"));
        assert_eq!(spec.fallback.takeover(), Takeover::BeforeFirst);
        let spec: RouteSpec =
            serde_json::from_str(r#"{"targets": [], "fallback": {"after_first": "continue"}}"#).unwrap();
        assert_eq!(spec.fallback.takeover(), Takeover::Continue);
    }
}
