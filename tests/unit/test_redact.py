"""Secrets are struck out of every text that leaves a process."""

import pytest

from windsock.redact import redact, redact_line, redact_link


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("failed: host=db user=ml password=hunter2 dbname=x", "failed: host=db user=ml password=*** dbname=x"),
        ("host=db password='hunt er\\'2' dbname=x", "host=db password=*** dbname=x"),
        ("DRIVER=x;UID=ml;Pwd=hunter,2;DATABASE=y", "DRIVER=x;UID=ml;Pwd=***;DATABASE=y"),
        ("GET /x Authorization: Bearer eyJhbGciOi.abc.def, again", "GET /x Authorization: Bearer ***, again"),
        ("{'Authorization': 'Basic YW5uOnB3', 'Accept': 'x'}", "{'Authorization': 'Basic ***', 'Accept': 'x'}"),
        ("it sent Bearer eyJhbGciOi1.abc.def", "it sent Bearer ***"),
        ("AWS_ACCESS_KEY_ID=AKIA1 AWS_SECRET_ACCESS_KEY=wJalr/7M", "AWS_ACCESS_KEY_ID=AKIA1 AWS_SECRET_ACCESS_KEY=***"),
        ("AccountName=a;AccountKey=abcd12==;Suffix=x", "AccountName=a;AccountKey=***;Suffix=x"),
        ("api_key=sk-123456", "api_key=***"),
        ("connect(dsn='host=db apikey=sk-1', token=\"a b\")", "connect(dsn='host=db apikey=*** token=***)"),
        ("{'password': 'hunter2', \"client_secret\": \"x y\"}", "{'password': ***, \"client_secret\": ***}"),
    ],
)
def test_settings_that_are_secret_are_struck_out_wherever_they_stand(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "The token is missing, and so is its secret: set WINDSOCK_SLACK_TOKEN, or a password.",
        "partition_key=2026-01-01 dedupe_key=7@2026 max_tokens=512 design=3 primary_key=id",
        "SELECT token, passwords FROM t WHERE secret = 'x' AND sig > 3",
        "Basic authentication failed. Bearer authentication is asked for; Authorization: none was given.",
        "s3://bucket/token/2026-03-05/secret.parquet and /etc/passwd at http://db:5432/pwd/a_b#sig",
        "a password: try again, or see secrets/airflow_passwords.json",
        "secret_shopper_count=5.2 of column n_passwords=3, and Basic validation/v2 failed",
    ],
)
def test_sentences_files_statements_and_addresses_without_secrets_stay_as_they_are(text: str) -> None:
    assert redact(text) == text


def test_a_link_leads_where_it_led_without_the_secrets_in_it() -> None:
    assert redact_link("https://u:pw@ui/dags/x?tab=log&try=2#end") == "https://***@ui/dags/x?tab=log&try=2#end"
    assert redact_link("http://ui:5000/#/models/fraud@champion") == "http://ui:5000/#/models/fraud@champion"
    assert redact_link("https://ui/x?day=2026-03-05&sig=abc") == "https://ui/x?day=2026-03-05&sig=***"


def test_given_secrets_are_struck_out_with_and_without_the_space_around_them() -> None:
    assert redact("x s3cret y s3cret\n z", ["s3cret\n", "  "]) == "x *** y *** z"


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "part",
    [
        *("x", "x.", "x://", "x://y:", "x://y:/", "x://y@", "x?", "x://y:z,", "xoxb-", "://", "@", "token", "token="),
        *("token='", "token=a ", "password='\\", "'token': ", "Bearer ", "Authorization: Basic ", "Basic 1"),
    ],
)
def test_a_long_text_of_any_kind_is_redacted_in_no_time(part: str) -> None:
    assert "s3cret" not in redact(part * 20_000 + " http://ann:s3cret@db/x?y=s3cret")


def test_a_line_is_one_line_of_bounded_length_and_cut_after_redaction() -> None:
    long = f"{'x' * 280}\nhttp://ann:{'p' * 50}@db{'y' * 50}"

    assert " http://***@db" in redact_line(long)
    assert redact_line(long).endswith("…")
    assert len(redact_line(long)) == 300
