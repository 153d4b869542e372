"""Against a real HTTP server on the loopback address."""

import asyncio
import logging
import pickle
import socket
import time

import openai
import pytest
from fake_llm import Answer, error, too_long, unknown_model
from pydantic import SecretStr

from summidx.accounting import CallRecord
from summidx.errors import (
    ContextTooLong,
    InvalidOutput,
    LLMError,
    Overloaded,
    RequestRefused,
    ServerFault,
    Unauthorised,
    UnknownModel,
    UsageError,
)
from summidx.records import Level, Origin, Status
from summidx.settings import LLMSettings, Provider
from summidx.summarizers import ServedModel
from summidx.summarizers.openai_compatible import OpenAICompatibleSummarizer, errors, probe_model
from summidx.summarizers.prompts import estimate_tokens
from summidx.summarizers.prompts.wording import PROMPT_VERSION

SECRET = "sk-very-secret"


def json_body(raw: bytes) -> Answer:
    return Answer(raw=raw, headers={"Content-Type": "application/json"})


@pytest.fixture
def summarizer(fake_llm):
    def make(*, served_model=None, **settings):
        values = {
            "provider": Provider.OPENAI,
            "model": "fake",
            "base_url": fake_llm.base_url,
            "api_key": SecretStr(SECRET),
            "timeout_s": 20,
            **settings,
        }
        return OpenAICompatibleSummarizer(LLMSettings(**values), served_model)

    return make


def ask(summarizer, *requests, record=None):
    """Answers (or errors) to `requests`, asked all at once; what they took is added to `record`."""
    record = record or CallRecord()

    async def run():
        try:
            calls = (summarizer.answer(summarizer.prepare(request), record) for request in requests)
            return await asyncio.gather(*calls, return_exceptions=True)
        finally:
            await summarizer.aclose()

    return asyncio.run(run())


def ask_one(summarizer, request, record=None):
    (answer,) = ask(summarizer, request, record=record)
    if isinstance(answer, BaseException):
        raise answer
    return answer


def test_an_answer_becomes_a_summary_with_its_key_model_and_tokens(fake_llm, summarizer, make_request):
    ours, record = summarizer(), CallRecord()
    summary = ask_one(ours, make_request(), record)
    assert fake_llm.calls == record.requests == 1
    assert summary.text.startswith("Text ")
    assert "Keywords" not in summary.text
    assert len(summary.keywords) == 2
    assert (summary.status, summary.origin, summary.truncated) == (Status.OK, Origin.LLM, False)
    assert summary.key == ours.prepare(make_request()).key
    assert (summary.model, summary.prompt_version) == ("fake", PROMPT_VERSION)
    assert summary.tokens_in == record.tokens_in > 100
    assert summary.tokens_out == record.tokens_out > 5


def test_what_is_sent_is_what_is_in_the_key(fake_llm, summarizer, make_request):
    ours = summarizer(temperature=0.2, seed=7, max_tokens_function=111, extra_body={"top_k": 5})
    ask_one(ours, make_request())
    payload = ours.prepare(make_request()).payload
    extra = payload.pop("extra_body")
    assert fake_llm.requests == [{**payload, **extra}]
    assert payload["messages"][0]["role"] == "system"
    keys = {
        change: summarizer(**{change: value}).prepare(make_request()).key
        for change, value in {
            "temperature": 0.5,
            "seed": 1,
            "max_tokens_function": 99,
            "extra_body": {"top_k": 6},
            "summary_language": "French",
            "model": "other",
        }.items()
    }
    keys["plain"] = summarizer().prepare(make_request()).key
    keys["root"] = summarizer(served_model=ServedModel("fake", "/elsewhere")).prepare(make_request()).key
    assert len(set(keys.values())) == len(keys)


def test_a_key_follows_content_and_neither_path_nor_server(summarizer, make_request):
    ours = summarizer()
    key = ours.prepare(make_request()).key
    moved = make_request(path="other/place.py", id="other/place.py::Session.send", start_line=1, end_line=2)
    assert ours.prepare(moved).key == key
    assert summarizer(base_url="http://elsewhere:1/v1", timeout_s=1).prepare(make_request()).key == key
    assert ours.prepare(make_request(own_source="def send(): return 1")).key != key


