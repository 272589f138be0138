//! The slow path: what happens beside requests.

pub mod signals;
pub mod tasks;
