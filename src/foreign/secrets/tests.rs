use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

use super::*;

const SECRETS: [&str; 4] = [
    "stand-in-d053c0ffee5eed1f2e3d4c5b6a7988",
    "p+ss/w=rd & \"quotes\" <tags> %41 and more",
    "~!@#$^&*(){}[]|:;<>?,./`~!@#$^&*()",
    "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJlLW9mLWEtdG9rZW4",
];

fn knowing(secrets: &[&str]) -> Known {
    let mut known = Known::default();
    for secret in secrets {
        known.add(secret, None, Timestamp::UNIX_EPOCH);
    }
    known
}

fn percent(text: &str, lower: bool) -> String {
    text.bytes().map(|byte| if lower { format!("%{byte:02x}") } else { format!("%{byte:02X}") }).collect()
}

/// Each form in which a secret may be repeated.
fn forms(secret: &str) -> Vec<String> {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let json = serde_json::to_string(secret).unwrap();
    let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let mut forms = vec![
        secret.to_owned(),
        format!("'{secret}'"),
        json.clone(),
        serde_json::to_string(&json).unwrap(),
        secret.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect(),
        secret.chars().map(|c| format!("&#{};", u32::from(c))).collect(),
        secret.bytes().map(|byte| format!("\\{byte:03o}")).collect(),
        STANDARD.encode(&hex),
        STANDARD.encode(STANDARD.encode(secret)),
        URL_SAFE_NO_PAD.encode(STANDARD.encode(URL_SAFE.encode(format!("id:{secret}")))),
        STANDARD.encode(format!("{{\"authorization\":\"Basic {}\"}}", STANDARD.encode(format!("id:{secret}")))),
        STANDARD.encode(secret).bytes().map(|byte| format!("{byte:02x}")).collect(),
        percent(&STANDARD.encode(percent(&STANDARD.encode(secret), true)), true),
        secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;"),
        form.clone(),
        form.to_ascii_lowercase(),
        percent(secret, true),
        percent(secret, false),
        percent(&percent(secret, false), false),
        format!("{}{}", &secret[..5], percent(&secret[5..], true)),
        hex.to_ascii_uppercase(),
        format!("0x{hex}"),
        hex.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).into_owned()).collect::<Vec<_>>().join(":"),
        secret.to_ascii_uppercase(),
        format!("{}\r\n {}", &secret[..9], &secret[9..]),
        secret.chars().map(|c| format!("{c} ")).collect(),
        secret.chars().map(|c| format!("{c}\u{200b}")).collect(),
        secret.chars().map(|c| format!("{c}\0")).collect(),
    ];
    for id in ["", "id:", "6b1f0c52:", "ab:", "client-id+1:"] {
        for pair in [format!("{id}{secret}"), format!("{id}{form}"), format!("{id}{secret}\n")] {
            for encoded in [STANDARD.encode(&pair), URL_SAFE_NO_PAD.encode(&pair)] {
                forms.push(percent(&encoded, false));
                forms.push(format!("Basic {encoded}"));
            }
            forms.push(STANDARD_NO_PAD.encode(&pair));
            forms.push(
                URL_SAFE
                    .encode(&pair)
                    .as_bytes()
                    .chunks(19)
                    .flat_map(|part| [part, b"\n"].concat())
                    .map(char::from)
                    .collect(),
            );
        }
    }
    forms
}

/// Nothing of the secret is left in any form that can be decoded; only what frames the form may stay.
#[test]
fn every_form_of_a_secret_is_removed() {
    for secret in SECRETS {
        let mut known = knowing(&SECRETS);
        for form in forms(secret) {
            let said = format!("said \u{201c}{form}\u{201d} to ä");
            let shown = known.removed(&said);
            assert!(shown.contains(MASK), "{form} of {secret}\n{shown}");
            assert!(shown.starts_with("said") && shown.ends_with("to ä"), "{shown}");
            // The id of an encoded pair may stay.
            let left = shown.chars().count() - MASK.len() - "said “” to ä".chars().count();
            assert!(left <= 60 && left * 3 < form.chars().count() * 2, "{left} of {form}\n{shown}");
            assert_eq!(known.removed(&shown), shown, "nothing is left to be found");
        }
    }
}

