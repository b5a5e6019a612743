//! Several deployments behind one name.

mod spec;

pub use spec::{AfterFirst, Fallback, RouteSpec, Target};
