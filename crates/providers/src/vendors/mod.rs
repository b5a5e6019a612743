//! One file per vendor: its parameters, and how its dialect is opened.

pub mod azure_openai;
pub mod baichuan;
pub mod chatglm;
pub mod claude;
pub mod deepseek;
pub mod gemini;
pub mod minimax;
pub mod moonshot;
pub mod openai;
pub mod qianfan;
pub mod qianwen;
pub mod qianwen_vl;
pub mod siliconflow;
pub mod sparkdesk;
pub mod volcengine;
pub mod zhipu;
