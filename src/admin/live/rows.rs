//! What has changed from one look to the next. Pure.

use crate::admin::{
    live::figures::RouteFigures,
    status::{CertificateStatus, Status, UpstreamStatus},
};

/// Whether all that a tick does not tell is as it was.
pub(super) fn is_alike(before: &Status, now: &Status) -> bool {
    let told = |status: &Status| {
        let configuration = &status.configuration;
        (
            configuration.version,
            configuration.probation.clone(),
            configuration.last_refused.clone(),
            certificates(status),
        )
    };
    told(before) == told(now)
}

fn certificates(status: &Status) -> Vec<CertificateStatus> {
    let shown = status.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    shown.flat_map(|tls| tls.certificates.clone()).collect()
}

/// The upstreams that have changed, with those of their backends that have; `None` if there are
/// others than before, or other backends.
pub(super) fn upstreams(
    before: &[UpstreamStatus],
    now: &[UpstreamStatus],
) -> Option<Vec<UpstreamStatus>> {
    if before.len() != now.len() {
        return None;
    }
    let mut changed = Vec::new();
    for (before, now) in before.iter().zip(now) {
        if before == now {
            continue;
        }
        if before.name != now.name || before.backends.len() != now.backends.len() {
            return None;
        }
        let mut backends = Vec::new();
        for (before, now) in before.backends.iter().zip(&now.backends) {
            if before.address != now.address {
                return None;
            }
            if before != now {
                backends.push(now.clone());
            }
        }
        changed.push(UpstreamStatus { backends, ..UpstreamStatus::clone(now) });
    }
    Some(changed)
}

/// The routes that have changed; `None` if there are others than before.
pub(super) fn routes(before: &[RouteFigures], now: &[RouteFigures]) -> Option<Vec<RouteFigures>> {
    let is_same =
        |(before, now): (&RouteFigures, &RouteFigures)| before.route.name == now.route.name;
    if before.len() != now.len() || !before.iter().zip(now).all(is_same) {
        return None;
    }
    let pairs = before.iter().zip(now);
    Some(pairs.filter(|(before, now)| before != now).map(|(_, now)| now.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{admin::status::BackendStatus, upstream::backend::Availability};

    fn upstream(name: &str, addresses: &[&str]) -> UpstreamStatus {
        let backend = |address: &&str| BackendStatus {
            address: (*address).to_owned(),
            weight: 1,
            weight_in_file: None,
            availability: Availability::Ready,
            drained: false,
            ejected_seconds: None,
            in_flight: 0,
            attempts: 0,
            failures: 0,
            ejections: 0,
            last_failure: None,
            last_check_failure: None,
        };
        UpstreamStatus {
            name: name.to_owned(),
            requests: 0,
            retries: 0,
            discovery: Vec::new(),
            load: None,
            mirrored: None,
            backends: addresses.iter().map(backend).collect(),
        }
    }

    #[test]
    fn only_what_has_changed_is_told() {
        let before = [upstream("a", &["1", "2"]), upstream("b", &["3"])];
        assert_eq!(upstreams(&before, &before), Some(Vec::new()));
        let mut now = before.clone();
        now[0].backends[1].availability = Availability::Unhealthy;
        let changed = upstreams(&before, &now).unwrap();
        assert_eq!((changed.len(), &*changed[0].name, changed[0].backends.len()), (1, "a", 1));
        assert_eq!(changed[0].backends[0].address, "2");
        now[1].requests = 7;
        let changed = upstreams(&before, &now).unwrap();
        assert_eq!((changed.len(), changed[1].requests, changed[1].backends.len()), (2, 7, 0));
    }

    #[test]
    fn other_backends_are_told_as_a_whole() {
        let before = [upstream("a", &["1", "2"])];
        for now in [
            vec![],
            vec![upstream("b", &["1", "2"])],
            vec![upstream("a", &["1"])],
            vec![upstream("a", &["1", "3"])],
            vec![upstream("a", &["1", "2"]), upstream("b", &["1"])],
        ] {
            assert_eq!(upstreams(&before, &now), None, "{now:?}");
        }
    }
}
