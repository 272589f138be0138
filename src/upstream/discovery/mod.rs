//! Where the backends of an upstream come from, behind Pingora's `ServiceDiscovery`.

pub mod dns;
