"""What Prometheus would read: a scrape, parsed by prometheus-client's own parser."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families


class Scraped:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.samples: list[tuple[str, Mapping[str, str], float]] = [
            (one.name, one.labels, one.value)
            for family in text_string_to_metric_families(text)
            for one in family.samples
        ]

    def of(self, name: str, **labels: str) -> float:
        """The sum of the samples with that name which have these labels."""
        return sum(value for found, having, value in self.samples if found == name and having.items() >= labels.items())

    def values(self, name: str, label: str) -> set[str]:
        """What that label says in the samples with that name."""
        return {having[label] for found, having, _ in self.samples if found == name}


def scrape(port: int) -> Scraped:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return Scraped(answer.read().decode())
