//! `saas/qianwen_vl`: Qwen models that see pictures, over DashScope.

use std::sync::Arc;

use crate::dialects::dashscope::DashScope;
use crate::{Dialect, Kind, Parameter, Vendor};

/// The vendor.
pub static VENDOR: Vendor = Vendor {
    name: "qianwen_vl",
    aliases: &["qwen_vl"],
    title: "Alibaba Cloud Qwen-VL, over DashScope",
    documentation: "https://help.aliyun.com/zh/model-studio/qwen-vl-api-via-dashscope",
    parameters: &[
        Parameter::new("api_key", Kind::Secret, "The API key of Model Studio").required(),
        Parameter::new("model", Kind::Text, "The model").or("qwen-vl-plus"),
        Parameter::new("workspace", Kind::Text, "The workspace to work in, when not the key's own"),
    ],
    open: |parameters| Ok(Arc::new(DashScope::open("qianwen_vl", true, parameters)?) as Arc<dyn Dialect>),
};
