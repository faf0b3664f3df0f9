"""Real English sentences for benchmarks, from text that ships with Python itself.

The language reference (``pydoc_data.topics``) and the docstrings of the standard
library hold thousands of sentences of mixed length: nothing has to be downloaded.
"""

from __future__ import annotations

import importlib
import inspect
import random
import re
from collections.abc import Iterator
from pydoc_data.topics import topics

MODULES = """
    argparse ast asyncio base64 bisect calendar collections concurrent.futures
    configparser contextlib csv datetime decimal difflib email.message enum fractions
    ftplib functools gettext heapq html.parser http.client http.cookiejar inspect io
    ipaddress itertools json logging logging.handlers math multiprocessing.pool os
    pathlib pdb pickle random re selectors shutil smtplib socket statistics string
    subprocess tarfile tempfile textwrap threading tokenize traceback types unittest
    unittest.mock urllib.parse urllib.request uuid weakref xml.etree.ElementTree
    zipfile
"""
SHORTEST, SHORT, LONGEST = 15, 50, 400  # in characters
CODE = re.compile(
    r"[=<>{}\[\]\\|@#$^~]|::|\w\([^)]|\.\.|--|\w- |__|\d{4}\.$|\b[A-Z]\.$"
    r"|(?<!e\.g)(?<!i\.e)(?<!etc)\. [a-z]"  # two sentences run together
)
CLEAN = re.compile(
    r"[A-Z][a-z]*[ ,'\u2019][\w ,;:()'\u2019.!?\u201c\u201d/-]+[\w)'\u2019\u201d][.!?]",
    re.ASCII,
)
BREAK = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)(?<!\b[A-Z]\.)\s+(?=[A-Z\"'(])")


def _docstrings(module: str) -> Iterator[str]:
    """Yield the docstrings of a module, its functions, classes and their methods."""
    root = importlib.import_module(module)
    members = [member for _, member in inspect.getmembers(root)]
    classes = [member for member in members if inspect.isclass(member)]
    members += [member for cls in classes for member in vars(cls).values()]
    for member in [root, *members]:
        if inspect.ismodule(member) and member is not root:
            continue
        doc = getattr(member, "__doc__", None)
        if isinstance(doc, str):
            yield inspect.cleandoc(doc)


def _split(text: str) -> Iterator[str]:
    """Yield the clean sentences of a text, paragraph by paragraph."""
    for paragraph in re.split(r"\n\s*\n|\n\s*(?=[*\u2022-] )", text):
        lines = paragraph.strip().splitlines()
        indents = {len(line) - len(line.lstrip()) for line in lines[1:]}
        if len(indents) > 1 or re.search(r">>>|[*=~-]{3,}|\S {3,}", paragraph):
            continue  # code, a session, a table or an underlined title
        flat = re.sub(r":\w+:(?=`)|[*`\"]+", "", " ".join(paragraph.split()))
        for sentence in BREAK.split(flat.strip("-\u2022 ")):
            fits = SHORTEST <= len(sentence) <= LONGEST and sentence.count(" ") >= 2
            if fits and not CODE.search(sentence) and CLEAN.fullmatch(sentence):
                yield sentence


def sentences(count: int = 1500, seed: int = 7) -> list[str]:
    """Return `count` different sentences, the same for the same seed and Python."""
    docs = (doc for name in MODULES.split() for doc in _docstrings(name))
    texts = [*topics.values(), *docs]
    every = sorted({sentence for text in texts for sentence in _split(text)})
    # Docstrings open with very short sentences: one in three of those is plenty.
    short = [sentence for sentence in every if len(sentence) < SHORT]
    found = sorted({*every} - {*short} | {*short[::3]})
    if len(found) < count:
        raise ValueError(f"asked for {count} sentences, but found only {len(found)}")
    random.Random(seed).shuffle(found)
    return found[:count]
