//! `byzerllm serve`: one runtime behind one HTTP server, until a signal.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use byzerllm_client::runtime_file::{self, ServerRecord};
use byzerllm_runtime::{Runtime, RuntimeOptions};
use byzerllm_server::{ServerOptions, TlsFiles};
use tokio::sync::watch;

use crate::arguments::{ByzerServeArguments, ServeArguments, Texts, TlsArguments};
use crate::output::{Failure, Outcome, Output};
use crate::signals::Signals;

/// Serves until the first signal, then finishes the requests in flight.
pub(crate) async fn serve(arguments: ServeArguments, output: Output) -> Outcome {
    let mut allowed_origins = arguments.allow_origin;
    allowed_origins.extend(byzers(&arguments.byzer)?);
    let address = SocketAddr::new(arguments.host, arguments.port);
    let state = match arguments.state {
        Some(state) => std::path::absolute(state)?,
        None => default_state()?,
    };
    let far = !address.ip().is_loopback();
    if far && !crate::keys::exist_in(&state)? {
        return Err(Failure::misuse(
            format!(
                "cannot listen on {}: everyone who reaches it could ask, for there is no key",
                address.ip()
            ),
            format!("Make one first: byzerllm keys create --name NAME --state {}", quoted(&state)),
        ));
    }
    let tls = tls_files(&arguments.tls)?;
    if far && tls.is_none() {
        output.note(
            "warning: keys and texts travel unencrypted; use --ssl-certfile and --ssl-keyfile, or a proxy that does TLS",
        );
    }
    let mut signals = Signals::listen()?;
    let admin_token = random_token()?;
    let server = byzerllm_server::bind(ServerOptions {
        address,
        allowed_hosts: arguments.allow_host,
        allowed_origins,
        admin_token: admin_token.clone(),
        tls: tls.clone(),
    })
    .await
    .map_err(|error| match error.param() {
        Some("ssl_certfile" | "ssl_keyfile") => Failure::from(error),
        _ => cannot_listen(address, &error),
    })?;
    #[cfg(feature = "otel")]
    let server = server.with_callers_spans(crate::traces::adopt());
    let runtime = Runtime::open(RuntimeOptions {
        state: Some(state.clone()),
        threads: arguments.threads.map(usize::from),
        pin: true,
        master_key: arguments.master_key.map(std::path::absolute).transpose()?,
    })
    .await?;
    let address = server.address();
    let url = url(address, tls.is_some());
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    let record = runtime_file::write(&ServerRecord {
        url: url.clone(),
        port: address.port(),
        pid: std::process::id(),
        token: admin_token,
        state: Some(state.clone()),
        started,
        certificate: tls.map(|tls| tls.certificate),
    })?;
    output.line(format_args!("byzerllm serves on {url}, state in {}", state.display()))?;
    if far {
        output
            .note(format_args!("It is reached from other machines at {address}; every request needs a key."));
    }
    output.note("Deploy a model with `byzerllm deploy --name NAME --model PATH`; Ctrl-C stops.");

    let drain = Duration::from_secs(arguments.drain_seconds);
    let (stop, stopped) = watch::channel(false);
    let mut wait = stopped.clone();
    let serving = server.run(runtime.clone(), async move {
        let _closed = wait.wait_for(|stop| *stop).await;
    });
    tokio::pin!(serving);
    let early = tokio::select! {
        result = &mut serving => Some(result),
        () = signals.next() => None,
    };
    let result = match early {
        Some(result) => result,
        None => {
            output.note("Finishing the requests in flight; Ctrl-C again leaves at once.");
            let _no_receiver = stop.send(true);
            let finish = async {
                let result = tokio::time::timeout(drain, &mut serving).await;
                runtime.shutdown(Duration::from_secs(1)).await;
                result.unwrap_or(Ok(()))
            };
            tokio::select! {
                result = finish => result,
                () = signals.next() => {
                    drop(record);
                    leave_at_once()
                }
            }
        }
    };
    drop(record);
    result?;
    output.note("Stopped.");
    Ok(())
}

/// The files of a certificate, both or none.
pub(crate) fn tls_files(arguments: &TlsArguments) -> Outcome<Option<TlsFiles>> {
    let (Some(certificate), Some(key)) = (&arguments.ssl_certfile, &arguments.ssl_keyfile) else {
        return Ok(None);
    };
    Ok(Some(TlsFiles { certificate: std::path::absolute(certificate)?, key: std::path::absolute(key)? }))
}

