//! The same for Secrets of Kubernetes: the pod's token is nowhere, and passwords are only where they belong, whatever the API server
//! makes of what it is sent.

use super::{CONFIG, ENV, Marked, PASSWORDS, SOON, Seen, Stage, TOKEN, TOLD, signature, talkative};
use crate::support::cluster::Trouble;
use crate::support::{Cluster, Session, Workspace, skip};

/// What an API server can answer with a text of its own: refused, not allowed, not there, in the way of others, no valid object, too
/// many, broken.
const STATUSES: [u16; 8] = [400, 401, 403, 404, 409, 422, 429, 500];

#[test]
fn what_a_cluster_is_sent_is_nowhere_else() {
    let cluster = match Cluster::start() {
        Ok(cluster) => cluster,
        Err(reason) => return skip("what_a_cluster_is_sent_is_nowhere_else", &reason),
    };
    let stage = Stage::with(Workspace::builder().start());
    stage.home.write("bin/told", TOLD, 0o755);
    let account = format!("kubernetes_service_account = '{}'\n", cluster.account().display());
    let config = account + &stage.config("require") + "kubernetes_secret = 'orders'\non_rotate = ['told']\n";
    stage.home.write(CONFIG, config, 0o600);
    let session = |words: &[&str]| -> Session<'_> {
        let session = talkative(&stage, words);
        cluster.environment().into_iter().fold(session, |session, (name, value)| session.env(name, value))
    };
    let mut seen = Seen::default();
    let look = |seen: &mut Seen, what: &str| {
        for words in [&["rotate", "--retry-for", "0s", "--json"][..], &["status", "--json"], &["check", "--json"]] {
            seen.outcome(&format!("{} {what}", words.join(" ")), &session(words).run());
        }
    };
    look(&mut seen, "where nothing is wrong");
    assert!(
        cluster.value("orders", "password").is_some_and(|held| held == stage.home.read(TOKEN).trim()),
        "the Secret is not written"
    );
    for status in STATUSES {
        let asked = cluster.requests().len();
        cluster.fail_every(1, vec![Trouble::Repeats(status)]);
        look(&mut seen, &format!("where the API answers {status}"));
        assert!(cluster.requests().len() > asked + 1, "nothing was asked that could be answered {status}");
        cluster.heal();
    }
    // Answers that are no refusal, and of which no object can be read.
    cluster.fail_every(1, vec![Trouble::Repeats(200)]);
    look(&mut seen, "where the API answers nonsense");
    let asked = cluster.requests().len();
    let running = session(&["run"]).spawn();
    assert!(cluster.wait_until(SOON, |cluster| cluster.requests().len() > asked), "run does not ask the API");
    seen.outcome("run", &running.terminate());
    cluster.heal();
    look(&mut seen, "at last");
    seen.files(&stage);

    let of_pod = cluster.tokens().into_iter().map(|secret| Marked { secret, belongs_to: |_| false });
    let published = |place: &str| [PASSWORDS, TOKEN, ENV].contains(&place);
    let tokens = stage.workspace.secrets().into_iter().filter(|secret| secret != stage.workspace.client_secret());
    let tokens = tokens.map(|token| Marked { secret: signature(&token), belongs_to: published });
    let leaks = seen.leaks(&of_pod.chain(tokens).collect::<Vec<_>>());
    assert!(leaks.is_empty(), "{} leaks:\n  {}", leaks.len(), leaks.join("\n  "));
}
