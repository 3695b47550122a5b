use url::Url;

use super::*;

/// What Go's own code answered for each pair of a list and an address.
const BY_GO: &str = include_str!("exceptions.txt");

fn by_proxy(no_proxy: &str, url: &str) -> bool {
    let proxy = Proxy::parse("http://proxy.example:3128", "$HTTPS_PROXY").unwrap();
    let proxies = Proxies::new(Some(proxy), Exceptions::parse(no_proxy));
    let url = Url::parse(url).unwrap();
    proxies.route(url.host_str().unwrap(), url.port_or_known_default().unwrap()).proxy().is_some()
}

#[test]
fn every_list_of_exceptions_means_what_it_means_to_go() {
    let urls: Vec<&str> = BY_GO.lines().filter_map(|line| line.strip_prefix("# https://")).collect();
    let lists: Vec<(&str, &str)> = BY_GO.lines().filter_map(|line| line.split_once('\t')).collect();
    assert!(urls.len() > 20 && lists.len() > 60);
    let mut said = String::new();
    for (answers, list) in lists {
        assert_eq!(answers.len(), urls.len());
        for (answer, url) in answers.chars().zip(&urls) {
            if by_proxy(list, &format!("https://{url}")) != (answer == 'p') {
                said += &format!("NO_PROXY={list:?}, {url}: to Go it is {answer}\n");
            }
        }
    }
    assert!(said.is_empty(), "\n{said}");
}

#[test]
fn entries_that_no_host_can_match_are_known() {
    for list in [
        "foobar.com barbaz.net",
        "foobar.com;barbaz.net",
        "https://foobar.com",
        "foobar.com/",
        "*foobar.com",
        "10/8",
        "b\u{fc}cher.example",
    ] {
        assert_eq!(Exceptions::parse(&format!("a, {list} ,b")).useless(), [list], "{list}");
    }
    for list in ["*", "a,b", ".a", "*.a:443", "10.0.0.0/8", "[::1]:443", "", ",,", "foobar.com:"] {
        assert_eq!(Exceptions::parse(list).useless(), [""; 0], "{list}");
    }
}

#[test]
fn without_a_proxy_everything_is_reached_directly() {
    let none = Proxies::default();
    assert!(matches!(none.route("w.example", 443), Route::Unset));
    assert!(matches!(none.route("localhost", 443), Route::Direct));
    let all = Proxies::new(None, Exceptions::parse("*"));
    assert!(matches!(all.route("w.example", 443), Route::Direct));
}

/// All that a proxy is, on one line.
fn read(text: &str) -> Result<String, Misfit> {
    let proxy = Proxy::parse(text, "$HTTPS_PROXY")?;
    let password = proxy.password().map_or("", ExposeSecret::expose_secret);
    let user = proxy.user.as_deref().unwrap_or_default();
    Ok(format!("{} {} {} {user} {password}", proxy.scheme.word(), proxy.host, proxy.port))
}

#[test]
fn what_go_can_use_is_read_as_go_reads_it() {
    for (text, read_as) in [
        ("proxy", "http proxy 80  "),
        ("proxy.example", "http proxy.example 80  "),
        ("proxy.example:3128", "http proxy.example 3128  "),
        ("PROXY.example:3128", "http proxy.example 3128  "),
        ("http://proxy.example", "http proxy.example 80  "),
        ("http://proxy.example:", "http proxy.example 80  "),
        ("http://proxy.example:00080", "http proxy.example 80  "),
        ("HTTP://proxy.example:3128/", "http proxy.example 3128  "),
        ("http://proxy.example/path?x#y", "http proxy.example 80  "),
        ("http://proxy_1.example:3128", "http proxy_1.example 3128  "),
        ("https://proxy.example", "https proxy.example 443  "),
        ("https://proxy.example:8443", "https proxy.example 8443  "),
        ("socks5://proxy.example", "socks5 proxy.example 1080  "),
        ("SOCKS5H://proxy.example:1", "socks5 proxy.example 1  "),
        ("127.0.0.1:8080", "http 127.0.0.1 8080  "),
        ("[::1]:8080", "http [::1] 8080  "),
        ("http://[2001:DB8::2]", "http [2001:db8::2] 80  "),
        ("http://xn--bcher-kva.example:3128", "http xn--bcher-kva.example 3128  "),
        ("ada:secret@proxy.example:3128", "http proxy.example 3128 ada secret"),
        ("http://ada@proxy.example", "http proxy.example 80 ada "),
        ("http://ada:@proxy.example", "http proxy.example 80 ada "),
        ("http://ada:a%40b%3Ac%2Fd%23e%25@proxy.example", "http proxy.example 80 ada a@b:c/d#e%"),
        ("http://ada:p@ss@proxy.example", "http proxy.example 80 ada p@ss"),
        ("http://ada:a:b@proxy.example", "http proxy.example 80 ada a:b"),
        ("http://CORP%5cada:secret@proxy.example", r"http proxy.example 80 CORP\ada secret"),
        ("http://ada%40corp.example:secret@proxy.example", "http proxy.example 80 ada@corp.example secret"),
        ("http://ada@corp.example:secret@proxy.example", "http proxy.example 80 ada@corp.example secret"),
        ("http://ada:!$&'()*+,;=~-._@proxy.example", "http proxy.example 80 ada !$&'()*+,;=~-._"),
        // Go cannot use these; what stands around a value is no part of it anywhere else either.
        ("http://proxy.example:3128 ", "http proxy.example 3128  "),
        ("\u{feff}http://proxy.example:3128\r\n", "http proxy.example 3128  "),
    ] {
        assert_eq!(read(text).unwrap_or_else(|misfit| panic!("{text}: {misfit:?}")), read_as, "{text}");
    }
}

