//! Pictures as the borrowed APIs write them: bytes in a `data:` URL, or an address that the vendor fetches. Nothing is
//! fetched or decoded here.

use byzerllm_core::{Error, Part, Result};

/// The kinds of pictures that every vendor with eyes knows.
const KINDS: &[&str] = &["image/png", "image/jpeg", "image/webp", "image/gif"];
/// How closely to look.
const DETAILS: &[&str] = &["auto", "low", "high"];
/// The longest address of a picture elsewhere, in bytes.
const ADDRESS_BYTES: usize = 8 << 10;

/// A picture at a URL. `place` is the path of the part, `field` that of its URL below it.
pub(crate) fn at_url(url: String, detail: Option<String>, place: &str, field: &str) -> Result<Part> {
    let wrong = |what: &str| {
        let path = format!("{place}.{field}");
        Err(Error::invalid(path.clone(), format!("`{path}` must be {what}")))
    };
    let scheme = url.split(':').next().unwrap_or_default().to_ascii_lowercase();
    match scheme.as_str() {
        "data" => {
            let bytes = url[5..].split_once(',').filter(|(_, bytes)| is_base64(bytes));
            let kind = bytes.and_then(|(kind, _)| kind.strip_suffix(";base64"));
            if !kind.is_some_and(|kind| KINDS.contains(&kind.to_ascii_lowercase().as_str())) {
                let kinds = KINDS.join(", ");
                return wrong(&format!("`data:KIND;base64,BYTES`, where KIND is one of {kinds}"));
            }
        }
        "http" | "https" => {
            let rest = &url[scheme.len()..];
            let host = rest.strip_prefix("://").and_then(|rest| rest.split(['/', '?', '#']).next());
            let plain = !url.bytes().any(|byte| byte.is_ascii_control() || byte == b' ');
            if host.is_none_or(str::is_empty) || !plain || url.len() > ADDRESS_BYTES {
                return wrong(&format!("an absolute address of at most {ADDRESS_BYTES} bytes"));
            }
        }
        _ => return wrong("a data: URL with the picture's bytes, or an http(s) address"),
    }
    let detail = match detail {
        Some(word) if !DETAILS.contains(&word.as_str()) => {
            let path = match field.rsplit_once('.') {
                Some((above, _)) => format!("{place}.{above}.detail"),
                None => format!("{place}.detail"),
            };
            return Err(Error::invalid(
                path.clone(),
                format!("`{path}` must be one of {}", DETAILS.join(", ")),
            ));
        }
        detail => detail,
    };
    Ok(Part::Image { url, detail })
}

/// A picture whose bytes come in base64, with their kind beside them.
pub(crate) fn of_bytes(kind: &str, bytes: &str, place: &str) -> Result<Part> {
    if !KINDS.contains(&kind) {
        let path = format!("{place}.media_type");
        return Err(Error::invalid(path.clone(), format!("`{path}` must be one of {}", KINDS.join(", "))));
    }
    if !is_base64(bytes) {
        let path = format!("{place}.data");
        return Err(Error::invalid(path.clone(), format!("`{path}` must be base64")));
    }
    Ok(Part::Image { url: format!("data:{kind};base64,{bytes}"), detail: None })
}

fn is_base64(text: &str) -> bool {
    let digits = text.trim_end_matches('=');
    !digits.is_empty()
        && text.len() - digits.len() <= 2
        && digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_come_as_bytes_or_from_an_address() {
        for url in [
            "data:image/png;base64,iVBORw0KGgo=",
            "DATA:image/JPEG;base64,AA==",
            "https://host/a.png?x=1#y",
            "HTTP://[::1]:80/a",
        ] {
            let part = at_url(url.to_owned(), Some("low".to_owned()), "p", "u.url").unwrap();
            assert_eq!(part, Part::Image { url: url.to_owned(), detail: Some("low".to_owned()) });
        }
        for url in [
            "",
            "a.png",
            "file:///etc/passwd",
            "ftp://host/a",
            "javascript:alert(1)",
            "data:",
            "data:image/png;base64,",
            "data:image/png;base64,a b",
            "data:image/png,abc",
            "data:text/html;base64,AAAA",
            "data:image/svg+xml;base64,AAAA",
            "https://",
            "https:///a",
            "https://host/a b",
            "https:host",
        ] {
            let error = at_url(url.to_owned(), None, "p", "u.url").unwrap_err();
            assert_eq!(error.param(), Some("p.u.url"), "{url}");
        }
        let long = format!("https://host/{}", "a".repeat(ADDRESS_BYTES));
        assert!(at_url(long, None, "p", "url").is_err());
        let error = at_url("https://host/a".to_owned(), Some("huge".to_owned()), "p", "u.url").unwrap_err();
        assert_eq!(error.param(), Some("p.u.detail"));
        assert_eq!(of_bytes("image/tiff", "AAAA", "p").unwrap_err().param(), Some("p.media_type"));
        assert_eq!(of_bytes("image/png", "?", "p").unwrap_err().param(), Some("p.data"));
        assert!(of_bytes("image/png", "AAAA", "p").is_ok());
    }
}
