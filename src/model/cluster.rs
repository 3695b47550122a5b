//! What is set for Kubernetes: the Secrets that credentials are written to, and how this process knows its cluster.

use std::fmt;
use std::path::PathBuf;

/// Where the kubelet has the service account of a pod (Kubernetes, "Accessing the Kubernetes API from a Pod").
pub(crate) const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The name of the Lease, where none is set.
pub(crate) const LEASE: &str = "dbx-rotator";

/// The longest name of an object, and the longest label, which is what a namespace is (RFC 1123).
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// The settings of the process as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// The Lease by which of several replicas one alone writes; none where there is but one.
    pub(crate) lease: Option<ObjectName>,
    /// The directory with `token`, `ca.crt` and `namespace`.
    pub(crate) account: PathBuf,
}

impl Default for Cluster {
    fn default() -> Self {
        let lease = ObjectName { namespace: None, name: LEASE.to_owned() };
        Cluster { lease: Some(lease), account: PathBuf::from(SERVICE_ACCOUNT) }
    }
}

/// The Secret of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KubernetesSecret {
    pub(crate) name: ObjectName,
    /// Whether it also gets the key `uri`.
    pub(crate) has_uri: bool,
}

/// An object by its name, and by its namespace where that is not the pod's own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectName {
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
}

impl ObjectName {
    /// Reads `NAME` or `NAMESPACE/NAME`. What passes stands in an address as it is.
    ///
    /// # Errors
    /// Why Kubernetes has no object of that name.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        if let Some(namespace) = namespace.filter(|namespace| !is_label(namespace)) {
            return Err(format!(
                "`{namespace}` is not the name of a namespace: it has up to {LONGEST_LABEL} lowercase letters, digits and `-`, and begins \
                 and ends with a letter or digit"
            ));
        }
        if name.len() > LONGEST_NAME || !name.split('.').all(|part| is_label_of(part, LONGEST_NAME)) {
            return Err(format!(
                "`{name}` is not the name of an object: it has up to {LONGEST_NAME} lowercase letters, digits, `-` and `.`, and begins and \
                 ends with a letter or digit"
            ));
        }
        Ok(ObjectName { namespace: namespace.map(str::to_owned), name: name.to_owned() })
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Whether it can be a namespace.
pub(crate) fn is_label(text: &str) -> bool {
    is_label_of(text, LONGEST_LABEL)
}

fn is_label_of(text: &str, longest: usize) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_whole = !text.is_empty() && text.len() <= longest && text.bytes().all(is_inner);
    is_whole && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_kubernetes_takes() {
        let parsed = |text: &str| ObjectName::parse(text).map(|name| (name.namespace, name.name));
        assert_eq!(parsed("orders-db"), Ok((None, "orders-db".to_owned())));
        assert_eq!(parsed("shop/orders.db"), Ok((Some("shop".to_owned()), "orders.db".to_owned())));
        assert_eq!(parsed("1/2"), Ok((Some("1".to_owned()), "2".to_owned())));
        let (long, label) = ("a".repeat(LONGEST_NAME), "a".repeat(LONGEST_LABEL));
        assert!(parsed(&format!("{label}/{long}")).is_ok());
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a/b/c",
            "Orders",
            "a_b",
            "-a",
            "a-",
            "a/-b",
            "a..b",
            ".a",
            "a.",
            "a b",
            "a/../b",
            "a%2fb",
            "shop.eu/a",
            "ä",
            "a?b",
            "a\n",
            &format!("{long}a"),
            &format!("{label}a/b"),
        ] {
            assert!(ObjectName::parse(bad).is_err(), "{bad:?}");
        }
    }
}
