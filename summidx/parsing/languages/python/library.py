"""Names of Python's own library, kept here and not asked of the interpreter: its version must not shape an index."""
# ruff: noqa: SIM905 - as lists, these would fill 500 lines

LIBRARY_MODULES = frozenset(
    """
    abc aifc antigravity argparse array ast asynchat asyncio asyncore atexit audioop base64 bdb binascii bisect
    builtins bz2 cProfile calendar cgi cgitb chunk cmath cmd code codecs codeop collections colorsys compileall
    concurrent configparser contextlib contextvars copy copyreg crypt csv ctypes curses dataclasses datetime dbm
    decimal difflib dis distutils doctest email encodings ensurepip enum errno faulthandler fcntl filecmp fileinput
    fnmatch fractions ftplib functools gc genericpath getopt getpass gettext glob graphlib grp gzip hashlib heapq
    hmac html http idlelib imaplib imghdr imp importlib inspect io ipaddress itertools json keyword lib2to3
    linecache locale logging lzma mailbox mailcap marshal math mimetypes mmap modulefinder msilib msvcrt
    multiprocessing netrc nis nntplib nt ntpath nturl2path numbers opcode operator optparse os ossaudiodev pathlib
    pdb pickle pickletools pipes pkgutil platform plistlib poplib posix posixpath pprint profile pstats pty pwd
    py_compile pyclbr pydoc pydoc_data pyexpat queue quopri random re readline reprlib resource rlcompleter runpy
    sched secrets select selectors shelve shlex shutil signal site smtpd smtplib sndhdr socket socketserver spwd
    sqlite3 sre_compile sre_constants sre_parse ssl stat statistics string stringprep struct subprocess sunau
    symtable sys sysconfig syslog tabnanny tarfile telnetlib tempfile termios textwrap this threading time timeit
    tkinter token tokenize tomllib trace traceback tracemalloc tty turtle turtledemo types typing unicodedata
    unittest urllib uu uuid venv warnings wave weakref webbrowser winreg winsound wsgiref xdrlib xml xmlrpc zipapp
    zipfile zipimport zlib zoneinfo
    """.split()
)
"""Top modules of the standard library (`sys.stdlib_module_names` of Python 3.11)."""

COMMON_METHODS = frozenset(
    """
    abs absolute acquire add addFilter addHandler add_note aiter all anchor anext any append appendleft args
    as_integer_ratio as_posix as_uri ascii astimezone bin bit_count bit_length bool breakpoint buffer bytearray
    bytes c_contiguous callHandlers callable capitalize casefold cast center chmod chr classmethod clear close
    closed combine compile complex conjugate contiguous copy copyright count createLock credits critical ctime cwd
    daemon date day days debug decode delattr deleter denominator detach dict difference difference_update dir
    discard divmod drive dst elements emit encode encoding end endpos endswith enumerate error errors eval exception
    exec exists exit expand expandtabs expanduser extend extendleft f_contiguous fatal fdel fget fileno filter find
    findCaller findall finditer flags float flush fold format format_map from_bytes fromhex fromisocalendar
    fromisoformat fromkeys fromordinal fromtimestamp frozenset fset fullmatch get getChild getEffectiveLevel getName
    get_name getattr getbuffer getter getvalue glob globals group groupdict groupindex groups handle handleError
    hardlink_to hasHandlers hasattr hash help hex home hour id ident imag index indices info input insert int
    intersection intersection_update isDaemon isEnabledFor isSet is_absolute is_alive is_block_device is_char_device
    is_dir is_fifo is_file is_integer is_mount is_relative_to is_reserved is_set is_socket is_symlink isalnum
    isalpha isascii isatty isdecimal isdigit isdisjoint isidentifier isinstance islower isnumeric isocalendar
    isoformat isoweekday isprintable isspace issubclass issubset issuperset istitle isupper items itemsize iter
    iterdir join joinpath keys lastgroup lastindex lchmod len license line_buffering link_to list ljust locals log
    lower lstat lstrip makeRecord maketrans manager map match max maxlen memoryview microsecond microseconds min
    minute mkdir mode month most_common move_to_end mro name native_id nbytes ndim newlines next notify notifyAll
    notify_all now numerator obj object oct open ord owner parent parents partition parts pattern peek pop popitem
    popleft pos pow print property quit range raw re read read1 read_bytes read_text readable readinto readinto1
    readline readlines readlink readonly real reconfigure regs relative_to release remove removeFilter removeHandler
    removeprefix removesuffix rename replace repr resolution resolve reverse reversed rfind rglob rindex rjust rmdir
    root rotate round rpartition rsplit rstrip run samefile scanner search second seconds seek seekable set
    setDaemon setFormatter setLevel setName set_name setattr setdefault setter shape slice sort sorted span split
    splitlines start startswith stat staticmethod stem step stop str strftime strides string strip strptime sub subn
    suboffsets subtract suffix suffixes sum super swapcase symlink_to symmetric_difference
    symmetric_difference_update tell time timestamp timetuple timetz title to_bytes tobytes today tolist toordinal
    toreadonly total total_seconds touch translate truncate tuple type tzinfo tzname union unlink update upper
    utcfromtimestamp utcnow utcoffset utctimetuple values vars wait wait_for warn warning weekday with_name
    with_stem with_suffix with_traceback writable write write_bytes write_text write_through writelines year zfill
    zip
    """.split()
) | frozenset(
    """
    add_argument apply call cancel commit connect create delete dump dumps execute fetch filter fit get load loads
    main map mean next parse parse_args predict process push put recv reshape result run save send shape submit sum
    transform wait
    """.split()
)
"""Names that say nothing of the class of the object that they are called on.

First the public attributes of the built-in types and functions, files, paths, patterns, loggers, threads, counters,
deques and dates (Python 3.11), then those that many libraries share.
"""
