//! The vendor's own domains: the only ones that a secret may follow a workspace's host metadata to.

use url::Url;

/// databricks-sdk-go v0.175.0, common/environment/environments.go, without the zones of the vendor's own tests. What customers
/// run at the vendor's is elsewhere (databricksapps.com).
const DOMAINS: [&str; 6] = [
    ".cloud.databricks.com",
    // AWS GovCloud.
    ".cloud.databricks.us",
    ".azuredatabricks.net",
    // Azure US Government.
    ".databricks.azure.us",
    // Azure China.
    ".databricks.azure.cn",
    ".gcp.databricks.com",
];

/// Azure's clouds, and where each has its sign-in (databricks-sdk-go, common/environment).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cloud {
    Azure,
    AzureUsGovernment,
    AzureChina,
    /// Another cloud, or one that is not known: there is no sign-in at Azure.
    Other,
}

impl Cloud {
    /// The cloud of a host; where its name does not tell, that of `ARM_ENVIRONMENT`, if it is at Azure.
    pub(crate) fn of(host: &str, is_azure: bool, environment: Option<&str>) -> Option<Self> {
        let host = host.to_ascii_lowercase();
        let is_in = |domain: &str| host.ends_with(domain);
        if is_in(".azuredatabricks.net") {
            return Some(Cloud::Azure);
        }
        if is_in(".databricks.azure.us") {
            return Some(Cloud::AzureUsGovernment);
        }
        if is_in(".databricks.azure.cn") {
            return Some(Cloud::AzureChina);
        }
        if !is_azure || is_of_vendor(&host) {
            return Some(Cloud::Other);
        }
        // Older tools write AzurePublicCloud and the like (databricks-sdk-go, config/azure.go).
        let name = environment.unwrap_or("PUBLIC").to_ascii_uppercase();
        let name = name.strip_prefix("AZURE").unwrap_or(&name);
        match name.strip_suffix("CLOUD").unwrap_or(name) {
            "PUBLIC" => Some(Cloud::Azure),
            "USGOVERNMENT" => Some(Cloud::AzureUsGovernment),
            "CHINA" => Some(Cloud::AzureChina),
            _ => None,
        }
    }

    /// Where it signs in, and what its management is called.
    pub(crate) fn at_azure(self) -> Option<(&'static str, &'static str)> {
        match self {
            Cloud::Azure => Some(("https://login.microsoftonline.com", "https://management.core.windows.net/")),
            Cloud::AzureUsGovernment => {
                Some(("https://login.microsoftonline.us", "https://management.core.usgovcloudapi.net/"))
            }
            Cloud::AzureChina => Some(("https://login.chinacloudapi.cn", "https://management.core.chinacloudapi.cn/")),
            Cloud::Other => None,
        }
    }
}

/// Account consoles (databricks-sdk-go, config.go, `HostType`).
const CONSOLES: [&str; 2] = ["accounts", "accounts-dod"];

/// Where an address of a workspace is to be found, for who has given another one.
pub(crate) const OWN_ADDRESS: &str = "use the workspace's own address: open the workspace in a browser and copy its address \
     up to the first slash, such as https://dbc-1234abcd-5678.cloud.databricks.com, https://adb-1234567890.12.azuredatabricks.net \
     or https://1234567890.1.gcp.databricks.com";

/// Whether the vendor itself signs people in at this address. Customers' programs answer at workspaces' addresses, too, below other
/// paths (driver proxies, served models), so the path counts: one in which a server may see more than is written is none.
pub(super) fn is_sign_in(url: &Url) -> bool {
    let is_vendors = url.domain().is_some_and(is_of_vendor);
    let is_plain = !url.path().contains(['%', ';']);
    url.scheme() == "https" && url.port().is_none() && is_vendors && is_plain && url.path().starts_with("/oidc/")
}

/// Whether a host is a workspace's, as far as its name tells: those of databases have a part of their own.
pub(super) fn is_workspace(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    is_of_vendor(&host) && !has_part_of_databases(&host)
}

/// Whether a host is that of a database at the vendor's, as far as its name tells.
pub(crate) fn is_database(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    is_of_vendor(&host) && has_part_of_databases(&host)
}

fn is_of_vendor(host: &str) -> bool {
    DOMAINS.iter().any(|domain| host.ends_with(domain))
}

fn has_part_of_databases(host: &str) -> bool {
    host.split('.').any(|part| part == "database")
}

/// Whether a host is a page of the vendor's for people, or the sign-in of a cloud, and so has no databases.
pub(super) fn is_for_people(host: &str) -> bool {
    ["databricks.com", "www.databricks.com", "docs.databricks.com", "login.databricks.com", "login.microsoftonline.com"]
        .contains(&host)
}

