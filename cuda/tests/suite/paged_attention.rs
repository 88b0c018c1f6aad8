//! Attention over a cache in blocks, split and shared, against plain loops.

#![expect(
    clippy::unwrap_used,
    reason = "a GPU that does not work fails the test"
)]

use cuda::{
    CacheElement, CudaSlice, Device, HEAD_DIMS, Heads, PagedCache, PagedPrefixes, PagedQueries,
    SharedPrefixes,
};
use half::bf16;

use crate::support::{Random, SEEDS, Value, assert_close, device, to_f32};

/// Probabilities are rounded to bf16 for the product with the values, and so is the result: two
/// halves of a unit in 8 bits, of values below 1.
const TOLERANCE: f32 = 1.0 / 128.0;
/// Scores of up to 30 are off by a few units of their last place, and with them the exponents.
const F32_TOLERANCE: f32 = 1e-5;

/// Sequences with (new tokens, context).
struct Case {
    heads: Heads,
    block_size: usize,
    sequences: Vec<(usize, usize)>,
    query: Vec<f32>,
    stride: usize,
    /// [`num_blocks`, G, `block_size`, D], of which the blocks of no sequence are NaN, and so is all beyond a
    /// context.
    keys: Vec<f32>,
    values: Vec<f32>,
    tables: Vec<u32>,
    max_blocks: usize,
    /// Sequences whose first so many tokens are the same.
    shared: Vec<(Vec<usize>, usize)>,
}

impl Case {
    fn new(random: &mut Random, heads: Heads, sequences: &[(usize, usize)]) -> Self {
        let block_size = 16 * random.below(1, 4);
        let num_tokens: usize = sequences.iter().map(|(new, _)| new).sum();
        let stride = (heads.num_heads + 2 * heads.num_groups) * heads.head_dim;
        let blocks_of = |context: usize| context.div_ceil(block_size);
        let num_blocks = 1 + sequences.iter().map(|(_, c)| blocks_of(*c)).sum::<usize>();
        let max_blocks = sequences
            .iter()
            .map(|(_, c)| blocks_of(*c))
            .max()
            .unwrap_or(0)
            + 1;
        let len = num_blocks * heads.num_groups * block_size * heads.head_dim;
        let mut case = Self {
            heads,
            block_size,
            sequences: sequences.to_vec(),
            // Large enough for sharp and flat distributions.
            query: (0..num_tokens * stride)
                .map(|_| bf16::from_f32(3.0 * random.float()).to_f32())
                .collect(),
            stride,
            keys: vec![f32::NAN; len],
            values: vec![f32::NAN; len],
            tables: vec![u32::MAX; sequences.len() * max_blocks],
            max_blocks,
            shared: Vec::new(),
        };
        // Blocks in a mixed order.
        let mut free: Vec<u32> = (0..num_blocks as u32).collect();
        for (sequence, (_, context)) in sequences.iter().enumerate() {
            for block in 0..blocks_of(*context) {
                let chosen = free.swap_remove(random.below(0, free.len()));
                case.tables[sequence * max_blocks + block] = chosen;
            }
            for position in 0..*context {
                for group in 0..heads.num_groups {
                    let at = case.at(sequence, position, group);
                    for i in at..at + heads.head_dim {
                        // Exact in e4m3.
                        case.keys[i] = random.below(0, 17) as f32 / 8.0 - 1.0;
                        case.values[i] = random.below(0, 17) as f32 / 8.0 - 1.0;
                    }
                }
            }
        }
        case
    }

    /// The sequences' first blocks, so many, are those of the first one.
    fn share(&mut self, sequences: &[usize], num_blocks: usize) {
        for sequence in sequences {
            for block in 0..num_blocks {
                self.tables[sequence * self.max_blocks + block] =
                    self.tables[sequences[0] * self.max_blocks + block];
            }
        }
        self.shared
            .push((sequences.to_vec(), num_blocks * self.block_size));
    }

    fn prefixes(&self, query_start: &[u32]) -> SharedPrefixes {
        let mut prefixes = SharedPrefixes::new(self.sequences.len());
        for (sequences, len) in &self.shared {
            prefixes
                .share(sequences, *len, query_start, self.heads)
                .unwrap();
        }
        prefixes.work.extend([0; 4]);
        prefixes
    }

