//! OpenAI's chat completions and embeddings, which most vendors speak with small differences.
//!
//! Source: OpenAI API reference, "Chat" and "Embeddings".