def test_the_context_is_in_the_key_only_where_it_can_shape_what_is_sent(summarizer, make_request):
    small, large = (summarizer(served_model=ServedModel("fake", "r", n)) for n in (8192, 16384))
    assert small.prepare(make_request()).key == large.prepare(make_request()).key
    dense = make_request(own_source="x = '日本語'\n" * 600)
    assert small.prepare(dense).payload == large.prepare(dense).payload
    assert small.prepare(dense).key != large.prepare(dense).key


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (error(429, "slow down"), Overloaded),
        (error(503, "overloaded"), Overloaded),
        (error(504, "gateway timeout"), Overloaded),
        (error(529, "overloaded"), Overloaded),
        (error(500, "internal"), ServerFault),
        (error(502, "bad gateway"), ServerFault),
        (Answer(disconnect=True), ServerFault),
        (Answer(half_body=True), ServerFault),
        (Answer(huge_bytes=30_000_000), ServerFault),
        (json_body(b"<html>not json</html>"), ServerFault),
        (json_body(b"[" * 100_000), ServerFault),
        (json_body(b"null"), ServerFault),
        (json_body(b'{"choices": null, "usage": 7}'), ServerFault),
        (json_body(b'{"choices": [{}]}'), ServerFault),
        (json_body(b'{"choices": [{"message": {"content": 7}}]}'), ServerFault),
        (json_body(b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": "7"}}'), ServerFault),
        (json_body(b"\xff\xfe"), ServerFault),
        (Answer(raw=b"hello", headers={"Content-Type": "text/plain"}), ServerFault),
        (Answer(status=502, raw=b"<html>gateway</html>"), ServerFault),
    ],
    ids=lambda value: str(value.raw or value.error or value)[:40] if isinstance(value, Answer) else "",
)
def test_a_fault_of_transport_is_told_by_its_kind_and_not_tried_again_here(
    fake_llm, summarizer, make_request, fault, kind
):
    fake_llm.fail_next(fault)
    record = CallRecord()
    with pytest.raises(kind) as caught:
        ask_one(summarizer(), make_request(), record)
    assert type(caught.value) is kind
    assert fake_llm.calls == record.requests == 1
    assert "\n" not in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again), vars(again)) == (kind, str(caught.value), vars(caught.value))


@pytest.mark.parametrize(
    ("fault", "seconds", "is_limited"),
    [
        (error(429, "no", retry_after="7"), 7, True),
        (error(503, "no", retry_after_ms="1500"), 1.5, False),
        (error(429, "no", retry_after="Fri, 01 Jan 2021 00:00:00 GMT"), 0, True),
        (error(529, "no"), None, True),
        (error(429, "no", retry_after="soon"), None, True),
    ],
    ids=lambda value: str(value.headers) if isinstance(value, Answer) else "",
)
def test_the_server_says_how_long_to_wait(fake_llm, summarizer, make_request, fault, seconds, is_limited):
    fake_llm.fail_next(fault)
    with pytest.raises(Overloaded) as caught:
        ask_one(summarizer(), make_request())
    assert (caught.value.retry_after_s, caught.value.is_limited) == (seconds, is_limited)


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (error(401, f"wrong key {SECRET}"), Unauthorised, "set OPENAI_API_KEY"),
        (error(403, "forbidden"), Unauthorised, "set OPENAI_API_KEY"),
        (error(429, "You exceeded your quota", code="insufficient_quota"), Unauthorised, "quota"),
        (unknown_model("fake"), UnknownModel, "does not exist"),
        (error(400, "bad request"), RequestRefused, "bad request"),
        (error(422, f"you sent {SECRET}"), RequestRefused, "you sent [*]{3}"),
        (error(400, "evil \x1b[31m\u202e\ntext"), RequestRefused, "evil text"),
        (Answer(status=307, headers={"Location": "http://127.0.0.1:9/"}), RequestRefused, "redirects"),
    ],
)
def test_what_no_retry_mends_is_raised_at_once_in_one_line_without_the_key(
    fake_llm, summarizer, make_request, fault, kind, said
):
    fake_llm.script = lambda body, before: fault
    with pytest.raises(kind, match=said) as caught:
        ask_one(summarizer(), make_request())
    assert fake_llm.calls == 1
    text = str(caught.value)
    assert SECRET not in text + repr(caught.value)
    assert "\n" not in text
    assert "\x1b" not in text
    assert type(pickle.loads(pickle.dumps(caught.value))) is kind
    assert caught.value.__context__ is None, "a traceback would show the SDK's own error, with the server's words"


