//! Draws against two twins: one that computes the same integers by sorting, bit by bit, and the
//! CPU's sampler in f64, with which nearly every draw must agree.

use cuda::{
    Device, LogitEdit, RowPurpose, SampleOutput, SampleRow, SampledLogprobs, SampledRows, sample,
};

use crate::support::{Random, SEEDS, device};

#[derive(Clone, Copy)]
struct Change {
    token: u32,
    bias: f32,
    is_forbidden: bool,
    /// `Some` if it was seen: how often in the answer.
    seen: Option<u32>,
}

#[derive(Clone)]
struct Row {
    how: SampleRow,
    logits: Vec<f32>,
    changes: Vec<Change>,
}

const PLAIN: SampleRow = SampleRow {
    seed: 7,
    position: 3,
    temperature: 1.0,
    min_p: 0.0,
    top_p: 1.0,
    top_k: 0,
    purpose: RowPurpose::Draw,
    scored: 0,
    num_candidates: SampleRow::NO_LOGPROBS,
    repetition_penalty: 1.0,
    frequency_penalty: 0.0,
    presence_penalty: 0.0,
    first_edit: 0,
    num_edits: 0,
};

type Outcome = Option<(u32, Option<SampledLogprobs>)>;

/// What the GPU makes of `rows`; logits must come back as they were.
fn run(device: &Device, rows: &[Row], max_candidates: usize) -> Vec<Outcome> {
    let mut edits = Vec::new();
    let mut hows = Vec::new();
    for row in rows {
        let (first_edit, num_edits) = (edits.len() as u32, row.changes.len() as u32);
        for change in &row.changes {
            let mut edit = LogitEdit::new(change.token).bias(change.bias);
            if change.is_forbidden {
                edit = edit.forbidden();
            }
            if let Some(count) = change.seen {
                edit = edit.seen(count);
            }
            edits.push(edit);
        }
        hows.push(SampleRow {
            first_edit,
            num_edits,
            ..row.how
        });
    }
    let logits: Vec<f32> = rows.iter().flat_map(|row| row.logits.clone()).collect();
    let works = "the GPU works";
    let mut on_gpu = device.upload(&logits).expect(works);
    let hows = device.upload(&hows).expect(works);
    let mut edits = device.upload(&edits).expect(works);
    let len = SampleOutput::len(rows.len(), max_candidates);
    let mut words = device.zeros::<u32>(len).expect(works);
    let mut output = SampleOutput {
        words: &mut words.as_view_mut(),
        max_candidates,
    };
    sample(
        device,
        &mut on_gpu.as_view_mut(),
        &hows.as_view(),
        &mut edits.as_view_mut(),
        &mut output,
    )
    .expect(works);
    let after = device.download(&on_gpu).expect(works);
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&after), bits(&logits), "the logits are as they were");
    let words = device.download(&words).expect(works);
    let found = SampledRows::new(&words, rows.len(), max_candidates).expect("the length");
    (0..rows.len())
        .map(|row| {
            let num = rows[row].how.num_candidates;
            let wants = num != SampleRow::NO_LOGPROBS;
            let num = (num as usize).min(rows[row].logits.len());
            let token = found.token(row)?;
            Some((token, wants.then(|| found.logprobs(row, num))))
        })
        .collect()
}

fn argmax(logits: &[f32]) -> Option<usize> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let is_bad = logits.iter().any(|logit| logit.is_nan()) || !largest.is_finite();
    (!is_bad).then(|| logits.iter().position(|logit| *logit >= largest))?
}

fn adjusted(row: &Row) -> Vec<f32> {
    let mut logits = row.logits.clone();
    for change in &row.changes {
        let logit = &mut logits[change.token as usize];
        *logit += change.bias;
        if change.is_forbidden {
            *logit = f32::NEG_INFINITY;
        }
        if let Some(count) = change.seen {
            let penalty = row.how.repetition_penalty;
            *logit = if *logit > 0.0 {
                *logit / penalty
            } else {
                *logit * penalty
            };
            if count > 0 {
                *logit -= row.how.frequency_penalty * count as f32 + row.how.presence_penalty;
            }
        }
    }
    logits
}

