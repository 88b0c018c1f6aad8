//! Sums and broadcasts over TCP by recursive doubling: in round k a rank trades what it has with the
//! rank whose number differs in bit k, and both add in the same order. A sum over n ranks takes
//! log2(n) rounds, each of which sends and receives everything once, both ways at the same time.

use std::ops::{Add, Range};

use super::error::GroupError;
use super::link::{FRAME_BYTES, Header, Kind, Link};
use super::{GroupSettings, MAX_BROADCAST_BYTES, rendezvous};

/// Ranks that are connected.
#[derive(Debug)]
pub struct TcpGroup {
    rank: usize,
    size: usize,
    links: Vec<Link>,
    num_calls: u32,
    /// The first failure, given again by every later call.
    failure: Option<GroupError>,
    /// Payload of one frame.
    incoming: Vec<u8>,
}

/// A value that travels.
pub(super) trait Element: Copy + Add<Output = Self> {
    const KIND: Kind;
    const BYTES: usize;
    fn append(self, bytes: &mut Vec<u8>);
    /// From `BYTES` bytes.
    fn from_bytes(bytes: &[u8]) -> Self;
}

macro_rules! element {
    ($type:ty, $kind:expr) => {
        impl Element for $type {
            const KIND: Kind = $kind;
            const BYTES: usize = size_of::<$type>();

            fn append(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }

            fn from_bytes(bytes: &[u8]) -> Self {
                Self::from_le_bytes(bytes.try_into().expect("as many as BYTES"))
            }
        }
    };
}

element!(f32, Kind::SumF32);
element!(f64, Kind::SumF64);
element!(u8, Kind::Broadcast);

/// What happens to the values of one round with one other rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    Send,
    /// They replace the own ones.
    Take,
    /// They are added to the own ones.
    AddTheirs,
    /// Both ways, and they are added to the own ones: addition is commutative, so both have the
    /// same.
    Trade,
}

impl TcpGroup {
    pub(super) fn connect(settings: &GroupSettings) -> Result<Self, GroupError> {
        let (rank, size) = (settings.ranks.rank, settings.ranks.size);
        Ok(Self {
            rank,
            size,
            links: rendezvous::meet(settings, &partners(rank, size))?,
            num_calls: 0,
            failure: None,
            incoming: Vec::new(),
        })
    }

    pub(super) fn rank(&self) -> usize {
        self.rank
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn all_reduce_sum<T: Element>(
        &mut self,
        values: &mut [T],
    ) -> Result<(), GroupError> {
        let core = doubling_core(self.size);
        let header = self.header::<T>(values.len());
        self.guarded(|group| {
            if group.rank >= core {
                group.round(group.rank - core, header, values, Round::Send)?;
                return group.round(group.rank - core, header, values, Round::Take);
            }
            let beyond = group.rank + core;
            if beyond < group.size {
                group.round(beyond, header, values, Round::AddTheirs)?;
            }
            for bit in bits(core) {
                group.round(group.rank ^ bit, header, values, Round::Trade)?;
            }
            if beyond < group.size {
                group.round(beyond, header, values, Round::Send)?;
            }
            Ok(())
        })
    }

    pub(super) fn broadcast(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, GroupError> {
        // The others cannot know the length: a sum to which they add nothing. Exact below 2^53.
        let mut length = [if self.rank == 0 {
            bytes.len() as f64
        } else {
            0.0
        }];
        self.all_reduce_sum(&mut length)?;
        let length = length[0] as usize;
        if length > MAX_BROADCAST_BYTES {
            return Err(GroupError::TooLong {
                bytes: length,
                limit: MAX_BROADCAST_BYTES,
            });
        }
        let mut bytes = bytes;
        bytes.resize(length, 0);
        let core = doubling_core(self.size);
        let header = self.header::<u8>(length);
        self.guarded(|group| {
            let rank = group.rank;
            for bit in bits(core) {
                if rank < bit {
                    group.round(rank + bit, header, &mut bytes, Round::Send)?;
                } else if rank < 2 * bit {
                    group.round(rank - bit, header, &mut bytes, Round::Take)?;
                }
            }
            if rank >= core {
                group.round(rank - core, header, &mut bytes, Round::Take)?;
            } else if rank + core < group.size {
                group.round(rank + core, header, &mut bytes, Round::Send)?;
            }
            Ok(())
        })?;
        Ok(bytes)
    }

    fn header<T: Element>(&mut self, len: usize) -> Header {
        let number = self.num_calls;
        self.num_calls = self.num_calls.wrapping_add(1);
        Header {
            kind: T::KIND,
            number,
            total_bytes: (len * T::BYTES) as u64,
        }
    }

    /// Keeps the first failure and tells the others of it.
    fn guarded(
        &mut self,
        call: impl FnOnce(&mut Self) -> Result<(), GroupError>,
    ) -> Result<(), GroupError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        call(self).inspect_err(|error| {
            let culprit = error.culprit().unwrap_or(self.rank);
            self.links.iter_mut().for_each(|link| link.fail(culprit));
            self.links.clear();
            self.failure = Some(error.clone());
        })
    }

    fn round<T: Element>(
        &mut self,
        peer: usize,
        header: Header,
        values: &mut [T],
        round: Round,
    ) -> Result<(), GroupError> {
        let link = self.links.iter_mut().find(|link| link.peer == peer);
        let link = link.expect("partners() names every peer of a round");
        for range in frames::<T>(values.len()) {
            let values = &mut values[range];
            if matches!(round, Round::Send | Round::Trade) {
                link.send(header, |bytes| {
                    for value in values.iter() {
                        value.append(bytes);
                    }
                })?;
            }
            if round == Round::Send {
                continue;
            }
            self.incoming.resize(values.len() * T::BYTES, 0);
            link.receive(header, &mut self.incoming)?;
            let theirs = self.incoming.chunks_exact(T::BYTES).map(T::from_bytes);
            let pairs = values.iter_mut().zip(theirs);
            if round == Round::Take {
                pairs.for_each(|(own, theirs)| *own = theirs);
            } else {
                pairs.for_each(|(own, theirs)| *own = *own + theirs);
            }
        }
        Ok(())
    }
}

/// Where a call's values are cut into frames. At least one: a call without values is a meeting, too.
fn frames<T: Element>(len: usize) -> impl Iterator<Item = Range<usize>> {
    let per_frame = FRAME_BYTES / T::BYTES;
    let count = len.div_ceil(per_frame).max(1);
    (0..count).map(move |index| index * per_frame..len.min((index + 1) * per_frame))
}

/// The largest power of two of ranks: these double.
fn doubling_core(size: usize) -> usize {
    1 << size.ilog2()
}

/// 1, 2, 4 and so on, below `core`.
fn bits(core: usize) -> impl Iterator<Item = usize> {
    (0..core.ilog2()).map(|shift| 1 << shift)
}

/// The ranks that this rank ever speaks to.
pub(super) fn partners(rank: usize, size: usize) -> Vec<usize> {
    let core = doubling_core(size);
    if rank >= core {
        return vec![rank - core];
    }
    let beyond = Some(rank + core).filter(|&beyond| beyond < size);
    bits(core).map(|bit| rank ^ bit).chain(beyond).collect()
}
