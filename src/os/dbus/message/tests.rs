use super::*;

/// An answer to call 7 with this body.
fn answer(body: &Body) -> Vec<u8> {
    let mut bytes = Bytes::default();
    bytes.push(&[b'l', 2, 0, 1]);
    bytes.length(body.bytes.0.len());
    bytes.number(3);
    bytes.array(8, |bytes| {
        bytes.push(&[5]);
        bytes.signature("u");
        bytes.number(7);
        // What we do not know.
        bytes.align(8);
        bytes.push(&[99]);
        bytes.signature("a(sv)");
        bytes.array(8, |bytes| {
            bytes.align(8);
            bytes.text("x");
            bytes.signature("ad");
            bytes.array(8, |bytes| bytes.push(&[0; 16]));
        });
    });
    bytes.align(8);
    bytes.push(&body.bytes.0);
    bytes.0.to_vec()
}

fn read(bytes: &[u8]) -> Option<Message> {
    let length = length(bytes.get(..FIXED)?)?;
    Message::read(bytes.get(..length)?.to_vec().into())
}

#[test]
fn what_is_written_is_read_and_what_is_unknown_passed_over() {
    let body = Body::default().variant_text("plain").secret("/s/1", b"refresh", "text/plain").paths(&["/a", "/b"]);
    let message = read(&answer(&body)).unwrap();
    assert_eq!((message.kind, message.answers), (Kind::Answer, Some(7)));
    let mut fields = message.fields();
    fields.pass_over_variant().unwrap();
    assert_eq!(fields.secret().unwrap(), b"refresh");
    assert_eq!(fields.text().unwrap(), "text/plain");
    assert_eq!(fields.paths().unwrap(), ["/a", "/b"]);
    assert_eq!(fields.text(), None, "there is no more");
}

#[test]
fn no_message_that_is_cut_off_or_changed_does_any_harm() {
    let whole = answer(&Body::default().secret("/s/1", b"refresh", "text/plain").paths(&["/a"]).flag(true));
    for end in 0..whole.len() {
        assert!(read(&whole[..end]).is_none(), "{end}");
    }
    for at in 0..whole.len() {
        for byte in [0, 1, 4, b'a', b'(', b'v', 0x7f, 0xff] {
            let mut changed = whole.clone();
            changed[at] = byte;
            if let Some(message) = read(&changed) {
                let mut fields = message.fields();
                let _ = (fields.secret(), fields.text(), fields.paths(), fields.flag());
                let _ = message.fields().pass_over("a{sv}(oayays)");
            }
        }
    }
}

#[test]
fn a_signature_that_is_nested_without_end_is_refused() {
    let deep = "(".repeat(200);
    assert_eq!(rest_after(deep.as_bytes(), DEEPEST), None);
    let body = Body::default().text("x");
    let message = read(&answer(&body)).unwrap();
    assert_eq!(message.fields().pass_over(&deep), None);
}
