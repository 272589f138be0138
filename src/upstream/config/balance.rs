//! What must not be written together about how requests are shared out.

use crate::{
    diagnostic::{Problem, Problems},
    upstream::{
        balance,
        config::{Address, Config},
    },
};

impl Config {
    /// Tells what would do nothing, or could not work.
    pub(super) fn check_balance(
        &self,
        upstream: &str,
        zone: Option<&str>,
        problems: &mut Problems,
    ) {
        for backend in &self.backends.value {
            if let (Some(written), None) = (&backend.zone, zone) {
                let message = format!("`zone` does nothing for backend `{}`", backend.address);
                let help = "say where this proxy stands, by a `zone:` at the top of the file";
                problems.push(Problem::error(message).at(written.span).help(help));
            }
            if let (Address::Unix(_), balance::Config::ConsistentHash(_)) =
                (&backend.address, &self.balance)
            {
                let message =
                    format!("`{}` has no place on a ring of `consistent_hash`", backend.address);
                let help = "give the backend by an IP address, or balance by `least_requests`";
                problems.push(Problem::error(message).at(backend.span).help(help));
            }
        }
        if let (Some(written), balance::Config::Sticky(_)) =
            (&self.retries.0.hedge_after, &self.balance)
        {
            let message = "`hedge_after` asks backends that know nothing of the client, where \
                           `sticky` keeps it at one";
            let problem = Problem::error(message).at(written.span);
            problems.push(problem.help("remove it, or balance in another way"));
        }
        // With `discovery`, others may serve first.
        if self.discovery.is_none() && self.backends.iter().all(|backend| backend.backup) {
            let message = format!("every backend of upstream `{upstream}` is a backup");
            let help = "remove `backup: true` from those that are to serve first";
            problems.push(Problem::error(message).at(self.backends.span).help(help));
        }
    }
}
