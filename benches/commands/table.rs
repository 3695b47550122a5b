//! The printed table, and the machine that it was measured on.

use std::fmt::Write;
use std::time::Duration;

use super::measure::Samples;

pub(crate) const MIB: u64 = 1024 * 1024;

const HEAD: [&str; 6] = ["what", "wall, median", "p95", "peak memory", "limit", "met"];

/// The limits of a command.
pub(crate) struct Limit {
    pub(crate) wall: Option<Duration>,
    pub(crate) peak: Option<u64>,
}

/// Whether a limit is kept.
#[derive(Clone, Copy)]
pub(crate) enum Verdict {
    Met,
    Missed,
    /// There is no limit, or it could not be measured.
    Open,
}

impl Verdict {
    pub(crate) fn of(met: bool) -> Self {
        if met { Self::Met } else { Self::Missed }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Met => "yes",
            Self::Missed => "**no**",
            Self::Open => "",
        }
    }
}

pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) wall: Option<String>,
    pub(crate) spread: Option<String>,
    pub(crate) memory: Option<String>,
    pub(crate) limit: Option<String>,
    pub(crate) met: Verdict,
}

impl Row {
    /// A row without figures.
    pub(crate) fn remark(what: impl Into<String>) -> Self {
        Self { what: what.into(), wall: None, spread: None, memory: None, limit: None, met: Verdict::Open }
    }

    /// A command that was timed, with its largest peak.
    pub(crate) fn timed(what: String, samples: &Samples, peak: Option<u64>, limit: Option<Limit>) -> Self {
        let median = samples.median();
        let limit = limit.unwrap_or(Limit { wall: None, peak: None });
        let wall_kept = limit.wall.map(|most| median <= most);
        let peak_kept = limit.peak.map(|most| peak.map(|peak| peak <= most));
        let met = match (wall_kept, peak_kept) {
            (Some(false), _) | (_, Some(Some(false))) => Verdict::Missed,
            // Without a limit, or without a measurement of the peak, it is neither met nor missed.
            (None, None) | (_, Some(None)) => Verdict::Open,
            _ => Verdict::Met,
        };
        let limits = [limit.wall.map(milliseconds), limit.peak.map(mib)];
        let limits: Vec<String> = limits.into_iter().flatten().collect();
        Self {
            what,
            wall: Some(milliseconds(median)),
            spread: Some(milliseconds(samples.quantile(0.95))),
            memory: peak.map(mib),
            limit: (!limits.is_empty()).then(|| limits.join(", ")),
            met,
        }
    }
}

/// The rows as a Markdown table, aligned for people who read the source.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let cell = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut cells = vec![HEAD.map(str::to_owned)];
    cells.extend(rows.iter().map(|row| {
        let Row { what, wall, spread, memory, limit, met } = row;
        [what.clone(), cell(wall), cell(spread), cell(memory), cell(limit), met.word().to_owned()]
    }));
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; HEAD.len()] = std::array::from_fn(width);
    let mut text = String::new();
    for (number, row) in cells.iter().enumerate() {
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(text, "| {cell:width$} ");
        }
        text.push_str("|\n");
        if number == 0 {
            text.extend(widths.iter().map(|width| format!("|{}", "-".repeat(width + 2))));
            text.push_str("|\n");
        }
    }
    text
}

pub(crate) fn milliseconds(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1000.0;
    if milliseconds < 100.0 { format!("{milliseconds:.2} ms") } else { format!("{milliseconds:.0} ms") }
}

pub(crate) fn mib(bytes: u64) -> String {
    let tenths = (bytes * 10).div_ceil(MIB);
    if tenths.is_multiple_of(10) {
        format!("{} MiB", tenths / 10)
    } else {
        format!("{}.{} MiB", tenths / 10, tenths % 10)
    }
}

/// What the figures depend on besides the program.
pub(crate) mod machine {
    use std::fs;
    use std::path::Path;

    use super::super::{measure, version_of};

    /// How busy the machine was in the last minute.
    pub(crate) fn load() -> String {
        let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        text.split(' ').next().filter(|load| !load.is_empty()).unwrap_or("unknown").to_owned()
    }

    /// A sentence to print below the table.
    pub(crate) fn description(load_before: &str) -> String {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let curl = measure::installed("curl").and_then(|curl| version_of(&curl)).unwrap_or_default();
        let curl = curl.split(" (").next().filter(|curl| !curl.is_empty()).unwrap_or("no curl").to_owned();
        // Cargo's build scripts and rustup's proxies do the same: the compiler in use is first on the PATH.
        let rustc = version_of(Path::new("rustc")).unwrap_or_else(|| "an unknown rustc".to_owned());
        format!(
            "Measured on {}, {cores} cores, {} {}, scratch directory on {}, {curl}, {}; load {load_before} before and {} after. \
             Wall times are of whole processes, median of at least 20 in turn; peak memory is ru_maxrss by GNU time.",
            processor(),
            std::env::consts::OS,
            kernel.trim(),
            filesystem(&std::env::temp_dir()),
            rustc.split(" (").next().unwrap_or(&rustc),
            load(),
        )
    }

    fn processor() -> String {
        let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = text.lines().find_map(|line| line.strip_prefix("model name")?.trim_start().strip_prefix(':'));
        model.map_or_else(|| std::env::consts::ARCH.to_owned(), |model| model.trim().to_owned())
    }

    /// The type of the file system that a directory is on.
    fn filesystem(directory: &Path) -> String {
        let directory = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mount = |line: &str| {
            let mut words = line.split(' ').skip(1);
            let (place, kind) = (words.next()?, words.next()?);
            directory.starts_with(place).then(|| (place.len(), kind.to_owned()))
        };
        // Of two mounts at one place, the later hides the earlier.
        let longest = mounts.lines().filter_map(mount).max_by_key(|(length, _)| *length);
        longest.map_or_else(|| "an unknown file system".to_owned(), |(_, kind)| kind)
    }
}