    fn at(&self, sequence: usize, position: usize, group: usize) -> usize {
        let block = self.tables[sequence * self.max_blocks + position / self.block_size] as usize;
        let row = (block * self.heads.num_groups + group) * self.block_size;
        (row + position % self.block_size) * self.heads.head_dim
    }

    fn num_tokens(&self) -> usize {
        self.sequences.iter().map(|(new, _)| new).sum()
    }

    fn twin(&self, scales: [f32; 2]) -> Vec<f32> {
        let Heads {
            num_heads,
            num_groups,
            head_dim,
        } = self.heads;
        let mut out = Vec::new();
        let mut token = 0;
        for (sequence, (new, context)) in self.sequences.iter().enumerate() {
            for i in 0..*new {
                let num_keys = (context + i + 1).saturating_sub(*new);
                for head in 0..num_heads {
                    let query = &self.query[token * self.stride + head * head_dim..][..head_dim];
                    let at = |p: usize| self.at(sequence, p, head / (num_heads / num_groups));
                    let score = |p: usize| {
                        let keys = &self.keys[at(p)..][..head_dim];
                        let dot: f32 = query.iter().zip(keys).map(|(q, k)| q * k).sum();
                        dot * scales[0] / (head_dim as f32).sqrt()
                    };
                    let scores: Vec<f32> = (0..num_keys).map(score).collect();
                    let top = scores.iter().copied().fold(f32::MIN, f32::max);
                    let weights: Vec<f32> = scores.iter().map(|s| (s - top).exp()).collect();
                    let sum: f32 = weights.iter().sum();
                    let mut row = vec![0.0; head_dim];
                    for (p, weight) in weights.iter().enumerate() {
                        for (d, out) in row.iter_mut().enumerate() {
                            *out += weight / sum * self.values[at(p) + d] * scales[1];
                        }
                    }
                    out.extend(row);
                }
                token += 1;
            }
        }
        out
    }

    fn query_start(&self) -> Vec<u32> {
        let mut start = vec![0];
        for (new, _) in &self.sequences {
            start.push(start[start.len() - 1] + *new as u32);
        }
        start
    }

    /// `decode`, that as a `graph`, or `prefill`, by the GPU.
    fn run<A: Value, E: CacheElement<A>>(
        &self,
        device: &Device,
        kernel: &str,
        (convert, scales): (impl Fn(f32) -> E, [f32; 2]),
    ) -> Vec<f32> {
        let mut inputs = Inputs::<A, E>::new(self, device, convert);
        let len = self.num_tokens() * self.heads.num_heads * self.heads.head_dim;
        let mut out = device.upload(&vec![A::of(f32::NAN); len]).unwrap();
        let heads = self.heads;
        if kernel == "prefill" {
            let lens: Vec<usize> = self.sequences.iter().map(|(new, _)| *new).collect();
            let mut work = cuda::prefill_work(&lens, heads);
            work.extend([u32::MAX, 7]);
            let work = device.upload(&work).unwrap();
            let to = (&work.as_view(), &mut out.as_view_mut());
            inputs.with(self, scales, |queries, cache| {
                cuda::paged_prefill(device, queries, cache, heads, to).unwrap();
            });
            return to_f32(&device.download(&out).unwrap());
        }
        let num = (self.sequences.len(), self.num_tokens());
        let len = cuda::paged_decode_scratch_len::<A>(device, num.0, num.1, heads);
        let mut scratch = device.upload(&vec![f32::NAN; len.unwrap()]).unwrap();
        let mut decode = |inputs: &Inputs<A, E>, out: &mut CudaSlice<A>| {
            let to = (&mut out.as_view_mut(), &mut scratch.as_view_mut());
            inputs.with(self, scales, |queries, cache| {
                cuda::paged_decode(device, queries, cache, heads, to)
            })
        };
        if kernel == "graph" {
            // All padding at first; the contexts come after the recording.
            let empty = device.zeros(inputs.context.len()).unwrap();
            let context = std::mem::replace(&mut inputs.context, empty);
            decode(&inputs, &mut out).unwrap();
            let mut graph = device.record(|| decode(&inputs, &mut out)).unwrap();
            let padding = vec![0.0; out.len()];
            assert_eq!(to_f32(&device.download(&out).unwrap()), padding);
            device.copy(&context, &mut inputs.context).unwrap();
            graph.launch().unwrap();
        } else {
            decode(&inputs, &mut out).unwrap();
        }
        to_f32(&device.download(&out).unwrap())
    }

