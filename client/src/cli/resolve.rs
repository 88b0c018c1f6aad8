//! Flags and presets become checked settings, once. Every default has its one place here.

use data::{
    answer::Rule,
    record::Decoding,
    select::{Gate, Policy},
};

use super::args::{ConnectionArgs, FormatArg, MethodArgs, Preset, SampleArgs};
use crate::{
    connection::{BearerToken, Server, ServerAddress},
    error::{ClientError, file_error},
    generate::BulkLimits,
    interrupt::Interrupt,
    progress::ProgressMode,
    sampling::Sampling,
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

/// The method of an evaluation.
pub(super) fn eval_method(args: &MethodArgs) -> Result<Method, ClientError> {
    let default_prompt = match args.preset {
        Preset::Default | Preset::Report => "basic",
        Preset::Star => STAR_PROMPT,
    };
    method(args, default_prompt)
}

/// The method and filter of a bootstrapping run.
pub(super) fn bootstrap_method(
    args: &MethodArgs,
    samples: &SampleArgs,
    iteration: u32,
) -> Result<(Method, Policy), ClientError> {
    // The report's bootstrapping script has a line break that its evaluation has not.
    let default_prompt = match args.preset {
        Preset::Default => "basic",
        Preset::Star => STAR_PROMPT,
        Preset::Report => "basic-forward",
    };
    check_share("--max-hint-share", samples.max_hint_share)?;
    let mut method = method(args, default_prompt)?;
    method.hint_prompt = Some(load_prompt(&samples.hint_prompt)?);
    method.resampling = Some(Decoding {
        temperature: samples.resample_temperature,
        top_p: samples.resample_top_p,
        ..method.decoding.clone()
    });
    check_decoding(method.resampling.as_ref())?;
    method.sampling = Sampling {
        samples: 1,
        max_forward: samples.forward_attempts,
        max_hints: samples.hint_attempts,
    };
    method.iteration = iteration;
    let policy = match args.preset {
        // A rule that takes the last number has no marker to insist on.
        Preset::Default | Preset::Star if method.rule == Rule::Numeric => Policy::sound(),
        Preset::Default | Preset::Star => Policy {
            fallback: Gate::Accept,
            ..Policy::sound()
        },
        Preset::Report => Policy::report(),
    };
    Ok((
        method,
        Policy {
            max_hint_share: samples.max_hint_share,
            ..policy
        },
    ))
}

fn method(args: &MethodArgs, default_prompt: &str) -> Result<Method, ClientError> {
    let (max_tokens, rule) = match args.preset {
        Preset::Default | Preset::Star => (MAX_TOKENS, Rule::Numeric),
        Preset::Report => (REPORT_MAX_TOKENS, Rule::Report),
    };
    let rule = match &args.rule {
        None => rule,
        Some(name) => self::rule(name)?,
    };
    let decoding = Decoding {
        temperature: args.temperature,
        top_p: args.top_p,
        top_k: args.top_k,
        max_tokens: args.max_tokens.unwrap_or(max_tokens),
        stop: args.stop.clone(),
    };
    check_decoding(Some(&decoding))?;
    if args.limit == Some(0) {
        return Err(ClientError::Usage(
            "--limit: expected at least 1, found 0".to_owned(),
        ));
    }
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

fn check_share(flag: &str, share: f64) -> Result<(), ClientError> {
    if (0.0..=1.0).contains(&share) {
        return Ok(());
    }
    Err(ClientError::Usage(format!(
        "{flag}: expected 0 to 1, found {share}"
    )))
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
    })
}
