"""Text of a repository made fit to be shown to a model: it means what a reader of the code sees. Pure."""

import re

_TEMPLATE_TOKEN = re.compile(
    r"<(?=[|\uff5c])|\[(?=\|)"  # <|im_end|>, <|eot_id|>, [|user|], and the full-width bars of DeepSeek
    r"|<(?=/?(?:s|bos|eos|pad|unk|mask|sop|eop|cls|sep|think(?:ing)?|tool_calls?|tool_responses?|start_of_\w{1,20}"
    r"|end_of_\w{1,20}|fim_\w{1,20}|unused\d{1,6}|reserved_\w{1,20}|im_\w{1,20})>)|<(?=</?SYS>>)"
    r"|\[(?=/?(?:INST|gMASK|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|PREFIX|SUFFIX|MIDDLE"
    r"|IMG\w{0,10})\])",
    re.IGNORECASE,
)
"""Where a token of a chat template begins: tokenizers read these in the text of a message, too."""
_INVISIBLE = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\xad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]"
)
"""Control, bidi, zero-width, tag and variation characters: a model reads them, and a reviewer cannot see them."""
_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")


def data_text(text: str) -> str:
    """Text that JSON and every tokenizer can carry, and that means to a model what a reader of the code sees."""
    if not text.isascii() or _INVISIBLE.search(text):
        text = _INVISIBLE.sub("", _LINE_ENDS.sub("\n", text.encode("utf-8", "replace").decode("utf-8")))
    return _TEMPLATE_TOKEN.sub(lambda match: f"{match[0]} ", text)
