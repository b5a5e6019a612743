//! One file from a URL into the cache: in parallel ranges, resumable, checked before it has a name.
//!
//! A file grows as `downloads/<key>.part`; beside it a journal says which pieces are complete, so that a later run
//! goes on. A lock per key keeps two processes apart: the second finds the finished blob. Writes go to the page
//! cache piece by piece and are done on the task itself.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::{StreamExt, TryStreamExt, stream};
use reqwest::header::CONTENT_RANGE;
use reqwest::{StatusCode, Url};
use serde::{Deserialize, Serialize};

use crate::cache::{Blob, Cache};
use crate::checksum::{Sum, Sums, key};
use crate::http::{Answer, Credential, Fault, Web, place, range, reason, refused, text};
use crate::settings::Settings;
use crate::{Problem, Progress, Result, locks};

/// The largest file that is believed in: 16 TiB.
const MAX_FILE: u64 = 16 << 40;

/// A file to get.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// For messages.
    pub(crate) name: String,
    pub(crate) url: Url,
    pub(crate) size: Option<u64>,
    pub(crate) sum: Option<Sum>,
    /// The commit that the server must answer from.
    pub(crate) commit: Option<String>,
}

/// What is complete of a file.
#[derive(Debug, Serialize, Deserialize, PartialEq)]
struct Journal {
    size: u64,
    chunk: u64,
    done: Vec<u64>,
}

/// Where a body ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// Exactly here.
    Known(u64),
    /// With the body, here at the latest.
    AtMost(u64),
}

/// Where files come from and go to.
pub(crate) struct Downloads<'a> {
    pub(crate) web: &'a Web,
    pub(crate) cache: &'a Cache,
    pub(crate) settings: &'a Settings,
    pub(crate) credential: Option<&'a Credential>,
    pub(crate) progress: &'a dyn Progress,
}

