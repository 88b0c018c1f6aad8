use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use cuda_emulator::Provided;

use super::device::PIECE_LEN;
use super::link::FRAME_BYTES;
use super::*;
use crate::rng::{CounterRng, Stream};
use crate::testing::free_port;

/// Ample: only a failing test waits for it.
const LONG: Duration = Duration::from_secs(20);
/// For tests in which somebody does not come.
const SHORT: Duration = Duration::from_secs(1);

fn settings((rank, size): (usize, usize), port: u16, time_limit: Duration) -> GroupSettings {
    let meeting = MeetingPoint {
        host: "127.0.0.1".to_string(),
        port,
    };
    GroupSettings {
        ranks: Ranks::new((rank, size), 0, meeting).unwrap(),
        gpu: 0,
        run: "a run".to_string(),
        time_limit,
        backend: Backend::Tcp,
    }
}

/// Runs `part` on every rank, a thread each, and returns what each gave.
pub(crate) fn on_all<T: Send>(size: usize, part: impl Fn(&mut Group) -> T + Sync) -> Vec<T> {
    let port = free_port();
    std::thread::scope(|scope| {
        let start = |rank| {
            let part = &part;
            scope.spawn(move || {
                let mut group = if size == 1 {
                    Group::connect(None).unwrap()
                } else {
                    Group::connect(Some(&settings((rank, size), port, LONG))).unwrap()
                };
                assert_eq!((group.rank(), group.size()), (rank, size));
                part(&mut group)
            })
        };
        let threads: Vec<_> = (0..size).map(start).collect();
        threads.into_iter().map(|it| it.join().unwrap()).collect()
    })
}

/// Values of very different sizes, whose sum depends on the order.
fn values(rank: usize, len: usize) -> Vec<f32> {
    let rng = CounterRng::new(rank as u64, Stream::Init { parameter: 3 });
    (0..len as u64)
        .map(|at| (rng.normal(at) * 10f64.powi((at % 7) as i32)) as f32)
        .collect()
}

