//! Flags and presets become checked settings, once. Every default has its one place here.

use data::{
    answer::Rule,
    record::Decoding,
    select::{Gate, Policy},
};

use super::{
    args::{
        AnnotationsArg, ConnectionArgs, DatasetArgs, FormatArg, MethodArgs, PreflightArgs, Preset,
        QuestionKeyArgs, SampleArgs, ScoreArgs,
    },
    dataset, policy,
};
use crate::{
    connection::{BearerToken, Server, ServerAddress},
    error::{ClientError, file_error},
    generate::BulkLimits,
    interrupt::Interrupt,
    loss::Annotations,
    preflight::OnTrouble,
    progress::ProgressMode,
    sampling::Sampling,
    score::{Chosen, GoldSource, LookUp, OutputKeys},
    session::{Context, FormatChoice, Method, load_prompt},
};

/// What the reference report used.
const REPORT_MAX_TOKENS: u32 = 256;
/// Meta's own limit for GSM8K; at 256 tokens 17 % of Llama-3.2-3B's answers are cut.
const MAX_TOKENS: u32 = 1024;

/// Few-shot, as in the paper.
const STAR_PROMPT: &str = "cot-8shot";

/// An extraction rule by its name.
pub(super) fn rule(name: &str) -> Result<Rule, ClientError> {
    name.parse()
        .map_err(|unknown: data::answer::UnknownRule| ClientError::Usage(unknown.to_string()))
}

pub(super) fn format(format: FormatArg) -> FormatChoice {
    match format {
        FormatArg::Auto => FormatChoice::Auto,
        FormatArg::Plain => FormatChoice::Plain,
        FormatArg::Chat => FormatChoice::Chat,
    }
}

/// The report's own settings cut and lose answers: that is to be seen, not to be stopped.
pub(super) fn preflight(preset: Preset, args: &PreflightArgs) -> OnTrouble {
    if args.no_preflight || preset == Preset::Report {
        OnTrouble::Warn
    } else {
        OnTrouble::Stop
    }
}

/// The method of an evaluation.
pub(super) fn eval_method(args: &MethodArgs, samples: u32) -> Result<Method, ClientError> {
    let default_prompt = match args.preset {
        Preset::Default | Preset::Report => "basic",
        Preset::Star => STAR_PROMPT,
    };
    let mut method = method(args, default_prompt)?;
    if samples > 1 && method.decoding.temperature == 0.0 {
        return Err(ClientError::Usage(format!(
            "--samples {samples} with --temperature 0: greedy samples of a question are all the same. \
             Give a temperature above 0, such as --temperature 0.7"
        )));
    }
    method.sampling = Sampling::only(samples);
    Ok(method)
}

pub(super) fn annotations(annotations: AnnotationsArg) -> Annotations {
    match annotations {
        AnnotationsArg::Strip => Annotations::Stripped,
        AnnotationsArg::Keep => Annotations::Kept,
    }
}

/// The method and filter of a bootstrapping run.
pub(super) fn bootstrap_method(
    args: &MethodArgs,
    samples: &SampleArgs,
    iteration: u32,
) -> Result<(Method, Policy), ClientError> {
    // The report's bootstrapping script has a line break that its evaluation has not.
    let (default_prompt, default_hint) = match args.preset {
        Preset::Default => ("basic", "hint"),
        Preset::Star => (STAR_PROMPT, "cot-8shot-hint"),
        Preset::Report => ("basic-forward", "hint"),
    };
    let mut method = method(args, default_prompt)?;
    method.hint_prompt = Some(load_prompt(
        samples.hint_prompt.as_deref().unwrap_or(default_hint),
    )?);
    method.resampling = Some(Decoding {
        temperature: samples.resample_temperature,
        top_p: samples.resample_top_p,
        ..method.decoding.clone()
    });
    check_decoding(method.resampling.as_ref())?;
    method.sampling = Sampling {
        samples: samples.samples,
        extra_samples: samples.extra_samples,
        max_forward: samples.forward_attempts.max(samples.samples),
        max_hints: samples.hint_attempts,
    };
    method.sampling.check(samples.resample_temperature)?;
    method.iteration = iteration;
    let mut accept = accepted_by(args.preset, method.rule);
    policy::suit_samples(&mut accept, samples.samples);
    policy::override_by(&mut accept, &samples.accept)?;
    Ok((method, accept))
}

/// What stands behind the flags that say what is accepted.
fn accepted_by(preset: Preset, rule: Rule) -> Policy {
    match preset {
        Preset::Report => Policy::report(),
        Preset::Default | Preset::Star if rule == Rule::Numeric => Policy::sound(),
        // A rule that takes the last number has no marker to insist on.
        Preset::Default | Preset::Star => Policy {
            fallback: Gate::Accept,
            ..Policy::sound()
        },
    }
}

/// What `star preflight` asks, and whether bootstrapping would learn an answer that no marker points
/// at.
pub(super) fn preflight_method(args: &MethodArgs) -> Result<(Method, Gate), ClientError> {
    let method = eval_method(args, 1)?;
    let accept = accepted_by(args.preset, method.rule);
    Ok((method, accept.fallback))
}

