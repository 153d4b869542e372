"""Which fields of a request are left out by what a server says."""

import pytest

from summidx.summarizers.openai_compatible.wire import RefusedFields

EXTRA = {"n": 1, "top_k": 20, "chat_template_kwargs": {"enable_thinking": False}}
BODY = {"model": "m", "messages": [{"role": "user", "content": "unknown n"}], "temperature": 0, "seed": 1}


def dropped_by(refusal):
    refused = RefusedFields()
    sent = refused.apply(BODY, EXTRA)
    changed = refused.learn(refusal, sent, EXTRA)
    left = sent.keys() - refused.apply(BODY, EXTRA).keys()
    assert changed == bool(left)
    return left


@pytest.mark.parametrize(
    ("refusal", "dropped"),
    [
        ("Unknown field: chat_template_kwargs", {"chat_template_kwargs"}),
        ("Error code: 400 - {'error': {'message': 'Unrecognized request argument supplied: top_k'}}", {"top_k"}),
        ("[{'type': 'extra_forbidden', 'loc': ('body', 'n'), 'msg': 'Extra inputs are not permitted'}]", {"n"}),
        ("top_k: Extra inputs are not permitted", {"top_k"}),
        ("Unsupported parameters: 'top_k' and 'n'", {"top_k", "n"}),
        ("{'message': \"Unsupported value: 'temperature' does not support 0\"}", {"temperature"}),
    ],
)
def test_a_field_that_is_refused_by_its_name_is_left_out_and_no_other(refusal, dropped):
    assert dropped_by(refusal) == dropped


@pytest.mark.parametrize(
    "refusal",
    [
        "the prompt is not allowed on this server",
        "unknown character in line 3, an extra one",
        "n must be 1 where best_of is set",
        "unknown option top_k_max, n-gram",
        'bad request, unknown reason: {"n": 1, "top_k": 20, "seed": 1}',
        "not supported: {'model': 'm', 'messages': [{'role': 'user', 'content': 'unknown n'}], 'top_k': 20}",
        "unknown error; the messages were [{'content': 'unsupported top_k, seed', 'role': 'user'}]",
    ],
)
def test_what_names_a_field_by_chance_or_quotes_the_request_leaves_all_as_it_is(refusal):
    assert dropped_by(refusal) == set()
