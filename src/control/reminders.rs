//! What ends while the process runs: certificates, lists and responses, each told once a day.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use log::warn;
use tokio::time::{self, Instant};

use crate::{control::Control, snapshot::Snapshot, tls::expiry::Reminders};

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(10 * 60);

/// Looks for as long as the process lives. The keys of session tickets are replaced here, too,
/// for the case that no client makes a handshake for hours.
pub(super) async fn run(control: Arc<Control>) {
    let mut reminders = Reminders::default();
    loop {
        let snapshot = control.live.load_full();
        snapshot.tickets.turn(Instant::now());
        for message in due(&mut reminders, &snapshot, SystemTime::now()) {
            warn!("tls: {message}");
        }
        drop(snapshot);
        time::sleep(LOOK_EVERY).await;
    }
}

fn due(reminders: &mut Reminders, snapshot: &Snapshot, now: SystemTime) -> Vec<String> {
    let all = snapshot.keyrings().flat_map(|(_, keyring)| keyring.reminders(now));
    reminders.due(all.collect(), now)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        config::{File, Loaded},
        diagnostic::Problems,
        snapshot,
    };

    const HOUR: Duration = Duration::from_secs(60 * 60);

    #[test]
    fn a_certificate_is_told_of_once_a_day_until_it_is_renewed() {
        let folder = tempfile::tempdir().unwrap();
        let begin = SystemTime::now();
        let write = |days: u32| {
            let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
            params.not_after = (begin + days * 24 * HOUR + HOUR / 2).into();
            let key = rcgen::KeyPair::generate().unwrap();
            let path = |name: &str| folder.path().join(name);
            std::fs::write(path("a.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
            std::fs::write(path("a.key"), key.serialize_pem()).unwrap();
        };
        let folder = folder.path().display();
        let listener = |port: u16| {
            format!(
                "{{ address: \"127.0.0.1:{port}\", tls: {{ certificates: \
                 [{{ cert: {folder}/a.pem, key: {folder}/a.key }}] }} }}"
            )
        };
        let text = format!(
            "listeners: [{}, {}]\nupstreams: {{ app: {{ backends: [127.0.0.1:1] }} }}\n",
            listener(1),
            listener(2)
        );
        let compile = |old: Option<&Snapshot>| {
            let mut problems = Problems::default();
            let file = File::read(&Loaded::of(&text, &mut problems), &mut problems).unwrap();
            snapshot::assemble(Arc::new(file), old, &mut problems)
        };

        write(15);
        let old = compile(None);
        let mut reminders = Reminders::default();
        let mut told = Vec::new();
        for hour in 0..50 {
            for message in due(&mut reminders, &old, begin + hour * HOUR) {
                told.push((hour, message));
            }
        }
        let hours: Vec<_> = told.iter().map(|(hour, _)| *hour).collect();
        assert_eq!(hours, [25, 49], "{told:?}");
        assert!(told[0].1.starts_with("the certificate for a.test expires on "), "{told:?}");
        assert!(told[0].1.ends_with(", in 13 days") && told[1].1.ends_with(", in 12 days"));
        let last = due(&mut reminders, &old, begin + 16 * 24 * HOUR);
        assert!(last.len() == 1 && last[0].contains(" expired on "), "{last:?}");

        write(90);
        let new = compile(Some(&old));
        assert_eq!(due(&mut reminders, &new, begin + 17 * 24 * HOUR), [""; 0]);
    }

    #[test]
    fn a_certificate_that_renews_itself_is_told_of_when_it_is_too_late() {
        let folder = tempfile::tempdir().unwrap();
        let storage = folder.path().join("kept/ca.test");
        std::fs::create_dir_all(&storage).unwrap();
        let begin = SystemTime::now();
        let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        params.not_after = (begin + 6 * 24 * HOUR).into();
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem() + &key.serialize_pem();
        std::fs::write(storage.join("a.test.pem"), pem).unwrap();
        let text = format!(
            "acme: {{ accept_terms: true, directory: \"https://ca.test\", storage: {}/kept }}\n\
             listeners: [{{ address: \"127.0.0.1:1\" }}, {{ address: \"127.0.0.1:2\", \
             tls: {{ acme: [a.test] }} }}]\nupstreams: {{ app: {{ backends: [127.0.0.1:1] }} }}\n",
            folder.path().display()
        );
        let mut problems = Problems::default();
        let snapshot = snapshot::compile(&text, &mut problems).unwrap();
        let keyring = snapshot.listeners[1].tls.as_ref().unwrap().now();
        let in_seconds = |expires: SystemTime| expires.duration_since(begin).unwrap().as_secs();
        assert!(in_seconds(keyring.certificates()[0].expires) <= 6 * 24 * 3_600, "the one kept");

        let mut reminders = Reminders::default();
        for day in 0..6 {
            assert_eq!(due(&mut reminders, &snapshot, begin + day * 24 * HOUR), [""; 0]);
        }
        let told = due(&mut reminders, &snapshot, begin + 7 * 24 * HOUR);
        assert!(told.len() == 1 && told[0].contains(" a.test expired on "), "{told:?}");
    }
}
