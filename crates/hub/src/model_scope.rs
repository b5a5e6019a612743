//! ModelScope.
//!
//! A listing is `GET {endpoint}/api/v1/models/{id}/repo/files?Revision={revision}&Recursive=true`: `Data.Files` has
//! `Path`, `Type` (`blob` or `tree`), `Size`, `Sha256`; a failure may come as status 200 with `Success: false` and a
//! `Code`. A file is `GET {endpoint}/api/v1/models/{id}/repo?Revision={revision}&FilePath={path}`. The listing names
//! no commit, so the revision of our cache is a fingerprint of all names and checksums.

use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, COOKIE, HeaderMap};
use serde::Deserialize;

use crate::checksum::{Sum, key};
use crate::choose::{Listing, Remote, check_listing};
use crate::http::{Credential, Web, endpoint, place, refused};
use crate::hugging_face::extended;
use crate::settings::Settings;
use crate::{Problem, Result};

const VARIABLE: &str = "MODELSCOPE_API_TOKEN";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Response {
    code: Option<u16>,
    success: Option<bool>,
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    files: Option<Vec<Listed>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    path: String,
    #[serde(default)]
    r#type: String,
    size: Option<u64>,
    sha256: Option<String>,
}

/// The token, for the configured origin only.
pub(crate) fn credential(settings: &Settings) -> Result<Credential> {
    let base = endpoint(&settings.model_scope, "MODELSCOPE_ENDPOINT")?;
    let credential = Credential::none(&base, VARIABLE);
    match &settings.model_scope_token {
        // Older routes know the session cookie only.
        Some(token) => credential.with(AUTHORIZATION, "Bearer ", token)?.with(COOKIE, "m_session_id=", token),
        None => Ok(credential),
    }
}

/// Asks what there is.
pub(crate) async fn list(
    web: &Web,
    settings: &Settings,
    credential: &Credential,
    (organisation, name): (&str, &str),
    revision: Option<&str>,
) -> Result<Listing> {
    let base = endpoint(&settings.model_scope, "MODELSCOPE_ENDPOINT")?;
    let what = format!("{organisation}/{name}");
    let asked = revision.unwrap_or("master");
    let mut url = extended(&base, &["api", "v1", "models", organisation, name, "repo", "files"]);
    url.query_pairs_mut().append_pair("Revision", asked).append_pair("Recursive", "true");
    let explain = |status: StatusCode, headers: &HeaderMap| {
        let hint =
            format!("Check the spelling of {what} and of the revision {asked}, or try --from huggingface.");
        refused(status, headers, &url, &what, Some(credential), hint)
    };
    let value = match web.json(&url, Some(credential), "application/json").await? {
        Ok(value) => value,
        Err((status, headers)) => return Err(explain(status, &headers)),
    };
    let strange = |why: String| Problem::Answer { place: place(&url), why };
    let answer: Response =
        serde_json::from_value(value).map_err(|error| strange(format!("it is no list of files: {error}")))?;
    if answer.success == Some(false) {
        // Their own codes begin with the HTTP status they mean, or are unknown to us: then it is not found.
        let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.filter(|status| status.is_client_error()).unwrap_or(StatusCode::NOT_FOUND);
        return Err(explain(status, &HeaderMap::new()));
    }
    let listed =
        answer.data.and_then(|data| data.files).ok_or_else(|| strange("it lists no files".into()))?;
    let names: Vec<&str> = listed.iter().map(|file| file.path.as_str()).collect();
    check_listing(&place(&url), &names)?;
    let mut identity: Vec<String> = Vec::new();
    let mut files = Vec::new();
    for file in listed.into_iter().filter(|file| file.r#type != "tree") {
        let mut url = extended(&base, &["api", "v1", "models", organisation, name, "repo"]);
        url.query_pairs_mut().append_pair("Revision", asked).append_pair("FilePath", &file.path);
        let sum = file.sha256.as_deref().and_then(Sum::sha256);
        identity.push(format!("{}\n{:?}\n{:?}", file.path, file.size, sum));
        files.push(Remote { path: file.path, size: file.size, sum, url });
    }
    identity.sort();
    Ok(Listing { revision: key(&identity.join("\n"))[..40].to_owned(), commit: None, files })
}
