"""Counters become honest rates, and restarts are told from wraps."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from aiops_assets.collectors.rates import ABSURD_RATE, TICKS_WRAP, Counters, Uptime, rate, restarted

BITS = st.sampled_from([32, 64])


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.floats(-10, 1e6), BITS)
def test_a_rate_is_never_negative_absurd_or_infinite(previous: int, current: int, seconds: float, bits: int) -> None:
    result = rate(previous % 2**bits, current % 2**bits, seconds, bits)
    assert result is None or (0 <= result <= ABSURD_RATE and math.isfinite(result))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**31 - 1), st.floats(1, 3600))
def test_a_32_bit_counter_that_grows_by_less_than_half_its_range_has_its_true_rate(
    start: int, growth: int, seconds: float
) -> None:
    end = (start + growth) % 2**32
    result = rate(start, end, seconds, 32)
    if end >= start or start >= 2**31:
        assert result is not None
        assert math.isclose(result, growth / seconds, rel_tol=1e-9, abs_tol=1e-9)
    else:
        assert result is None


@given(st.integers(1, 2**64 - 1), st.floats(1, 3600))
def test_a_64_bit_counter_set_back_to_nought_gives_no_rate(previous: int, seconds: float) -> None:
    if previous < 2**64 - 2**40:
        assert rate(previous, 0, seconds, 64) is None


def test_a_wrap_faster_than_the_interface_is_a_restart() -> None:
    previous, current = 2**32 - 1_000, 900_000_000
    assert rate(previous, current, 10, 32) is not None
    assert rate(previous, current, 10, 32, limit=1.25e6) is None


def test_a_32_bit_counter_that_was_low_and_is_lower_was_reset() -> None:
    assert rate(1_000_000, 5, 60, 32) is None


def test_no_time_between_samples_gives_no_rate() -> None:
    assert rate(1, 2, 0.0, 64) is None
    assert rate(1, 2, -1.0, 64) is None


def test_the_first_sample_has_no_rate_and_the_second_has() -> None:
    counters = Counters()
    assert counters.rate("a", 100, 10.0) is None
    counters.turn()
    assert counters.rate("a", 160, 70.0) == 1.0


def test_a_reset_forgets_what_was_before() -> None:
    counters = Counters()
    counters.rate("a", 100, 10.0)
    counters.turn()
    counters.reset()
    assert counters.rate("a", 160, 70.0) is None
    counters.turn()
    assert counters.rate("a", 220, 130.0) == 1.0


def test_a_counter_that_changes_its_width_starts_anew() -> None:
    counters = Counters()
    counters.rate("a", 100, 10.0, 32)
    counters.turn()
    assert counters.rate("a", 160, 70.0, 64) is None


def test_counters_that_disappear_are_forgotten() -> None:
    counters = Counters()
    counters.rate("a", 100, 10.0)
    counters.turn()
    counters.turn()
    assert counters.rate("a", 160, 70.0) is None


@given(
    st.integers(0, TICKS_WRAP - 1),
    st.floats(0, 30 * 86_400, allow_nan=False),
    st.floats(-0.01, 0.01),
)
def test_time_that_goes_on_is_no_restart_even_across_the_wrap(ticks: int, passed: float, drift: float) -> None:
    later = int(ticks + passed * 100 * (1 + drift)) % TICKS_WRAP
    assert not restarted(Uptime(ticks, 1e9), Uptime(later, 1e9 + passed))


@given(st.floats(200, 480 * 86_400), st.floats(60, 7 * 86_400), st.floats(0, 1))
def test_an_uptime_that_began_anew_is_a_restart(up: float, passed: float, part: float) -> None:
    """However long nobody looked, a count that began since is seen, unless the old life was as short as the new."""
    before = Uptime(int(up * 100), 1e9)
    now = Uptime(int(passed * part * 100), 1e9 + passed)
    expected = before.ticks + passed * 100
    near_wrap = expected > TICKS_WRAP * 0.95
    if not near_wrap and expected - now.ticks > max(6_000, 0.02 * passed * 100):
        assert restarted(before, now)


def test_a_clock_that_was_corrected_or_a_machine_that_slept_is_no_restart() -> None:
    ten_days = Uptime(86_400_000, 1e9)
    assert not restarted(ten_days, Uptime(86_400_000 + 6_000, 1e9 + 3_600))
    assert not restarted(ten_days, Uptime(86_400_000 + 6_000, 1e9 - 3_600))


def test_a_reading_slightly_back_is_jitter_but_not_after_days() -> None:
    assert not restarted(Uptime(500_000, 1e9), Uptime(499_900, 1e9 + 1))
    assert restarted(Uptime(20_000, 1e9), Uptime(19_800, 1e9 + 198_000))
