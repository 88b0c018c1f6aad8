use serde_json::json;

use super::*;

fn tokens() -> TemplateTokens {
    TemplateTokens {
        bos: Some("<BOS>".into()),
        eos: Some("<EOS>".into()),
        pad: None,
    }
}

fn message(role: &str, content: &str) -> ChatMessage {
    ChatMessage {
        role: role.into(),
        content: content.into(),
    }
}

fn render(source: &str) -> Result<String> {
    let template = ChatTemplate::compile("t".into(), source.into(), DEFAULT_DATE, &tokens())?;
    template.render(&[message("user", " hi "), message("assistant", "yo")])
}

fn builtin(choice: &TemplateChoice, messages: &[ChatMessage]) -> String {
    let nowhere = Path::new("/nowhere");
    let template = ChatTemplate::load(choice, "01 Feb 2025", nowhere, &Json::Null, &tokens());
    template.unwrap().unwrap().render(messages).unwrap()
}

/// Hugging Face's form: a system turn there or not, the pinned date, trimmed turns.
#[test]
fn hf_llama32_writes_the_dates() {
    let text = builtin(
        &TemplateChoice::HfLlama32,
        &[message("system", " Be brief. "), message("user", " 1+1?\n")],
    );
    assert_eq!(
        text,
        "<BOS><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n\
         Today Date: 01 Feb 2025\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n\
         1+1?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    );
}

/// Meta's form has the turns alone.
#[test]
fn meta_llama3_writes_the_turns() {
    let text = builtin(&TemplateChoice::MetaLlama3, &[message("user", " 1+1?\n")]);
    assert_eq!(
        text,
        "<BOS><|start_header_id|>user<|end_header_id|>\n\n1+1?<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\n"
    );
}

/// What templates of real folders use: block trimming, Python's string methods, loop controls,
/// JSON as Python writes it, tokens that may be undefined.
#[test]
fn transformers_dialect_is_rendered() {
    assert_eq!(
        render("{% if true %}\n  a\n{% endif %}\n").unwrap(),
        "  a\n"
    );
    assert_eq!(
        render("{{ messages[0].content.strip() + '!' }}").unwrap(),
        "hi!"
    );
    assert_eq!(render("{{ messages[0]['role'].upper() }}").unwrap(), "USER");
    let looped = "{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}\
                  {{ m.role }}{% endfor %}";
    assert_eq!(render(looped).unwrap(), "user");
    assert_eq!(
        render("{{ {'a': [1, '<:>']} | tojson }}").unwrap(),
        r#"{"a": [1, "<:>"]}"#
    );
    assert_eq!(
        render("{{ {'a': 1} | tojson(indent=2) }}").unwrap(),
        "{\n  \"a\": 1\n}"
    );
    assert_eq!(
        render("{% if pad_token is defined %}x{% else %}{{ eos_token }}{% endif %}").unwrap(),
        "<EOS>"
    );
    assert_eq!(
        render("{% if not tools is defined %}{% set tools = none %}{% endif %}{{ tools is none }}")
            .unwrap(),
        "True"
    );
}

/// The date is pinned however a template asks for it.
#[test]
fn dates_are_pinned() {
    assert_eq!(render("{{ date_string }}").unwrap(), "26 Jul 2024");
    assert_eq!(
        render("{{ strftime_now('%d %b %Y') }}").unwrap(),
        "26 Jul 2024"
    );
    let long = "{{ strftime_now('%A %B %e, %Y; %F %y %m %a %H:%M:%S %%') }}";
    assert_eq!(
        render(long).unwrap(),
        "Friday July 26, 2024; 2024-07-26 24 07 Fri 00:00:00 %"
    );
    let error = render("{{ strftime_now('%Q') }}").unwrap_err().to_string();
    assert!(error.contains("format code %Q is not known"), "{error}");
    for wrong in [
        "2024-07-26",
        "31 Feb 2024",
        "1 Foo 2024",
        "",
        "26 Jul 2024 ",
    ] {
        let compiled = ChatTemplate::compile("t".into(), String::new(), wrong, &tokens());
        assert!(compiled.is_err(), "{wrong}");
    }
}

/// A template may refuse a conversation, in its own words.
#[test]
fn raise_exception_is_the_message() {
    let error = render("{{ raise_exception('roles must alternate') }}").unwrap_err();
    assert_eq!(
        error.to_string(),
        "chat template t: roles must alternate (line 1)"
    );
}

/// A template that does not parse is refused when it is loaded; one that runs on is stopped.
#[test]
fn bad_templates_are_refused() {
    let error = render("{% for %}").unwrap_err().to_string();
    assert!(
        error.starts_with("chat template t: does not parse: "),
        "{error}"
    );
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}.{% endfor %}{% endfor %}";
    let error = render(endless).unwrap_err().to_string();
    assert!(error.contains("fuel"), "{error}");
}

/// The folder's template is found in each of the three places it may be in.
#[test]
fn folder_templates_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let load = |config: &Json| {
        let choice = TemplateChoice::Auto;
        let found = ChatTemplate::load(&choice, DEFAULT_DATE, dir.path(), config, &tokens())?;
        Ok::<_, ModelError>(found.map(|template| template.render(&[]).unwrap()))
    };
    assert_eq!(load(&Json::Null).unwrap(), None);
    assert_eq!(
        load(&json!({ "chat_template": "text" })).unwrap(),
        Some("text".into())
    );
    let named = json!({ "chat_template": [
        { "name": "tool_use", "template": "tools" }, { "name": "default", "template": "list" },
    ]});
    assert_eq!(load(&named).unwrap(), Some("list".into()));
    assert!(load(&json!({ "chat_template": [] })).is_err());
    std::fs::write(dir.path().join("chat_template.jinja"), "file").unwrap();
    assert_eq!(load(&named).unwrap(), Some("file".into()));
}

/// Names on the command line.
#[test]
fn choices_are_parsed() {
    let parse = |text: &str| text.parse::<TemplateChoice>().unwrap();
    assert_eq!(parse("auto"), TemplateChoice::Auto);
    assert_eq!(parse("none"), TemplateChoice::None);
    assert_eq!(parse("hf-llama3.2"), TemplateChoice::HfLlama32);
    assert_eq!(parse("meta-llama3"), TemplateChoice::MetaLlama3);
    assert_eq!(parse("x.jinja"), TemplateChoice::File("x.jinja".into()));
}
