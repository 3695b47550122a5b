//! New credentials: as few as the API allows for all databases that need one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use super::Target;
use super::api::Api;
use super::classify::{About, nonsense};
use crate::failure::{Code, Failure};
use crate::http::Answer;
use crate::model::AuthMethod;
use crate::model::token::{Token, is_publishable};
use crate::vendor_errors::is_about_one_database;

/// The result of minting for one database.
pub(super) type Minted = Result<Arc<Token>, Refused>;

/// Why there is no credential, and whether that concerns all databases of the request.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) failure: Failure,
    pub(crate) shared: bool,
}

/// How the identity signed in, and how many seconds a credential shall live.
type How = (AuthMethod, Option<u32>);

/// Mints for all of these databases: one credential for all instances, since a request can name several, and one for all
/// endpoints, since a credential opens every database that its identity may reach. Where one of several is refused, each is
/// asked for alone, so that it does not keep the others from theirs. Those that were `refused` before are asked for alone from the
/// start: then one request is enough for all others.
pub(crate) async fn mint<'t>(
    api: &Api<'_>,
    method: AuthMethod,
    targets: impl IntoIterator<Item = &'t Target>,
    ttl: Option<u32>,
    refused: &BTreeSet<&Target>,
) -> BTreeMap<Target, Minted> {
    let (alone, together): (Vec<&Target>, Vec<&Target>) =
        targets.into_iter().partition(|target| refused.contains(target));
    let (mut instances, mut endpoints): (Vec<&Target>, Vec<&Target>) =
        together.into_iter().partition(|target| matches!(target, Target::Instance(_)));
    let mut minted = BTreeMap::new();
    for family in [&mut instances, &mut endpoints] {
        family.sort_unstable();
        family.dedup();
        if !family.is_empty() {
            minted.extend(mint_family(api, (method, ttl), family).await);
        }
    }
    for target in alone.into_iter().collect::<BTreeSet<_>>() {
        minted.insert(target.clone(), mint_alone(api, (method, ttl), target).await);
    }
    minted
}

async fn mint_family(api: &Api<'_>, how: How, family: &[&Target]) -> Vec<(Target, Minted)> {
    let for_all = |result: &Minted| family.iter().map(|target| ((*target).clone(), result.clone())).collect();
    match mint_one(api, how, family).await {
        Err(failure) if family.len() > 1 && concerns_one(&failure) => {}
        Err(failure) => return for_all(&Err(Refused { failure, shared: true })),
        Ok(token) => return for_all(&Ok(Arc::new(token))),
    }
    let mut minted = Vec::with_capacity(family.len());
    for target in family {
        minted.push(((*target).clone(), mint_alone(api, how, target).await));
    }
    let failures: Vec<&Failure> = minted.iter().filter_map(|(_, one)| Some(&one.as_ref().err()?.failure)).collect();
    // All were refused alike: then the cause is not one database, and one wait is enough for all.
    let alike = failures.len() == minted.len() && failures.windows(2).all(|pair| pair[0].code == pair[1].code);
    let shared = alike && failures.first().is_some_and(|failure| failure.code != Code::Configuration);
    for (_, one) in &mut minted {
        if let Err(refused) = one {
            refused.shared = shared;
        }
    }
    minted
}

/// Whether a failure may be one database's alone, so that the others have theirs if they are asked for without it.
fn concerns_one(failure: &Failure) -> bool {
    !failure.is_transient() || is_about_one_database(&failure.message)
}

async fn mint_alone(api: &Api<'_>, how: How, target: &Target) -> Minted {
    let minted = mint_one(api, how, &[target]).await.map(Arc::new);
    minted.map_err(|failure| Refused { failure, shared: false })
}

/// One credential for databases of one family.
async fn mint_one(api: &Api<'_>, (method, ttl): How, family: &[&Target]) -> Result<Token, Failure> {
    let (secret, told, answer) = match family.first() {
        Some(Target::Endpoint(name)) => api.mint_for_endpoint(name, ttl).await?,
        _ => {
            let names: Vec<&str> = family
                .iter()
                .filter_map(|target| if let Target::Instance(name) = target { Some(name.as_str()) } else { None })
                .collect();
            api.mint_for_instances(&names).await?
        }
    };
    read(api, method, secret, told.as_deref(), &answer)
}

fn read(
    api: &Api<'_>,
    method: AuthMethod,
    secret: Option<SecretString>,
    told: Option<&str>,
    answer: &Answer,
) -> Result<Token, Failure> {
    let about = About { verb: "mint", object: "a database credential".to_owned() };
    let fail = |what: &str| nonsense(api.http.origin(), &about, what);
    let Some(secret) = secret else { return Err(fail("without a token")) };
    if !is_publishable(secret.expose_secret()) {
        return Err(fail("with a token that cannot stand in a password file"));
    }
    let now = answer.time();
    let told = told.and_then(|told| told.parse::<Timestamp>().ok());
    let token =
        Token::new(secret, told, now, method).ok_or_else(|| fail("with a token that does not say when it expires"))?;
    if token.expires_at <= now {
        return Err(
            fail("with a token that has already expired").hint("if it stays so, the workspace's clock is wrong")
        );
    }
    Ok(token)
}
