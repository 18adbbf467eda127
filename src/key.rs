//! API keys: what their text is, and what is kept of it.
//!
//! `ridgeline_7_<64 hexadecimal digits>` is the key with the id 7. The id is public and finds the key; the digits are 256
//! random bits. Of those only the SHA-256 is stored: against a secret that cannot be guessed a slow hash, which passwords
//! need, would only cost every request its time.

pub mod command;

use rand::TryRng;
use rand::rngs::{SysError, SysRng};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What a key begins with, so that people and scanners of repositories recognise one.
const PREFIX: &str = "ridgeline_";

/// The secret part of a key, of which nothing prints itself.
pub struct Secret(String);

impl Secret {
    /// 256 bits from the operating system.
    ///
    /// # Errors
    /// When it has none to give.
    pub fn generate() -> Result<Self, SysError> {
        let mut bytes = [0; 32];
        SysRng.try_fill_bytes(&mut bytes)?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// What is stored.
    pub fn hash(&self) -> Hash {
        hash(&self.0)
    }

    /// The text of the key with this secret and the id `id`, for the one who asked for it.
    pub fn expose(&self, id: i32) -> String {
        format!("{PREFIX}{id}_{}", self.0)
    }
}

/// SHA-256 of the secret part of a key.
pub type Hash = [u8; 32];

/// What a client sent as its key.
pub struct Claim {
    /// The id of the key that it claims to be.
    pub id: i32,
    hash: Hash,
}

impl Claim {
    /// `None`: this cannot be a key.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        // Digits alone, so that a key has one text only.
        let id = id.bytes().all(|byte| byte.is_ascii_digit()).then(|| id.parse().ok()).flatten()?;
        Some(Self { id, hash: hash(secret) })
    }

    /// Whether the secret is the one of which `stored` was kept. How long that takes says nothing about either.
    pub fn proves(&self, stored: &Hash) -> bool {
        self.hash.ct_eq(stored).into()
    }
}

fn hash(secret: &str) -> Hash {
    Sha256::digest(secret.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_proves_itself_and_nothing_else() {
        let (secret, other) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        let text = secret.expose(7);
        assert_eq!(text.len(), "ridgeline_7_".len() + 64);
        let claim = Claim::parse(&text).unwrap();
        assert_eq!(claim.id, 7);
        assert!(claim.proves(&secret.hash()));
        assert!(!claim.proves(&other.hash()));
        assert!(!Claim::parse(&text[..text.len() - 1]).unwrap().proves(&secret.hash()));
        assert!(!Claim::parse(&text.to_uppercase().replace("RIDGELINE", "ridgeline")).unwrap().proves(&secret.hash()));
    }

    #[test]
    fn what_cannot_be_a_key_is_none() {
        for text in
            ["", "x", "ridgeline_", "ridgeline_7", "ridgeline_x_ab", "ridgeline_+7_ab", "ridgeline_99999999999_ab"]
        {
            assert!(Claim::parse(text).is_none(), "{text}");
        }
    }
}
