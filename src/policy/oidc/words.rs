//! Texts that nobody can guess, and what stands for one of them.

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand,
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};

/// So many bytes by chance, as a text; `None` if there is no chance.
pub(super) fn random<const BYTES: usize>() -> Option<String> {
    let mut bytes = [0; BYTES];
    rand::fill(&mut bytes).ok()?;
    Some(BASE64.encode(bytes))
}

/// What stands for a verifier until it is shown (RFC 7636 §4.2, `S256`).
pub(super) fn challenge(verifier: &str) -> String {
    BASE64.encode(digest(&SHA256, verifier.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7636, appendix B.
    #[test]
    fn a_challenge_is_the_digest_of_its_verifier() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(challenge(verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        let (one, two) = (random::<32>().unwrap(), random::<32>().unwrap());
        assert_eq!(one.len(), 43);
        assert_ne!(one, two);
    }
}