#[test]
fn a_part_of_sixteen_characters_is_removed_wherever_it_is_cut() {
    let secret = SECRETS[0];
    let mut known = knowing(&[secret]);
    let letters: String = secret.replace('-', "");
    for start in 0..=letters.len() - PART {
        let said = format!("x={}!", &letters[start..start + PART]);
        assert_eq!(known.removed(&said), format!("x={MASK}!"));
    }
    let shorter = format!("x={}!", &letters[..PART - 1]);
    assert_eq!(known.removed(&shorter), shorter);
}

#[test]
fn what_is_no_secret_stays_as_it_is() {
    let mut known = knowing(&SECRETS);
    known.add("secret", None, Timestamp::UNIX_EPOCH);
    known.add("hunter2hunter", None, Timestamp::UNIX_EPOCH);
    known.add("abc", None, Timestamp::UNIX_EPOCH);
    for text in [
        "",
        "Token rotation completed successfully",
        "client_secrets and secretary, abc",
        "cannot reach https://dbc-0123.cloud.databricks.com: check network, VPN and proxy",
        "hunter2hunters",
        "%%% &&& \\\\\\ ++++ ====",
    ] {
        assert_eq!(known.removed(text), text);
    }
    assert_eq!(known.removed("a secret: hunter2hunter."), format!("a {MASK}: {MASK}."));
    assert_eq!(known.removed("aWQ6c2VjcmV0"), format!("aWQ6{MASK}"), "of id:secret");
}

#[test]
fn a_secret_that_repeats_itself_is_found_in_little_time() {
    let secret = "A".repeat(16 * 1024);
    let mut known = knowing(&[&secret]);
    assert_eq!(known.removed(&format!("<{}>", "A".repeat(60_000))).len(), 8 + 2);
}

#[test]
fn tokens_go_after_their_end_and_the_oldest_when_there_are_too_many() {
    let at = |hour: i64| Timestamp::from_second(hour * 3_600).unwrap();
    let mut known = Known::default();
    known.add("a-token-of-the-first-hour", Some(at(1)), at(0));
    known.add("a-secret-that-stays-always", None, at(0));
    known.add("another-token-later-on", Some(at(4)), at(3));
    assert_eq!(known.secrets.len(), 2);
    assert_eq!(known.removed("a-secret-that-stays-always another-token-later-on"), format!("{MASK} {MASK}"));
    known.add("another-token-later-on", Some(at(9)), at(3));
    assert_eq!(known.secrets[1].until, Some(at(9)));
    for number in 0..2 * MOST {
        known.add(&format!("{number:08}-is-the-token"), Some(at(9)), at(3));
    }
    assert!(known.secrets.len() <= MOST);
    assert_eq!(known.removed(&format!("{:08}-is-the-token", 2 * MOST - 1)), MASK);
}

#[test]
fn of_tokens_that_are_dead_the_newest_are_remembered_and_what_lives_is_not_forgotten_for_them() {
    let at = |second: i64| Timestamp::from_second(second).unwrap();
    let mut known = Known::default();
    known.add("a-token-that-goes-on-living", Some(at(9_000)), at(0));
    for number in 0..3 * MOST_DEAD {
        known.add(&format!("{number:08}-is-the-token"), Some(at(1)), at(2));
    }
    assert!(known.secrets.len() <= MOST_DEAD + 2, "{}", known.secrets.len());
    let newest = format!("{:08}-is-the-token", 2 * MOST_DEAD + MOST_DEAD / 2);
    assert_eq!(known.removed(&format!("{newest} a-token-that-goes-on-living")), format!("{MASK} {MASK}"));
}
