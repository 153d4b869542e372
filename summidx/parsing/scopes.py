"""Who calls whom by the rules that most languages share, as far as syntax tells. Pure.

A name is looked up in the function (a variable of a known type), then in the type around it and its bases, then in the
file, then in what the file imports, then in the files of its folder, and at last in the whole repository, where it must
be the only one: a wrong caller is worse than a missing one. A method of an object of unknown type is resolved only
where exactly one type of the repository has a method of that name, and the name says something. Code that is no test
does not call tests.
"""

import posixpath
from collections import defaultdict
from collections.abc import Callable, Sequence

from summidx.parsing.links import Links, ParsedFile, build_links
from summidx.parsing.syntax import CALL, UNKNOWN, Chain, Definition, Import
from summidx.records import Level

MAX_STEPS = 200
"""Names looked up for one call: what is still unknown then stays unknown."""
_MAX_BASES = 12
_MIN_UNIQUE_NAME = 4

COMMON_NAMES = frozenset(
    """
    accept access action active add address align alloc allow append apply args array assert assign async at attach
    await back base begin bind body build bytes cache call callback cancel cast catch ceil change char check
    children class clean clear click clone close cmp code collect color commit compare compile complete compute
    concat config connect contains context convert copy count create current cursor data date debug decode default
    define delete deref detach diff dispatch dispose done drain drop dump each empty enable encode end ensure
    entries equal equals error escape eval event every exec execute exists exit expand expect expr extend extract
    fail fetch field file fill filter finalize find first flat flatten float flush fmt focus fold foreach format
    forward free freeze from front func function getclass getcontext getdata getid getkey getname getordefault
    getparent getpath getproperty getsize getstate getstring gettext gettype getvalue group handle handler has hash
    hashcode hasnext head header headers height hide idle include includes index indexof info init initialize inner
    insert inspect instance into invoke isempty isnull item items iter iterator join json keep keys kind label last
    layer left len length level limit line lines link list listen listener load local lock log lookup lower main
    make malloc map mark match matches max merge message meta method min mode model module mount move name names
    next node normalize notify null number object offset open option options order output pack pad panic param
    parent parse path pause peek perform ping play poll pool pop port pos position post prepare prepend prev print
    printf process promise prop property publish pull push put query queue quit quote raise random range read ready
    receive record redirect reduce refresh register reject release reload remove render repeat replace reply report
    request require reserve reset resize resolve respond response restart restore result resume retry return reverse
    rewind right root rotate round route rows run save scan schema scroll search section seek select self send
    serialize server session set setname setstate settext setup setvalue shape shift show shuffle shutdown sign size
    skip sleep slice sort source span splice split spread stack start state status step stop store stream string
    strip style submit subscribe substr substring sum swap switch sync tail take task test text then throw tick time
    title toarray toggle tojson token tolist tolower top tostring touch toupper trace transform tree trigger trim
    truncate type undo unique unit unlock unwrap update upper url user using valid validate value valueof values
    verify version view visit wait walk warn watch width with wrap write yield zip
    """.split()  # noqa: SIM905
)
"""Names that say nothing of the type of the object that they are called on, compared in lower case."""

FindModule = Callable[[str, Import, "frozenset[str]"], str | None]
"""(path of the importer, import, paths of all files) -> path of the file that is meant, if it can be told."""

_Place = tuple[ParsedFile, int]
"""A definition: (file, index)."""


def resolve_by_scope(
    files: Sequence[ParsedFile], *, selves: frozenset[str], find_module: FindModule | None = None
) -> Links:
    """Resolve the calls and imports of all files of a family of languages."""
    return build_links(files, _Scopes(files, selves, find_module))


