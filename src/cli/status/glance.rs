//! The status for people, at one glance: a line for each connection with what is left of its credential, then what is to be said
//! about some or all of them, with the next step.

use std::collections::HashMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Row, View, lease_line, proxy_line, service_lines};
use crate::cli::print;
use crate::cli::screen::{Line, Screen, Style, folded, padded, shortened, width};
use crate::foreign;
use crate::os::zone;
use crate::rotation::{ConnectionStatus, SecretState, State as Stands};
use crate::service::State;

/// The length of the bar.
const BAR: u8 = 10;

/// A name is never made shorter than this.
const SHORTEST_NAME: usize = 8;

/// As many names are listed where the same is true for several connections.
const MOST_NAMES: usize = 3;

const HEADINGS: [&str; 6] = ["CONNECTION", "STATE", "LIFE", "EXPIRES", "NEXT ROTATION", "ENTRY"];
const NAME: usize = 0;
const STATE: usize = 1;
const LIFE: usize = 2;
const NEXT: usize = 4;
const ENTRY: usize = 5;

/// What there is to see.
pub(super) struct Glance {
    heading: Line,
    /// With the rank of each: what needs somebody comes first.
    connections: Vec<(Rank, Line)>,
    /// Lines about all of them.
    notes: String,
}

/// Why one line is more important than another: what is dead, then what dies first.
type Rank = (bool, Option<i64>);

/// One connection, not yet laid out.
struct Cells {
    texts: [String; 6],
    style: Style,
    rank: Rank,
    needs_person: bool,
}

impl Glance {
    pub(super) fn of(rows: &[Row<'_>], view: &View, service: Option<&State>, screen: &Screen) -> Self {
        let zone = zone::local();
        let is_said = |status: &ConnectionStatus| !print::is_quiet() || status.left_to_clients().is_none();
        let mut remarks = Remarks::default();
        let mut cells = Vec::new();
        for (row, (index, (_, status))) in rows.iter().zip(view.all()).filter(|(_, (_, (_, status)))| is_said(status)) {
            cells.push(of_one(row, status, screen, &zone));
            remark(&mut remarks, row, status, view.snapshot.what_files_lack(index));
        }
        let columns = screen.size.map(|size| size.columns);
        let (widths, lacks_entry) = layout(&cells, columns);
        let entry = cells.first().filter(|_| lacks_entry && cells.len() == 1).map(|one| one.texts[ENTRY].clone());
        let lay = |one: &Cells| (one.rank, laid_out(one, &widths));
        let notes = if print::is_quiet() {
            format!("{}{}", remarks.text(), view.outlook.text())
        } else {
            let entry = entry.map(|entry| print::line(&format!("entry: {entry}"))).unwrap_or_default();
            let service = service.map(|state| service_lines(state, Timestamp::now())).unwrap_or_default();
            let files = files(rows);
            let proxy = view.proxy.as_ref().filter(|(_, runs)| *runs).map(|(figures, _)| proxy_line(figures));
            let waits = || view.outlook.waiting_proxy().map(|found| print::line(&format!("proxy: {}", found.message)));
            let proxy = proxy.or_else(waits).unwrap_or_default();
            let proxy = proxy + &view.lease().as_ref().map(lease_line).unwrap_or_default();
            format!("{}{entry}{files}{service}{proxy}{}{}", summary(rows), remarks.text(), view.outlook.text())
        };
        Glance { heading: heading(&widths), connections: cells.iter().map(lay).collect(), notes }
    }

    /// All of it, one below the other.
    pub(super) fn text(self, screen: &Screen) -> String {
        let mut lines = Vec::with_capacity(self.connections.len() + 1);
        if !(print::is_quiet() && self.connections.is_empty()) {
            lines.push(self.heading);
        }
        lines.extend(self.connections.into_iter().map(|(_, line)| line));
        lines.extend(self.notes.lines().map(Line::plain));
        screen.text(&lines)
    }

    /// As much of it as these many lines hold: where there is no room for all connections, those that need somebody most.
    pub(super) fn fitting(mut self, columns: usize, rows: usize) -> Vec<Line> {
        let mut notes: Vec<Line> = self.notes.lines().flat_map(|line| folded(line, columns)).collect();
        // The notes give way to the connections down to half of the screen.
        let most_notes = (rows / 2).max(rows.saturating_sub(self.connections.len() + 1));
        if notes.len() > most_notes {
            notes.truncate(most_notes.saturating_sub(1));
            notes.push(Line::plain("..."));
        }
        let room = rows.saturating_sub(notes.len() + 1);
        let all = self.connections.len();
        if all > room {
            self.connections.sort_by_key(|(rank, _)| *rank);
            self.connections.truncate(room.saturating_sub(1));
            let more = all - self.connections.len();
            self.connections.push(((true, None), Line::plain(format!("... and {more} more"))));
        }
        let connections = self.connections.into_iter().map(|(_, line)| line);
        let lines = std::iter::once(self.heading).chain(connections).chain(notes);
        lines.take(rows).map(|line| line.cut(columns)).collect()
    }
}

fn of_one(row: &Row<'_>, status: &ConnectionStatus, screen: &Screen, zone: &TimeZone) -> Cells {
    let left = status.left_to_clients();
    let (state, style) = match row.state {
        Stands::Live => ("live", Style::Well),
        Stands::Due => ("due", if left.is_some() { Style::Soon } else { Style::Dead }),
        Stands::Expired => ("expired", Style::Dead),
        Stands::Missing => ("missing", Style::Dead),
    };
    let share = left.zip(status.life()).map_or(0.0, |(left, whole)| left.as_secs_f64() / whole.as_secs_f64().max(1.0));
    let when = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| print::moment(at, status.now, zone));
    let needs_person = row.renewed && row.last_error.as_ref().is_some_and(|error| error.needs_person());
    let next = match &row.last_error {
        _ if !row.renewed => "-".to_owned(),
        _ if needs_person => "needs you".to_owned(),
        None if status.is_due() => "now".to_owned(),
        _ => when(row.next_rotation_at),
    };
    let (host, user) = (row.host.unwrap_or("?"), row.user.unwrap_or("?"));
    let entry = format!("{host}:{}:{}:{user}", row.port, row.database);
    let clean = |text: &str| foreign::line(text).into_owned();
    let texts = [clean(row.name), state.to_owned(), screen.bar(share, BAR), when(row.expires_at), next, clean(&entry)];
    let rank = (left.is_some(), left.map(|left| left.as_secs()));
    Cells { texts, style, rank, needs_person }
}

