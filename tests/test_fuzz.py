"""The fuzzer: its targets hold for inputs of every kind, notice a broken promise, and its report tells one from none."""

import importlib.util
import sys
from pathlib import Path

import pytest
from bench import fuzz, fuzz_targets
from bench.fuzz_targets import TARGETS, decode_record, read_answer
from hypothesis import given
from hypothesis import strategies as st

from tradovate_auth import _grant, _wire
from tradovate_auth.storage import Record, _codec

SEEDS = {name: target().seeds for name, target in TARGETS.items()}
FINDS_NOTHING = """
import sys
print("#2 INITED cov: 5 ft: 6 corp: 1/1b", "#9 DONE cov: 17 ft: 29 corp: 3/40b", file=sys.stderr, sep="\\n")
print("stat::number_of_executed_units: 1234", *sys.argv[1:], file=sys.stderr)
"""
FINDS_SOMETHING = """
import sys, pathlib
prefix = next(each for each in sys.argv if each.startswith("-artifact_prefix=")).partition("=")[2]
pathlib.Path(prefix + "crash").write_bytes(b"\\x00boom")
print("Traceback: a promise was broken", file=sys.stderr)
sys.exit(77)
"""


@given(st.binary(max_size=200))
def test_the_targets_hold_for_any_bytes(data: bytes) -> None:
    """No bytes break a promise."""
    read_answer(data)
    decode_record(data)


def test_the_seeds_reach_what_is_behind_the_first_check() -> None:
    """Among the inputs to begin with are answers of every kind, and records that are read to their last field."""
    assert {type(read_answer(seed)) for seed in SEEDS["answers"]} == {
        *(_wire.Granted, _wire.Refused, _wire.Penalty, _wire.Captcha, _wire.LockedOut, _wire.Faulty)
    }
    records = [decode_record(seed) for seed in SEEDS["records"]]
    assert all(isinstance(record, Record) for record in records)
    assert any(isinstance(record, Record) and record.tokens for record in records)


def test_an_empty_input_is_an_answer_too() -> None:
    """Where there is nothing, there is a verdict on it."""
    assert isinstance(read_answer(b""), _wire.Faulty)
    assert decode_record(b"") is None
    assert decode_record(b"[" * 100_000) is None


def test_an_exception_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that raises is noticed, and so is a record that is not read back as it was."""
    monkeypatch.setattr(_grant, "_DAY", 2 * 86_400.0)
    with pytest.raises(AssertionError):
        read_answer(SEEDS["answers"][0].replace(b"2027-01-15T09", b"2028-01-15T09"))
    monkeypatch.setattr(_wire, "_PENALTY_CEILING", 1e12)
    with pytest.raises(AssertionError):
        read_answer(b'\x00\n\n{"p-time": 1e9}')
    written = [_codec.encode(Record()), b"something else"]
    monkeypatch.setattr(_codec, "encode", lambda _: written.pop(0))
    with pytest.raises(AssertionError):
        decode_record(SEEDS["records"][0])


def test_the_instrumented_parts_exist() -> None:
    """What the fuzzer looks into are modules of this package and of the standard library."""
    for name in fuzz_targets.INSTRUMENTED:
        assert importlib.import_module(name)


class Fuzzer:
    """Stands for atheris, which is not everywhere: it tries what it is given."""

    def __init__(self) -> None:
        self.included: list[str] = []

    def instrument_imports(self, include: list[str]) -> "Fuzzer":
        """Remember what is to be looked into."""
        self.included = include
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def Setup(self, arguments: list[str], check: object) -> None:  # noqa: N802  # atheris' own name
        """Remember what is to be called, and with which options."""
        self.arguments, self.check = arguments, check

    def Fuzz(self) -> None:  # noqa: N802  # as above
        """Try one input."""
        self.check(b"x")  # type: ignore[operator]  # it is the target


def test_one_process_fuzzes_one_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process hands the options and its target to the fuzzer, with the parts under test instrumented."""
    fuzzer = Fuzzer()
    monkeypatch.setitem(sys.modules, "atheris", fuzzer)
    fuzz_targets.main("records", "-runs=1", "corpus")
    assert fuzzer.check is decode_record
    assert fuzzer.arguments[1:] == ["-runs=1", "corpus"]
    assert "tradovate_auth._wire" in fuzzer.included


def script(tmp_path: Path, text: str) -> tuple[str, ...]:
    """Return the command that runs a script in place of the fuzzer's process."""
    path = tmp_path / "fuzzer.py"
    path.write_text(text)
    return sys.executable, str(path)


def test_what_was_tried_is_counted(tmp_path: Path) -> None:
    """Inputs and coverage come from the fuzzer's own last words; its options say for how long, and with which words."""
    outcome = fuzz.fuzz("answers", 7, seed=3, command=script(tmp_path, FINDS_NOTHING))
    assert (outcome.inputs, outcome.edges, outcome.features, outcome.corpus) == (1234, 17, 29, 3)
    assert outcome.report == ""


def test_a_finding_is_reported_with_its_input(tmp_path: Path) -> None:
    """A process that ends badly is a finding; its last words and the input itself are in the report."""
    outcome = fuzz.fuzz("records", 1, command=script(tmp_path, FINDS_SOMETHING))
    assert "a promise was broken" in outcome.report
    assert r"b'\x00boom'" in outcome.report


def test_a_fuzzer_that_tried_nothing_is_a_finding(tmp_path: Path) -> None:
    """A process that ends well and has counted nothing is not taken for a good sign."""
    assert fuzz.fuzz("records", 1, command=script(tmp_path, "print('hello')")).report == "hello\n"


@pytest.mark.parametrize(
    ("report", "code", "said"), [("", 0, "Nothing was found."), ("it broke", 1, "it broke")]
)
def test_the_table_and_the_exit_code(
    report: str, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table counts the inputs of every target; a finding of any is the exit code 1, and is printed."""
    given: list[tuple[str, int, int | None]] = []

    def pretended(target: str, seconds: int, *, seed: int | None = None) -> fuzz.Outcome:
        given.append((target, seconds, seed))
        return fuzz.Outcome(target, 1_234_567, 1, 2, 3, report if target == "records" else "")

    monkeypatch.setattr(fuzz, "fuzz", pretended)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    assert fuzz.main(["--seconds", "60", "--seed", "5"]) == code
    printed = capsys.readouterr().out
    assert printed.count("1,234,567") == len(TARGETS)
    assert said in printed
    assert given == [(name, 30, 5) for name in TARGETS]


def test_without_a_fuzzer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where atheris is missing, that is said, and it is no success."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert fuzz.main([]) == 2
    assert "pip install" in capsys.readouterr().out
