//! A log that is killed, torn and starved of disk.

use super::*;
use serde::Deserialize;
use std::sync::{Arc, Mutex};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    n: u32,
    text: String,
}

fn row(n: u32) -> Row {
    Row {
        n,
        text: format!("ü{n}\u{2028}\n"),
    }
}

fn open(path: &Path) -> (AppendLog, Vec<Row>) {
    AppendLog::open_and_read(path, FlushPolicy::default()).unwrap()
}

/// What was appended is read back, now and after the log was opened again.
#[test]
fn append_and_resume() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    let (mut log, rows) = open(&path);
    assert!(rows.is_empty());
    log.append(&row(1)).unwrap();
    log.append(&row(2)).unwrap();
    assert_eq!(read_log::<Row>(&path).unwrap().records, [row(1), row(2)]);
    log.close().unwrap();

    let (mut log, rows) = open(&path);
    assert_eq!((rows, log.repaired()), (vec![row(1), row(2)], None));
    log.append(&row(3)).unwrap();
    drop(log);
    assert_eq!(
        read_log::<Row>(&path).unwrap().records,
        [row(1), row(2), row(3)]
    );
}

/// Killed at any byte of the last line: whole lines stay, the torn one is kept aside, and appending
/// goes on as if it had never begun.
#[test]
fn torn_at_every_byte() {
    let folder = tempfile::tempdir().unwrap();
    let whole: Vec<u8> = [row(1), row(2)]
        .iter()
        .flat_map(|row| [serde_json::to_vec(row).unwrap(), b"\n".to_vec()].concat())
        .collect();
    for len in 0..=whole.len() {
        let path = folder.path().join(format!("{len}.jsonl"));
        std::fs::write(&path, &whole[..len]).unwrap();
        let num_whole = whole[..len].split(|&byte| byte == b'\n').count() - 1;
        let torn_from = whole[..len]
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |at| at + 1);

        let (mut log, rows) = open(&path);
        assert_eq!(rows, [row(1), row(2)][..num_whole], "cut at byte {len}");
        if torn_from == len {
            assert_eq!(log.repaired(), None, "cut at byte {len}");
        } else {
            let torn = log.repaired().unwrap();
            assert_eq!(torn.num_bytes as usize, len - torn_from);
            let kept = std::fs::read(&torn.kept_at).unwrap();
            assert_eq!(kept, [&whole[torn_from..len], b"\n"].concat());
        }
        log.append(&row(9)).unwrap();
        log.close().unwrap();
        let rows = read_log::<Row>(&path).unwrap();
        assert_eq!(rows.records.last(), Some(&row(9)), "cut at byte {len}");
        assert_eq!(rows.records.len(), num_whole + 1);
    }
}

/// A torn line longer than a block of the backward search is found too.
#[test]
fn torn_long_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    let bytes = [b"{\"n\":1,\"text\":\"\"}\n".to_vec(), vec![b'x'; 200_000]].concat();
    std::fs::write(&path, bytes).unwrap();
    let (log, rows) = open(&path);
    assert_eq!(
        (rows.len(), log.repaired().unwrap().num_bytes),
        (1, 200_000)
    );
}

/// A reader beside a writer sees whole lines only, and is told about the rest.
#[test]
fn reader_ignores_the_line_being_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    std::fs::write(&path, "{\"n\":1,\"text\":\"\"}\n{\"n\":2").unwrap();
    let contents = read_log::<Row>(&path).unwrap();
    assert_eq!((contents.records.len(), contents.num_torn_bytes), (1, 6));
}

/// A whole line that is not a record is an error with file and line number.
#[test]
fn bad_line_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    std::fs::write(&path, "{\"n\":1,\"text\":\"\"}\n{\"n\":\"one\"}\n").unwrap();
    let error = read_log::<Row>(&path).unwrap_err().to_string();
    assert!(error.contains("log.jsonl, line 2: invalid type"), "{error}");

    let error = read_log::<Row>(&folder.path().join("none"))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("cannot open") && error.contains("none"),
        "{error}"
    );
}

/// A second writer is refused and told who the first is; when the first is gone it may write.
#[test]
fn one_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    let (first, _) = open(&path);
    let error = AppendLog::open(&path, FlushPolicy::default()).unwrap_err();
    let holder = format!("process {}", std::process::id());
    assert!(matches!(error, LogError::Locked { .. }));
    assert!(error.to_string().contains(&holder), "{error}");
    drop(first);
    AppendLog::open(&path, FlushPolicy::default()).unwrap();
}

