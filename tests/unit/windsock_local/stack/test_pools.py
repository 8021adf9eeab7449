"""The GPU pool is for installations whose steps run in pods; the pool itself is looked at on a cluster."""

from pathlib import Path

import pytest

from windsock.errors import SpecError
from windsock_local.stack.home import Home
from windsock_local.stack.parts import ensure_gpu_pool

NOBODY = "http://127.0.0.1:9"


def test_a_laptop_asks_airflow_for_no_pool(tmp_path: Path):
    ensure_gpu_pool(NOBODY, Home(tmp_path), {"WINDSOCK_GPUS": "4"})


def test_a_number_of_gpus_that_is_none_is_refused(tmp_path: Path):
    with pytest.raises(SpecError, match="WINDSOCK_GPUS is the number of GPUs"):
        ensure_gpu_pool(NOBODY, Home(tmp_path), {"WINDSOCK_COMPUTE": "kubernetes", "WINDSOCK_GPUS": "two"})