/// The columns' widths, 0 for one that is left out; and whether the entries are.
fn layout(cells: &[Cells], columns: Option<usize>) -> ([usize; 6], bool) {
    let widest = |column: usize| cells.iter().map(|one| width(&one.texts[column])).max().unwrap_or(0);
    let mut widths: [usize; 6] = std::array::from_fn(|column| widest(column).max(HEADINGS[column].len()));
    let Some(columns) = columns else { return (widths, false) };
    let total =
        |widths: &[usize; 6]| widths.iter().filter(|width| **width > 0).map(|width| width + 2).sum::<usize>() - 2;
    for dispensable in [ENTRY, LIFE] {
        let too_much = total(&widths).saturating_sub(columns);
        // A name may be shortened before something else is left out, but entries are no good reason for that.
        let can_give = if dispensable == ENTRY { 0 } else { widths[NAME].saturating_sub(SHORTEST_NAME) };
        if too_much > can_give {
            widths[dispensable] = 0;
        }
    }
    let too_much = total(&widths).saturating_sub(columns);
    widths[NAME] = widths[NAME].saturating_sub(too_much).max(SHORTEST_NAME.min(widths[NAME]));
    (widths, widths[ENTRY] == 0)
}

fn heading(widths: &[usize; 6]) -> Line {
    let cells = HEADINGS.iter().zip(widths).filter(|(_, width)| **width > 0);
    let text = cells.map(|(heading, width)| padded(&shortened(heading, *width), width + 2)).collect::<String>();
    Line(vec![(Style::Heading, text)])
}

fn laid_out(one: &Cells, widths: &[usize; 6]) -> Line {
    let mut parts = Vec::with_capacity(6);
    for (column, (text, width)) in one.texts.iter().zip(widths).enumerate().filter(|(_, (_, width))| **width > 0) {
        let style = match column {
            STATE | LIFE => one.style,
            NEXT if one.needs_person => Style::Dead,
            _ => Style::Plain,
        };
        // The blanks between are in no colour.
        let text = shortened(text, *width);
        let gap = padded("", width + 2 - crate::cli::screen::width(&text));
        parts.push((style, text));
        parts.push((Style::Plain, gap));
    }
    Line(parts)
}

