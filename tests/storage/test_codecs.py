from __future__ import annotations

import dataclasses
import json
from enum import Enum
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layer2.errors import StorageError
from layer2.storage import _codecs as codecs
from layer2.storage import _shapes as shapes
from layer2.storage._codec_v1 import DEAL, EFFECTS, OBSERVATIONS, STATES
from layer2.swaps import _states as states
from layer2.swaps._effects import Claim, Effect, SendLock
from layer2.swaps._observations import Observation, PaymentStatus, PaymentView

FROZEN = {1: json.loads((Path(__file__).parent / "fixtures" / "shape_1.json").read_text())}
"""What stores of released versions hold. Never edited: a new shape gets a file of its own."""

CASES = [
    pytest.param(family, shape, case, id=f"{family}-{shape}-{case['kind']}-{number}")
    for shape, families in FROZEN.items()
    for family, cases in families.items()
    for number, case in enumerate(cases)
]


def decode(family, shape, case):
    if family == "deals":
        return codecs.decode_deal(shape, case["text"])
    return getattr(codecs, f"decode_{family[:-1]}")(case["kind"], shape, case["text"])


def encode(family, value):
    return getattr(codecs, f"encode_{family[:-1]}")(value)


@pytest.mark.parametrize(("family", "shape", "case"), CASES)
def test_what_a_released_version_wrote_is_read_as_it_was_meant(family, shape, case):
    value = decode(family, shape, case)
    assert plain(value) == case["value"]
    assert decode(family, codecs.CURRENT, vars_of(encode(family, value))) == value


@pytest.mark.parametrize(("family", "shape", "case"), [case for case in CASES if case.values[1] == codecs.CURRENT])
def test_the_newest_shape_is_written_to_the_letter(family, shape, case):
    assert encode(family, decode(family, shape, case)) == codecs.Encoded(
        kind=case["kind"], shape=shape, text=case["text"]
    )


def plain(value):
    """A value as the fixtures spell it: by class and field, whatever its disk shape or its repr."""
    if dataclasses.is_dataclass(value):
        fields = {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
        return {"class": type(value).__name__, **fields}
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    return value.hex() if isinstance(value, bytes) else value


def vars_of(encoded):
    return {"kind": encoded.kind, "text": encoded.text}


@pytest.mark.parametrize(
    ("family", "members"),
    [(STATES, get_args(states.State)), (EFFECTS, get_args(Effect)), (OBSERVATIONS, get_args(Observation))],
)
def test_every_member_has_a_shape_with_all_its_fields(family, members):
    assert {shape.cls for shape in family.values()} == set(members)
    for shape in family.values():
        assert set(shape.fields) == {each.name for each in dataclasses.fields(shape.cls)}


def test_the_shape_of_a_deal_has_all_its_fields():
    assert set(DEAL.fields) == {each.name for each in dataclasses.fields(states.Deal)}


@pytest.mark.parametrize(("name", "family"), [("states", STATES), ("effects", EFFECTS), ("observations", OBSERVATIONS)])
def test_every_kind_has_a_frozen_fixture(name, family):
    assert {case["kind"] for case in FROZEN[1][name]} == set(family)


def test_the_names_of_the_states_are_those_that_can_be_listed():
    assert codecs.state_kinds() == set(STATES)


@pytest.mark.parametrize(("kind", "shape"), [("agreed", 2), ("agreed", 0), ("unheard_of", 1)])
def test_a_shape_of_a_newer_version_is_refused(kind, shape):
    with pytest.raises(StorageError, match="does not know"):
        codecs.decode_state(kind, shape, "{}")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("paid", "{}"),
        ("paid", '{"preimage":"00","more":1}'),
        ("paid", '{"preimage":1}'),
        ("paid", '{"preimage":"0G"}'),
        ("paid", '{"preimage":"AB"}'),
        ("paid", '{"preimage":"a b"}'),
        ("paid", "[]"),
        ("paid", "null"),
        ("paid", "not json"),
        ("paid", ""),
        ("closed", '{"outcome":null,"preimage":null,"reason":""}'),
    ],
)
def test_a_damaged_state_is_refused(kind, text):
    with pytest.raises(StorageError, match="damaged") as caught:
        codecs.decode_state(kind, 1, text)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    "change",
    [
        {"invoice_expires_at": True},
        {"invoice_expires_at": "1"},
        {"pays_itself": 1},
        {"role": "bystander"},
        {"role": ["client"]},
        {"max_gas_wei": "-1"},
        {"max_gas_wei": "01"},
        {"max_gas_wei": "1.0"},
        {"max_gas_wei": ""},
        {"max_gas_wei": "\u0661"},
        {"max_gas_wei": 1},
        {"signed": None},
    ],
)
def test_a_damaged_deal_is_refused(change):
    data = json.loads(FROZEN[1]["deals"][0]["text"])
    with pytest.raises(StorageError, match="damaged"):
        codecs.decode_deal(1, json.dumps(data | change))


