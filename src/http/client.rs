//! Who is at the other end, for the log: the peer, or whom a proxy that we trust names.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::HeaderMap,
    middleware::Next,
    response::Response,
};
use ipnet::IpNet;

use super::AppState;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The client's address; none for who comes through the control socket.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(pub IpAddr);

/// Finds it out for everything that comes after.
pub(super) async fn note(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    if let Some(peer) = peer {
        let trusted = &state.deps.config.server.trusted_proxies;
        let client = client(peer, request.headers(), trusted);
        request.extensions_mut().insert(ClientAddress(client));
    }
    next.run(request).await
}

/// The last address in the chain that is not a trusted proxy's. What stands before it anybody may have written.
fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let mut client = peer.to_canonical();
    let values = headers.get_all(X_FORWARDED_FOR).into_iter();
    let values: Vec<&str> = values.map(|value| value.to_str().unwrap_or("?")).collect();
    let mut hops = values.iter().flat_map(|value| value.split(',')).rev();
    while is_trusted(client) {
        match hops.next().and_then(address) {
            Some(before) => client = before,
            None => break,
        }
    }
    client
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn address(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    let ip = bare.parse::<IpAddr>().ok();
    ip.or_else(|| Some(hop.parse::<SocketAddr>().ok()?.ip())).map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn found(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            let name = HeaderName::from_static(X_FORWARDED_FOR);
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        client(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_what_trusted_proxies_wrote_is_believed() {
        let proxies = ["10.0.0.0/8", "2001:db8:1::/64", "127.0.0.1/32"];
        let cases: &[(&str, &[&str], &str)] = &[
            // nobody trusted in between: the header is the client's own word
            ("192.0.2.7", &["203.0.113.9"], "192.0.2.7"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            // a client that wrote the header itself, one proxy that appended
            ("10.0.0.1", &["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
            // two proxies, in one header and in two
            ("10.0.0.1", &["198.51.100.1, 203.0.113.9, 10.2.3.4"], "203.0.113.9"),
            ("10.0.0.1", &["198.51.100.1, 203.0.113.9", "10.2.3.4"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9:4711"], "203.0.113.9"),
            ("10.0.0.1", &["[2001:db8::7]:80"], "2001:db8::7"),
            ("2001:db8:1::5", &["2001:db8::7"], "2001:db8::7"),
            ("::ffff:10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            // rubbish ends the chain at the last that is known
            ("10.0.0.1", &["203.0.113.9, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["' OR 1=1 --"], "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1"),
        ];
        for (peer, forwarded, expected) in cases {
            assert_eq!(found(peer, forwarded, &proxies), *expected, "{peer} {forwarded:?}");
        }
        assert_eq!(found("127.0.0.1", &["203.0.113.9"], &[]), "127.0.0.1");
    }
}
