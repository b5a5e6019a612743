//! `byzerllm._native`.
