//! What our answers tell beside what the borrowed APIs have words for.

use byzerllm_core::{Event, Notice, Usage, UsageSource};
use schemars::JsonSchema;
use serde::Serialize;

/// The field `byzerllm` of an answer or of a piece of one; absent when there is nothing to tell.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "ByzerllmNotes")]
pub(crate) struct Notes {
    /// The vendor's id of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    vendor_request_id: Option<String>,
    /// What happened on the way: another deployment took over, the answer is a kept one or began again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notices: Vec<Notice>,
    /// Where the numbers of the usage come from, when nobody counted them.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage_source: Option<UsageSource>,
}

impl Notes {
    /// Whether there is nothing to tell.
    pub(crate) fn is_empty(&self) -> bool {
        self.vendor_request_id.is_none() && self.notices.is_empty() && self.usage_source.is_none()
    }

    /// Takes what an event tells that the answer's own fields do not.
    pub(crate) fn see(&mut self, event: &Event) {
        match event {
            Event::Started { vendor_request_id: Some(id), .. } => self.vendor_request_id = Some(id.clone()),
            Event::Notice { notice } => self.notice(notice),
            Event::Usage { usage } => self.usage(usage),
            _ => {}
        }
    }

    /// Takes a notice. What the usage or the choice tells anyway is left out.
    pub(crate) fn notice(&mut self, notice: &Notice) {
        if !matches!(notice, Notice::CacheHit { .. } | Notice::InvalidToolCall { .. }) {
            self.notices.push(notice.clone());
        }
    }

    /// Takes where the usage comes from.
    pub(crate) fn usage(&mut self, usage: &Usage) {
        if matches!(usage.source, UsageSource::Estimated | UsageSource::Unknown) {
            self.usage_source = Some(usage.source);
        }
    }

    /// Takes what another answer of the same call tells.
    pub(crate) fn join(&mut self, other: Self) {
        self.vendor_request_id = self.vendor_request_id.take().or(other.vendor_request_id);
        self.notices.extend(other.notices);
        self.usage_source = self.usage_source.or(other.usage_source);
    }

    /// What is to be told, if anything.
    pub(crate) fn some(self) -> Option<Self> {
        (!self.is_empty()).then_some(self)
    }

    /// The vendor's id of the request.
    pub(crate) fn vendor_request_id(&self) -> Option<&str> {
        self.vendor_request_id.as_deref()
    }

    /// The deployment that answered in place of the one that was asked.
    pub(crate) fn served_by(&self) -> Option<&str> {
        self.notices.iter().rev().find_map(|notice| match notice {
            Notice::FailedOver { to } => Some(to.as_str()),
            _ => None,
        })
    }

    /// Whether the answer is one that was kept.
    pub(crate) fn cached(&self) -> bool {
        self.notices.iter().any(|notice| matches!(notice, Notice::Cached { .. }))
    }
}
