"""What entities are known by between the shards."""

from hypothesis import given
from hypothesis import strategies as st

from streams.messages import lead_id_of, lead_key

ids = st.one_of(
    st.uuids().map(str),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
    st.binary(min_size=16, max_size=16).map(lambda raw: raw.decode("latin-1")),
)


@given(ids, ids)
def test_every_lead_has_a_key_of_its_own_and_comes_back_from_it(one: str, other: str) -> None:
    assert lead_id_of(lead_key(one)) == one
    assert (lead_key(one) == lead_key(other)) == (one == other)
