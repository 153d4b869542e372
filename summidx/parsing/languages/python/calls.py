"""Who calls whom in the Python code of a repository, as far as syntax tells. Pure.

Resolved: names of the same file and imported ones, through re-exports, `*` imports and plain aliases; methods through
`self`, `cls` and `super()`, base classes of the repository included; `Class.method`; attributes of modules; methods of
objects whose class is named: by an annotation, by `x = Class(...)`, by a return annotation, by an attribute that was
assigned or annotated so.

- A call of a class is a call of the class's unit, not of its `__init__`, which may be inherited. An object that is
  called is its class's `__call__`.
- A decorator counts as called by what it decorates.
- A name bound in a function (parameter, assignment, nested function) hides the module's.
- A method of an object of unknown class is resolved only where exactly one function or class of the repository has that
  name (code that is no test does not call tests), and no common type of Python's own has it: a wrong caller is worse
  than a missing one. Of 45 such calls in pytest, 42 were right.
- What calls itself is left out.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from summidx.parsing.languages.python.library import COMMON_METHODS
from summidx.parsing.languages.python.modules import Modules
from summidx.parsing.links import Links, ParsedFile, build_links
from summidx.parsing.syntax import CALL, UNKNOWN, Chain, Definition, Import, Names, Value
from summidx.records import Level

MAX_STEPS = 400
"""Work for one call, in names looked up: what is still unknown then stays unknown."""
MAX_STARS = 50
"""`import *` of one file that are looked at."""
MAX_DEPTH = 40
"""Names that are looked up to look up another: aliases of aliases, bases of bases."""


def resolve_calls(files: Sequence[ParsedFile]) -> Links:
    """Resolve the calls and imports of all Python files of a repository."""
    return build_links(files, _Resolver(files))


@dataclass(frozen=True, slots=True)
class _Module:
    location: str


@dataclass(frozen=True, slots=True)
class _Function:
    file: ParsedFile
    index: int


@dataclass(frozen=True, slots=True)
class _Class:
    file: ParsedFile
    index: int


@dataclass(frozen=True, slots=True)
class _Instance:
    of: _Class


class _Foreign:
    """Something that is known not to be of this repository: imported from elsewhere."""


_FOREIGN = _Foreign()
_Entity = _Module | _Function | _Class | _Instance | _Foreign | None
"""What an expression stands for; None: unknown."""
_Lookup = tuple[str, int, str]
"""(path, definition, name)."""


class _Resolver:
    def __init__(self, files: Sequence[ParsedFile]) -> None:
        self._files = {file.path: file for file in files}
        self._modules = Modules(self._files)
        self._members: dict[tuple[str, int], dict[str, int]] = {}
        """By (path, owner): what a file or class defines, by name; a stand-in only where there is nothing else."""
        for file in files:
            for index, definition in enumerate(file.syntax.definitions):
                members = self._members.setdefault((file.path, definition.owner), {})
                known = members.get(definition.name)
                if known is None or (file.syntax.definitions[known].is_stand_in and not definition.is_stand_in):
                    members[definition.name] = index
        self._owners_of_name: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for owner, members in self._members.items():
            for name in members:
                self._owners_of_name[name].append(owner)
        self._found: dict[tuple[str, str, int], str | None] = {}
        """Modules by (folder of the importer, name, level)."""
        self._imports: dict[tuple[str, int], Mapping[str, Sequence[Import]]] = {}
        self._steps = 0
        self._active: set[_Lookup] = set()
        """Names that are being looked up: one that leads to itself stays unknown."""

    def _find(self, file: ParsedFile, module: str, level: int) -> str | None:
        key = (file.path.rpartition("/")[0], module, level)
        if key not in self._found:
            self._found[key] = self._modules.find(file.path, module, level)
        return self._found[key]

    def imports(self, file: ParsedFile) -> tuple[str, ...]:
        """Imported modules, dotted; `from a import b` is `a.b` where that is a module of the repository."""
        found = set()
        for names in (file.syntax.names, *(d.names for d in file.syntax.definitions)):
            for each in names.imports:
                dotted = self._modules.absolute(file.path, each.module, each.level)
                location = self._find(file, each.module, each.level) if each.name else None
                inner = self._modules.child(location, each.name) if location is not None else None
                if inner is not None:
                    dotted = self._modules.dotted(inner) if each.level else f"{dotted}.{each.name}"
                if dotted:
                    found.add(dotted)
        return tuple(sorted(found))

    def callees(self, file: ParsedFile, index: int) -> set[str]:
        definition = file.syntax.definitions[index] if index >= 0 else None
        names = definition.names if definition else file.syntax.names
        found = set()
        for call in dict.fromkeys(names.calls):
            scope = definition.owner if definition and call.in_header else index
            self._steps = 0
            self._active.clear()
            callee = self._callee(file, scope, call.chain)
            if callee is not None:
                found.add(callee)
        return found

    def _callee(self, file: ParsedFile, scope: int, chain: Chain) -> str | None:
        entity = self._evaluate(file, scope, chain)
        if isinstance(entity, _Instance):
            entity = self._member(entity.of, "__call__")
        if isinstance(entity, _Function | _Class):
            return entity.file.ids[entity.index]
        if entity is None and len(chain) > 1 and chain[-1] not in (CALL, UNKNOWN):
            return self._only_one(file, chain[-1])
        return None

    def _only_one(self, caller: ParsedFile, name: str) -> str | None:
        """The one method of the repository that has this name, if it says enough."""
        owners = self._owners_of_name.get(name, [])
        if not caller.is_test:
            owners = [owner for owner in owners if not self._files[owner[0]].is_test]
        if len(owners) != 1 or name in COMMON_METHODS or len(name) < 4:
            return None
        path, owner = owners[0]
        file, index = self._files[path], self._members[path, owner][name]
        definition = file.syntax.definitions[index]
        is_method = definition.level is Level.FUNCTION and owner >= 0 and not definition.is_property
        return file.ids[index] if is_method else None

    def _evaluate(self, file: ParsedFile, scope: int, chain: Chain) -> _Entity:
        if chain[0] == UNKNOWN:
            return None
        tokens = chain[1:]
        if chain[:2] == ("super", CALL):
            entity = self._super_member(file, scope, chain[2]) if len(chain) > 2 else None
            tokens = chain[3:]
        else:
            entity = self._name(file, scope, chain[0])
        for token in tokens:
            if entity is None or isinstance(entity, _Foreign):
                return entity
            entity = self._called(entity) if token == CALL else self._attribute(entity, token)
        return entity

    def _called(self, entity: _Entity) -> _Entity:
        """What a call of it returns."""
        if isinstance(entity, _Class):
            return _Instance(entity)
        if isinstance(entity, _Instance):
            entity = self._member(entity.of, "__call__")
        if isinstance(entity, _Function):
            returns = entity.file.syntax.definitions[entity.index].returns
            return self._value(entity.file, returns, "return") if returns else None
        return None

    def _attribute(self, entity: _Entity, name: str) -> _Entity:
        if isinstance(entity, _Module):
            return self._module_member(entity.location, name)
        if isinstance(entity, _Instance | _Class):
            owner = entity.of if isinstance(entity, _Instance) else entity
            member = self._member(owner, name)
            if isinstance(member, _Function) and member.file.syntax.definitions[member.index].is_property:
                return self._called(member)
            return member
        return None

    def _name(self, file: ParsedFile, scope: int, name: str) -> _Entity:
        """Look a name up as Python does: the function, then the file; a class's own names only in its body."""
        definition = file.syntax.definitions[scope] if scope >= 0 else None
        if definition is None:
            return self._file_member(file, name)
        if name == definition.receiver and name and definition.owner >= 0:
            owner = _Class(file, definition.owner)
            return owner if definition.receives_class else _Instance(owner)
        if name == "Self" and definition.level is Level.FUNCTION and definition.owner >= 0:
            return _Class(file, definition.owner)
        if definition.level is Level.CLASS:
            index = self._members.get((file.path, scope), {}).get(name)
            if index is not None:
                return _entity(file, index)
        bound, entity = self._bound(file, definition.names, scope, name)
        return entity if bound else self._file_member(file, name)

    def _bound(self, file: ParsedFile, names: Names, scope: int, name: str) -> tuple[bool, _Entity]:
        """(whether the scope binds the name, to what)."""
        imports = self._imports_of(file, names, scope).get(name, ())
        for each in imports:
            entity = self._imported(file, each)
            if not isinstance(entity, _Foreign):
                return True, entity
        if imports:
            return True, _FOREIGN
        if name in names.values:
            value = names.values[name]
            # `x: x` in a header: what a parameter is, is looked up outside the function.
            return True, self._value(file, value, f"{scope}.{name}") if value else None
        return False, None

    def _imports_of(self, file: ParsedFile, names: Names, scope: int) -> Mapping[str, Sequence[Import]]:
        """A scope's imports by the name that each binds."""
        key = (file.path, scope)
        if key not in self._imports:
            by_name: dict[str, list[Import]] = defaultdict(list)
            for each in names.imports:
                by_name[each.bound].append(each)
            self._imports[key] = dict(by_name)
        return self._imports[key]

    def _value(self, file: ParsedFile, value: Value, key: str) -> _Entity:
        with self._looking_up((file.path, value.scope, key)) as may:
            return self._evaluate(file, value.scope, value.chain) if may else None

    @contextmanager
    def _looking_up(self, lookup: _Lookup) -> Iterator[bool]:
        """Whether a name may be looked up: not within its own look-up, and not without end."""
        self._steps += 1
        if lookup in self._active or self._steps > MAX_STEPS or len(self._active) > MAX_DEPTH:
            yield False
            return
        self._active.add(lookup)
        try:
            yield True
        finally:
            self._active.discard(lookup)

    def _imported(self, file: ParsedFile, each: Import) -> _Entity:
        module = each.module.partition(".")[0] if each.binds_top else each.module
        location = self._find(file, module, each.level)
        if location is None:
            return _FOREIGN
        return self._module_member(location, each.name) if each.name else _Module(location)

    def _module_member(self, location: str, name: str) -> _Entity:
        """A name of a module; a package's modules are its names too."""
        path = self._modules.file_of(location)
        if path is not None:
            entity = self._file_member(self._files[path], name)
            if entity is not None:
                return entity
        inner = self._modules.child(location, name)
        return _Module(inner) if inner is not None else None

    def _file_member(self, file: ParsedFile, name: str) -> _Entity:
        index = self._members.get((file.path, -1), {}).get(name)
        if index is not None:
            return _entity(file, index)
        with self._looking_up((file.path, -1, name)) as may:
            if not may:
                return None
            bound, entity = self._bound(file, file.syntax.names, -1, name)
            return entity if bound else self._starred(file, name)

    def _starred(self, file: ParsedFile, name: str) -> _Entity:
        """A name that came with an `import *`."""
        if name.startswith("_"):
            return None
        # What `*` takes binds no name.
        for each in self._imports_of(file, file.syntax.names, -1).get("", ())[:MAX_STARS]:
            location = self._find(file, each.module, each.level)
            entity = self._module_member(location, name) if location is not None else None
            if entity is not None:
                return entity
        return None

    def _member(self, owner: _Class, name: str) -> _Entity:
        """An attribute of a class or its instances: its own, else of the first base that has it."""
        index = self._members.get((owner.file.path, owner.index), {}).get(name)
        if index is not None:
            return _entity(owner.file, index)
        with self._looking_up((owner.file.path, owner.index, f".{name}")) as may:
            if not may:
                return None
            value = owner.file.syntax.definitions[owner.index].names.values.get(name)
            if value is not None:
                return self._value(owner.file, value, f"{owner.index}.{name}")
            return self._inherited(owner, name)

    def _inherited(self, owner: _Class, name: str) -> _Entity:
        definition = owner.file.syntax.definitions[owner.index]
        for chain in definition.bases:
            base = self._evaluate(owner.file, definition.owner, chain)
            if isinstance(base, _Class):
                entity = self._member(base, name)
                if entity is not None:
                    return entity
        return None

    def _super_member(self, file: ParsedFile, scope: int, name: str) -> _Entity:
        definition: Definition | None = file.syntax.definitions[scope] if scope >= 0 else None
        if definition is None or definition.level is not Level.FUNCTION or definition.owner < 0:
            return None
        return self._inherited(_Class(file, definition.owner), name)


def _entity(file: ParsedFile, index: int) -> _Function | _Class:
    is_function = file.syntax.definitions[index].level is Level.FUNCTION
    return _Function(file, index) if is_function else _Class(file, index)
