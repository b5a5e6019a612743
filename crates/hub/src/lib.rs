//! Getting models: what a reference names is found at a hub, in packages or at a URL, downloaded, checked and kept.
//!
//! The cache is addressed by content: `blobs/<sha256>` holds every file once, `models/<source>/<organisation>/<name>/
//! <revision>/` holds links to them and a manifest. Nothing is written anywhere else, and nothing has its final name
//! before its size and checksum were right. The way of a model: [`Reference`] (what was typed), a listing (what the
//! hub has), a selection (what is needed), downloads, links, manifest.

mod cache;
mod checksum;
mod choose;
mod download;
mod error;
mod http;
mod hub;
mod hugging_face;
mod known;
mod locks;
mod made;
mod model_scope;
mod names;
mod packages;
mod progress;
mod reference;
mod settings;

pub use cache::{Cached, Finding};
pub use error::Problem;
pub use hub::{Hub, Pulled};
pub use known::{Conversion, KNOWN, Known};
pub use progress::Progress;
pub use reference::{Reference, Source};
pub use settings::{Secret, Settings};

/// The result of everything here.
pub type Result<T, E = Problem> = std::result::Result<T, E>;
