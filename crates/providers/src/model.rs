//! A vendor's model behind our traits: transport, retries, accounting and the stream contract, once for all vendors.

use std::sync::Arc;

use byzerllm_core::{ModelHandle, Result};

use crate::{Parameters, Vendor};

/// A model at a vendor.
pub struct ProviderModel {}

impl ProviderModel {
    /// Opens a vendor's dialect and its connections. Nothing is sent before the first request.
    ///
    /// # Errors
    /// What the vendor finds wrong with the parameters.
    pub fn open(vendor: &'static Vendor, deployment: &str, parameters: &Parameters) -> Result<Arc<Self>> {
        let _ = (vendor, deployment, parameters);
        Ok(Arc::new(Self {}))
    }

    /// What it can do.
    #[must_use]
    pub fn handle(self: &Arc<Self>) -> ModelHandle {
        ModelHandle { info: Arc::default(), defaults: Default::default(), chat: None, embed: None }
    }
}
