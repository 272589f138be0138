//! What is in force on a listener, setting by setting, for those who ask why.

use crate::downstream::config::Config;

impl Config {
    /// The settings that decide how connections fare, each with its key and its value; those that
    /// were not written have their defaults.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let Self { protocol, upstream, h2c, tls, timeouts, limits, proxy_protocol, .. } = self;
        let is_http = self.speaks_http();
        let mut settings = vec![("protocol", protocol.as_str().to_owned())];
        settings.extend(upstream.iter().map(|upstream| ("upstream", upstream.value.clone())));
        match tls {
            None if is_http => settings.push(("h2c", h2c.to_string())),
            None => {}
            Some(tls) => settings.extend(tls.settings()),
        }
        if tls.is_some() || self.passthrough.is_some() {
            settings.push(("timeouts.handshake", timeouts.handshake.to_string()));
        }
        if is_http || proxy_protocol.is_some() {
            settings.push(("timeouts.header", timeouts.header.to_string()));
        }
        if is_http {
            settings.extend([
                ("timeouts.idle", timeouts.idle.to_string()),
                ("timeouts.body", timeouts.body.to_string()),
                ("timeouts.write", timeouts.write.to_string()),
                ("limits.header_size", limits.header_size.to_string()),
                ("limits.header_fields", limits.header_fields.to_string()),
                ("limits.target_size", limits.target_size.to_string()),
                ("limits.body_rate", limits.body_rate.to_string()),
            ]);
        }
        if let Some(told) = proxy_protocol {
            settings.push(("proxy_protocol.required", told.required.to_string()));
        }
        settings
    }
}
