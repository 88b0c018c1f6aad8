//! Where the server is: a URL, or the endpoint file that a server writes when it is ready.

use std::path::{Path, PathBuf};

use crate::error::{ClientError, file_error};

/// A server's address as the user gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAddress {
    /// `http://host:port`.
    Url(String),
    /// Read each time a connection is made: a restarted server writes a new port into it.
    EndpointFile(PathBuf),
}

impl ServerAddress {
    /// `http://host:port`, `host:port`, or the path of an endpoint file.
    pub fn parse(value: &str) -> Result<Self, ClientError> {
        let value = value.trim();
        let bad = |problem: &str| ClientError::BadAddress {
            value: value.to_owned(),
            problem: problem.to_owned(),
        };
        if value.is_empty() {
            return Err(bad("it is empty"));
        }
        if value.starts_with("http://") {
            return Ok(Self::Url(value.to_owned()));
        }
        if value.starts_with("https://") {
            return Err(bad(
                "this build has no TLS; use http:// through an SSH tunnel",
            ));
        }
        let names_a_file = Path::new(value).exists()
            || value.contains('/')
            || Path::new(value)
                .extension()
                .is_some_and(|end| end == "json" || end == "txt");
        if names_a_file {
            return Ok(Self::EndpointFile(PathBuf::from(value)));
        }
        match value.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Self::Url(format!("http://{value}")))
            }
            _ => Err(bad("it is neither an address with a port nor a file")),
        }
    }

    /// The URL to connect to; reads the endpoint file where it is one.
    pub fn url(&self) -> Result<String, ClientError> {
        match self {
            Self::Url(url) => Ok(url.clone()),
            Self::EndpointFile(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(file_error("read the endpoint file", path))?;
                url_in_endpoint_file(&text).ok_or_else(|| ClientError::BadFile {
                    path: path.clone(),
                    problem: "it holds no server address (expected JSON with a `url`, or one line \
                              host:port)"
                        .to_owned(),
                })
            }
        }
    }
}

/// Either one line with an address, or a JSON object that names it.
fn url_in_endpoint_file(text: &str) -> Option<String> {
    let text = text.trim();
    let address = match serde_json::from_str::<serde_json::Value>(text) {
        Ok(serde_json::Value::Object(object)) => ["url", "endpoint", "address"]
            .iter()
            .find_map(|key| object.get(*key)?.as_str().map(str::to_owned))?,
        _ => text.lines().next()?.trim().to_owned(),
    };
    if address.starts_with("http://") {
        return Some(address);
    }
    let (host, port) = address.rsplit_once(':')?;
    (!host.is_empty() && port.parse::<u16>().is_ok()).then(|| format!("http://{address}"))
}

#[cfg(test)]
mod tests;
