"""What Python's own names mean: special methods and accessors, in words.

Source of the names: Python's reference, "Data model", and the modules copy, pickle, dataclasses and os.
"""

_OPERATORS = {
    "add": "addition", "sub": "subtraction", "mul": "multiplication", "matmul": "matrix multiplication",
    "truediv": "division", "floordiv": "floor division", "mod": "remainder", "divmod": "quotient and remainder",
    "pow": "power", "lshift": "left shift", "rshift": "right shift", "and": "bitwise and", "or": "bitwise or",
    "xor": "bitwise exclusive or", "div": "division",
}  # fmt: skip

_SPECIAL = {
    "init": "initialisation of a new {}",
    "new": "creation of a new {}",
    "del": "finalisation of {}",
    "post_init": "initialisation of {} after its fields are set",
    "repr": "text representation of {}",
    "str": "text form of {}",
    "unicode": "text form of {}",
    "bytes": "bytes form of {}",
    "format": "formatting of {}",
    "lt": "less-than comparison of {}",
    "le": "less-or-equal comparison of {}",
    "eq": "equality comparison of {}",
    "ne": "inequality comparison of {}",
    "gt": "greater-than comparison of {}",
    "ge": "greater-or-equal comparison of {}",
    "cmp": "comparison of {}",
    "hash": "hash of {}",
    "bool": "truth value of {}",
    "nonzero": "truth value of {}",
    "len": "length of {}",
    "length_hint": "estimated length of {}",
    "sizeof": "size in memory of {}",
    "getitem": "item access of {}",
    "setitem": "item assignment of {}",
    "delitem": "item deletion of {}",
    "missing": "value of {} for a missing key",
    "contains": "membership test of {}",
    "iter": "iteration over {}",
    "next": "next item of {}",
    "reversed": "reverse iteration over {}",
    "aiter": "asynchronous iteration over {}",
    "anext": "next item of {}, asynchronously",
    "await": "awaiting of {}",
    "call": "calling of {}",
    "enter": "entry into the context of {}",
    "exit": "exit from the context of {}",
    "aenter": "asynchronous entry into the context of {}",
    "aexit": "asynchronous exit from the context of {}",
    "getattr": "access to missing attributes of {}",
    "getattribute": "attribute access of {}",
    "setattr": "attribute assignment of {}",
    "delattr": "attribute deletion of {}",
    "dir": "attribute names of {}",
    "get": "reading of an attribute through descriptor {}",
    "set": "assignment of an attribute through descriptor {}",
    "delete": "deletion of an attribute through descriptor {}",
    "set_name": "naming of descriptor {}",
    "init_subclass": "set-up of subclasses of {}",
    "class_getitem": "parametrised type of {}",
    "instancecheck": "instance check of {}",
    "subclasscheck": "subclass check of {}",
    "subclasshook": "subclass test of {}",
    "mro_entries": "base classes that {} stands for",
    "prepare": "namespace for classes made by {}",
    "neg": "negation of {}",
    "pos": "unary plus of {}",
    "abs": "absolute value of {}",
    "invert": "bitwise inversion of {}",
    "complex": "complex value of {}",
    "int": "integer value of {}",
    "long": "integer value of {}",
    "float": "floating-point value of {}",
    "index": "integer index of {}",
    "round": "rounding of {}",
    "trunc": "truncation of {}",
    "floor": "floor of {}",
    "ceil": "ceiling of {}",
    "copy": "shallow copy of {}",
    "deepcopy": "deep copy of {}",
    "replace": "copy of {} with fields replaced",
    "reduce": "pickling of {}",
    "reduce_ex": "pickling of {}",
    "getstate": "state of {} for pickling",
    "setstate": "restoration of {} from pickled state",
    "getnewargs": "arguments for unpickling {}",
    "getnewargs_ex": "arguments for unpickling {}",
    "fspath": "file system path of {}",
    "buffer": "buffer of {}",
    "release_buffer": "release of the buffer of {}",
    "html": "HTML form of {}",
    "array": "NumPy array of {}",
    "array_ufunc": "NumPy universal functions on {}",
    "array_function": "NumPy functions on {}",
    **{name: f"{words} with {{}}" for name, words in _OPERATORS.items()},
    **{f"r{name}": f"reflected {words} with {{}}" for name, words in _OPERATORS.items()},
    **{f"i{name}": f"in-place {words} with {{}}" for name, words in _OPERATORS.items()},
}

_READERS = frozenset(
    {
        "property", "cached_property", "abstractproperty", "abstract_property", "classproperty", "class_property",
        "hybrid_property", "lazy_property", "cachedproperty", "reify", "getter", "DynamicClassAttribute",
    }
)  # fmt: skip
_WRITERS = {"setter": "setter", "deleter": "deleter"}


def is_special(name: str) -> bool:
    """Whether it is a name that the language gives a meaning (`__len__`)."""
    return len(name) > 4 and name.startswith("__") and name.endswith("__")


def is_property(decorators: list[str]) -> bool:
    """Whether one of `decorators` (dotted names) makes a method an attribute that is read."""
    return any(name.rpartition(".")[2] in _READERS for name in decorators)


def is_write_accessor(decorators: list[str]) -> bool:
    """Whether one of `decorators` (dotted names) makes a method a property's setter or deleter."""
    return any("." in name and name.rpartition(".")[2] in _WRITERS for name in decorators)


def build_gloss(name: str, owner: str, decorators: list[str]) -> str:
    """What the method `name` of class `owner` is, in words; "" where the language does not say.

    `owner` is "" for a function of a module: only `__getattr__` and `__dir__` mean something there.
    """
    if not owner:
        return _SPECIAL[name[2:-2]].format("the module") if name in ("__getattr__", "__dir__") else ""
    if is_special(name) and name[2:-2] in _SPECIAL:
        return _SPECIAL[name[2:-2]].format(owner)
    for decorator in decorators:
        kind = decorator.rpartition(".")[2]
        if "." in decorator and kind in _WRITERS:
            return f"{_WRITERS[kind]} of property `{name}` of {owner}"
    return f"property `{name}` of {owner}" if is_property(decorators) else ""
