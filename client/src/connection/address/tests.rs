use super::*;

/// A URL, a bare host:port and a file are told apart.
#[test]
fn addresses_are_told_apart() {
    let parse = |value: &str| ServerAddress::parse(value).unwrap();
    assert_eq!(parse("http://a:1"), ServerAddress::Url("http://a:1".into()));
    assert_eq!(
        parse("127.0.0.1:50051"),
        ServerAddress::Url("http://127.0.0.1:50051".into())
    );
    assert_eq!(
        parse("run/endpoint"),
        ServerAddress::EndpointFile("run/endpoint".into())
    );
    assert_eq!(
        parse("endpoint.json"),
        ServerAddress::EndpointFile("endpoint.json".into())
    );
}

/// What is no address is refused with a sentence.
#[test]
fn nonsense_is_refused() {
    for value in ["", "node17", "node17:seven", "https://a:1"] {
        assert!(
            ServerAddress::parse(value).is_err(),
            "{value:?} was accepted"
        );
    }
}

/// Both shapes of an endpoint file give the URL; anything else gives none.
#[test]
fn endpoint_files_give_the_url() {
    let url = |text: &str| url_in_endpoint_file(text);
    assert_eq!(url("127.0.0.1:7\n").as_deref(), Some("http://127.0.0.1:7"));
    assert_eq!(
        url(r#"{"url":"http://n:7","pid":3}"#).as_deref(),
        Some("http://n:7")
    );
    assert_eq!(url(r#"{"address":"n:7"}"#).as_deref(), Some("http://n:7"));
    assert_eq!(url(""), None);
    assert_eq!(url("{}"), None);
    assert_eq!(url("\u{0}\u{1}"), None);
}