fn mix(value: u64) -> u64 {
    let mut bits = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

fn uniform_bits(how: &SampleRow) -> u64 {
    mix(mix(how.seed).wrapping_add(how.position.wrapping_mul(0x9E37_79B9_7F4A_7C15))) >> 11
}

#[expect(
    clippy::excessive_precision,
    clippy::approx_constant,
    reason = "the kernel's own words"
)]
fn exp_minus(x: f32) -> f32 {
    if x.is_nan() || x >= 40.0 {
        return 0.0;
    }
    let whole = 12_582_912.0_f32;
    let n = x.mul_add(-1.442_695_04, whole) - whole;
    let r = n.mul_add(-1.428_606_77e-6, n.mul_add(-0.693_145_752, -x));
    let coefficients = [
        1.388_888_89e-3_f32,
        8.333_333_33e-3,
        4.166_666_67e-2,
        1.666_666_67e-1,
        0.5,
        1.0,
        1.0,
    ];
    let p = coefficients
        .iter()
        .fold(1.984_126_98e-4_f32, |p, c| p.mul_add(r, *c));
    p * f32::from_bits(((n as i32 + 127) as u32) << 23)
}

#[test]
fn the_exponential_is_close() {
    for step in 0..4000 {
        let x = step as f32 * 0.009_97;
        let expected = (-f64::from(x)).exp();
        let error = (f64::from(exp_minus(x)) - expected).abs() / expected;
        assert!(error < 3e-7, "{x}: {error}");
    }
    assert_eq!((exp_minus(0.0), exp_minus(f32::INFINITY)), (1.0, 0.0));
}

/// The kernel's integers, by sorting.
fn exact_twin(row: &Row) -> Option<u32> {
    argmax(&row.logits)?;
    let (logits, how) = (adjusted(row), row.how);
    let greedy = argmax(&logits)?;
    if how.temperature == 0.0 || how.top_k == 1 {
        return Some(greedy as u32);
    }
    let inverse = 1.0 / how.temperature;
    let mut items: Vec<(u32, u32, u64)> = Vec::new();
    for (token, logit) in logits.iter().enumerate() {
        let distance = logits[greedy] - logit;
        let weight = exp_minus(distance * inverse);
        if weight >= how.min_p {
            let weight = (weight * 2.0_f32.powi(40)).round_ties_even() as u64;
            items.push((distance.to_bits(), token as u32, weight));
        }
    }
    items.sort_unstable();
    if how.top_k > 0 {
        items.truncate(how.top_k as usize);
    }
    if how.top_p < 1.0 {
        let total: u64 = items.iter().map(|item| item.2).sum();
        let wanted = ((f64::from(how.top_p) * total as f64).ceil() as u64).clamp(1, total);
        let mut reached = 0;
        let num = items.iter().position(|item| {
            reached += item.2;
            reached >= wanted
        })?;
        items.truncate(num + 1);
    }
    items.sort_unstable_by_key(|item| item.1);
    let total: u64 = items.iter().map(|item| item.2).sum();
    let target = ((u128::from(uniform_bits(&how)) * u128::from(total)) >> 53) as u64;
    let mut reached = 0;
    let drawn = items.iter().find(|item| {
        reached += item.2;
        reached > target
    });
    Some(drawn?.1)
}

/// The server's sampler on the CPU.
fn f64_twin(row: &Row) -> Option<u32> {
    argmax(&row.logits)?;
    let (logits, how) = (adjusted(row), row.how);
    let greedy = argmax(&logits)?;
    if how.temperature == 0.0 || how.top_k == 1 {
        return Some(greedy as u32);
    }
    let weight = |l: &f32| (f64::from(l - logits[greedy]) / f64::from(how.temperature)).exp();
    let mut items: Vec<(u32, f64)> = (0..).zip(logits.iter().map(weight)).collect();
    items.retain(|item| item.1 >= f64::from(how.min_p));
    items.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if how.top_k > 0 {
        items.truncate(how.top_k as usize);
    }
    if how.top_p < 1.0 {
        let total: f64 = items.iter().map(|item| item.1).sum();
        let mut reached = 0.0;
        let num = items.iter().position(|item| {
            reached += item.1;
            reached >= f64::from(how.top_p) * total
        });
        items.truncate(num.map_or(items.len(), |num| num + 1));
    }
    items.sort_unstable_by_key(|item| item.0);
    let total: f64 = items.iter().map(|item| item.1).sum();
    let mut left = uniform_bits(&how) as f64 / 2.0_f64.powi(53) * total;
    let drawn = items.iter().find(|item| {
        left -= item.1;
        left < 0.0
    });
    drawn.map(|item| item.0)
}

