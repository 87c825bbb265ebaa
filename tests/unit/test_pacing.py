"""Pacing functions: exact ends, never back, for every number of frames and snapshots."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_core.pacing import PACINGS, frame_indices, paced, pacing_function

NAMES = sorted(PACINGS)
unhurried = settings(deadline=None)  # a busy machine is no failure


def test_the_five_pacings_are_there():
    assert set(PACINGS) == {"linear", "quadratic", "inverse_quadratic", "logarithmic", "reverse_logarithmic"}


@pytest.mark.parametrize("name", NAMES)
@unhurried
@given(n_frames=st.integers(2, 4000))
def test_ends_are_exact_and_time_never_runs_back(name, n_frames):
    share = paced(n_frames, name)
    assert share.shape == (n_frames,)
    assert share[0] == 0.0
    assert share[-1] == 1.0
    assert (np.diff(share) >= 0).all()


@pytest.mark.parametrize("name", NAMES)
@unhurried
@given(u=st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_values_stay_in_the_unit_interval(name, u):
    p = PACINGS[name](np.array(u))
    assert ((p >= 0) & (p <= 1)).all()


def test_values_at_one_half():
    half = {name: float(PACINGS[name](0.5)) for name in NAMES}
    log = np.log(5.5) / np.log(10)
    want = {"linear": 0.5, "quadratic": 0.25, "inverse_quadratic": 0.75, "logarithmic": log}
    assert half == pytest.approx({**want, "reverse_logarithmic": 1 - log}, abs=1e-12)


@pytest.mark.parametrize(("one", "other"), [("quadratic", "inverse_quadratic"), ("logarithmic", "reverse_logarithmic")])
def test_each_is_the_other_run_backwards(one, other):
    u = np.linspace(0, 1, 41)
    np.testing.assert_allclose(PACINGS[one](u), 1 - PACINGS[other](1 - u), atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
@unhurried
@given(snapshots=st.integers(1, 400), n_frames=st.integers(2, 400))
def test_indices_run_from_the_first_snapshot_to_the_last(name, snapshots, n_frames):
    index = frame_indices(snapshots, n_frames, name)
    assert index.shape == (n_frames,)
    assert index.dtype.kind == "i"
    assert index[0] == 0
    assert index[-1] == snapshots - 1
    assert (np.diff(index) >= 0).all()


@pytest.mark.parametrize("name", NAMES)
@unhurried
@given(
    times=st.lists(st.floats(0, 1, width=32), min_size=2, max_size=30, unique=True).map(sorted),
    n_frames=st.integers(2, 60),
    backward=st.booleans(),
)
def test_each_frame_shows_the_nearest_of_uneven_times(name, times, n_frames, backward):
    t = np.array(times[::-1] if backward else times, dtype=np.float64)
    index = frame_indices(t, n_frames, name)
    wanted = t[0] + paced(n_frames, name) * (t[-1] - t[0])
    nearest = np.abs(t[None] - wanted[:, None]).min(axis=1)
    np.testing.assert_allclose(np.abs(t[index] - wanted), nearest, atol=1e-9)


def test_linear_pace_shows_each_of_as_many_snapshots_once():
    assert frame_indices(7, 7).tolist() == list(range(7))
    assert frame_indices(3, 5).tolist() == [0, 0, 1, 1, 2]


def test_a_single_frame_shows_the_end():
    assert paced(1, "quadratic").tolist() == [1.0]
    assert frame_indices(9, 1, "logarithmic").tolist() == [8]


def test_a_function_is_a_pacing():
    assert pacing_function(np.square) is np.square
    assert pacing_function("linear") is PACINGS["linear"]
    np.testing.assert_allclose(paced(3, lambda u: u**3), [0, 0.125, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paced(5, "cubic"), "pacing: expected one of 'linear', 'quadratic', .* got 'cubic'"),
        (lambda: paced(0), "n_frames: expected a whole number from 1 to 100,000, got 0"),
        (lambda: paced(5, lambda u: 1 - u), "pacing: expected 5 values that never decrease from 0 to 1"),
        (lambda: paced(5, lambda u: 0.9 * u), "never decrease from 0 to 1, got .* 0.9"),
        (lambda: pacing_function("cubic"), "pacing: expected one of"),
        (lambda: frame_indices(0, 5), "snapshots: expected a whole number from 1 to 100,000, got 0"),
        (lambda: frame_indices([0.0, 0.5, 0.5], 5), "snapshots: expected strictly rising or falling times"),
        (lambda: frame_indices([], 5), "snapshots: expected strictly rising or falling times"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
