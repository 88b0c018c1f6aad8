//! How the ranks find each other: all go to rank 0, which checks them and gives everybody the
//! addresses of all; then each pair that will ever speak connects. A stranger (a port scanner, a rank
//! of another run) is told why it is refused, and the wait for the right ones goes on.

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::error::GroupError;
use super::hello::{ENTRY_BYTES, HELLO_BYTES, Hello, decode_entry, encode_entry};
use super::link::{Link, read_until};
use super::{GroupSettings, MAX_RUN_BYTES, MeetingPoint};

/// A caller says hello within this time, or others are served.
const HELLO_LIMIT: Duration = Duration::from_secs(5);

/// Between two looks at a listener, and between two tries to reach one.
const POLL: Duration = Duration::from_millis(5);

/// What a rank waits longer for rank 0 than rank 0 waits for the others: rank 0 knows who is missing.
const GRACE: Duration = Duration::from_secs(2);

/// Longest reason of a refusal that is sent and read.
const MAX_REASON_BYTES: usize = 1024;

/// Who is waited for, and until when.
struct Wait<'a> {
    settings: &'a GroupSettings,
    listener: &'a TcpListener,
    deadline: Instant,
}

/// Connects this rank to its `partners`.
pub(super) fn meet(settings: &GroupSettings, partners: &[usize]) -> Result<Vec<Link>, GroupError> {
    let ranks = &settings.ranks;
    if settings.run.is_empty() || settings.run.len() > MAX_RUN_BYTES {
        let problem = format!(
            "run {:?}: expected 1 to {MAX_RUN_BYTES} bytes",
            settings.run
        );
        return Err(GroupError::Environment(vec![problem]));
    }
    let deadline = Instant::now() + settings.time_limit;
    let streams = if ranks.rank == 0 {
        let listener = listen(&ranks.meeting, ranks.meeting.port)?;
        let wait = Wait {
            settings,
            listener: &listener,
            deadline,
        };
        let others: Vec<usize> = (1..ranks.size).collect();
        let mut streams = wait.accept(&others)?;
        hand_out_addresses(&mut streams, settings)?;
        streams.retain(|(hello, _)| partners.contains(&hello.rank));
        streams
            .into_iter()
            .map(|(hello, it)| (hello.rank, it))
            .collect()
    } else {
        let listener = listen(&ranks.meeting, 0)?;
        let wait = Wait {
            settings,
            listener: &listener,
            deadline,
        };
        wait.join(partners)?
    };
    streams
        .into_iter()
        .map(|(peer, stream)| {
            Link::new(peer, stream, settings.time_limit).map_err(network(format!("rank {peer}")))
        })
        .collect()
}

