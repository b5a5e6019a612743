//! Sealing: authenticated encryption of one secret, bound to its deployment and parameter.
//!
//! `sealed:` and base64 of: a version byte 1, a nonce of 12 random bytes, and ChaCha20-Poly1305's output. A sealed
//! secret that is moved to another deployment or parameter does not open.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use byzerllm_providers::Secret;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use super::master_key::{self, BYTES, MasterKeyError};
use super::{SEALED, SecretText};

const VERSION: u8 = 1;

/// The place of a secret.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot<'a> {
    /// The deployment's name.
    pub(crate) deployment: &'a str,
    /// The parameter, as `saas.api_key`.
    pub(crate) parameter: &'a str,
}

impl Slot<'_> {
    /// Neither a name of a deployment nor one of a parameter holds a zero byte.
    fn associated(&self) -> Vec<u8> {
        format!("byzerllm secret\0{}\0{}", self.deployment, self.parameter).into_bytes()
    }
}

/// Seals and opens secrets under a master key, which is read anew each time.
#[derive(Debug, Clone)]
pub(crate) struct Sealer {
    path: PathBuf,
}

impl Sealer {
    /// With the key at `chosen`, or where the environment says, or in the state directory.
    pub(crate) fn new(chosen: Option<&Path>, state: &Path) -> Self {
        Self { path: master_key::path(chosen, state) }
    }

    /// Seals a credential. A missing key is made, unless something is sealed under it (`in_use`).
    pub(crate) fn seal(
        &self,
        slot: Slot<'_>,
        secret: &str,
        in_use: bool,
    ) -> Result<SecretText, MasterKeyError> {
        let random = SystemRandom::new();
        let key = match master_key::read(&self.path) {
            Err(MasterKeyError::Missing(_)) if !in_use => {
                let mut fresh = [0; BYTES];
                random.fill(&mut fresh).map_err(|_| MasterKeyError::Random)?;
                master_key::make(&self.path, &fresh)?
            }
            other => other?,
        };
        let mut nonce = [0; NONCE_LEN];
        random.fill(&mut nonce).map_err(|_| MasterKeyError::Random)?;
        let mut body = secret.as_bytes().to_vec();
        self.cipher(&key)?
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(slot.associated()),
                &mut body,
            )
            .map_err(|_| self.wrong())?;
        let bytes: Vec<u8> = [VERSION].into_iter().chain(nonce).chain(body).collect();
        Ok(SecretText::new(format!("{SEALED}{}", STANDARD_NO_PAD.encode(bytes))))
    }

    /// Opens what [`Sealer::seal`] made for the same slot; `text` is what follows `sealed:`.
    pub(crate) fn open(&self, slot: Slot<'_>, text: &str) -> Result<Secret, MasterKeyError> {
        let key = master_key::read(&self.path)?;
        let bytes = STANDARD_NO_PAD.decode(text).map_err(|_| self.wrong())?;
        let Some((&VERSION, rest)) = bytes.split_first() else { return Err(self.wrong()) };
        let Some((nonce, body)) = rest.split_first_chunk::<NONCE_LEN>() else { return Err(self.wrong()) };
        let mut body = body.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self
            .cipher(&key)?
            .open_in_place(nonce, Aad::from(slot.associated()), &mut body)
            .map_err(|_| self.wrong())?;
        let text = std::str::from_utf8(opened).map_err(|_| self.wrong())?;
        Ok(Secret::new(text))
    }

    fn cipher(&self, key: &[u8; BYTES]) -> Result<LessSafeKey, MasterKeyError> {
        UnboundKey::new(&CHACHA20_POLY1305, key).map(LessSafeKey::new).map_err(|_| self.wrong())
    }

    fn wrong(&self) -> MasterKeyError {
        MasterKeyError::Wrong(self.path.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Form;
    use super::*;

    const SLOT: Slot<'static> = Slot { deployment: "chat", parameter: "saas.api_key" };

    fn body(sealed: &SecretText) -> &str {
        match sealed.form() {
            Form::Sealed(text) => text,
            _ => panic!("not sealed"),
        }
    }

    #[test]
    fn what_is_sealed_opens_in_its_own_place_only() {
        let directory = tempfile::tempdir().unwrap();
        let sealer = Sealer::new(None, directory.path());
        let sealed = sealer.seal(SLOT, "sk-canary", false).unwrap();
        assert!(!sealed.expose().contains("canary"));
        assert_eq!(sealer.open(SLOT, body(&sealed)).unwrap().expose(), "sk-canary");
        let again = sealer.seal(SLOT, "sk-canary", true).unwrap();
        assert_ne!(sealed, again, "nonces are random");
        for slot in [Slot { deployment: "other", ..SLOT }, Slot { parameter: "saas.secret_key", ..SLOT }] {
            assert!(matches!(sealer.open(slot, body(&sealed)), Err(MasterKeyError::Wrong(_))));
        }
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let sealer = Sealer::new(None, directory.path());
        let sealed = sealer.seal(SLOT, "sk-canary", false).unwrap();
        let bytes = STANDARD_NO_PAD.decode(body(&sealed)).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(sealer.open(SLOT, &STANDARD_NO_PAD.encode(changed)).is_err(), "byte {at}");
            assert!(sealer.open(SLOT, &STANDARD_NO_PAD.encode(&bytes[..at])).is_err(), "cut at {at}");
        }
        assert!(sealer.open(SLOT, "§").is_err());
    }

    #[test]
    fn a_lost_key_is_not_replaced_while_something_is_sealed() {
        let directory = tempfile::tempdir().unwrap();
        let sealer = Sealer::new(None, directory.path());
        let sealed = sealer.seal(SLOT, "sk-canary", false).unwrap();
        let path = directory.path().join("master.key");
        let kept = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(sealer.open(SLOT, body(&sealed)), Err(MasterKeyError::Missing(_))));
        assert!(matches!(sealer.seal(SLOT, "x", true), Err(MasterKeyError::Missing(_))));
        assert!(!path.exists());
        sealer.seal(SLOT, "x", false).unwrap();
        assert!(matches!(sealer.open(SLOT, body(&sealed)), Err(MasterKeyError::Wrong(_))));
        std::fs::write(&path, kept).unwrap();
        assert_eq!(sealer.open(SLOT, body(&sealed)).unwrap().expose(), "sk-canary");
    }
}
