//! The secrets of this process (client secrets, tokens, passwords of the password file and of proxies). No text that is shown
//! may hold one, not even where a server repeats it in parts or encoded.
//!
//! A text is decoded (see [`view`]) and compared without regard to case and separators. Every eighth run of eight bytes of each
//! secret is looked up; each hit is extended as far as text and secret agree.

mod index;
mod view;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

pub(crate) use super::addresses::MASK;
use super::addresses::without_passwords;
use super::boundary_before;
use index::{GRAM, Index};
use view::View;

/// This many consecutive bytes of a secret give it away; a shorter secret must be there whole.
const PART: usize = 16;

/// So many encodings of each other are undone: a page of diagnostics may hold the headers of a request.
const ENCODINGS: usize = 3;

/// Shorter secrets are ignored: they cannot be told from words.
const SHORTEST: usize = 6;

/// How many secrets are remembered. The oldest are dropped first.
const MOST: usize = 2_000;

/// So many tokens are remembered after their end, the newest: those of a daemon that runs for years must not add up.
const MOST_DEAD: usize = 256;

/// A token is remembered for so long after its end: clocks differ.
const AFTERLIFE: SignedDuration = SignedDuration::from_hours(1);

static KNOWN: Mutex<Known> = Mutex::new(Known { secrets: Vec::new(), index: Index::EMPTY });

/// Remembers a secret for as long as the process lives.
pub(crate) fn keep(secret: &SecretString) {
    known().add(secret.expose_secret(), None, Timestamp::now());
}

/// Remembers a token until it has expired.
pub(crate) fn keep_until(token: &SecretString, expires_at: Timestamp) {
    known().add(token.expose_secret(), Some(expires_at), Timestamp::now());
}

/// The text without any of the secrets, in any form, and without passwords of addresses.
pub(crate) fn removed(text: &str) -> Cow<'_, str> {
    without_passwords(known().removed(text))
}

/// The same without waiting: none while another thread uses the secrets.
pub(super) fn try_removed(text: &str) -> Option<Cow<'_, str>> {
    match KNOWN.try_lock() {
        Ok(mut known) => Some(without_passwords(known.removed(text))),
        Err(TryLockError::Poisoned(known)) => Some(without_passwords(known.into_inner().removed(text))),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Whether a text holds one of the secrets. Such a text cannot be the name of anything.
pub(crate) fn are_in(text: &str) -> bool {
    matches!(known().removed(text), Cow::Owned(_))
}

fn known() -> MutexGuard<'static, Known> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Known {
    secrets: Vec<Secret>,
    index: Index,
}

struct Secret {
    /// Of the original text, to recognise a secret that is added again.
    digest: u64,
    /// In the form that is compared.
    bytes: Zeroizing<Vec<u8>>,
    is_loose: bool,
    until: Option<Timestamp>,
}

impl Known {
    fn add(&mut self, text: &str, until: Option<Timestamp>, now: Timestamp) {
        let digest = digest(text.as_bytes());
        if let Some(same) = self.secrets.iter_mut().find(|secret| secret.digest == digest) {
            same.until = same.until.zip(until).map(|(one, other)| one.max(other));
            return;
        }
        self.forget(now);
        let plain = View::of(text.as_bytes()).unescaped();
        let (strict, loose) = (plain.folded(false), plain.folded(true));
        // A secret with few letters and digits is compared with all of its characters.
        let is_loose = loose.bytes.len() >= PART && loose.bytes.len() * 4 >= strict.bytes.len() * 3;
        let bytes = if is_loose { loose.bytes } else { strict.bytes };
        if bytes.len() < SHORTEST {
            return;
        }
        let secret = Secret { digest, bytes, is_loose, until };
        self.index.add(self.secrets.len(), &secret);
        self.secrets.push(secret);
    }

    fn forget(&mut self, now: Timestamp) {
        let before = self.secrets.len();
        let is_useless = |until: Timestamp| now.duration_since(until) > AFTERLIFE;
        self.secrets.retain(|secret| !secret.until.is_some_and(is_useless));
        let is_dead = |secret: &Secret| secret.until.is_some_and(|until| until < now);
        let dead = self.secrets.iter().filter(|secret| is_dead(secret)).count();
        if dead > MOST_DEAD {
            let mut surplus = dead - MOST_DEAD + MOST_DEAD / 4;
            self.secrets.retain(|secret| {
                let goes = surplus > 0 && is_dead(secret);
                surplus -= usize::from(goes);
                !goes
            });
        }
        if self.secrets.len() >= MOST {
            // Many at once, because dropping any means indexing all again.
            self.secrets.drain(..MOST / 4);
        }
        if self.secrets.len() < before {
            self.index.clear();
            self.secrets.iter().enumerate().for_each(|(number, secret)| self.index.add(number, secret));
        }
    }

