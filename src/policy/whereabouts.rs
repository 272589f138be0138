//! Where a client is on the map and in the net, as far as that is known.

use std::{fmt, str::FromStr};

/// Where a client is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Whereabouts {
    pub(super) country: Option<Code>,
    pub(super) continent: Option<Code>,
    /// The number of the autonomous system.
    pub(super) asn: Option<u32>,
}

/// Two letters that stand for a country (ISO 3166-1) or a continent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Code([u8; 2]);

impl FromStr for Code {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let letters: [u8; 2] = text.as_bytes().try_into().map_err(|_| ())?;
        let are_letters = letters.iter().all(u8::is_ascii_alphabetic);
        if are_letters {
            Ok(Self(letters.map(|letter| letter.to_ascii_uppercase())))
        } else {
            Err(())
        }
    }
}

impl Code {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.0).unwrap_or_default())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
