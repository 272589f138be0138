//! Whatever is filled in, wherever it stands: it is in no message.

use std::sync::Arc;
use std::{env::VarError, fs};

use crestline::{
    config::{File, source},
    diagnostic::{Color, Problems, render},
    snapshot,
};
use proptest::{
    prelude::{prop_assert, proptest},
    sample::select,
};

/// Files with one value from outside, each at a place that reads it in its own way.
const PLACES: [&str; 31] = [
    "threads: ${S}",
    "daemon: ${S}",
    "pid_file: \"${S}\"\nthreads: 0",
    "client_bind_to_ipv4: [\"${S}\"]",
    "trusted_proxies: [\"${S}/8\"]",
    "access_log: \"${S}\"",
    "access_log: { path: \"${S}/log\", format: \"${S}\" }",
    "listeners: [{ address: \"${S}\" }]",
    "listeners: [{ address: \"127.0.0.1:${S}\", timeouts: { idle: \"${S}\" } }]",
    "listeners: [{ address: \"[::]:80\", limits: { header_size: \"${S}KiB\" } }]",
    "listeners: [{ address: \"[::]:80\", tls: { certificates: [{ cert: \"${S}\", key: \"/${S}\" }] } }]",
    "include: [\"${S}\"]",
    "include: [\"${S}/*[.yaml\"]",
    "upstreams: \"${S}\"",
    "upstreams: { app: \"${S}\" }",
    "upstreams: { app: { backends: [\"${S}\"] } }",
    "upstreams: { app: { backends: [\"http://${S}:80/\", { address: \"${S}\" }] } }",
    "upstreams: { app: { backends: [\"${S}:1\", \"${S}:1\"], balance: \"${S}\" } }",
    "upstreams: { app: { backends: [\"a.test:1\"], health_check: \"${S}\" } }",
    "upstreams: { app: { backends: [], health_check: { http: { path: \"${S}\", host: \"${S}\" } } } }",
    "upstreams: { app: { backends: [], health_check: { http: { expect: [\"${S}\"] } } } }",
    "upstreams: { app: { backends: [], ejection: { max_ejected: \"${S}\", eject_for: \"${S}s\" } } }",
    "routes: [\"${S}\"]",
    "routes: [{ name: \"${S}\", upstream: \"${S}\" }, { name: \"${S}\", upstream: \"b\" }]",
    "routes: [{ name: a, upstream: app, match: { path: \"${S}\" } }]",
    "routes: [{ name: a, upstream: app, match: { hosts: [\"${S}\", \"${S}:80\"] } }]",
    "routes: [{ name: a, upstream: app, host: { replace: \"${S}\" } }]",
    "routes: [{ name: a, upstream: app, host: \"${S}\", path: \"${S}\" }]",
    "routes: [{ name: a, upstream: app, policies: [\"${S}\", { body_limit: \"${S}\" }] }]",
    "routes: [{ name: a, upstream: app, policies: [{ request_headers: { remove: [\"${S}\"] } }] }]",
    "routes: [{ name: a, upstream: app, policies: [{ request_headers: { set: { x: \"a ${S} \" } } }] }]",
];

/// All that an operator would see.
fn shown(text: &str, value: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let main = folder.path().join("crestline.yaml");
    fs::write(&main, text).unwrap();
    let variable =
        |name: &str| if name == "S" { Ok(value.to_owned()) } else { Err(VarError::NotPresent) };
    let mut problems = Problems::default();
    let loaded = source::load_with(&main, &variable, &mut problems);
    if let Some(file) = File::read(&loaded, &mut problems) {
        let _ = snapshot::assemble(Arc::new(file), None, &mut problems);
    }
    let shown = render(&problems, &loaded.sources, Color::Never);
    shown.replace(folder.path().to_str().unwrap(), "")
}

proptest! {
    /// The letters are rare in messages, and some of the signs mean something to some place.
    #[test]
    fn no_value_shows_wherever_it_is_filled_in(
        text in select(&PLACES[..]),
        value in "[qxzQXZ]([qxzQXZ789:/.%`\n\t\"\\\\ é*-]{2,70})[qxz7]",
    ) {
        let shown = shown(text, &value).to_lowercase();
        let value = value.to_lowercase();
        prop_assert!(!shown.contains(&value), "{shown}");
        prop_assert!(!shown.contains(&value.escape_debug().to_string()), "{shown}");
        for line in value.lines().filter(|line| 8 <= line.len()) {
            prop_assert!(!shown.contains(line), "{shown}");
        }
        // Quoting cuts long texts: the beginning of one is as bad.
        if let Some(beginning) = value.get(..8) {
            prop_assert!(!shown.contains(beginning), "{shown}");
        }
    }
}
