//! Service files as people, editors and other programs leave them.

use dbx_rotator::service_file::Section;
use fastrand::Rng;

/// The names of sections, ours and others'.
pub(crate) const NAMES: [&str; 5] = ["orders", "a", "ab", "prod db", "Größe"];

pub(crate) fn section(dice: &mut Rng, name: &str) -> Section {
    Section {
        name: name.to_owned(),
        host: pick(dice, &["db.example", "10.0.0.1", "x=y#z"]),
        port: dice.u16(1..),
        database: pick(dice, &["*", "app", "with blank"]),
        user: pick(dice, &["alice@example.com", "o'hara \"x\"", "Ünal"]),
        sslmode: pick(dice, &["require", "verify-full"]),
        sslrootcert: dice.bool().then(|| pick(dice, &["/etc/ca.pem", "/a b/ca.pem"])),
        passfile: dice.bool().then(|| pick(dice, &["/srv/pgpass", "/a b/Größe=#x"])),
    }
}

fn pick(dice: &mut Rng, from: &[&str]) -> String {
    from[dice.usize(..from.len())].to_owned()
}

/// A line that is not ours, identified by its number.
fn foreign(dice: &mut Rng, number: usize) -> Vec<u8> {
    let name = pick(dice, &NAMES);
    let text = match dice.u8(..22) {
        0..=3 => format!("[{name}]#{number}#"),
        4 => format!("  [{name}] #{number}#"),
        5 => format!("[{name} #{number}#"),
        6 => format!("\u{feff}[{name}]#{number}#"),
        7 => format!("host=foreign#{number}#"),
        8 => format!("port={}#{number}#", dice.u8(..)),
        9 => format!("  user=foreign#{number}#  "),
        10 => format!("# a comment #{number}#"),
        11 => format!("# dbx-rotator is mentioned #{number}#"),
        12 => format!("\tconnect_timeout=#{number}#"),
        13 => format!("sslmode = require#{number}#"),
        14 => format!("nonsense#{number}#"),
        15 => format!("unknown_key=#{number}#"),
        16 => format!("service=#{number}#"),
        17 => format!("options=#{number}#{}", "x".repeat(dice.usize(960..1040))),
        _ => format!("application_name=#{number}#"),
    };
    let mut line = text.into_bytes();
    match dice.u8(..12) {
        0 => line.extend_from_slice(b"\xe9\xff"),
        1 => line.extend_from_slice(b"\0rest"),
        2 => line.extend_from_slice(b"\r"),
        _ => {}
    }
    line
}

/// A file with only foreign lines.
pub(crate) fn file(dice: &mut Rng) -> Vec<u8> {
    let end: &[u8] = if dice.u8(..4) == 0 { b"\r\n" } else { b"\n" };
    let mut file = if dice.u8(..10) == 0 { b"\xef\xbb\xbf".to_vec() } else { Vec::new() };
    for number in 0..dice.usize(..14) {
        file.extend_from_slice(&foreign(dice, number));
        file.extend_from_slice(if dice.u8(..12) == 0 { b"\n\n" } else { end });
    }
    if dice.u8(..4) == 0 {
        while file.last().is_some_and(u8::is_ascii_whitespace) {
            file.pop();
        }
    }
    file
}

/// The same with foreign lines inserted anywhere, also between ours.
pub(crate) fn tampered(dice: &mut Rng, file: &[u8]) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = file.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
    for number in 100..103 {
        let mut line = match dice.u8(..3) {
            0 => foreign(dice, number),
            1 => format!("# mine #{number}#").into_bytes(),
            _ => format!("keepalives_idle=#{number}#").into_bytes(),
        };
        line.push(b'\n');
        // Not after a last line without a line end.
        lines.insert(dice.usize(..=lines.len().saturating_sub(1)), line);
    }
    lines.concat()
}

/// The numbered lines, without their line ends; managed keys below our mark are ours.
pub(crate) fn foreign_lines(file: &[u8]) -> Vec<&[u8]> {
    let numbered = |line: &&[u8]| line.contains(&b'#') && line.iter().any(u8::is_ascii_digit);
    let managed = |line: &&[u8]| {
        let text = line.trim_ascii_start();
        [&b"host="[..], b"port=", b"user=", b"# dbx-rotator keeps"].iter().any(|key| text.starts_with(key))
    };
    let lines = file.split(|&byte| byte == b'\n');
    lines.map(<[u8]>::trim_ascii_end).filter(|line| numbered(line) && !managed(line)).collect()
}
