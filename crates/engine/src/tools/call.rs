//! One call: a JSON object with a function's name and its arguments.
//!
//! Nothing is sent before the name is known to be one of the tools and the arguments have begun as an object. Until
//! then a mistake leaves a text; after that a part of the call is out and cannot be taken back.

use std::sync::Arc;

use super::json::{Place, Scanner};
use super::parts::Parts;

/// How a format names the members of a call.
#[derive(Debug)]
pub(super) struct Members {
    /// The arguments, by any of these.
    pub(super) arguments: &'static [&'static str],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    Name,
    Arguments,
    Other,
}

/// Why a call is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken(pub(super) String);

/// A call in progress.
#[derive(Debug)]
pub(super) struct Call {
    members: &'static Members,
    tools: Arc<[String]>,
    scanner: Scanner,
    /// Everything since the call's marker, until a part of it was sent.
    raw: String,
    key: String,
    member: Member,
    last: Place,
    name: String,
    named: bool,
    /// Arguments that wait for the name, or for their end when they are JSON in a string.
    arguments: String,
    has_arguments: bool,
    quoted: bool,
    sent: bool,
}

impl Call {
    /// `before` is what the model wrote before the object, for the case that it is no call.
    pub(super) fn new(members: &'static Members, tools: Arc<[String]>, before: String) -> Self {
        Self {
            members,
            tools,
            scanner: Scanner::new(),
            raw: before,
            key: String::new(),
            member: Member::Other,
            last: Place::Structure,
            name: String::new(),
            named: false,
            arguments: String::new(),
            has_arguments: false,
            quoted: false,
            sent: false,
        }
    }

    /// Whether a part of it was sent.
    pub(super) fn sent(&self) -> bool {
        self.sent
    }

    /// Whether it has a name, be it a wrong one.
    pub(super) fn named(&self) -> bool {
        self.named
    }

    /// What the model wrote, when no part of it was sent.
    pub(super) fn into_raw(self) -> String {
        self.raw
    }

    /// Takes a character. `true` when the call is complete. A character that breaks it is not part of it.
    pub(super) fn push(&mut self, c: char, out: &mut Parts) -> Result<bool, Broken> {
        let place = self.scanner.step(c).ok_or_else(|| Broken("it is not valid JSON".to_owned()))?;
        if place != Place::Value && self.last == Place::Value {
            self.end_value(out)?;
        }
        match place {
            Place::Key => self.key.push(c),
            Place::Structure if c == ':' => self.end_key()?,
            Place::Structure => {}
            Place::Value => self.value(c, out)?,
        }
        self.last = place;
        if self.scanner.is_done() {
            if !self.named {
                return Err(Broken("it has no name".to_owned()));
            }
            if !self.has_arguments {
                self.start(out);
                out.arguments("{}");
            }
            out.end();
            return Ok(true);
        }
        if !self.sent {
            self.raw.push(c);
        }
        Ok(false)
    }

    fn end_key(&mut self) -> Result<(), Broken> {
        let key: String = decode(&self.key)?;
        self.key.clear();
        self.member = match key.as_str() {
            "name" => Member::Name,
            key if self.members.arguments.contains(&key) => Member::Arguments,
            _ => Member::Other,
        };
        let again = match self.member {
            Member::Name => self.named,
            Member::Arguments => std::mem::replace(&mut self.has_arguments, true),
            Member::Other => false,
        };
        if again { Err(Broken(format!("it has '{key}' twice"))) } else { Ok(()) }
    }

    fn value(&mut self, c: char, out: &mut Parts) -> Result<(), Broken> {
        let first = self.last != Place::Value;
        match self.member {
            Member::Name => self.name.push(c),
            Member::Arguments => {
                if first {
                    if c != '{' && c != '"' {
                        return Err(Broken("its arguments are not an object".to_owned()));
                    }
                    self.quoted = c == '"';
                }
                if self.named && !self.quoted {
                    self.start(out);
                    out.arguments(c.encode_utf8(&mut [0; 4]));
                } else {
                    self.arguments.push(c);
                }
            }
            Member::Other => {}
        }
        Ok(())
    }

    fn end_value(&mut self, out: &mut Parts) -> Result<(), Broken> {
        match self.member {
            Member::Name => {
                self.name = decode(&self.name).map_err(|_| Broken("its name is not a text".to_owned()))?;
                self.named = true;
                if !self.tools.contains(&self.name) {
                    let name: String = self.name.chars().take(64).collect();
                    return Err(Broken(format!("there is no tool '{name}'")));
                }
            }
            Member::Arguments if self.quoted => {
                self.arguments = decode(&self.arguments)?;
                let parsed =
                    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&self.arguments);
                if parsed.is_err() {
                    return Err(Broken("its arguments are not an object".to_owned()));
                }
            }
            Member::Arguments | Member::Other => {}
        }
        if self.named && !self.arguments.is_empty() {
            self.start(out);
            out.arguments(&std::mem::take(&mut self.arguments));
        }
        Ok(())
    }

    fn start(&mut self, out: &mut Parts) {
        if !self.sent {
            self.sent = true;
            self.raw = String::new();
            out.start(&self.name);
        }
    }
}

fn decode(json: &str) -> Result<String, Broken> {
    serde_json::from_str(json).map_err(|_| Broken("it is not valid JSON".to_owned()))
}
