use super::*;

fn make(out: &Path, name: &str, steps: Option<u64>) {
    let state = out.join(name).join(STATE_FOLDER);
    std::fs::create_dir_all(out.join(name)).unwrap();
    if let Some(steps) = steps {
        std::fs::create_dir(&state).unwrap();
        let text = format!(r#"{{"position":{{"counters":{{"steps":{steps}}}}}}}"#);
        std::fs::write(state.join(STATE_FILE), text).unwrap();
    }
}

fn names(out: &Path) -> Vec<String> {
    let folders = list(out).unwrap().into_iter();
    folders.map(|folder| folder.name.to_string()).collect()
}

/// Most steps first, an epoch before a step at the same place; checkpoints without a state, whose
/// place is not known, come last. Other names are nobody's business.
#[test]
fn newest_has_most_steps() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), "epoch_9", None);
    make(dir.path(), "epoch_10", None);
    make(dir.path(), "step_400", Some(400));
    make(dir.path(), "step_1000", Some(1000));
    make(dir.path(), "epoch_11", Some(1000));
    make(dir.path(), "step_30", None);
    for other in ["epoch_x", "steps", ".step_7.tmp-1", "model"] {
        make(dir.path(), other, None);
    }
    let expected = [
        "epoch_11",
        "step_1000",
        "step_400",
        "epoch_10",
        "epoch_9",
        "step_30",
    ];
    assert_eq!(names(dir.path()), expected);
}

/// The state stays in the newest only, whichever kind; epochs all stay, steps up to the limit.
#[test]
fn older_states_and_steps_go() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), "epoch_1", Some(10));
    make(dir.path(), "step_14", None);
    make(dir.path(), "step_17", Some(17));
    make(dir.path(), "step_20", Some(20));
    clear_older(dir.path(), CheckpointName::Step(20), 2).unwrap();
    assert_eq!(names(dir.path()), ["step_20", "epoch_1", "step_17"]);
    let has_state = |name: &str| dir.path().join(name).join(STATE_FOLDER).exists();
    assert!(has_state("step_20") && !has_state("step_17") && !has_state("epoch_1"));
    let hidden = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(hidden, 3, "nothing is left aside");
}

/// What a killed process leaves has a name of its own.
#[test]
fn leftovers_are_known() {
    for name in [".epoch_1.tmp-5", ".step_12.tmp-5-old"] {
        assert!(is_leftover(Path::new(name)), "{name}");
    }
    for name in [".epoch_1.invalid-1", "epoch_1", ".model.tmp-5"] {
        assert!(!is_leftover(Path::new(name)), "{name}");
    }
}
