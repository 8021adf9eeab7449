"""Labels that Kubernetes takes, and names that stand for one task instance."""

import hashlib
import re

from hypothesis import given
from hypothesis import strategies as st

from windsock.compute import SiteCompute
from windsock.settings import Settings
from windsock_airflow.pods.identity import TaskIdentity, installation_of, label_value

texts = st.text(max_size=150)
identities = st.builds(TaskIdentity, st.just("0"), texts, texts, texts, st.integers(-1, 5))


@given(texts)
def test_every_text_becomes_a_valid_label_value(text: str):
    value = label_value(text)
    assert re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", value)
    assert label_value(value) == value


@given(texts, texts)
def test_different_texts_keep_different_label_values(a: str, b: str):
    assert (label_value(a) == label_value(b)) == (a == b) or {label_value(a), label_value(b)} & {a, b}


@given(identities, texts, st.integers(0, 10**6))
def test_every_pod_name_is_a_valid_one(identity: TaskIdentity, words: str, number: int):
    name = identity.pod_name(words, number)
    assert len(name) <= 63
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)


@given(identities, identities, st.integers(0, 9), st.integers(0, 9))
def test_a_name_stands_for_one_task_instance_and_number(a: TaskIdentity, b: TaskIdentity, m: int, n: int):
    assert (a.pod_name("x", m) == b.pod_name("x", n)) == ((a, m) == (b, n))


def test_installations_differ_by_their_store_the_name_that_the_site_gives_and_their_airflow():
    def of(name: str | None = None, airflow: str = "", **env: str) -> str:
        return installation_of(Settings.from_env(env), SiteCompute(installation=name), airflow)

    assert of(WINDSOCK_STORE="s3://a/x/") == of(WINDSOCK_STORE="s3://a/x", WINDSOCK_UI_URL="http://elsewhere")
    assert of(WINDSOCK_STORE="s3://a/x") != of(WINDSOCK_STORE="s3://a/y")
    assert of(WINDSOCK_STORE="s3://a/x") == hashlib.sha256(b"s3://a/x").hexdigest()[:16], "pods of 0.1 are not found"
    assert len({of(name, WINDSOCK_STORE="s3://a/x") for name in (None, "blue", "green")}) == 3
    assert len({of(airflow=name, WINDSOCK_STORE="s3://a/x") for name in ("", "1a", "2b")}) == 3
