//! `byzerllm keys`: through the server that holds the state, or on the state itself when none runs.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use byzerllm_client::runtime_file;
use byzerllm_core::{Error, ErrorKind};
use byzerllm_runtime::{KeyInfo, Keys, NewKey, Scopes};
use serde_json::{Value, json};

use crate::arguments::{
    CreateKeyArguments, KeysAction, KeysArguments, KeysPlaceArguments, ListKeysArguments, RevokeKeyArguments,
    RotateKeyArguments,
};
use crate::connection::Connection;
use crate::deploy::read;
use crate::output::{Failure, Outcome, Output, table};
use crate::serve::default_state;

/// Where the keys are.
enum Place {
    Server(Connection),
    Disk(Keys, PathBuf),
}

/// Runs one of the actions.
pub(crate) async fn keys(arguments: KeysArguments, output: Output) -> Outcome {
    match arguments.action {
        KeysAction::Create(arguments) => create(arguments, output).await,
        KeysAction::List(arguments) => list(arguments, output).await,
        KeysAction::Rotate(arguments) => rotate(arguments, output).await,
        KeysAction::Revoke(arguments) => revoke(arguments, output).await,
    }
}

impl Place {
    /// The state that was named, else the server that was named or runs, else the default state.
    fn open(arguments: &KeysPlaceArguments) -> Outcome<Self> {
        if let Some(state) = &arguments.state {
            return Self::of_state(std::path::absolute(state)?);
        }
        if arguments.server.url.is_some() || runtime_file::find(None)?.is_some() {
            return Ok(Self::Server(Connection::open(arguments.server.url.as_deref())?));
        }
        Self::of_state(default_state()?)
    }

    fn of_state(state: PathBuf) -> Outcome<Self> {
        match Keys::open(&state) {
            Ok(keys) => Ok(Self::Disk(keys, state)),
            Err(error) if error.kind() == ErrorKind::Conflict => match runtime_file::find_state(&state)? {
                Some(record) => Ok(Self::Server(Connection::open(Some(&record.url))?)),
                None => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Server(connection) => connection.url.clone(),
            Self::Disk(_, state) => state.display().to_string(),
        }
    }
}

async fn create(arguments: CreateKeyArguments, output: Output) -> Outcome {
    let place = Place::open(&arguments.place)?;
    let made = match &place {
        Place::Disk(keys, _) => {
            let scopes = match arguments.scope.is_empty() {
                true => Scopes::inference(),
                false => arguments.scope.iter().cloned().collect(),
            };
            keys.create(&Scopes::all(), &arguments.name, &scopes, arguments.expires).map_err(refused)?
        }
        Place::Server(connection) => {
            let scopes: Vec<String> = arguments.scope.iter().map(ToString::to_string).collect();
            let made = connection.client.create_key(&arguments.name, &scopes, arguments.expires).await;
            new_key(connection, made).await?
        }
    };
    show(&made, arguments.json, output)
}

async fn rotate(arguments: RotateKeyArguments, output: Output) -> Outcome {
    let place = Place::open(&arguments.place)?;
    let made = match &place {
        Place::Disk(keys, _) => {
            keys.rotate(&Scopes::all(), &arguments.name, arguments.grace).map_err(refused)?
        }
        Place::Server(connection) => {
            let made = connection.client.rotate_key(&arguments.name, arguments.grace).await;
            new_key(connection, made).await?
        }
    };
    show(&made, arguments.json, output)
}

async fn revoke(arguments: RevokeKeyArguments, output: Output) -> Outcome {
    let place = Place::open(&arguments.place)?;
    match &place {
        Place::Disk(keys, _) => drop(keys.revoke(&Scopes::all(), &arguments.name).map_err(refused)?),
        Place::Server(connection) => {
            if let Err(error) = connection.client.revoke_key(&arguments.name).await {
                return Err(explain(connection, error).await);
            }
        }
    }
    output.line(format_args!("{} is revoked at {}", arguments.name, place.words()))
}

async fn list(arguments: ListKeysArguments, output: Output) -> Outcome {
    let place = Place::open(&arguments.place)?;
    let keys: Vec<KeyInfo> = match &place {
        Place::Disk(keys, _) => keys.list(),
        Place::Server(connection) => match connection.client.list_keys().await {
            Ok(listed) => listed.iter().map(read).collect::<Outcome<_>>()?,
            Err(error) => return Err(explain(connection, error).await),
        },
    };
    if arguments.json {
        return output.json(&json!({ "place": place.words(), "keys": keys }));
    }
    if keys.is_empty() {
        let place = place.words();
        output.note(format_args!("No keys at {place}. `byzerllm keys create --name NAME` makes one."));
        return Ok(());
    }
    let now = now();
    let mut rows = vec![["NAME", "ID", "STATE", "EXPIRES", "SCOPES"].map(str::to_owned).to_vec()];
    rows.extend(keys.iter().map(|key| row(key, now)));
    for line in table(&rows) {
        output.line(line)?;
    }
    Ok(())
}

/// Prints a key: alone on standard output, so that a script can take it.
fn show(made: &NewKey, as_json: bool, output: Output) -> Outcome {
    if as_json {
        return output.json(made);
    }
    output.line(&made.key)?;
    output.note(format_args!(
        "This is the key '{}' ({}). It is shown this once; clients send it as `Authorization: Bearer KEY`.",
        made.info.name, made.info.scopes
    ));
    Ok(())
}

fn row(key: &KeyInfo, now: u64) -> Vec<String> {
    let state = match (key.revoked, key.active, key.grace_until) {
        (Some(_), ..) => "revoked".to_owned(),
        (None, false, _) => "expired".to_owned(),
        (None, true, Some(until)) => format!("active, old one {} more", span(until.saturating_sub(now))),
        (None, true, None) => "active".to_owned(),
    };
    let expires = match key.expires {
        None => "never".to_owned(),
        Some(expires) if expires <= now => "over".to_owned(),
        Some(expires) => format!("in {}", span(expires - now)),
    };
    vec![key.name.clone(), key.id.clone(), state, expires, key.scopes.to_string()]
}

/// A length of time in its largest unit, to the nearest: a key for 30 days does not have 29 a second after it was made.
fn span(seconds: u64) -> String {
    let nearest = |unit: u64| seconds.saturating_add(unit / 2) / unit;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", nearest(60)),
        7200..172_800 => format!("{} h", nearest(3600)),
        _ => format!("{} d", nearest(86_400)),
    }
}

