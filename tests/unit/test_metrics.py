"""Metrics with known answers. Where a test draws at random, its seed is fixed, so it passes or fails for good; the
chance that a right implementation would have failed with a seed chosen blindly is stated beside it."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.linalg import sqrtm
from torchmetrics.image.fid import FrechetInceptionDistance

from fm_book.experiments.classifier import TrainClassifier
from fm_book.metrics import (
    Moments,
    bootstrap_interval,
    class_balance,
    classes,
    confidence,
    evaluate_samples,
    features,
    frechet_distance,
    in_reference,
    kernel_distance,
    kernel_interval,
    load_reference,
    moments,
    nearest_neighbours,
    precision_recall,
    seed_difference,
    seed_interval,
)
from fm_book.metrics.classifier import CLASSIFIER, DigitClassifier, load_classifier
from fm_book.records import load_record
from fm_core import load_mnist, load_sample
from fm_core.checkpoints import CheckpointError, model_card


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def with_moments(mean, covariance, n=200, seed=0):
    """Points whose sample mean and covariance are exactly as told."""
    x = random(n, len(mean), seed=seed)
    x = x - x.mean(dim=0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov()), x.T, upper=False).T
    return mean + white @ torch.linalg.cholesky(covariance).T


def covariance_of(size, seed):
    root = random(size, size, seed=seed)
    return root @ root.T + 0.1 * torch.eye(size, dtype=torch.float64)


# Fréchet distance


def test_frechet_distance_of_two_gaussians_with_independent_coordinates():
    a = with_moments(torch.tensor([0.0, 0.0, 1.0]).double(), torch.diag(torch.tensor([1.0, 4.0, 9.0]).double()))
    b = with_moments(torch.tensor([3.0, 0.0, 5.0]).double(), torch.diag(torch.tensor([4.0, 4.0, 1.0]).double()), seed=1)
    assert frechet_distance(a, b) == pytest.approx(9 + 16 + (1 - 2) ** 2 + 0 + (3 - 1) ** 2, abs=1e-8)


def test_frechet_distance_agrees_with_a_matrix_square_root():
    mean, s_a, s_b = random(6, seed=2), covariance_of(6, 3), covariance_of(6, 4)
    expected = mean.square().sum() + (s_a + s_b).trace() - 2 * np.trace(sqrtm((s_a @ s_b).numpy()).real)
    a, b = with_moments(mean, s_a), with_moments(torch.zeros(6).double(), s_b, seed=1)
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-9)


def test_frechet_distance_takes_moments_in_place_of_samples():
    a, b = random(50, 5), 2 * random(70, 5, seed=1) + 1
    direct = frechet_distance(a, b)
    for pair in ((moments(a), b), (a, moments(b)), (moments(a), moments(b))):
        assert frechet_distance(*pair) == pytest.approx(direct, rel=1e-10)


def test_frechet_distance_of_real_digits_from_one_point_is_their_variance():
    reference = load_reference().train
    point = Moments(reference.mean, torch.zeros(64, 64, dtype=torch.float64), 2)
    assert frechet_distance(reference, point) == pytest.approx(100, abs=0.2)  # the weights are rounded to half


def test_frechet_distance_is_symmetric_zero_on_itself_and_follows_rotation_shift_and_scale():
    a, b = random(60, 4), random(80, 4, seed=1) * torch.tensor([1.0, 2, 3, 4])
    value = frechet_distance(a, b)
    turn, shift = torch.linalg.qr(random(4, 4, seed=2)).Q, random(4, seed=3)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(b, a) == pytest.approx(value, rel=1e-9)
    assert frechet_distance(a.flip(0) @ turn + shift, b @ turn + shift) == pytest.approx(value, rel=1e-9)
    assert frechet_distance(3 * a, 3 * b) == pytest.approx(9 * value, rel=1e-9)


def test_frechet_distance_of_images_is_torchmetrics_with_our_extractor():
    images = load_sample("test").images
    network = load_classifier()
    network.forward = network.features
    metric = FrechetInceptionDistance(feature=network)
    metric.update(images[:200], real=True)
    metric.update(images[200:], real=False)
    assert frechet_distance(images[:200], images[200:]) == pytest.approx(float(metric.compute()), rel=1e-5)


# Kernel distance


def cubic(a, b):
    return (a @ b.T / a.shape[1] + 1) ** 3


def test_kernel_distance_is_the_mean_over_pairs_of_different_images():
    a, b = random(7, 3), random(7, 3, seed=1) + 0.5
    off = ~torch.eye(7, dtype=torch.bool)
    expected = cubic(a, a)[off].mean() + cubic(b, b)[off].mean() - 2 * cubic(a, b).mean()
    assert kernel_distance(a, b) == pytest.approx(float(expected), rel=1e-12)


def test_kernel_distance_has_no_bias():
    values = [kernel_distance(random(30, 4, seed=k), random(30, 4, seed=1000 + k)) for k in range(200)]
    error = np.std(values) / len(values) ** 0.5
    assert abs(np.mean(values)) < 4 * error  # false alarm: 6 in 100,000
    assert min(values) < 0 < max(values)


def test_kernel_distance_over_subsets_repeats_and_leaves_the_global_random_state_alone():
    a, b = random(90, 4), random(60, 4, seed=1) + 1
    before = torch.get_rng_state()
    value = kernel_distance(a, b, subset_size=30)
    assert torch.equal(before, torch.get_rng_state())
    assert kernel_distance(a, b, subset_size=30) == value != kernel_distance(a, b, subset_size=30, seed=1)
    assert value == pytest.approx(kernel_distance(a[:60], b), rel=0.5)


def test_the_fast_interval_of_the_kernel_distance_is_the_slow_one():
    a, b = random(40, 4), random(40, 4, seed=1) + 0.3
    fast = kernel_interval(a, b, resamples=20)
    slow = bootstrap_interval(lambda x: kernel_distance(x, b), a, resamples=20)
    assert [fast.mean, fast.low, fast.high] == pytest.approx([slow.mean, slow.low, slow.high], rel=1e-9)


# Precision, recall, neighbours


def test_precision_and_recall_of_a_set_with_itself_are_one_and_with_a_far_set_zero():
    a = random(50, 64).float()
    same, far = precision_recall(a, a), precision_recall(a, a + 100)
    assert (same.precision, same.recall) == (1, 1)
    assert (far.precision, far.recall) == (0, 0)


def test_precision_and_recall_by_hand():
    real = torch.tensor([[0.0], [1.0], [3.0]])  # balls that reach the next neighbour: [-1, 1], [0, 2], [1, 5]
    fake = torch.tensor([[4.5], [5.5], [9.0]])  # [3.5, 5.5], [4.5, 6.5], [5.5, 12.5]
    result = precision_recall(real, fake, k=1)
    assert result.fake_inside.tolist() == [True, False, False]
    assert result.real_inside.tolist() == [False, False, False]
    assert precision_recall(fake, real, k=1).precision == result.recall


def test_one_real_image_for_ever_has_full_precision_and_hardly_any_recall():
    real = random(50, 8).float()
    result = precision_recall(real, real[:1].expand(50, 8))
    assert (result.precision, result.recall) == (1, 1 / 50)


def test_copies_are_found_at_distance_zero_and_shifts_at_their_length():
    images = load_sample("test").images
    pick = torch.tensor([5, 0, 499, 5])
    copies = nearest_neighbours(images[pick], images)
    assert copies.index.tolist() == pick.tolist()
    assert copies.distance.tolist() == [0, 0, 0, 0]
    moved = nearest_neighbours(images[pick] + 0.01, images)
    assert moved.index.tolist() == pick.tolist()
    assert moved.distance.tolist() == pytest.approx([0.01 * 28] * 4, rel=1e-4)


def test_nearest_neighbours_agree_with_every_distance():
    x, y = random(1100, 5).float(), random(300, 5, seed=1).float()
    expected = torch.cdist(x.double(), y.double()).min(dim=1)
    found = nearest_neighbours(x, y)
    assert torch.equal(found.index, expected.indices)
    torch.testing.assert_close(found.distance.double(), expected.values, rtol=1e-5, atol=1e-6)


# Confidence and balance


def test_one_class_only_is_log_ten_away_from_balance_and_equal_shares_are_at_zero():
    assert class_balance(torch.full((17,), 3)) == pytest.approx(math.log(10), rel=1e-12)
    assert class_balance(torch.arange(10).repeat(7)) == pytest.approx(0, abs=1e-12)
    assert class_balance(torch.arange(5).repeat(4)) == pytest.approx(math.log(2), rel=1e-12)


def test_fair_draws_miss_balance_by_a_chi_square_law():
    n, generator = 2000, torch.Generator().manual_seed(0)
    scaled = [2 * n * class_balance(torch.randint(10, (n,), generator=generator)) for _ in range(300)]
    assert stats.kstest(scaled, stats.chi2(9).cdf).pvalue > 1e-3  # false alarm: 1 in 1,000


def test_the_classifier_is_sure_of_digits_and_not_of_noise():
    digits = load_sample("test")
    noise = random(200, 1, 28, 28).float()
    assert confidence(digits.images).mean() > 0.97
    assert confidence(noise).mean() < 0.3
    assert (classes(digits.images) == digits.labels).double().mean() > 0.99


def test_features_serve_in_place_of_images():
    images = load_sample("test").images[:300]
    seen = features(images)
    assert seen.shape == (300, DigitClassifier.num_features)
    assert seen.min() >= 0
    assert torch.equal(features(images * 1.0 + 5 * (images == 1)), seen)  # what cannot be shown does not count
    assert torch.equal(confidence(seen), confidence(images))
    assert class_balance(seen) == class_balance(images) == class_balance(classes(images))
    assert precision_recall(images, images).recall == 1


# Intervals


def test_the_interval_of_a_mean_is_two_standard_errors_wide_on_each_side():
    x = random(400)
    interval = bootstrap_interval(torch.mean, x, resamples=4000)
    half = 1.96 * x.std().item() / 20
    assert interval.mean == pytest.approx(x.mean().item(), rel=1e-12)
    assert interval.high - interval.mean == pytest.approx(half, rel=0.1)
    assert interval.mean - interval.low == pytest.approx(half, rel=0.1)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    hits = 0
    for k in range(200):
        interval = bootstrap_interval(torch.mean, random(50, seed=k), resamples=200, level=0.8, seed=k)
        hits += interval.low < 0 < interval.high
    assert 138 <= hits <= 178  # about 4 standard deviations around 158; false alarm below 1 in 1,000


def test_the_interval_of_a_biased_metric_lies_around_its_value():
    a, b = random(100, 16), moments(random(100, 16, seed=1))
    interval = bootstrap_interval(lambda x: frechet_distance(x, b), a, resamples=60)
    assert interval.low < interval.mean < interval.high
    usual = [
        frechet_distance(a[torch.from_numpy(np.random.default_rng(k).integers(100, size=100))], b) for k in range(9)
    ]
    assert min(usual) > interval.mean  # each resample is farther away: the trap that the interval avoids


def test_paired_samples_are_drawn_together():
    x = random(30)

    def gap(a, b):
        return (a - b).mean()

    together, apart = (bootstrap_interval(gap, x, x + 1, paired=paired, resamples=50) for paired in (True, False))
    assert together.low == pytest.approx(-1) == together.high
    assert apart.high - apart.low > 0.1
    assert f"{together:.2f}" == "-1.00 [-1.00, -1.00]"


# What is shipped


def test_the_record_and_the_card_agree_and_the_classifier_is_good_enough():
    card, record = model_card(CLASSIFIER)["training"], load_record("classifier")
    for name in ("data", "git_commit", "parameters", "seed", "steps", "versions"):
        assert record[name] == card[name], name
    for name in ("test_accuracy", "train_accuracy", "test_confidence", "train_confidence"):
        assert record[name] == pytest.approx(card[name], abs=1e-6), name
    assert record["test_accuracy"] > 0.99
    assert f"{record['test_accuracy']:.2%}" in (CLASSIFIER / "README.md").read_text(encoding="utf-8")


def test_the_shipped_numbers_hold_on_the_official_test_digits():
    try:
        digits = load_mnist(split="test")
    except FileNotFoundError:
        pytest.skip("MNIST is not at hand")
    record = load_record("classifier")
    seen = features(digits.images)
    assert (classes(seen) == digits.labels).double().mean().item() == pytest.approx(record["test_accuracy"], abs=3e-4)
    reference, half = load_reference(), moments(seen[in_reference(digits.labels)])
    assert frechet_distance(half, reference.moments) < 1e-3
    assert nearest_neighbours(reference.features[:50], seen).distance.max() < 0.05  # half precision


def test_the_experiment_publishes_what_can_be_loaded(tmp_path, monkeypatch):
    home, results = tmp_path / "classifier", tmp_path / "results"
    monkeypatch.setattr("fm_book.records.RESULTS", results)
    monkeypatch.setattr("fm_book.experiments.classifier.load_mnist", lambda split, device: load_sample(split))
    assert "test accuracy" in TrainClassifier(steps=2, device="cpu", folder=home).run()
    record = json.loads((results / "classifier.json").read_text())
    assert record["config"] == {"steps": 2, "seed": 0, "grain": 0.02, "grainy_digits": 1000}
    sensitivity = record["grain"].values()
    assert len(sensitivity) == 2 and all(r["frechet_grain"] != r["frechet_real"] > 0 for r in sensitivity)
    assert f"{record['test_accuracy']:.2%}" in (home / "README.md").read_text()
    test, network = load_sample("test"), load_classifier(folder=home)
    held = moments(features(test.images[in_reference(test.labels)], network=network))
    assert frechet_distance(load_reference(home).moments, held) < 0.1  # rounded to half precision


def test_the_reference_alternates_within_each_class():
    assert in_reference(torch.tensor([7, 7, 1, 7, 1, 0])).tolist() == [True, False, True, True, False, True]
    labels = torch.arange(10).repeat_interleave(torch.arange(1, 11))
    inside = torch.bincount(labels[in_reference(labels)], minlength=10)
    assert inside.tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"something else")
    (tmp_path / "config.json").write_text(json.dumps({"sha256": {"model.safetensors": "00" * 32}}))
    with pytest.raises(CheckpointError, match=r"model.safetensors: expected SHA-256 000000000000"):
        load_classifier(folder=tmp_path)


def test_all_metrics_tell_real_digits_from_noise():
    digits = load_sample("test").images[::2]
    noise = random(250, 1, 28, 28).float()
    good, bad = (evaluate_samples(x, training=digits, resamples=20) for x in (digits, noise))
    for name in ("frechet", "kernel", "neighbour"):
        assert good[name].high < bad[name].low, name
    for name in ("precision", "recall", "confidence"):
        assert good[name].low > bad[name].high, name
    assert good["neighbour"].mean == 0
    quick = evaluate_samples(digits, resamples=0)
    assert {name: interval.mean for name, interval in quick.items()} == {name: good[name].mean for name in quick}
    assert all(interval.low is None for interval in quick.values())


# What is refused


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: features(torch.zeros(28, 28)), r"expected .* of shape \(N, 1, 28, 28\)"),
        (lambda: features(torch.full((3, 1, 28, 28), math.nan)), "NaN or infinity in 3 of 3, the first is 0"),
        (lambda: confidence(torch.zeros(5, 3)), r"features \(N, 64\)"),
        (lambda: class_balance(torch.tensor([4, 12])), "from 4 to 12"),
        (lambda: class_balance(torch.tensor([])), "at least one class"),
        (
            lambda: frechet_distance(torch.zeros(1, 4), torch.zeros(5, 4)),
            r"a: expected at least 2 .*got shape \(1, 4\)",
        ),
        (lambda: frechet_distance(torch.zeros(5, 4), torch.zeros(5, 3)), "got 4 and 3 features"),
        (lambda: kernel_distance(torch.zeros(5, 4), torch.zeros(1, 4)), r"b: expected at least 2 .*got shape \(1, 4\)"),
        (lambda: precision_recall(torch.zeros(3, 4), torch.zeros(9, 4)), "k=3"),
        (lambda: nearest_neighbours(torch.zeros(3, 4), torch.zeros(0, 4)), "reference: expected .*shape .0, 4."),
        (lambda: bootstrap_interval(torch.mean, torch.zeros(1)), "at least two rows of each, got 1"),
        (lambda: bootstrap_interval(torch.dot, torch.zeros(3), torch.zeros(4), paired=True), "got 3 and 4"),
    ],
)
def test_what_cannot_be_measured_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def with_nan(rows):
    rows = rows.clone()
    rows[7] = math.nan
    return rows


FEATURES, DIGITS = torch.rand(20, 64, generator=torch.Generator().manual_seed(0)), load_sample("test").images[:20]
OF_ONE_SET = {
    "class_balance": class_balance,
    "classes": classes,
    "confidence": confidence,
    "frechet_distance": lambda x: frechet_distance(FEATURES, x),
    "kernel_distance": lambda x: kernel_distance(x, FEATURES),
    "moments": moments,
    "precision of": lambda x: precision_recall(x, FEATURES),
    "recall of": lambda x: precision_recall(FEATURES, x),
}


@pytest.mark.parametrize("name", OF_ONE_SET)
def test_no_metric_computes_with_nan(name):
    """20 of 200 rows with NaN gave a plausible recall of 0."""
    for bad in (with_nan(FEATURES), with_nan(DIGITS)):
        with pytest.raises(ValueError, match="expected finite values, got NaN or infinity in 1 of 20, the first is 7"):
            OF_ONE_SET[name](bad)
    OF_ONE_SET[name](DIGITS)


@pytest.mark.parametrize("name", OF_ONE_SET)
@pytest.mark.parametrize(
    ("scaled", "words"),
    [
        (lambda x: (x + 1) / 2, r"expected pixels in \[-1, 1\], got \[0, 1\]. Use 2 \* x - 1"),
        (lambda x: (x + 1) * 127.5, r"expected pixels in \[-1, 1\], got \[0, 255\]. Use x / 127.5 - 1"),
        (lambda x: x * 1e4, r"expected pixels in \[-1, 1\], got \[-10000, 10000\]"),
        (lambda x: ((x + 1) * 127.5).byte(), r"expected a floating-point tensor, got torch.uint8"),
    ],
)
def test_images_of_another_range_are_refused(name, scaled, words):
    with pytest.raises(ValueError, match=words):
        OF_ONE_SET[name](scaled(DIGITS))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nearest_neighbours(FEATURES, with_nan(FEATURES)), "reference: expected finite .*the first is 7"),
        (lambda: nearest_neighbours(None, FEATURES), "x: expected a floating-point tensor"),
        (lambda: evaluate_samples(DIGITS[:3]), r"images: expected .*with N at least 4, got shape \(3, 1, 28, 28\)"),
        (lambda: evaluate_samples(DIGITS, training=with_nan(DIGITS)), "training: expected finite .*the first is 7"),
        (lambda: evaluate_samples(DIGITS, resamples=-1), "resamples: expected a whole number from 0 to 100,000"),
        (lambda: bootstrap_interval(torch.mean, with_nan(FEATURES)), "samples: expected finite values"),
        (lambda: bootstrap_interval(torch.mean, FEATURES, level=95), "level: expected a number above 0 and below 1"),
        (lambda: bootstrap_interval(torch.mean, FEATURES, resamples=10**15), "resamples: expected a whole number"),
        (lambda: bootstrap_interval(torch.mean, None), "samples: expected tensors or arrays, got None"),
        (lambda: kernel_interval(FEATURES, FEATURES, level=-0.5), "level: expected"),
        (lambda: kernel_distance(FEATURES, FEATURES[:9], subsets=0), "subsets: expected"),
        (lambda: precision_recall(FEATURES, FEATURES, k=0), "k: expected a whole number of at least 1"),
        (lambda: seed_interval([1.0, math.nan]), "values: expected a number that is finite, got nan"),
        (lambda: seed_interval([1.0, 2.0], level=95), "level: expected"),
        (lambda: seed_interval("12"), "values: expected one number a seed, got '12'"),
        (lambda: seed_difference(None, [1.0]), "a: expected one number a seed, got None"),
        (lambda: class_balance(torch.tensor([0.5, 1.0])), "x: expected at least one class from 0 to 9"),
        (lambda: in_reference(torch.tensor([-1, 3])), "labels: expected whole numbers from 0 to 9"),
        (lambda: features(DIGITS, network="net"), "network: expected a DigitClassifier"),
    ],
)
def test_metrics_refuse_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_features_may_be_arrays_and_samples_a_little_outside():
    assert frechet_distance(FEATURES.numpy(), FEATURES.numpy()) == pytest.approx(0, abs=1e-4)
    noise = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert confidence(1.5 * noise).isfinite().all() and confidence(torch.zeros(2, 1, 28, 28)).isfinite().all()
