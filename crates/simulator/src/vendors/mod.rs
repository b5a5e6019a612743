//! One file per protocol. Every one is written from the vendor's own documents and its own client library.

use byzerllm_core::{Error, ErrorKind, Result, nearest};

use crate::protocol::Protocol;

mod claude;
mod dashscope;
mod errors;
mod flavours;
mod gemini;
mod minimax;
mod openai;
mod openai_read;
mod qianfan;
mod spark;
mod zhipu;

/// The vendors that can be simulated.
pub const VENDORS: &[&str] = &[
    "openai",
    "azure_openai",
    "zhipu",
    "qianwen",
    "qianwen_vl",
    "baichuan",
    "minimax",
    "qianfan",
    "sparkdesk",
    "claude",
    "gemini",
    "deepseek",
    "moonshot",
    "siliconflow",
    "volcengine",
];

/// The protocol of a vendor, with or without `saas/`.
///
/// # Errors
/// [`ErrorKind::NotFound`], naming the nearest.
pub(crate) fn find(name: &str) -> Result<(&'static str, Box<dyn Protocol>)> {
    let word = name.strip_prefix("saas/").unwrap_or(name);
    let word = match word {
        "official_openai" | "reasoning_openai" => "openai",
        "chatglm" => "zhipu",
        word => word,
    };
    let known = VENDORS.iter().find(|vendor| **vendor == word);
    let protocol = known.and_then(|vendor| open(vendor).map(|protocol| (*vendor, protocol)));
    protocol.ok_or_else(|| {
        let near = nearest(word, VENDORS.iter().copied()).unwrap_or("openai");
        let shown: String = word.chars().take(64).collect();
        let message = format!(
            "there is no simulated vendor '{}'; did you mean '{near}'? There are: {}",
            shown.escape_debug(),
            VENDORS.join(", ")
        );
        Error::new(ErrorKind::NotFound, message).with_param("vendor")
    })
}

fn open(vendor: &str) -> Option<Box<dyn Protocol>> {
    Some(match vendor {
        "qianwen" => Box::new(dashscope::DashScope { pictures: false }),
        "qianwen_vl" => Box::new(dashscope::DashScope { pictures: true }),
        "minimax" => Box::new(minimax::MiniMax),
        "qianfan" => Box::new(qianfan::Qianfan),
        "sparkdesk" => Box::new(spark::Spark),
        "claude" => Box::new(claude::Claude),
        "gemini" => Box::new(gemini::Gemini),
        _ => {
            Box::new(openai::OpenAi { flavour: flavours::ALL.iter().find(|flavour| flavour.name == vendor)? })
        }
    })
}
