"""What a document shows: its blocks, command lines, files and links."""

import re
import shlex

from repository import ROOT

from highway.cli import main

BLOCK = re.compile(r"^```(\w*|\{[\w-]+\})(?: [^\n]*)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Document:
    """A Markdown file of the project, by its path."""

    def __init__(self, name):
        self.name = name
        self.path = ROOT / name
        self.text = self.path.read_text(encoding="utf-8")
        self._blocks = BLOCK.findall(self.text)

    def blocks(self, language):
        return [text for kind, text in self._blocks if kind == language]

    def strange_blocks(self):
        """Languages of blocks that no test looks at, and fences without a partner."""
        strange = sorted(
            {kind for kind, _ in self._blocks}
            - {"diff", "python", "sh", "text", "{eval-rst}", "{include}", "{toctree}"}
        )
        return strange + ["unpaired"] * (self.text.count("```") - 2 * len(self._blocks))

    def run(self, blocks, shown):
        """Run Python blocks one after the other in one namespace."""
        for number, text in enumerate(blocks):
            exec(compile(text, f"{self.name}, Python block {number}", "exec"), shown)

    def command_lines(self):
        """The words of every line of shell."""
        return [
            shlex.split(line, comments=True)
            for text in self.blocks("sh")
            for line in text.splitlines()
            if line.strip()
        ]

    def run_commands(self, *names):
        """Run those of its commands here that are called so."""
        for words in self.command_lines():
            if words[:1] == ["highway"] and words[1] in names:
                assert main(words[1:]) == 0, words

    def missing_files(self):
        """What it links to, or names, and is not there."""
        linked = re.findall(r"\]\((?!https?:|#)([^)#]+)", self.text)
        named = re.findall(
            r"(?<![\w/])(?:docs|examples|benchmarks|highway|tools|tests)/[\w./-]*\w", self.text
        )
        missing = [name for name in linked if not (self.path.parent / name).exists()]
        return sorted({*missing, *(name for name in named if not (ROOT / name).exists())})

    def anchors(self):
        """What links to its headings end in, as GitHub and Sphinx make them."""
        headings = re.findall(r"^#+ (.*)$", self.text, re.MULTILINE)
        return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}

    def broken_anchors(self):
        """Links to headings that are not there, in this document or in another."""
        links = re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", self.text)
        pages = {name: Document(self.path.parent / name) if name else self for name, _ in links}
        return sorted(f"{name}#{anchor}" for name, anchor in links if anchor not in pages[name].anchors())