/// A disk of so many bytes in memory: it takes what fits, then says that it is full.
#[derive(Debug, Default)]
struct FakeDisk {
    bytes: Vec<u8>,
    capacity: usize,
    num_syncs: usize,
    refuses_truncate: bool,
}

#[derive(Clone, Debug)]
struct SharedDisk(Arc<Mutex<FakeDisk>>);

impl Write for SharedDisk {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let mut disk = self.0.lock().unwrap();
        let taken = buffer.len().min(disk.capacity - disk.bytes.len());
        if taken == 0 {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        disk.bytes.extend_from_slice(&buffer[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Disk for SharedDisk {
    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        if disk.refuses_truncate {
            return Err(io::Error::other("input/output error"));
        }
        disk.bytes.truncate(len as usize);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.lock().unwrap().num_syncs += 1;
        Ok(())
    }
}

fn fake(capacity: usize, policy: FlushPolicy) -> (SharedDisk, Tail) {
    let disk = SharedDisk(Arc::new(Mutex::new(FakeDisk {
        capacity,
        ..FakeDisk::default()
    })));
    (disk.clone(), Tail::new(Box::new(disk), 0, policy))
}

/// Full at every possible byte: the log ends in whole lines, the error says so, and when there is
/// room again the log goes on.
#[test]
fn full_disk_is_taken_back() {
    let line = b"0123456789\n";
    for capacity in 0..3 * line.len() {
        let (disk, mut tail) = fake(capacity, FlushPolicy::default());
        let now = Instant::now();
        let num_taken = (0..3)
            .take_while(|_| tail.append(line, now).is_ok())
            .count();
        assert_eq!(num_taken, capacity / line.len());
        assert_eq!(
            disk.0.lock().unwrap().bytes,
            line.repeat(num_taken),
            "capacity {capacity}"
        );

        disk.0.lock().unwrap().capacity = 1000;
        tail.append(line, now).unwrap();
        assert_eq!(disk.0.lock().unwrap().bytes, line.repeat(num_taken + 1));
    }
}

/// Where taking back fails too, the log refuses to go on rather than write after half a line.
#[test]
fn broken_log_refuses() {
    let (disk, mut tail) = fake(15, FlushPolicy::default());
    let now = Instant::now();
    tail.append(b"0123456789\n", now).unwrap();
    disk.0.lock().unwrap().refuses_truncate = true;
    assert!(matches!(
        tail.append(b"0123456789\n", now),
        Err(Failure::Append { .. })
    ));
    disk.0.lock().unwrap().capacity = 1000;
    let refused = tail
        .append(b"0123456789\n", now)
        .unwrap_err()
        .at(Path::new("log.jsonl"));
    assert!(
        refused.to_string().contains("open the log again"),
        "{refused}"
    );
    assert_eq!(disk.0.lock().unwrap().bytes.len(), 15);
}

/// Lines are forced to disk after so many, after so long, and at the end; never for nothing.
#[test]
fn flush_policy() {
    let policy = FlushPolicy {
        max_lines: 3,
        max_age: Duration::from_secs(5),
    };
    let (disk, mut tail) = fake(1000, policy);
    let num_syncs = || disk.0.lock().unwrap().num_syncs;
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    tail.append(b"1\n", at(0)).unwrap();
    tail.append(b"2\n", at(1)).unwrap();
    assert_eq!(num_syncs(), 0);
    tail.append(b"3\n", at(2)).unwrap();
    assert_eq!(num_syncs(), 1, "three lines");
    tail.append(b"4\n", at(6)).unwrap();
    assert_eq!(num_syncs(), 1);
    tail.append(b"5\n", at(7)).unwrap();
    assert_eq!(num_syncs(), 2, "five seconds after the last one");
    tail.flush(at(8)).unwrap();
    assert_eq!(num_syncs(), 2, "nothing new");
}

/// On the real thing: every append to `/dev/full` is an error that names the file.
#[test]
#[cfg(target_os = "linux")]
fn dev_full() {
    let Ok(file) = OpenOptions::new().append(true).open("/dev/full") else {
        eprintln!("SKIPPED: no /dev/full here");
        return;
    };
    let mut tail = Tail::new(Box::new(file), 0, FlushPolicy::default());
    let error = tail
        .append(b"1\n", Instant::now())
        .unwrap_err()
        .at(Path::new("/dev/full"));
    assert!(
        error
            .to_string()
            .contains("cannot append 2 bytes to /dev/full: No space"),
        "{error}"
    );
}
