"""What the published networks draw, read by the shipped classifier; and how that classifier is trained.

The samples come from fixed noise, so the tests give the same answer every time on one machine. On another machine the
last digits of the arithmetic differ; the margins are several standard errors wide.
"""

from types import SimpleNamespace

import pytest
import torch

from fm_book.metrics import DigitClassifier, class_probabilities, load_classifier, train_classifier
from fm_core import draw_noise, load_pretrained, load_sample, sample
from fm_core.data import Digits

SAMPLES, NFE = 512, 8


@pytest.fixture(scope="module")
def classifier() -> DigitClassifier:
    return load_classifier()


@pytest.fixture(scope="module")
def drawn(classifier: DigitClassifier) -> SimpleNamespace:
    noise = draw_noise((SAMPLES, 1, 28, 28))
    confidence, classes = {}, {}
    for name in ("base", "residual"):
        x = sample(load_pretrained(name), noise, NFE, progress=False)
        confidence[name], classes[name] = class_probabilities(x, network=classifier).max(dim=1)
    return SimpleNamespace(confidence=confidence, classes=classes)


def test_a_short_training_reads_digits_it_has_not_seen() -> None:
    unseen = load_sample("test")
    short = train_classifier(load_sample("train"), steps=60)
    read = class_probabilities(unseen.images, network=short).argmax(dim=1)
    assert (read == unseen.labels).float().mean() > 0.85


def test_residual_samples_are_clearly_more_legible_than_base_samples(drawn: SimpleNamespace) -> None:
    gain = drawn.confidence["residual"] - drawn.confidence["base"]  # pairs grown from the same noise
    assert gain.mean() > 3 * gain.std() / SAMPLES**0.5
    assert drawn.confidence["residual"].mean() > 0.75


@pytest.mark.parametrize("name", ["base", "residual"])
def test_samples_hold_every_digit(name: str, drawn: SimpleNamespace) -> None:
    counts = torch.bincount(drawn.classes[name], minlength=10)
    assert counts.min() > SAMPLES / 10 / 4


def test_the_classifier_is_the_same_for_the_same_seed() -> None:
    digits = load_sample("test")
    one, same, other = (train_classifier(digits, steps=3, seed=seed) for seed in (0, 0, 1))
    for a, b in zip(one.parameters(), same.parameters(), strict=True):
        assert torch.equal(a, b)
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_training_the_classifier_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    train_classifier(load_sample("test"), steps=1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("digits", "steps", "message"),
    [
        (
            Digits(torch.zeros(3, 1, 28, 28), torch.zeros(3, dtype=torch.long), "test"),
            0,
            "steps: expected a whole number from 1 to 10,000,000",
        ),
        (Digits(torch.zeros(3, 28, 28), torch.zeros(3, dtype=torch.long), "test"), 1, "digits: expected images"),
        (
            Digits(torch.zeros(3, 1, 28, 28), torch.full((3,), 10), "test"),
            1,
            "expected labels from 0 to 9, got 10 to 10",
        ),
    ],
)
def test_bad_digits_are_refused(digits: Digits, steps: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_classifier(digits, steps=steps)


def test_a_time_from_which_labels_are_kept_lies_in_the_unit_interval() -> None:
    digits = load_sample("test")
    with pytest.raises(ValueError, match=r"label_noise_cutoff: expected a number above 0"):
        train_classifier(digits, steps=1, label_noise_cutoff=0)
    early, late = (train_classifier(digits, steps=2, label_noise_cutoff=cutoff).head.weight for cutoff in (0.8, 1.0))
    assert not torch.equal(early, late)


def test_images_of_another_shape_are_refused(classifier: DigitClassifier) -> None:
    with pytest.raises(ValueError, match=r"expected images \(N, 1, 28, 28\)"):
        class_probabilities(torch.zeros(28, 28), network=classifier)
