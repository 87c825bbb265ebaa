"""What the published networks draw, read by the shipped classifier; and how that classifier is trained.

The samples come from fixed noise, so the tests give the same answer every time on one machine. On another machine the
last digits of the arithmetic differ; the margins are several standard errors wide.
"""

from types import SimpleNamespace

import pytest
import torch

from fm_core import class_probabilities, load_classifier, load_pretrained, load_sample, solve, train_classifier, uniform_grid
from fm_core.data import Digits

SAMPLES, NFE = 512, 8


@pytest.fixture(scope="module")
def classifier() -> torch.nn.Module:
    return load_classifier()


@pytest.fixture(scope="module")
def drawn(classifier: torch.nn.Module) -> SimpleNamespace:
    noise = torch.randn(SAMPLES, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    confidence, classes = {}, {}
    for name in ("base", "residual"):
        x = solve(load_pretrained(name), noise, uniform_grid(NFE), keep=False, progress=False).x[-1]
        confidence[name], classes[name] = class_probabilities(classifier, x).max(dim=1)
    return SimpleNamespace(confidence=confidence, classes=classes)


def test_a_short_training_reads_digits_it_has_not_seen() -> None:
    unseen = load_sample("test")
    short = train_classifier(load_sample("train"), steps=60)
    read = class_probabilities(short, unseen.images).argmax(dim=1)
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
        (Digits(torch.zeros(3, 1, 28, 28), torch.zeros(3, dtype=torch.long), "test"), 0, "at least 1 step"),
        (Digits(torch.zeros(3, 28, 28), torch.zeros(3, dtype=torch.long), "test"), 1, "images of shape"),
        (Digits(torch.zeros(3, 1, 28, 28), torch.full((3,), 10), "test"), 1, "labels from 10 to 10"),
    ],
)
def test_bad_digits_are_refused(digits: Digits, steps: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_classifier(digits, steps=steps)


def test_a_time_from_which_labels_are_kept_lies_in_the_unit_interval() -> None:
    digits = load_sample("test")
    with pytest.raises(ValueError, match=r"legible=0; .* above 0 and at most 1"):
        train_classifier(digits, steps=1, legible=0)
    early, late = (train_classifier(digits, steps=2, legible=legible).head.weight for legible in (0.8, 1.0))
    assert not torch.equal(early, late)


def test_images_of_another_shape_are_refused(classifier: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match="takes \\(N, 1, 28, 28\\)"):
        class_probabilities(classifier, torch.zeros(28, 28))
