//! How the TLS handshakes of a listener ended.

use crate::counter::Counter;

/// Counts handshakes for as long as the process has the listener.
#[derive(Debug, Default)]
pub struct Handshakes {
    /// Those that led to a connection.
    pub done: Counter,
    /// Those of them that went on with a session of before.
    pub resumed: Counter,
    /// Those that did not; clients that left without a byte are not counted.
    failed: [Counter; Failed::ALL.len()],
}

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It was not done in time.
    Timeout,
    /// The client spoke HTTP without TLS.
    PlainHttp,
    /// It asked for a name in no certificate.
    UnknownName,
    /// Its first message was too long.
    TooLong,
    /// There is no version, cipher or protocol that both know.
    NoAgreement,
    /// It showed no certificate where one is required, or one that is not taken.
    ClientCertificate,
    /// It sent an alert: it does not take the certificate that it was given.
    Refused,
    /// The connection broke.
    Broken,
    /// What it sent was no TLS.
    Nonsense,
}

impl Failed {
    const ALL: [Self; 9] = [
        Self::Timeout,
        Self::PlainHttp,
        Self::UnknownName,
        Self::TooLong,
        Self::NoAgreement,
        Self::ClientCertificate,
        Self::Refused,
        Self::Broken,
        Self::Nonsense,
    ];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::PlainHttp => "plain_http",
            Self::UnknownName => "unknown_name",
            Self::TooLong => "too_long",
            Self::NoAgreement => "no_agreement",
            Self::ClientCertificate => "client_certificate",
            Self::Refused => "refused_by_client",
            Self::Broken => "broken",
            Self::Nonsense => "nonsense",
        }
    }
}

impl Handshakes {
    /// Counts one that failed.
    pub fn fail(&self, why: Failed) {
        self.failed[why as usize].increment();
    }

    /// How many failed, by reason.
    pub fn failed(&self) -> impl Iterator<Item = (Failed, u64)> {
        Failed::ALL.into_iter().map(|why| (why, self.failed[why as usize].get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_count() {
        let handshakes = Handshakes::default();
        for (times, why) in Failed::ALL.into_iter().enumerate() {
            (0..=times).for_each(|_| handshakes.fail(why));
        }
        let counts: Vec<_> = handshakes.failed().map(|(_, count)| count).collect();
        assert_eq!(counts, (1..=9).collect::<Vec<_>>());
    }
}