impl Downloads<'_> {
    /// Gets one file, or finds it.
    pub(crate) async fn fetch(&self, wanted: &Wanted) -> Result<Blob> {
        if let Some(blob) = self.found(wanted) {
            self.progress.advance(blob.size);
            return Ok(blob);
        }
        let key = match &wanted.sum {
            Some(Sum::Sha256(sum)) => sum.clone(),
            _ => key(wanted.url.as_str()),
        };
        let directory = self.cache.directory("downloads")?;
        let _held = locks::alone(directory.join(format!("{key}.lock"))).await?;
        if let Some(blob) = self.found(wanted) {
            self.progress.advance(blob.size);
            return Ok(blob);
        }
        let part = Part::open(&directory, &key)?;
        let mut wanted = wanted.clone();
        let whole = if wanted.size.is_none() { self.ask(&mut wanted).await? } else { false };
        match wanted.size {
            Some(size) if size > MAX_FILE => {
                return Err(Problem::Answer {
                    place: place(&wanted.url),
                    why: format!("{} would have {size} bytes", wanted.name),
                });
            }
            Some(size) if !whole => {
                if !self.ranges(&wanted, size, &part).await? {
                    self.whole(&wanted, &part).await?;
                }
            }
            _ => self.whole(&wanted, &part).await?,
        }
        self.check(&wanted, part).await
    }

    fn found(&self, wanted: &Wanted) -> Option<Blob> {
        match &wanted.sum {
            Some(Sum::Sha256(sum)) => {
                self.cache.blob(sum).filter(|blob| wanted.size.is_none_or(|size| size == blob.size))
            }
            _ => None,
        }
    }

    /// Learns size and checksum by asking for one byte. True when the server gives whole files only.
    async fn ask(&self, wanted: &mut Wanted) -> Result<bool> {
        let answer = self.web.get(&wanted.url, self.credential, Some(range(0, 1))).await?;
        self.accept(wanted, &answer)?;
        wanted.sum = wanted.sum.take().or(answer.sum.clone());
        let whole = answer.status() != StatusCode::PARTIAL_CONTENT;
        wanted.size = answer.size.or_else(|| {
            if whole {
                answer.response.content_length()
            } else {
                total(text(answer.response.headers(), CONTENT_RANGE.as_str())?)
            }
        });
        if let Some(size) = wanted.size {
            self.progress.expect(size);
            self.room(size)?;
        }
        Ok(whole)
    }

    /// Refuses before the disk is full.
    pub(crate) fn room(&self, need: u64) -> Result<()> {
        self.cache.room(self.settings, need)
    }

    /// Checks the status and the commit of an answer.
    fn accept(&self, wanted: &Wanted, answer: &Answer) -> Result<()> {
        let status = answer.status();
        if !status.is_success() {
            let hint = "It is listed but gone; pull again, or name another revision.".to_owned();
            let headers = answer.response.headers();
            return Err(refused(status, headers, &wanted.url, &wanted.name, self.credential, hint));
        }
        if let (Some(expected), Some(found)) = (&wanted.commit, &answer.commit)
            && expected != found
        {
            let why = format!("{} comes from commit {found} instead of {expected}", wanted.name);
            return Err(Problem::Answer { place: place(&wanted.url), why });
        }
        Ok(())
    }

    /// Gets what is missing, piece by piece. False when the server gives whole files only.
    async fn ranges(&self, wanted: &Wanted, size: u64, part: &Part) -> Result<bool> {
        let chunk = self.settings.chunk.max(1);
        let done = part.resume(size, chunk)?;
        let finished: u64 = done.iter().map(|&index| (size - index * chunk).min(chunk)).sum();
        self.progress.advance(finished);
        let missing: Vec<u64> =
            (0..size.div_ceil(chunk)).filter(|index| done.binary_search(index).is_err()).collect();
        let journal = Mutex::new(Journal { size, chunk, done });
        let no_ranges = AtomicBool::new(false);
        let result = stream::iter(missing)
            .map(|index| {
                let (journal, no_ranges) = (&journal, &no_ranges);
                async move {
                    let start = index * chunk;
                    let end = (start + chunk).min(size);
                    if !self.piece(wanted, part, start, end, size, no_ranges).await? {
                        return Ok(());
                    }
                    let mut journal = journal.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    journal.done.push(index);
                    part.note(&journal)
                }
            })
            .buffer_unordered(self.settings.connections.clamp(1, 64))
            .try_collect::<Vec<()>>()
            .await;
        result?;
        Ok(!no_ranges.load(Ordering::Relaxed))
    }

    /// Gets bytes `start..end`, going on where a connection broke. False when the server ignores ranges.
    async fn piece(
        &self,
        wanted: &Wanted,
        part: &Part,
        start: u64,
        end: u64,
        size: u64,
        no_ranges: &AtomicBool,
    ) -> Result<bool> {
        let mut at = start;
        let mut failures = 0;
        while at < end {
            if no_ranges.load(Ordering::Relaxed) {
                self.progress.retreat(at - start);
                return Ok(false);
            }
            let _permit = self.web.permits.acquire().await;
            let header = (at > 0 || end < size).then(|| range(at, end));
            let before = at;
            let fault = match self.web.attempt(&wanted.url, self.credential, header.clone()).await {
                Err(fault) => fault,
                Ok(answer) => {
                    self.accept(wanted, &answer)?;
                    if header.is_some() && answer.status() != StatusCode::PARTIAL_CONTENT {
                        no_ranges.store(true, Ordering::Relaxed);
                        continue;
                    }
                    match self.pour(wanted, answer, part, &mut at, End::Known(end)).await {
                        Ok(()) => continue,
                        Err(fault) => fault,
                    }
                }
            };
            if at > before {
                failures = 0;
            }
            self.web.rest(&wanted.url, fault, &mut failures).await?;
        }
        Ok(true)
    }

    /// Writes a body at `at..end`. More than that, or less, is a fault.
    async fn pour(
        &self,
        wanted: &Wanted,
        answer: Answer,
        part: &Part,
        at: &mut u64,
        end: End,
    ) -> Result<(), Fault> {
        let headers = answer.response.headers();
        if answer.status() == StatusCode::PARTIAL_CONTENT {
            let promised = text(headers, CONTENT_RANGE.as_str()).and_then(first);
            if promised != Some(*at) {
                let why = "it answered another range than the one asked for".to_owned();
                return Err(Fault::Final(Problem::Answer { place: place(&wanted.url), why }));
            }
        }
        let mut stream = answer.response.bytes_stream();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| Fault::Again(reason(&error), None))?;
            let length = piece.len() as u64;
            let (End::Known(limit) | End::AtMost(limit)) = end;
            if length > limit - *at {
                let why = format!("{} is longer than the hub said", wanted.name);
                return Err(Fault::Final(Problem::Answer { place: place(&wanted.url), why }));
            }
            part.write(&piece, *at).map_err(Fault::Final)?;
            *at += length;
            self.progress.advance(length);
        }
        match end {
            End::Known(end) if *at < end => Err(Fault::Again("the connection closed early".into(), None)),
            _ => Ok(()),
        }
    }

    /// Gets everything in one answer, from the start each time.
    async fn whole(&self, wanted: &Wanted, part: &Part) -> Result<()> {
        let mut failures = 0;
        loop {
            part.clear()?;
            let mut at = 0;
            let fault = {
                let _permit = self.web.permits.acquire().await;
                match self.web.attempt(&wanted.url, self.credential, None).await {
                    Err(fault) => fault,
                    Ok(answer) => {
                        self.accept(wanted, &answer)?;
                        let known = wanted.size.or_else(|| answer.response.content_length());
                        let chunked = answer.response.headers().contains_key("transfer-encoding");
                        if known.is_none() && wanted.sum.is_none() && !chunked {
                            let why =
                                format!("{} has neither a length nor a checksum; add #sha256=…", wanted.name);
                            return Err(Problem::Answer { place: place(&wanted.url), why });
                        }
                        let end = match known {
                            Some(size) => End::Known(size),
                            None => End::AtMost(self.cache.free(self.settings)?.min(MAX_FILE)),
                        };
                        match self.pour(wanted, answer, part, &mut at, end).await {
                            Ok(()) => return Ok(()),
                            Err(fault) => fault,
                        }
                    }
                }
            };
            self.progress.retreat(at);
            self.web.rest(&wanted.url, fault, &mut failures).await?;
        }
    }

    /// Compares checksum and size, then gives the file its name.
    async fn check(&self, wanted: &Wanted, part: Part) -> Result<Blob> {
        let (path, length) = (part.path.clone(), wanted.size);
        let reading = tokio::task::spawn_blocking(move || {
            File::open(&path)
                .and_then(|file| Sums::of(file, length))
                .map_err(|error| Problem::disk("read", &path, error))
        });
        let sums = reading
            .await
            .unwrap_or_else(|_| Err(Problem::Busy { what: "the check was interrupted".into() }))?;
        let wrong = match &wanted.sum {
            Some(sum) => sums.contradicts(sum).map(|found| (sum.as_str().to_owned(), found)),
            None => None,
        };
        if let Some((expected, found)) = wrong {
            part.remove()?;
            self.progress.retreat(sums.size);
            return Err(Problem::Checksum { file: wanted.name.clone(), expected, found });
        }
        if let Some(expected) = wanted.size.filter(|&expected| expected != sums.size) {
            part.remove()?;
            let why = format!("{} has {} bytes instead of {expected}", wanted.name, sums.size);
            return Err(Problem::Answer { place: place(&wanted.url), why });
        }
        let blob = self.cache.adopt(&part.path, &sums.sha256, sums.size)?;
        part.remove()?;
        Ok(blob)
    }
}

