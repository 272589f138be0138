//! The process log: events in the past tense, once per change of state, on stderr.

use std::{io::Write, time::SystemTime};

use env_logger::{Builder, Env, fmt::Formatter};
use log::{LevelFilter, Record};

/// The variable that sets levels by module, in the syntax of `env_logger`.
pub const LEVELS: &str = "CRESTLINE_LOG";

/// Starts the log. Pingora's own lines, one for each failed request, are left out: the access
/// log tells the same with the request id.
pub fn start() {
    let started = Builder::new()
        .filter_level(LevelFilter::Info)
        .filter_module("pingora", LevelFilter::Error)
        .filter_module("pingora_core", LevelFilter::Error)
        .filter_module("pingora_core::connectors", LevelFilter::Off)
        .filter_module("pingora_proxy", LevelFilter::Off)
        .filter_module("pingora_load_balancing", LevelFilter::Error)
        .filter_module("hickory_resolver", LevelFilter::Error)
        .filter_module("hickory_net", LevelFilter::Error)
        .filter_module("hickory_proto", LevelFilter::Error)
        .parse_env(Env::new().filter(LEVELS))
        .format(line)
        .try_init();
    debug_assert!(started.is_ok(), "the log is started once");
}

fn line(out: &mut Formatter, record: &Record<'_>) -> std::io::Result<()> {
    let now = jiff::Timestamp::try_from(SystemTime::now()).unwrap_or_default();
    let style = out.default_level_style(record.level());
    writeln!(out, "{now:.3} {style}{:<5}{style:#} {}", record.level(), record.args())
}
