//! What requests are told apart by where they are counted: one variable, or several together.

use std::{
    hash::Hasher,
    io::{self, Write},
    str::FromStr,
};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::{
    downstream::clients,
    policy::{
        contract::Build,
        exchange::Facts,
        variable::{Variable, When, Word},
    },
    yaml::{self, Spanned},
};

/// A key may have so many parts.
const PARTS_MAX: usize = 8;

/// A part of a key: the name of a variable, such as `client`, `route`, `header.x-tenant` or
/// `cookie.session`. An IPv6 address counts by its first 64 bits, which is what one customer is
/// given. Where a request has no such field, cookie, parameter or claim, its client stands for it,
/// so that nobody escapes by leaving it out. `user`, `api_key` and `claim.NAME` are told by the
/// policies of access that stand before.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "KeyPart", example = &"client", example = &"header.x-tenant")]
pub struct Part(Variable);

/// Why something is no part of a key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPart {
    /// There is no such variable.
    #[error(
        "`{0}` is nothing that requests are counted by\nhelp: write the name of a variable without braces, such as `client`, `route`, `host`, `header.x-tenant`, `cookie.session`, `user` or `claim.tenant`"
    )]
    Unknown(String),
    /// It is another one for each request, or not known yet.
    #[error(
        "`{0}` tells no requests apart: it is new with each of them, or not known yet\nhelp: count by `client`, `route`, `header.NAME` or `cookie.NAME`"
    )]
    Useless(String),
}

impl FromStr for Part {
    type Err = NoPart;

    fn from_str(name: &str) -> Result<Self, NoPart> {
        let variable: Variable = name.parse().map_err(|_| NoPart::Unknown(name.to_owned()))?;
        match variable {
            Variable::One(
                Word::Id | Word::Time | Word::TimeUnix | Word::Status | Word::Backend,
            ) => Err(NoPart::Useless(name.to_owned())),
            _ => Ok(Self(variable)),
        }
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "the name of a variable, such as `client`")
    }
}

/// What the operator writes under `by:`.
pub(super) type Written = Spanned<Vec<Part>>;

/// What is written if nothing is: each client for itself.
pub(super) fn client() -> Written {
    Spanned::new(vec![Part(Variable::One(Word::Client))])
}

/// What requests are told apart by.
#[derive(Debug)]
pub(super) struct Key(Box<[Part]>);

impl Key {
    /// Makes it ready.
    pub(super) fn build(written: &Written, cx: &mut Build<'_>) -> Option<Self> {
        if written.is_empty() {
            let help = "write `[client]`, or `[route]` for one count of all requests";
            cx.problem_at(written.span, "by what requests are counted is not said", help);
            return None;
        }
        if PARTS_MAX < written.len() {
            let help = format!("name at most {PARTS_MAX}");
            cx.problem_at(written.span, "too many parts for one key", help);
            return None;
        }
        cx.check(written.iter().map(|part| &part.0), When::Asked, written.span);
        Some(Self(written.value.clone().into()))
    }

    /// Writes what tells this request from others: each part with its length behind it, so that
    /// no two keys are written in the same way.
    pub(super) fn write(&self, facts: &Facts<'_>, out: &mut impl Write) {
        for Part(variable) in &self.0 {
            let mut counted = Counted { out, bytes: 0 };
            match variable {
                Variable::One(Word::Client) => client_of(facts, &mut counted),
                other => other.write(facts, None, &mut counted),
            }
            let length = counted.bytes;
            if length == 0 {
                client_of(facts, &mut counted);
            }
            let _ = out.write_all(&length.to_le_bytes());
        }
    }

    /// The same as a number of 64 bits.
    pub(super) fn hash(&self, facts: &Facts<'_>, hasher: impl Hasher) -> u64 {
        let mut hashed = Hashed(hasher);
        self.write(facts, &mut hashed);
        hashed.0.finish()
    }
}

fn client_of(facts: &Facts<'_>, out: &mut impl Write) {
    let _ = match facts.client.map(clients::Key::of) {
        Some(clients::Key::V4(address)) => out.write_all(&address.to_be_bytes()),
        Some(clients::Key::V6(network)) => out.write_all(&network.to_be_bytes()),
        None => out.write_all(b"unix"),
    };
}

/// Counts what passes.
struct Counted<'a, W> {
    out: &'a mut W,
    bytes: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let written = self.out.write(text)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Hashed<H>(H);

impl<H: Hasher> Write for Hashed<H> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.write(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::Given;

    fn key(parts: &[&str]) -> Key {
        Key(parts.iter().map(|part| part.parse().unwrap()).collect())
    }

    fn written(key: &Key, given: &Given) -> Vec<u8> {
        let mut out = Vec::new();
        key.write(&given.facts(), &mut out);
        out
    }

    #[test]
    fn an_ipv6_client_is_its_first_64_bits() {
        let of = |client| written(&key(&["client"]), &Given::request("GET", "/").from(client));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
    }

    #[test]
    fn the_client_stands_for_what_is_left_out_or_empty() {
        let tenant = key(&["header.x-tenant"]);
        let of = |client| written(&tenant, &Given::request("GET", "/").from(client));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        let with = |client, tenant_name| {
            written(
                &tenant,
                &Given::request("GET", "/").from(client).field("x-tenant", tenant_name),
            )
        };
        assert_eq!(with("192.0.2.1", "a"), with("192.0.2.2", "a"));
        assert_ne!(with("192.0.2.1", "a"), with("192.0.2.1", "b"));
        assert_eq!(with("192.0.2.1", ""), of("192.0.2.1"));
        // Nobody is taken for a client by writing its address into the field.
        assert_ne!(with("192.0.2.1", "\u{e9}"), of("192.0.2.1"));
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let both = key(&["header.a", "header.b"]);
        let of = |a, b| written(&both, &Given::request("GET", "/").field("a", a).field("b", b));
        assert_ne!(of("xy", "z"), of("x", "yz"));
    }

    #[test]
    fn what_tells_no_requests_apart_is_refused() {
        for name in ["id", "time", "time.unix", "status", "backend"] {
            assert_eq!(name.parse::<Part>(), Err(NoPart::Useless(name.to_owned())));
        }
        assert_eq!("clinet".parse::<Part>(), Err(NoPart::Unknown("clinet".to_owned())));
    }
}
