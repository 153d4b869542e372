"""The language of a file, from its name, its extension or its shebang. Names are github-linguist's, in lower case.

Where a name would not do as a module's name, the customary short one stands: `cpp`, `csharp`.
"""

import re

_BY_NAME = {
    "makefile": "makefile",
    "gnumakefile": "makefile",
    "dockerfile": "dockerfile",
    "containerfile": "dockerfile",
    "cmakelists.txt": "cmake",
    "meson.build": "meson",
    "jenkinsfile": "groovy",
    "rakefile": "ruby",
    "gemfile": "ruby",
    "vagrantfile": "ruby",
    "podfile": "ruby",
    "build.bazel": "starlark",
    "sconstruct": "python",
    "sconscript": "python",
    "wscript": "python",
    "pipfile": "toml",
    "cargo.lock": "toml",
    "poetry.lock": "toml",
    "uv.lock": "toml",
    "pdm.lock": "toml",
    "pipfile.lock": "json",
    "composer.lock": "json",
    ".bashrc": "shell",
    ".bash_profile": "shell",
    ".profile": "shell",
    ".zshrc": "shell",
    ".editorconfig": "ini",
    ".gitconfig": "ini",
    ".coveragerc": "ini",
    ".flake8": "ini",
    ".pylintrc": "ini",
    "pylintrc": "ini",
    ".npmrc": "ini",
    ".babelrc": "json",
    ".eslintrc": "json",
    ".prettierrc": "json",
    ".clang-format": "yaml",
    ".clang-tidy": "yaml",
}

_EXTENSIONS = {
    "python": "py pyi pyw",
    "cython": "pyx pxd pxi",
    "jupyter notebook": "ipynb",
    "javascript": "js mjs cjs jsx",
    "typescript": "ts mts cts tsx",
    "vue": "vue",
    "svelte": "svelte",
    "java": "java",
    "kotlin": "kt kts",
    "scala": "scala sc",
    "groovy": "groovy gradle",
    "clojure": "clj cljs cljc edn",
    "go": "go",
    "rust": "rs",
    "c": "c h",
    "cpp": "cc cpp cxx c++ hh hpp hxx h++ ipp inl tpp",
    "cuda": "cu cuh",
    "objective-c": "m mm",
    "csharp": "cs csx",
    "fsharp": "fs fsi fsx",
    "visual basic": "vb",
    "swift": "swift",
    "ruby": "rb rake gemspec erb",
    "php": "php phtml",
    "perl": "pl pm t",
    "lua": "lua",
    "r": "r rmd",
    "julia": "jl",
    "haskell": "hs lhs",
    "ocaml": "ml mli",
    "elixir": "ex exs",
    "erlang": "erl hrl",
    "elm": "elm",
    "dart": "dart",
    "zig": "zig",
    "nim": "nim",
    "fortran": "f f77 f90 f95 f03 f08 for",
    "assembly": "s asm",
    "emacs lisp": "el",
    "common lisp": "lisp cl",
    "scheme": "scm ss",
    "racket": "rkt",
    "vim script": "vim",
    "shell": "sh bash zsh ksh fish bats",
    "powershell": "ps1 psm1 psd1",
    "batchfile": "bat cmd",
    "sql": "sql",
    "graphql": "graphql gql",
    "protocol buffer": "proto",
    "thrift": "thrift",
    "hcl": "tf tfvars hcl",
    "nix": "nix",
    "starlark": "bzl star",
    "cmake": "cmake",
    "makefile": "mk mak",
    "dockerfile": "dockerfile",
    "solidity": "sol",
    "verilog": "v vh sv svh",
    "vhdl": "vhd vhdl",
    "html": "html htm xhtml",
    "jinja": "j2 jinja jinja2",
    "css": "css",
    "scss": "scss sass",
    "less": "less",
    "xml": "xml xsd xsl xslt svg plist csproj props targets pom",
    "json": "json jsonc json5 jsonl ndjson geojson map webmanifest",
    "yaml": "yaml yml cff",
    "toml": "toml",
    "ini": "ini cfg conf properties desktop",
    "csv": "csv tsv",
    "tex": "tex sty cls bib",
    "markdown": "md markdown mdx",
    "restructuredtext": "rst",
    "asciidoc": "adoc asciidoc",
    "org": "org",
    "diff": "diff patch",
}
_BY_EXTENSION = {extension: language for language, names in _EXTENSIONS.items() for extension in names.split()}

_BY_INTERPRETER = {
    "python": "python",
    "pypy": "python",
    "sh": "shell",
    "bash": "shell",
    "dash": "shell",
    "zsh": "shell",
    "ksh": "shell",
    "fish": "shell",
    "bats": "shell",
    "node": "javascript",
    "nodejs": "javascript",
    "deno": "typescript",
    "bun": "typescript",
    "ts-node": "typescript",
    "ruby": "ruby",
    "perl": "perl",
    "php": "php",
    "lua": "lua",
    "rscript": "r",
    "julia": "julia",
    "groovy": "groovy",
    "awk": "awk",
    "gawk": "awk",
    "make": "makefile",
    "pwsh": "powershell",
}
_CPP_HEADER = re.compile(
    rb"^\s*(?:class|namespace|template|using)\b|\bstd::|^\s*(?:public|private|protected):", re.MULTILINE
)


def language_of(path: str, data: bytes) -> str:
    """Lower-case language of a file; `text` where neither its name, its extension nor a shebang tells.

    `.h` is C unless it holds what only C++ has.
    """
    name = path.rsplit("/", 1)[-1].lower()
    stem, _, extension = name.rpartition(".")
    language = _BY_NAME.get(name) or (_BY_EXTENSION.get(extension) if stem else None)
    if language is None:
        if name.startswith(("dockerfile.", "makefile.", "containerfile.")):
            return _BY_NAME[name.split(".", 1)[0]]
        return _interpreted_language(data) or "text"
    if extension == "h" and _CPP_HEADER.search(data):
        return "cpp"
    return language


def _interpreted_language(data: bytes) -> str | None:
    """The language of a script by its shebang: `#!/usr/bin/env -S python3.11 -u` is Python."""
    if not data.startswith(b"#!"):
        return None
    words = data[2:256].split(b"\n", 1)[0].decode("ascii", "replace").lower().split()
    names = [word.rsplit("/", 1)[-1] for word in words]
    if names[:1] == ["env"]:
        names = [name for word, name in zip(words, names, strict=True) if not word.startswith("-") and "=" not in word][
            1:
        ]
    if not names:
        return None
    return _BY_INTERPRETER.get(names[0]) or _BY_INTERPRETER.get(names[0].rstrip("0123456789."))
