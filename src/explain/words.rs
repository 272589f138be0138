//! An explanation as people read it.

use std::fmt::{self, Display, Formatter};

use crate::explain::{
    Backend, Certificate, Explanation, Listener, Near, Outcome, RouteTaken, Setting, Share,
    SplitTaken,
};

/// Where the places stand, unless what they belong to is longer.
const PLACES_AT: usize = 56;

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { method, host, path, canonical_path, version, listener, outcome, .. } = self;
        let host = if host.is_empty() { "(no host)" } else { host };
        writeln!(f, "{method} {host} {path}")?;
        if let Some(canonical) = canonical_path {
            writeln!(f, "           matched and forwarded as {canonical}")?;
        }
        if let Some(version) = version {
            writeln!(f, "version    v{version}, in force")?;
        }
        listener.fmt(f)?;
        match outcome {
            Outcome::Taken => {}
            Outcome::NoRoute => writeln!(f, "route      none: 404")?,
            Outcome::OtherMethods { allow } => {
                writeln!(f, "route      none for {method}: 405, Allow: {allow}")?;
            }
            Outcome::Relayed { upstream, sni: Some(name) } => {
                writeln!(
                    f,
                    "relayed    to upstream {upstream}, TLS untouched, for the name {name}"
                )?;
            }
            Outcome::Relayed { upstream, sni: None } => {
                writeln!(f, "relayed    to upstream {upstream}")?;
            }
            Outcome::NoHandshake { alert } => {
                writeln!(f, "refused    in the handshake: {alert}")?;
            }
            Outcome::Refused { status, reason } => {
                writeln!(f, "refused    {status} before routes are asked: {reason}")?;
            }
        }
        if let Some(route) = &self.route {
            route.head(f)?;
        }
        for Near { route, place, why } in &self.nearest {
            line(f, &format!("  not      {route}: {why}"), place.as_ref())?;
        }
        self.route.as_ref().map_or(Ok(()), |route| route.rest(f))?;
        settings(f, "listener", &listener.settings)
    }
}

impl Display for Listener {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(address) = &self.address {
            line(f, &format!("listener   {address}"), self.place.as_ref())?;
            return self.certificate.as_ref().map_or(Ok(()), |certificate| certificate.fmt(f));
        }
        let others = self.others.join(", ");
        let with = if self.lacks_tls { "with TLS " } else { "" };
        writeln!(f, "listener   none {with}on port {}; there is {others}", self.port)
    }
}

impl Display for Certificate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { names, key, expires, place } = self;
        let words = format!("  gives    {} ({key}, until {expires})", names.join(", "));
        line(f, &words, place.as_ref())
    }
}

impl Display for SplitTaken {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { by, is_known, shares } = self;
        let shares =
            shares.iter().map(|Share { upstream, percent }| format!("{upstream} {percent}%"));
        let shares = shares.collect::<Vec<_>>().join(", ");
        let or_another = if *is_known { "" } else { "; this may be any of them" };
        writeln!(f, "  split    {shares}, by {by}{or_another}")
    }
}

impl RouteTaken {
    fn head(&self, f: &mut Formatter<'_>) -> fmt::Result {
        line(f, &format!("route      {}", self.name), self.place.as_ref())?;
        writeln!(f, "  by       {}", self.rule)
    }

    fn rest(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, policy) in self.policies.iter().enumerate() {
            let head = if index == 0 { "policies" } else { "" };
            let words = format!("{head:10} {}. {}", index + 1, policy.name);
            line(f, &words, policy.place.as_ref())?;
        }
        line(f, &format!("upstream   {}", self.upstream.name), self.upstream.place.as_ref())?;
        self.split.as_ref().map_or(Ok(()), |split| split.fmt(f))?;
        if let Some(mirror) = &self.mirror {
            writeln!(f, "  mirror   {mirror}")?;
        }
        for Backend { address, weight, availability, is_next } in &self.backends {
            write!(f, "  backend  {address}, weight {weight}")?;
            if let Some(availability) = availability {
                write!(f, ", {}", availability.as_str())?;
            }
            writeln!(f, "{}", if *is_next { "  <- next" } else { "" })?;
        }
        settings(f, "upstream", &self.settings)
    }
}

fn settings(f: &mut Formatter<'_>, of: &str, settings: &[Setting]) -> fmt::Result {
    if settings.is_empty() {
        return Ok(());
    }
    writeln!(f, "in force for the {of}")?;
    for Setting { key, value, place } in settings {
        let default = "default".to_owned();
        line(f, &format!("  {key:30} {value}"), Some(place.as_ref().unwrap_or(&default)))?;
    }
    Ok(())
}

/// Words, and the place that they are from.
fn line(f: &mut Formatter<'_>, words: &str, place: Option<&String>) -> fmt::Result {
    match place {
        None => writeln!(f, "{words}"),
        Some(place) => writeln!(f, "{words:PLACES_AT$} {place}"),
    }
}
