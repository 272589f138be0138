//! Crestline, an edge proxy on Pingora.
//!
//! The modules are declared in the order in which a newcomer should read them: from the floor
//! up. A module imports from lower floors only, and a test holds this picture against the code.
//!
//! ```text
//! 11  main                                     calls cli::run
//! 10  cli  demo                                arguments, problems, exit codes | the demonstration
//!  9  server                                   assembles Pingora's server
//!  7  listener  proxy  control                 accept | the HTTP data path | the slow path
//!  6  snapshot                                 the compiled configuration in force
//!  5  config                                   the file as the operator wrote it
//!  4  policy                                   what may happen to a request on its route
//!  3  downstream  upstream                     the side toward the client | toward the origin
//!  2  http1  routing  observe  reply           pure parsing | pure matching | logs | our own answers
//!  1  clock  diagnostic  yaml  units  field    time | problems with a place | the file's text
//! ```

pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod demo;
pub mod diagnostic;
pub mod downstream;
pub mod field;
pub mod http1;
pub mod listener;
pub mod observe;
pub mod policy;
pub mod proxy;
pub mod reply;
pub mod routing;
pub mod server;
pub mod snapshot;
pub mod units;
pub mod upstream;
pub mod yaml;
