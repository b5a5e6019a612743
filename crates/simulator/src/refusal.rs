//! Why a vendor refuses, before it is put into the vendor's own words.

/// A reason. Every vendor has a status, a code and a body for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No credential.
    NoCredential,
    /// A credential that is none of ours, or whose signature is wrong.
    BadCredential,
    /// A credential that has expired.
    ExpiredCredential,
    /// A path that there is not, or another method.
    NoSuchPath,
    /// A body that is no JSON object.
    NoJson,
    /// A model that there is not.
    NoSuchModel(String),
    /// A field that must be there.
    Missing(String),
    /// A field with a wrong value: its name, and what is wrong.
    Invalid(String, String),
    /// More tokens than the model takes.
    TooLong,
    /// Too many requests.
    RateLimited,
    /// The vendor is full.
    Overloaded,
    /// The vendor broke.
    Broken,
    /// The filter.
    Filtered,
}

impl Refusal {
    /// The status of plain HTTP.
    pub(crate) const fn status(&self) -> u16 {
        match self {
            Self::NoCredential | Self::BadCredential | Self::ExpiredCredential => 401,
            Self::NoSuchPath | Self::NoSuchModel(_) => 404,
            Self::NoJson | Self::Missing(_) | Self::Invalid(..) | Self::TooLong | Self::Filtered => 400,
            Self::RateLimited => 429,
            Self::Overloaded => 503,
            Self::Broken => 500,
        }
    }

    /// An English sentence.
    pub(crate) fn sentence(&self) -> String {
        match self {
            Self::NoCredential => "You didn't provide an API key.".to_owned(),
            Self::BadCredential => "Incorrect API key provided.".to_owned(),
            Self::ExpiredCredential => "The credential has expired.".to_owned(),
            Self::NoSuchPath => "There is nothing at this path.".to_owned(),
            Self::NoJson => "The body is not a JSON object.".to_owned(),
            Self::NoSuchModel(model) => {
                format!("The model `{model}` does not exist or you do not have access to it.")
            }
            Self::Missing(name) => format!("Missing required parameter: '{name}'."),
            Self::Invalid(name, what) => format!("Invalid value for '{name}': {what}."),
            Self::TooLong => "The prompt is longer than the model's maximum context length.".to_owned(),
            Self::RateLimited => "Rate limit reached, please try again later.".to_owned(),
            Self::Overloaded => "The service is overloaded, please try again later.".to_owned(),
            Self::Broken => "The server had an error while processing your request.".to_owned(),
            Self::Filtered => "The content was filtered.".to_owned(),
        }
    }

    /// The field at fault.
    pub(crate) fn field(&self) -> Option<&str> {
        match self {
            Self::Missing(name) | Self::Invalid(name, _) => Some(name),
            Self::NoSuchModel(_) => Some("model"),
            _ => None,
        }
    }
}
