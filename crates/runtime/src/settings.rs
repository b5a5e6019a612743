//! `key=value` settings of a deployment: one table of typed keys, and a suggestion for a misspelt one.

use std::str::FromStr;

use byzerllm_core::{Error, Result, nearest};

use crate::routing::RouteSpec;
use crate::size::parse_bytes;
use crate::spec::DeploymentSpec;

type Setter = fn(&mut DeploymentSpec, &str, &str) -> Result<()>;

/// A key, whether it is a sampling key (which may carry a prefix), and how it is set.
struct Setting {
    key: &'static str,
    sampling: bool,
    set: Setter,
}

const fn sampling(key: &'static str, set: Setter) -> Setting {
    Setting { key, sampling: true, set }
}

const fn limit(key: &'static str, set: Setter) -> Setting {
    Setting { key, sampling: false, set }
}

static SETTINGS: &[Setting] = &[
    sampling("temperature", |spec, key, value| {
        number(key, value).map(|v| spec.defaults.temperature = Some(v))
    }),
    sampling("top_p", |spec, key, value| number(key, value).map(|v| spec.defaults.top_p = Some(v))),
    sampling("top_k", |spec, key, value| number(key, value).map(|v| spec.defaults.top_k = Some(v))),
    sampling("min_p", |spec, key, value| number(key, value).map(|v| spec.defaults.min_p = Some(v))),
    sampling("seed", |spec, key, value| number(key, value).map(|v| spec.defaults.seed = Some(v))),
    sampling("max_tokens", |spec, key, value| number(key, value).map(|v| spec.defaults.max_tokens = Some(v))),
    sampling("stop", |spec, _, value| {
        spec.defaults.stop = Some(texts(value));
        Ok(())
    }),
    sampling("stop_token_ids", |spec, key, value| {
        ids(key, value).map(|v| spec.defaults.stop_token_ids = Some(v))
    }),
    sampling("presence_penalty", |spec, key, value| {
        number(key, value).map(|v| spec.defaults.presence_penalty = Some(v))
    }),
    sampling("frequency_penalty", |spec, key, value| {
        number(key, value).map(|v| spec.defaults.frequency_penalty = Some(v))
    }),
    sampling("repetition_penalty", |spec, key, value| {
        number(key, value).map(|v| spec.defaults.repetition_penalty = Some(v))
    }),
    sampling("min_tokens", |spec, key, value| number(key, value).map(|v| spec.defaults.min_tokens = Some(v))),
    sampling("ignore_end", |spec, key, value| truth(key, value).map(|v| spec.defaults.ignore_end = Some(v))),
    limit("context_length", |spec, key, value| {
        count(key, value).map(|v| spec.limits.context_length = Some(v))
    }),
    limit("max_sequences", |spec, key, value| count(key, value).map(|v| spec.limits.max_sequences = Some(v))),
    limit("queue_limit", |spec, key, value| number(key, value).map(|v| spec.limits.queue_limit = Some(v))),
    limit("concurrency", |spec, key, value| count(key, value).map(|v| spec.limits.concurrency = Some(v))),
    limit("requests_per_minute", |spec, key, value| {
        count(key, value).map(|v| spec.limits.requests_per_minute = Some(v))
    }),
    limit("tokens_per_minute", |spec, key, value| {
        count(key, value).map(|v| spec.limits.tokens_per_minute = Some(v))
    }),
    limit("cache_bytes", |spec, key, value| bytes(key, value).map(|v| spec.limits.cache_bytes = Some(v))),
    limit("answer_cache_entries", |spec, key, value| {
        count(key, value).map(|v| spec.limits.answer_cache_entries = Some(v))
    }),
    limit("answer_cache_bytes", |spec, key, value| {
        bytes(key, value).map(|v| spec.limits.answer_cache_bytes = Some(v))
    }),
    limit("answer_cache_seconds", |spec, key, value| {
        count(key, value).map(|v| spec.limits.answer_cache_seconds = Some(v))
    }),
    limit("route.targets", |spec, _, value| {
        spec.route.get_or_insert_default().targets = RouteSpec::parse_targets(value)?;
        Ok(())
    }),
    limit("route.before_first", |spec, key, value| {
        route(spec, key)?.fallback.before_first = truth(key, value)?;
        Ok(())
    }),
    limit("route.after_first", |spec, key, value| {
        route(spec, key)?.fallback.after_first =
            value.trim().parse().map_err(|reason: &str| Error::invalid(key.to_owned(), reason))?;
        Ok(())
    }),
    limit("route.hedge_after_ms", |spec, key, value| {
        route(spec, key)?.hedge_after_ms = Some(count(key, value)?);
        Ok(())
    }),
    limit("compute", |spec, key, value| {
        spec.compute =
            value.trim().parse().map_err(|reason: String| Error::invalid(key.to_owned(), reason))?;
        Ok(())
    }),
    limit("quantization", |spec, key, value| {
        let bits = value.parse().map_err(|reason: String| Error::invalid(key.to_owned(), reason))?;
        spec.quantization = Some(bits);
        Ok(())
    }),
];

