use super::*;

const MINUTE: i64 = 60;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn refresh(life_seconds: i64, interval_minutes: Option<u64>) -> i64 {
    let interval = interval_minutes.map(|minutes| Duration::from_secs(minutes * 60));
    refresh_at(at(1_000_000), at(1_000_000 + life_seconds), interval, Spread::NONE).as_second() - 1_000_000
}

fn spread(part: f64) -> Spread {
    Spread { refresh: part, boot: part }
}

#[test]
fn an_hour_long_token_is_replaced_at_minute_40() {
    assert_eq!(refresh(60 * MINUTE, None), 40 * MINUTE);
}

#[test]
fn a_short_token_is_replaced_at_half_of_its_life_and_a_long_one_after_50_minutes() {
    assert_eq!(refresh(20, None), 10);
    assert_eq!(refresh(5 * MINUTE, None), 150);
    assert_eq!(refresh(24 * 60 * MINUTE, None), 50 * MINUTE);
}

#[test]
fn the_interval_moves_it_but_never_too_near_the_expiry() {
    assert_eq!(refresh(60 * MINUTE, Some(10)), 10 * MINUTE);
    assert_eq!(refresh(60 * MINUTE, Some(50)), 50 * MINUTE);
    assert_eq!(refresh(60 * MINUTE, Some(59)), 55 * MINUTE);
    assert_eq!(refresh(5 * MINUTE, Some(50)), 4 * MINUTE);
    assert_eq!(refresh(60, Some(50)), 30);
    assert_eq!(refresh(-5, Some(50)), -5);
}

#[test]
fn each_machine_refreshes_earlier_by_its_own_part_of_a_tenth_of_the_lead() {
    for (life, interval, latest, earliest) in [
        (60 * MINUTE, None, 40 * MINUTE, 38 * MINUTE),
        (60 * MINUTE, Some(50), 50 * MINUTE, 49 * MINUTE),
        (60 * MINUTE, Some(10), 10 * MINUTE, 9 * MINUTE),
        (5 * MINUTE, None, 150, 135),
        // Otherwise a tenth of the days that are left would be before it was issued.
        (48 * 60 * MINUTE, None, 50 * MINUTE, 45 * MINUTE),
        (-5, None, -5, -5),
        (0, None, 0, 0),
    ] {
        let interval = interval.map(|minutes: u64| Duration::from_secs(minutes * 60));
        let of = |spread| refresh_at(at(0), at(life), interval, spread);
        assert_eq!(of(Spread::NONE), at(latest), "life {life}");
        assert_eq!(of(spread(1.0)), at(earliest), "life {life}");
        let all: Vec<Timestamp> = (0..1_000_u32).map(|machine| of(Spread::of(&machine.to_be_bytes(), 0))).collect();
        assert!(all.iter().all(|one| (at(earliest)..=at(latest)).contains(one)), "life {life}");
        let early = all.iter().filter(|one| one.as_second() * 2 < earliest + latest).count();
        assert!(life <= 0 || (400..600).contains(&early), "{early} of 1000 machines in the first half, life {life}");
    }
}

#[test]
fn a_spread_is_the_same_at_every_start_and_differs_between_machines_and_users() {
    let one = Spread::of(b"0123", 1000);
    assert_eq!(one, Spread::of(b"0123", 1000));
    assert_ne!(one, Spread::of(b"0124", 1000));
    assert_ne!(one, Spread::of(b"0123", 1001));
}

#[test]
fn a_refresh_point_lies_between_issue_and_expiry_whatever_the_numbers() {
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..20_000 {
        let life = random.i64(1..200_000);
        let interval = random.bool().then(|| Duration::from_secs(random.u64(0..200_000)));
        let of_machine = spread(random.f64());
        let (issued, expires) = (at(1_000_000), at(1_000_000 + life));
        let refresh = refresh_at(issued, expires, interval, of_machine);
        let least = if interval.is_some() { (life / 12).max(60).min(life / 2) } else { (life / 2).min(20 * MINUTE) };
        assert!(refresh >= issued, "life {life}, {interval:?}, {of_machine:?}");
        assert!(expires.duration_since(refresh).as_secs() >= least, "life {life}, {interval:?}, {of_machine:?}");
    }
    let far = refresh_at(Timestamp::MIN, Timestamp::MAX, Some(Duration::MAX), spread(1.0));
    assert!(far <= Timestamp::MAX);
}

#[test]
fn servers_that_start_together_spread_over_a_minute_and_a_half() {
    let delay = |up, part| after_boot(Duration::from_secs(up), spread(part)).as_secs();
    assert_eq!((delay(0, 1.0), delay(30, 1.0), delay(30, 0.25), delay(90, 1.0)), (90, 60, 0, 0));
    assert_eq!(after_boot(Duration::ZERO, Spread::NONE), Duration::ZERO);
}

