//! Names, and hashes of passwords.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
};

use argon2::{Argon2, PasswordVerifier as _};

/// A name and a password that a client shows.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) user: String,
    pub(super) password: String,
}

/// Those who have a password.
pub(super) struct Users {
    hashes: HashMap<String, Hash>,
    /// The same hashes, one of which stands for a user that there is not.
    all: Box<[Hash]>,
    hasher: RandomState,
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Users({})", self.all.len())
    }
}

/// The hash of a password.
#[derive(Clone)]
enum Hash {
    Bcrypt(String),
    Argon2(String),
}

impl Hash {
    fn read(text: &str) -> Option<Self> {
        let is_bcrypt = ["$2a$", "$2b$", "$2y$"].iter().any(|kind| text.starts_with(kind));
        if is_bcrypt {
            let is_whole = text.parse::<bcrypt::HashParts>().is_ok();
            return is_whole.then(|| Self::Bcrypt(text.to_owned()));
        }
        let is_whole = argon2::PasswordHash::new(text).is_ok();
        (text.starts_with("$argon2") && is_whole).then(|| Self::Argon2(text.to_owned()))
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Bcrypt(text) | Self::Argon2(text) => text,
        }
    }

    fn verify(&self, password: &str) -> bool {
        match self {
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Argon2(hash) => {
                Argon2::default().verify_password(password.as_bytes(), hash.as_str()).is_ok()
            }
        }
    }
}

impl Users {
    /// Reads `USER:HASH` on each line, with comments behind `#`.
    ///
    /// # Errors
    /// What is wrong, and in which line; no hash is repeated.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut hashes = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let (line, at) = (line.trim(), index + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (user, hash) = line.split_once(':').ok_or(format!("line {at}: there is no `:`"))?;
            let hash = Hash::read(hash).ok_or_else(|| {
                format!("line {at}: the hash of `{user}` is neither of bcrypt nor of Argon2")
            })?;
            if hashes.insert(user.to_owned(), hash).is_some() {
                return Err(format!("line {at}: `{user}` stands there twice"));
            }
        }
        if hashes.is_empty() {
            return Err("there is no user, so that nobody is let in".to_owned());
        }
        let all = hashes.values().cloned().collect();
        Ok(Self { hashes, all, hasher: RandomState::new() })
    }

    /// The hash of a user, as written; that of nobody is empty.
    pub(super) fn hash_of(&self, user: &str) -> &str {
        self.hashes.get(user).map_or("", Hash::as_str)
    }

    /// Takes its time. A name that there is not costs what one of the others does, always the
    /// same one.
    pub(super) fn verify(&self, shown: &Credentials) -> bool {
        let (hash, is_known) = self.hash_for(&shown.user);
        hash.verify(&shown.password) && is_known
    }

    /// The hash that is computed for a name, and whether it is the name's own.
    fn hash_for(&self, user: &str) -> (&Hash, bool) {
        if let Some(own) = self.hashes.get(user) {
            return (own, true);
        }
        let any = self.hasher.hash_one(user) % self.all.len() as u64;
        (&self.all[usize::try_from(any).unwrap_or_default()], false)
    }
}

#[cfg(test)]
mod tests {
    use argon2::PasswordHasher as _;

    use super::*;

    #[test]
    fn both_kinds_of_hashes_are_verified() {
        let argon2 = Argon2::default().hash_password(b"a").unwrap();
        let bcrypt = bcrypt::hash("b", 4).unwrap();
        let users = Users::read(&format!("a:{argon2}\nb:{bcrypt}\n"));
        let users = users.unwrap();
        let is_good = |user: &str, password: &str| {
            users.verify(&Credentials { user: user.to_owned(), password: password.to_owned() })
        };
        assert!(is_good("a", "a") && is_good("b", "b"));
        assert!(!is_good("b", "a") && !is_good("c", "b") && !is_good("a", "b"));
        assert!(Users::read(&format!("b:{bcrypt}\nb:{bcrypt}\n")).is_err());
    }

    /// Whoever asks for nobody makes somebody's hash be computed, always the same.
    #[test]
    fn nobody_costs_as_much_as_somebody() {
        let hashes: Vec<_> = (0..4).map(|_| bcrypt::hash("a", 4).unwrap()).collect();
        let named = hashes.iter().enumerate();
        let lines: Vec<_> = named.map(|(n, hash)| format!("u{n}:{hash}")).collect();
        let users = Users::read(&lines.join("\n")).unwrap();
        for name in ["nobody", "admin", "", "u4"] {
            let (hash, is_known) = users.hash_for(name);
            assert!(!is_known && hashes.iter().any(|one| one == hash.as_str()), "{name}");
            assert_eq!(users.hash_for(name).0.as_str(), hash.as_str(), "{name}");
        }
        assert!(users.hash_for("u1").1);
    }
}