@pytest.mark.parametrize(
    "fault",
    [
        Answer(hang=True),
        Answer(drip_s=0.05),
        Answer(drip_headers_s=0.05),
        Answer(hang_after_bytes=20),
        Answer(huge_bytes=900_000, drip_s=0.2),
    ],
    ids=["before the headers", "dripping", "dripping headers", "half a body", "large and slow"],
)
def test_no_call_outlives_its_deadline_by_more_than_a_second(fake_llm, summarizer, make_request, fault):
    fake_llm.script = lambda body, before: fault
    ours = summarizer(timeout_s=1)

    async def run():
        prepared = ours.prepare(make_request())
        started = time.monotonic()
        with pytest.raises(Overloaded, match="within 1 s"):
            await ours.answer(prepared, CallRecord())
        ended = time.monotonic()
        await ours.aclose()
        return ended - started, time.monotonic() - ended

    call_s, close_s = asyncio.run(run())
    assert 0.9 < call_s < 2
    assert close_s < 2


def test_a_port_that_takes_connections_and_never_speaks_is_ended_by_the_deadline_with_and_without_tls(
    summarizer, make_request
):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for scheme in ("http", "https"):
            ours = summarizer(base_url=f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/v1", timeout_s=0.5)
            started = time.monotonic()
            with pytest.raises(Overloaded):
                ask_one(ours, make_request())
            assert time.monotonic() - started < 2.5


def test_a_busy_event_loop_ends_a_call_as_soon_as_it_is_free_again(fake_llm, summarizer, make_request):
    fake_llm.fail_next(Answer(hang=True))
    ours = summarizer(timeout_s=0.5)

    async def run():
        call = asyncio.create_task(ours.answer(ours.prepare(make_request()), CallRecord()))
        await asyncio.to_thread(fake_llm.wait_for_call, 10)
        time.sleep(1)  # noqa: ASYNC251 - the fault
        free = time.monotonic()
        with pytest.raises(Overloaded):
            await call
        await ours.aclose()
        return time.monotonic() - free

    assert asyncio.run(run()) < 1


def test_an_answer_in_an_encoding_that_was_not_asked_for_is_not_unpacked(fake_llm, summarizer, make_request):
    fake_llm.script = lambda body, before: Answer(raw=b"x", headers={"Content-Encoding": "gzip"})
    with pytest.raises(ServerFault, match="gzip"):
        ask_one(summarizer(max_retries=0), make_request())
    assert fake_llm.request_headers[0]["Accept-Encoding"] == "identity"


def test_no_server_there_is_a_server_fault(summarizer, make_request):
    with pytest.raises(ServerFault, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        ask_one(summarizer(base_url="http://127.0.0.1:9/v1", max_retries=0), make_request())


@pytest.mark.parametrize(
    "fault",
    [
        Answer(text=""),
        Answer(text="Keywords: a, b"),
        Answer(text="It reads the", finish_reason="length"),
        Answer(text="and then " * 80),
        Answer(text="<think>hm"),
    ],
    ids=["empty", "keywords only", "cut", "repeating", "only thinking"],
)
def test_an_unusable_answer_is_asked_for_once_more_with_more_room(fake_llm, summarizer, make_request, fault):
    fake_llm.fail_next(fault)
    summary = ask_one(summarizer(), make_request())
    assert summary.status is Status.OK
    first, second = fake_llm.requests
    assert second["max_tokens"] == 2 * first["max_tokens"]
    assert second["messages"][0] == first["messages"][0]
    assert second["messages"][1]["content"].startswith(first["messages"][1]["content"])
    assert summary.tokens_in > fake_llm.count_tokens(str(first["messages"])) * 1.5, "both calls are paid for"

    fake_llm.fail_next(fault, fault)
    with pytest.raises(InvalidOutput):
        ask_one(summarizer(), make_request())
    assert fake_llm.calls == 4


def test_a_prompt_that_is_too_long_after_all_is_shortened_until_it_fits(fake_llm, summarizer, make_request):
    fake_llm.max_model_len, fake_llm.chars_per_token, fake_llm.tokenizes = 4096, 1.5, False
    request = make_request(own_source="\n".join(f"line_{n} = {n}" for n in range(2000)))
    ours = summarizer(served_model=ServedModel("fake", "r", 4096))
    summary = ask_one(ours, request)
    assert summary.status is Status.OK
    assert summary.truncated
    assert summary.key == ours.prepare(request).key
    assert 1 < fake_llm.calls <= 5
    assert "lines are left out here" in fake_llm.requests[-1]["messages"][1]["content"]


def test_a_prompt_near_the_context_is_counted_first_and_shortened_without_a_refusal(fake_llm, summarizer, make_request):
    fake_llm.max_model_len, fake_llm.chars_per_token = 4096, 1.5
    ours = summarizer(served_model=ServedModel("fake", "r", 4096))
    record = CallRecord()
    request = make_request(own_source="\n".join(f"line_{n} = {n}" for n in range(2000)))

    async def run():
        summary = await ours.answer(ours.prepare(request), record)
        await ours.aclose()
        return summary

    assert asyncio.run(run()).truncated
    assert fake_llm.tokenize_calls >= 1
    assert fake_llm.calls == record.requests == 1, "counting is no call"
    content = fake_llm.requests[0]["messages"]
    used = sum(fake_llm.count_tokens(m["content"]) for m in content) / (4096 - 200)
    assert 0.8 < used <= 1, "the room is used"


def test_short_prompts_are_not_counted_and_a_server_that_cannot_count_is_not_asked_again(
    fake_llm, summarizer, make_request
):
    fake_llm.max_model_len, fake_llm.tokenizes = 4096, False
    ours = summarizer(served_model=ServedModel("fake", "r", 4096))
    ask(ours, make_request())
    assert fake_llm.tokenize_calls == 0
    for n in range(3):
        assert ask_one(ours, make_request(own_source=f"line_of_code({n})\n" * 1000)).status is Status.OK
    assert fake_llm.tokenize_calls == 1


TOO_LONG = {  # words of several servers: (limit, prompt)
    too_long(2048, 2049).error["error"]["message"]: (2048, 2049),
    "This model's maximum context length is 2048 tokens. However, you requested 200 output tokens and your prompt "
    "contains at least 1849 input tokens, for a total of at least 2049 tokens.": (2048, 1849),
    "'max_tokens' is too large: 200. This model's maximum context length is 2048 tokens and your request has 1900 "
    "input tokens (200 > 2048 - 1900).": (2048, 1900),
    "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.": (8192, 9000),
    "This model's maximum context length is 4097 tokens. However, you requested 4500 tokens (4300 in the messages, "
    "200 in the completion).": (4097, 4300),
    "the request (5000 tokens) exceeds the available context size (4096 tokens)": (4096, 5000),
    "Input is too long for this model.": (None, None),
}


@pytest.mark.parametrize("message", TOO_LONG)
def test_the_numbers_that_a_server_names_are_understood(fake_llm, summarizer, make_request, message):
    fake_llm.script = lambda body, before: error(400, message)
    with pytest.raises(ContextTooLong) as caught:
        ask_one(summarizer(), make_request(own_source="x = 1\n" * 9))
    assert (caught.value.limit_tokens, caught.value.prompt_tokens) == TOO_LONG[message]


def test_exact_numbers_shorten_in_one_step(fake_llm, summarizer, make_request):
    source = "\n".join(f"line_{n} = {n}" for n in range(400))
    message = "This model's maximum context length is 2048 tokens. However, your messages resulted in 3000 tokens."
    fake_llm.fail_next(error(400, message, code="context_length_exceeded"))
    ask_one(summarizer(), make_request(own_source=source))
    first, second = (estimate_tokens(body["messages"]) for body in fake_llm.requests)
    assert 0.5 < second / first < (2048 - 200) / 3000


def test_extra_body_that_is_refused_is_dropped_once_for_the_process(fake_llm, summarizer, make_request, caplog):
    def strict(body, before):
        return error(400, "Unknown field: chat_template_kwargs") if "chat_template_kwargs" in body else None

    fake_llm.script = strict
    ours = summarizer()
    with caplog.at_level(logging.WARNING, "summidx"):
        assert ask_one(ours, make_request()).status is Status.OK
        assert ask_one(ours, make_request(own_source="def other(): pass")).status is Status.OK
    assert ["chat_template_kwargs" in body for body in fake_llm.requests] == [True, False, False]
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("refused", "message", "sent_then"),
    [
        (
            "max_tokens",
            "Unsupported parameter: 'max_tokens' is not supported here. Use 'max_completion_tokens' instead.",
            "max_completion_tokens",
        ),
        ("temperature", "Unsupported value: 'temperature' does not support 0 with this model.", None),
        ("seed", "Unrecognized request argument supplied: seed", None),
    ],
)
def test_a_field_that_is_refused_by_name_is_left_out_or_renamed_for_the_process(
    fake_llm, summarizer, make_request, caplog, refused, message, sent_then
):
    fake_llm.script = lambda body, before: error(400, message) if refused in body else None
    ours = summarizer()
    with caplog.at_level(logging.WARNING, "summidx"):
        first = ask_one(ours, make_request())
        assert ask_one(ours, make_request(own_source="def other(): pass")).status is Status.OK
    assert [refused in body for body in fake_llm.requests] == [True, False, False]
    if sent_then:
        assert [sent_then in body for body in fake_llm.requests] == [False, True, True]
    assert len(caplog.records) == 1
    assert first.key == summarizer().prepare(make_request()).key, "what was prepared is the key"


def test_a_server_that_refuses_several_fields_is_understood_one_by_one(fake_llm, summarizer, make_request):
    def strict(body, before):
        for name in ("chat_template_kwargs", "max_tokens", "temperature", "seed"):
            if name in body:
                hint = " Use 'max_completion_tokens' instead." if name == "max_tokens" else ""
                return error(400, f"Unsupported parameter: '{name}' is not supported with this model.{hint}")
        return None

    fake_llm.script = strict
    ours = summarizer()
    assert ask_one(ours, make_request()).status is Status.OK
    assert set(fake_llm.requests[-1]) == {"model", "messages", "max_completion_tokens"}
    assert fake_llm.calls == 5


def test_a_refusal_that_names_a_field_for_another_reason_is_not_taken_for_one(fake_llm, summarizer, make_request):
    fake_llm.script = lambda body, before: error(400, "temperature must be at most 2")
    with pytest.raises(RequestRefused):
        ask_one(summarizer(), make_request())
    assert fake_llm.calls == 1


def test_a_ping_is_one_real_completion_of_one_token(fake_llm, summarizer):
    async def run():
        ours = summarizer()
        await ours.ping(5)
        fake_llm.fail_next(Answer(hang=True))
        with pytest.raises(Overloaded):
            await ours.ping(0.3)
        await ours.aclose()

    asyncio.run(run())
    assert [body["max_tokens"] for body in fake_llm.requests] == [1, 1]


def test_many_calls_are_in_flight_at_once(fake_llm, summarizer, make_request):
    fake_llm.delay_s = 0.3
    requests = [make_request(own_source=f"def f{n}(): pass") for n in range(40)]
    answers = ask(summarizer(), *requests)
    assert len({answer.text for answer in answers}) == 40
    assert fake_llm.max_in_flight > 20


def test_a_cancelled_call_ends_at_once(fake_llm, summarizer, make_request):
    fake_llm.fail_next(Answer(hang=True))
    ours = summarizer()

    async def run():
        call = asyncio.create_task(ours.answer(ours.prepare(make_request()), CallRecord()))
        await asyncio.to_thread(fake_llm.wait_for_call, 10)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await ours.aclose()

    asyncio.run(asyncio.wait_for(run(), 10))


def test_another_event_loop_gets_a_client_of_its_own(fake_llm, summarizer, make_request):
    ours = summarizer()
    prepared = ours.prepare(make_request())

    async def run():
        answer = await ours.answer(prepared, CallRecord())
        await ours.aclose()
        return answer

    assert asyncio.run(run()) == asyncio.run(run())


def probe(fake_llm, **settings):
    return probe_model(LLMSettings(**{"base_url": fake_llm.base_url, "model": "fake", "max_retries": 0, **settings}))


def test_probing_tells_what_the_server_serves(fake_llm):
    assert probe(fake_llm) == ServedModel("fake", "/models/fake", 8192)
    assert fake_llm.calls == 0, "no completion is paid for"
    fake_llm.max_model_len = None
    assert probe(fake_llm) == ServedModel("fake")


def test_the_only_model_needs_no_name(fake_llm):
    assert probe(fake_llm, model="").id == "fake"


def test_probing_a_model_that_is_not_served_names_those_that_are(fake_llm):
    with pytest.raises(UnknownModel, match=r"does not serve the model 'other'.*one of: fake"):
        probe(fake_llm, model="other")


def test_probing_works_inside_a_running_loop(fake_llm):
    async def run():
        return probe(fake_llm)

    assert asyncio.run(run()).id == "fake"


def test_probing_with_a_wrong_key_or_no_server_says_so(fake_llm):
    fake_llm.api_key = SECRET
    with pytest.raises(Unauthorised, match="OPENAI_API_KEY"):
        probe(fake_llm, api_key=SecretStr("wrong"))
    assert probe(fake_llm, api_key=SecretStr(SECRET)).id == "fake"
    with pytest.raises(ServerFault, match="cannot be reached"):
        probe(fake_llm, base_url="http://127.0.0.1:9/v1")
    with pytest.raises(UnknownModel, match="/v1"):
        probe(fake_llm, base_url=fake_llm.base_url.removesuffix("/v1"))


@pytest.mark.parametrize("url", ["", "file:///etc/passwd", "localhost:8000/v1", "http://", f"http://u:{SECRET}@h/v1"])
def test_a_base_url_that_is_none_is_refused_before_any_call(url):
    with pytest.raises(UsageError, match="base_url") as caught:
        OpenAICompatibleSummarizer(LLMSettings(model="m", base_url=url), None)
    assert SECRET not in str(caught.value)


def test_settings_that_leave_no_room_for_a_prompt_are_refused(summarizer):
    with pytest.raises(UsageError, match="no room"):
        summarizer(context_tokens=512)
    with pytest.raises(UsageError, match="no model"):
        summarizer(model="")


def test_every_exception_of_the_sdk_is_mapped():
    """A new one in a later release must be thought about, not fall through."""
    named = (getattr(openai, name) for name in openai.__all__ if name.endswith("Error"))
    exceptions = {value for value in named if issubclass(value, openai.OpenAIError)}
    assert len(exceptions) > 15
    assert exceptions - set(errors._MAPPINGS) == set()
    assert all(isinstance(value, LLMError) for value in [errors.map_error(openai.OpenAIError("x"))])


def test_neither_repr_nor_identity_shows_the_key(summarizer):
    ours = summarizer()
    assert SECRET not in repr(ours) + ours.identity + repr(ours._settings) + str(vars(ours))
    assert '"model": "fake"' in ours.identity


def test_levels_get_the_room_that_is_theirs(fake_llm, summarizer, make_request):
    ours = summarizer(max_tokens_function=100, max_tokens=300)
    assert ours.prepare(make_request()).payload["max_tokens"] == 100
    assert ours.prepare(make_request(level=Level.FILE)).payload["max_tokens"] == 300