class _Scopes:
    def __init__(self, files: Sequence[ParsedFile], selves: frozenset[str], find_module: FindModule | None) -> None:
        self._files = {file.path: file for file in files}
        self._paths = frozenset(self._files)
        self._selves = selves
        self._find_module = find_module
        self._members: dict[tuple[str, int], dict[str, int]] = {}
        """By (path, owner): what a file or type defines, by name; a stand-in only where there is nothing else."""
        self._tops: dict[str, list[_Place]] = defaultdict(list)
        """Functions and types of files, by name; types that are only named here are left out."""
        self._types: dict[str, list[_Place]] = defaultdict(list)
        self._methods: dict[str, list[_Place]] = defaultdict(list)
        for file in files:
            self._enter(file)
        self._imported: dict[str, dict[str, Import]] = {}
        self._steps = 0

    def _enter(self, file: ParsedFile) -> None:
        for index, definition in enumerate(file.syntax.definitions):
            members = self._members.setdefault((file.path, definition.owner), {})
            known = members.get(definition.name)
            if known is not None and not (file.syntax.definitions[known].is_stand_in and not definition.is_stand_in):
                continue
            members[definition.name] = index
            if definition.level is Level.CLASS:
                if not definition.is_elsewhere:
                    self._types[definition.name].append((file, index))
            elif definition.owner >= 0:
                self._methods[definition.name].append((file, index))
            if definition.owner < 0 and not definition.is_elsewhere:
                self._tops[definition.name].append((file, index))

    def imports(self, file: ParsedFile) -> tuple[str, ...]:
        """Imported modules as they are written; the path of the file where that can be told."""
        found = set()
        for each in file.syntax.names.imports:
            target = self._find(file, each)
            found.add(target if target is not None else each.module)
        return tuple(sorted(found - {""}))

    def _find(self, file: ParsedFile, each: Import) -> str | None:
        return self._find_module(file.path, each, self._paths) if self._find_module else None

    def callees(self, file: ParsedFile, index: int) -> set[str]:
        definition = file.syntax.definitions[index] if index >= 0 else None
        names = definition.names if definition else file.syntax.names
        found = set()
        for call in dict.fromkeys(names.calls):
            self._steps = 0
            place = self._callee(file, index, call.chain)
            if place is not None:
                found.add(place[0].ids[place[1]])
        return found

    def _callee(self, file: ParsedFile, index: int, chain: Chain) -> _Place | None:
        *owner, name = chain
        if name in (CALL, UNKNOWN):
            return None
        if not owner:
            return self._named(file, index, name)
        of_type = self._type_of(file, index, tuple(owner))
        if of_type is not None:
            return self._member(of_type, name)
        module = self._module(file, owner[0]) if len(owner) == 1 else None
        if module is not None:
            return self._exported(module, name)
        return self._only_method(file, name) if not self._is_foreign(file, owner[0]) else None

    def _named(self, file: ParsedFile, index: int, name: str) -> _Place | None:
        """What a bare name that is called means."""
        definition = _definition(file, index)
        if definition is not None and name in definition.names.values:
            return None  # a variable hides it
        owner = definition.owner if definition else -1
        if definition is not None and definition.level is Level.CLASS:
            owner = index
        while owner >= 0:
            if file.syntax.definitions[owner].name == name:  # `new A()` in A is A, not its constructor
                return file, owner
            found = self._member((file, owner), name)
            if found is not None:
                return found
            owner = file.syntax.definitions[owner].owner
        return self._visible(file, name, self._tops)

    def _visible(self, file: ParsedFile, name: str, known: dict[str, list[_Place]]) -> _Place | None:
        """A definition of that name: of the file, imported, of the folder, or the only one of the repository."""
        here = self._members.get((file.path, -1), {}).get(name)
        if here is not None and not file.syntax.definitions[here].is_elsewhere:
            return file, here
        each = self._imports_of(file).get(name)
        if each is not None:
            target = self._find(file, each)
            if target is not None:
                return self._exported(self._files[target], each.name or name)
            if self._find_module is not None:
                return None  # imported from elsewhere
            name = each.name or name
        places = [place for place in known.get(name, ()) if file.is_test or not _is_test(place)]
        folder = posixpath.dirname(file.path)
        beside = [place for place in places if posixpath.dirname(place[0].path) == folder]
        if len(beside) == 1:
            return beside[0]
        return places[0] if len(places) == 1 else None

    def _exported(self, file: ParsedFile, name: str) -> _Place | None:
        """What a file calls `name`; through re-exports."""
        while self._steps < MAX_STEPS:
            self._steps += 1
            index = self._members.get((file.path, -1), {}).get(name)
            if index is not None:
                return file, index
            value = file.syntax.names.values.get(name)
            if value is not None and len(value.chain) == 1 and value.chain[0] != name:
                name = value.chain[0]
                continue
            each = self._imports_of(file).get(name)
            if each is None:
                return self._starred(file, name)
            target = self._find(file, each)
            if target is None:
                return None
            file, name = self._files[target], each.name or name
        return None

    def _starred(self, file: ParsedFile, name: str) -> _Place | None:
        for each in file.syntax.names.imports:
            self._steps += 1
            if self._steps > MAX_STEPS:
                return None
            if each.name == "*":
                target = self._find(file, each)
                index = self._members.get((target, -1), {}).get(name) if target is not None else None
                if target is not None and index is not None:
                    return self._files[target], index
        return None

    def _imports_of(self, file: ParsedFile) -> dict[str, Import]:
        if file.path not in self._imported:
            self._imported[file.path] = {each.bound: each for each in file.syntax.names.imports if each.bound}
        return self._imported[file.path]

    def _module(self, file: ParsedFile, name: str) -> ParsedFile | None:
        each = self._imports_of(file).get(name)
        target = self._find(file, each) if each is not None and each.name in ("", "*") else None
        return self._files[target] if target is not None else None

    def _is_foreign(self, file: ParsedFile, name: str) -> bool:
        """Whether a name is imported from outside of the repository."""
        each = self._imports_of(file).get(name)
        return each is not None and self._find_module is not None and self._find(file, each) is None

    def _type_of(self, file: ParsedFile, index: int, chain: Chain) -> _Place | None:
        """The type of an expression, or the type that it names."""
        definition = _definition(file, index)
        head, *tokens = chain
        if head in self._selves:
            owner = _owner_type(file, index)
            found = (file, owner) if owner >= 0 else None
        else:
            found = self._variable_type(file, index, definition, head)
        for position, token in enumerate(tokens):
            if found is None:
                return None
            self._steps += 1
            if self._steps > MAX_STEPS:
                return None
            if token == CALL:
                if position == 0 and head not in self._selves:
                    continue  # of a type: `new A()`
                return None
            found = self._field_type(found, token)
        return found

    def _variable_type(self, file: ParsedFile, index: int, definition: Definition | None, name: str) -> _Place | None:
        if definition is not None and name in definition.names.values:
            value = definition.names.values[name]
            return self._visible(file, value.chain[0], self._types) if value else None
        owner = _owner_type(file, index)
        if owner >= 0:
            field_type = self._field_type((file, owner), name)
            if field_type is not None:
                return field_type
        value = file.syntax.names.values.get(name)
        if value is not None:
            return self._visible(file, value.chain[0], self._types)
        found = self._visible(file, name, self._types)
        return found if found is not None and _is_type(found) else None

    def _field_type(self, owner: _Place, name: str) -> _Place | None:
        file, index = owner
        value = file.syntax.definitions[index].names.values.get(name)
        return self._visible(file, value.chain[0], self._types) if value is not None else None

    def _member(self, owner: _Place, name: str) -> _Place | None:
        """A member of a type: its own, one of the same type written in another file, or of the first base with it."""
        seen: set[tuple[str, int]] = set()
        waiting = [owner]
        while waiting and len(seen) < _MAX_BASES:
            file, index = waiting.pop(0)
            if (file.path, index) in seen:
                continue
            seen.add((file.path, index))
            found = self._members.get((file.path, index), {}).get(name)
            if found is not None:
                return file, found
            definition = file.syntax.definitions[index]
            elsewhere = [
                place
                for place in self._methods.get(name, ())
                if (of := place[0].syntax.definitions[place[0].syntax.definitions[place[1]].owner]).is_elsewhere
                and of.name == definition.name
            ]
            if len(elsewhere) == 1:
                return elsewhere[0]
            if definition.is_elsewhere:
                real = self._visible(file, definition.name, self._types)
                waiting += [real] if real is not None else []
            for base in definition.bases:
                found_base = self._visible(file, base[0], self._types)
                waiting += [found_base] if found_base is not None else []
        return None

    def _only_method(self, caller: ParsedFile, name: str) -> _Place | None:
        """The one method of the repository that has this name, if it says enough."""
        if len(name) < _MIN_UNIQUE_NAME or name.lower() in COMMON_NAMES:
            return None
        places = [place for place in self._methods.get(name, ()) if caller.is_test or not _is_test(place)]
        return places[0] if len(places) == 1 else None


def _definition(file: ParsedFile, index: int) -> Definition | None:
    return file.syntax.definitions[index] if index >= 0 else None


def _owner_type(file: ParsedFile, index: int) -> int:
    """Index of the type that a unit is or stands in, -1 where there is none."""
    while index >= 0 and file.syntax.definitions[index].level is not Level.CLASS:
        index = file.syntax.definitions[index].owner
    return index


def _is_test(place: _Place) -> bool:
    return place[0].is_test or place[0].syntax.definitions[place[1]].is_test


def _is_type(place: _Place) -> bool:
    return place[0].syntax.definitions[place[1]].level is Level.CLASS
