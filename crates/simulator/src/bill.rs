//! What a vendor would put on the bill.

use serde::Serialize;

use crate::tokens::Tokens;

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Text generation.
    Chat,
    /// Vectors for texts.
    Embedding,
}

/// How a billed request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It is under way.
    Open,
    /// The whole answer was sent.
    Answered,
    /// The client went away before the end.
    Dropped,
    /// A fault broke the answer off.
    Broken,
}

/// One line of the bill: a request that the vendor began to work on. The work is billed in full, also when the client
/// left or the connection broke: vendors do not stop a batch for one lost reader, and say so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The vendor's id of the request, as in the answer.
    pub request_id: String,
    /// The model's name at the vendor.
    pub model: String,
    /// What it was for.
    pub task: Task,
    /// The tokens to pay for.
    #[serde(flatten)]
    pub tokens: Tokens,
    /// How it ended.
    pub ending: Ending,
}
