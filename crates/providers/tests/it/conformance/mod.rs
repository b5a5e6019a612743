//! Every vendor against its simulator, which was written from the vendor's documents by other hands than the dialects.

mod faults;
mod features;
mod splits;
mod world;