/// The slow twin: parts added in the order the group promises.
fn expected(size: usize, len: usize) -> Vec<f32> {
    let mut parts: Vec<Vec<f32>> = (0..size).map(|rank| values(rank, len)).collect();
    let core = 1 << size.ilog2();
    let beyond = (core..size).map(|from| (from - core, from));
    for (into, from) in beyond.chain(pairwise_order(core)) {
        let from = parts[from].clone();
        parts[into].iter_mut().zip(from).for_each(|(a, b)| *a += b);
    }
    parts.swap_remove(0)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Every rank gets, to the bit, the sum in the promised order: for 1 to 5 ranks and 8, without
/// values, with one, with an odd number and over several frames.
#[test]
fn sums_are_exact_and_equal() {
    let frame = FRAME_BYTES / 4;
    for size in [1, 2, 3, 4, 5, 8] {
        for len in [0, 1, 7, frame, 2 * frame + 3] {
            let expected = bits(&expected(size, len));
            let found = on_all(size, |group| {
                let mut own = values(group.rank(), len);
                group.all_reduce_sum(&mut own).unwrap();
                bits(&own)
            });
            for (rank, found) in found.iter().enumerate() {
                assert!(*found == expected, "rank {rank} of {size}, {len} values");
            }
        }
    }
}

/// Values in a GPU's memory, over more than one piece: the sum, on every rank.
#[test]
fn sums_on_a_gpu_are_those_on_the_host() {
    if let Provided::Nothing(why) = cuda_emulator::load() {
        eprintln!("SKIPPED, no GPU: {why}");
        return;
    }
    // Whole numbers: their sum is exact.
    let value = |rank: usize, at: usize| ((at * 7 + rank * 13) % 101) as f32 - 50.0;
    for (size, len) in [(1, 3), (2, PIECE_LEN + 3), (3, 1000)] {
        on_all(size, |group| {
            let device = Device::open(0).unwrap();
            let own: Vec<f32> = (0..len).map(|at| value(group.rank(), at)).collect();
            let mut own = device.upload(&own).unwrap();
            group.all_reduce_device(&device, &mut own).unwrap();
            let found = device.download(&own).unwrap();
            let expected = |at| (0..size).map(|rank| value(rank, at)).sum::<f32>();
            let is_right = |(at, found): (usize, &f32)| found.to_bits() == expected(at).to_bits();
            assert!(
                found.len() == len && found.iter().enumerate().all(is_right),
                "{size}, {len}"
            );
        });
    }
}

/// Four lanes shared by 1, 2 or 4 ranks have one sum, to the bit.
#[test]
fn lanes_and_ranks_have_one_order() {
    let whole = bits(&expected(4, 1000));
    for size in [1, 2, 4] {
        let found = on_all(size, |group| {
            let lanes = 4 / group.size();
            let first = group.rank() * lanes;
            let mut own: Vec<_> = (first..first + lanes).map(|it| values(it, 1000)).collect();
            for (into, from) in pairwise_order(lanes) {
                let from = own[from].clone();
                own[into].iter_mut().zip(from).for_each(|(a, b)| *a += b);
            }
            group.all_reduce_sum(&mut own[0]).unwrap();
            bits(&own[0])
        });
        assert!(found.iter().all(|it| *it == whole), "{size} ranks");
    }
}

/// Counts in f64, bytes of rank 0, meetings and requests to stop, one after the other.
#[test]
fn calls_follow_each_other() {
    for size in [1, 2, 3, 4, 5] {
        let found = on_all(size, |group| {
            let mut counts = [group.rank() as f64, 1.0];
            group.all_reduce_sum_f64(&mut counts).unwrap();
            group.barrier().unwrap();
            let message = vec![group.rank() as u8; 3 * FRAME_BYTES + 5];
            let message = group.broadcast(message).unwrap();
            let (calm, asked) = (StopFlag::default(), StopFlag::default());
            asked.raise();
            let last = group.rank() + 1 == size;
            let none = group.any_raised(&calm).unwrap();
            let one = group.any_raised(if last { &asked } else { &calm }).unwrap();
            (counts, message, none, one)
        });
        for (counts, message, none, one) in found {
            let counts = counts.map(|count| count as usize);
            assert_eq!(counts, [size * (size - 1) / 2, size]);
            assert!(message.len() == 3 * FRAME_BYTES + 5 && message.iter().all(|&it| it == 0));
            assert_eq!((none, one), (false, true));
        }
    }
}

/// What is not a number at one rank is not a number at any.
#[test]
fn not_a_number_everywhere() {
    let found = on_all(3, |group| {
        let mut own = [if group.rank() == 1 { f32::NAN } else { 1.0 }];
        group.all_reduce_sum(&mut own).unwrap();
        own[0]
    });
    assert!(found.iter().all(|it| it.is_nan()), "{found:?}");
}

/// A rank that ends takes the others with it, each with an error that names it, and later calls give
/// the same error.
#[test]
fn a_lost_rank_is_named() {
    for size in [2, 3, 4] {
        let errors = on_all(size, |group| {
            group.barrier().unwrap();
            if group.rank() == 1 {
                *group = Group::Single;
                return None;
            }
            let error = group.all_reduce_sum(&mut [1.0; 100]).unwrap_err();
            assert_eq!(group.barrier().unwrap_err(), error);
            Some(error.to_string())
        });
        for error in errors.into_iter().flatten() {
            assert!(error.starts_with("rank 1 has ended"), "{size}: {error}");
        }
    }
}

/// A rank that is alive but does nothing is named after the time limit.
#[test]
fn a_silent_rank_is_named() {
    let port = free_port();
    std::thread::scope(|scope| {
        let (done, wait) = std::sync::mpsc::sync_channel::<()>(1);
        scope.spawn(move || {
            let group = Group::connect(Some(&settings((1, 2), port, LONG))).unwrap();
            wait.recv().unwrap();
            drop(group);
        });
        let mut group = Group::connect(Some(&settings((0, 2), port, SHORT))).unwrap();
        let error = group.barrier().unwrap_err().to_string();
        done.send(()).unwrap();
        assert!(error.contains("nothing from rank 1 for 1 s"), "{error}");
    });
}

/// Ranks that do different things find out, and say what.
#[test]
fn ranks_out_of_step_are_told() {
    let errors = on_all(2, |group| {
        let len = 3 + group.rank();
        group.all_reduce_sum(&mut vec![0.0; len]).unwrap_err()
    });
    let text = errors[0].to_string();
    assert!(
        text.contains("rank 1 is at call 0 (sum of f32, 4 values)"),
        "{text}"
    );
    assert!(
        text.contains("this one at call 0 (sum of f32, 3 values)"),
        "{text}"
    );
}

/// Who does not come is named, to those who came, too.
#[test]
fn a_missing_rank_is_named() {
    let port = free_port();
    let errors: Vec<String> = std::thread::scope(|scope| {
        let start = |rank| {
            let connect = move || Group::connect(Some(&settings((rank, 3), port, SHORT)));
            scope.spawn(move || connect().unwrap_err().to_string())
        };
        let threads = [start(0), start(1)];
        threads.map(|it| it.join().unwrap()).into()
    });
    for error in errors {
        assert!(error.contains("rank 2 did not come"), "{error}");
        assert!(error.contains("within 1 s"), "{error}");
    }
    let nobody = Group::connect(Some(&settings((1, 2), port, SHORT))).unwrap_err();
    assert!(
        nobody.to_string().starts_with("rank 0 did not come"),
        "{nobody}"
    );
}

/// A rank of another run or of another group size and a stranger are refused with the
/// reason; the group still comes together.
#[test]
fn wrong_peers_are_refused() {
    let port = free_port();
    std::thread::scope(|scope| {
        let main = scope.spawn(move || {
            let group = Group::connect(Some(&settings((0, 2), port, LONG)));
            group.unwrap().size()
        });
        let refused = |settings: GroupSettings| {
            let error = Group::connect(Some(&settings)).unwrap_err();
            assert!(matches!(error, GroupError::Refused { .. }), "{error}");
            error.to_string()
        };
        let other = GroupSettings {
            run: "another".to_string(),
            ..settings((1, 2), port, LONG)
        };
        let error = refused(other);
        assert!(
            error.contains("\"another\"") && error.contains("\"a run\""),
            "{error}"
        );
        let error = refused(settings((1, 3), port, LONG));
        assert!(
            error.contains("of a group of 3, this is a group of 2"),
            "{error}"
        );

        let mut stranger = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stranger.write_all(&[b'G'; 200]).unwrap();
        let mut reply = Vec::new();
        // Bytes that are not read end the connection with an error, after the reply.
        let _ = stranger.read_to_end(&mut reply);
        assert!(
            String::from_utf8_lossy(&reply).contains("no trainer"),
            "{reply:?}"
        );

        let right = Group::connect(Some(&settings((1, 2), port, LONG))).unwrap();
        assert_eq!((main.join().unwrap(), right.size()), (2, 2));
    });
}

/// What was refused is part of the error when the right one never comes.
#[test]
fn refusals_are_remembered() {
    let port = free_port();
    std::thread::scope(|scope| {
        let main = scope.spawn(move || {
            let group = Group::connect(Some(&settings((0, 2), port, SHORT)));
            group.unwrap_err().to_string()
        });
        let other = GroupSettings {
            run: "another".to_string(),
            ..settings((1, 2), port, LONG)
        };
        Group::connect(Some(&other)).unwrap_err();
        let error = main.join().unwrap();
        assert!(
            error.contains("rank 1 did not come") && error.contains("another"),
            "{error}"
        );
    });
}

/// A meeting point in use, and one that is no address, are errors at once.
#[test]
fn bad_meeting_points() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let start = Instant::now();
    let error = Group::connect(Some(&settings((0, 2), port, LONG))).unwrap_err();
    assert!(error.to_string().contains("cannot listen there"), "{error}");
    let mut nowhere = settings((1, 2), port, LONG);
    nowhere.ranks.meeting.host = "no host".to_string();
    let error = Group::connect(Some(&nowhere)).unwrap_err();
    assert!(error.to_string().starts_with("no host:"), "{error}");
    assert!(start.elapsed() < LONG);
}

/// Without a GPU or without NCCL the ranks end with an error that says so; nobody waits.
#[cfg(feature = "nccl")]
#[test]
fn nccl_or_an_error() {
    let port = free_port();
    let errors: Vec<Option<GroupError>> = std::thread::scope(|scope| {
        let start = |rank| {
            let settings = GroupSettings {
                backend: Backend::Nccl,
                ..settings((rank, 2), port, LONG)
            };
            scope.spawn(move || Group::connect(Some(&settings)).err())
        };
        let threads = [start(0), start(1)];
        threads.map(|it| it.join().unwrap()).into()
    });
    for error in errors.into_iter().flatten() {
        assert!(matches!(error, GroupError::Device(_)), "{error}");
    }
}

/// The additions of the tree, neighbours first.
#[test]
fn pairwise_order_is_a_tree() {
    assert_eq!(pairwise_order(1), []);
    assert_eq!(pairwise_order(4), [(0, 1), (2, 3), (0, 2)]);
    assert_eq!(pairwise_order(3), [(0, 1), (0, 2)]);
    let eight = pairwise_order(8);
    assert_eq!(eight[4..], [(0, 2), (4, 6), (0, 4)]);
}
