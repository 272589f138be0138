//! The page of all metrics: each module writes its own.

use std::{sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;

use crate::{
    cache,
    control::{Control, Provenance, reloads},
    diagnostic::Problems,
    downstream::refused,
    drain::Drain,
    metrics::{self, Form, Page},
    observe::{access_log, process},
    otlp::courier,
    overload, reason,
    snapshot::{self, Snapshot},
};

/// Writes the page of a running process.
pub fn page(control: &Control, drain: &Drain, form: Form) -> String {
    collect(control, &control.live().load(), drain, form).finish()
}

/// A file whose page names every family, as any page does.
const ANY: &str = "upstreams: { app: { backends: [127.0.0.1:1] } }";

/// The reference of all metrics.
pub fn manual() -> String {
    let snapshot = snapshot::compile(ANY, &mut Problems::default()).expect("it is good");
    let live = Arc::new(ArcSwap::from_pointee(snapshot));
    let control = Control::new(live.clone(), Provenance::default());
    let page = collect(&control, &live.load(), &Drain::default(), Form::Prometheus);
    metrics::manual(&page)
}

fn collect(control: &Control, snapshot: &Snapshot, drain: &Drain, form: Form) -> Page {
    let mut page = Page::new(form);
    snapshot::metrics::collect(snapshot, SystemTime::now(), &mut page);
    refused::collect(&mut page);
    reason::collect(&mut page);
    access_log::collect(&mut page);
    courier::collect(&mut page);
    reloads::collect(control, &mut page);
    process::collect(drain, control.started(), &mut page);
    overload::collect(&mut page);
    cache::collect(&mut page);
    page
}
