"""The HTTP interface over a real server: what is answered, and how every kind of error looks."""

import asyncio
import json
import logging

import aiohttp
import pytest

from layer2.errors import NodeConnectionError, NodeNotReady, NotFound, SwapRefused
from layer2.provider import EventStreams, Turns, create_app
from layer2.swaps import Failed, LockStatus, Paying, StatusName

PROBLEM = "application/problem+json"


async def problem(answer, status, rule=None):
    body = json.loads(await answer.text())
    assert answer.status == status, body
    assert answer.content_type == PROBLEM
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert body.get("rule") == rule
    return body


class TestThroughTheClient:
    async def test_info_is_the_services_own(self, world, served, connect):
        assert await connect(served).info() == await world.service.info()

    async def test_a_submarine_swap_is_made(self, world, served, connect):
        provider = connect(served)
        request = await world.submarine_request()
        response = await provider.create_submarine(request)
        assert response.signed_terms.verify().terms.invoice == request.invoice
        assert (await world.engine.load(response.id)).deal.signed == response.signed_terms
        assert (await provider.status(response.id)).status is StatusName.SWAP_CREATED

    async def test_a_reverse_swap_is_made(self, world, served, connect):
        request = await world.reverse_request()
        response = await connect(served).create_reverse(request)
        assert response.signed_terms.verify().terms.lock.preimage_hash == request.preimage_hash

    async def test_a_refusal_carries_its_rule(self, world, served, connect):
        with pytest.raises(SwapRefused) as caught:
            await connect(served).create_submarine(await world.submarine_request(pair_hash="0" * 32))
        assert caught.value.rule == "pair_hash"

    async def test_refund_signatures_come_when_they_are_due(self, world, served, connect):
        provider = connect(served)
        response = await world.submarine()
        assert await provider.refund_signature(response.id) is None
        assert await provider.refund_signature("0" * 32) is None
        world.chain.head_offset_s = 10_000
        world.engine.wake(response.id)
        await world.reach(response.id, Failed)
        assert await provider.refund_signature(response.id) is None
        world.set_lock(response, LockStatus.LOCKED)
        assert await provider.refund_signature(response.id) == await world.service.sign_refund(response.id)
        status = await provider.status(response.id)
        assert (status.status, status.failure_reason) == (StatusName.INVOICE_FAILED, "not locked in time")

    async def test_unknown_swaps_are_not_found(self, served, connect):
        for swap_id in ("0" * 32, "nonsense"):
            with pytest.raises(NotFound):
                await connect(served).status(swap_id)

    async def test_our_lack_of_gas_is_told_without_our_balance(self, world, served, connect, http):
        world.account.gas_short = True
        request = await world.submarine_request()
        with pytest.raises(NodeNotReady):
            await connect(served).create_submarine(request)
        async with http.post(served.url + "/v1/swap/submarine", data=request.model_dump_json()) as answer:
            body = await problem(answer, 503, "gas")
            assert int(answer.headers["Retry-After"]) > 0
        assert "1234567" not in json.dumps(body)

    async def test_who_asks_too_much_at_once_is_told_to_come_back(self, world, served, connect, monkeypatch):
        begin, go_on = world.engine.begin, asyncio.Event()

        async def slow(*deal, **options):
            await go_on.wait()
            return await begin(*deal, **options)

        monkeypatch.setattr(world.engine, "begin", slow)
        monkeypatch.setattr(world.service, "_offering", Turns(most_of_one=8))
        requests = [await world.submarine_request() for _ in range(10)]
        asked = {asyncio.create_task(connect(served).create_submarine(request)) for request in requests}
        (refused,), others = await asyncio.wait(asked, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        with pytest.raises(NodeNotReady, match="too many ask") as caught:
            await refused
        assert caught.value.retry_safe
        go_on.set()
        assert len({response.id for response in await asyncio.gather(*others)}) == 9

    async def test_our_nodes_trouble_is_told_without_its_address(self, world, served, http):
        world.account.error = NodeConnectionError("cannot reach http://10.1.2.3:8545", endpoint="http://10.1.2.3:8545")
        request = await world.submarine_request()
        async with http.post(served.url + "/v1/swap/submarine", data=request.model_dump_json()) as answer:
            body = await problem(answer, 503)
            assert int(answer.headers["Retry-After"]) > 0
        assert "10.1.2.3" not in json.dumps(body)

    async def test_an_unforeseen_error_is_a_500_without_its_text(self, world, served, http, caplog):
        world.account.error = RuntimeError("canary-in-the-text")
        request = await world.submarine_request()
        async with http.post(served.url + "/v1/swap/submarine", data=request.model_dump_json()) as answer:
            body = await problem(answer, 500)
        assert "canary" not in json.dumps(body)
        assert "Traceback" not in json.dumps(body)
        assert any(record.levelno == logging.ERROR for record in caplog.records)


class TestResources:
    async def test_version_and_pairs(self, world, served, http):
        async with http.get(served.url + "/v1/version") as answer:
            assert await answer.json() == {"version": "1.2.3"}
        info = await world.service.info()
        for direction, pair in (("submarine", info.submarine), ("reverse", info.reverse)):
            async with http.get(f"{served.url}/v1/swap/{direction}") as answer:
                assert await answer.json() == json.loads(pair.model_dump_json())

    async def test_amounts_are_decimal_strings_and_names_are_camel_case(self, served, http):
        async with http.get(served.url + "/v1/swap/submarine") as answer:
            pair = await answer.json()
        assert pair["limits"] == {"minimal": "1000", "maximal": "1000000"}
        assert {"hash", "fees", "depthPolicies", "timing"} <= set(pair)

    async def test_the_api_describes_itself(self, served, http):
        async with http.get(served.url + "/docs") as answer:
            assert answer.status == 200
            assert answer.content_type == "text/html"
        async with http.get(served.url + "/openapi.json") as answer:
            schema = await answer.json()
        assert {"/v1/info", "/v1/swap/submarine", "/v1/swap/{swap_id}/events", "/metrics"} <= set(schema["paths"])
        text = json.dumps(schema)
        wanted = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
        assert wanted <= set(schema["components"]["schemas"])
        create = schema["paths"]["/v1/swap/submarine"]["post"]
        assert create["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("SubmarineRequest")
        assert list(create["responses"]["422"]["content"]) == [PROBLEM]
        assert "HTTPValidationError" not in text

    async def test_metrics_count_and_stay_out_of_the_global_registry(self, world, served, http):
        async with http.post(served.url + "/v1/swap/submarine", data=b"{}") as answer:
            assert answer.status == 400
        request = await world.submarine_request(pair_hash="stale")
        async with http.post(served.url + "/v1/swap/submarine", data=request.model_dump_json()) as answer:
            assert answer.status == 422
        async with http.get(served.url + "/metrics") as answer:
            assert answer.content_type == "text/plain"
            text = await answer.text()
        assert 'route="/v1/swap/submarine",status="400"} 1.0' in text
        assert 'layer2_provider_refusals_total{rule="pair_hash"} 1.0' in text
        from prometheus_client import REGISTRY, generate_latest

        assert b"layer2_provider" not in generate_latest(REGISTRY)

    async def test_metrics_are_written_once_in_a_second(self, world, serve, http):
        server = await serve(create_app(world.service, clock=world.clock, metrics=world.metrics))

        async def text():
            async with http.get(server.url + "/metrics") as answer:
                return await answer.text()

        first = await text()
        world.metrics.alarm("swap.lock_lost")
        assert await text() == first
        await world.clock.advance(1)
        assert 'layer2_provider_alarms_total{code="swap.lock_lost"} 1.0' in await text()

    async def test_strangers_paths_do_not_multiply_the_counters(self, served, http):
        for number in range(5):
            async with http.get(f"{served.url}/nothing/{number}") as answer:
                await problem(answer, 404)
            async with http.get(f"{served.url}/v1/swap/{number}") as answer:
                await problem(answer, 404)
        async with http.get(served.url + "/metrics") as answer:
            text = await answer.text()
        assert "/nothing" not in text
        assert 'route="other"' in text
        assert 'route="/v1/swap/{swap_id}"' in text

    async def test_health(self, world, serve, http):
        problems = {}

        async def ready():
            return problems

        server = await serve(create_app(world.service, clock=world.clock, ready=ready))
        for path in ("live", "ready"):
            async with http.get(f"{server.url}/v1/health/{path}") as answer:
                assert answer.status == 200
        problems["lightning"] = "not synchronised"
        async with http.get(server.url + "/v1/health/ready") as answer:
            assert answer.status == 503
            assert (await answer.json())["problems"] == {"lightning": "not synchronised"}
        async with http.get(server.url + "/v1/health/live") as answer:
            assert answer.status == 200


class TestMalformedRequests:
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"null",
            b"[]",
            b"\xff\xfe",
            b'"text"',
            b"[" * 60_000,
            b'{"invoice": NaN}',
            b'{"invoice": "x"} trailing',
        ],
    )
    async def test_what_is_no_object_is_a_400(self, served, http, body):
        async with http.post(served.url + "/v1/swap/submarine", data=body) as answer:
            await problem(answer, 400, "validation")

    @pytest.mark.parametrize(
        ("path", "field", "value"),
        [
            ("submarine", "refundAddress", "0x1234"),
            ("submarine", "refundAddress", 5),
            ("submarine", "invoice", None),
            ("submarine", "pairHash", ["x"]),
            ("reverse", "preimageHash", "0xzz"),
            ("reverse", "preimageHash", "abc"),
            ("reverse", "claimAddress", "0x" + "Aa" * 20),
            ("reverse", "onchainAmount", 5.5),
            ("reverse", "onchainAmount", "-1"),
            ("reverse", "onchainAmount", "1e5"),
            ("reverse", "onchainAmount", True),
            ("reverse", "depthPolicy", {"depth": 99}),
        ],
    )
    async def test_the_wrong_field_is_named(self, world, served, http, path, field, value):
        request = await (world.submarine_request() if path == "submarine" else world.reverse_request())
        body = json.loads(request.model_dump_json())
        body[field] = value
        async with http.post(f"{served.url}/v1/swap/{path}", json=body) as answer:
            told = await problem(answer, 400, "validation")
        assert told["field"].split(".")[0] == field
        assert field in told["detail"]

    @pytest.mark.parametrize("field", ["invoice", "refundAddress", "pairHash"])
    async def test_a_missing_field_is_named(self, world, served, http, field):
        body = json.loads((await world.submarine_request()).model_dump_json())
        del body[field]
        async with http.post(served.url + "/v1/swap/submarine", json=body) as answer:
            assert (await problem(answer, 400, "validation"))["field"] == field

    async def test_unknown_fields_are_ignored(self, world, served, http):
        body = json.loads((await world.submarine_request()).model_dump_json()) | {"referralId": "x", "webhook": {}}
        async with http.post(served.url + "/v1/swap/submarine", json=body) as answer:
            assert answer.status == 200

    async def test_a_long_request_is_refused_before_it_is_sent(self, served, http):
        async with http.post(
            served.url + "/v1/swap/submarine", data=b"x" * 70_000, headers={"Expect": "100-continue"}
        ) as answer:
            await problem(answer, 413)

    async def test_a_long_request_without_a_length_is_refused_too(self, served, http):
        async def chunks():
            for _ in range(80):
                yield b"x" * 1_000

        async with http.post(served.url + "/v1/swap/submarine", data=chunks()) as answer:
            await problem(answer, 413)

    async def test_other_methods_and_paths_are_problems(self, served, http):
        async with http.delete(served.url + "/v1/info") as answer:
            await problem(answer, 405)
        async with http.get(served.url + "/v2/info") as answer:
            await problem(answer, 404)

    async def test_whoever_goes_away_in_the_middle_hurts_nobody(self, served, http):
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"POST /v1/swap/submarine HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        async with http.get(served.url + "/v1/version") as answer:
            assert answer.status == 200


