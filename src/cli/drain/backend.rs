//! `crestline drain app/127.0.0.1:3032`: takes one backend out of service, and shows what it is
//! answering until that is over; `--ready` brings it back.

use std::{fmt, path::Path, process::ExitCode, thread};

use http::Method;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;

use crate::{
    admin::{
        backends::Ordered,
        client,
        status::{BackendStatus, Status},
    },
    cli::{
        drain::LOOK_EVERY,
        remote::{Failure, tell},
    },
};

/// What stands for something else in a path.
const NOT_PLAIN: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'?').add(b'#');

/// A backend as it is shown: a line for each change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Progress {
    upstream: String,
    address: String,
    /// What it is: `draining`, `ready`, and so on; `gone` if it left the upstream meanwhile.
    availability: &'static str,
    in_flight: u32,
}

impl Progress {
    fn of(upstream: &str, backend: &BackendStatus) -> Self {
        Self {
            upstream: upstream.to_owned(),
            address: backend.address.clone(),
            availability: backend.availability.as_str(),
            in_flight: backend.in_flight,
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { upstream, address, availability, in_flight } = self;
        write!(f, "{upstream} {address}: {availability}, {in_flight} in flight")
    }
}

/// Drains a backend, or brings it back; returns when it answers nothing any more, or is back.
pub(super) fn order(
    socket: &Path,
    backend: &str,
    ready: bool,
    json: bool,
) -> Result<ExitCode, Failure> {
    let word = if ready { "ready" } else { "drain" };
    let path = format!("/v1/backends/{}/{word}", utf8_percent_encode(backend, NOT_PLAIN));
    let Ordered { upstream, backend } = client::ask(socket, &Method::POST, &path, None)?;
    let show = |progress: &Progress| tell(progress, json, &format!("{progress}\n"));
    let mut shown = Progress::of(&upstream, &backend);
    show(&shown);
    while !ready && 0 < shown.in_flight {
        thread::sleep(LOOK_EVERY);
        let status: Status = client::ask(socket, &Method::GET, "/v1/status", None)?;
        let upstreams = status.upstreams.iter().filter(|one| one.name == upstream);
        let mut backends = upstreams.flat_map(|one| &one.backends);
        let now = match backends.find(|one| one.address == backend.address) {
            Some(backend) => Progress::of(&upstream, backend),
            None => Progress { availability: "gone", in_flight: 0, ..shown.clone() },
        };
        if now != shown {
            show(&now);
            shown = now;
        }
    }
    Ok(ExitCode::SUCCESS)
}
