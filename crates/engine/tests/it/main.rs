//! The engine from outside: a network whose answers depend on everything it should see, and nothing else.

mod answers;
mod fake;
mod limits;
mod lives;
mod sharing;
mod text;
