"""What is asked of a model: the messages for a request, and how a request that is too long is split. Pure.

The system message is a constant for each level and language, byte for byte, and what varies comes last: the server's
prefix cache then hits. Siblings share more of it, since what they have in common (language, class) is said first.

Code is data (`wording`, `data_text`): delimited by a mark that is nowhere in it, with the instruction before and after.
"""

from dataclasses import dataclass, replace
from typing import Literal

from summidx.records import ChildSummary, Level, SummaryRequest
from summidx.reduction import Part, Reduction, cut_children, cut_lines
from summidx.settings import LLMSettings
from summidx.summarizers.prompts.data_text import data_text
from summidx.summarizers.prompts.fitting import BYTES_PER_TOKEN, MARK_ROOM, cut_end, cut_line, cut_middle, take, weigh
from summidx.summarizers.prompts.wording import build_frame, build_system_prompt
from summidx.summarizers.prose import clip

MESSAGE_OVERHEAD_TOKENS = 32
"""Allowance for the chat template."""
MIN_ROOM = 1_500
"""Bytes of data that a prompt must have room for beside everything else."""
MAX_NAME_BYTES = 400
MAX_WEIGHT = 7
"""No character weighs more (`fitting.weigh`)."""
DATA_PARTS = 4
"""Parts in which a file that is no code is read: what follows in a lock file or a log is more of the same."""
MANY_CHILDREN = 4
"""Children that would fill so many prompts are grouped by the promptful, to keep the tree of groups low; fewer by half
of it, so that their parent reads more than two or three groups."""

_DATA_LANGUAGES = frozenset(
    """
    asciidoc css csv diff html ini json less markdown org restructuredtext rst scss svg tex text toml xml yaml
    """.split()  # noqa: SIM905
)
"""Languages of files that hold data, settings or prose."""
Messages = list[dict[str, str]]