/// The origins that Byzer-LLM's options allow; what they ask for beyond that is refused with the reason.
fn byzers(arguments: &ByzerServeArguments) -> Outcome<Vec<String>> {
    let refused = |what: &str, remedy: &str| Err(Failure::misuse(format!("{what} is not supported"), remedy));
    let set = |value: &Option<String>, plain: &[&str]| {
        value.as_deref().is_some_and(|value| !value.is_empty() && !plain.contains(&value))
    };
    if set(&arguments.api_key, &[]) {
        return refused(
            "--api-key",
            "Make a key with `byzerllm keys create --name NAME`; from then on the server asks for it.",
        );
    }
    if set(&arguments.served_model_name, &[]) {
        return refused(
            "--served-model-name",
            "Requests name the deployment: `byzerllm deploy --name NAME --model PATH`.",
        );
    }
    if set(&arguments.prompt_template, &["auto"]) {
        return refused("--prompt-template", "Leave it out: the checkpoint's own chat template is used.");
    }
    if set(&arguments.response_role, &["assistant"]) {
        return refused("--response-role", "Leave it out: answers have the role assistant.");
    }
    if arguments.allow_credentials {
        return refused("--allow-credentials", "Leave it out: the server knows no cookies.");
    }
    let everything = |texts: &Option<Texts>| texts.as_ref().is_none_or(|texts| texts.0 == ["*"]);
    for (name, texts) in
        [("--allowed-methods", &arguments.allowed_methods), ("--allowed-headers", &arguments.allowed_headers)]
    {
        if !everything(texts) {
            let remedy = "Leave it out: allowed origins may use every route that their key opens.";
            return refused(&format!("{name} with a choice"), remedy);
        }
    }
    let origins = arguments.allowed_origins.as_ref().map_or_else(Vec::new, |texts| texts.0.clone());
    if origins.iter().any(|origin| origin == "*") {
        return refused(
            "--allowed-origins '[\"*\"]', by which every web page could use the models,",
            "Name the origins: --allowed-origins '[\"https://app.example\"]'.",
        );
    }
    Ok(origins)
}

/// Ends the process without waiting for anything: 128 plus the number of the interrupt signal, as shells do.
#[expect(clippy::disallowed_methods, reason = "the user asked twice; destructors would wait for requests")]
fn leave_at_once() -> ! {
    std::process::exit(130)
}

/// How programs on this machine reach the server: every address includes loopback.
fn url(address: SocketAddr, tls: bool) -> String {
    let near = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{}", SocketAddr::new(near, address.port()))
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// The state directory when none is given.
pub(crate) fn default_state() -> Outcome<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|base| base.join("byzerllm"))
        .ok_or_else(|| {
            Failure::misuse(
                "neither XDG_STATE_HOME nor HOME is set",
                "Name a state directory with --state DIR.",
            )
        })
}

/// 256 random bits in hexadecimal.
fn random_token() -> Outcome<String> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| {
        Failure::new(
            format!("the system gives no random numbers: {error}"),
            "Check that /dev/urandom can be read.",
        )
    })?;
    let mut token = String::with_capacity(64);
    for byte in bytes {
        let _infallible = write!(token, "{byte:02x}");
    }
    Ok(token)
}

/// Says who holds the port when we know it.
fn cannot_listen(address: SocketAddr, error: &byzerllm_core::Error) -> Failure {
    let port = address.port();
    let occupied = std::net::TcpListener::bind(address)
        .is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse);
    if !occupied {
        let message = format!("cannot listen on {address}: {}", error.message());
        return Failure::new(message, "Choose another address with --host or another port with --port.");
    }
    let owner = runtime_file::find(Some(port)).ok().flatten();
    match owner {
        Some(record) if address.ip() == IpAddr::from([127, 0, 0, 1]) => Failure::new(
            format!("port {port} is held by your byzerllm server (process {})", record.pid),
            format!(
                "Use it with --url {}, stop it with `kill {}`, or take --port 0.",
                record.url, record.pid
            ),
        ),
        _ => Failure::new(
            format!("port {port} is already in use by another program"),
            "Choose another one with --port N; --port 0 takes any free port.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_is_one_that_this_machine_reaches() {
        let of = |address: &str, tls| url(address.parse().unwrap(), tls);
        assert_eq!(of("0.0.0.0:80", false), "http://127.0.0.1:80");
        assert_eq!(of("[::]:80", true), "https://[::1]:80");
        assert_eq!(of("192.0.2.1:443", true), "https://192.0.2.1:443");
    }

    #[test]
    fn paths_are_quoted_for_the_shell() {
        assert_eq!(quoted(Path::new("/a/b-c_1.d")), "/a/b-c_1.d");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }

    #[test]
    fn tokens_are_long_and_differ() {
        let (one, other) = (random_token().unwrap(), random_token().unwrap());
        assert_eq!(one.len(), 64);
        assert_ne!(one, other);
    }
}
