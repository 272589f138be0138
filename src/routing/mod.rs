//! Which route takes a request: pure, by lookup, the most specific first.

pub mod cover;
pub mod expression;
pub mod host;
pub mod judged;
pub mod method;
pub mod path;
pub mod pattern;
pub mod request;
pub mod rule;
pub mod split;
pub mod table;
pub mod verdict;
pub mod wanted;
