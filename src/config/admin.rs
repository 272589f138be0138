//! The admin listener as the operator writes it.

mod tls;

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

pub use tls::AdminTls;

use crate::{
    diagnostic::{Problem, Problems},
    yaml::{self, Spanned},
};

/// A shorter token can be guessed.
const TOKEN_MIN: usize = 16;
/// A longer one is none.
const TOKEN_MAX: usize = 4 * 1024;

/// Where the API, the metrics and the answers to probes are served over TCP.
///
/// What the operator writes under `admin:`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Admin")]
pub struct AdminConfig {
    /// Where to listen: `127.0.0.1:9180`. Beyond this machine, it takes a `token`, or certificates
    /// of clients (`tls`).
    pub address: Spanned<AdminAddress>,
    /// A file with the token that clients must show (`Authorization: Bearer …`), as `file:PATH`;
    /// only `/healthz` and `/readyz` need none. It is read again at each reload.
    /// Default: none; unless certificates are asked for, whoever reaches the address may ask and
    /// change.
    #[serde(default)]
    pub token: Option<Spanned<TokenFile>>,
    /// The certificate that is shown, and whose certificates are taken instead of the token.
    /// Default: none, plaintext is spoken.
    #[serde(default)]
    pub tls: Option<Spanned<AdminTls>>,
}

/// An IP address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", example = &"127.0.0.1:9180", example = &"[::1]:9180")]
#[schemars(extend("pattern" = r"^([0-9.]+|\[[0-9A-Fa-f:.%]+\]):[0-9]+$"))]
pub struct AdminAddress(pub SocketAddr);

/// Why the API cannot be served there.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no address for the admin listener\nhelp: write `127.0.0.1:9180` or `[::1]:9180`; \
     a Unix socket for the owner lies beside the `pid_file` anyway"
)]
pub struct NotAnAdminAddress(String);

impl FromStr for AdminAddress {
    type Err = NotAnAdminAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAdminAddress> {
        text.parse().map(Self).map_err(|_| NotAnAdminAddress(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for AdminAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "an address such as `127.0.0.1:9180`")
    }
}

/// The file of a token, written `file:PATH`.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", example = &"file:/etc/crestline/admin.token")]
#[schemars(extend("pattern" = "^file:."))]
pub struct TokenFile(String);

/// Why something names no file.
#[derive(Debug, thiserror::Error)]
#[error(
    "a token does not stand in the configuration\n\
     help: write it into a file, and here `file:PATH`, such as `file:/etc/crestline/admin.token`"
)]
pub struct NotAFile;

impl FromStr for TokenFile {
    type Err = NotAFile;

    fn from_str(text: &str) -> Result<Self, NotAFile> {
        let path = text.strip_prefix("file:").filter(|path| !path.is_empty());
        path.map(|path| Self(path.to_owned())).ok_or(NotAFile)
    }
}

impl<'de> Deserialize<'de> for TokenFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        yaml::text(deserializer, "a file such as `file:/etc/crestline/admin.token`")
    }
}

impl AdminConfig {
    /// The files that are read, seen from the folder of the main file.
    pub fn files(&self, folder: &Path) -> impl Iterator<Item = PathBuf> {
        let token = self.token.as_ref().map(|token| folder.join(&token.value.0));
        token.into_iter().chain(self.tls.iter().flat_map(|tls| tls.files(folder)))
    }

    /// Whether clients may show certificates.
    pub fn takes_certificates(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.client_certificates.is_some())
    }

    /// Reads the token, if there is to be one; what is wrong with it is told.
    pub fn read_token(&self, folder: &Path, problems: &mut Problems) -> Option<String> {
        let Some(written) = &self.token else {
            if !self.address.value.0.ip().is_loopback() && !self.takes_certificates() {
                let message = format!(
                    "the admin listener at `{}` can be reached from other machines, by anybody",
                    self.address.value.0
                );
                let help = "add `token: file:PATH` or `client_certificates` under `tls`, or listen on \
                            `127.0.0.1:9180`";
                problems.push(Problem::error(message).at(self.address.span).help(help));
            }
            return None;
        };
        let path = folder.join(&written.value.0);
        let mut refuse = |message: String, help: &str| {
            problems.push(Problem::error(message).at(written.span).help(help));
        };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(why) => {
                let message = format!("cannot read `{}`: {why}", path.display());
                refuse(message, "a token makes `openssl rand -hex 32`");
                return None;
            }
        };
        let token = text.trim_end_matches(['\n', '\r']);
        let is_good = (TOKEN_MIN..=TOKEN_MAX).contains(&token.len())
            && token.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_good {
            let message = format!("`{}` holds no token", path.display());
            refuse(message, "one line of 16 visible letters or more: `openssl rand -hex 32`");
            return None;
        }
        if fs::metadata(&path).is_ok_and(|found| found.mode() & 0o007 != 0) {
            let message = format!("the admin token in {} can be read by everybody", path.display());
            let problem = Problem::warning(message).at(written.span);
            problems.push(problem.help("`chmod 0640` or less, in the group of the service"));
        }
        Some(token.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// What a file with this text and mode makes: the token, and what is told.
    fn read(text: &str, mode: u32) -> (Option<String>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let config = AdminConfig {
            address: Spanned::new("0.0.0.0:1".parse().unwrap()),
            token: Some(Spanned::new("file:token".parse().unwrap())),
            tls: None,
        };
        let mut problems = Problems::default();
        let token = config.read_token(folder.path(), &mut problems);
        (token, problems.iter().map(|problem| problem.message.clone()).collect())
    }

    #[test]
    fn a_token_is_one_line_that_others_cannot_read_or_guess() {
        let good = "0123456789abcdef";
        assert_eq!(read(&format!("{good}\n"), 0o640), (Some(good.to_owned()), Vec::new()));
        let (token, told) = read(good, 0o644);
        assert_eq!((token.as_deref(), told.len()), (Some(good), 1));
        assert!(told[0].ends_with("can be read by everybody"), "{told:?}");
        for bad in ["", "short", "0123456789 abcdef", "0123456789abcdef\n0123456789abcdef"] {
            let (token, told) = read(bad, 0o600);
            assert_eq!(token, None, "{bad}");
            assert!(told[0].ends_with("holds no token"), "{told:?}");
        }
    }
}
