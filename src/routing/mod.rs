//! Which route takes a request: pure, by lookup, the most specific first.

pub mod host;
pub mod path;
pub mod pattern;
pub mod table;
