//! One file per vendor: its parameters, and how its dialect is opened.

pub mod azure_openai;
pub mod baichuan;
pub mod chatglm;
pub mod deepseek;
pub mod moonshot;
pub mod openai;
pub mod siliconflow;
pub mod volcengine;
pub mod zhipu;
