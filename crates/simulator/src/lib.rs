//! Vendors' APIs on this machine: each speaks its documented protocol, checks signatures, bills tokens and fails on demand.
