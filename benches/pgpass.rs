//! How long edits and look-ups take, with far more lines than any home directory has.
//!
//! Worth watching: one entry among 100,000 foreign lines, and 1,000 connections at once.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark may fail loudly; its macro writes no docs")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use dbx_rotator::pgpass::{Entry, Key, Reading, publish, verify};

/// As long as an OAuth token.
fn token(number: usize) -> String {
    format!("{number:04}{}", "x".repeat(900))
}

fn entry(number: usize) -> Entry {
    let key =
        Key::new(format!("instance-{number}.database.cloud.databricks.com"), 5432, "*", "robot@example.com").unwrap();
    Entry::new(key, token(number).into(), false).unwrap()
}

/// All with the same host and user: the worst case for code that tells connections apart by these.
fn database_entry(number: usize) -> Entry {
    let key =
        Key::new("instance.database.cloud.databricks.com", 5432, format!("db{number}"), "robot@example.com").unwrap();
    Entry::new(key, token(number).into(), false).unwrap()
}

fn foreign_lines(count: usize) -> Vec<u8> {
    (0..count)
        .flat_map(|n| format!("host-{n}.example.com:5432:app_{n}:alice:not-a-secret-{n}\n").into_bytes())
        .collect()
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pgpass");
    group.sample_size(20);

    let hundred_thousand = foreign_lines(100_000);
    let one = [entry(0)];
    group.bench_function("publish 1 entry into 100,000 foreign lines", |bencher| {
        bencher.iter_batched(|| (), |()| publish(black_box(&hundred_thousand), &one), BatchSize::PerIteration);
    });
    group.bench_function("read 100,000 lines and look for 1 key", |bencher| {
        bencher.iter(|| Reading::new(black_box(&hundred_thousand)).current(one[0].key()));
    });

    let thousand_lines = foreign_lines(1_000);
    for (name, make) in [("hosts", entry as fn(usize) -> Entry), ("databases of one host", database_entry)] {
        let entries: Vec<Entry> = (0..1_000).map(make).collect();
        let published = publish(&thousand_lines, &entries).bytes;
        let rotated = publish(b"", &entries).bytes;
        let wild: Vec<u8> = [&b"*:*:*:*:wild\n"[..], &rotated].concat();
        group.bench_function(format!("publish 1,000 entries ({name}) into 1,000 foreign lines"), |bencher| {
            bencher.iter(|| publish(black_box(&thousand_lines), &entries));
        });
        group.bench_function(format!("publish 1,000 entries ({name}) over their own lines"), |bencher| {
            bencher.iter(|| publish(black_box(&published), &entries));
        });
        group.bench_function(format!("move 1,000 entries ({name}) above a wildcard"), |bencher| {
            bencher.iter(|| publish(black_box(&wild), &entries));
        });
        group.bench_function(format!("verify 1,000 entries ({name}) in 2,000 lines"), |bencher| {
            bencher.iter(|| verify(black_box(&published), &entries));
        });
        group.bench_function(format!("current() for 1,000 keys ({name}) over 1,000 lines"), |bencher| {
            let reading = Reading::new(&rotated);
            bencher.iter(|| entries.iter().map(|entry| reading.current(black_box(entry.key()))).collect::<Vec<_>>());
        });
    }
    group.finish();
}

criterion_group!(pgpass, benches);
criterion_main!(pgpass);
