//! Where in the secrets a run of bytes occurs.

use super::{PART, Secret};

/// The length of the runs that are looked up, one at each multiple of it: any [`PART`] of a secret contains one.
pub(super) const GRAM: usize = 8;

/// How many places of secrets with the same run are compared.
const ALIKE: usize = 16;

/// In how many bits it is noted which runs there are: most runs of a text are in no secret, and that is seen at once.
const BITS: usize = 1 << 16;

pub(super) struct Index {
    grams: Vec<Gram>,
    is_sorted: bool,
    /// One bit for each first half of a hash; empty until there is a run.
    bits: Vec<u64>,
    /// The secrets that are shorter than a run.
    tiny: Vec<usize>,
    /// Whether there are secrets that are compared with all characters, and with letters and digits alone.
    has: [bool; 2],
    /// No fewer bytes give any of the secrets away.
    least: usize,
}

/// One run of a secret, by its hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Gram {
    hash: u32,
    pub(super) secret: u32,
    pub(super) at: u32,
}

impl Index {
    pub(super) const EMPTY: Self = Index {
        grams: Vec::new(),
        is_sorted: true,
        bits: Vec::new(),
        tiny: Vec::new(),
        has: [false; 2],
        least: usize::MAX,
    };

    pub(super) fn add(&mut self, number: usize, secret: &Secret) {
        self.has[usize::from(secret.is_loose)] = true;
        self.least = self.least.min(PART).min(secret.bytes.len());
        if secret.bytes.len() < GRAM {
            self.tiny.push(number);
            return;
        }
        self.bits.resize(BITS / 64, 0);
        let secret_number = u32::try_from(number).unwrap_or(u32::MAX);
        let (runs, _) = secret.bytes.as_chunks();
        for (run, at) in runs.iter().zip((0..).step_by(GRAM)) {
            let hash = hash(*run);
            let (word, bit) = place(hash);
            self.bits[word] |= bit;
            self.grams.push(Gram { hash, secret: secret_number, at });
        }
        self.is_sorted = false;
    }

    pub(super) fn clear(&mut self) {
        self.grams.clear();
        self.bits.fill(0);
        self.tiny.clear();
        self.has = [false; 2];
        self.least = usize::MAX;
    }

    /// To be called before anything is looked up.
    pub(super) fn sort(&mut self) {
        if !self.is_sorted {
            // A sorted run followed by a short one, so this is little more than a merge.
            self.grams.sort();
            self.is_sorted = true;
        }
    }

    pub(super) fn has(&self, is_loose: bool) -> bool {
        self.has[usize::from(is_loose)]
    }

    /// How many bytes a text must have at least to give a secret away; there is no such length where there is no secret.
    pub(super) fn least(&self) -> usize {
        self.least
    }

    pub(super) fn tiny(&self) -> &[usize] {
        &self.tiny
    }

    /// Where secrets may have the run that begins at this place of a text.
    pub(super) fn alike(&self, text: &[u8], at: usize) -> impl Iterator<Item = &Gram> {
        let hash = text.get(at..).and_then(<[u8]>::first_chunk).map(|run| hash(*run)).filter(|hash| {
            let (word, bit) = place(*hash);
            self.bits.get(word).is_some_and(|word| word & bit != 0)
        });
        let of_hash = hash.map(|hash| &self.grams[self.grams.partition_point(|gram| gram.hash < hash)..]);
        of_hash.unwrap_or_default().iter().take_while(move |gram| Some(gram.hash) == hash).take(ALIKE)
    }
}

impl Default for Index {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// The word, and the bit in it, that stands for a hash.
fn place(hash: u32) -> (usize, u64) {
    let half = (hash >> 16) as usize % BITS;
    (half / 64, 1 << (half % 64))
}

fn hash(run: [u8; GRAM]) -> u32 {
    // Knuth's multiplicative hashing. Collisions do no harm: hits are compared byte by byte.
    (u64::from_be_bytes(run).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}
