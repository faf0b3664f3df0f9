"""Write the pages of docs/reference that are made from the code: python -m tests.site"""

from __future__ import annotations

from tests.site.pages import pages

for path, text in pages().items():
    path.write_text(text + "\n", "utf-8")
    print(path)
