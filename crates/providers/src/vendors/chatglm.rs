//! `saas/chatglm`: the service of old (`wudao`, engine `chatGLM`) is gone. The name opens its successor, Zhipu's GLM-4.
//!
//! Source: <https://docs.bigmodel.cn/cn/guide/start/introduction>.

use crate::{Kind, Parameter, Vendor};

/// The vendor.
pub static VENDOR: Vendor = Vendor {
    name: "chatglm",
    aliases: &[],
    title: "ChatGLM, opened as its successor GLM-4 at Zhipu",
    documentation: "https://docs.bigmodel.cn/cn/guide/start/introduction",
    parameters: &[
        Parameter::new("api_key", Kind::Secret, "The API key of Zhipu's open platform")
            .required()
            .also(&["apiKey"]),
        Parameter::new("public_key", Kind::Secret, "Of the service of old; not read").also(&["publicKey"]),
        Parameter::new("model", Kind::Text, "The model's name").or("glm-4"),
    ],
    open: |parameters| {
        tracing::warn!(
            "saas/chatglm: the service that this was is gone; the deployment is opened at its successor, saas/zhipu, with \
             the model {}",
            parameters.text("model")
        );
        super::zhipu::open(parameters)
    },
};
