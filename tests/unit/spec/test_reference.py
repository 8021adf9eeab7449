from windsock.settings import REPO_ROOT
from windsock.spec.reference import markdown


def test_the_documented_fields_are_the_ones_there_are():
    page = (REPO_ROOT / "docs" / "spec.md").read_text(encoding="utf-8")
    assert page == markdown(), "docs/spec.md is out of date: windsock lint --reference > docs/spec.md"
