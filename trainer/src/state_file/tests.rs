use super::*;

/// What is written comes back bit for bit, NaN payloads and empty arrays included.
#[test]
fn arrays_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.safetensors");
    let long: Vec<f32> = (0..CHUNK_VALUES as u32 + 3).map(f32::from_bits).collect();
    write_arrays(
        &path,
        &[
            ("b".into(), &long),
            ("a".into(), &[]),
            ("c".into(), &[-0.0]),
        ],
    )
    .unwrap();
    let (mut b, mut a, mut c) = (vec![1.0; long.len()], vec![], vec![1.0]);
    let mut wanted: [(String, &mut [f32]); 3] = [
        ("b".into(), &mut b),
        ("a".into(), &mut a),
        ("c".into(), &mut c),
    ];
    read_arrays(&path, &mut wanted).unwrap();
    assert!(
        b.iter()
            .zip(&long)
            .all(|(read, written)| read.to_bits() == written.to_bits())
    );
    assert_eq!(c[0].to_bits(), (-0.0f32).to_bits());
}

/// Other names or sizes, and a cut file, are errors.
#[test]
fn mismatches_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.safetensors");
    write_arrays(&path, &[("a".into(), &[1.0, 2.0])]).unwrap();
    assert!(read_arrays(&path, &mut [("b".into(), &mut [0.0; 2])]).is_err());
    assert!(read_arrays(&path, &mut [("a".into(), &mut [0.0; 3])]).is_err());
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(read_arrays(&path, &mut [("a".into(), &mut [0.0; 2])]).is_err());
}