    fn removed<'t>(&mut self, text: &'t str) -> Cow<'t, str> {
        if text.len() < self.index.least() {
            return Cow::Borrowed(text);
        }
        self.index.sort();
        let mut found = self.find(text);
        if found.is_empty() {
            return Cow::Borrowed(text);
        }
        found.sort_by_key(|range| range.start);
        let mut shown = String::with_capacity(text.len());
        let mut end = 0;
        for range in found {
            // Adjacent ranges are one secret.
            if range.start > end || shown.is_empty() {
                shown.push_str(&text[end..range.start.max(end)]);
                shown.push_str(MASK);
            }
            end = range.end.max(end);
        }
        shown.push_str(&text[end..]);
        Cow::Owned(shown)
    }

    /// The ranges of the text that give a secret away.
    fn find(&self, text: &str) -> Vec<Range<usize>> {
        let plain = View::of(text.as_bytes()).unescaped();
        let mut found = Vec::new();
        self.find_in(&plain, true, &mut found);
        self.find_encoded(&plain, ENCODINGS, &mut found);
        for range in &mut found {
            let end = (range.end..text.len()).find(|end| text.is_char_boundary(*end)).unwrap_or(text.len());
            *range = boundary_before(text, range.start)..end;
        }
        found
    }

    /// Looks into what is encoded, and into what is encoded within that, so many times.
    fn find_encoded(&self, view: &View, times: usize, found: &mut Vec<Range<usize>>) {
        let pairs = view.folded(true);
        // Decoding leaves fewer bytes, and what is left of a short text is too little.
        let least = self.index.least();
        let of_base64 = (0..4).filter(|_| (view.bytes.len() * 3).div_ceil(4) >= least).map(|skip| view.of_base64(skip));
        let of_hex = (0..2).filter(|_| pairs.bytes.len() / 2 >= least).map(|skip| pairs.of_hex(skip));
        for decoded in of_base64.chain(of_hex) {
            let decoded = decoded.unescaped();
            self.find_in(&decoded, false, found);
            if times > 1 && decoded.may_be_encoded() {
                self.find_encoded(&decoded, times - 1, found);
            }
        }
    }

    fn find_in(&self, view: &View, is_plain: bool, found: &mut Vec<Range<usize>>) {
        for is_loose in [false, true] {
            if !self.index.has(is_loose) {
                continue;
            }
            let folded = view.folded(is_loose);
            let mut at = 0;
            while at < folded.bytes.len() {
                let longest = self.match_at(&folded, at, is_loose, is_plain);
                if let Some(range) = longest {
                    at = range.end.max(at + 1);
                    found.push(folded.original(range));
                } else {
                    at += 1;
                }
            }
        }
    }

    /// The longest part of a secret that matches around this place of a text.
    fn match_at(&self, text: &View, at: usize, is_loose: bool, is_plain: bool) -> Option<Range<usize>> {
        let of_runs = self.index.alike(&text.bytes, at).filter_map(|gram| {
            let secret = self.secrets.get(gram.secret as usize).filter(|secret| secret.is_loose == is_loose)?;
            let part = common(&text.bytes, at, &secret.bytes, gram.at as usize)?;
            secret.is_given_away(text, &part, is_plain).then_some(part)
        });
        let tiny = self.index.tiny().iter().filter(|_| !is_loose);
        let of_tiny = tiny.filter_map(|number| {
            let secret = self.secrets.get(*number)?;
            let part = at..at + secret.bytes.len();
            let is_there = text.bytes.get(part.clone())? == &**secret.bytes;
            (is_there && secret.is_given_away(text, &part, is_plain)).then_some(part)
        });
        of_runs.chain(of_tiny).max_by_key(ExactSizeIterator::len)
    }
}

impl Secret {
    /// Whether this part is enough. In plain text a short one may be part of a word by chance; in decoded text its
    /// neighbours are noise.
    fn is_given_away(&self, text: &View, part: &Range<usize>, is_plain: bool) -> bool {
        part.len() >= PART || (part.len() == self.bytes.len() && !(is_plain && text.is_within_a_word(part)))
    }
}

/// The range of the text around `at` that agrees with the secret around `of`; none if the runs there differ.
fn common(text: &[u8], at: usize, secret: &[u8], of: usize) -> Option<Range<usize>> {
    if text.get(at..at + GRAM)? != secret.get(of..of + GRAM)? {
        return None;
    }
    let before = text[..at].iter().rev().zip(secret[..of].iter().rev()).take_while(|(one, other)| one == other).count();
    let after = text[at..].iter().zip(&secret[of..]).take_while(|(one, other)| one == other).count();
    Some(at - before..at + after)
}

fn digest(text: &[u8]) -> u64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, text);
    digest.as_ref().iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests;
