//! The simulator from outside, over plain sockets.

mod faults;
mod harness;
mod openai;