/// A row of every kind: steep and flat, with equal logits, with -∞.
fn random_row(random: &mut Random, vocabulary: usize) -> Row {
    let spread = [0.0, 0.5, 4.0, 20.0][random.below(0, 4)];
    let is_coarse = random.below(0, 2) == 0;
    let mut logits: Vec<f32> = (0..vocabulary)
        .map(|_| {
            let logit = spread * (random.float() + random.float());
            if is_coarse { logit.round() } else { logit }
        })
        .collect();
    for _ in 0..random.below(0, vocabulary / 4) {
        logits[random.below(0, vocabulary)] = f32::NEG_INFINITY;
    }
    logits[random.below(0, vocabulary)] = 1.0;
    let pick = |random: &mut Random, values: [f32; 4]| values[random.below(0, 4)];
    let mut changes = Vec::new();
    if random.below(0, 3) == 0 {
        let step = random.below(1, 4);
        changes.extend((0..vocabulary as u32).step_by(step).map(|token| Change {
            token,
            bias: random.float() * pick(random, [0.0, 0.0, 1.0, 5.0]),
            is_forbidden: random.below(0, 5) == 0,
            seen: (random.below(0, 2) == 0).then(|| random.below(0, 4) as u32),
        }));
    }
    let how = SampleRow {
        seed: random.bits(),
        position: random.below(0, 1000) as u64,
        temperature: pick(random, [0.0, 0.3, 1.0, 2.5]),
        min_p: pick(random, [0.0, 0.0, 0.05, 0.7]),
        top_p: pick(random, [1.0, 0.9, 0.5, 0.01]),
        top_k: [0, 0, 1 + random.below(0, 9), random.below(1, vocabulary)][random.below(0, 4)]
            as u32,
        repetition_penalty: pick(random, [1.0, 1.3, 1.3, 0.8]),
        frequency_penalty: pick(random, [0.0, 0.0, 0.5, -0.5]),
        presence_penalty: pick(random, [0.0, 0.0, 0.5, -0.5]),
        ..PLAIN
    };
    Row {
        how,
        logits,
        changes,
    }
}

/// Every token is that of the twin with the same integers, and nearly every one that of the CPU's
/// sampler.
#[test]
fn tokens_are_those_of_both_twins() {
    let Some(device) = device() else { return };
    let (mut num_rows, mut num_equal) = (0, 0);
    for seed in SEEDS {
        let mut random = Random::new(seed);
        for _ in 0..4 {
            let vocabulary = random.below(1, 700).max(5);
            let rows: Vec<Row> = (0..25)
                .map(|_| random_row(&mut random, vocabulary))
                .collect();
            for (row, found) in rows.iter().zip(run(&device, &rows, 0)) {
                let found = found.map(|found| found.0);
                assert_eq!(found, exact_twin(row), "{:?}", row.how);
                num_rows += 1;
                num_equal += usize::from(found == f64_twin(row));
            }
        }
    }
    eprintln!("{num_equal} of {num_rows} draws are those of f64");
    // A draw differs where a random number falls within 1e-6 of a border.
    assert!(num_equal + 2 >= num_rows, "{num_equal} of {num_rows}");
}

/// Sets that are too large for the list in shared memory, and ones far from the most likely token.
#[test]
fn wide_sets_are_those_of_the_twin() {
    let Some(device) = device() else { return };
    let mut random = Random::new(4);
    let vocabulary = 5000;
    let flat: Vec<f32> = (0..vocabulary).map(|_| random.float()).collect();
    let mut peaked: Vec<f32> = flat.iter().map(|logit| logit - 12.0).collect();
    peaked[77] = 0.0;
    let equal = vec![0.5; vocabulary];
    let mut rows = Vec::new();
    for logits in [flat, peaked, equal] {
        for (top_k, top_p) in [(0, 1.0), (0, 0.9), (3000, 1.0), (3000, 0.9), (40, 0.9)] {
            let how = SampleRow {
                top_k,
                top_p,
                temperature: 0.7 + 0.1 * random.float(),
                seed: random.bits(),
                ..PLAIN
            };
            rows.push(Row {
                how,
                logits: logits.clone(),
                changes: Vec::new(),
            });
        }
    }
    for (row, found) in rows.iter().zip(run(&device, &rows, 0)) {
        let found = found.map(|found| found.0);
        assert_eq!(found, exact_twin(row), "{:?}", row.how);
        assert_eq!(found, f64_twin(row), "{:?}", row.how);
    }
}

