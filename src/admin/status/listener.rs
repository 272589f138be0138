//! A listener, as people read of it.

use std::fmt;

use crate::admin::status::{CertificateStatus, ListenerStatus, TlsStatus};

impl fmt::Display for ListenerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, protocol, relays_to, h2c, tls } = self;
        let tcp = if protocol == "tcp" { "tcp, " } else { "" };
        let relays = match relays_to.join(", ") {
            none if none.is_empty() => none,
            names => format!(", relays to {names}"),
        };
        let Some(tls) = tls else {
            let words = format!("{tcp}{}", if *h2c { "h2c" } else { "" });
            let words = format!("{}{relays}", words.trim_end_matches(", "));
            let words = if words.is_empty() { words } else { format!(" ({words})") };
            return writeln!(f, "listener {address}{words}");
        };
        let TlsStatus { handshakes, resumed_handshakes: resumed, failed_handshakes, .. } = tls;
        let clients = match tls.client_certificates.as_str() {
            "" | "off" => String::new(),
            mode => format!(", client certificates {mode}"),
        };
        write!(f, "listener {address} ({tcp}tls{clients}{relays}); handshakes: {handshakes}")?;
        if 0 < *resumed {
            write!(f, " ({resumed} resumed)")?;
        }
        write!(f, ", failed: {failed_handshakes}")?;
        if 0 < *failed_handshakes {
            let reasons = tls.failed_by_reason.iter();
            let reasons: Vec<_> = reasons.map(|(why, count)| format!("{why} {count}")).collect();
            write!(f, " ({})", reasons.join(", "))?;
        }
        writeln!(f)?;
        for CertificateStatus { names, key, expires, days_left, ocsp_until, acme } in
            &tls.certificates
        {
            write!(f, "  {}  {key}, ", names.join(", "))?;
            if let Some(acme) = acme.as_ref().filter(|acme| acme.self_signed) {
                write!(f, "self-signed meanwhile; {acme}")?;
                continue;
            }
            let s = if *days_left == 1 { "" } else { "s" };
            let left = match days_left {
                ..0 => "expired".to_owned(),
                left => format!("in {left} day{s}"),
            };
            write!(f, "until {expires} ({left})")?;
            if let Some(until) = ocsp_until {
                write!(f, ", OCSP until {until}")?;
            }
            match acme {
                Some(acme) => write!(f, "; {acme}")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}