    fn run_shared<E: CacheElement<bf16>>(
        &self,
        device: &Device,
        (convert, scales): (impl Fn(f32) -> E, [f32; 2]),
    ) -> Vec<f32> {
        let inputs = Inputs::<bf16, E>::new(self, device, convert);
        let (num_tokens, num_sequences) = (self.num_tokens(), self.sequences.len());
        let heads = self.heads;
        let len = num_tokens * heads.num_heads * heads.head_dim;
        let mut out = device.upload(&vec![bf16::NAN; len]).unwrap();
        let len =
            cuda::paged_decode_shared_scratch_len::<bf16>(device, num_sequences, num_tokens, heads);
        let mut scratch = device.upload(&vec![f32::NAN; len.unwrap()]).unwrap();
        let prefixes = self.prefixes(&self.query_start());
        let prefix_len = device.upload(&prefixes.prefix_len).unwrap();
        let work = device.upload(&prefixes.work).unwrap();
        let members = device.upload(&prefixes.members).unwrap();
        let prefixes = PagedPrefixes {
            prefix_len: &prefix_len.as_view(),
            work: &work.as_view(),
            members: &members.as_view(),
        };
        let to = (&mut out.as_view_mut(), &mut scratch.as_view_mut());
        inputs.with(self, scales, |queries, cache| {
            cuda::paged_decode_shared(device, queries, (cache, prefixes), heads, to).unwrap();
        });
        to_f32(&device.download(&out).unwrap())
    }

    /// In every kind of cache.
    fn check(&self, device: &Device, kernel: &str) {
        let scales = [0.75, 1.5];
        let (plain, scaled) = (self.twin([1.0; 2]), self.twin(scales));
        let e4m3 = (e4m3_of_eighths, scales);
        let found = self.run::<bf16, bf16>(device, kernel, (bf16::from_f32, [1.0; 2]));
        assert_close(&found, &plain, TOLERANCE);
        let found = self.run::<bf16, u8>(device, kernel, e4m3);
        assert_close(&found, &scaled, TOLERANCE);
        let found = self.run::<f32, f32>(device, kernel, (|value| value, [1.0; 2]));
        assert_close(&found, &plain, F32_TOLERANCE);
        let found = self.run::<f32, u8>(device, kernel, e4m3);
        assert_close(&found, &scaled, F32_TOLERANCE);
    }

    fn check_shared(&self, device: &Device) {
        let found = self.run_shared(device, (bf16::from_f32, [1.0; 2]));
        assert_close(&found, &self.twin([1.0; 2]), TOLERANCE);
        let scales = [0.75, 1.5];
        let found = self.run_shared(device, (e4m3_of_eighths, scales));
        assert_close(&found, &self.twin(scales), TOLERANCE);
    }
}

/// A case on the GPU.
struct Inputs<A, E> {
    query: CudaSlice<A>,
    start: CudaSlice<u32>,
    context: CudaSlice<u32>,
    tables: CudaSlice<u32>,
    keys: CudaSlice<E>,
    values: CudaSlice<E>,
}

impl<A: Value, E: CacheElement<A>> Inputs<A, E> {
    fn new(case: &Case, device: &Device, convert: impl Fn(f32) -> E) -> Self {
        let convert = |values: &[f32]| values.iter().map(|v| convert(*v)).collect::<Vec<E>>();
        let query: Vec<A> = case.query.iter().map(|value| A::of(*value)).collect();
        let context: Vec<u32> = case.sequences.iter().map(|(_, c)| *c as u32).collect();
        Self {
            query: device.upload(&query).unwrap(),
            start: device.upload(&case.query_start()).unwrap(),
            context: device.upload(&context).unwrap(),
            tables: device.upload(&case.tables).unwrap(),
            keys: device.upload(&convert(&case.keys)).unwrap(),
            values: device.upload(&convert(&case.values)).unwrap(),
        }
    }

