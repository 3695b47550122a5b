//! Issues tokens and recognises them when they come back: to the API as a bearer, to PostgreSQL as a password.

use std::time::Duration;

use serde_json::json;

use super::endpoints::origin;
use super::http::Request;
use super::lakebase::answers::CREDENTIAL_SCOPE;
use super::tokens::{Claims, random_hex};
use super::{Fault, Shared};

/// How many issued tokens are remembered for leak checks; a benchmark issues more than anyone will look for.
const TOKENS_REMEMBERED: usize = 4096;

/// The identity of a token that we issued.
#[derive(Clone, Debug)]
pub struct Holder {
    pub subject: String,
    pub expires_at: i64,
    /// It opens databases, but not the API.
    pub credential: bool,
}

/// The answer to a request for a token.
pub struct Granted {
    pub token: Option<String>,
    /// By the server's clock; `None` if the answer leaves it out.
    pub told_expiry: Option<i64>,
}

impl Shared {
    /// A token with these claims from now for `life`, unless a fault changes it.
    pub fn grant(&self, request: &Request, claims: Claims, life: Duration, twist: Option<&Fault>) -> Granted {
        let now = self.now();
        let life = i64::try_from(life.as_secs()).expect("a life within reason");
        let claims = match twist {
            Some(Fault::OtherIdentity(other)) => Claims { scope: claims.scope, ..Claims::of(other) },
            _ => claims,
        };
        let claims = match twist {
            Some(Fault::ExpiredToken) => claims.from(now - 60 - life).until(now - 60),
            _ => claims.from(now).until(now + life),
        };
        let audience = match twist {
            Some(Fault::WrongAudience) => "9999999999999999",
            _ => &self.workspace_id,
        };
        let token = match twist {
            Some(Fault::OpaqueToken | Fault::NoExpiryAnywhere) => self.opaque(&claims),
            _ => self.jwt_of(&claims, &origin(self, request), audience),
        };
        Granted {
            token: (!matches!(twist, Some(Fault::MissingToken))).then_some(token),
            told_expiry: (!matches!(twist, Some(Fault::NoExpiry | Fault::NoExpiryAnywhere))).then_some(now + life),
        }
    }

    pub fn jwt(&self, claims: &Claims) -> String {
        self.jwt_of(claims, &format!("{}://{}", self.scheme, self.address), &self.workspace_id)
    }

    fn jwt_of(&self, claims: &Claims, origin: &str, audience: &str) -> String {
        let claims = json!({
            "client_id": claims.client_id,
            "scope": claims.scope,
            "iss": format!("{origin}/oidc"),
            "aud": audience,
            "sub": claims.subject,
            "iat": claims.issued_at,
            "exp": claims.expires_at,
            "jti": random_hex(16),
        });
        let token = self.signer.sign(claims, self.token_length);
        self.remember(&token);
        token
    }

    /// A token of another issuer that opens the API as this identity.
    pub fn foreign(&self, identity: &str, life: Duration) -> String {
        let now = self.now();
        let life = i64::try_from(life.as_secs()).expect("a life within reason");
        self.opaque(&Claims::of(identity).from(now).until(now + life))
    }

    fn opaque(&self, claims: &Claims) -> String {
        let token = format!("stand-in-opaque-{}", random_hex(32));
        let holder = Holder {
            subject: claims.subject.clone(),
            expires_at: claims.expires_at,
            credential: claims.scope == CREDENTIAL_SCOPE,
        };
        self.state().opaque.insert(token.clone(), holder);
        self.remember(&token);
        token
    }

    fn remember(&self, token: &str) {
        let mut state = self.state();
        if state.issued.len() == TOKENS_REMEMBERED {
            state.issued.pop_front();
        }
        state.issued.push_back(token.to_owned());
    }

    /// The identity of a token, live or expired, or why it has none.
    pub fn holder(&self, token: &str) -> Result<Holder, &'static str> {
        if let Some(known) = self.state().opaque.get(token) {
            return Ok(known.clone());
        }
        let claims = self.signer.open(token)?;
        if claims["aud"] != json!(self.workspace_id) {
            return Err("another workspace's");
        }
        match (claims["sub"].as_str(), claims["exp"].as_i64()) {
            (Some(subject), Some(expires_at)) => Ok(Holder {
                subject: subject.to_owned(),
                expires_at,
                credential: claims["scope"] == json!(CREDENTIAL_SCOPE),
            }),
            _ => Err("no subject or no expiry"),
        }
    }
}
