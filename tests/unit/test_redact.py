"""Secrets are struck out of every text that leaves a process."""

import pytest

from windsock.redact import redact, redact_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql+psycopg2://ann:pa:ss@db/x failed", "postgresql+psycopg2://***@db/x failed"),
        ("at http://ann:p/a?s#s@db:80/x", "at http://***@db:80/x"),
        (f"at http://ann:p/{'s' * 5000}@db/x", "at http://***@db/x"),
        ("at http://ann:p@ss@db/x", "at http://***@db/x"),
        ("https://u@h/p?token=t and s3://b/k?sig=a#f", "https://***@h/p?*** and s3://b/k?***#f"),
        ("token xoxb-123-abc, xapp-1-A", "token ***, ***"),
        ("Is it http://db/x? It is.", "Is it http://db/x? It is."),
        ("fraud@challenger at http://127.0.0.1:5000/a/b", "fraud@challenger at http://127.0.0.1:5000/a/b"),
    ],
)
def test_credentials_and_queries_of_urls_and_slack_tokens_are_struck_out(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_given_secrets_are_struck_out_with_and_without_the_space_around_them() -> None:
    assert redact("x s3cret y s3cret\n z", ["s3cret\n", "  "]) == "x *** y *** z"


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "part", ["x", "x.", "x://", "x://y:", "x://y:/", "x://y@", "x?", "x://y:z,", "xoxb-", "://", "@"]
)
def test_a_long_text_of_any_kind_is_redacted_in_no_time(part: str) -> None:
    assert "s3cret" not in redact(part * 20_000 + " http://ann:s3cret@db/x?y=s3cret")


def test_a_line_is_one_line_of_bounded_length_and_cut_after_redaction() -> None:
    long = f"{'x' * 280}\nhttp://ann:{'p' * 50}@db{'y' * 50}"

    assert " http://***@db" in redact_line(long)
    assert redact_line(long).endswith("…")
    assert len(redact_line(long)) == 300