#[test]
fn an_attempt_leaves_time_for_another_and_so_does_a_round() {
    let seconds = |seconds| Some(SignedDuration::from_secs(seconds));
    let limit = |left, life| attempt_limit(seconds(left), seconds(life)).as_secs();
    assert_eq!((limit(1200, 3600), limit(40, 3600), limit(1, 3600), limit(-5, 3600)), (30, 10, 5, 30));
    assert_eq!((limit(1, 60), limit(1, 36), limit(1, 20), limit(9, 20), limit(1, -1)), (5, 3, 2, 2, 2));
    assert_eq!((attempt_limit(None, seconds(60)), attempt_limit(seconds(1), None).as_secs()), (LONGEST_ATTEMPT, 2));
    let deadline = |seconds| round_deadline(Some(SignedDuration::from_secs(seconds))).as_secs();
    assert_eq!((deadline(1200), deadline(40), deadline(1), deadline(-5)), (60, 20, 5, 60));
    assert_eq!(round_deadline(None), LONGEST_ROUND);
}

#[test]
fn a_cli_that_repeats_its_token_is_asked_again_when_it_will_have_another() {
    assert_eq!(ask_cli_again(at(0), at(1_200)), Some(at(901)));
    assert_eq!(ask_cli_again(at(950), at(1_200)), None);
}

// ---- the packaged units ----

/// The settings of a unit file.
struct Unit {
    path: std::path::PathBuf,
    text: String,
}

impl Unit {
    fn read(path: std::path::PathBuf) -> Self {
        let text = std::fs::read_to_string(&path).unwrap();
        Unit { path, text }
    }

    /// All values of a setting, one a line (a part of systemd.syntax(7)).
    fn all(&self, setting: &str) -> Vec<&str> {
        self.text.lines().filter_map(|line| line.strip_prefix(setting)?.strip_prefix('=')).collect()
    }

    fn one(&self, setting: &str) -> &str {
        let all = self.all(setting);
        assert_eq!(all.len(), 1, "{setting} in {}", self.path.display());
        all[0]
    }

    /// A time span, given in minutes and seconds with their units.
    fn span(&self, setting: &str) -> i64 {
        let value = self.one(setting);
        let (number, unit) = value.split_at(value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len()));
        let seconds = match unit {
            "" | "s" => 1,
            "m" | "min" => 60,
            other => panic!("{setting}={value} in {}: what is {other}?", self.path.display()),
        };
        number.parse::<i64>().unwrap() * seconds
    }
}

/// The packaged timers, and the services that they start.
fn packaged_timers() -> Vec<(Unit, Unit)> {
    let dist = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/systemd");
    let mut timers = Vec::new();
    for kind in ["system", "user"] {
        for entry in std::fs::read_dir(dist.join(kind)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "timer") {
                timers.push((Unit::read(path.clone()), Unit::read(path.with_extension("service"))));
            }
        }
    }
    assert!(timers.len() >= 2, "the timers are not where they were");
    timers
}

#[test]
fn a_packaged_timer_runs_again_before_what_it_left_alone_dies() {
    for (timer, service) in packaged_timers() {
        let name = timer.path.display();
        // Every given number of minutes of every hour.
        let calendar = timer.one("OnCalendar");
        let period = calendar.strip_prefix("*:0/").and_then(|minutes| minutes.parse::<i64>().ok()).unwrap_or_else(|| {
            panic!("{name}: OnCalendar={calendar} does not say every so many minutes: say here how long that is at most")
        }) * MINUTE;
        assert_eq!(3_600 % period, 0, "{name}: the last period of the hour is another");
        // A run in between (at a start or resume) may come after the calendar's time, but before the delay is over.
        let latest = period + timer.span("RandomizedDelaySec") + timer.span("AccuracySec");
        let time_for_a_try = 2 * LONGEST_ATTEMPT.as_secs().cast_signed();
        assert!(
            latest + time_for_a_try <= NEXT_RUN.as_secs(),
            "{name}: the next run comes up to {latest} s after one that left alone what lives for {} s",
            NEXT_RUN.as_secs()
        );
        let words: Vec<&str> = service.one("ExecStart").split_whitespace().collect();
        let at = words.iter().position(|word| *word == "--retry-for").expect("a run goes on trying");
        let tries = words[at + 1].strip_suffix('m').unwrap().parse::<i64>().unwrap() * MINUTE;
        let longest = 2 * LONGEST_ATTEMPT.as_secs().cast_signed();
        assert!(tries + longest <= period, "{name}: a run that goes on trying for {tries} s swallows the next one");
        assert!(tries + longest <= service.span("TimeoutStartSec"), "{name}: systemd kills a run that is still trying");
        assert!(period <= LEAD.as_secs() / 2, "{name}: there is time for one run only before the expiry");
    }
}
