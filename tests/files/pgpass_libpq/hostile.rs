//! Password files that nobody would write: every line may be odd in a way that some client reads differently.

/// SplitMix64: always the same sequence.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    pub(crate) fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

pub(crate) const HOSTS: [&str; 7] = ["h", "db.example.com", "::1", "localhost", "/tmp/x", "a:b", "c\\d"];
pub(crate) const PORTS: [&str; 2] = ["5432", "6432"];
pub(crate) const DATABASES: [&str; 6] = ["app", "db:1", "alice", "replication", "o\\k", "*"];
pub(crate) const USERS: [&str; 5] = ["alice", "bob", "CORP\\al", "a:b", "first.last+x@example.com"];

/// A value as somebody may have written it into a file: correct, or nearly.
pub(crate) fn spelled(dice: &mut Dice, value: &str) -> Vec<u8> {
    let escaped: Vec<u8> = value
        .bytes()
        .flat_map(|byte| match byte {
            b':' | b'\\' => vec![b'\\', byte],
            _ => vec![byte],
        })
        .collect();
    match dice.below(24) {
        0..=12 => escaped,
        13..=16 => b"*".to_vec(),
        17 => value.bytes().flat_map(|byte| [b'\\', byte]).collect(),
        18 => value.into(),
        19 => value.to_ascii_uppercase().into(),
        20 => [b"0", &escaped[..]].concat(),
        21 => [&escaped[..], dice.pick::<[u8]>(&[b"*", b" ", b"\\", b".", b"\r", b"\t"])].concat(),
        22 => dice.pick::<[u8]>(&[b"\\*", b"", b"**", b"*x", b"\\\\", b"\xe9", b"x\0y", b"\\", b" "]).to_vec(),
        _ => [&b"\\"[..], value.as_bytes()].concat(),
    }
}

pub(crate) fn password(dice: &mut Dice) -> Vec<u8> {
    match dice.below(12) {
        0 => vec![],
        1 => b"p:q".to_vec(),
        2 => b"p\\:q\\\\r\\x".to_vec(),
        3 => b"p\\".to_vec(),
        4 => b"p\0q".to_vec(),
        5 => b"caf\xe9".to_vec(),
        6 => b" p\tq ".to_vec(),
        7 => b"p\rq".to_vec(),
        8 => "é\u{2028}".into(),
        9 => vec![b'x'; dice.below(700)],
        _ => format!("pw{}", dice.below(1000)).into(),
    }
}

/// The connection that most lines of a file are about, so that they often match and often compete.
#[derive(Clone, Copy)]
pub(crate) struct Scene(pub(crate) [&'static str; 4]);

impl Scene {
    pub(crate) fn any(dice: &mut Dice) -> Self {
        Self([dice.pick(&HOSTS), dice.pick(&PORTS), dice.pick(&DATABASES), dice.pick(&USERS)])
    }

    /// One of the four values: mostly the scene's own.
    pub(crate) fn value(self, dice: &mut Dice, field: usize) -> &'static str {
        if dice.one_in(6) { Self::any(dice).0[field] } else { self.0[field] }
    }
}

pub(crate) fn line(dice: &mut Dice, scene: Scene) -> Vec<u8> {
    let mut fields: Vec<Vec<u8>> = Vec::new();
    for field in 0..4 {
        let value = scene.value(dice, field);
        fields.push(spelled(dice, value));
    }
    fields.push(password(dice));
    match dice.below(16) {
        0 => fields.truncate(3 + dice.below(2)),
        1 => fields.extend([b"six".to_vec(), b"seven".to_vec()]),
        2 => fields.push(b"six".to_vec()),
        _ => {}
    }
    let mut text = fields.join(&b':');
    match dice.below(40) {
        0 => text.insert(0, b' '),
        1 => text.insert(0, b'#'),
        2 => text.insert(0, 0),
        3 => text.splice(0..0, *b"\xef\xbb\xbf").for_each(drop),
        4 => text = b"# a comment".to_vec(),
        5 => text = b"garbage".to_vec(),
        6 => text.clear(),
        7 => text = b"  # indented \xf6".to_vec(),
        8 => text = b" \t".to_vec(),
        9 => text.push(0),
        _ => {}
    }
    text
}

/// A file of up to a dozen such lines, whose last line may be cut short at a length that libpq loses.
pub(crate) fn hostile_file(dice: &mut Dice, scene: Scene) -> Vec<u8> {
    let mut file = Vec::new();
    if dice.one_in(30) {
        file.extend_from_slice(b"\xef\xbb\xbf");
    }
    for _ in 0..dice.below(12) {
        file.extend(line(dice, scene));
        file.extend(dice.pick::<[u8]>(&[b"\n", b"\n", b"\n", b"\n", b"\n", b"\r\n", b"\r\r\n", b"\n\n"]));
        if dice.one_in(60) {
            let long = [200, 254, 255, 256, 510, 511, 512, 1500, 5000][dice.below(9)];
            file.extend(vec![b'l'; long]);
            file.push(b'\n');
        }
    }
    if dice.one_in(2) {
        let mut last = line(dice, scene);
        if dice.one_in(2) {
            let length = [126, 127, 128, 254, 255, 256, 383, 511, 512, 1023, 1024, 2047][dice.below(12)];
            // Mostly a long password, like a token.
            if last.len() < length && !last.contains(&0) {
                last.resize(length, b'z');
            }
        }
        file.extend(last);
    }
    file
}
