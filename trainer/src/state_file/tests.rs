use super::*;

fn write_arrays(path: &Path, arrays: &[(&str, Array<'_>)]) {
    let header = |(name, values): &(&str, Array<'_>)| Header {
        name: (*name).to_string(),
        dtype: values.dtype(),
        shape: vec![values.len()],
    };
    let headers: Vec<Header> = arrays.iter().map(header).collect();
    let mut writer = ArrayWriter::create(path, &headers).unwrap();
    for (_, values) in arrays {
        writer.write(*values).unwrap();
    }
    writer.finish().unwrap();
}

/// What is written comes back bit for bit, NaN payloads and empty arrays included.
#[test]
fn arrays_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.safetensors");
    let long: Vec<f32> = (0..CHUNK_VALUES as u32 + 3).map(f32::from_bits).collect();
    let half: Vec<bf16> = (0..CHUNK_VALUES + 3)
        .map(|i| bf16::from_bits(i as u16))
        .collect();
    let arrays = [
        ("b", Array::F32(&long)),
        ("a", Array::F32(&[])),
        ("c", Array::U8(&[7, 255, 0])),
        ("d", Array::Bf16(&half)),
    ];
    write_arrays(&path, &arrays);
    let mut b = vec![1.0; long.len()];
    let mut c = vec![1; 3];
    let mut d = vec![bf16::ONE; half.len()];
    let mut reader = ArrayReader::open(&path).unwrap();
    reader.read("b", ArrayMut::F32(&mut b)).unwrap();
    reader.read("a", ArrayMut::F32(&mut [])).unwrap();
    reader.read("c", ArrayMut::U8(&mut c)).unwrap();
    reader.read("d", ArrayMut::Bf16(&mut d)).unwrap();
    reader.finish().unwrap();
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert!(bits(&b) == bits(&long));
    assert_eq!(c, [7, 255, 0]);
    assert!(d.iter().zip(&half).all(|(a, b)| a.to_bits() == b.to_bits()));
}

/// Other names, types or sizes, arrays too many, and a cut file, are errors.
#[test]
fn mismatches_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.safetensors");
    write_arrays(&path, &[("a", Array::F32(&[1.0, 2.0]))]);
    let read =
        |name: &str, values: ArrayMut<'_>| ArrayReader::open(&path).unwrap().read(name, values);
    assert!(read("b", ArrayMut::F32(&mut [0.0; 2])).is_err());
    assert!(read("a", ArrayMut::F32(&mut [0.0; 3])).is_err());
    assert!(read("a", ArrayMut::U8(&mut [0; 8])).is_err());
    assert!(ArrayReader::open(&path).unwrap().finish().is_err());
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let read = ArrayReader::open(&path)
        .unwrap()
        .read("a", ArrayMut::F32(&mut [0.0; 2]));
    assert!(read.is_err());
}
