//! The socket of a listener, as the operator writes it.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    diagnostic::{Problem, Problems, Span},
    downstream::config::Address,
    units::{self, Duration},
    yaml::Spanned,
};

/// What the kernel is told of a listening socket and of the connections that come by it.
///
/// What the operator writes under a listener's `socket:`. Changes take effect with an upgrade,
/// `ipv6_only` and `reuse_port` with a restart.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ListenerSocket")]
pub struct Config {
    /// Whether IPv4 clients are left out at `[::]`, which takes both. Default: `false`.
    pub ipv6_only: Spanned<bool>,
    /// How many connections may wait to be accepted; the kernel takes no more than its
    /// `net.core.somaxconn`. Default: `65535`.
    #[schemars(range(min = 1, max = BACKLOG_MAX))]
    pub backlog: Spanned<u32>,
    /// Whether other processes of the same user may listen at the same address, where they have
    /// this set as well; the kernel shares connections out among them. Default: `false`.
    pub reuse_port: Spanned<bool>,
    /// Probes by which the kernel finds out that a silent client is gone. Default: none.
    #[schemars(with = "KeepaliveConfig")]
    pub tcp_keepalive: Option<Spanned<KeepaliveConfig>>,
    /// How long a client may acknowledge nothing of what was sent to it before the kernel ends
    /// its connection, from `1ms` to `24d`. Default: the kernel's, about a quarter of an hour.
    #[schemars(with = "Duration", extend("pattern" = units::POSITIVE))]
    pub user_timeout: Option<Spanned<Duration>>,
    /// TCP Fast Open (RFC 7413): so many connections may bring their request before their
    /// handshake is over. The kernel's `net.ipv4.tcp_fastopen` must have the bit 2.
    /// Default: none.
    #[schemars(with = "u32", range(min = 1, max = BACKLOG_MAX))]
    pub fast_open: Option<Spanned<u32>>,
    /// The class of packets to clients (DSCP, RFC 2474), such as 46 for expedited forwarding.
    /// Default: none, 0.
    #[schemars(with = "u8", range(max = DSCP_MAX))]
    pub dscp: Option<Spanned<u8>>,
}

/// Probes of connections that are silent.
///
/// What the operator writes under `tcp_keepalive:`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "TcpKeepalive")]
pub struct KeepaliveConfig {
    /// How long a connection is silent before the first probe, in whole seconds from `1s` to
    /// `32767s`. Default: `60s`.
    pub idle: Spanned<Duration>,
    /// The time between two probes, in whole seconds from `1s` to `32767s`. Default: `10s`.
    pub every: Spanned<Duration>,
    /// After how many probes without an answer the connection ends. Default: `6`.
    #[schemars(range(min = 1, max = PROBES_MAX))]
    pub count: Spanned<u32>,
}

const BACKLOG_MAX: u32 = 65_535;
const DSCP_MAX: u8 = 63;
/// The kernel's bounds (`MAX_TCP_KEEPCNT`, `MAX_TCP_KEEPIDLE`).
const PROBES_MAX: u32 = 127;
const SECONDS_MAX: u64 = 32_767;
/// The kernel counts milliseconds in 31 bits.
const USER_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 86_400);

impl Default for Config {
    fn default() -> Self {
        Self {
            ipv6_only: Spanned::new(false),
            backlog: Spanned::new(BACKLOG_MAX),
            reuse_port: Spanned::new(false),
            tcp_keepalive: None,
            user_timeout: None,
            fast_open: None,
            dscp: None,
        }
    }
}

impl Default for KeepaliveConfig {
    fn default() -> Self {
        Self {
            idle: Spanned::new(Duration::from_secs(60)),
            every: Spanned::new(Duration::from_secs(10)),
            count: Spanned::new(6),
        }
    }
}

impl Config {
    /// Checks what the kernel would refuse, or would do nothing.
    pub(super) fn check(&self, address: &Address, problems: &mut Problems) {
        self.check_ranges(problems);
        let takes_both = matches!(address, Address::Socket(socket)
            if socket.is_ipv6() && socket.ip().is_unspecified());
        if !takes_both && self.ipv6_only.value {
            let problem = Problem::error("`ipv6_only` does nothing at this address");
            let help = "remove it: it is for `[::]`, which takes IPv4 clients as well";
            problems.push(problem.at(self.ipv6_only.span).help(help));
        }
        let Address::Unix(_) = address else { return };
        let of_tcp = [
            ("reuse_port", is_written(self.reuse_port.span).then_some(self.reuse_port.span)),
            ("tcp_keepalive", self.tcp_keepalive.as_ref().map(|set| set.span)),
            ("user_timeout", self.user_timeout.as_ref().map(|set| set.span)),
            ("fast_open", self.fast_open.as_ref().map(|set| set.span)),
            ("dscp", self.dscp.as_ref().map(|set| set.span)),
        ];
        for (key, span) in of_tcp {
            if let Some(span) = span {
                let problem = Problem::error(format!("`{key}` does nothing on a Unix socket"));
                problems.push(problem.at(span).help("remove it: it is for TCP"));
            }
        }
    }

    fn check_ranges(&self, problems: &mut Problems) {
        let mut refuse = |name: &str, value: String, range: String, span| {
            let message = format!("`{value}` is out of range for `{name}`: {range}");
            problems.push(Problem::error(message).at(span));
        };
        let backlogs = [("backlog", Some(&self.backlog)), ("fast_open", self.fast_open.as_ref())];
        for (name, set) in backlogs {
            if let Some(set) = set.filter(|set| !(1..=BACKLOG_MAX).contains(&set.value)) {
                refuse(name, set.to_string(), format!("1 to {BACKLOG_MAX}"), set.span);
            }
        }
        if let Some(set) = self.dscp.as_ref().filter(|set| DSCP_MAX < set.value) {
            refuse("dscp", set.to_string(), format!("0 to {DSCP_MAX}"), set.span);
        }
        if let Some(set) = &self.user_timeout
            && !(Duration::from_millis(1)..=USER_TIMEOUT_MAX).contains(&set.value)
        {
            refuse("user_timeout", set.to_string(), format!("1ms to {USER_TIMEOUT_MAX}"), set.span);
        }
        let Some(Spanned { value: keepalive, .. }) = &self.tcp_keepalive else { return };
        for (name, time) in [("idle", &keepalive.idle), ("every", &keepalive.every)] {
            let is_whole = time.value.0.subsec_nanos() == 0;
            if !is_whole || !(1..=SECONDS_MAX).contains(&time.value.0.as_secs()) {
                let range = format!("whole seconds, 1s to {SECONDS_MAX}s");
                refuse(name, time.to_string(), range, time.span);
            }
        }
        let count = &keepalive.count;
        if !(1..=PROBES_MAX).contains(&count.value) {
            refuse("count", count.to_string(), format!("1 to {PROBES_MAX}"), count.span);
        }
    }
}

fn is_written(span: Span) -> bool {
    span != Span::default()
}