/// Tokens come as often as their softmax says: within 4 standard deviations.
#[test]
fn frequencies_are_the_softmax() {
    let Some(device) = device() else { return };
    let logits = [1.0_f32, 3.0, 2.0, 0.0];
    let num_draws = 2000_u64;
    let rows: Vec<Row> = (0..num_draws)
        .map(|position| Row {
            how: SampleRow { position, ..PLAIN },
            logits: logits.to_vec(),
            changes: Vec::new(),
        })
        .collect();
    let mut counts = [0_u32; 4];
    for found in run(&device, &rows, 0) {
        counts[found.unwrap().0 as usize] += 1;
    }
    let total: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
    for (&logit, &count) in logits.iter().zip(&counts) {
        let probability = f64::from(logit).exp() / total;
        let mean = probability * num_draws as f64;
        let deviation = (mean * (1.0 - probability)).sqrt();
        assert!(
            (f64::from(count) - mean).abs() < 4.0 * deviation,
            "{counts:?}"
        );
    }
}

/// Logits that are not numbers give no token, padding neither, and the first of equals is greedy.
#[test]
fn only_sound_rows_have_tokens() {
    let Some(device) = device() else { return };
    let (nan, infinity) = (f32::NAN, f32::INFINITY);
    let cases: [([f32; 3], Option<u32>); 7] = [
        ([1.0, nan, 0.0], None),
        ([1.0, -nan, 0.0], None),
        ([1.0, infinity, 0.0], None),
        ([-infinity; 3], None),
        ([-0.0, 0.0, 0.0], Some(0)),
        ([2.0, 5.0, 5.0], Some(1)),
        ([-infinity, -infinity, -1.0], Some(2)),
    ];
    for temperature in [0.0, 0.01] {
        let mut rows: Vec<Row> = cases
            .iter()
            .map(|(logits, _)| Row {
                how: SampleRow {
                    temperature,
                    top_k: 1,
                    ..PLAIN
                },
                logits: logits.to_vec(),
                changes: Vec::new(),
            })
            .collect();
        rows.push(Row {
            how: SampleRow {
                purpose: RowPurpose::Padding,
                ..PLAIN
            },
            logits: vec![0.0; 3],
            changes: Vec::new(),
        });
        // All that is left is forbidden.
        rows.push(Row {
            how: PLAIN,
            logits: vec![-infinity, -infinity, 0.0],
            changes: vec![Change {
                token: 2,
                bias: 0.0,
                is_forbidden: true,
                seen: None,
            }],
        });
        let found: Vec<Option<u32>> = run(&device, &rows, 0)
            .into_iter()
            .map(|found| found.map(|found| found.0))
            .collect();
        let mut expected: Vec<Option<u32>> = cases.iter().map(|case| case.1).collect();
        expected.extend([None, None]);
        assert_eq!(found, expected);
    }
}

fn logprobs_twin(logits: &[f32], token: u32, num_candidates: usize) -> SampledLogprobs {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| f64::from(l - largest).exp()).sum();
    let logprob = |token: u32| (f64::from(logits[token as usize] - largest) - sum.ln()) as f32;
    let own = logits[token as usize];
    let mut tokens: Vec<u32> = (0..logits.len() as u32).collect();
    tokens.sort_by(|a, b| {
        let order = logits[*b as usize].total_cmp(&logits[*a as usize]);
        order.then(a.cmp(b))
    });
    tokens.truncate(num_candidates);
    SampledLogprobs {
        logprob: logprob(token),
        rank: logits.iter().filter(|logit| **logit > own).count() as u32 + 1,
        candidates: tokens.into_iter().map(|t| (t, logprob(t))).collect(),
    }
}

/// They are of the model's own logits, not of those that penalties changed; drawn tokens and scored
/// ones.
#[test]
fn logprobs_are_the_log_softmax() {
    let Some(device) = device() else { return };
    // f32 sums of at most 5000 terms.
    let is_close = |found: f32, expected: f32| {
        found.to_bits() == expected.to_bits() || (found - expected).abs() < 1e-4
    };
    for seed in SEEDS {
        let mut random = Random::new(seed);
        for vocabulary in [1, 40, 300, 3000] {
            let num_rows = if vocabulary == 3000 { 3 } else { 12 };
            let rows: Vec<Row> = (0..num_rows)
                .map(|_| {
                    let mut row = random_row(&mut random, vocabulary.max(5));
                    row.how.num_candidates = random.below(0, 33) as u32;
                    if random.below(0, 2) == 0 {
                        row.how.purpose = RowPurpose::Score;
                        row.how.scored = random.below(0, vocabulary) as u32;
                    }
                    row
                })
                .collect();
            for (row, found) in rows.iter().zip(run(&device, &rows, 32)) {
                let Some((token, Some(found))) = found else {
                    assert_eq!(exact_twin(row), None);
                    continue;
                };
                if row.how.purpose == RowPurpose::Score {
                    assert_eq!(token, row.how.scored);
                } else {
                    assert_eq!(Some(token), exact_twin(row));
                }
                let num = row.how.num_candidates as usize;
                let expected = logprobs_twin(&row.logits, token, num);
                assert!(is_close(found.logprob, expected.logprob));
                assert_eq!(found.rank, expected.rank);
                assert_eq!(found.candidates.len(), expected.candidates.len());
                for (found, expected) in found.candidates.iter().zip(&expected.candidates) {
                    assert_eq!(found.0, expected.0);
                    assert!(is_close(found.1, expected.1), "{found:?} {expected:?}");
                }
            }
        }
    }
}

