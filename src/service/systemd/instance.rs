//! The instances of templates: a user's name as systemd-escape(1) writes it, and back (systemd.unit(5), "String Escaping for
//! Inclusion in Unit Names").

/// The longest name of a unit, in bytes (systemd's UNIT_NAME_MAX, less the end of the string).
const LONGEST_UNIT: usize = 255;

/// A user's name as the instance of a unit.
pub(super) fn escape(name: &str) -> String {
    let one = |(at, byte): (usize, u8)| match byte {
        b'/' => "-".to_owned(),
        b'.' if at > 0 => ".".to_owned(),
        b':' | b'_' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    name.bytes().enumerate().map(one).collect()
}

/// The user's name that stands in the name of a unit; none where it has none, or what stands there was not escaped.
pub(super) fn user_of(unit: &str) -> Option<String> {
    let (_, rest) = unit.split_once('@')?;
    let (instance, _) = rest.rsplit_once('.')?;
    unescape(instance).filter(|name| !name.is_empty())
}

fn unescape(instance: &str) -> Option<String> {
    let mut name = Vec::with_capacity(instance.len());
    let mut rest = instance.as_bytes();
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        match byte {
            b'-' => name.push(b'/'),
            b'\\' => {
                let digits = rest.strip_prefix(b"x")?.split_at_checked(2)?;
                name.push(u8::from_str_radix(std::str::from_utf8(digits.0).ok()?, 16).ok()?);
                rest = digits.1;
            }
            byte => name.push(*byte),
        }
    }
    String::from_utf8(name).ok()
}

/// Whether a unit can have this name.
pub(super) fn is_short_enough(unit: &str) -> bool {
    unit.len() <= LONGEST_UNIT
}

/// What logind calls the file that notes that this user lingers (logind-dbus.c, which escapes as C does).
pub(super) fn linger_file(name: &str) -> String {
    let one = |byte: u8| match byte {
        b'\\' | b'"' | b'\'' => format!("\\{}", char::from(byte)),
        b' '..=b'~' => char::from(byte).to_string(),
        _ => format!("\\{byte:03o}"),
    };
    name.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names, and what `systemd-escape` of systemd 252 makes of them.
    const TABLE: [(&str, &str); 18] = [
        ("ada", "ada"),
        ("ada-b", r"ada\x2db"),
        ("ada_b.c", "ada_b.c"),
        ("ada@corp.example.com", r"ada\x40corp.example.com"),
        (r"CORP\ada", r"CORP\x5cada"),
        ("Ada Lovelace", r"Ada\x20Lovelace"),
        ("host$", r"host\x24"),
        (".dot", r"\x2edot"),
        ("a.b", "a.b"),
        ("größe", r"gr\xc3\xb6\xc3\x9fe"),
        ("50%", r"50\x25"),
        ("o'brien", r"o\x27brien"),
        ("a:b", "a:b"),
        ("a+b", r"a\x2bb"),
        ("x\"y", r"x\x22y"),
        ("_srv", "_srv"),
        ("0day", "0day"),
        (r"a\x40b", r"a\x5cx40b"),
    ];

    #[test]
    fn a_name_becomes_the_instance_that_systemd_escape_makes_of_it_and_is_found_in_it_again() {
        for (name, instance) in TABLE {
            assert_eq!(escape(name), instance, "{name}");
            assert_eq!(user_of(&format!("dbx-rotator@{instance}.timer")).as_deref(), Some(name));
        }
    }

    #[test]
    fn what_was_not_escaped_is_no_name() {
        for unit in ["dbx-rotator.timer", "dbx-rotator@.timer", r"x@a\x4.timer", r"x@a\y.timer", r"x@\xff.timer", "x@a"]
        {
            assert_eq!(user_of(unit), None, "{unit}");
        }
    }

    #[test]
    fn logind_has_rules_of_its_own() {
        for (name, file) in [("ada@corp", "ada@corp"), (r"CORP\ada", r"CORP\\ada"), ("größe", r"gr\303\266\303\237e")]
        {
            assert_eq!(linger_file(name), file);
        }
    }
}
