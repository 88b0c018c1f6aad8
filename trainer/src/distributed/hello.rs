//! The bytes of a meeting: what a process says of itself, and the addresses that rank 0 hands out.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::MAX_RUN_BYTES;

/// Opens every hello; the digit is the version of what travels here.
const MAGIC: [u8; 8] = *b"trainer1";

/// Magic, rank, size, port, run.
pub(super) const HELLO_BYTES: usize = 8 + 4 + 4 + 2 + MAX_RUN_BYTES;

/// Address and port of a rank, as 18 bytes.
pub(super) const ENTRY_BYTES: usize = 18;

/// What a process says first on every connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) rank: usize,
    pub(super) size: usize,
    /// Where it takes connections of other ranks.
    pub(super) port: u16,
    pub(super) run: String,
}

impl Hello {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&(self.rank as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.size as u32).to_le_bytes());
        bytes.extend_from_slice(&self.port.to_le_bytes());
        bytes.extend_from_slice(self.run.as_bytes());
        bytes.resize(HELLO_BYTES, 0);
        bytes
    }

    /// `None`: no trainer of this version speaks.
    pub(super) fn decode(bytes: &[u8; HELLO_BYTES]) -> Option<Self> {
        let body = bytes.strip_prefix(&MAGIC)?;
        let word = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().expect("4 bytes"));
        let run = body[10..].split(|&byte| byte == 0).next()?;
        Some(Self {
            rank: word(0) as usize,
            size: word(4) as usize,
            port: u16::from_le_bytes(body[8..10].try_into().expect("2 bytes")),
            run: String::from_utf8(run.to_vec()).ok()?,
        })
    }
}

/// A rank on rank 0's own machine has an address of zeros: others know that machine by another
/// address than the loopback, the one under which they reached rank 0.
pub(super) fn encode_entry(ip: IpAddr, port: u16) -> [u8; ENTRY_BYTES] {
    let mapped = match ip {
        ip if ip.is_loopback() => Ipv6Addr::UNSPECIFIED,
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; ENTRY_BYTES];
    bytes[..16].copy_from_slice(&mapped.octets());
    bytes[16..].copy_from_slice(&port.to_le_bytes());
    bytes
}

pub(super) fn decode_entry(bytes: &[u8], home: IpAddr) -> SocketAddr {
    let (ip, port) = bytes.split_at(16);
    let ip = Ipv6Addr::from(<[u8; 16]>::try_from(ip).expect("16 bytes"));
    let port = u16::from_le_bytes(port.try_into().expect("2 bytes"));
    let ip = if ip.is_unspecified() {
        home
    } else {
        ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4)
    };
    SocketAddr::new(ip, port)
}