impl Wait<'_> {
    /// As a rank other than 0.
    fn join(&self, partners: &[usize]) -> Result<Vec<(usize, TcpStream)>, GroupError> {
        let (own, meeting) = (self.settings.ranks.rank, &self.settings.ranks.meeting);
        let address = self.listener.local_addr().map_err(network("own port"))?;
        let hello = self.hello(address.port());
        let mut main = self.reach(&meeting.to_string(), "rank 0")?;
        let peer = format!("rank 0 at {meeting}");
        say(&mut main, &hello.encode()).map_err(network(&peer))?;
        let deadline = Instant::now() + self.settings.time_limit + GRACE;
        let mut table = vec![0; self.settings.ranks.size * ENTRY_BYTES];
        self.answer(&mut main, &mut table, (&peer, deadline))?;
        let home = main.peer_addr().map_err(network(&peer))?.ip();

        // First all calls, then all answers: nobody waits for somebody who waits.
        let mut streams = Vec::new();
        for &lower in partners.iter().filter(|&&it| 0 < it && it < own) {
            let entry = &table[lower * ENTRY_BYTES..(lower + 1) * ENTRY_BYTES];
            let address = decode_entry(entry, home);
            let mut stream = self.reach(&address.to_string(), &format!("rank {lower}"))?;
            say(&mut stream, &hello.encode()).map_err(network(address))?;
            streams.push((lower, stream));
        }
        let higher: Vec<usize> = partners.iter().copied().filter(|&it| it > own).collect();
        let accepted = self.accept(&higher)?;
        for (lower, stream) in &mut streams {
            let peer = format!("rank {lower}");
            self.answer(stream, &mut [], (&peer, self.deadline))?;
        }
        for (hello, mut stream) in accepted {
            say(&mut stream, &[0]).map_err(network(format!("rank {}", hello.rank)))?;
            streams.push((hello.rank, stream));
        }
        if partners.contains(&0) {
            streams.push((0, main));
        }
        Ok(streams)
    }

    fn hello(&self, port: u16) -> Hello {
        Hello {
            rank: self.settings.ranks.rank,
            size: self.settings.ranks.size,
            port,
            run: self.settings.run.clone(),
        }
    }

    /// Takes calls until all of `expected` have come. They are not answered yet.
    fn accept(&self, expected: &[usize]) -> Result<Vec<(Hello, TcpStream)>, GroupError> {
        let mut come: Vec<(Hello, TcpStream)> = Vec::new();
        let mut refused: Option<String> = None;
        self.listener
            .set_nonblocking(true)
            .map_err(network("own port"))?;
        while come.len() < expected.len() {
            let (mut stream, caller) = match self.listener.accept() {
                Ok(found) => found,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if Instant::now() >= self.deadline {
                        return Err(self.missing(expected, come, refused));
                    }
                    std::thread::sleep(POLL);
                    continue;
                }
                // The caller hung up between calling and being heard.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(network("own port")(error)),
            };
            let known: Vec<usize> = come.iter().map(|(hello, _)| hello.rank).collect();
            match self.check(&mut stream, expected, &known) {
                Ok(hello) => come.push((hello, stream)),
                Err(reason) => {
                    refuse(&mut stream, &reason);
                    refused = Some(format!("{caller}: {reason}"));
                }
            }
        }
        Ok(come)
    }

    /// The caller's hello, or why it is refused.
    fn check(
        &self,
        stream: &mut TcpStream,
        expected: &[usize],
        come: &[usize],
    ) -> Result<Hello, String> {
        stream.set_nonblocking(false).map_err(|it| it.to_string())?;
        let mut bytes = [0; HELLO_BYTES];
        let patience = Instant::now() + HELLO_LIMIT.min(self.settings.time_limit);
        read_until(stream, &mut bytes, patience.min(self.deadline))
            .map_err(|error| format!("it says no hello ({error})"))?;
        let hello = Hello::decode(&bytes).ok_or("it is no trainer of this version")?;
        let (size, run) = (self.settings.ranks.size, &self.settings.run);
        if hello.run != *run {
            return Err(format!(
                "rank {} is of run {:?}, this group of run {run:?}: start all ranks with the same \
                 program, settings and data",
                hello.rank, hello.run
            ));
        }
        if hello.size != size {
            return Err(format!(
                "rank {} is of a group of {}, this is a group of {size}",
                hello.rank, hello.size
            ));
        }
        if come.contains(&hello.rank) {
            return Err(format!("rank {} is here already", hello.rank));
        }
        if !expected.contains(&hello.rank) {
            return Err(format!("rank {} is not expected here", hello.rank));
        }
        Ok(hello)
    }

    /// Why `accept` gives up, told to those who came, too.
    fn missing(
        &self,
        expected: &[usize],
        come: Vec<(Hello, TcpStream)>,
        refused: Option<String>,
    ) -> GroupError {
        let is_here = |rank: &usize| come.iter().any(|(hello, _)| hello.rank == *rank);
        let absent = expected.iter().filter(|rank| !is_here(rank));
        let names: Vec<String> = absent.map(|rank| format!("rank {rank}")).collect();
        let error = GroupError::Missing {
            who: names.join(", "),
            meeting: self.settings.ranks.meeting.to_string(),
            limit: self.settings.time_limit,
            hint: refused.map_or_else(
                || "are all ranks started, and can they reach that address?".to_string(),
                |reason| format!("refused: {reason}"),
            ),
        };
        for (_, mut stream) in come {
            refuse(&mut stream, &error.to_string());
        }
        error
    }

    /// Connects, trying again until the deadline: the other side may not listen yet.
    fn reach(&self, address: &str, who: &str) -> Result<TcpStream, GroupError> {
        loop {
            let mut last = "the name has no address".to_string();
            for candidate in resolve(address)? {
                let left = self.deadline.saturating_duration_since(Instant::now());
                match TcpStream::connect_timeout(&candidate, left.max(POLL)) {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error.to_string(),
                }
            }
            if Instant::now() >= self.deadline {
                return Err(GroupError::Missing {
                    who: who.to_string(),
                    meeting: address.to_string(),
                    limit: self.settings.time_limit,
                    hint: format!("last try: {last}"),
                });
            }
            std::thread::sleep(POLL);
        }
    }

    /// Reads a yes and what follows it, or the reason of a no.
    fn answer(
        &self,
        stream: &mut TcpStream,
        follows: &mut [u8],
        (peer, deadline): (&str, Instant),
    ) -> Result<(), GroupError> {
        let lost = |error: std::io::Error| GroupError::Network {
            address: peer.to_string(),
            what: match error.kind() {
                ErrorKind::TimedOut => {
                    let limit = self.settings.time_limit.as_secs_f64();
                    format!("no answer within the time limit of {limit} s")
                }
                _ => format!("it hung up before all ranks were there ({error})"),
            },
        };
        let mut verdict = [0];
        read_until(stream, &mut verdict, deadline).map_err(lost)?;
        if verdict == [0] {
            return read_until(stream, follows, deadline).map_err(lost);
        }
        let mut len = [0; 2];
        read_until(stream, &mut len, deadline).map_err(lost)?;
        let mut reason = vec![0; usize::from(u16::from_le_bytes(len)).min(MAX_REASON_BYTES)];
        read_until(stream, &mut reason, deadline).map_err(lost)?;
        Err(GroupError::Refused {
            peer: peer.to_string(),
            reason: String::from_utf8_lossy(&reason).into_owned(),
        })
    }
}

