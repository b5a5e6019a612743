//! The operations of adapters.

use axum::http::Method;
use byzerllm_runtime::AdapterInfo;
use serde_json::json;

use super::operations::{Answer, Operation, Tag};
use super::schemas::of;
use crate::wire::adapters::{LoadAdapterBody, LoadLoraBody, UnloadAdapterAnswer, UnloadLoraBody};

/// What belongs to a route of adapters.
pub(super) fn operation(method: &Method, path: &str) -> Option<Operation> {
    let described = match (method.as_str(), path) {
        ("GET", "/byzerllm/v1/deployments/{name}/adapters") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<Vec<AdapterInfo>>)];
            let title = "List the LoRA adapters of a deployment.";
            Operation::new("listAdapters", Tag::Admin, title, "Those that requests can use.", ANSWERS)
        }
        ("POST", "/byzerllm/v1/deployments/{name}/adapters") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<AdapterInfo>)];
            let title = "Load a LoRA adapter beside a running model.";
            Operation::new("loadAdapter", Tag::Admin, title, "The adapter.", ANSWERS)
                .says(
                    "Requests for the model `deployment:name` use it from then on. Running requests go on meanwhile.",
                )
                .takes(
                    of::<LoadAdapterBody>,
                    || json!({ "name": "french", "path": "/adapters/french" }),
                )
                .fails(&[409])
        }
        ("DELETE", "/byzerllm/v1/deployments/{name}/adapters/{adapter}") => {
            const ANSWERS: &[Answer] = &[Answer::Json(of::<UnloadAdapterAnswer>)];
            let title = "Unload a LoRA adapter.";
            Operation::new("unloadAdapter", Tag::Admin, title, "It is gone.", ANSWERS)
                .says("New requests are refused at once; the answer comes when those that use it have ended.")
        }
        ("POST", "/v1/load_lora_adapter") => {
            const ANSWERS: &[Answer] = &[Answer::Text("text/plain")];
            let title = "Load a LoRA adapter, in vLLM's words.";
            Operation::new("loadLoraAdapter", Tag::Admin, title, "A line of text.", ANSWERS)
                .takes(
                    of::<LoadLoraBody>,
                    || json!({ "lora_name": "french", "lora_path": "/adapters/french" }),
                )
                .fails(&[409])
        }
        ("POST", "/v1/unload_lora_adapter") => {
            const ANSWERS: &[Answer] = &[Answer::Text("text/plain")];
            let title = "Unload a LoRA adapter, in vLLM's words.";
            Operation::new("unloadLoraAdapter", Tag::Admin, title, "A line of text.", ANSWERS)
                .takes(of::<UnloadLoraBody>, || json!({ "lora_name": "french" }))
        }
        _ => return None,
    };
    Some(described)
}
