use super::*;

fn lookup(names: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<String> {
    move |wanted| {
        let found = names.iter().find(|(name, _)| *name == wanted);
        found.map(|(_, value)| (*value).to_string())
    }
}

fn ranks(numbers: (usize, usize), local: usize, host: &str, port: u16) -> Ranks {
    let meeting = MeetingPoint {
        host: host.to_string(),
        port,
    };
    Ranks::new(numbers, local, meeting).unwrap()
}

/// torchrun's names; its own store keeps `MASTER_PORT`, so ranks meet one above.
#[test]
fn torchrun_names() {
    let all = &[
        ("RANK", "3"),
        ("WORLD_SIZE", "4"),
        ("LOCAL_RANK", "1"),
        ("MASTER_ADDR", "gpu7"),
        ("MASTER_PORT", "29500"),
    ];
    let expected = Some(ranks((3, 4), 1, "gpu7", 29500));
    assert_eq!(parse(lookup(all)).unwrap(), expected);
    let with_store = |name: &str| {
        let flag = (name == "TORCHELASTIC_USE_AGENT_STORE").then(|| "True".to_string());
        flag.or_else(|| lookup(all)(name))
    };
    let expected = Some(ranks((3, 4), 1, "gpu7", 29501));
    assert_eq!(parse(with_store).unwrap(), expected);
}

/// SLURM's names: rank 0 is on the first host, and the port is the job's.
#[test]
fn slurm_names() {
    let found = parse(lookup(&[
        ("SLURM_PROCID", "5"),
        ("SLURM_STEP_NUM_TASKS", "8"),
        ("SLURM_LOCALID", "1"),
        ("SLURM_JOB_NODELIST", "gpu[012-014,020],cpu3"),
        ("SLURM_JOB_ID", "123456"),
        ("SLURM_STEP_ID", "2"),
    ]));
    assert_eq!(found.unwrap(), Some(ranks((5, 8), 1, "gpu012", 18458)));
    let found = parse(lookup(&[
        ("SLURM_PROCID", "0"),
        ("SLURM_STEP_NUM_TASKS", "2"),
        ("SLURM_LOCALID", "0"),
        ("SLURM_LAUNCH_NODE_IPADDR", "10.0.0.9"),
        ("MASTER_PORT", "4000"),
    ]));
    assert_eq!(found.unwrap(), Some(ranks((0, 2), 0, "10.0.0.9", 4000)));
}

/// No launcher, an allocation without a step, and groups of one are processes alone.
#[test]
fn alone() {
    for names in [
        &[][..],
        &[("SLURM_NTASKS", "4"), ("SLURM_JOB_ID", "7")],
        &[("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "1")],
        &[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")],
        &[("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")],
    ] {
        assert_eq!(parse(lookup(names)).unwrap(), None);
    }
}

/// Everything wrong is said at once, by name.
#[test]
fn all_problems_at_once() {
    let problems = |names| parse(lookup(names)).unwrap_err().to_string();
    let found = problems(&[("RANK", "two"), ("WORLD_SIZE", "4")]);
    for name in [
        "RANK = \"two\"",
        "LOCAL_RANK is not set",
        "MASTER_ADDR is not set",
        "MASTER_PORT is not set",
    ] {
        assert!(found.contains(name), "{found}");
    }
    let found = problems(&[("SLURM_PROCID", "1"), ("SLURM_STEP_NUM_TASKS", "x")]);
    for name in [
        "SLURM_STEP_NUM_TASKS = \"x\"",
        "SLURM_LOCALID is",
        "SLURM_JOB_ID is",
        "SLURM_JOB_NODELIST",
    ] {
        assert!(found.contains(name), "{found}");
    }
    let found = problems(&[
        ("RANK", "4"),
        ("WORLD_SIZE", "4"),
        ("LOCAL_RANK", "0"),
        ("MASTER_ADDR", "a"),
        ("MASTER_PORT", "0"),
    ]);
    assert!(found.contains("rank 4 in a group of 4"), "{found}");
    assert!(found.contains("a:0"), "{found}");
}

/// The first host of SLURM's lists.
#[test]
fn first_hosts() {
    for (list, expected) in [
        ("node1", Some("node1")),
        ("node1,node2", Some("node1")),
        ("n[3,5-7]", Some("n3")),
        ("n[03-05]-ib,x", Some("n03-ib")),
        ("", None),
        ("n[3", None),
    ] {
        assert_eq!(first_host(list).as_deref(), expected, "{list}");
    }
}
