"""The command line: options of this call, then one option for each setting; an option wins."""

import argparse
import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import config
from config import Settings, SettingsError

MAX_PORT = 65535
FOLDERS = ("out", "resume", "report", "verify")


@dataclass(frozen=True)
class Invocation:
    """One call of the program: the settings, and what concerns this call alone."""

    settings: Settings
    out: Path | None
    resume: Path | None
    report: Path | None
    verify: Path | None
    live: tuple[str, int] | None
    plain: bool


def parse(argv: Sequence[str], locally: Callable[[str], Path] = Path) -> Invocation:
    """Return what a command line asks for; mistakes raise SettingsError.

    `locally` gives the folder on this computer for one that is named, which may be a URL.
    """
    given = vars(build_parser().parse_args(argv))
    values = config.read_toml(Path(file)) if (file := given.pop("config")) else {}
    named = {name: given.pop(name) for name in FOLDERS}
    live, plain = given.pop("live"), given.pop("plain")
    values |= {name: value for name, value in given.items() if value is not None}
    for name in ("report", "verify"):
        if named[name] and (values or live):
            hint = "it takes a run as it is"
            raise SettingsError(f"--{name}: expected no other option, got more; {hint}")
    folders = {name: locally(text) if text else None for name, text in named.items()}
    resume = folders["resume"]
    settings = (
        config.resumed(resume, named["resume"], values) if resume else config.validate(values)
    )
    return Invocation(settings, **folders, live=live, plain=plain)


class _Parser(argparse.ArgumentParser):
    """A parser that raises SettingsError with one line."""

    def error(self, message: str) -> NoReturn:
        wrong = re.search(r"unrecognized arguments: (--[\w-]+)", message)
        near = difflib.get_close_matches(wrong[1], self._option_string_actions) if wrong else []
        hint = f"did you mean {near[0]}?" if near else "see python main.py --help"
        raise SettingsError(f"command line: {message}; {hint}")

    def format_help(self) -> str:
        """Return the help without blank lines, so that it fits two screens."""
        return super().format_help().replace("\n\n", "\n")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser: options of the call, then one option for each setting."""
    parser = _Parser(
        prog="python main.py",
        usage="python main.py [options]",
        description="Scan a slide in stripes on Ray. An option wins over the settings file.",
        allow_abbrev=False,
        add_help=False,
    )
    call = parser.add_argument_group("this call")
    call.add_argument("--config", metavar="FILE", type=_name, help="settings as TOML")
    folder = call.add_mutually_exclusive_group()
    folder.add_argument(
        "--out", metavar="DIR", type=_name, help="run folder or URL (default: by time)"
    )
    folder.add_argument("--resume", metavar="DIR", type=_name, help="finish the run in this folder")
    folder.add_argument(
        "--report", metavar="DIR", type=_name, help="write its report and trace again"
    )
    folder.add_argument("--verify", metavar="DIR", type=_name, help="read all its results back")
    call.add_argument("--live", metavar="PORT", type=_address, help="serve the report as it grows")
    call.add_argument("--plain", action="store_true", help="no live display: one line per event")
    call.add_argument("-h", "--help", action="help", help="show this help")
    version = f"stripe scan {config.VERSION}"
    call.add_argument("--version", action="version", version=version, help="show the version")
    groups: dict[config.Group, argparse._ArgumentGroup] = {}
    for name in Settings.model_fields:
        group, unit, rules = config.marks(name)
        if config.FILE_ONLY not in rules:
            if group not in groups:
                groups[group] = parser.add_argument_group(group.title)
            _add_option(groups[group], name, unit.name)
    return parser


def _add_option(group: argparse._ArgumentGroup, name: str, unit: str) -> None:
    flag, field = "--" + name.replace("_", "-"), Settings.model_fields[name]
    shown, text = config.SIMULATED_DEFAULTS.get(name, field.default), field.description
    if field.default is False:
        group.add_argument(flag, dest=name, action="store_true", default=None, help=text)
        return
    text = text if shown is None else f"{text} (default: {shown})"
    group.add_argument(flag, dest=name, metavar=unit, help=text)


def _name(text: str) -> str:
    """Return the name of a file or folder; an empty one is refused, as of a variable never set."""
    if not text.strip() or "\0" in text:
        got = repr(text) if text.strip() else "an empty one"
        raise argparse.ArgumentTypeError(f"expected a name, got {got}")
    return text


def _address(text: str) -> tuple[str, int]:
    """Return host and port to serve on: this computer alone unless an address is given."""
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdecimal() or int(port) > MAX_PORT:
        raise argparse.ArgumentTypeError(f"expected a port up to {MAX_PORT}, got {text!r}")
    return host.strip("[]") or "127.0.0.1", int(port)