/// Whether a host is an account console, which has workspaces and is none.
pub(super) fn is_account_console(host: &str) -> bool {
    host.split_once('.').is_some_and(|(name, _)| {
        CONSOLES.contains(&name) && DOMAINS.iter().any(|domain| host.strip_prefix(name) == Some(domain))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vendors_sign_in_is_told_from_what_only_looks_like_it() {
        let long = "https://accounts.cloud.databricks.com/oidc/accounts/0b1c/v1/token";
        for url in [
            long,
            "https://dbc-1.cloud.databricks.com/oidc/v1/token",
            "https://ACCOUNTS.cloud.Databricks.com:443/oidc/v1/token",
            "https://accounts-dod.cloud.databricks.us/oidc/accounts/0b1c/v1/token",
            "https://accounts.azuredatabricks.net/oidc/v1/token",
            "https://accounts.databricks.azure.us/oidc/v1/token",
            "https://accounts.databricks.azure.cn/oidc/v1/token",
            "https://accounts.gcp.databricks.com/oidc/v1/token",
        ] {
            assert!(is_sign_in(&Url::parse(url).unwrap()), "{url}");
        }
        for url in [
            "http://accounts.cloud.databricks.com/oidc/v1/token",
            "https://accounts.cloud.databricks.com:8443/oidc/v1/token",
            "https://cloud.databricks.com/oidc/v1/token",
            "https://evilcloud.databricks.com/oidc/v1/token",
            "https://accounts.cloud.databricks.com./oidc/v1/token",
            "https://accounts.cloud.databricks.com.evil.example/oidc/v1/token",
            "https://accounts.cloud.databricks.com@evil.example/oidc/v1/token",
            "https://accounts.cloud.dat\u{430}bricks.com/oidc/v1/token",
            "https://databricks.com/oidc/v1/token",
            "https://docs.databricks.com/oidc/v1/token",
            "https://app-1.aws.databricksapps.com/oidc/v1/token",
            "https://127.0.0.1/oidc/v1/token",
            "https://dbc-1.cloud.databricks.com/driver-proxy/o/1/0101-x/8000/oidc/v1/token",
            "https://dbc-1.cloud.databricks.com/oidc/../driver-proxy/o/1/0101-x/8000/token",
            "https://dbc-1.cloud.databricks.com/oidc/%2e%2e/driver-proxy/x",
            "https://dbc-1.cloud.databricks.com/oidc/..%2fdriver-proxy/x",
            "https://dbc-1.cloud.databricks.com/oidc/..;/driver-proxy/x",
            "https://dbc-1.cloud.databricks.com/oidcx/v1/token",
            "https://dbc-1.cloud.databricks.com/",
        ] {
            // A name beyond ASCII is no address here at all.
            assert!(!Url::parse(url).is_ok_and(|url| is_sign_in(&url)), "{url}");
        }
    }

    #[test]
    fn the_cloud_is_told_by_the_host_and_only_then_by_a_setting() {
        for (host, is_azure, environment, cloud) in [
            ("adb-1.2.azuredatabricks.net", false, Some("CHINA"), Some(Cloud::Azure)),
            ("ADB-1.2.databricks.azure.us", false, None, Some(Cloud::AzureUsGovernment)),
            ("adb-1.2.databricks.azure.cn", false, None, Some(Cloud::AzureChina)),
            ("dbc-1.cloud.databricks.com", true, Some("CHINA"), Some(Cloud::Other)),
            ("data.corp.example", false, Some("CHINA"), Some(Cloud::Other)),
            ("data.corp.example", true, None, Some(Cloud::Azure)),
            ("data.corp.example", true, Some("AzureChinaCloud"), Some(Cloud::AzureChina)),
            ("data.corp.example", true, Some("usgovernment"), Some(Cloud::AzureUsGovernment)),
            ("data.corp.example", true, Some("MARS"), None),
        ] {
            assert_eq!(Cloud::of(host, is_azure, environment), cloud, "{host} {environment:?}");
        }
    }

    #[test]
    fn an_account_console_is_told_from_a_workspace() {
        for host in [
            "accounts.cloud.databricks.com",
            "accounts-dod.cloud.databricks.us",
            "accounts.azuredatabricks.net",
            "accounts.gcp.databricks.com",
        ] {
            assert!(is_account_console(host), "{host}");
        }
        for host in [
            "accounts.example",
            "accounts.dbc-1.cloud.databricks.com",
            "dbc-1.cloud.databricks.com",
            "acme.databricks.com",
            "accounts",
        ] {
            assert!(!is_account_console(host), "{host}");
        }
    }
}
