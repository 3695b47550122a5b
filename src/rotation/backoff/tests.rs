use super::*;

const IDENTITY: RetryScope = RetryScope::Identity(0);
const CONNECTION: RetryScope = RetryScope::Connection(0);
/// What a timer's run of eight minutes may wait.
const RUN: Duration = Duration::from_secs(7 * 60);
const BASE: u64 = 1_000_000;

/// This many seconds after the start of a test.
fn after(seconds: f64) -> Moment {
    let since_boot = Duration::from_secs(BASE) + Duration::from_secs_f64(seconds);
    Moment { wall: Timestamp::UNIX_EPOCH + since_boot, since_boot }
}

fn transient() -> Failure {
    Failure::transient(Code::Unavailable, "x")
}

fn refused() -> Failure {
    Failure::permanent(Code::SignInRefused, "no")
}

/// How far ahead a moment is, in seconds.
fn ahead(at: Timestamp, now: Moment) -> f64 {
    at.duration_since(now.wall).as_secs_f64()
}

fn left(seconds: f64) -> Option<SignedDuration> {
    Some(SignedDuration::from_secs_f64(seconds))
}

#[test]
fn waits_grow_from_a_quarter_of_a_second_to_a_minute() {
    let mut retries = Backoff::default();
    let mut waits = Vec::new();
    let mut now = after(0.0);
    for _ in 0..10 {
        let next = retries.failed(IDENTITY, Step::SignIn, &transient(), None, now, 1.0).0;
        waits.push(ahead(next, now));
        now = after(ahead(next, after(0.0)));
    }
    assert_eq!(waits, [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
}

#[test]
fn with_a_live_credential_there_is_time_for_several_tries_and_after_its_death_waits_start_short() {
    let longest = |seconds| {
        let left = Some(Duration::from_secs(seconds)).filter(|left| !left.is_zero());
        backoff(Some(LONGEST), left, LONGEST).as_millis()
    };
    assert_eq!((longest(1_200), longest(80), longest(1), longest(0)), (60_000, 10_000, 500, 60_000));
    let while_alive = (0..50).fold(None, |before, _| Some(backoff(before, Some(Duration::from_secs(2)), LONGEST)));
    assert_eq!(backoff(while_alive, None, LONGEST).as_millis(), 1_000);
}

#[test]
fn what_a_server_asks_for_is_kept_within_reason_and_spread_upwards_only() {
    let wait = |asked: u64, jitter: f64| {
        let failure = transient().retry_after(Some(Duration::from_secs(asked)));
        let next = Backoff::default().failed(IDENTITY, Step::SignIn, &failure, None, after(0.0), jitter).0;
        ahead(next, after(0.0))
    };
    for (asked, least, most) in
        [(7, 7.0, 7.7), (100, 100.0, 110.0), (600, 600.0, 660.0), (1_800, 1_800.0, 1_860.0), (86_400, 3_600.0, 3_660.0)]
    {
        assert_eq!((wait(asked, 0.0), wait(asked, 1.0)), (least, most), "{asked} s were asked for");
        for jitter in [0.1, 0.5, 0.9] {
            assert!((least..=most).contains(&wait(asked, jitter)), "{asked} s were asked for");
        }
    }
    assert_eq!((wait(0, 0.0), wait(0, 1.0)), (0.125, 0.25));
}

#[test]
fn a_refusal_is_probed_slowly() {
    let mut retries = Backoff::default();
    let next = retries.failed(IDENTITY, Step::SignIn, &refused(), None, after(0.0), 0.0).0;
    assert_eq!(ahead(next, after(0.0)), 150.0);
    assert!(retries.next_try(&[IDENTITY, RetryScope::PasswordFile], true, after(0.0)).is_some());
    assert_eq!(retries.next_try(&[RetryScope::Identity(1)], true, after(0.0)), None);
    retries.succeeded(IDENTITY, None, after(1.0));
    assert!(retries.next_try(&[IDENTITY], true, after(2.0)).is_none() && !retries.is_in_trouble(IDENTITY));
}

#[test]
fn a_failure_is_said_once_whatever_its_words_are() {
    let said = |id: u32| Failure::transient(Code::Unavailable, format!("try again (request {id})"));
    let refused = |id: u32| Failure::permanent(Code::SignInRefused, format!("refused (request {id})"));
    let try_again = |id: u32| Failure::transient(Code::TryAgain, format!("try again (request {id})"));
    let mut retries = Backoff::default();
    let mut is_news = |step, failure: Failure| retries.failed(IDENTITY, step, &failure, None, after(0.0), 0.5).1;
    for (step, make, news) in [
        (Step::SignIn, &said as &dyn Fn(u32) -> Failure, true),
        (Step::SignIn, &said, false),
        (Step::Mint, &said, true),
        (Step::SignIn, &said, false),
        (Step::SignIn, &refused, true),
        (Step::SignIn, &try_again, true),
        (Step::SignIn, &refused, false),
        (Step::Mint, &said, false),
    ] {
        let failure = make(fastrand::u32(..));
        assert_eq!(is_news(step, failure.clone()), news, "{step:?} {failure}");
    }
    retries.succeeded(IDENTITY, None, after(1.0));
    assert!(retries.failed(IDENTITY, Step::SignIn, &said(9), None, after(2.0), 0.5).1, "a new trouble is news");
    assert_eq!(retries.failed_step(IDENTITY), Some(Step::SignIn));
}

#[test]
fn a_wait_for_a_newer_token_does_not_hold_for_a_password_that_is_gone() {
    let mut retries = Backoff::default();
    let later = after(900.0).wall;
    assert!(retries.repeated(CONNECTION, Some(later), SignedDuration::from_mins(20), after(0.0)));
    assert!(!retries.repeated(CONNECTION, Some(later), SignedDuration::from_mins(20), after(1.0)));
    assert_eq!(retries.next_try(&[CONNECTION], true, after(1.0)), Some(later));
    assert_eq!(retries.next_try(&[CONNECTION], false, after(1.0)), None);
    assert_eq!(retries.renewed_at(0, after(1.0)), Some(later));
}

#[test]
fn successes_that_are_undone_at_once_do_not_make_a_storm() {
    let mut retries = Backoff::default();
    let (mut now, mut pauses) = (0.0, Vec::new());
    for _ in 0..8 {
        retries.succeeded(CONNECTION, None, after(now));
        let pause = ahead(retries.next_try(&[CONNECTION], true, after(now)).unwrap(), after(now));
        pauses.push(pause);
        now += pause;
    }
    assert_eq!(pauses, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
    retries.succeeded(CONNECTION, None, after(now + 600.0));
    let next = retries.next_try(&[CONNECTION], true, after(now + 600.0));
    assert_eq!(next, Some(after(now + 601.0).wall));
}

#[test]
fn the_pause_after_a_success_never_outlives_a_credential_of_a_few_seconds() {
    let mut retries = Backoff::default();
    let life = SignedDuration::from_secs(5);
    let mut now = 0.0;
    for _ in 0..50 {
        retries.succeeded(CONNECTION, Some(life), after(now));
        let next = retries.next_try(&[CONNECTION], true, after(now)).unwrap();
        let pause = next.duration_since(after(now).wall).as_secs_f64();
        assert!(pause <= 1.25, "{pause}");
        now += pause;
    }
}

/// What has changed, what has failed, and whether it may then be tried at once.
#[test]
fn a_change_lets_only_that_be_tried_that_it_can_repair() {
    let file = RetryScope::PasswordFile;
    for (change, scope, repairs) in [
        (Change::Settings, IDENTITY, true),
        (Change::Settings, CONNECTION, true),
        (Change::Settings, file, true),
        (Change::TokenCache, IDENTITY, true),
        (Change::TokenCache, CONNECTION, true),
        (Change::TokenCache, file, false),
        (Change::PasswordFile, IDENTITY, false),
        (Change::PasswordFile, CONNECTION, false),
        (Change::PasswordFile, file, true),
    ] {
        for failure in [refused(), transient()] {
            let mut retries = Backoff::default();
            retries.failed(scope, Step::SignIn, &failure, None, after(0.0), 1.0);
            retries.retry_now(|scope| change.can_repair(scope));
            let waits = retries.next_try(&[scope], true, after(0.0)).is_some();
            assert_eq!(!waits, repairs, "{change:?}, {scope:?}, {failure}");
            assert!(!retries.failed(scope, Step::SignIn, &failure, None, after(0.0), 1.0).1, "it is no news");
        }
    }
}

#[test]
fn a_change_does_not_shorten_what_a_server_asked_for() {
    let mut retries = Backoff::default();
    let busy = transient().retry_after(Some(Duration::from_secs(600)));
    retries.failed(IDENTITY, Step::SignIn, &busy, None, after(0.0), 0.5);
    for second in 0..20 {
        retries.retry_now(|_| true);
        let next = retries.next_try(&[IDENTITY], true, after(f64::from(second))).unwrap();
        assert!(ahead(next, after(0.0)) >= 600.0);
    }
    assert_eq!(retries.next_try(&[IDENTITY], true, after(661.0)), None);
}

#[test]
fn a_wall_clock_that_is_set_neither_ends_nor_prolongs_a_wait() {
    for step in [-1_000_000, -5, 5, 1_000_000] {
        let set = |seconds: f64| {
            let now = after(seconds);
            Moment { wall: now.wall + SignedDuration::from_secs(step), ..now }
        };
        let mut retries = Backoff::default();
        retries.failed(IDENTITY, Step::SignIn, &refused(), None, after(0.0), 1.0);
        let next = retries.next_try(&[IDENTITY], true, set(299.0)).unwrap();
        assert_eq!(ahead(next, set(299.0)), 1.0);
        assert_eq!(retries.next_try(&[IDENTITY], true, set(300.0)), None);
    }
}

#[test]
fn the_return_of_the_network_is_noticed_within_an_eighth_of_the_time_without_it() {
    let mut retries = Backoff::default();
    let mut lose = |now: f64, jitter| {
        let now = after(now);
        retries.failed(IDENTITY, Step::SignIn, &transient(), None, now, jitter);
        let next = retries.without_network(IDENTITY, now, jitter).unwrap();
        assert_eq!(retries.next_try(&[IDENTITY], true, now), Some(next));
        ahead(next, now)
    };
    let (mut now, mut tries) = (0.0, 0);
    while now < 3_600.0 {
        let wait = lose(now, 1.0);
        assert!((1.0..=60.0).contains(&wait) && wait <= (now / 8.0).max(1.0) + 0.001, "{wait} s after {now} s");
        (now, tries) = (now + wait, tries + 1);
    }
    assert!(tries < 120, "{tries} tries in an hour");
    assert_eq!(lose(now, 0.0), 30.0);
    // Nobody was there for a while: the machine has slept.
    assert_eq!(lose(now + 600.0, 1.0), 1.0);
    // The network is there, and what is asked is not: the waits grow from the beginning.
    let next = retries.failed(IDENTITY, Step::SignIn, &transient(), None, after(now + 601.0), 1.0).0;
    assert_eq!(ahead(next, after(now + 601.0)), 0.5);
}

#[test]
fn without_network_servers_keep_to_their_waits_and_what_was_asked_for_is_kept() {
    let mut retries = Backoff::for_servers();
    retries.failed(IDENTITY, Step::SignIn, &transient(), None, after(0.0), 1.0);
    assert_eq!(retries.without_network(IDENTITY, after(0.0), 1.0), None);
    let mut retries = Backoff::default();
    let busy = transient().retry_after(Some(Duration::from_secs(600)));
    retries.failed(IDENTITY, Step::SignIn, &busy, None, after(0.0), 0.0);
    assert_eq!(retries.without_network(IDENTITY, after(0.0), 1.0), Some(after(600.0).wall));
}

#[test]
fn a_server_tries_more_slowly_what_lasts_and_a_person_is_never_kept_for_more_than_a_minute() {
    let wait = |mut retries: Backoff, failing_for: u64, left| {
        retries.resume(IDENTITY, Duration::from_secs(failing_for), None, RUN, after(0.0), 0.0);
        assert!(retries.is_in_trouble(IDENTITY) && retries.next_try(&[IDENTITY], true, after(0.0)).is_none());
        (0..12)
            .map(|_| ahead(retries.failed(IDENTITY, Step::SignIn, &transient(), left, after(0.0), 1.0).0, after(0.0)))
            .last()
    };
    for (failing_for, of_person, of_server) in
        [(0, 60.0, 60.0), (240, 60.0, 60.0), (1_200, 60.0, 300.0), (2_400, 60.0, 600.0), (86_400, 60.0, 600.0)]
    {
        assert_eq!(wait(Backoff::default(), failing_for, None), Some(of_person), "after {failing_for} s");
        assert_eq!(wait(Backoff::for_servers(), failing_for, None), Some(of_server), "after {failing_for} s");
    }
    assert_eq!(wait(Backoff::for_servers(), 2_400, left(80.0)), Some(10.0), "a live credential is not given up");
    let mut retries = Backoff::for_servers();
    retries.resume(IDENTITY, Duration::from_secs(100), None, RUN, after(0.0), 1.0);
    assert_eq!(retries.failing_for(IDENTITY, after(20.0)), Some(Duration::from_secs(120)));
    assert_eq!(retries.failing_for(CONNECTION, after(20.0)), None);
}

#[test]
fn the_runs_of_a_servers_timer_spread_in_a_trouble_that_lasts() {
    let wait = |mut retries: Backoff, failing_for, left, longest, jitter| {
        retries.resume(IDENTITY, Duration::from_secs(failing_for), left, longest, after(0.0), jitter);
        retries.next_try(&[IDENTITY], true, after(0.0)).map(|next| ahead(next, after(0.0)))
    };
    for (failing_for, left, longest, of_server) in [
        (0, None, RUN, None),
        (240, None, RUN, None),
        (1_200, None, RUN, Some(300.0)),
        (86_400, None, RUN, Some(420.0)),
        // There must be time for a try, in the run and before what lives dies.
        (86_400, None, Duration::from_secs(2), Some(2.0)),
        (86_400, None, Duration::ZERO, None),
        (1_080, left(120.0), RUN, Some(15.0)),
    ] {
        let of = |retries, jitter| wait(retries, failing_for, left, longest, jitter);
        assert_eq!(of(Backoff::for_servers(), 1.0), of_server, "after {failing_for} s");
        assert_eq!(of(Backoff::for_servers(), 0.0), None);
        assert_eq!(of(Backoff::default(), 1.0), None);
    }
}

// ---- properties ----

/// 300 histories of one credential with failures, where each try is made as soon as it is allowed.
#[test]
fn it_is_always_tried_again_before_the_credential_dies() {
    let mut random = fastrand::Rng::with_seed(2);
    for history in 0..300 {
        let mut retries = if random.bool() { Backoff::default() } else { Backoff::for_servers() };
        let (mut now, life) = (0.0, random.f64() * 3_600.0 + 20.0);
        loop {
            let left_now = life - now;
            // With less than this left, the next try may come too late: half a second for a transient failure, 10 s for a
            // permanent one.
            let failure = if random.bool() { transient() } else { refused() };
            let least = if failure.is_transient() { 0.5 } else { 10.0 };
            if left_now <= least {
                break;
            }
            let scope = [IDENTITY, CONNECTION, RetryScope::PasswordFile][random.usize(..3)];
            let next = retries.failed(scope, Step::SignIn, &failure, left(left_now), after(now), random.f64()).0;
            let next = ahead(next, after(0.0));
            assert!(next <= life, "history {history}: {left_now} s left, next try in {} s", next - now);
            assert!(next > now, "history {history}: tried again at once");
            now = next;
        }
    }
}

/// The wall clock, the apparent time left, changed files and events are arbitrary; only the time since boot is true.
#[test]
fn no_scope_is_tried_more_often_in_an_hour_than_is_stated_whatever_happens() {
    let mut random = fastrand::Rng::with_seed(3);
    for history in 0..30 {
        let mut retries = if random.bool() { Backoff::default() } else { Backoff::for_servers() };
        let mut tries: Vec<f64> = Vec::new();
        let (hurried, mut now) = (history % 3 == 0, 0.0);
        while now < 3.0 * 3_600.0 {
            let mut moment = after(now);
            moment.wall = Timestamp::from_second(random.i64(0..100_000_000_000)).unwrap();
            if hurried || random.u8(..) == 0 {
                retries.retry_now(|_| true);
            }
            if let Some(next) = retries.next_try(&[IDENTITY], random.bool(), moment) {
                // The next look: some wake-up, at the latest when a try is allowed.
                now += ahead(next, moment).max(0.000_001).min(random.f64() * 10.0);
                continue;
            }
            tries.push(now);
            let seeming = random.bool().then(|| SignedDuration::from_secs(random.i64(-5..5)));
            match random.u8(..8) {
                0 => retries.succeeded(IDENTITY, None, moment),
                1 => {
                    retries.succeeded(IDENTITY, None, moment);
                    retries.clear(IDENTITY);
                }
                2 => drop(retries.repeated(IDENTITY, None, SignedDuration::from_secs(1), moment)),
                3 => drop(retries.repeated(IDENTITY, Some(Timestamp::MIN), SignedDuration::ZERO, moment)),
                _ => {
                    let failure = if random.bool() { transient() } else { refused() };
                    retries.failed(IDENTITY, Step::SignIn, &failure, seeming, moment, 0.0);
                }
            }
        }
        let in_the_hour_from =
            |first: usize| tries[first..].iter().take_while(|at| **at < tries[first] + 3_600.0).count();
        let most = (0..tries.len()).map(in_the_hour_from).max().unwrap_or(0);
        assert!(most <= MOST_PER_HOUR as usize, "history {history}: {most} tries in an hour");
        assert!(
            !hurried || most > MOST_PER_HOUR as usize / 2,
            "history {history}: the bound was not reached for: {most}"
        );
    }
}

#[test]
fn an_outage_costs_few_requests_while_the_clocks_are_right() {
    for (mut retries, most) in [(Backoff::default(), 220), (Backoff::for_servers(), 130)] {
        let (mut now, mut tries) = (0.0, 0);
        // The credential is due, and expires after 20 minutes.
        while now < 3_600.0 {
            let left = left(1_200.0 - now).filter(|left| left.is_positive());
            now = ahead(retries.failed(IDENTITY, Step::SignIn, &transient(), left, after(now), 0.0).0, after(0.0));
            tries += 1;
        }
        assert!(tries <= most, "{tries} requests in the first hour");
    }
}
