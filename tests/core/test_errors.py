"""Every error: made from a message alone, carried to another process whole, and answering whoever must decide what to do next."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import re
from typing import Any

import pytest

from layer2 import AsyncTimeout, Layer2Error, NodeConnectionError, TxId, errors

KINDS = [getattr(errors, name) for name in errors.__all__]
TX_ID = TxId(layer="bob", hash=bytes(range(32)))
FIELDS: dict[str, Any] = {
    "account": "0x" + "11" * 20,
    "available": 2**70,
    "check": "anchor",
    "code": -32000,
    "coin": "BTC",
    "data": b"\x08\xc3\x79\xa0",
    "endpoint": "https://rpc.example",
    "expired_at": 1_800_000_000,
    "failures": {"bob": NodeConnectionError("gone", endpoint="https://rpc.example")},
    "field": "amount",
    "goes_on": True,
    "holder": "process 7 on host",
    "key": "bob.rpc_url",
    "limit": 500,
    "needed": 2**70 + 1,
    "path": "/etc/layer2.toml",
    "position": 4,
    "quote": TX_ID,
    "reason": "execution reverted",
    "request_sent": False,
    "retry_after_s": 30,
    "rule": "place",
    "run_again_by": 1_800_000_000,
    "swap_id": "ab" * 16,
    "transfer_id": "cd" * 16,
    "tx_id": TX_ID,
    "url": "sqlite:///journal.db",
    "variable": "LAYER2_BOB__RPC_URL",
}


def fields_of(kind: type[Layer2Error]) -> set[str]:
    names = {
        name for base in kind.__mro__ if base.__module__ == errors.__name__ for name in inspect.get_annotations(base)
    }
    return {name for name in names if not name.startswith("default_")}


def known(error: Layer2Error) -> tuple[object, ...]:
    """All that an error tells, in a form that compares: exceptions themselves do not."""
    answers = (error.money_may_have_moved, error.retry_safe)
    return type(error), str(error), error.message, error.hint, answers, repr(error.fields()), error.args


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_is_enough_and_both_questions_are_answered(kind: type[Layer2Error]) -> None:
    error = kind("it went wrong")
    assert isinstance(error, Layer2Error)
    assert (str(error), error.message, error.hint) == ("it went wrong", "it went wrong", None)
    assert type(error.money_may_have_moved) is type(error.retry_safe) is bool
    assert not [value for value in error.fields().values() if value]
    for name in fields_of(kind):
        assert not getattr(error, name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("carry", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_it_pickles_with_all_that_it_knows(kind: type[Layer2Error], carry: Any) -> None:
    fields = {name: FIELDS[name] for name in fields_of(kind)}
    for answers in ((True, False), (False, True)):
        error = kind(
            "it went wrong", hint="look there", money_may_have_moved=answers[0], retry_safe=answers[1], **fields
        )
        assert set(error.fields()) == set(fields)
        assert (error.money_may_have_moved, error.retry_safe) == answers
        again = carry(error)
        assert known(again) == known(error)
        assert str(again) == "it went wrong (look there)"


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_that_it_does_not_have_is_refused(kind: type[Layer2Error]) -> None:
    with pytest.raises(TypeError, match="no field 'colour'"):
        kind("it went wrong", colour="red")


def test_what_may_have_moved_money_is_said_by_its_kind() -> None:
    """Whoever catches one of these must look before going on; of all others it is certain that the call moved nothing."""
    moved = {kind.__name__ for kind in KINDS if kind("x").money_may_have_moved}
    assert moved == {"AsyncTimeout", "SwapRefunded", "TaskCancelled", "UnknownOutcome"}
    # Money that is back can be sent again; whatever else may have moved is asked for first.
    assert {name for name in moved if getattr(errors, name)("x").retry_safe} == {"SwapRefunded"}


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("AsyncTimeout", TimeoutError),
        ("AsyncRuntimeError", RuntimeError),
        ("NodeConnectionError", ConnectionError),
        ("ValidationError", ValueError),
    ],
)
def test_code_that_knows_only_the_language_catches_it(name: str, builtin: type[Exception]) -> None:
    with pytest.raises(builtin, match="it went wrong"):
        raise getattr(errors, name)("it went wrong")


def test_a_cancellation_of_the_task_is_no_error_of_ours() -> None:
    assert not issubclass(asyncio.CancelledError, Layer2Error)
    assert not [kind for kind in KINDS if issubclass(kind, asyncio.CancelledError)]


async def test_a_time_limit_of_the_callers_own_can_be_named_by_it() -> None:
    with pytest.raises(AsyncTimeout, match="timed out") as caught:
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError as error:
            raise AsyncTimeout("Transaction submission timed out") from error
    assert caught.value.tx_id is None
    assert caught.value.money_may_have_moved


def test_the_tree_at_the_top_of_the_file_is_the_tree() -> None:
    drawn, path = {}, [Layer2Error.__name__]
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"^((?:│   |    )*)[├└]── (\w+)", line):
            depth = len(found[1]) // 4 + 1
            path[depth:] = [found[2]]
            drawn[found[2]] = path[depth - 1]
    assert drawn == {kind.__name__: kind.__bases__[0].__name__ for kind in KINDS if kind is not Layer2Error}
