//! What is in force for an upstream, setting by setting, for those who ask why.

use crate::upstream::{
    balance,
    config::{Config, OnNoHealthy},
};

impl Config {
    /// The settings that decide how requests fare, each with its key and its value; those that
    /// were not written have their defaults.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let Self { tls, http, health_check, ejection, on_no_healthy, retries, timeouts, .. } = self;
        let mut settings = tls.as_ref().map_or_else(Vec::new, |tls| tls.settings());
        settings.push(("http", http.as_str().to_owned()));
        if let Some(version) = self.send_proxy_protocol {
            settings.push(("send_proxy_protocol", version.as_str().to_owned()));
        }
        settings.extend(retries.settings());
        if self.balance != balance::Config::default() {
            settings.push(("balance", self.balance.as_str().to_owned()));
        }
        if let Some(slow_start) = &self.slow_start {
            settings.push(("slow_start", slow_start.to_string()));
        }
        settings.extend(self.load_settings());
        settings.extend([
            ("timeouts.connect", timeouts.connect.to_string()),
            ("timeouts.first_byte", timeouts.first_byte.to_string()),
            ("timeouts.between_bytes", timeouts.between_bytes.to_string()),
            ("timeouts.idle", timeouts.idle.to_string()),
            ("timeouts.tunnel", timeouts.tunnel.to_string()),
        ]);
        if tls.is_some() {
            settings.push(("timeouts.handshake", timeouts.handshake.to_string()));
        }
        if let Some(ping) = &timeouts.ping {
            settings.push(("timeouts.ping", ping.to_string()));
        }
        settings.extend(health_check.settings());
        settings.extend(ejection.settings());
        if *on_no_healthy != OnNoHealthy::default() {
            settings.push(("on_no_healthy", on_no_healthy.as_str().to_owned()));
        }
        settings
    }
}
