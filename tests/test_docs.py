"""The pages: their examples run as they stand, their links lead somewhere, and they build without a warning."""

import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from tradovate_auth import errors
from tradovate_auth._decision import TABLE
from tradovate_auth.testing import Emulator

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("**/*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SOURCE = re.compile(r"`((?:tests|docs)/[\w/.-]+)`")


@dataclass(frozen=True)
class Block:
    """One Python example and where it stands."""

    page: Path
    line: int
    source: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_test(self) -> bool:
        """Whether it is a test module, to be collected rather than executed."""
        return "def test_" in self.source


def blocks(page: Path) -> list[Block]:
    """Return the Python examples of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, match.start(1)) + 1, match.group(1)) for match in BLOCK.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks(page)]


def run(module: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a module of this Python in a folder, without measuring coverage there; return how it ended."""
    command = [sys.executable, "-m", module, *arguments]
    env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=env)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture
def emulator_of_the_environment(monkeypatch: pytest.MonkeyPatch, tradovate_emulator: Emulator) -> Emulator:
    """Set the variables that `from_env()` reads to the emulator's user and address, and nothing else of that kind."""
    for name in [name for name in os.environ if name.startswith("TRADOVATE_")]:
        monkeypatch.delenv(name)
    for name, value in tradovate_emulator.credentials.items():
        monkeypatch.setenv(f"TRADOVATE_{name.upper()}", str(value))
    monkeypatch.setenv("TRADOVATE_ENVIRONMENT", tradovate_emulator.url)
    return tradovate_emulator


@pytest.mark.parametrize("block", [block for block in BLOCKS if not block.is_test], ids=str)
@pytest.mark.usefixtures("emulator_of_the_environment")
def test_an_example_runs_as_it_stands(block: Block) -> None:
    """Every Python block runs by itself, copied into an empty file, against whatever the environment names."""
    filled = "\n" * (block.line - 1) + block.source  # so that a traceback shows the page's own line
    exec(compile(filled, str(block.page), "exec"), {"__name__": "__main__"})


def test_the_examples_of_tests_pass(tmp_path: Path) -> None:
    """Every block that is a test passes in a project that has only the named plugin."""
    examples = [block for block in BLOCKS if block.is_test]
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["tradovate_auth.testing.plugin"]\n')
    for block in examples:
        name = f"test_{block.page.stem.replace('-', '_')}_{block.line}.py"
        (tmp_path / name).write_text(block.source)
    ended = run("pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", folder=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{len(examples)} passed" in ended.stdout


def test_the_pages_have_examples_of_every_stack() -> None:
    """The README shows each adapter and the emulator in code that these tests run."""
    shown = "\n".join(block.source for block in blocks(ROOT / "README.md"))
    for name in ("requests", "httpx", "httpx2", "aiohttp"):
        assert f"from tradovate_auth.{name} import TradovateAuth" in shown
    assert "tradovate_emulator" in shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_leads_somewhere(page: Path) -> None:
    """Every link into the repository names a file that exists, and a heading in it."""
    for target in LINK.findall(BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), f"{page.name} links to {target}"
        assert file.is_relative_to(ROOT)
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}"


def test_every_guarantee_names_tests_that_exist() -> None:
    """Each row of the README's table of guarantees ends in test files, and they are there."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.split("## What it guarantees")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 10
    for row in rows:
        named = SOURCE.findall(row)
        assert named, row
        for name in named:
            assert (ROOT / name).is_file(), row


def test_the_readme_advises_on_every_error() -> None:
    """The README's table of errors has a row for each class of the tree."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    advised = set(re.findall(r"^\| `(\w+)` \|", readme, re.MULTILINE))
    assert advised == set(errors.__all__) - {"TradovateAuthError"}


def test_every_module_has_its_place_in_the_guide() -> None:
    """The guide for contributors names each module, and none that is gone."""
    guide = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
    section = guide.split("## Where things are")[1].split("\n## ")[0]
    listed = "\n".join(re.findall(r"^    .*", section, re.MULTILINE))
    named = set(re.findall(r"[\w*]+\.py", listed))
    package = ROOT / "tradovate_auth"
    modules = {*package.glob("*.py"), *package.glob("storage/*.py")}
    here = {path.name for path in modules}
    assert {name for name in here - named if not name.startswith("_instrument_")} == set(), "not in the guide"
    assert named - here == {"_instrument_*.py"}, "not in the package"


def test_the_changelog_has_this_version() -> None:
    """The version in `pyproject.toml` has a section in the changelog, with a date."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE)


def test_decisions_are_short_and_of_one_form() -> None:
    """A decision has a number, a context, a decision and consequences, in at most 40 lines."""
    for page in sorted((ROOT / "docs" / "decisions").glob("0*.md")):
        text = page.read_text(encoding="utf-8")
        parts = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert text.startswith(f"# {int(page.name[:4])}. "), page.name
        assert parts == ["Context", "Decision", "Consequences"], page.name
        assert text.count("\n") <= 40, page.name


def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    """Sphinx, as `make docs` runs it, resolves every reference in the pages and in the docstrings of every public module.
    The page of behaviour shows the rows of the table that decides, in its order; and a module without an underscore is in
    the reference.
    """
    ended = run("sphinx", "-W", "-n", "-q", "-E", "-b", "html", "docs", str(tmp_path), folder=ROOT)
    assert ended.returncode == 0, ended.stderr
    for page in PAGES[2:]:
        assert (tmp_path / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file()
    behaviour = (tmp_path / "behaviour.html").read_text(encoding="utf-8")
    section = behaviour.split('id="what-is-decided"')[1].split("</table>")[0]
    shown = re.findall(r"<tr[^>]*>\s*<td><p>([^<]+)</p>", section)
    assert shown == [name for name, _, _ in TABLE]
    reference = (tmp_path / "reference.html").read_text(encoding="utf-8")
    modules = {path.stem for path in (ROOT / "tradovate_auth").glob("*.py") if not path.name.startswith("_")}
    for name in modules | {"storage", "testing", "testing.emulator", "testing.plugin"}:
        assert f'id="module-tradovate_auth.{name}"' in reference, name
