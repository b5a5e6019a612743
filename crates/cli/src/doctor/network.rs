//! What doctor says about addresses: the port, who may ask, proxies, certificates, and the server that runs.

use std::io::ErrorKind;
use std::net::{IpAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use byzerllm_client::{Client, runtime_file};
use byzerllm_runtime::{KeyInfo, Keys};
use byzerllm_server::TlsFiles;

use crate::version::VERSION;

use super::{Check, certificate};

/// A certificate that ends within so many days is worth a word.
const SOON_DAYS: i64 = 14;

/// Whether a server could listen.
pub(super) fn port(host: IpAddr, port: u16) -> Check {
    match TcpListener::bind((host, port)) {
        Ok(_) => Check::ok("port", format!("{port} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => match runtime_file::find(Some(port)) {
            Ok(Some(record)) => {
                Check::ok("port", format!("{port} is held by your byzerllm server (process {})", record.pid))
            }
            _ => Check::warning(
                "port",
                format!("{port} is in use by another program"),
                "Serve on another one with --port N.",
            ),
        },
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => Check::problem(
            "port",
            format!("{host} is no address of this machine"),
            "Use one of `ip address`, or 0.0.0.0 for all of them.",
        ),
        Err(error) => Check::problem("port", format!("{port}: {error}"), "Serve on a port above 1023."),
    }
}

/// Whether the address may be listened on with the keys that there are.
pub(super) async fn keys(host: IpAddr, state: &Path) -> Check {
    let name = "keys";
    // Looking makes no directory.
    if !state.exists() {
        return of_keys(host, state, &[]);
    }
    match Keys::open(state) {
        Ok(keys) => of_keys(host, state, &keys.list()),
        Err(error) if error.kind() == byzerllm_core::ErrorKind::Conflict => of_holder(host, state).await,
        Err(error) => Check::problem(name, error.message(), "Use another state directory with --state DIR."),
    }
}

/// What the server says that holds the state.
async fn of_holder(host: IpAddr, state: &Path) -> Check {
    let unknown = || Check::ok("keys", "held by a server that runs; `byzerllm keys list` shows them");
    let Ok(Some(record)) = runtime_file::find_state(state) else { return unknown() };
    let Ok(client) = Client::new(&record.url, None) else { return unknown() };
    let Ok(listed) = client.list_keys().await else { return unknown() };
    let keys: Result<Vec<KeyInfo>, _> = listed.into_iter().map(serde_json::from_value).collect();
    keys.map_or_else(|_| unknown(), |keys| of_keys(host, state, &keys))
}

fn of_keys(host: IpAddr, state: &Path, keys: &[KeyInfo]) -> Check {
    let name = "keys";
    let create = format!("Run `byzerllm keys create --name NAME --state '{}'`.", state.display());
    let active = keys.iter().filter(|key| key.active).count();
    match (keys.len(), active) {
        (0, _) if host.is_loopback() => Check::ok(name, "none; every program on this machine may ask"),
        (0, _) => Check::problem(name, format!("none, and with {host} other machines could ask"), create),
        (_, 0) => Check::problem(name, "all of them are revoked or expired, so nobody may ask", create),
        (_, active) => Check::ok(name, format!("{active} active")),
    }
}

/// Proxies that would take requests to this machine away from it.
pub(super) fn proxies(variable: impl Fn(&str) -> Option<String>) -> Check {
    let name = "proxies";
    let value = |name: &str| {
        variable(name).or_else(|| variable(&name.to_lowercase())).filter(|text| !text.is_empty())
    };
    let Some(proxy) = ["HTTP_PROXY", "ALL_PROXY"].into_iter().find(|name| value(name).is_some()) else {
        return Check::ok(name, "none for http");
    };
    let exempt = value("NO_PROXY").unwrap_or_default();
    let covers = |host: &str| exempt.split(',').any(|part| matches!(part.trim(), "*") || part.trim() == host);
    let missing: Vec<&str> = ["127.0.0.1", "localhost"].into_iter().filter(|host| !covers(host)).collect();
    if missing.is_empty() {
        return Check::ok(name, format!("{proxy} is set, and NO_PROXY exempts this machine"));
    }
    Check::warning(
        name,
        format!(
            "{proxy} is set and NO_PROXY lacks {}: other programs (not byzerllm's own) ask the proxy for this \
             machine's servers",
            missing.join(" and ")
        ),
        "Run `export NO_PROXY=127.0.0.1,localhost no_proxy=127.0.0.1,localhost` before such programs.",
    )
}

/// The certificate that a server would show, or that the running one shows.
pub(super) fn tls(files: Option<&TlsFiles>) -> Vec<Check> {
    match files {
        Some(files) => vec![of_files(files)],
        None => match runtime_file::find(None) {
            Ok(Some(record)) => record.certificate.iter().map(|file| dates(file)).collect(),
            Ok(None) | Err(_) => Vec::new(),
        },
    }
}

fn of_files(files: &TlsFiles) -> Check {
    let name = "certificate";
    if let Err(error) = byzerllm_server::check_tls(files) {
        let (what, fix) =
            error.message().rsplit_once("; ").unwrap_or((error.message(), "give the right files"));
        let end = if fix.ends_with('.') { "" } else { "." };
        return Check::problem(name, what, format!("--ssl-certfile and --ssl-keyfile: {fix}{end}"));
    }
    let mode = std::fs::metadata(&files.key).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o077 != 0 {
        let key = files.key.display();
        return Check::warning(
            name,
            format!("{key} is open to other users"),
            format!("Run `chmod 600 '{key}'`."),
        );
    }
    dates(&files.certificate)
}

/// What the dates of a certificate mean today.
fn dates(file: &Path) -> Check {
    let name = "certificate";
    let shown = file.display();
    let fix = "Get a new certificate and restart the server with it.";
    let validity = std::fs::read(file).ok().and_then(|text| certificate::validity(&text));
    let Some((from, to)) = validity else {
        return Check::problem(name, format!("{shown} cannot be read as a certificate"), "Give a PEM file.");
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs() as i64);
    let days = (to - now).div_euclid(86_400);
    if now < from {
        return Check::problem(
            name,
            format!("{shown} is not valid yet"),
            "Set this machine's clock, or wait.",
        );
    }
    if now > to {
        return Check::problem(name, format!("{shown} expired {} days ago", (now - to) / 86_400), fix);
    }
    if days < SOON_DAYS {
        return Check::warning(name, format!("{shown} expires in {days} days"), fix);
    }
    Check::ok(name, format!("{shown}, valid for {days} days"))
}

/// The server that was named, or that commands without --url would use.
pub(super) async fn server(url: Option<&str>) -> Check {
    let name = "server";
    let (url, process) = match (url, runtime_file::find(None)) {
        (Some(url), _) => (url.trim_end_matches('/').to_owned(), None),
        (None, Ok(Some(record))) => (record.url, Some(record.pid)),
        (None, Ok(None) | Err(_)) => return Check::ok(name, "none is running"),
    };
    let fix = match process {
        Some(process) => format!("Restart it: `kill {process}`, then `byzerllm serve`."),
        None => "Start it there with `byzerllm serve`, or correct --url or BYZERLLM_URL.".to_owned(),
    };
    let answer = match Client::new(&url, None) {
        Ok(client) => match client.healthy().await {
            Ok(()) => client.version().await,
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    let who = process.map(|process| format!(" (process {process})")).unwrap_or_default();
    match answer {
        Ok(version) if version == VERSION => Check::ok(name, format!("{url} answers{who}")),
        Ok(version) => Check::problem(
            name,
            format!("{url} runs version {version}{who}, and this command is {VERSION}"),
            "Use the same version on both sides: install this one there and restart the server.",
        ),
        Err(error) => Check::problem(name, format!("{url} does not answer{who}: {}", error.message()), fix),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::Verdict;
    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const EVERYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

    #[test]
    fn an_occupied_port_is_a_warning() {
        let listener = TcpListener::bind((HERE, 0)).unwrap();
        assert_eq!(port(HERE, listener.local_addr().unwrap().port()).verdict, Verdict::Warning);
        // A documentation address, which no machine has.
        let check = port("192.0.2.1".parse().unwrap(), 0);
        assert_eq!(check.verdict, Verdict::Problem);
    }

    #[test]
    fn other_machines_need_a_key_that_is_active() {
        let key = |active| KeyInfo {
            name: "a".to_owned(),
            id: "0123".to_owned(),
            scopes: byzerllm_runtime::Scopes::all(),
            created: 1,
            rotated: None,
            grace_until: None,
            expires: None,
            revoked: None,
            active,
        };
        let verdict = |host, keys: &[KeyInfo]| of_keys(host, Path::new("/state"), keys);
        assert_eq!(verdict(HERE, &[]).verdict, Verdict::Ok);
        let open = verdict(EVERYWHERE, &[]);
        assert_eq!(open.verdict, Verdict::Problem);
        assert!(open.fix.unwrap().contains("keys create --name NAME --state '/state'"));
        assert_eq!(verdict(EVERYWHERE, &[key(false), key(true)]).verdict, Verdict::Ok);
        assert_eq!(verdict(HERE, &[key(false)]).verdict, Verdict::Problem);
    }

    #[test]
    fn a_proxy_must_leave_this_machine_alone() {
        let verdict = |variables: &[(&str, &str)]| {
            proxies(|name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(verdict(&[]).verdict, Verdict::Ok);
        assert_eq!(verdict(&[("HTTPS_PROXY", "http://p")]).verdict, Verdict::Ok);
        let bare = verdict(&[("http_proxy", "http://p")]);
        assert_eq!(bare.verdict, Verdict::Warning);
        assert!(bare.detail.contains("127.0.0.1 and localhost"), "{bare:?}");
        let half = verdict(&[("ALL_PROXY", "http://p"), ("NO_PROXY", "localhost, example.org")]);
        assert!(half.detail.contains("lacks 127.0.0.1:"), "{half:?}");
        for exempt in ["*", "localhost,127.0.0.1"] {
            assert_eq!(verdict(&[("HTTP_PROXY", "http://p"), ("no_proxy", exempt)]).verdict, Verdict::Ok);
        }
    }

    fn certificate(directory: &Path, name: &str, from: (i32, u8, u8), to: (i32, u8, u8)) -> TlsFiles {
        let mut parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
        parameters.not_after = rcgen::date_time_ymd(to.0, to.1, to.2);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let files = TlsFiles {
            certificate: directory.join(format!("{name}.pem")),
            key: directory.join(format!("{name}.key")),
        };
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        std::fs::set_permissions(&files.key, PermissionsExt::from_mode(0o600)).unwrap();
        files
    }

    #[test]
    fn certificates_are_checked_with_their_keys_and_dates() {
        let directory = tempfile::tempdir().unwrap();
        let good = certificate(directory.path(), "good", (2020, 1, 1), (2090, 1, 1));
        assert_eq!(of_files(&good).verdict, Verdict::Ok, "{:?}", of_files(&good));
        let old = certificate(directory.path(), "old", (2020, 1, 1), (2021, 1, 1));
        assert!(of_files(&old).detail.contains("expired"));
        let future = certificate(directory.path(), "future", (2080, 1, 1), (2090, 1, 1));
        assert!(of_files(&future).detail.contains("not valid yet"));
        let mixed = TlsFiles { certificate: good.certificate.clone(), key: old.key };
        let check = of_files(&mixed);
        assert!(check.verdict == Verdict::Problem && check.detail.contains("not the key"), "{check:?}");
        let missing = TlsFiles { certificate: directory.path().join("none"), ..good.clone() };
        assert!(of_files(&missing).detail.contains("cannot be read"));
        std::fs::set_permissions(&good.key, PermissionsExt::from_mode(0o644)).unwrap();
        let check = of_files(&good);
        assert!(check.verdict == Verdict::Warning && check.fix.unwrap().contains("chmod 600"));
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_a_problem() {
        let listener = TcpListener::bind((HERE, 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let check = server(Some(&url)).await;
        assert_eq!(check.verdict, Verdict::Problem);
        assert!(check.fix.unwrap().contains("--url"));
    }
}