fn method(args: &MethodArgs, default_prompt: &str) -> Result<Method, ClientError> {
    let (max_tokens, rule) = match args.preset {
        Preset::Default | Preset::Star => (MAX_TOKENS, Rule::Numeric),
        Preset::Report => (REPORT_MAX_TOKENS, Rule::Report),
    };
    let rule = args.rule.as_deref().map_or(Ok(rule), self::rule)?;
    let decoding = Decoding {
        temperature: args.temperature,
        top_p: args.top_p,
        top_k: args.top_k,
        max_tokens: args.max_tokens.unwrap_or(max_tokens),
        stop: args.stop.clone(),
    };
    check_decoding(Some(&decoding))?;
    Ok(Method {
        prompt: load_prompt(args.prompt.as_deref().unwrap_or(default_prompt))?,
        hint_prompt: None,
        format: format(args.prompt_format),
        decoding,
        resampling: None,
        seed: args.seed,
        rule,
        sampling: Sampling::only(1),
        iteration: 0,
    })
}

/// Where `star score` finds texts and gold answers; reads the question file where one is named.
pub(super) fn output_keys(args: ScoreArgs) -> Result<OutputKeys, ClientError> {
    let QuestionKeyArgs {
        id,
        question,
        index,
    } = args.question;
    // Without a question file each of the keys does no more than tell questions apart.
    let mut told_apart = None;
    let gold = match (args.dataset, args.gold_key) {
        (None, gold) => {
            told_apart = id.or(question).or(index);
            gold.map_or(GoldSource::Usual, GoldSource::Key)
        }
        (Some(path), _) => {
            let path = dataset::locate(&path, &DatasetArgs::default())?;
            let look_up = match (id, question, index) {
                (Some(key), _, _) => LookUp::by_id(&path, key),
                (_, Some(key), _) => LookUp::by_question(&path, key),
                (_, _, Some(key)) => LookUp::by_index(&path, key),
                (None, None, None) => Err(ClientError::Usage(
                    "--dataset: say how a line names its question: --id-key, --question-key or \
                     --index-key"
                        .to_owned(),
                )),
            };
            GoldSource::Questions(Box::new(look_up?))
        }
    };
    Ok(OutputKeys {
        text: args.text_key,
        gold,
        question: told_apart,
        finish: args.finish_key,
        chosen: args.chosen.as_deref().map(chosen).transpose()?,
    })
}

fn chosen(text: &str) -> Result<Chosen, ClientError> {
    let (key, value) = text.split_once('=').ok_or_else(|| {
        ClientError::Usage(format!("--where {text:?}: expected KEY=VALUE, found no ="))
    })?;
    Ok(Chosen {
        key: key.to_owned(),
        value: value.to_owned(),
    })
}

/// Ranges of the sampling settings; the flag at fault is named.
pub(super) fn check_decoding(decoding: Option<&Decoding>) -> Result<(), ClientError> {
    let Some(decoding) = decoding else {
        return Ok(());
    };
    if !(decoding.temperature.is_finite() && decoding.temperature >= 0.0) {
        let found = decoding.temperature;
        return Err(ClientError::Usage(format!(
            "temperature: expected 0 or more, found {found}"
        )));
    }
    if !(decoding.top_p > 0.0 && decoding.top_p <= 1.0) {
        let found = decoding.top_p;
        return Err(ClientError::Usage(format!(
            "top_p: expected more than 0 and at most 1, found {found}"
        )));
    }
    Ok(())
}

/// Connects, waiting for a server that is still starting.
pub(super) async fn connect(
    server: &str,
    args: &ConnectionArgs,
    interrupt: &Interrupt,
) -> Result<Server, ClientError> {
    let address = ServerAddress::parse(server)?;
    let token = match &args.token_file {
        None => BearerToken::default(),
        Some(path) => {
            let text =
                std::fs::read_to_string(path).map_err(file_error("read the token in", path))?;
            BearerToken::new(&text)?
        }
    };
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(args.wait);
    loop {
        let error = match Server::connect(address.clone(), token.clone()).await {
            Ok(server) => return Ok(server),
            Err(error) => error,
        };
        // A server that starts first has no endpoint file, then an address where nobody listens.
        let may_come = matches!(
            error,
            ClientError::Unreachable { .. } | ClientError::File { .. }
        );
        if !may_come || tokio::time::Instant::now() >= deadline {
            return Err(error);
        }
        tokio::select! {
            () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
            () = interrupt.wait() => return Err(ClientError::Interrupted),
        }
    }
}

/// Everything a stage needs, for a server that answers.
pub(super) async fn context(
    server: Server,
    args: &ConnectionArgs,
    interrupt: Interrupt,
) -> Result<Context, ClientError> {
    let info = server.info().await?;
    let limits = BulkLimits {
        max_in_flight: match args.max_in_flight {
            Some(count) => count as usize,
            None => crate::generate::default_in_flight(&info),
        },
        ..BulkLimits::default()
    };
    Ok(Context {
        server,
        progress: ProgressMode::auto(),
        interrupt,
        limits,
        preflight: OnTrouble::Stop,
    })
}
