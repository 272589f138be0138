//! Crestline from outside: the real program, between real clients and real origins.
//!
//! One file per behaviour; `support` is the harness. The names of the tests are the promises.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod support;

mod acme;
mod activation;
mod admin;
mod admin_listener;
mod attack;
mod balance;
mod bounds;
mod breaks;
mod clients;
mod command_line;
mod config;
mod demo;
mod ejection;
mod errors;
mod explain;
mod failover;
mod forwarding;
mod grpc;
mod h2_abuse;
mod h2_bodies;
mod h2_cost;
mod h2_websocket;
mod h2c;
mod health;
mod includes;
mod listeners;
mod logs;
mod matching;
mod memory;
mod metrics;
mod one_of_three;
mod origin_faults;
mod origin_http2;
mod origin_proxy;
mod origin_tls;
mod outliers;
mod packaging;
mod paths;
mod policies;
mod probation;
mod proxy_protocol;
mod reload;
mod reload_backends;
mod reload_keeps;
mod reload_load;
mod retries;
mod rollback;
mod schema;
mod section_a;
mod soak;
mod sockets;
mod status;
mod stop;
mod streaming;
mod systemd;
mod tidy;
mod timeouts;
mod tls;
mod tls_clients;
mod tls_exchanges;
mod tls_files;
mod tls_reload;
mod tls_sessions;
mod tunnels;
mod upgrade;
mod upgrade_listeners;
mod upgrade_load;
mod upgrade_refused;
mod upgrade_state;
mod watch;