/// Sets one value on a copy, checks it, and keeps it only when it is valid.
pub(crate) fn apply(spec: &mut DeploymentSpec, key: &str, value: &str) -> Result<()> {
    let trimmed = key.trim();
    if trimmed.starts_with("saas.") {
        return apply_to_provider(spec, trimmed, value);
    }
    if let Some(name) = trimmed.strip_prefix("adapters.") {
        spec.adapters.insert(name.to_owned(), value.into());
        return Ok(());
    }
    let stripped = trimmed.strip_prefix("generation.").or_else(|| trimmed.strip_prefix("gen."));
    let wanted = stripped.unwrap_or(trimmed);
    let found =
        SETTINGS.iter().find(|setting| setting.key == wanted && (stripped.is_none() || setting.sampling));
    let Some(setting) = found else {
        return Err(unknown(trimmed, wanted));
    };
    let mut changed = spec.clone();
    (setting.set)(&mut changed, setting.key, value)?;
    changed.defaults.validate()?;
    *spec = changed;
    Ok(())
}

/// Sets a parameter of a vendor. Its value is checked with the whole deployment, and is quoted nowhere.
fn apply_to_provider(spec: &mut DeploymentSpec, key: &str, value: &str) -> Result<()> {
    match &mut spec.provider {
        Some(provider) => provider.set(key, value),
        None => {
            let shown: String = key.chars().take(64).collect();
            let message = format!(
                "{} is for a vendor's model; leave it out, or say which vendor with --type saas/NAME",
                shown.escape_debug()
            );
            Err(Error::invalid(shown, message))
        }
    }
}

fn unknown(given: &str, wanted: &str) -> Error {
    let shown: String = given.chars().take(64).collect();
    let nearest = nearest(wanted, keys()).unwrap_or("temperature");
    let all: Vec<_> = keys().collect();
    Error::invalid(
        shown.clone(),
        format!(
            "unknown setting '{}'; did you mean '{nearest}'? Settings are: {}",
            shown.escape_debug(),
            all.join(", ")
        ),
    )
}

/// The names of all settings.
pub(crate) fn keys() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().map(|setting| setting.key)
}

/// The route of a deployment that is one.
fn route<'a>(spec: &'a mut DeploymentSpec, key: &str) -> Result<&'a mut RouteSpec> {
    spec.route.as_mut().ok_or_else(|| {
        let message = format!("{key} is for a route; say first where it leads with --route NAME=WEIGHT,NAME");
        Error::invalid(key.to_owned(), message)
    })
}

fn truth(key: &str, value: &str) -> Result<bool> {
    value.trim().to_lowercase().parse().map_err(|_| not_a("truth, true or false", key, value))
}

fn bytes(key: &str, value: &str) -> Result<u64> {
    match parse_bytes(value).map_err(|error| error.with_param(key.to_owned()))? {
        0 => Err(Error::invalid(key.to_owned(), format!("{key} must be at least 1"))),
        bytes => Ok(bytes),
    }
}

fn number<T: FromStr>(key: &str, value: &str) -> Result<T> {
    value.trim().parse().map_err(|_| not_a("number in range", key, value))
}

fn count<T: FromStr + Default + PartialEq>(key: &str, value: &str) -> Result<T> {
    let count: T = number(key, value)?;
    if count == T::default() {
        return Err(Error::invalid(key.to_owned(), format!("{key} must be at least 1")));
    }
    Ok(count)
}

fn not_a(what: &str, key: &str, value: &str) -> Error {
    let shown: String = value.chars().take(64).collect();
    Error::invalid(key.to_owned(), format!("{key} must be a {what}, got '{}'", shown.escape_debug()))
}

/// A JSON list, a JSON string, or the text itself: `[INST]` is a fine stop string.
fn texts(value: &str) -> Vec<String> {
    if let Ok(list) = serde_json::from_str::<Vec<String>>(value) {
        return list;
    }
    vec![serde_json::from_str::<String>(value).unwrap_or_else(|_| value.to_owned())]
}

fn ids(key: &str, value: &str) -> Result<Vec<u32>> {
    if let Ok(list) = serde_json::from_str::<Vec<u32>>(value) {
        return Ok(list);
    }
    let parts = value.split(',').map(|part| part.trim().parse::<u32>());
    parts.collect::<Result<_, _>>().map_err(|_| not_a("list of token ids, like [1, 2]", key, value))
}

#[cfg(test)]
mod tests {
    use byzerllm_model::Compute;

    use super::*;

    fn spec() -> DeploymentSpec {
        DeploymentSpec::new("chat", "/models/chat")
    }

