//! Hugging Face, or a mirror that speaks its API.
//!
//! A listing is `GET {endpoint}/api/models/{id}/revision/{revision}?blobs=true`: `sha` is the commit, `siblings` the
//! files with `rfilename`, `size`, `blobId` (git's name of a small file) and `lfs.sha256` of a large one. A file is
//! `GET {endpoint}/{id}/resolve/{commit}/{path}`; it may redirect to a storage host, and then the hub's own answer
//! has the checksum in `x-linked-etag`.

use reqwest::Url;
use reqwest::header::AUTHORIZATION;
use serde::Deserialize;

use crate::checksum::Sum;
use crate::choose::{Listing, Remote, check_listing};
use crate::http::{Credential, Web, endpoint, place, refused};
use crate::names::is_plain;
use crate::settings::Settings;
use crate::{Problem, Result};

const VARIABLE: &str = "HF_TOKEN";

#[derive(Deserialize)]
struct Model {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob: Option<String>,
    lfs: Option<Large>,
}

#[derive(Deserialize)]
struct Large {
    sha256: Option<String>,
    size: Option<u64>,
}

/// The token, for the configured origin only.
pub(crate) fn credential(settings: &Settings) -> Result<Credential> {
    let base = endpoint(&settings.hugging_face, "HF_ENDPOINT")?;
    let credential = Credential::none(&base, VARIABLE);
    match &settings.hugging_face_token {
        Some(token) => credential.with(AUTHORIZATION, "Bearer ", token),
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
    let base = endpoint(&settings.hugging_face, "HF_ENDPOINT")?;
    let what = format!("{organisation}/{name}");
    let asked = revision.unwrap_or("main");
    let mut url = extended(&base, &["api", "models", organisation, name, "revision", asked]);
    url.set_query(Some("blobs=true"));
    let value = match web.json(&url, Some(credential), "application/json").await? {
        Ok(value) => value,
        Err((status, headers)) => {
            let hint = format!(
                "Check the spelling of {what} and of the revision {asked}, or try --from modelscope."
            );
            return Err(refused(status, &headers, &url, &what, Some(credential), hint));
        }
    };
    let strange = |why: String| Problem::Answer { place: place(&url), why };
    let model: Model = serde_json::from_value(value)
        .map_err(|error| strange(format!("it is no model's description: {error}")))?;
    if !is_plain(&model.sha) {
        return Err(strange("its commit is no commit".into()));
    }
    let names: Vec<&str> = model.siblings.iter().map(|sibling| sibling.rfilename.as_str()).collect();
    check_listing(&place(&url), &names)?;
    let files = model
        .siblings
        .into_iter()
        .map(|sibling| {
            let mut segments = vec![organisation, name, "resolve", &model.sha];
            segments.extend(sibling.rfilename.split('/'));
            let url = extended(&base, &segments);
            let large = sibling.lfs.as_ref();
            let sum = match large {
                Some(large) => large.sha256.as_deref().and_then(Sum::sha256),
                None => sibling.blob.as_deref().and_then(Sum::git),
            };
            let size = large.and_then(|large| large.size).or(sibling.size);
            // Git's sum covers the length: without it the sum says nothing.
            let sum = sum.filter(|sum| size.is_some() || matches!(sum, Sum::Sha256(_)));
            Remote { path: sibling.rfilename, size, sum, url }
        })
        .collect();
    Ok(Listing { commit: Some(model.sha.clone()), revision: model.sha, files })
}

/// An address below a base, each segment encoded.
pub(crate) fn extended(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}
