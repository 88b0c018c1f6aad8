use super::*;
use crate::testing::{random_folder, tiny_config};
use crate::tokenizer::{ModelTokenizer, read_tokenizer};

fn text_of(mut stream: DecodeStream, ids: &[u32]) -> (Vec<String>, String) {
    let mut pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    pieces.push(stream.finish().unwrap());
    let whole = pieces.concat();
    (pieces, whole)
}

/// A character of three bytes comes out once its third byte is there.
#[test]
fn characters_come_whole() {
    let dir = random_folder(tiny_config());
    let tokenizer = ModelTokenizer::load(dir.path()).unwrap();
    let ids = tokenizer.encode_text("a€b").unwrap();
    let (pieces, _) = text_of(tokenizer.decode_stream(), &ids);
    assert_eq!(pieces, ["a", "", "", "€", "b", ""]);
}

/// Whatever the ids (broken characters, special tokens, ids beyond the vocabulary), the pieces make
/// what decoding everything at once makes, for the byte table and for the general way.
#[test]
fn pieces_make_the_whole() {
    let dir = random_folder(tiny_config());
    let tokenizer = ModelTokenizer::load(dir.path()).unwrap();
    let raw = Arc::new(read_tokenizer(dir.path()).unwrap().0);
    let mut state = 1u64;
    for round in 0..200 {
        let ids: Vec<u32> = (0..24)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let random = (state >> 33) as u32;
                // Mostly lead and continuation bytes, so that characters come together at times.
                if random.is_multiple_of(4) {
                    random / 4 % 270
                } else {
                    6 + 0x80 + random / 4 % 0x80
                }
            })
            .collect();
        let expected = tokenizer.decode(&ids).unwrap();
        let (_, fast) = text_of(tokenizer.decode_stream(), &ids);
        assert_eq!(fast, expected, "round {round}: {ids:?}");
        let (_, general) = text_of(DecodeStream::window(Arc::clone(&raw)), &ids);
        assert_eq!(general, expected, "round {round}, window: {ids:?}");
    }
}