/// `3 connections: 2 live, 1 expired`, where there are several.
fn summary(rows: &[Row<'_>]) -> String {
    if rows.len() < 2 {
        return String::new();
    }
    let count = |state| rows.iter().filter(|row| row.state == state).count();
    let all =
        [(Stands::Live, "live"), (Stands::Due, "due"), (Stands::Expired, "expired"), (Stands::Missing, "missing")];
    let parts = all.iter().map(|(state, word)| (count(*state), word)).filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts.map(|(count, word)| format!("{count} {word}")).collect();
    format!("{} connections: {}\n", rows.len(), parts.join(", "))
}

fn files(rows: &[Row<'_>]) -> String {
    let files = rows.first().map_or(&[][..], |row| &row.password_files);
    files.iter().map(|file| print::line(&format!("password file: {}", file.path))).collect()
}

/// What is to be said about one connection.
fn remark(remarks: &mut Remarks, row: &Row<'_>, status: &ConnectionStatus, lacks: Vec<String>) {
    if let Some(reason) = &status.reason {
        let is_open = status.left_to_clients().is_none() && row.last_error.is_none();
        let step = if is_open { " - run `dbx-rotator rotate`" } else { "" };
        remarks.add(row.name, format!("{reason}{step}"));
    }
    for lack in lacks {
        remarks.add(row.name, lack);
    }
    if let Some(remark) = &row.database_remark {
        remarks.add(row.name, remark.clone());
    }
    if let Some(secret) = &row.kubernetes_secret {
        let said = match (&secret.error, secret.state, secret.seen_at) {
            (Some(error), ..) => format!("its Secret {} is not as it should be: {}", secret.name, error.sentence()),
            (None, SecretState::Behind, None) => format!("its Secret {} has not been written yet", secret.name),
            (None, SecretState::Behind, Some(_)) => format!("its Secret {} holds the credential before", secret.name),
            (None, SecretState::Current, _) => format!("its Secret {} holds it", secret.name),
        };
        remarks.add(row.name, said);
    }
    if let Some(error) = &row.hook_error {
        remarks.add(row.name, format!("on_rotate failed: {}", error.sentence()));
    }
    if let Some(error) = &row.last_error {
        let what = if error.needs_person() { "needs you" } else { "last try failed" };
        remarks.add(row.name, format!("{what}: {}", error.sentence()));
    }
}

/// What is true for several connections is said once, and of whom.
#[derive(Default)]
struct Remarks {
    all: Vec<(String, Vec<String>)>,
    places: HashMap<String, usize>,
}

impl Remarks {
    fn add(&mut self, name: &str, text: String) {
        let place = *self.places.entry(text).or_insert_with_key(|text| {
            self.all.push((text.clone(), Vec::new()));
            self.all.len() - 1
        });
        self.all[place].1.push(name.to_owned());
    }

    fn text(&self) -> String {
        let line = |(text, names): &(String, Vec<String>)| {
            let listed = names[..names.len().min(MOST_NAMES)].join(", ");
            let more = names.len().saturating_sub(MOST_NAMES);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            print::line(&format!("{listed}{more}: {text}"))
        };
        self.all.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(name: &str, dead: bool, left: i64) -> Cells {
        let entry =
            "ep-quiet-sun-1234.database.eu-west-1.cloud.databricks.com:5432:databricks_postgres:ada@example.com";
        let bar = if dead { "----------" } else { "######----" };
        let texts = [name, "live", bar, "14:52, in 59 min", "14:32, in 39 min", entry].map(str::to_owned);
        let style = if dead { Style::Dead } else { Style::Well };
        Cells { texts, style, rank: (!dead, (!dead).then_some(left)), needs_person: false }
    }

    fn glance(all: &[Cells], columns: Option<usize>, notes: &str) -> Glance {
        let (widths, _) = layout(all, columns);
        let connections = all.iter().map(|one| (one.rank, laid_out(one, &widths))).collect();
        Glance { heading: heading(&widths), connections, notes: notes.to_owned() }
    }

    #[test]
    fn a_line_fits_into_its_screen_however_long_a_name_is() {
        let long = "日本".repeat(60);
        let all = [cells("orders", false, 60), cells(&long, true, 0)];
        let whole = glance(&all, None, "").text(&Screen::NONE);
        assert!(whole.contains(&long) && whole.contains(":ada@example.com"), "nothing is left out of a file");
        for (columns, bar) in [(200, true), (80, true), (60, false)] {
            let text = glance(&all, Some(columns), "").text(&Screen::NONE);
            assert!(text.lines().all(|line| width(line) <= columns), "{columns}:\n{text}");
            assert_eq!(text.contains("######----"), bar, "{columns}:\n{text}");
            assert!(text.contains("orders") && text.contains("14:52, in 59 min"), "{text}");
        }
        let short = [cells("orders", false, 60)];
        assert!(glance(&short, Some(200), "").text(&Screen::NONE).contains(":ada@example.com"));
        assert!(!glance(&short, Some(120), "").text(&Screen::NONE).contains("ada@"));
    }

    #[test]
    fn a_small_screen_shows_what_is_dead_and_what_dies_first() {
        let mut all: Vec<Cells> = (0..1_000).map(|i| cells(&format!("c{i}"), false, 5_000 - i)).collect();
        all.push(cells("dead", true, 0));
        let shown = |rows: usize, notes: &str| {
            let lines = glance(&all, Some(80), notes).fitting(80, rows);
            assert!(lines.len() <= rows, "{rows}");
            lines.iter().map(|line| Screen::NONE.line(line)).collect::<Vec<_>>()
        };
        let lines = shown(10, "1001 connections\na\n");
        assert!(
            lines[1].starts_with("dead ") && lines[2].starts_with("c999 ") && lines[3].starts_with("c998 "),
            "{lines:?}"
        );
        assert_eq!(lines[7..], ["... and 995 more", "1001 connections", "a"]);
        let crowded = shown(10, &"a\n".repeat(100));
        assert_eq!((crowded[5].as_str(), crowded[9].as_str()), ("a", "..."), "{crowded:?}");
        for rows in 1..6 {
            shown(rows, "a\nb\n");
        }
    }

    #[test]
    fn what_is_true_for_many_is_said_once() {
        let mut remarks = Remarks::default();
        for name in ["a", "b", "c", "d", "e"] {
            remarks.add(name, "gone".to_owned());
        }
        remarks.add("b", "asleep".to_owned());
        assert_eq!(remarks.text(), "a, b, c and 2 more: gone\nb: asleep\n");
    }
}
