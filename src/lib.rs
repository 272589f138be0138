//! Crestline, an edge proxy on Pingora.
//!
//! The modules are declared in the order in which a newcomer should read them: from the floor
//! up. A module imports from lower floors only, and a test holds this picture against the code.
//!
//! ```text
//! 14  main                             calls cli::run
//! 13  cli                              arguments, problems, exit codes
//! 12  demo                             three origins and a proxy to try
//! 11  server                           assembles Pingora's server
//! 10  admin                            the API of a running process, and its client
//!  9  handover                         one process takes the place of another
//!  8  listener  proxy  control         accept | the HTTP data path | the slow path
//!     stream                           the TCP data path
//!     explain                          what becomes of a request, and why
//!  7  snapshot                         the compiled configuration in force
//!  6  config                           the file as the operator wrote it
//!  5  policy                           what may happen to a request on its route
//!  4  downstream  upstream             the side toward the client | toward the origin
//!     traces                           requests as spans of OpenTelemetry
//!  3  http1  routing  observe  reply   pure parsing | pure matching | logs | our own answers
//!     http2                            what passes on a connection of HTTP/2
//!     tls                              certificates, the handshake, and what origins are judged by
//!  2  field                            header fields as the operator writes them
//!     reason                           why requests end: one closed list
//!     acme                             certificates that are obtained by themselves
//!     cache                            answers that are kept
//!     overload                         whether the process has too much to do
//!     otlp                             records for a receiver of OpenTelemetry
//!  1  yaml  drain  panics              the file's text, with places | how the process ends
//!     client                           other services, asked by HTTP
//!     metrics                          what is counted, as Prometheus reads it
//!  0  clock  counter  diagnostic       time | counts | problems with a place
//!     folder  systemd                  folders to write to | the service manager
//!     units                            quantities
//! ```

pub mod acme;
pub mod admin;
pub mod cache;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod control;
pub mod counter;
pub mod demo;
pub mod diagnostic;
pub mod downstream;
pub mod drain;
pub mod explain;
pub mod field;
pub mod folder;
pub mod handover;
pub mod http1;
pub mod http2;
pub mod listener;
pub mod metrics;
pub mod observe;
pub mod otlp;
pub mod overload;
pub mod panics;
pub mod policy;
pub mod proxy;
pub mod reason;
pub mod reply;
pub mod routing;
pub mod server;
pub mod snapshot;
pub mod stream;
pub mod systemd;
pub mod tls;
pub mod traces;
pub mod units;
pub mod upstream;
pub mod yaml;
