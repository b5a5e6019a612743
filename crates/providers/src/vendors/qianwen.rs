//! `saas/qianwen`: Alibaba Cloud's Qwen, over DashScope.

use std::sync::Arc;

use crate::dialects::dashscope::DashScope;
use crate::{Dialect, Kind, Parameter, Vendor};

/// The vendor.
pub static VENDOR: Vendor = Vendor {
    name: "qianwen",
    aliases: &["dashscope", "tongyi"],
    title: "Alibaba Cloud Qwen, over DashScope",
    documentation: "https://help.aliyun.com/zh/model-studio/qwen-api-via-dashscope",
    parameters: &[
        Parameter::new("api_key", Kind::Secret, "The API key of Model Studio").required(),
        Parameter::new("model", Kind::Text, "The model, for chat or for embeddings").or("qwen-turbo"),
        Parameter::new("workspace", Kind::Text, "The workspace to work in, when not the key's own"),
    ],
    open: |parameters| Ok(Arc::new(DashScope::open("qianwen", false, parameters)?) as Arc<dyn Dialect>),
};
