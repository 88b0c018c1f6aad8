//! One connection to one other rank: frames out by a thread of its own, frames in by the caller, so
//! that both ways are busy at once and no two ranks wait for each other to read. What is on the way
//! is bounded: one frame queued, one being written.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::error::GroupError;

/// Payload of a frame, at most. Large beside a frame's cost (two system calls), small enough to stay
/// in a core's second cache between arriving and being added.
pub(super) const FRAME_BYTES: usize = 256 << 10;

/// How long a failed link tries to tell the other side.
const FAREWELL: Duration = Duration::from_secs(1);

/// Opens every frame: 16 bytes, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    /// Which call it is, from 0; of a failure, the rank at fault.
    pub(super) number: u32,
    /// Bytes of the whole call, over all its frames.
    pub(super) total_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    SumF32 = 1,
    SumF64 = 2,
    Broadcast = 3,
    /// The sender gives up, because of the rank that is named.
    Failed = 4,
}

impl Header {
    pub(super) const BYTES: usize = 16;

    fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&(self.kind as u32).to_le_bytes());
        bytes[4..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..].copy_from_slice(&self.total_bytes.to_le_bytes());
        bytes
    }

    /// `None`: these bytes are no header.
    fn decode(bytes: [u8; Self::BYTES]) -> Option<Self> {
        let (words, total) = bytes.split_at(8);
        let word = |at: usize| u32::from_le_bytes(words[at..at + 4].try_into().expect("4 bytes"));
        let kind = match word(0) {
            1 => Kind::SumF32,
            2 => Kind::SumF64,
            3 => Kind::Broadcast,
            4 => Kind::Failed,
            _ => return None,
        };
        Some(Self {
            kind,
            number: word(4),
            total_bytes: u64::from_le_bytes(total.try_into().expect("8 bytes")),
        })
    }
}

impl std::fmt::Display for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (what, size) = match self.kind {
            Kind::SumF32 => ("sum of f32", 4),
            Kind::SumF64 => ("sum of f64", 8),
            Kind::Broadcast => ("broadcast of bytes", 1),
            Kind::Failed => ("failure", 1),
        };
        let count = self.total_bytes / size;
        write!(f, "call {} ({what}, {count} values)", self.number)
    }
}

/// A connection to `peer`.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: usize,
    time_limit: Duration,
    stream: TcpStream,
    /// `None` only while dropped.
    queue: Option<SyncSender<Vec<u8>>>,
    /// Written frames, to be filled again.
    written: Receiver<Vec<u8>>,
    writer: Option<JoinHandle<()>>,
    failed: bool,
}

impl Link {
    pub(super) fn new(
        peer: usize,
        stream: TcpStream,
        time_limit: Duration,
    ) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(time_limit))?;
        let mut outgoing = stream.try_clone()?;
        let (queue, frames) = sync_channel::<Vec<u8>>(1);
        // Two frames exist, so handing one back never waits.
        let (done, written) = sync_channel(2);
        for _ in 0..2 {
            done.try_send(Vec::new()).expect("there is room for two");
        }
        let write_all = move || {
            for frame in frames {
                if outgoing.write_all(&frame).is_err() {
                    // Seen by both sides' next read.
                    let _ = outgoing.shutdown(Shutdown::Both);
                    return;
                }
                let _ = done.try_send(frame);
            }
        };
        let writer = std::thread::Builder::new()
            .name(format!("to rank {peer}"))
            .spawn(write_all)?;
        Ok(Self {
            peer,
            time_limit,
            stream,
            queue: Some(queue),
            written,
            writer: Some(writer),
            failed: false,
        })
    }

    /// Hands over a frame whose payload `fill` appends. Waits while two frames are on the way.
    pub(super) fn send(
        &mut self,
        header: Header,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), GroupError> {
        let Ok(mut frame) = self.written.recv() else {
            return Err(self.gone("writing failed"));
        };
        frame.clear();
        frame.extend_from_slice(&header.encode());
        fill(&mut frame);
        let queue = self.queue.as_ref().expect("taken only by drop");
        queue.send(frame).map_err(|_| self.gone("writing failed"))
    }

    /// Reads a frame of the call `expected` with as many bytes as `payload` has.
    pub(super) fn receive(
        &mut self,
        expected: Header,
        payload: &mut [u8],
    ) -> Result<(), GroupError> {
        let deadline = Instant::now() + self.time_limit;
        let mut bytes = [0; Header::BYTES];
        self.read(&mut bytes, deadline)?;
        match Header::decode(bytes) {
            Some(found) if found == expected => self.read(payload, deadline),
            Some(Header {
                kind: Kind::Failed,
                number,
                ..
            }) => Err(GroupError::Gone {
                rank: number as usize,
                what: format!("so says rank {}", self.peer),
            }),
            found => Err(GroupError::OutOfStep {
                rank: self.peer,
                theirs: found.map_or("bytes that are no frame".to_string(), |it| it.to_string()),
                ours: expected.to_string(),
            }),
        }
    }

    fn read(&mut self, bytes: &mut [u8], deadline: Instant) -> Result<(), GroupError> {
        read_until(&mut self.stream, bytes, deadline).map_err(|error| match error.kind() {
            ErrorKind::TimedOut => GroupError::Silent {
                rank: self.peer,
                limit: self.time_limit,
            },
            ErrorKind::UnexpectedEof => self.gone("closed"),
            _ => self.gone(&error.to_string()),
        })
    }

    /// Tells the other side which rank is at fault, where that can be done soon.
    pub(super) fn fail(&mut self, culprit: usize) {
        self.failed = true;
        let header = Header {
            kind: Kind::Failed,
            number: culprit as u32,
            total_bytes: 0,
        };
        let queue = self.queue.as_ref().expect("taken only by drop");
        let deadline = Instant::now() + FAREWELL;
        let mut frame = header.encode().to_vec();
        // The last call's frame may still stand in the queue.
        while let Err(TrySendError::Full(back)) = queue.try_send(frame) {
            if Instant::now() >= deadline {
                return;
            }
            frame = back;
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn gone(&self, what: &str) -> GroupError {
        GroupError::Gone {
            rank: self.peer,
            what: what.to_string(),
        }
    }
}

impl Drop for Link {
    /// What is queued is still sent: the last call of a run must reach the others.
    fn drop(&mut self) {
        self.queue = None;
        let Some(writer) = self.writer.take() else {
            return;
        };
        if self.failed {
            let deadline = Instant::now() + FAREWELL;
            while !writer.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        let _ = writer.join();
    }
}

/// Fills `bytes`, or fails with `TimedOut` at the deadline.
pub(super) fn read_until(
    stream: &mut TcpStream,
    mut bytes: &mut [u8],
    deadline: Instant,
) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(bytes) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => bytes = &mut bytes[count..],
            // How an expired read timeout shows differs by system.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(ErrorKind::TimedOut.into());
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