async def read_events(answer, count):
    """The next ``count`` statuses of a stream."""
    found = []
    while len(found) < count:
        line = (await answer.content.readline()).decode()
        assert line, "the stream ended"
        if line.startswith("data: "):
            found.append(json.loads(line[6:]))
    return found


class TestEvents:
    async def test_the_status_now_then_each_change_then_the_end(self, world, served, http):
        response = await world.submarine()
        world.lightning.set_hanging(world.merchant.node_id, hanging=True)
        async with http.get(f"{served.url}/v1/swap/{response.id}/events") as answer:
            assert answer.content_type == "text/event-stream"
            assert (await read_events(answer, 1))[0] == {"id": response.id, "status": "swap.created"}
            world.set_lock(response, LockStatus.LOCKED)
            assert (await read_events(answer, 1))[0]["status"] == "invoice.pending"
            world.lightning.set_hanging(world.merchant.node_id, hanging=False)
            world.engine.wake(response.id)
            assert (await read_events(answer, 1))[0]["status"] == "invoice.paid"
            preimage = (await world.engine.load(response.id)).state.preimage
            world.set_lock(response, LockStatus.CLAIMED, preimage)
            assert (await read_events(answer, 1))[0]["status"] == "transaction.claimed"
            assert (await answer.content.read()).strip() == b""

    async def test_a_finished_swap_says_so_and_ends(self, world, served, http):
        response = await world.submarine()
        world.chain.head_offset_s = 10_000
        world.engine.wake(response.id)
        await world.reach(response.id, Failed)
        async with http.get(f"{served.url}/v1/swap/{response.id}/events") as answer:
            text = (await answer.content.read()).decode()
        assert text.count("event: update") == 1
        assert "invoice.failedToPay" in text

    async def test_unknown_swaps_have_no_events(self, served, http):
        async with http.get(f"{served.url}/v1/swap/{'0' * 32}/events") as answer:
            await problem(answer, 404)

    async def test_silence_is_filled_with_comments(self, world, served, http):
        response = await world.submarine()
        async with http.get(f"{served.url}/v1/swap/{response.id}/events") as answer:
            await read_events(answer, 1)
            await answer.content.readline()
            await world.clock.advance(15)
            assert await answer.content.readline() == b": keep-alive\n"

    async def test_readers_that_go_away_leave_nothing(self, world, served, http):
        response = await world.submarine()
        async with http.get(f"{served.url}/v1/swap/{response.id}/events") as answer:
            await read_events(answer, 1)
            assert b"layer2_provider_event_streams 1.0" in world.metrics.text()
            answer.close()
        async with asyncio.timeout(10):
            while b"layer2_provider_event_streams 0.0" not in world.metrics.text():
                await asyncio.sleep(0.01)
        assert world.engine._listeners == {}

    async def test_the_number_of_streams_is_bounded(self, world, serve, http):
        streams = EventStreams(clock=world.clock, metrics=world.metrics, max_streams=1)
        server = await serve(create_app(world.service, clock=world.clock, metrics=world.metrics, streams=streams))
        response = await world.submarine()
        url = f"{server.url}/v1/swap/{response.id}/events"
        async with http.get(url) as first:
            await read_events(first, 1)
            async with http.get(url) as second:
                await problem(second, 503)
                assert second.headers["Retry-After"]

    async def test_closing_ends_the_streams_in_order(self, world, serve, http):
        streams = EventStreams(clock=world.clock, metrics=world.metrics)
        server = await serve(create_app(world.service, clock=world.clock, metrics=world.metrics, streams=streams))
        response = await world.submarine()
        async with http.get(f"{server.url}/v1/swap/{response.id}/events") as answer:
            await read_events(answer, 1)
            streams.close()
            await server.close()
            # A whole chunked body: a cut one would raise here.
            await answer.content.read()

    async def test_a_server_that_is_only_closed_cuts_them_off(self, world, serve, http):
        server = await serve(create_app(world.service, clock=world.clock), shutdown_grace_s=0)
        response = await world.submarine()
        async with http.get(f"{server.url}/v1/swap/{response.id}/events") as answer:
            await read_events(answer, 1)
            await server.close()
            with pytest.raises(aiohttp.ClientError):
                await answer.content.read()
        with pytest.raises(aiohttp.ClientError):
            await http.get(server.url + "/v1/version")


async def test_invoices_and_preimages_stay_out_of_the_log(world, served, http, caplog):
    caplog.set_level(logging.DEBUG)
    text = await world.invoice()
    request = await world.submarine_request(invoice=text)
    async with http.post(served.url + "/v1/swap/submarine", data=request.model_dump_json()) as answer:
        swap_id = (await answer.json())["id"]
    async with http.post(served.url + "/v1/swap/submarine", json={"invoice": text}) as answer:
        assert text not in await answer.text()
    async with http.post(served.url + "/v1/swap/submarine", data=(text + "{").encode()) as answer:
        assert text not in await answer.text()
    world.lightning.set_hanging(world.merchant.node_id, hanging=True)
    lock = (await world.engine.load(swap_id)).deal.terms.lock
    world.chain.locks[lock.lock_id] = (LockStatus.LOCKED, None)
    world.engine.wake(swap_id)
    await world.reach(swap_id, Paying)
    assert text not in caplog.text
    assert text[20:60] not in caplog.text
