//! Is there a captive portal? A question over plain HTTP whose answer the operator knows (RFC 8952, 1; RFC 8910).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use aizen_protocol::private::{Name, Text};
use aizen_protocol::record::{Portal, Resolvers};
use tokio::time::{Instant, timeout_at};

use crate::probe::dns;
use crate::probe::web::{self, Response, Url};

/// What is asked, and its known answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Where; without TLS.
    pub url: Url,
    /// The body of a 200; with none the answer is a 204 without a body.
    pub body: Option<String>,
}

/// Asks once.
pub(crate) async fn collect(known: &Known, resolvers: &Resolvers, deadline: Duration) -> Portal {
    let until = Instant::now() + deadline;
    let servers: Vec<IpAddr> = resolvers
        .configured
        .iter()
        .chain(&resolvers.alternates)
        .copied()
        .collect();
    let addresses = dns::addresses(&known.url.host, &servers, until).await;
    let Some(address) = addresses.first() else {
        return unanswered(known, "the name has no address".to_owned());
    };
    let socket = SocketAddr::new(*address, known.url.port);
    match timeout_at(until, web::get(&known.url, socket, MAX_BODY)).await {
        Ok(Ok(response)) => judge(known, &response),
        Ok(Err(fault)) => unanswered(known, fault.to_string()),
        Err(_) => unanswered(known, "no answer in time".to_owned()),
    }
}

fn judge(known: &Known, response: &Response) -> Portal {
    let expected = match &known.body {
        None => response.status == 204,
        Some(body) => {
            response.status == 200 && response.body.trim_ascii() == body.as_bytes().trim_ascii()
        }
    };
    let redirect = response
        .location
        .as_ref()
        .filter(|_| (300..400).contains(&response.status))
        .and_then(|location| location.parse::<Url>().ok());
    Portal {
        host: Name(known.url.host.clone()),
        status: Some(response.status),
        expected,
        redirect: redirect.map(|url| Name(url.host)),
        error: None,
    }
}

fn unanswered(known: &Known, error: String) -> Portal {
    Portal {
        host: Name(known.url.host.clone()),
        status: None,
        expected: false,
        redirect: None,
        error: Some(Text(error)),
    }
}

const MAX_BODY: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn known(body: Option<&str>) -> Known {
        Known {
            url: "http://check.example/known".parse().unwrap(),
            body: body.map(str::to_owned),
        }
    }

    fn response(status: u16, location: Option<&str>, body: &str) -> Response {
        Response {
            status,
            location: location.map(str::to_owned),
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn only_the_known_answer_is_expected() {
        assert!(judge(&known(None), &response(204, None, "")).expected);
        assert!(!judge(&known(None), &response(200, None, "<html>")).expected);
        assert!(judge(&known(Some("success")), &response(200, None, "success\n")).expected);
        assert!(!judge(&known(Some("success")), &response(200, None, "log in")).expected);
        assert!(!judge(&known(Some("success")), &response(204, None, "")).expected);
    }

    #[test]
    fn a_redirect_names_the_host_it_leads_to() {
        let leads =
            |status, location| judge(&known(None), &response(status, location, "")).redirect;
        let portal = Some("https://login.portal.example/?mac=x");
        assert_eq!(
            leads(302, portal),
            Some(Name("login.portal.example".to_owned()))
        );
        assert_eq!(leads(302, Some("/elsewhere")), None);
        assert_eq!(leads(200, portal), None);
    }
}
