//! The command line as scripts see it: help, exit codes, messages, and the life of a deployment.

mod harness;
mod help;
mod lifecycle;
mod local;
mod messages;