    fn with<R>(
        &self,
        case: &Case,
        scales: [f32; 2],
        run: impl FnOnce(PagedQueries<'_, A>, PagedCache<'_, E>) -> R,
    ) -> R {
        let queries = PagedQueries {
            query: &self.query.as_view(),
            stride: case.stride,
            query_start: &self.start.as_view(),
            context_len: &self.context.as_view(),
            block_tables: &self.tables.as_view(),
        };
        let cache = PagedCache {
            keys: &self.keys.as_view(),
            values: &self.values.as_view(),
            block_size: case.block_size,
            scales,
        };
        run(queries, cache)
    }
}

/// The bits of a multiple of 1/8 in [-1, 1], or of NaN.
fn e4m3_of_eighths(value: f32) -> u8 {
    if value.is_nan() {
        return 0x7f;
    }
    let bits = value.abs().to_bits();
    let magnitude = if bits == 0 {
        0
    } else {
        (((bits >> 23) - 120) << 3 | (bits >> 20 & 7)) as u8
    };
    magnitude | if value < 0.0 { 0x80 } else { 0 }
}

fn heads(num_heads: usize, num_groups: usize, head_dim: usize) -> Heads {
    Heads {
        num_heads,
        num_groups,
        head_dim,
    }
}

#[test]
fn decode_is_its_twin() {
    let Some(device) = device() else { return };
    for seed in SEEDS {
        let mut random = Random::new(seed);
        let head_dim = HEAD_DIMS[seed as usize % 3];
        let group = random.below(1, 9);
        let num_groups = random.below(1, 3);
        // Many sequences are not split, few are; one is padding, another a single token.
        let mut sequences = vec![(1, 0), (1, 1)];
        for _ in 0..random.below(0, 7) {
            let new = random.below(1, 16 / group + 1);
            sequences.push((new, new + random.below(0, 150)));
        }
        Case::new(
            &mut random,
            heads(group * num_groups, num_groups, head_dim),
            &sequences,
        )
        .check(&device, "decode");
    }
}

#[test]
fn a_long_context_is_split() {
    let Some(device) = device() else { return };
    let mut random = Random::new(9);
    Case::new(&mut random, heads(3, 1, 64), &[(1, 700)]).check(&device, "decode");
    Case::new(&mut random, heads(16, 1, 128), &[(1, 65)]).check(&device, "decode");
    Case::new(&mut random, heads(4, 2, 32), &[(2, 90), (1, 300)]).check(&device, "decode");
}

#[test]
fn more_rows_than_decode_takes_are_nan() {
    let Some(device) = device() else { return };
    for context in [20, 400] {
        let case = Case::new(&mut Random::new(7), heads(4, 1, 64), &[(5, context)]);
        let found = case.run::<bf16, bf16>(&device, "decode", (bf16::from_f32, [1.0; 2]));
        let (first, rest) = found.split_at(16 * 64);
        assert_close(first, &case.twin([1.0; 2])[..16 * 64], TOLERANCE);
        assert!(rest.iter().all(|value| value.is_nan()));
    }
}

#[test]
fn a_recorded_decode_follows_the_contexts() {
    let Some(device) = device() else { return };
    for sequences in [
        vec![(1, 300)],
        vec![(1, 40), (2, 19), (1, 5), (1, 0), (1, 64), (1, 1), (1, 16)],
    ] {
        Case::new(&mut Random::new(8), heads(4, 2, 64), &sequences).check(&device, "graph");
    }
}

#[test]
fn what_sequences_share_is_read_once_with_the_same_result() {
    let Some(device) = device() else { return };
    for seed in SEEDS {
        let mut random = Random::new(20 + seed);
        let head_dim = HEAD_DIMS[seed as usize % 3];
        // Room for up to 3 blocks of up to 48; more tokens than a tile has.
        let mut sequences = vec![(1, 0), (1, 20)];
        for _ in 0..random.below(5, 10) {
            sequences.push((random.below(1, 3), 147 + random.below(0, 40)));
        }
        let num = sequences.len();
        let mut case = Case::new(&mut random, heads(8, 1, head_dim), &sequences);
        case.share(&(2..num - 2).collect::<Vec<_>>(), random.below(1, 4));
        case.share(&[num - 1, num - 2], 1);
        case.check_shared(&device);
        if seed == 1 {
            case.shared.clear();
            case.check_shared(&device);
        }
    }
}

