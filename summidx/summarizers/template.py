"""Templates, pure: what is said of a unit for which no call is made (trivial, of a level not asked for, test code)."""

from summidx.records import Level, Origin, Summary, Unit
from summidx.summarizers.prose import (
    clean_text,
    clip,
    description,
    first_sentence,
    first_sentences,
    identifier_words,
    is_markup,
    is_prose,
    readme_lead,
)

MAX_DOCSTRING = 20_000
"""Characters of a docstring or README that are read for its first sentences."""
SIGNATURE_WORDS = 40
"""A signature is clipped to so many words: some have hundreds of parameters."""


def render_template(unit: Unit) -> Summary:
    """Say what `unit` is: first docstring sentence (else its gloss, else its name in words), then its signature.

    Never empty. Parents read it in place of a summary, so it makes sense without the code.
    """
    text = f"{sentence(lead(unit))} {sentence(placement(unit))}"
    return Summary(text=clean_text(text).strip(), origin=Origin.TEMPLATE)


def described(unit: Unit, max_words: int) -> str:
    """First sentences of what people wrote about a unit: its docstring before its sections, or its README."""
    if unit.level in (Level.DIRECTORY, Level.REPO) or is_markup(unit.language):
        found = readme_lead(unit.own_source[:MAX_DOCSTRING], max_words)
        if found:
            return found
    told = description(unit.docstring[:MAX_DOCSTRING])
    return first_sentences(told, max_words) if is_prose(told) or not is_markup(unit.language) else ""


def lead(unit: Unit) -> str:
    """The best short account of a unit: its docstring's first sentence, its gloss, or its name in words."""
    found = clip(first_sentence(described(unit, 30)), 30) or clip(unit.gloss, 30) or name_in_words(unit)
    return _capital(found) if found.split(" ", 1)[0].isalpha() else found


def name_in_words(unit: Unit) -> str:
    """`getUserName` as `Get user name`; a file without its suffix; "" for a name without a letter or digit."""
    name = unit.name.rstrip("/").rsplit("/", 1)[-1]
    if unit.level is Level.FILE and name.split(".", 1)[0] in ("__init__", "__main__", "index", "mod"):
        name = unit.path.removesuffix(f"/{name}").rsplit("/", 1)[-1]
    stem = name.rsplit(".", 1)[0] if unit.level is Level.FILE else name
    words = identifier_words(stem if len(stem) > 2 else name)
    return words[:1].upper() + words[1:]


def placement(unit: Unit) -> str:
    """What kind of unit it is and where it stands: ``Method of class `Session`: `def close(self)` ``."""
    signature = f"`{clip(unit.signature, SIGNATURE_WORDS)}`" if unit.signature else f"`{unit.name}`"
    test = "test " if unit.is_test else ""
    match unit.level:
        case Level.FUNCTION:
            owner = unit.qualified_name.rpartition(".")[0]
            kind = f"method of class `{owner}`" if owner else "function"
            return _capital(f"{test}{kind}: {signature}")
        case Level.CLASS:
            return _capital(f"{test}type defined as {signature}" if unit.signature else f"{test}type {signature}")
        case Level.FILE:
            return _capital(f"{language_name(unit.language)} {test}file `{unit.path}`")
        case Level.DIRECTORY:
            return _capital(f"{test}directory `{unit.path.rstrip('/')}/`")
        case Level.REPO:
            return f"Repository `{unit.name}`" if unit.name else "Repository"


def language_name(language: str) -> str:
    """A language's name as it is written: `Python`, `C++`; "text" where unknown."""
    known = {
        "javascript": "JavaScript",
        "typescript": "TypeScript",
        "cpp": "C++",
        "csharp": "C#",
        "c_sharp": "C#",
        "php": "PHP",
        "html": "HTML",
        "css": "CSS",
        "json": "JSON",
        "toml": "TOML",
        "yaml": "YAML",
        "xml": "XML",
        "sql": "SQL",
        "ini": "INI",
        "rst": "reStructuredText",
        "restructuredtext": "reStructuredText",
        "text": "text",
        "": "text",
    }
    return known.get(language, language.capitalize())


def sentence(text: str) -> str:
    """`text` with an end: a full stop where it has none."""
    return text if not text or text[-1] in ".!?" else text + "."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