    #[test]
    fn every_key_sets_its_field() {
        let mut spec = spec();
        for (key, value) in [
            ("temperature", "0.5"),
            ("generation.top_p", "0.9"),
            ("gen.top_k", "40"),
            ("min_p", "0.05"),
            ("seed", "18446744073709551615"),
            ("max_tokens", "64"),
            ("stop", r#"["a", "b"]"#),
            ("stop_token_ids", "1, 2"),
            ("presence_penalty", "0.5"),
            ("gen.frequency_penalty", "-0.5"),
            ("generation.repetition_penalty", "1.1"),
            ("min_tokens", "3"),
            ("ignore_end", "True"),
            ("context_length", "2048"),
            ("max_sequences", "8"),
            ("queue_limit", "0"),
            ("cache_bytes", "512MiB"),
            ("concurrency", "3"),
            ("requests_per_minute", "60"),
            ("tokens_per_minute", "5000000000"),
            ("compute", "exact"),
            ("quantization", "true"),
        ] {
            spec.set(key, value).unwrap();
        }
        assert_eq!(spec.defaults.temperature, Some(0.5));
        assert_eq!(spec.defaults.top_p, Some(0.9));
        assert_eq!(spec.defaults.top_k, Some(40));
        assert_eq!(spec.defaults.min_p, Some(0.05));
        assert_eq!(spec.defaults.seed, Some(u64::MAX));
        assert_eq!(spec.defaults.max_tokens, Some(64));
        assert_eq!(spec.defaults.stop, Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(spec.defaults.stop_token_ids, Some(vec![1, 2]));
        assert_eq!(
            (spec.defaults.presence_penalty, spec.defaults.frequency_penalty),
            (Some(0.5), Some(-0.5))
        );
        assert_eq!((spec.defaults.repetition_penalty, spec.defaults.min_tokens), (Some(1.1), Some(3)));
        assert_eq!(spec.defaults.ignore_end, Some(true));
        assert_eq!(spec.limits.context_length, Some(2048));
        assert_eq!(spec.limits.max_sequences, Some(8));
        assert_eq!(spec.limits.queue_limit, Some(0));
        assert_eq!(spec.limits.cache_bytes, Some(512 << 20));
        assert_eq!(spec.limits.concurrency, Some(3));
        assert_eq!(spec.limits.requests_per_minute, Some(60));
        assert_eq!(spec.limits.tokens_per_minute, Some(5_000_000_000));
        assert_eq!(spec.compute, Compute::Exact);
    }

    #[test]
    fn a_route_is_set_by_its_own_keys() {
        let mut spec = DeploymentSpec::new("chat", "");
        let error = spec.set("route.after_first", "restart").unwrap_err();
        assert!(error.message().contains("--route"), "{error}");
        for (key, value) in [
            ("route.targets", "a=3,b"),
            ("route.after_first", "restart"),
            ("route.before_first", "True"),
            ("route.hedge_after_ms", "800"),
            ("answer_cache_entries", "10"),
            ("answer_cache_bytes", "1MiB"),
            ("answer_cache_seconds", "60"),
        ] {
            spec.set(key, value).unwrap();
        }
        spec.validate().unwrap();
        let route = spec.route.clone().unwrap();
        assert_eq!(route.targets, RouteSpec::parse_targets("a=3,b=1").unwrap());
        assert_eq!(
            route.fallback,
            crate::Fallback { before_first: true, after_first: crate::AfterFirst::Restart }
        );
        assert_eq!(route.hedge_after_ms, Some(800));
        let limits = &spec.limits;
        assert_eq!(
            (limits.answer_cache_entries, limits.answer_cache_bytes, limits.answer_cache_seconds),
            (Some(10), Some(1 << 20), Some(60))
        );
        for (key, value) in [
            ("route.after_first", "again"),
            ("route.hedge_after_ms", "0"),
            ("route.before_first", "perhaps"),
            ("route.targets", "a=many"),
            ("answer_cache_bytes", "0"),
        ] {
            assert_eq!(spec.set(key, value).unwrap_err().param(), Some(key));
        }
    }

    #[test]
    fn stop_takes_a_list_a_json_string_or_plain_text() {
        for (value, expected) in [
            (r#"["x"]"#, vec!["x"]),
            (r#""\n""#, vec!["\n"]),
            ("[INST]", vec!["[INST]"]),
            ("END", vec!["END"]),
        ] {
            let mut spec = spec();
            spec.set("stop", value).unwrap();
            assert_eq!(spec.defaults.stop.unwrap(), expected);
        }
    }

    #[test]
    fn an_unknown_key_names_the_nearest_one() {
        for (key, nearest) in [
            ("temprature", "temperature"),
            ("Top-P", "top_p"),
            ("generation.max_token", "max_tokens"),
            ("cache", "cache_bytes"),
            ("gen.max_sequence", "max_sequences"),
        ] {
            let error = spec().set(key, "1").unwrap_err();
            assert!(error.message().contains(&format!("did you mean '{nearest}'?")), "{error}");
            assert_eq!(error.param(), Some(key));
        }
    }

    #[test]
    fn a_bad_value_changes_nothing() {
        for (key, value) in [
            ("temperature", "hot"),
            ("temperature", "-1"),
            ("temperature", "NaN"),
            ("top_k", "1.5"),
            ("context_length", "0"),
            ("cache_bytes", "0"),
            ("cache_bytes", "many"),
            ("compute", "magic"),
            ("stop_token_ids", "a"),
            ("stop", ""),
        ] {
            let mut changed = spec();
            let error = changed.set(key, value).unwrap_err();
            assert_eq!(error.param(), Some(key));
            assert_eq!(changed, spec());
        }
    }
}
