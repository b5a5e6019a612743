//! `saas/openai`, `saas/official_openai`: OpenAI, and every server that speaks its dialect.

use byzerllm_core::{Error, ErrorKind};

use crate::{Kind, Parameter, Vendor};

/// The vendor.
pub static VENDOR: Vendor = Vendor {
    name: "openai",
    aliases: &["official_openai"],
    title: "OpenAI, and every server that speaks its dialect",
    documentation: "https://platform.openai.com/docs/api-reference/chat",
    parameters: &[Parameter::new("api_key", Kind::Secret, "The API key")],
    open: |_| Err(Error::new(ErrorKind::Unsupported, "not yet")),
};