class PromptWriter:
    """Builds prompts that fit a budget of tokens, and says how what does not fit is split. Stateless once made."""

    def __init__(self, settings: LLMSettings, context_tokens: int) -> None:
        """Make a writer.

        Args:
            settings: language, instructions, token limits.
            context_tokens: of the model, for prompt and answer together.
        """
        self._language = settings.summary_language
        self._budget_tokens = min(context_tokens, settings.prompt_tokens)
        self._max_tokens = settings.max_tokens
        self._max_tokens_function = settings.max_tokens_function
        self._max_parts = settings.max_parts
        kinds = [(level, is_part) for level in Level for is_part in (False, True)]
        self._systems = {
            (level, is_part): build_system_prompt(
                level, self._language, is_part=is_part, instructions=settings.instructions
            )
            for level, is_part in kinds
        }
        self._overheads = {
            (level, is_part): weigh(self._systems[level, is_part])
            + weigh(build_frame("", level, self._language, is_part=is_part))
            for level, is_part in kinds
        }
        longest_answer = max(self._max_tokens, self._max_tokens_function)
        self.smallest_room = min(self._room(*kind, self._budget_tokens - longest_answer) for kind in kinds)
        """Bytes of data that fit into any prompt; below `MIN_ROOM` nothing useful does."""
        self._name_room = min(MAX_NAME_BYTES, self.smallest_room // 16)
        """Bytes that a name, or a line of names, may take: all of them a quarter of a prompt."""
        self._entry_room = 3 * self.smallest_room // 8 - 100
        """Bytes that one child's line may take: two of them fit a prompt beside everything else."""

    @property
    def largest_prompt_bytes(self) -> int:
        """No prompt that fits has more bytes, and no tokenizer makes more tokens than there are bytes."""
        return int(self._budget_tokens * BYTES_PER_TOKEN)

    def answer_tokens(self, request: SummaryRequest) -> int:
        """The limit on the answer, in tokens."""
        is_function = request.unit.level is Level.FUNCTION and not request.is_part
        return self._max_tokens_function if is_function else self._max_tokens

    def build_messages(self, request: SummaryRequest, budget_tokens: int | None = None) -> tuple[Messages, bool]:
        """The messages for a request, and whether something was left out to fit.

        What `split` is not asked for first is cut, each time with a visible mark: long summaries of children, the list
        of children at its end, the own source in its middle, or to its head where its parts are told.

        Args:
            request: what is to be summarised.
            budget_tokens: for the prompt alone, where it must be shorter than usual.
        """
        kind = request.unit.level, request.is_part
        room = self._room(*kind, budget_tokens or self._budget_tokens - self.answer_tokens(request))
        data, truncated = self._build_data(request, max(room, 400))
        return [
            {"role": "system", "content": self._systems[kind]},
            {"role": "user", "content": build_frame(data, kind[0], self._language, is_part=kind[1])},
        ], truncated

    def split(self, request: SummaryRequest) -> Reduction | None:
        """The next step towards a request that fits, or None where it does (or is a part, which fits as it is)."""
        room = self._data_room(request)
        if request.is_part or MAX_WEIGHT * _count_characters(request) <= room:
            return None
        part_room = self._data_room(replace(request, children=(), parts=(), is_part=True))
        source = data_text(request.unit.own_source)
        source_weight = 0 if request.parts else _weigh_block(source)
        children, parts = self._entries(request)
        if children.weight + parts.weight + source_weight <= room:
            return None
        if children.weight > (3 * room // 4 if source.strip() else room):
            grouped = _group(request, "children", children, part_room)
            if grouped is not None:
                return grouped
        if not request.parts:
            return self._cut_source(request, source, part_room)
        if parts.weight > 3 * (room - children.weight) // 4:
            return _group(request, "parts", parts, part_room)
        return None

    def _cut_source(self, request: SummaryRequest, source: str, part_room: int) -> Reduction | None:
        unit = request.unit
        lines = source.split("\n")
        runs = cut_lines(lines, [weigh(line) + 1 for line in lines], part_room - len(_SOURCE_LABEL) - 2)
        pieces = [(run, "\n".join(lines[run.start : run.stop]).strip("\n")) for run in runs]
        pieces = [(run, piece) for run, piece in pieces if piece.strip()]
        if not pieces or (len(pieces) == 1 and weigh(pieces[0][1]) > part_room):  # an endless line is cut as it stands
            return None
        is_data = not unit.language or unit.language in _DATA_LANGUAGES
        most = min(self._max_parts, DATA_PARTS) if is_data else self._max_parts
        kept, left = pieces[:most], pieces[most:]
        part = replace(unit, docstring="")
        return Reduction(
            replace(request, left_out=sum(len(run) for run, _ in left)),
            "parts",
            tuple(
                Part(
                    SummaryRequest(replace(part, own_source=piece), header=request.header, is_part=True),
                    clip(piece.lstrip().split("\n", 1)[0][:80], 12),
                )
                for _, piece in kept
            ),
        )

    def _build_data(self, request: SummaryRequest, room: int) -> tuple[str, bool]:
        head = self._head(request)
        room -= weigh(head) + 1
        source = data_text(request.unit.own_source).strip("\n")
        children, parts = self._entries(request)
        truncated = children.was_cut or parts.was_cut or request.left_out > 0
        least = 0 if request.parts else min(_weigh_block(source), room // 2)
        children_text, was_cut = children.render(max(room - parts.weight - least, room // 2))
        truncated = truncated or was_cut
        room -= weigh(children_text)
        parts_text, was_cut = parts.render(max(room - least, 3 * room // 4), request.left_out)
        truncated = truncated or was_cut
        room -= weigh(parts_text) + len(_SOURCE_LABEL) + 3
        if request.parts:
            source = _head_of(source, room)
        else:
            source, was_cut = cut_middle(source, max(room, 0))
            truncated = truncated or was_cut
        label = "README" if request.unit.level in (Level.DIRECTORY, Level.REPO) else _SOURCE_LABEL
        blocks = (head, children_text, parts_text, f"{label}:\n{source}" if source.strip() else "")
        return "\n".join(block for block in blocks if block), truncated

    def _entries(self, request: SummaryRequest) -> tuple["_Entries", "_Entries"]:
        """Children and parts, as lines."""
        rooms = self._name_room, self._entry_room
        return (
            _Entries.of(request.children, _CHILDREN_LABEL, *rooms),
            _Entries.of(request.parts, _PARTS_LABEL, *rooms),
        )

    def _head(self, request: SummaryRequest) -> str:
        return "\n".join(_bounded(line, self._name_room) for line in _head_lines(request))

    def _room(self, level: Level, is_part: bool, prompt_tokens: int) -> int:  # noqa: FBT001 - a key of the tables
        """Bytes for the data of a prompt of so many tokens."""
        return int((prompt_tokens - MESSAGE_OVERHEAD_TOKENS) * BYTES_PER_TOKEN) - self._overheads[level, is_part]

    def _data_room(self, request: SummaryRequest) -> int:
        """Bytes for all but the head of the data."""
        room = self._room(request.unit.level, request.is_part, self._budget_tokens - self.answer_tokens(request))
        return max(room, 400) - weigh(self._head(request)) - 1


_CHILDREN_LABEL = "Contents"
_PARTS_LABEL = "Source, told part by part, each with its first line"
_SOURCE_LABEL = "Source"
_CUT = " [... left out]"


@dataclass(frozen=True, slots=True)
class _Entries:
    """The lines in which children, or the parts of a source, are told."""

    label: str
    entries: tuple[ChildSummary, ...]
    lines: tuple[str, ...]
    weights: tuple[int, ...]
    was_cut: bool
    """One was too long by itself."""

    @classmethod
    def of(cls, entries: tuple[ChildSummary, ...], label: str, name_room: int, entry_room: int) -> "_Entries":
        """One line of at most `entry_room` for each."""
        whole = [_entry_line(entry, name_room, is_piece=label == _PARTS_LABEL) for entry in entries]
        weights = [weigh(line) + 1 for line in whole]
        lines = [
            line if weight <= entry_room else f"{cut_line(line, entry_room - len(_CUT))}{_CUT}"
            for line, weight in zip(whole, weights, strict=True)
        ]
        weights = [min(weight, entry_room) for weight in weights]
        return cls(label, entries, tuple(lines), tuple(weights), lines != whole)

    @property
    def weight(self) -> int:
        """Of all lines and the label."""
        return sum(self.weights) + len(self.label) + 2 if self.lines else 0

    def render(self, room: int, lines_left_out: int = 0) -> tuple[str, bool]:
        """The block of lines, within `room`; what is beyond is counted."""
        if not self.lines:
            return "", False
        kept, left = cut_end(self.lines, room - len(self.label) - 2 - (MARK_ROOM if lines_left_out else 0))
        mark = [f"[... and {left} more ...]"] if left else []
        if lines_left_out:
            mark.append(f"[... {lines_left_out} further lines of the source are left out ...]")
        return "\n".join([f"{self.label}:", *kept, *mark]), left > 0


def _group(
    request: SummaryRequest, place: Literal["children", "parts"], entries: _Entries, part_room: int
) -> Reduction | None:
    """Groups of entries, each to be summarised by itself; None where that would make nothing shorter."""
    room = part_room - len(entries.label) - 2
    if entries.weight <= MANY_CHILDREN * part_room:
        room = max(room // 2, 2 * max(entries.weights))
    runs = cut_children(entries.entries, entries.weights, room)
    if len(runs) == len(entries.entries):
        return None
    unit = replace(request.unit, own_source="", docstring="")
    grouped: list[ChildSummary | Part] = []
    for run in runs:
        members = entries.entries[run.start : run.stop]
        if len(members) == 1:
            grouped.append(members[0])
            continue
        part = SummaryRequest(unit, header=request.header, is_part=True)
        part = replace(part, children=members) if place == "children" else replace(part, parts=members)
        grouped.append(Part(part, members[0].name, members[-1].last or members[-1].name))
    return Reduction(request, place, tuple(grouped))


def estimate_tokens(messages: Messages) -> int:
    """A cheap estimate of the prompt's tokens, the chat template's included."""
    return MESSAGE_OVERHEAD_TOKENS + int(sum(weigh(m["content"]) for m in messages) / BYTES_PER_TOKEN)


def add_nudge(messages: Messages, reason: str) -> Messages:
    """The messages for the second and last time of asking."""
    nudge = f"\nAn earlier answer could not be used ({reason}). Answer now, briefly and in the form asked for."
    return [*messages[:-1], {**messages[-1], "content": messages[-1]["content"] + nudge}]


def _head_lines(request: SummaryRequest) -> list[str]:
    """Where it stands and what it is called, what siblings share first.

    A function or class shows no path: its summary belongs to its content. A part shows the signature, which its lines
    need not hold.
    """
    unit = request.unit
    lines = []
    if unit.language:
        lines.append(f"Language: {unit.language}")
    if request.header:
        lines.append(f"Defined in: {clip(request.header, 60)}")
    if unit.level in (Level.FUNCTION, Level.CLASS):
        lines.append(f"Name: {clip(unit.qualified_name, 20)}")
        if request.callers:
            lines.append(f"Called by: {', '.join(request.callers)}")
        if request.is_part and unit.signature:
            lines.append(f"Signature: {clip(unit.signature, 60)}")
    elif unit.level is not Level.REPO:
        lines.append(f"Path: {unit.path}")
    return lines


def _entry_line(entry: ChildSummary, name_room: int, *, is_piece: bool) -> str:
    name, last = (_bounded(each, name_room) for each in (entry.name, entry.last))
    if is_piece:
        name = f"- {name} (and what follows)" if not entry.last else f"- {name} ... {last}"
    else:
        name = f"- {name} to {last}" if last else f"- {entry.level.value} {name}"
    text = "(no summary could be made)" if entry.text is None else data_text(" ".join(entry.text.split()))
    return f"{name}: {text}"


def _bounded(name: str, room: int) -> str:
    """A name, or a line of names, on one line, at most so heavy."""
    shown = " ".join(data_text(name).split())
    return shown if weigh(shown) <= room else f"{cut_line(shown, room - 3)}..."


def _head_of(source: str, room: int) -> str:
    """The first lines of a source whose parts are told: signature, docstring, and what else fits."""
    lines = source.split("\n")
    mark = "[... the rest is told above, part by part ...]"
    kept = take(lines, room - len(mark) - 1)
    return "\n".join([*kept, mark] if 0 < len(kept) < len(lines) else kept)


def _count_characters(request: SummaryRequest) -> int:
    """Of all that a prompt might show, fixed words included."""
    entries = (*request.children, *request.parts)
    told = sum(len(each.text or "") + len(each.name) + len(each.last) + 60 for each in entries)
    return told + len(request.unit.own_source) + 200


def _weigh_block(source: str) -> int:
    return weigh(source) + len(_SOURCE_LABEL) + 3 if source.strip() else 0
