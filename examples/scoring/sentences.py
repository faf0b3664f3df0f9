"""Real sentences, from the documentation that every Python ships: python sentences.py [COUNT]"""

import inspect
import pkgutil
import pydoc_data.topics
import re
import sys
from importlib import import_module

SENTENCE = re.compile(r"[A-Z][^.!?\n>`_]{30,300}[.!?](?=\s|$)")
#: What does something when it is imported.
NOT_TO_IMPORT = {"antigravity", "idlelib", "this", "__main__", "test"}


def texts():
    """The language reference's topics, then the docstrings of the standard library and of what is installed."""
    yield from pydoc_data.topics.topics.values()
    names = {*sys.stdlib_module_names, *(module.name for module in pkgutil.iter_modules())} - NOT_TO_IMPORT
    for name in sorted(names):
        if name.startswith("_"):
            continue
        try:
            module = import_module(name)
        except BaseException:  # whatever a module does when it is imported: no docstrings from it then
            continue
        for owner in [module, *(one for _, one in inspect.getmembers(module, inspect.isclass))]:
            yield from (inspect.getdoc(one) or "" for _, one in inspect.getmembers(owner, callable))


def sentences():
    """Each once, on one line."""
    seen = set()
    for text in texts():
        for found in SENTENCE.finditer(" ".join(text.split())):
            if found[0] not in seen:
                seen.add(found[0])
                yield found[0]


def main(count):
    for _, sentence in zip(range(count), sentences(), strict=False):
        print(sentence)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
