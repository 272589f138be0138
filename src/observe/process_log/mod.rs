//! The process log: events in the past tense, once per change of state, on stderr.
//!
//! Which levels are told, and in which form, comes from the file and changes with it; the
//! environment goes before the file, and what was asked for at run time before both.

pub mod config;
mod form;
mod levels;

use std::{
    io::{self, Write as _},
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use env_filter::{Builder, Filter};
use log::{LevelFilter, Log, Metadata, Record};

pub use self::levels::{Levels, NoLevels};
use self::{config::Config, form::Form, form::Sink};

/// The variable that sets levels by module.
pub const LEVELS: &str = "CRESTLINE_LOG";

/// What is told if nothing else is said. Pingora's own lines, one for each failed request, are
/// left out: the access log tells the same with the request id.
const BASE: &[(&str, LevelFilter)] = &[
    ("pingora", LevelFilter::Error),
    ("pingora_core", LevelFilter::Error),
    ("pingora_core::connectors", LevelFilter::Off),
    ("pingora_proxy", LevelFilter::Off),
    ("pingora_load_balancing", LevelFilter::Error),
    ("hickory_resolver", LevelFilter::Error),
    ("hickory_net", LevelFilter::Error),
    ("hickory_proto", LevelFilter::Error),
];

/// What is told now.
static RULES: LazyLock<ArcSwap<Rules>> =
    LazyLock::new(|| ArcSwap::from_pointee(Wishes::default().rules()));

/// Where it is told.
static SINK: LazyLock<Sink> = LazyLock::new(Sink::find);

/// What was wished for.
static WISHES: LazyLock<Mutex<Wishes>> = LazyLock::new(Mutex::default);

struct Rules {
    filter: Filter,
    form: Form,
}

#[derive(Default)]
struct Wishes {
    /// By the environment.
    environment: Option<Levels>,
    /// By the file.
    file: Config,
    /// At run time, until the configuration changes.
    now: Option<Levels>,
}

impl Wishes {
    fn rules(&self) -> Rules {
        let mut builder = Builder::new();
        for (module, level) in BASE {
            builder.filter_module(module, *level);
        }
        let wishes = [Some(&self.file.levels), self.environment.as_ref(), self.now.as_ref()];
        for (module, level) in wishes.into_iter().flatten().flat_map(Levels::directives) {
            builder.filter(module, level);
        }
        Rules { filter: builder.build(), form: self.file.format }
    }
}

/// Starts the log, as the environment says.
pub fn start() {
    let (environment, wrong) = match std::env::var(LEVELS).ok().map(|text| text.parse::<Levels>()) {
        Some(Ok(levels)) => (Some(levels), None),
        Some(Err(why)) => (None, Some(why)),
        None => (None, None),
    };
    let started = log::set_logger(&Stderr);
    debug_assert!(started.is_ok(), "the log is started once");
    wish(|wishes| wishes.environment = environment);
    if let Some(why) = wrong {
        let why = why.to_string().replace("\nhelp: ", "; ");
        log::warn!("the environment variable {LEVELS} was not followed: {why}");
    }
}

/// Follows a configuration that came into force; what was wished for at run time is over.
pub fn follow(file: &Config) {
    wish(|wishes| {
        wishes.file = file.clone();
        wishes.now = None;
    });
}

/// Follows these levels until the configuration changes; without any, what else was said.
pub fn follow_now(levels: Option<Levels>) {
    wish(|wishes| wishes.now = levels);
}

/// The levels that are in force beyond the usual ones, as they would be written.
pub fn in_force() -> String {
    let wishes = WISHES.lock().unwrap_or_else(PoisonError::into_inner);
    let all = [Some(&wishes.file.levels), wishes.environment.as_ref(), wishes.now.as_ref()];
    let all = all.into_iter().flatten().map(ToString::to_string);
    all.collect::<Vec<_>>().join(",")
}

fn wish(change: impl FnOnce(&mut Wishes)) {
    let mut wishes = WISHES.lock().unwrap_or_else(PoisonError::into_inner);
    change(&mut wishes);
    let rules = wishes.rules();
    log::set_max_level(rules.filter.filter());
    RULES.store(Arc::new(rules));
}

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        RULES.load().filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let rules = RULES.load();
        if rules.filter.matches(record) {
            let line = rules.form.line(*SINK, record, SystemTime::now());
            // There is nobody to tell that nobody can be told.
            let _ = io::stderr().write_all(&line);
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use log::Level;

    use super::*;

    fn tells(wishes: &Wishes, module: &str, level: Level) -> bool {
        wishes.rules().filter.enabled(&Metadata::builder().target(module).level(level).build())
    }

    #[test]
    fn the_last_wish_decides() {
        let mut wishes = Wishes::default();
        assert!(tells(&wishes, "crestline::proxy", Level::Info));
        assert!(!tells(&wishes, "crestline::proxy", Level::Debug));
        assert!(!tells(&wishes, "pingora_proxy", Level::Error));
        wishes.file.levels = "warn,crestline::proxy=debug".parse().unwrap();
        assert!(tells(&wishes, "crestline::proxy::queue", Level::Debug));
        assert!(!tells(&wishes, "crestline::tls", Level::Info));
        wishes.environment = Some("pingora_proxy=error".parse().unwrap());
        assert!(tells(&wishes, "pingora_proxy", Level::Error));
        wishes.now = Some("crestline::proxy=error,crestline::tls=debug".parse().unwrap());
        assert!(!tells(&wishes, "crestline::proxy", Level::Warn));
        assert!(tells(&wishes, "crestline::tls", Level::Debug));
        assert!(tells(&wishes, "pingora_proxy", Level::Error));
    }
}
