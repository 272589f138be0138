//! The ways in which Crestline itself can be set up, measured beside each other in one run.

use std::str::FromStr;

/// One way to set Crestline up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// As its users run it: with access log, checks, and one header that is injected.
    Plain,
    /// Idle threads take work from busy ones.
    WorkStealing,
    /// Without an access log.
    NoAccessLog,
    /// With five policies more on the route.
    FivePolicies,
}

impl Variant {
    /// What `--variant` takes; the plain one is always measured.
    pub(crate) const KEYS: [&'static str; 3] = ["work_stealing", "no_access_log", "five_policies"];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "Crestline",
            Self::WorkStealing => "Crestline, work stealing",
            Self::NoAccessLog => "Crestline, no access log",
            Self::FivePolicies => "Crestline, five policies",
        }
    }

    /// What the file says of the access log.
    pub(crate) fn access_log(self, folder: &str) -> String {
        match self {
            Self::NoAccessLog => "access_log: off".to_owned(),
            _ => format!("access_log: {{ path: {folder}/access.log }}"),
        }
    }

    /// The policies of the route before the one that every proxy here has.
    pub(crate) fn policies(self) -> &'static str {
        match self {
            Self::FivePolicies => {
                "
      - ip: [\"deny 203.0.113.0/24\", \"allow all\"]
      - method: [GET, POST]
      - body_limit: 1MiB
      - request_headers: { set: { x-edge: crestline }, remove: [x-debug] }
      - security_headers: {}"
            }
            _ => "",
        }
    }
}

impl FromStr for Variant {
    type Err = String;

    fn from_str(key: &str) -> Result<Self, Self::Err> {
        match key {
            "work_stealing" => Ok(Self::WorkStealing),
            "no_access_log" => Ok(Self::NoAccessLog),
            "five_policies" => Ok(Self::FivePolicies),
            _ => Err(format!("`{key}` is none of {}", Self::KEYS.join(", "))),
        }
    }
}