async fn new_key(connection: &Connection, made: byzerllm_core::Result<Value>) -> Outcome<NewKey> {
    match made {
        Ok(made) => read(&made),
        Err(error) => Err(explain(connection, error).await),
    }
}

async fn explain(connection: &Connection, error: Error) -> Failure {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::PermissionDenied => refused(error),
        _ => connection.explain(error).await,
    }
}

/// What these kinds mean for deployments is not what they mean for keys.
fn refused(error: Error) -> Failure {
    match error.kind() {
        ErrorKind::NotFound => Failure::new(error.message(), "`byzerllm keys list` shows the keys."),
        ErrorKind::PermissionDenied => {
            Failure::new(error.message(), "Run the command as the user who started the server.")
        }
        _ => error.into(),
    }
}

/// Whether a state directory that no server uses has a key.
pub(crate) fn exist_in(state: &Path) -> Outcome<bool> {
    Ok(state.exists() && Keys::open(state)?.exist())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).as_ref().map_or(0, Duration::as_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_say_what_a_key_is_now() {
        let key = KeyInfo {
            name: "a".to_owned(),
            id: "0123".to_owned(),
            scopes: Scopes::all(),
            created: 1,
            rotated: None,
            grace_until: None,
            expires: None,
            revoked: None,
            active: true,
        };
        let words = |key: &KeyInfo| row(key, 1000)[2..4].join("; ");
        assert_eq!(row(&key, 1000), ["a", "0123", "active", "never", "admin, inference:*"]);
        assert_eq!(words(&KeyInfo { expires: Some(1000 + 86_400 * 30), ..key.clone() }), "active; in 30 d");
        assert_eq!(words(&KeyInfo { expires: Some(998 + 86_400 * 30), ..key.clone() }), "active; in 30 d");
        assert_eq!(words(&KeyInfo { expires: Some(9), active: false, ..key.clone() }), "expired; over");
        assert_eq!(words(&KeyInfo { revoked: Some(9), active: false, ..key.clone() }), "revoked; never");
        let grace = KeyInfo { grace_until: Some(1000 + 3600), ..key };
        assert_eq!(words(&grace), "active, old one 60 min more; never");
    }
}
