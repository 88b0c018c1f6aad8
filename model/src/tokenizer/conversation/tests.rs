use super::*;
use crate::template::TemplateChoice;
use crate::testing::{random_folder, shared_dir, tiny_config};
use crate::tokenizer::TokenizerOptions;

const EOT: u32 = 2;

fn load(template: &str) -> ModelTokenizer {
    let dir = random_folder(tiny_config());
    std::fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
    ModelTokenizer::load(dir.path()).unwrap()
}

fn meta_llama3() -> ModelTokenizer {
    let options = TokenizerOptions {
        template: TemplateChoice::MetaLlama3,
        ..TokenizerOptions::default()
    };
    let dir = random_folder(tiny_config());
    ModelTokenizer::load_with(dir.path(), &options).unwrap()
}

fn turns(turns: &[(&str, &str)]) -> Vec<ChatMessage> {
    let message = |(role, content): &(&str, &str)| ChatMessage {
        role: (*role).to_owned(),
        content: (*content).to_owned(),
    };
    turns.iter().map(message).collect()
}

fn three_turns() -> Vec<ChatMessage> {
    turns(&[
        ("system", "s"),
        ("user", "1+1?"),
        ("assistant", " 2<|eot_id|> "),
        ("user", "1+2?"),
        ("assistant", "3"),
        ("user", "thanks"),
    ])
}

/// Before each learned turn stand the ids of the prompt that would be asked there; a label range is
/// what the turn says and its end; nothing follows the last.
fn check(tokenizer: &ModelTokenizer, messages: &[ChatMessage], learned: &[usize]) {
    let example = tokenizer.encode_conversation(messages, learned).unwrap();
    assert_eq!(example.labels.len(), learned.len());
    for (range, &turn) in example.labels.iter().zip(learned) {
        let prompt = Prompt::Chat(messages[..turn].to_vec());
        let prompt_ids = tokenizer.encode_prompt(&prompt).unwrap();
        assert_eq!(example.ids[..range.start], prompt_ids, "turn {turn}");
        let said = messages[turn].content.trim();
        let whole = tokenizer.encode_training(&prompt, said).unwrap();
        assert_eq!(example.ids[..range.end], whole.ids, "turn {turn}");
    }
    assert_eq!(
        example.labels.last().map(|range| range.end),
        Some(example.ids.len())
    );
    let bos = tokenizer.token_id("<|begin_of_text|>").unwrap();
    assert_eq!(example.ids.iter().filter(|&&id| id == bos).count(), 1);
    assert!(!example.split_at_border);
}

/// For all turns of the assistant and for the last alone; special tokens that a turn spells out stay
/// text.
#[test]
fn labels_are_what_the_turns_say() {
    let tokenizer = meta_llama3();
    check(&tokenizer, &three_turns(), &[2, 4]);
    check(&tokenizer, &three_turns(), &[4]);
}

/// The same with Llama 3's own tokenizer.
#[test]
fn llama3_labels_are_what_the_turns_say() {
    let Some(dir) = shared_dir("llama3-tokenizer") else {
        return;
    };
    for template in ["hf-llama3.2", "meta-llama3"] {
        let options = TokenizerOptions {
            template: template.parse().unwrap(),
            ..TokenizerOptions::default()
        };
        let tokenizer = ModelTokenizer::load_with(&dir, &options).unwrap();
        check(&tokenizer, &three_turns(), &[2, 4]);
        let example = tokenizer.encode_conversation(&three_turns(), &[4]).unwrap();
        assert_eq!(example.ids[example.labels[0].clone()], [18, 128_009]);
    }
}

/// A template that writes no BOS gets one, and the labels move with it; a line break after the end of
/// a turn is not learned.
#[test]
fn labels_end_at_the_end_of_the_turn() {
    let chat = "{% for m in messages %}{{ m.role }}:{{ m.content | trim }}<|eot_id|>\n{% endfor %}\
                {% if add_generation_prompt %}assistant:{% endif %}";
    let tokenizer = load(chat);
    check(&tokenizer, &three_turns(), &[2, 4]);
    let example = tokenizer.encode_conversation(&three_turns(), &[2, 4]);
    let example = example.unwrap();
    let said: Vec<String> = example
        .labels
        .iter()
        .map(|range| tokenizer.decode(&example.ids[range.clone()]).unwrap())
        .collect();
    assert_eq!(said, ["2<|eot_id|>", "3"]);
    assert_eq!(example.ids.last(), Some(&EOT));
}

/// Templates that cannot be learned from are refused in a sentence.
#[test]
fn unfit_templates_are_refused() {
    let refused = |template: &str| {
        let tokenizer = load(template);
        let outcome = tokenizer.encode_conversation(&three_turns(), &[2, 4]);
        outcome.unwrap_err().to_string()
    };
    let endless = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}\
                   {% if add_generation_prompt %}assistant:{% endif %}";
    let error = refused(endless);
    assert!(
        error.contains("expected turn 2 to end with \"<|eot_id|>\""),
        "{error}"
    );
    let forgetful = "{% for m in messages %}{% if loop.last or m.role != 'assistant' %}\
                     {{ m.role }}:{{ m.content }}<|eot_id|>{% endif %}{% endfor %}\
                     {% if add_generation_prompt %}assistant:{% endif %}";
    let error = refused(forgetful);
    assert!(
        error.contains("not written as they are at generation"),
        "{error}"
    );
}

/// A token that would lie across the border of header and turn is split, which is told, and the ids
/// before the turn stay those of the prompt.
#[test]
fn tokens_across_the_border_are_split() {
    let dir = random_folder(tiny_config());
    let path = dir.path().join("tokenizer.json");
    let mut object: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    object["model"]["vocab"]["Ġa"] = serde_json::json!(262);
    object["model"]["merges"] = serde_json::json!([["Ġ", "a"]]);
    std::fs::write(&path, object.to_string()).unwrap();
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|eot_id|>{% endfor %}\
                    {% if add_generation_prompt %}assistant: {% endif %}";
    std::fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
    let tokenizer = ModelTokenizer::load(dir.path()).unwrap();
    let messages = turns(&[("user", "q"), ("assistant", "a")]);
    let example = tokenizer.encode_conversation(&messages, &[1]).unwrap();
    let prompt = Prompt::Chat(messages[..1].to_vec());
    let start = example.labels[0].start;
    assert_eq!(
        example.ids[..start],
        tokenizer.encode_prompt(&prompt).unwrap()
    );
    assert!(example.split_at_border);
    assert_eq!(tokenizer.decode(&example.ids[start..]).unwrap(), "a");
}