/// A recorded launch follows what its buffers hold when it runs.
#[test]
fn it_runs_in_a_graph() {
    let Some(device) = device() else { return };
    let mut logits = device.upload(&[0.0_f32, 1.0, 0.0, 0.0]).unwrap();
    let mut rows = device.upload(&[SampleRow::default()]).unwrap();
    let mut edits = device.zeros::<LogitEdit>(4).unwrap();
    let mut words = device.zeros::<u32>(4).unwrap();
    let mut graph = device
        .record(|| {
            let mut output = SampleOutput {
                words: &mut words.as_view_mut(),
                max_candidates: 0,
            };
            let (mut logits, mut edits) = (logits.as_view_mut(), edits.as_view_mut());
            sample(
                &device,
                &mut logits,
                &rows.as_view(),
                &mut edits,
                &mut output,
            )
        })
        .unwrap();
    let greedy = SampleRow {
        temperature: 0.0,
        ..PLAIN
    };
    let forbidden = SampleRow {
        num_edits: 1,
        ..greedy
    };
    let edit = LogitEdit::new(1).forbidden();
    device.write(&[edit], &mut edits.slice_mut(..1)).unwrap();
    for (how, expected) in [
        (SampleRow::default(), None),
        (greedy, Some(1)),
        (forbidden, Some(0)),
        (greedy, Some(1)),
    ] {
        device.write(&[how], &mut rows).unwrap();
        graph.launch().unwrap();
        let words = device.download(&words).unwrap();
        assert_eq!(SampledRows::new(&words, 1, 0).unwrap().token(0), expected);
    }
}

#[test]
fn wrong_arguments_are_errors() {
    let Some(device) = device() else { return };
    let mut logits = device.zeros::<f32>(9).unwrap();
    let rows = device.upload(&[SampleRow::default(); 2]).unwrap();
    let mut edits = device.zeros::<LogitEdit>(1).unwrap();
    let mut words = device.zeros::<u32>(12).unwrap();
    let mut error = |max_candidates: usize| {
        let mut output = SampleOutput {
            words: &mut words.as_view_mut(),
            max_candidates,
        };
        let (mut logits, mut edits) = (logits.as_view_mut(), edits.as_view_mut());
        let failed = sample(
            &device,
            &mut logits,
            &rows.as_view(),
            &mut edits,
            &mut output,
        );
        failed.unwrap_err().to_string()
    };
    assert_eq!(
        error(33),
        "sample: candidates: expected at most 32, found 33"
    );
    assert_eq!(error(2), "sample: output: expected 16 values, found 12");
    assert_eq!(error(1), "sample: logits: expected 8 values, found 9");
}

/// Llama's vocabulary, 1024 threads a row.
#[test]
fn a_whole_vocabulary_is_that_of_the_twins() {
    let Some(device) = device() else { return };
    let mut random = Random::new(9);
    let logits: Vec<f32> = (0..128_256)
        .map(|_| 2.5 * (0..6).map(|_| random.float()).sum::<f32>())
        .collect();
    let rows: Vec<Row> = [(0, 0.95), (50, 0.9)]
        .into_iter()
        .map(|(top_k, top_p)| Row {
            how: SampleRow {
                top_k,
                top_p,
                num_candidates: 20,
                temperature: 0.7,
                ..PLAIN
            },
            logits: logits.clone(),
            changes: Vec::new(),
        })
        .collect();
    for (row, found) in rows.iter().zip(run(&device, &rows, 20)) {
        let (token, told) = found.unwrap();
        let (told, expected) = (told.unwrap(), logprobs_twin(&row.logits, token, 20));
        assert_eq!(Some(token), exact_twin(row));
        assert_eq!(Some(token), f64_twin(row));
        assert_eq!(told.rank, expected.rank);
        assert!((told.logprob - expected.logprob).abs() < 1e-4);
        for (found, expected) in told.candidates.iter().zip(&expected.candidates) {
            assert_eq!(found.0, expected.0);
            assert!((found.1 - expected.1).abs() < 1e-4);
        }
    }
}