/// Rank 0's yes to everybody, with the addresses of all.
fn hand_out_addresses(
    streams: &mut [(Hello, TcpStream)],
    settings: &GroupSettings,
) -> Result<(), GroupError> {
    let mut message = vec![0; 1 + settings.ranks.size * ENTRY_BYTES];
    for (hello, stream) in streams.iter() {
        let peer = stream.peer_addr().map_err(network("own port"))?;
        let at = 1 + hello.rank * ENTRY_BYTES;
        message[at..at + ENTRY_BYTES].copy_from_slice(&encode_entry(peer.ip(), hello.port));
    }
    for (hello, stream) in streams {
        say(stream, &message).map_err(network(format!("rank {}", hello.rank)))?;
    }
    Ok(())
}

/// On the loopback where all meet there by that name, else on every interface.
fn listen(meeting: &MeetingPoint, port: u16) -> Result<TcpListener, GroupError> {
    let address = meeting.to_string();
    let first = resolve(&address)?.next();
    let by_name = meeting.host == "localhost";
    let literal = meeting.host.parse::<IpAddr>();
    let ip = match first {
        Some(first) if by_name || literal.is_ok_and(|ip| ip.is_loopback()) => first.ip(),
        Some(SocketAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    TcpListener::bind((ip, port)).map_err(|error| GroupError::Network {
        address: SocketAddr::new(ip, port).to_string(),
        what: format!("cannot listen there: {error}"),
    })
}

fn resolve(address: &str) -> Result<std::vec::IntoIter<SocketAddr>, GroupError> {
    address.to_socket_addrs().map_err(network(address))
}

fn say(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(HELLO_LIMIT))?;
    stream.write_all(bytes)
}

/// A no with its reason; a caller that does not listen is none of our business.
fn refuse(stream: &mut TcpStream, reason: &str) {
    let end = reason.floor_char_boundary(MAX_REASON_BYTES);
    let mut bytes = vec![1];
    bytes.extend_from_slice(&(end as u16).to_le_bytes());
    bytes.extend_from_slice(&reason.as_bytes()[..end]);
    let _ = say(stream, &bytes);
}

fn network(address: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> GroupError {
    move |error| GroupError::Network {
        address: address.to_string(),
        what: error.to_string(),
    }
}
