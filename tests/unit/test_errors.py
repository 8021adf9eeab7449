"""Messages stay readable, however much there is to name."""

from windsock.errors import SpecError, listed
from windsock.validate.sentences import rule_of

MANY = [f"name{n:03}" for n in range(300)]


def test_at_most_ten_names_stand_in_a_list_and_the_rest_is_counted():
    assert listed(MANY[:10]) == ", ".join(MANY[:10])
    assert listed(MANY[:11]).endswith("name009 and 1 more")
    assert listed([]) == ""


def test_what_is_on_offer_is_cut_and_the_nearest_name_is_not():
    message = str(SpecError.unknown("model", "name29O", MANY, "a folder"))

    assert "Did you mean 'name29" in message
    assert message.endswith("Known in a folder: " + ", ".join(MANY[:10]) + " and 290 more.")


def test_a_rule_of_many_values_is_said_in_short():
    rule = {"type": "expect_column_values_to_be_in_set", "meta": {}, "kwargs": {"column": "c", "value_set": MANY}}

    assert rule_of(rule).endswith("name009 and 290 more")
