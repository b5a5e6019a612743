//! The table of vendors.

use std::sync::Arc;

use byzerllm_core::{Error, ErrorKind, Result, nearest};

use crate::vendors;
use crate::{Dialect, Parameter, Parameters};

/// A vendor: what its deployments are told, and how to open its dialect.
pub struct Vendor {
    /// Its name after `saas/`.
    pub name: &'static str,
    /// Other names of it.
    pub aliases: &'static [&'static str],
    /// One line for people.
    pub title: &'static str,
    /// The page of the vendor that its translation was written from.
    pub documentation: &'static str,
    /// Its own `saas.*` parameters; [`crate::all_parameters`] adds those that all have.
    pub parameters: &'static [Parameter],
    /// Opens the dialect. Parameters are complete and typed; what remains is what only this vendor can check.
    pub open: fn(&Parameters) -> Result<Arc<dyn Dialect>>,
}

/// Every vendor, by name.
pub static VENDORS: &[&Vendor] = &[
    &vendors::openai::VENDOR,
    &vendors::openai::REASONING,
    &vendors::azure_openai::VENDOR,
    &vendors::baichuan::VENDOR,
    &vendors::chatglm::VENDOR,
    &vendors::deepseek::VENDOR,
    &vendors::moonshot::VENDOR,
    &vendors::siliconflow::VENDOR,
    &vendors::volcengine::VENDOR,
    &vendors::zhipu::VENDOR,
    &vendors::claude::VENDOR,
    &vendors::gemini::VENDOR,
    &vendors::minimax::VENDOR,
    &vendors::qianfan::VENDOR,
    &vendors::qianwen::VENDOR,
    &vendors::qianwen_vl::VENDOR,
    &vendors::sparkdesk::VENDOR,
];

/// The vendor of that name, with or without `saas/`.
///
/// # Errors
/// [`ErrorKind::NotFound`], naming the nearest.
pub fn find(name: &str) -> Result<&'static Vendor> {
    let word = name.strip_prefix("saas/").unwrap_or(name);
    let known = VENDORS.iter().find(|vendor| vendor.name == word || vendor.aliases.contains(&word));
    known.copied().ok_or_else(|| {
        let names = VENDORS
            .iter()
            .flat_map(|vendor| std::iter::once(vendor.name).chain(vendor.aliases.iter().copied()));
        let near = nearest(word, names).unwrap_or("openai");
        let all: Vec<String> = VENDORS.iter().map(|vendor| format!("saas/{}", vendor.name)).collect();
        let shown: String = word.chars().take(64).collect();
        Error::new(
            ErrorKind::NotFound,
            format!(
                "there is no vendor 'saas/{}'; did you mean 'saas/{near}'? There are: {}",
                shown.escape_debug(),
                all.join(", ")
            ),
        )
        .with_param("type")
    })
}

impl std::fmt::Debug for Vendor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vendor").field("name", &self.name).finish_non_exhaustive()
    }
}
