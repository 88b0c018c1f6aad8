use std::process::Command;

use super::*;

/// The vectors of RFC 3720, B.4, and the usual check value.
#[test]
fn crc_has_the_known_values() {
    assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
    assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
    let rising: Vec<u8> = (0..32).collect();
    assert_eq!(crc32c(&rising), 0x46DD_794E);
    assert_eq!(crc32c(b""), 0);
}

fn scalars(step: u64, loss: f64) -> Scalars {
    Scalars {
        step,
        at: UNIX_EPOCH + Duration::from_millis(1500 + step),
        values: vec![("train/loss", loss), ("train/lr", 0.5)],
    }
}

/// The events of a file, checksums checked.
fn read(path: &Path) -> Vec<Event> {
    let bytes = std::fs::read(path).unwrap();
    let mut rest = &bytes[..];
    let mut take = |length: usize| {
        let (taken, after) = rest.split_at(length);
        rest = after;
        taken
    };
    let mut num_left = bytes.len();
    let mut events = Vec::new();
    while num_left > 0 {
        let header = take(8);
        let length = u64::from_le_bytes(header.try_into().unwrap()) as usize;
        assert_eq!(take(4), masked_crc32c(header).to_le_bytes());
        let data = take(length);
        assert_eq!(take(4), masked_crc32c(data).to_le_bytes());
        events.push(Event::decode(data).unwrap());
        num_left -= 16 + length;
    }
    events
}

/// A file says its version, that a session starts, its history, and what is added; a second process
/// leaves one file again, without what it will do again.
#[test]
fn a_folder_has_one_file_with_the_whole_history() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = EventFile::create(dir.path(), &[]).unwrap();
    (1..=3).for_each(|step| file.append(&scalars(step, 2.0)).unwrap());
    drop(file);
    let mut file = EventFile::create(dir.path(), &[scalars(1, 2.0), scalars(2, 2.0)]).unwrap();
    file.append(&scalars(3, 1.0)).unwrap();
    let files = event_files(dir.path()).unwrap();
    assert_eq!(files, [file.path.clone()]);
    let events = read(&files[0]);
    assert_eq!(events[0].file_version.as_deref(), Some("brain.Event:2"));
    assert_eq!(events[1].session_log, Some(SessionLog { status: 1 }));
    let told: Vec<(i64, f32)> = events[2..]
        .iter()
        .map(|event| {
            let value = &event.summary.as_ref().unwrap().value[0];
            (event.step, value.simple_value.unwrap())
        })
        .collect();
    assert_eq!(told, [(1, 2.0), (2, 2.0), (3, 1.0)]);
    assert!((events[2].wall_time - 1.501).abs() < 1e-9);
}

/// A Python that has TensorBoard: of `STAR_TENSORBOARD_PYTHON`, or the first `python3`.
#[expect(clippy::disallowed_methods, reason = "tests may read the environment")]
fn python() -> Option<String> {
    let python = std::env::var("STAR_TENSORBOARD_PYTHON").unwrap_or("python3".to_string());
    let import = Command::new(&python)
        .args(["-c", "import tensorboard"])
        .output();
    if import.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    eprintln!(
        "SKIPPED: {python} has no tensorboard (pip install tensorboard; STAR_TENSORBOARD_PYTHON)"
    );
    None
}

/// PyPI's `tensorboard` reads the file: tags, steps, values.
#[test]
fn tensorboard_reads_the_file() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut file = EventFile::create(dir.path(), &[scalars(1, 2.0)]).unwrap();
    file.append(&scalars(2, 0.25)).unwrap();
    let script = "
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1])
events.Reload()
for tag in sorted(events.Tags()['scalars']):
    print(tag, [(each.step, each.value) for each in events.Scalars(tag)])
";
    let output = Command::new(python)
        .args(["-c", script])
        .arg(dir.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(
        told,
        "train/loss [(1, 2.0), (2, 0.25)]\ntrain/lr [(1, 0.5), (2, 0.5)]\n"
    );
}
