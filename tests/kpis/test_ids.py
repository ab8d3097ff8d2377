"""Ids as few bytes, and back."""

from hypothesis import given
from hypothesis import strategies as st

from kpis.ids import packed_id, unpacked_id

ids = st.one_of(
    st.uuids().map(str),
    st.uuids().map(lambda uuid: str(uuid).upper()),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
    st.text("0123456789abcdef-", min_size=36, max_size=36),
)


def test_a_uuid_takes_16_bytes() -> None:
    assert packed_id("2f1c8a3e-0000-4b1d-9c3e-5a7d1e2f3a4b") == bytes.fromhex(
        "2f1c8a3e00004b1d9c3e5a7d1e2f3a4b"
    )


def test_what_is_written_otherwise_stays_as_it_is() -> None:
    for text in ("L1", "2F1C8A3E-0000-4B1D-9C3E-5A7D1E2F3A4B", "-" * 36, "é" * 36):
        assert packed_id(text) == text


@given(ids)
def test_every_id_comes_back(text: str) -> None:
    assert unpacked_id(packed_id(text)) == text