/// Values that cannot be used, what they look like, and what to write instead. The password is `secret` in all of them.
const MISFITS: &[(&str, &str, &str)] = &[
    ("", "is empty", "leave it out"),
    (r"http://CORP\ada:secret@proxy.example:3128", r"`\` in its user name", r"write \ as %5C"),
    (r"CORP\ada:secret@proxy.example:3128", r"`\` in its user name", "%5C"),
    ("\"http://proxy.example:3128\"", "in quotes", "leave out the quotes"),
    ("'http://ada:secret@proxy.example:3128'", "in quotes", "leave out the quotes"),
    ("\u{201c}http://proxy.example:3128\u{201d}", "in quotes", "leave out the quotes"),
    ("\"http://proxy.example:3128", "begins with a quote", "leave out the quotes"),
    ("http://proxy.example:3128'", "ends with a quote", "leave out the quotes"),
    ("socks://proxy.example:1080", "which SOCKS", "socks5://"),
    ("socks4a://ada:secret@proxy.example", "SOCKS 4", "socks5://"),
    ("ftp://proxy.example", "scheme ftp", "http://"),
    ("htp://proxy.example", "scheme htp", "http://"),
    ("://proxy.example", "nothing before", "http://"),
    ("//proxy.example:3128", "names no host", "http://proxy.example"),
    ("http://", "names no host", "http://proxy.example"),
    ("http:///proxy.example", "names no host", "http://proxy.example"),
    ("http:/proxy.example:3128", "no ://", "http://"),
    ("http:proxy.example:3128", "no ://", "http://"),
    ("http//proxy.example:3128", "no ://", "http://"),
    ("HTTPS_PROXY=http://ada:secret@proxy.example", "with its name", "after the ="),
    ("${HTTPS_PROXY}", "a variable", "value itself"),
    ("$HTTPS_PROXY", "a variable", "value itself"),
    ("$(cat proxy)", "a variable", "value itself"),
    ("%HTTPS_PROXY%", "a variable", "value itself"),
    ("http://ada:${secret}@proxy.example:3128", "a variable", "value itself"),
    ("http://$PROXY_HOST:3128", "'$' in its host", "http://proxy.example"),
    ("<proxy>", "placeholder", "value itself"),
    ("http://<proxy-host>:3128", "placeholder", "value itself"),
    ("http://ada:<secret>@proxy.example:3128", "placeholder", "value itself"),
    ("http://{{proxy}}:3128", "placeholder", "value itself"),
    ("http://proxy.example:port", "no port", "before an @"),
    ("http://proxy.example:31a8", "no port", "digits"),
    ("http://proxy.example:0", "1 to 65535", "http://proxy.example"),
    ("http://proxy.example:65536", "1 to 65535", "http://proxy.example"),
    ("http://ada:secret", "no port", "before an @"),
    ("ada:secret", "no port", "before an @"),
    ("http://ada:x#secret@proxy.example:3128", "`#` before its `@`", "%23"),
    ("http://ada:12/secret@proxy.example:3128", "`/` before its `@`", "%2F"),
    ("http://ada:x?secret@proxy.example:3128", "`?` before its `@`", "%3F"),
    ("http://ada:x secret@proxy.example:3128", "holds blanks", "%20"),
    ("http://ada:100%secret@proxy.example", "password with a %", "%25"),
    ("http://ada:secret%@proxy.example", "password with a %", "%25"),
    ("http://100%:secret@proxy.example", "user name with a %", "%25"),
    ("http://ada:secret^x@proxy.example", "password with a character", "%23 for #"),
    ("http://ada:secret|\"@proxy.example", "password with a character", "%23 for #"),
    ("http://ada:s\u{e9}secret@proxy.example", "password with a character", "hexadecimal"),
    ("http://ada:secret%ff@proxy.example", "no UTF-8", "%25"),
    ("http://ada:secret%0a@proxy.example", "control character", "%25"),
    ("http://a.example:3128,http://b.example:3128", "a list of proxies", "http://proxy.example"),
    ("a.example:3128,b.example:3128", "more than one colon", "brackets"),
    ("http://a.example,b.example", "',' in its host", "http://proxy.example"),
    ("http://proxy.example;3128", "';' in its host", "http://proxy.example"),
    ("http://2001:db8::2:3128", "more than one colon", "brackets"),
    ("2001:db8::2", "more than one colon", "brackets"),
    ("http://[::1", "more than one colon", "brackets"),
    ("http://[proxy.example]:3128", "cannot exist", "http://proxy.example"),
    ("http://proxy%2eexample:3128", "'%' in its host", "http://proxy.example"),
    ("http://proxy.example/proxy.pac", "script", "write the proxy itself"),
    ("http://wpad/WPAD.DAT?x", "script", "write the proxy itself"),
    ("PROXY proxy.example:3128", "holds blanks", "one address"),
    ("-x http://ada:secret@proxy.example:3128", "holds blanks", "one address"),
    ("http://proxy.example:3128\\", "no port", "digits"),
    ("http://1.2.3.4.5:3128", "cannot exist", "http://proxy.example"),
    // No program of ours has the tables that it takes to look such a name up.
    ("http://b\u{fc}cher.example:3128", "beyond ASCII", "xn--"),
];

