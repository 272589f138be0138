//! YAML with the place of every value, read so that all problems come in one run.
//!
//! [`parse`] turns the text into a tree of [`Node`]s that know their bytes; [`read`] turns
//! a node into any type that is [`Deserialize`](serde::Deserialize) and collects what is
//! wrong as [`Problem`](crate::diagnostic::Problem)s. serde gives up at the first error,
//! so `read` reads again without the value that failed, until nothing new comes up
//! (`reader.rs` tells how).
//!
//! # How a module declares its keys
//!
//! With serde's own words. Unknown keys are always refused, with the nearest known one;
//! `deny_unknown_fields` says so to the reader of the code.
//!
//! ```text
//! #[derive(Clone, Debug, PartialEq, Deserialize)]
//! #[serde(deny_unknown_fields)]
//! pub struct Config {
//!     pub backends: Vec<Short<Backend>>,        // `[127.0.0.1:3031, { address: …, weight: 2 }]`
//!     pub health_check: Option<Short<Check>>,   // `tcp`, `off` or `{ http: { … }, every: 5s }`
//!     #[serde(default)]
//!     pub balance: Balance,                     // an enum: `round_robin`, or `{ hash: { … } }`
//!     pub fallback: Option<Spanned<String>>,    // its place is kept for a later check
//! }
//!
//! #[derive(Clone, Debug, PartialEq, Deserialize)]
//! #[serde(deny_unknown_fields)]
//! pub struct Backend {
//!     pub address: Address,
//!     #[serde(default = "one")]
//!     pub weight: NonZeroU16,
//! }
//!
//! impl FromStr for Backend { … }                // what the short form means
//!
//! impl<'de> Deserialize<'de> for Address {      // a value that is always one word
//!     fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
//!         yaml::text(deserializer, "an address such as `127.0.0.1:80`")
//!     }
//! }
//! ```
//!
//! - An enum is a bare word (a unit variant) or a mapping with one key (any other variant).
//! - [`Short`] takes the full form or, from a single word, whatever `FromStr` makes of it;
//!   [`Word`] tells schemas which words those are.
//! - A number or a boolean is also a text, exactly as written: `x-version: 1.10`.
//! - An error that a type reports with `custom` is shown at the value; what follows
//!   `"\nhelp: "` in its message becomes the help line.
//! - A value read as `IgnoredAny` counts as a key that nobody knows.
//! - A value that could not be filled in counts as one that could not be read.
//! - Avoid `untagged` and `flatten`: serde copies the value first, and places are lost.

mod access;
mod choice;
mod de;
mod error;
mod fill;
mod node;
mod parse;
mod reader;
mod spanned;
mod syntax;
mod text;

pub use error::Error;
pub use fill::{Filling, Values};
pub use node::{Entry, Node, Value};
pub use parse::{parse, parse_file};
pub use reader::read;
pub use spanned::Spanned;
pub use text::{Short, Word, text, words};

#[cfg(test)]
mod tests;
