//! Attributes by OpenTelemetry's conventions that records of all kinds have.

use crate::otlp::proto::KeyValue;

/// A host, and its port where one was named.
pub(crate) fn server(host: &str, attributes: &mut Vec<KeyValue>) {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !name.ends_with(':') && !name.is_empty() => {
            (name, port.parse::<u16>().ok())
        }
        _ => (host, None),
    };
    // The colons of an address of IPv6 are its own, but for the last one behind a bracket.
    let is_split = port.is_some() && (name.ends_with(']') || !name.contains(':'));
    let (name, port) = if is_split { (name, port) } else { (host, None) };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    attributes.push(KeyValue::new("server.address", bare));
    attributes.extend(port.map(|port| KeyValue::new("server.port", u64::from(port))));
}

/// A target: its path, and its query where there is one.
pub(crate) fn url(target: &str, attributes: &mut Vec<KeyValue>) {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    attributes.push(KeyValue::new("url.path", path));
    attributes.extend(query.map(|query| KeyValue::new("url.query", query)));
}

/// `HTTP/1.1`, `HTTP/2.0`, or `TCP` for a connection that was relayed.
pub(crate) fn network(protocol: &str, attributes: &mut Vec<KeyValue>) {
    match protocol.strip_prefix("HTTP/") {
        Some(version) => {
            let version = version.strip_suffix(".0").filter(|it| *it != "1").unwrap_or(version);
            attributes.push(KeyValue::new("network.protocol.name", "http"));
            attributes.push(KeyValue::new("network.protocol.version", version));
        }
        None => attributes.push(KeyValue::new("network.transport", protocol.to_lowercase())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_may_have_a_port_and_an_address_colons() {
        for (host, name, port) in [
            ("a.test", "a.test", None),
            ("a.test:80", "a.test", Some(80)),
            ("[::1]:80", "::1", Some(80)),
            ("[::1]", "::1", None),
            ("::1", "::1", None),
            ("a:b", "a:b", None),
            ("", "", None),
        ] {
            let mut attributes = Vec::new();
            server(host, &mut attributes);
            let expected: Vec<_> = [KeyValue::new("server.address", name)]
                .into_iter()
                .chain(port.map(|port: u64| KeyValue::new("server.port", port)))
                .collect();
            assert_eq!(attributes, expected, "{host}");
        }
    }
}