#[test]
fn what_cannot_be_used_is_refused_with_what_it_looks_like_and_without_its_password() {
    for (text, looks, hint) in MISFITS {
        let misfit = read(text).expect_err(text);
        assert!(misfit.why.contains(looks) && misfit.hint.contains(hint), "{text}: {misfit:?}");
        assert!(!format!("{misfit:?}").contains("secret"), "{misfit:?}");
        assert!(misfit.why.starts_with(&format!("`{}`", without_password(text))), "{misfit:?}");
    }
}

#[test]
fn a_value_is_shown_without_its_password_and_the_password_is_known() {
    for (text, shown) in [
        ("http://ada:secret@proxy.example:3128", "http://ada:********@proxy.example:3128"),
        ("ada:secret@proxy.example", "ada:********@proxy.example"),
        ("http://ada:s/e#c@ret@proxy.example", "http://ada:********@proxy.example"),
        ("'http://ada:secret@proxy.example'", "'http://ada:********@proxy.example'"),
        ("ada:secret", "ada:********"),
        ("http://ada:secret/", "http://ada:********/"),
        ("http://ada@proxy.example:3128", "http://ada@proxy.example:3128"),
        ("http://proxy.example:3128/", "http://proxy.example:3128/"),
        ("http://[::1]:3128", "http://[::1]:3128"),
        ("2001:db8::fe", "2001:db8::fe"),
        ("proxy.example", "proxy.example"),
    ] {
        assert_eq!(without_password(text), shown, "{text}");
        assert_eq!(passwords_in(text).is_empty(), text == shown, "{text}");
    }
    let known = passwords_in("http://ada:s%65cret@x");
    assert_eq!(known.iter().map(ExposeSecret::expose_secret).collect::<Vec<_>>(), ["s%65cret", "secret"]);
}

#[test]
fn the_whole_address_is_read_back_as_the_same_and_what_is_shown_lacks_the_password() {
    for text in [
        "http://proxy.example:3128",
        "https://[2001:db8::2]",
        "socks5://ada@proxy.example",
        "http://CORP%5Cada:a%40b%3Ac%2Fd%23e%25%20%22%5B@proxy.example:3128",
        "http://ada:!$&'()*+,;=~-._%C3%A9@proxy.example",
        "http://ada:@proxy.example",
    ] {
        let proxy = Proxy::parse(text, "$HTTPS_PROXY").unwrap();
        let address = proxy.address();
        assert_eq!(read(&address), read(text), "{text}");
        assert!(Url::parse(&address).is_ok(), "{text}");
        assert_eq!(proxy.shown(), without_password(&address), "{text}");
        assert!(!format!("{proxy:?}").contains("a@b"), "{proxy:?}");
    }
}

#[test]
fn a_program_of_go_is_given_the_same_proxy() {
    let given = |proxy: Option<&str>, no_proxy: &str| {
        let proxy = proxy.map(|text| Proxy::parse(text, "config.toml:1").unwrap());
        let variables = Proxies::new(proxy, Exceptions::parse(no_proxy)).variables();
        variables.into_iter().map(|(name, value)| format!("{name}={}", *value)).collect::<Vec<_>>()
    };
    assert_eq!(given(None, ""), [""; 0]);
    assert_eq!(given(Some(" ada:secret@proxy.example "), ""), ["HTTPS_PROXY=http://ada:secret@proxy.example:80"]);
    let both = given(Some("socks5://proxy.example"), " .example, 10.0.0.0/8 ");
    assert_eq!(both, ["HTTPS_PROXY=socks5://proxy.example:1080", "NO_PROXY=.example, 10.0.0.0/8"]);
}
