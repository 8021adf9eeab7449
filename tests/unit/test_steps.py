"""Steps are told what they know, or the call is an error."""

import importlib
import inspect
import re

import pytest

from windsock.errors import SpecError
from windsock.steps import OPTIONS, STEPS, run_step


@pytest.mark.parametrize("name", STEPS)
def test_an_option_that_a_step_does_not_have_is_an_error_before_anything_is_read(name):
    with pytest.raises(SpecError, match=f"No option of step {name} named 'asof'"):
        run_step(name, model="nobody", options={"by": "ada", "asof": "2026-03-01"})


@pytest.mark.parametrize("name", STEPS)
def test_every_option_that_a_step_reads_may_be_given(name):
    source = inspect.getsource(importlib.import_module(STEPS[name]))

    read = set(re.findall(r"ctx\.options(?:\.get\(|\[)\"(\w+)\"", source))

    assert read - {"by"} <= set(OPTIONS.get(name, ()))
