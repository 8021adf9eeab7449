"""Quantities of memory, and what a step gets after it ran out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from windsock.compute import SiteCompute, after_running_out, in_bytes, quantity

MEBI = 2**20
quantities = st.builds(lambda n, unit: f"{n}{unit}", st.integers(1, 4096), st.sampled_from(["Mi", "Gi"]))


@pytest.mark.parametrize(("text", "size"), [("512Mi", 512 * MEBI), ("1.5Gi", 1536 * MEBI), ("1Ti", MEBI * MEBI)])
def test_quantities_are_read_as_kubernetes_reads_them(text: str, size: int):
    assert in_bytes(text) == size


@pytest.mark.parametrize("text", ["", "Gi", "1gb", "-1Gi", "1 Gi", "1e3", "2G", "7"])
def test_what_is_no_quantity_in_mi_gi_or_ti_is_refused_where_it_is_declared(text: str):
    with pytest.raises(ValidationError, match="memory"):
        SiteCompute(memory=text)


@given(st.integers(1, 2**50))
def test_a_written_quantity_is_never_less_and_less_than_a_mebibyte_more(size: int):
    assert 0 <= in_bytes(quantity(size)) - size < MEBI


@given(quantities, st.floats(1.01, 16), quantities)
def test_memory_grows_towards_the_limit_reaches_it_and_ends(first: str, growth: float, limit: str):
    had, steps = first, 0
    while (more := after_running_out(had, growth, limit)) is not None:
        assert in_bytes(had) < in_bytes(more) <= in_bytes(limit)
        had, steps = more, steps + 1
        assert steps < 5000
    assert in_bytes(had) == max(in_bytes(first), in_bytes(limit))


def test_memory_doubles():
    assert after_running_out("256Mi", 2, "1Gi") == "512Mi"
    assert after_running_out("768Mi", 2, "1Gi") == "1Gi"
    assert after_running_out("1Gi", 2, "1Gi") is None
