"""What runs inside the image `say-hello`."""

import os
import sys

import numpy as np
import yaml
from rich.console import Console
from tabulate import tabulate

GREETING = os.environ["GREETING"]


def say_hello(name: str) -> str:
    """The greeting that `imagespec.toml` declares, for `name`."""
    return f"{GREETING}, {name}!"


def letters(text: str) -> str:
    """How often each letter stands in `text`, as a table."""
    found = np.array([letter for letter in text.lower() if letter.isalpha()])
    names, counts = np.unique(found, return_counts=True)
    return tabulate(zip(names, counts), headers=["letter", "times"])


def describe() -> str:
    """Who runs this, and where, as YAML."""
    return yaml.safe_dump({"user": os.getuid(), "folder": os.getcwd(), "python": sys.executable})


if __name__ == "__main__":
    console = Console()
    greeting = say_hello(" ".join(sys.argv[1:]) or "world")
    console.print(greeting, style="bold")
    console.print(letters(greeting))
    console.print(describe())