#[test]
fn a_prefix_is_of_whole_tiles_and_shared_once() {
    let heads = heads(2, 1, 64);
    let mut prefixes = SharedPrefixes::new(3);
    let error = prefixes
        .share(&[0, 1], 20, &[0, 1, 2, 3], heads)
        .unwrap_err();
    let expected = "SharedPrefixes::share: prefix_len: expected a multiple of 16, found 20";
    assert_eq!(error.to_string(), expected);
    prefixes.share(&[0, 2], 32, &[0, 1, 2, 3], heads).unwrap();
    assert_eq!(prefixes.prefix_len, [32, 0, 32]);
    assert_eq!(prefixes.members, [0, 2]);
    assert_eq!(prefixes.work, [0, 2, 0, 32]);
    let error = prefixes.share(&[2], 32, &[0, 1, 2, 3], heads).unwrap_err();
    let expected =
        "SharedPrefixes::share: sequences: expected sequences of the batch, once each, found 2";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn prefill_is_its_twin() {
    let Some(device) = device() else { return };
    for seed in SEEDS {
        let mut random = Random::new(10 + seed);
        let head_dim = HEAD_DIMS[seed as usize % 3];
        let group = random.below(1, 5);
        let num_groups = random.below(1, 3);
        let mut sequences = vec![(1, 0), (0, 0)];
        for _ in 0..random.below(1, 3) {
            let new = random.below(1, 60);
            sequences.push((new, new + random.below(0, 100)));
        }
        Case::new(
            &mut random,
            heads(group * num_groups, num_groups, head_dim),
            &sequences,
        )
        .check(&device, "prefill");
    }
}

/// Of a row's result, nothing depends on how the work was cut.
#[test]
fn attention_is_the_same_bits_again() {
    let Some(device) = device() else { return };
    let case = Case::new(&mut Random::new(4), heads(6, 2, 64), &[(2, 90), (1, 33)]);
    let run = || case.run::<bf16, bf16>(&device, "decode", (bf16::from_f32, [1.0; 2]));
    assert_eq!(run(), run());
}

#[test]
fn what_does_not_fit_is_an_error() {
    let Some(device) = device() else { return };
    let check = |heads: Heads, block_size: usize, expected: &str| {
        let cache = device.zeros::<bf16>(2 * 16 * 128).unwrap();
        let query = device.zeros::<bf16>(512).unwrap();
        let one = device.zeros::<u32>(1).unwrap();
        let two = device.zeros::<u32>(2).unwrap();
        let queries = PagedQueries {
            query: &query.as_view(),
            stride: 512,
            query_start: &two.as_view(),
            context_len: &one.as_view(),
            block_tables: &one.as_view(),
        };
        let cache = PagedCache {
            keys: &cache.as_view(),
            values: &cache.as_view(),
            block_size,
            scales: [1.0; 2],
        };
        let mut out = device
            .zeros::<bf16>(heads.num_heads * heads.head_dim)
            .unwrap();
        let mut scratch = device.zeros::<f32>(1).unwrap();
        let to = (&mut out.as_view_mut(), &mut scratch.as_view_mut());
        let error = cuda::paged_decode(&device, queries, cache, heads, to).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check(
        heads(2, 1, 80),
        16,
        "paged_decode: D: expected 32, 64 or 128, found 80",
    );
    check(
        heads(2, 1, 128),
        8,
        "paged_decode: block size: expected a multiple of 16, found 8",
    );
    check(
        heads(3, 2, 64),
        16,
        "paged_decode: H: expected a multiple of 2, found 3",
    );
    check(
        heads(2, 1, 128),
        48,
        "paged_decode: keys: expected a multiple of 6144, found 4096",
    );
    check(
        heads(2, 1, 128),
        16,
        "paged_decode: scratch: expected at least 3120 values, found 1",
    );
}
