//! `star run`, `star demo` and `star random-model`: the commands that carry server and trainer.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use model::random::{PRESETS, RandomModelSpec, preset, random_model as write_random_model};

use super::{
    args::{ConnectionArgs, DemoArgs, HardwareArgs, Preset, RandomModelArgs, RunArgs},
    commands::print,
    dataset, resolve, settings,
};
use crate::{
    clock,
    compare::p_text,
    error::ClientError,
    interrupt::Interrupt,
    progress::ProgressMode,
    report::{REPORT_FILE, results::Results},
    run::{Experiment, Hardware, ServerSide, Settings},
};

pub(super) async fn run(args: RunArgs, interrupt: Interrupt) -> Result<(), ClientError> {
    let mut settings = match args.preset {
        Preset::Default => Settings::default_preset(),
        Preset::Star => Settings::star(),
        Preset::Report => Settings::report(),
    };
    settings::override_by(&mut settings, &args.settings)?;
    settings.keys = dataset::keys(&args.questions);
    let place = (&args.server.server, args.server.server_checkpoint_root);
    let server = if let (Some(server), Some(checkpoint_root)) = place {
        let server = resolve::connect(server, &args.server.connection, &interrupt).await?;
        ServerSide::Remote {
            server: Box::new(server),
            checkpoint_root,
            token_file: args.server.connection.token_file.clone(),
        }
    } else {
        refuse_in_vain(&args.server.connection)?;
        ServerSide::Embedded
    };
    finish(Experiment {
        model: args.model,
        train: dataset::locate(&args.train, &args.questions)?,
        test: dataset::locate(&args.test, &args.questions)?,
        out: args.out,
        settings,
        server,
        hardware: hardware(&args.server.hardware),
        max_in_flight: args
            .server
            .connection
            .max_in_flight
            .map(|count| count as usize),
        interrupt,
        progress: ProgressMode::auto(),
        preflight: resolve::preflight(args.preset, &args.settings.preflight),
    })
    .await
}

/// The server in this process wants no token, and nobody waits for it.
fn refuse_in_vain(args: &ConnectionArgs) -> Result<(), ClientError> {
    let flag = match args {
        ConnectionArgs {
            token_file: Some(_),
            ..
        } => "--token-file",
        ConnectionArgs { wait: 1.., .. } => "--wait",
        _ => return Ok(()),
    };
    Err(ClientError::Usage(format!(
        "{flag} is for a server that runs elsewhere: give --server and --server-checkpoint-root, \
         too, or leave it out"
    )))
}

pub(super) async fn demo(args: DemoArgs, interrupt: Interrupt) -> Result<(), ClientError> {
    let demo = match args.demo_dir {
        Some(folder) => folder,
        None => demo_folder()?,
    };
    let mut settings = Settings::demo();
    settings::override_by(&mut settings, &args.settings)?;
    let out = args.out.unwrap_or_else(|| {
        let now = clock::compact(clock::unix_seconds(SystemTime::now()));
        PathBuf::from("runs").join(format!("demo-{now}"))
    });
    finish(Experiment {
        model: demo.join("model"),
        train: demo.join("train.jsonl"),
        test: demo.join("test.jsonl"),
        out,
        settings,
        server: ServerSide::Embedded,
        hardware: hardware(&args.hardware),
        max_in_flight: None,
        interrupt,
        progress: ProgressMode::auto(),
        preflight: resolve::preflight(Preset::Default, &args.settings.preflight),
    })
    .await
}

fn hardware(args: &HardwareArgs) -> Hardware {
    Hardware {
        device: args.device,
        gpu_memory_utilization: args.gpu_memory_utilization,
        threads: args.threads,
    }
}

/// `data/demo` of this folder or one above it, else of the sources this program was built from.
fn demo_folder() -> Result<PathBuf, ClientError> {
    let here = std::env::current_dir().unwrap_or_default();
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf);
    here.ancestors()
        .map(Path::to_path_buf)
        .chain(built_from)
        .map(|folder| folder.join("data/demo"))
        .find(|folder| folder.join("train.jsonl").is_file())
        .ok_or_else(|| {
            ClientError::Usage(
                "found no data/demo/train.jsonl here or in a folder above; run this in the \
                 repository, or give --demo-dir"
                    .to_owned(),
            )
        })
}

async fn finish(experiment: Experiment) -> Result<(), ClientError> {
    let out = experiment.out.clone();
    experiment
        .progress
        .say(&format!("experiment in {}", out.display()));
    let results = Box::pin(crate::run::run(experiment)).await?;
    print(&table(&results, &out))
}

/// What a person wants to know at the end.
fn table(results: &Results, out: &Path) -> String {
    let row = |name: &str, summary: &crate::eval::EvalSummary| {
        format!("{name:<12}  {}", summary.headline())
    };
    let mut lines = vec![
        format!(
            "accuracy on {} test questions (95 % Wilson)",
            results.inputs.num_test
        ),
        row("zero-shot", &results.zero_shot),
        row(&results.vanilla.name, &results.vanilla.test),
        row(&results.star.name, &results.star.test),
        String::new(),
        "paired on the same questions (exact McNemar)".to_owned(),
    ];
    for comparison in &results.comparisons {
        lines.push(format!(
            "{:<26}  {:+.1} points [{:+.1}, {:+.1}]  p = {}",
            format!("{} -> {}", comparison.first, comparison.second),
            comparison.difference * 100.0,
            comparison.interval.low * 100.0,
            comparison.interval.high * 100.0,
            p_text(comparison.p_value)
        ));
    }
    lines.push(String::new());
    lines.push(format!("bootstrap     {}", results.bootstrap.equation()));
    let times = results
        .stages
        .iter()
        .map(|it| format!("{} {:.1} s", it.stage, it.seconds));
    let times: Vec<String> = times.collect();
    lines.push(format!(
        "wall time     {:.1} s: {}",
        results.total_seconds(),
        times.join(", ")
    ));
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    lines.push(format!(
        "peak memory   {:.0} MiB (client and server {:.0}, trainer {:.0})",
        mib(results.memory.total_bytes()),
        mib(results.memory.client_bytes),
        mib(results.memory.trainer_bytes)
    ));
    lines.push(format!("report        {}", out.join(REPORT_FILE).display()));
    lines.join("\n")
}

pub(super) fn random_model(args: &RandomModelArgs) -> Result<(), ClientError> {
    let config = preset(&args.preset).ok_or_else(|| {
        let known = PRESETS
            .iter()
            .map(|(name, what)| format!("{name} ({what})"));
        let known: Vec<String> = known.collect();
        ClientError::Usage(format!(
            "--preset {:?}: expected one of {}",
            args.preset,
            known.join(", ")
        ))
    })?;
    let spec = RandomModelSpec {
        config,
        seed: args.seed,
        tokenizer_from: args.tokenizer.clone(),
    };
    write_random_model(&spec, &args.out).map_err(|cause| ClientError::BadFile {
        path: args.out.clone(),
        problem: cause.to_string(),
    })?;
    print(&format!(
        "{} written; serve it with gen-server --model",
        args.out.display()
    ))
}
