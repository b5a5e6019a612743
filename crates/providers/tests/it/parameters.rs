//! Parameters of deployments: typed, complete, and refused by name.

use std::time::Duration;

use byzerllm_core::{ErrorKind, Result};
use byzerllm_providers::{Parameters, ProviderModel, all_parameters, find};

use crate::mini::{KEY, MINI};

fn given(further: &[(&'static str, &'static str)]) -> Result<Parameters> {
    let base = [("saas.api_key", KEY), ("base_url", "https://a.test/v1")];
    Parameters::new(&MINI, base.into_iter().chain(further.iter().copied()))
}

#[test]
fn what_is_not_given_has_its_default() {
    let parameters = given(&[]).unwrap();
    assert_eq!(parameters.seconds("timeout"), Some(Duration::from_secs(600)));
    assert_eq!(parameters.seconds("connect_timeout"), Some(Duration::from_secs(10)));
    assert_eq!((parameters.count("max_retries"), parameters.flag("https_verify")), (Some(2), true));
    assert_eq!((parameters.text("model"), parameters.optional_text("proxies")), ("", None));
    assert_eq!(parameters.secret("api_key").map(|key| key.expose()), Some(KEY));
    // A vendor's own parameter hides a common one, and every name is there once.
    let mut names: Vec<_> = all_parameters(&MINI).map(|parameter| parameter.name).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn values_have_their_kind() {
    let parameters = given(&[
        ("idle_timeout", "1.5"),
        ("verify", "off"),
        ("local_address", "::1"),
        ("saas.proxy", " http://p:1 "),
    ]);
    let parameters = parameters.unwrap();
    assert_eq!(parameters.seconds("idle_timeout"), Some(Duration::from_millis(1500)));
    assert!(!parameters.flag("https_verify"));
    assert_eq!(parameters.address("local_address").map(|address| address.is_ipv6()), Some(true));
    assert_eq!(parameters.text("proxies"), "http://p:1");
}

#[test]
fn what_is_wrong_is_named() {
    let cases: [(&'static str, &'static str, &str); 15] = [
        ("tempreture", "1", "saas.tempreture"),
        ("max_retrys", "1", "saas.max_retrys"),
        ("timeout", "0", "saas.timeout"),
        ("timeout", "-1", "saas.timeout"),
        ("timeout", "inf", "saas.timeout"),
        ("timeout", "NaN", "saas.timeout"),
        ("max_retries", "2.5", "saas.max_retries"),
        ("max_retries", "-1", "saas.max_retries"),
        ("https_verify", "perhaps", "saas.https_verify"),
        ("local_address", "localhost", "saas.local_address"),
        ("form", "smoke", "saas.form"),
        ("saas.base_url", "https://b.test", "saas.base_url"),
        ("api_key", "two words", "saas.api_key"),
        ("api_key", "", "saas.api_key"),
        ("base_url", "https://user:word@b.test", "saas.base_url"),
    ];
    for (name, value, param) in cases {
        let error = given(&[(name, value)]).err().unwrap_or_else(|| panic!("{name}={value}"));
        assert_eq!((error.kind(), error.param()), (ErrorKind::InvalidRequest, Some(param)), "{name}={value}");
    }
    let near = given(&[("max_retrys", "1")]).unwrap_err();
    assert!(near.message().contains("did you mean 'saas.max_retries'?"), "{near}");
    for url in ["a.test", "ftp://a.test", "http://", "file:///etc/passwd"] {
        let error = Parameters::new(&MINI, [("api_key", KEY), ("base_url", url)]).unwrap_err();
        assert_eq!(error.param(), Some("saas.base_url"), "{url}");
    }
    let missing = Parameters::new(&MINI, []).unwrap_err();
    assert_eq!(missing.param(), Some("saas.api_key"));
    assert!(missing.message().contains("saas/mini needs saas.api_key"), "{missing}");
}

#[test]
fn a_secret_that_is_wrong_is_not_quoted() {
    let error = Parameters::new(&MINI, [("api_key", "canary one\ntwo")]).unwrap_err();
    assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    let error = given(&[("base_url", "https://user:canary@b.test")]).unwrap_err();
    assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    for proxy in ["canary", "ftp://user:canary@p", "http://user:canary@"] {
        let error = ProviderModel::open(&MINI, "m", &given(&[("proxies", proxy)]).unwrap()).err().unwrap();
        assert_eq!(error.param(), Some("saas.proxies"));
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    }
}

#[test]
fn files_that_cannot_be_read_are_found_when_a_model_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "nothing").unwrap();
    for file in [folder.path().join("missing.pem"), empty] {
        let name = file.to_str().unwrap().to_owned();
        let named = [("api_key", KEY), ("base_url", "https://a.test"), ("ca_file", name.as_str())];
        let error = ProviderModel::open(&MINI, "m", &Parameters::new(&MINI, named).unwrap()).err().unwrap();
        assert_eq!(error.param(), Some("saas.ca_file"), "{error}");
        assert!(error.message().contains(&name), "{error}");
    }
}

#[test]
fn a_vendor_s_name_is_found_or_the_nearest_named() {
    assert_eq!(find("saas/openai").unwrap().name, "openai");
    assert_eq!(find("official_openai").unwrap().name, "openai");
    let error = find("saas/opena").unwrap_err();
    assert_eq!((error.kind(), error.param()), (ErrorKind::NotFound, Some("type")));
    assert!(error.message().contains("did you mean 'saas/openai'?"), "{error}");
}
