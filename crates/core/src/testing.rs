//! Test doubles and the conformance kit that every [`crate::ChatModel`] passes.
