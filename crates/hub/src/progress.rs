//! Whom a download tells how far it is.

/// Watches a pull. Every method may be called from several tasks at once.
pub trait Progress: Send + Sync {
    /// More bytes will come.
    fn expect(&self, _bytes: u64) {}
    /// Bytes are there, from the network or from an earlier run.
    fn advance(&self, _bytes: u64) {}
    /// Bytes have to come again.
    fn retreat(&self, _bytes: u64) {}
    /// What is being done now.
    fn step(&self, _what: &str) {}
}

impl Progress for () {}
