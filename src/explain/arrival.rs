//! How a request arrives: the listener, and the certificate that its client is given.

use std::sync::Arc;

use http::{Method, header::HOST};

use crate::{
    downstream::config::Address,
    explain::{Certificate, Listener, Oracle, Outcome, question::Asked},
    http1::{authority::Authority, refusal::Refusal},
    reason::Reason,
    routing::{host::RequestHost, path},
    snapshot::{self, RelayTarget},
    tls::keyring::Keyring,
};

impl Oracle<'_> {
    /// Finds the listener on the port that was asked for, and whether the request gets past it to
    /// the routes.
    pub(super) fn arrive(&self, asked: &Asked) -> (Listener, Result<(), Outcome>) {
        let Asked { port, is_tls, .. } = *asked;
        let on_port =
            |address: &Address| matches!(address, Address::Socket(it) if it.port() == port);
        let all = || self.file().listeners.iter().zip(&self.snapshot.listeners).enumerate();
        let mut here = all().filter(|(_, (_, listener))| on_port(&listener.address));
        // Without TLS, a client gets an answer where TLS is spoken, and no use.
        let fits = here
            .clone()
            .find(|(_, (_, listener))| listener.tls.is_some() == is_tls || !listener.speaks_http());
        let is_there = here.clone().next().is_some();
        let Some((index, (config, listener))) = fits.or_else(|| here.find(|_| !is_tls)) else {
            let others = all().map(|(_, (_, other))| other.address.to_string()).collect();
            return (Listener::none(port, others, is_tls && is_there), judge(asked, None));
        };
        let at = format!("listeners[{index}]");
        let mut told = Listener {
            address: Some(listener.address.to_string()),
            place: self.place(Some(config.address.span)),
            settings: self.settings(&at, config.settings()),
            ..Listener::none(port, Vec::new(), false)
        };
        if let Some(outcome) = passed(listener, asked) {
            return (told, Err(outcome));
        }
        let judge = || match &listener.relays.rest {
            Some(target) => Err(relayed(target, None)),
            None => judge(asked, Some(config.limits.target_size.value.0)),
        };
        let Some(keyring) = listener.tls.as_ref().map(|tls| tls.now()) else {
            return (told, judge());
        };
        if !is_tls {
            let reason = Reason::PlainHttpOnTls.to_string();
            return (told, Err(Outcome::Refused { status: 400, reason }));
        }
        let Some(index) = given(&keyring, &asked.server_name) else {
            return (told, Err(Outcome::NoHandshake { alert: "unrecognized_name".to_owned() }));
        };
        let certificate = &keyring.certificates()[index];
        let written = config.tls.as_ref().and_then(|tls| tls.place(index));
        told.certificate = Some(Certificate {
            names: certificate.names.iter().map(str::to_owned).collect(),
            key: certificate.kind.as_str().to_owned(),
            expires: certificate.last_day(),
            place: self.place(written),
        });
        let host = RequestHost::new(&asked.authority);
        let is_covered = !listener.speaks_http()
            || asked.authority.is_empty()
            || certificate.names.cover(host.as_str());
        let misdirected =
            || Outcome::Refused { status: 421, reason: Reason::Misdirected.to_string() };
        (told, if is_covered { judge() } else { Err(misdirected()) })
    }
}

/// What becomes of a connection by the name that it asks for, if that decides.
fn passed(listener: &snapshot::Listener, asked: &Asked) -> Option<Outcome> {
    let names = listener.relays.names.as_ref()?;
    let name = Some(&asked.server_name).filter(|name| asked.is_tls && !is_address(name));
    if let Some(target) = name.and_then(|name| names.find(name)) {
        return Some(relayed(target, name));
    }
    if !listener.relays.is_closed() {
        return None;
    }
    Some(if asked.is_tls {
        Outcome::NoHandshake { alert: "unrecognized_name".to_owned() }
    } else {
        Outcome::Refused { status: 400, reason: Reason::NoTls.to_string() }
    })
}

fn relayed(target: &RelayTarget, sni: Option<&String>) -> Outcome {
    Outcome::Relayed { upstream: target.upstream.name().to_string(), sni: sni.cloned() }
}

/// Clients name no addresses in a handshake.
fn is_address(server_name: &str) -> bool {
    server_name.starts_with('[') || server_name.parse::<std::net::IpAddr>().is_ok()
}

/// What is refused before routes are asked.
fn judge(asked: &Asked, target_max: Option<u64>) -> Result<(), Outcome> {
    let refused =
        |status, reason: Reason| Err(Outcome::Refused { status, reason: reason.to_string() });
    let head = |refusal: Refusal| refused(refusal.status, refusal.reason);
    let is_too_long = |max| max < asked.target_length() as u64;
    match () {
        () if asked.method == Method::CONNECT => head(Refusal::CONNECT_METHOD),
        () if asked.method == Method::TRACE => head(Refusal::TRACE_METHOD),
        () if 1 < asked.headers.get_all(HOST).iter().count() => head(Refusal::DUPLICATE_HOST),
        () if Authority::parse(asked.authority.as_bytes()).is_none() => head(Refusal::BAD_HOST),
        () if target_max.is_some_and(is_too_long) => head(Refusal::TARGET_TOO_LONG),
        () if path::check_query(&asked.query).is_err() => head(Refusal::BAD_TARGET),
        () => path::canonicalize(&asked.path)
            .map_or_else(|why| refused(400, why.reason()), |_| Ok(())),
    }
}

/// Which certificate a client is given that can verify any.
fn given(keyring: &Keyring, server_name: &str) -> Option<usize> {
    let found = keyring.find((!is_address(server_name)).then_some(server_name))?;
    keyring.certificates().iter().position(|one| Arc::ptr_eq(one, found))
}