/// A file that grows.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    journal: PathBuf,
    file: File,
}

impl Part {
    fn open(directory: &Path, key: &str) -> Result<Self> {
        let path = directory.join(format!("{key}.part"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| Problem::disk("open", &path, error))?;
        Ok(Self { journal: directory.join(format!("{key}.json")), path, file })
    }

    /// The pieces that an earlier run completed, in order; none when it wanted another file.
    fn resume(&self, size: u64, chunk: u64) -> Result<Vec<u64>> {
        let journal = std::fs::read(&self.journal)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Journal>(&bytes).ok());
        let length = self.file.metadata().map_err(|error| Problem::disk("read", &self.path, error))?.len();
        if let Some(mut journal) = journal.filter(|journal| (journal.size, journal.chunk) == (size, chunk))
            && length == size
        {
            journal.done.sort_unstable();
            journal.done.dedup();
            journal.done.retain(|&index| index < size.div_ceil(chunk));
            return Ok(journal.done);
        }
        self.clear()?;
        self.file.set_len(size).map_err(|error| Problem::disk("grow", &self.path, error))?;
        Ok(Vec::new())
    }

    fn clear(&self) -> Result<()> {
        let _none = std::fs::remove_file(&self.journal);
        self.file.set_len(0).map_err(|error| Problem::disk("empty", &self.path, error))
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.file.write_all_at(bytes, at).map_err(|error| Problem::disk("write", &self.path, error))
    }

    fn note(&self, journal: &Journal) -> Result<()> {
        // The data first: a journal must not promise what a crash can take back.
        self.file.sync_data().map_err(|error| Problem::disk("write", &self.path, error))?;
        crate::cache::write_json(&self.journal, journal)
    }

    fn remove(&self) -> Result<()> {
        let _none = std::fs::remove_file(&self.journal);
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Problem::disk("remove", &self.path, error))
            }
            _ => Ok(()),
        }
    }
}

/// The total of `bytes 0-0/1234`.
fn total(content_range: &str) -> Option<u64> {
    content_range.rsplit_once('/')?.1.trim().parse().ok()
}

/// The first byte of `bytes 5-9/1234`.
fn first(content_range: &str) -> Option<u64> {
    content_range.trim().strip_prefix("bytes")?.trim().split_once('-')?.0.trim().parse().ok()
}
