"""Strict JSON: one object or a refusal, and the quick reader equals the full one."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kpis.json_text import (
    Integer,
    MalformedError,
    Number,
    _any_object,
    _plain_object,
    json_object,
    text_of,
    without,
)


def nested(levels: int) -> bytes:
    return b'{"a":' * (levels - 1) + b"{}" + b"}" * (levels - 1)


def listed(levels: int) -> bytes:
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b'"text"',
        b"12",
        b'{"a":"x"',
        b'{"a":"x"} {}',
        b'{"a":"x"}\x00',
        b'{"a":"x",}',
        b"{'a':'x'}",
        b'{a:"x"}',
        b'{"a":01}',
        b'{"a":+1}',
        b'{"a":.5}',
        b'{"a":1.}',
        b'{"a":True}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":[-Infinity]}',
        b'{"a":"x","a":"x"}',
        b'{"a":null,"a":null}',
        b'{"a":"x","b":null,"a":null}',
        b'{"a":"x", "a" :"y"}',
        b'{"b":{"a":1,"a":2}}',
        b'{"b":[{"a":1,"\\u0061":2}]}',
        b'{"a":"\n"}',
        b'{"a":"\\x"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\udc00\\ud800"}',
        b'{"b":[{"\\uD800":1}]}',
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xc0\x80"}',
        b'\xef\xbb\xbf{"a":"x"}',
        '{"a":"x"}'.encode("utf-16"),
        nested(33),
        nested(200_000),
        listed(33),
        listed(200_000),
        b"[" * 262_000,
    ],
    ids=lambda value: repr(value[:30]),
)
def test_what_is_not_one_strict_object_is_malformed(value: bytes) -> None:
    with pytest.raises(MalformedError, match=r"^value: expected "):
        json_object(value)


@pytest.mark.parametrize("value", [nested(32), listed(32)], ids=["objects", "arrays"])
def test_thirty_two_levels_are_read(value: bytes) -> None:
    assert list(json_object(value)) == ["a"]


def test_brackets_in_texts_are_no_levels() -> None:
    assert json_object(b'{"a":"' + b"[{" * 100 + b'","b":1}')["b"] == "1"


def test_numbers_keep_their_text() -> None:
    members = json_object(b'{"a":12.50,"b":12,"c":-0,"d":1e400,"e":' + b"9" * 5000 + b"}")
    assert members["a"] == "12.50"
    assert type(members["a"]) is Number
    assert type(members["b"]) is Integer
    assert members["c"] == "-0"
    assert type(members["d"]) is Number
    assert members["e"] == "9" * 5000


def test_surrogate_pairs_are_one_character() -> None:
    assert json_object(b'{"a":"\\ud83d\\ude00","b":"\\\\ud800"}') == {"a": "😀", "b": "\\ud800"}


keys = st.sampled_from(["a", "b", "channel", "é", 'q"', ""])
scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from("ab")
pairs = st.lists(st.tuples(keys, scalars | st.lists(scalars, max_size=2)), max_size=5)
separators = st.sampled_from([",", ", ", " ,", ",\n"])
colons = st.sampled_from([":", ": ", " : ", "::"])


@given(pairs, separators, colons, st.booleans(), st.sampled_from(["", " ", "}", ",", "x"]))
@example([("a", None), ("a", None)], ",", ":", True, "")
@example([("a", "x"), ("b", None), ("a", None)], ",", ":", True, "")
def test_quick_reader_equals_the_full_one(
    members: list[tuple[str, object]], comma: str, colon: str, ascii_only: bool, rest: str
) -> None:
    def text(value: object) -> str:
        return json.dumps(value, ensure_ascii=ascii_only)

    source = "{" + comma.join(text(key) + colon + text(value) for key, value in members) + "}"
    check_quick_reader(source + rest)


@given(st.text('{}[]":,ab \\ntruefalsenull\x7f1'))
def test_quick_reader_equals_the_full_one_on_any_text(text: str) -> None:
    check_quick_reader(text)


def check_quick_reader(text: str) -> None:
    quick = _plain_object(text.encode(), text)
    if quick is not None:
        full = _any_object(text)
        assert quick == full
        assert [*map(type, quick.values())] == [*map(type, full.values())]


@given(st.recursive(scalars | st.floats(allow_nan=False, allow_infinity=False), st.lists))
def test_text_of_a_parsed_value_says_the_same(value: object) -> None:
    parsed = json_object(json.dumps({"a": value, "é": [value]}).encode())
    assert json_object(text_of(parsed).encode()) == parsed


def test_members_are_cut_out_by_whole_name_at_any_depth() -> None:
    members = json_object(
        b'{"E-Mail":"x","email ":1,"EMAIL":2,"emails":3,"a":[{"email":4,"b":5}],"c":{"d":{"Email":6}}}'
    )
    assert text_of(without(members, frozenset({"email"}))) == (
        '{"E-Mail":"x","emails":3,"a":[{"b":5}],"c":{"d":{}}}'
    )
