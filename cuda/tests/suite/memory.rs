//! Memory to and fro, graphs, pinned memory, several threads.

use half::bf16;

use crate::support::{Random, device};

#[test]
fn what_goes_up_comes_down() {
    let Some(device) = device() else { return };
    let values = Random::new(5).floats(1000);
    let mut on_gpu = device.upload(&values).unwrap();
    assert_eq!(device.download(&on_gpu).unwrap(), values);
    device
        .write(&[7.0_f32, 8.0], &mut on_gpu.slice_mut(998..))
        .unwrap();
    assert_eq!(
        device.download(&on_gpu.slice(997..)).unwrap(),
        [values[997], 7.0, 8.0]
    );
    device.set_zero(&mut on_gpu).unwrap();
    assert_eq!(device.download(&on_gpu).unwrap(), vec![0.0; 1000]);
    let (free, total) = device.memory().unwrap();
    assert!(free <= total && total > 0);
}

/// A graph computes what was recorded, on what its buffers hold when it is launched.
#[test]
fn a_graph_is_computed_at_each_launch() {
    let Some(device) = device() else { return };
    let mut gate_up = device.upload(&[bf16::from_f32(1.0); 16]).unwrap();
    let mut y = device.zeros::<bf16>(8).unwrap();
    // A kernel's first launch may load it, which a recording must not.
    cuda::swiglu(&device, &gate_up.as_view(), &mut y.as_view_mut(), 8).unwrap();
    device.set_zero(&mut y).unwrap();
    let mut graph = device
        .record(|| cuda::swiglu(&device, &gate_up.as_view(), &mut y.as_view_mut(), 8))
        .unwrap();
    assert_eq!(
        device.download(&y).unwrap(),
        [bf16::ZERO; 8],
        "only recorded"
    );
    graph.launch().unwrap();
    let first = device.download(&y).unwrap();
    assert_eq!(first, [bf16::from_f32(0.731_058_6); 8]);
    device
        .write(&[bf16::from_f32(2.0); 16], &mut gate_up)
        .unwrap();
    graph.launch().unwrap();
    assert_eq!(
        device.download(&y).unwrap(),
        [bf16::from_f32(3.523_188_3); 8]
    );
}

/// Pinned memory to the GPU and back, on another stream as well.
#[test]
fn pinned_memory_is_copied_there_and_back() {
    let Some(device) = device() else { return };
    let beside = device.fork().unwrap();
    let values = Random::new(6).floats(100);
    for device in [&device, &beside] {
        let mut there = device.pinned::<f32>(100).unwrap();
        there.as_mut_slice().unwrap().copy_from_slice(&values);
        let mut on_gpu = device.zeros::<f32>(100).unwrap();
        device.send(&there, 60, &mut on_gpu).unwrap();
        let mut back = device.pinned::<f32>(100).unwrap();
        device.receive(&on_gpu, &mut back).unwrap();
        device.mark().unwrap().wait().unwrap();
        let (sent, rest) = back.as_slice().unwrap().split_at(60);
        assert_eq!((sent, rest), (&values[..60], [0.0; 40].as_slice()));
        let error = device.send(&there, 101, &mut on_gpu).unwrap_err();
        assert_eq!(
            error.to_string(),
            "send: len: expected at most 100, found 101"
        );
    }
}

/// A thread that has never spoken to the driver may send, as the engine's does.
#[test]
fn another_thread_may_begin_with_pinned_memory() {
    let Some(device) = device() else { return };
    let there = device.pinned::<u32>(4).unwrap();
    let mut on_gpu = device.zeros::<u32>(4).unwrap();
    let sent = std::thread::scope(|scope| {
        let send = || device.send(&there, 4, &mut on_gpu);
        scope.spawn(send).join().unwrap()
    });
    sent.unwrap();
    assert_eq!(device.download(&on_gpu).unwrap(), [0; 4]);
}

/// More than a piece, and a few values: all arrive, whatever becomes of the host's.
#[test]
fn an_uploader_writes_piece_by_piece() {
    let Some(device) = device() else { return };
    let mut uploader = cuda::Uploader::new(&device).unwrap();
    let len = (40 << 20) / 4 + 3;
    let mut to = device.zeros::<f32>(len + 2).unwrap();
    let mut values: Vec<f32> = (0..len).map(|at| at as f32).collect();
    uploader.write(&values, &mut to.slice_mut(1..=len)).unwrap();
    values.fill(-1.0);
    uploader
        .write(&values[..1], &mut to.slice_mut(len + 1..))
        .unwrap();
    let found = device.download(&to).unwrap();
    assert_eq!((found[0], found[len + 1]), (0.0, -1.0));
    let expected = (0..len).map(|at| at as f32);
    assert!(found[1..=len].iter().copied().eq(expected));
    let error = uploader.write(&values, &mut to.slice_mut(..5)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("upload: len: expected at most 5, found {len}")
    );
}