def test_values_that_contradict_the_domain_type_are_refused():
    data = json.loads(FROZEN[1]["deals"][0]["text"])
    for path, value in ((("swap_id",), "short"), (("lock", "contract"), "00"), (("depth_policy", "confirmations"), 0)):
        copy = json.loads(json.dumps(data))
        place = copy["signed"]["terms"]
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        with pytest.raises(StorageError, match="damaged"):
            codecs.decode_deal(1, json.dumps(copy))


def test_deals_on_the_same_terms_share_what_is_the_same():
    data = json.loads(FROZEN[1]["deals"][0]["text"])
    one, other = (codecs.decode_deal(1, json.dumps(data | {"id": swap_id})) for swap_id in ("one", "other"))
    assert one != other
    assert one.terms.timing is other.terms.timing
    assert one.terms.depth_policy is other.terms.depth_policy
    data["signed"]["terms"]["timing"]["grace_s"] += 1
    changed = codecs.decode_deal(1, json.dumps(data))
    assert changed.terms.timing == dataclasses.replace(one.terms.timing, grace_s=one.terms.timing.grace_s + 1)


@pytest.mark.parametrize("value", [True, 1.0, "1", None, [1], {"confirmations": 1}])
def test_what_equals_a_value_that_was_read_before_is_checked_all_the_same(value):
    data = json.loads(FROZEN[1]["deals"][0]["text"])
    policy = data["signed"]["terms"]["depth_policy"]
    policy["confirmations"] = 1
    assert codecs.decode_deal(1, json.dumps(data)).terms.depth_policy.confirmations == 1
    policy["confirmations"] = value
    with pytest.raises(StorageError, match=r"damaged.*confirmations"):
        codecs.decode_deal(1, json.dumps(data))


@pytest.mark.parametrize("change", [None, [], "included", {}, {"depth": "included"}, {"more": 1}])
def test_a_depth_policy_of_another_shape_is_refused(change):
    data = json.loads(FROZEN[1]["deals"][0]["text"])
    terms = data["signed"]["terms"]
    terms["depth_policy"] = terms["depth_policy"] | change if change == {"more": 1} else change
    with pytest.raises(StorageError, match=r"damaged.*depth_policy"):
        codecs.decode_deal(1, json.dumps(data))


@pytest.mark.parametrize(
    "value",
    [
        states.Paid(preimage="secret canary"),
        states.Paid(preimage=None),
        SendLock(not_after="1"),
        SendLock(not_after=1.5),
        Claim(preimage=b"", not_after=True),
        PaymentView(status="gone", preimage=None, requests_open=False, now_s=1),
    ],
)
def test_a_value_that_could_not_be_read_back_is_not_written(value):
    families = (
        (get_args(states.State), "states"),
        (get_args(Effect), "effects"),
        (get_args(Observation), "observations"),
    )
    family = next(name for members, name in families if type(value) in members)
    with pytest.raises(StorageError, match="cannot be stored") as caught:
        encode(family, value)
    assert "canary" not in f"{caught.value} {caught.value.__cause__}"


def test_a_negative_amount_is_not_written(make_deal):
    with pytest.raises(StorageError, match="negative"):
        codecs.encode_deal(dataclasses.replace(make_deal(), max_gas_wei=-1))


def test_a_value_of_another_kind_is_not_written():
    with pytest.raises(StorageError, match="no disk shape"):
        codecs.encode_state(SendLock(not_after=1))
    with pytest.raises(shapes.ShapeError):
        STATES["paid"].write(states.Agreed())


def test_enumerations_are_read_back_as_their_members():
    text = codecs.encode_observation(
        PaymentView(status=PaymentStatus.FAILED, preimage=None, requests_open=False, now_s=1)
    ).text
    assert codecs.decode_observation("payment", 1, text).status is PaymentStatus.FAILED


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(STATES)), st.sampled_from(["preimage", "reason", "outcome", "signature"]), JSON)
def test_any_json_is_read_or_refused_with_the_error_of_the_store(kind, field, value):
    for data in (value, {field: value}, dict.fromkeys(STATES[kind].fields, value)):
        text = json.dumps(data)
        try:
            found = codecs.decode_state(kind, 1, text)
        except StorageError:
            continue
        assert json.loads(codecs.encode_state(found).text) == data
