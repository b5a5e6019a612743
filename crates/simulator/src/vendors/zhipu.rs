//! Zhipu's credential: a key `ID.SECRET`, or a token that is signed with its second half.
//!
//! Written from <https://docs.bigmodel.cn/cn/api/introduction> and `zhipuai` 2.1.5, `core/_jwt_token.py`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::Value;

use crate::protocol::Door;
use crate::refusal::Refusal;

/// How far in the future a token may say that it was made.
const AHEAD_MS: u64 = 300_000;

/// Checks a credential.
pub(crate) fn admit(credential: &str, door: &Door<'_>) -> Result<(), Refusal> {
    match credential.split('.').collect::<Vec<_>>().as_slice() {
        [header, payload, signature] => token(header, payload, signature, door),
        _ => door.credentials.opens(credential),
    }
}

fn token(header: &str, payload: &str, signature: &str, door: &Door<'_>) -> Result<(), Refusal> {
    let (id, secret) = door.credentials.api_key.split_once('.').ok_or(Refusal::BadCredential)?;
    let part = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| Refusal::BadCredential);
    let read = |text: &str| serde_json::from_slice::<Value>(&part(text)?).map_err(|_| Refusal::BadCredential);
    let (head, claims) = (read(header)?, read(payload)?);
    if head["alg"] != "HS256" || head["sign_type"] != "SIGN" || claims["api_key"] != id {
        return Err(Refusal::BadCredential);
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hmac::verify(&key, format!("{header}.{payload}").as_bytes(), &part(signature)?)
        .map_err(|_| Refusal::BadCredential)?;
    let (made, expires) = (claims["timestamp"].as_u64(), claims["exp"].as_u64());
    let (Some(made), Some(expires)) = (made, expires) else { return Err(Refusal::BadCredential) };
    let now = door.now * 1000;
    // Both are milliseconds; in seconds every token would long have expired.
    if expires <= now {
        Err(Refusal::ExpiredCredential)
    } else if made > now + AHEAD_MS {
        Err(Refusal::BadCredential)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Credentials;

    fn token_of(secret: &str, exp: u64) -> String {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","sign_type":"SIGN"}"#);
        let payload =
            URL_SAFE_NO_PAD.encode(format!(r#"{{"api_key":"id","exp":{exp},"timestamp":1000000}}"#));
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let signature = hmac::sign(&key, format!("{header}.{payload}").as_bytes());
        format!("{header}.{payload}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    #[test]
    fn a_token_opens_until_it_expires_and_only_with_its_secret() {
        let credentials = Credentials { api_key: "id.secret".to_owned(), ..Credentials::default() };
        let door = Door { now: 1000, credentials: &credentials };
        assert_eq!(admit(&token_of("secret", 1_000_001), &door), Ok(()));
        assert_eq!(admit(&token_of("secret", 1_000_000), &door), Err(Refusal::ExpiredCredential));
        assert_eq!(admit(&token_of("other", 1_000_001), &door), Err(Refusal::BadCredential));
        assert_eq!(admit("id.secret", &door), Ok(()));
        assert_eq!(admit("id.other", &door), Err(Refusal::BadCredential));
    }
}
