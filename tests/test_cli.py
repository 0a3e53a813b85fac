import argparse
import ast
import importlib
import importlib.util
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from kg4d import __main__, __version__
from kg4d.config.find import asked_for
from kg4d.config.load import expand, load_config
from kg4d.config.schema import ExperimentConfig
from kg4d.errors import InputError
from kg4d.flows import __main__ as flows
from kg4d.formats.settings import ExportFormat
from kg4d.priors.settings import PriorsConfig
from kg4d.runs.folder import RunFolder, experiment_folder, for_people
from kg4d.sweeps.sweep import Places, Sweep
from kg4d.utils.cli import Parser, run
from kg4d.utils.logs import log_to_console, log_to_file

PYTHON = shlex.quote(sys.executable)


@pytest.fixture
def parser() -> Parser:
    parser = Parser("kg4d.toy", "A toy.")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_overrides()
    return parser


@pytest.fixture(autouse=True)
def quiet_logger():
    yield
    logging.getLogger("kg4d").handlers.clear()


def raising(error: BaseException):
    def main(_: argparse.Namespace) -> None:
        raise error

    return main


def test_done(parser, capsys):
    seen = []
    assert run(seen.append, parser, ["a=1", "--config", "f.yaml", "b=2", "--resume", "c=[x, y]"]) == 0
    assert seen[0].overrides == ["a=1", "b=2", "c=[x, y]"]
    assert seen[0].config == Path("f.yaml")
    assert seen[0].resume
    assert capsys.readouterr().err == ""


def test_a_wrong_request_is_one_line(parser, capsys):
    assert run(raising(InputError("f.yaml: kfc.wieght", "unknown\nkey", "did you mean kfc.weight?")), parser, []) == 2
    assert capsys.readouterr().err == "kg4d: error: f.yaml: kfc.wieght: unknown key (did you mean kfc.weight?)\n"


@pytest.mark.parametrize("argv", [["--nope"], ["--config"], ["--conf", "f.yaml"]])
def test_a_wrong_option_is_one_line(parser, capsys, argv):
    assert run(raising(AssertionError("must not run")), parser, argv) == 2
    err = capsys.readouterr().err
    assert err.startswith("kg4d: error: command line: ")
    assert err.endswith("(see kg4d.toy --help)\n")
    assert err.count("\n") == 1


def test_help_is_not_an_error(parser, capsys):
    with pytest.raises(SystemExit) as caught:
        run(raising(AssertionError("must not run")), parser, ["--help"])
    assert caught.value.code == 0
    assert "--debug" in capsys.readouterr().out


def test_a_failure_names_the_log_of_the_run(parser, capsys, tmp_path):
    def main(_: argparse.Namespace) -> None:
        with log_to_file(tmp_path / "run" / "log.txt"):
            logging.getLogger("kg4d.toy").debug("a detail")
            logging.getLogger("another.library").warning("from elsewhere")
            warnings.warn("look out", stacklevel=1)
            raise RuntimeError("diverged\nat step 3")

    assert run(main, parser, []) == 1
    out, err = capsys.readouterr()
    log = tmp_path / "run" / "log.txt"
    assert err == f"kg4d: error: RuntimeError: diverged at step 3 (traceback in {log})\n"
    text = log.read_text()
    assert all(part in text for part in ("a detail", "from elsewhere", "look out", "Traceback", "diverged\nat step 3"))
    assert out == ""


def test_a_failure_before_any_log_still_keeps_its_traceback(parser, capsys):
    assert run(raising(ZeroDivisionError()), parser, []) == 1
    err = capsys.readouterr().err
    match = re.fullmatch(r"kg4d: error: ZeroDivisionError \(traceback in (.+)\)\n", err)
    path = Path(match[1])
    assert "Traceback" in path.read_text()
    path.unlink()


@pytest.mark.parametrize(
    ("interrupt", "status"),
    [
        (KeyboardInterrupt, 130),
        (lambda: os.kill(os.getpid(), signal.SIGINT), 130),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), 143),
    ],
)
def test_an_interrupt_says_how_to_go_on(parser, capsys, interrupt, status):
    def main(_: argparse.Namespace) -> None:
        error = interrupt()
        raise error

    before = signal.getsignal(signal.SIGTERM)
    assert run(main, parser, ["--config", "a b.yaml"]) == status
    assert (
        capsys.readouterr().err
        == f"kg4d: interrupted (go on with: {PYTHON} -m kg4d.toy --config 'a b.yaml' --resume)\n"
    )
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_is_replaced_is_gone_on_with_and_not_replaced_once_more(capsys):
    from kg4d import fit

    assert run(raising(KeyboardInterrupt()), fit.parser(), ["--overwrite", "--config", "a b.yaml", "seed=1"]) == 130
    line = capsys.readouterr().err
    words = shlex.split(re.fullmatch(r"kg4d: interrupted \(go on with: (.+)\)\n", line)[1])
    assert words == [sys.executable, "-m", "kg4d.fit", "--config", "a b.yaml", "seed=1", "--resume"]


LIBRARY = """
import time
try:
    for _ in range(20):
        time.sleep(0.1)
except BaseException as error:
    raise RecursionError from error
import pathlib
pathlib.Path(__file__).with_name("loaded").touch()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_until_a_library_is_loaded(tmp_path, number):
    (tmp_path / "heavy.py").write_text(LIBRARY)
    code = "import sys; from kg4d.utils.cli import Parser, run\nprint('on', flush=True)\n"
    code += "def main(_):\n    import heavy, time\n    time.sleep(60)\n"
    code += "sys.exit(run(main, Parser('kg4d.toy', 'A toy.')))"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[1]}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.readline()
        time.sleep(0.5)
        process.send_signal(number)
        error = process.communicate(timeout=60)[1]
    assert (process.returncode, error) == (128 + number, f"kg4d: interrupted (go on with: {PYTHON} -m kg4d.toy)\n")
    assert (tmp_path / "loaded").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["fit", "prepare", "evaluate", "export", "view"])
def test_a_command_that_is_interrupted_while_it_loads_says_so(tmp_path, command, number):
    words = {
        "fit": ["--config", "experiments/quickstart.yaml", f"output={tmp_path}"],
        "prepare": ["--input", str(tmp_path), "--out", str(tmp_path / "scene")],
        "evaluate": ["--pred", str(tmp_path), "--target", str(tmp_path)],
        "export": ["--run", str(tmp_path), "--format", "ply"],
        "view": ["--run", str(tmp_path)],
    }[command]
    for seconds in (0.6, 1.2):
        with subprocess.Popen(
            [sys.executable, "-m", f"kg4d.{command}", *words],
            cwd=Path(__file__).parents[1],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            time.sleep(seconds)
            process.send_signal(number)
            error = process.communicate(timeout=120)[1]
        if process.returncode == 2:  # it was faster, and found nothing to work on
            continue
        assert process.returncode == 128 + number, error
        assert error.startswith(f"kg4d: interrupted (go on with: {PYTHON} -m kg4d.{command} ")
        assert error.count("\n") == 1


def test_an_interrupt_that_lightning_turned_into_an_exit(parser, capsys):
    def main(_: argparse.Namespace) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    assert run(main, parser, ["--resume"]) == 130
    assert capsys.readouterr().err == f"kg4d: interrupted (go on with: {PYTHON} -m kg4d.toy --resume)\n"
    with pytest.raises(SystemExit):
        run(raising(SystemExit(3)), parser, [])


def test_an_interrupted_command_that_cannot_resume_is_run_again(capsys):
    assert run(raising(KeyboardInterrupt()), Parser("kg4d.once", "No checkpoints."), []) == 130
    assert capsys.readouterr().err == f"kg4d: interrupted (go on with: {PYTHON} -m kg4d.once)\n"


def test_debug_shows_the_traceback(parser, capsys):
    assert run(raising(InputError("f", "is bad", "mend it")), parser, ["--debug"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("kg4d: error: f: is bad (mend it)\n")


def test_the_console_is_brief(capsys):
    logger = logging.getLogger("kg4d.toy")
    for _ in range(2):
        log_to_console()
    logger.debug("hidden")
    logger.info("shown %d", 1)
    logger.warning("careful")
    assert capsys.readouterr() == ("shown 1\nwarning: careful\n", "")
    log_to_console(debug=True)
    logger.debug("detail")
    assert capsys.readouterr().out == "debug: detail\n"


def test_a_log_file_is_let_go_and_appended_to(tmp_path):
    logger = logging.getLogger("kg4d.toy")
    for word in ("first", "second"):
        with log_to_file(tmp_path / "log.txt"):
            logger.info(word)
        logger.warning("outside")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.split(": ")[-1] for line in lines] == ["first", "second"]


def kg4d(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "kg4d", *words], capture_output=True, text=True, check=False)


def test_the_table_of_commands_is_light_and_complete():
    code = "import sys, runpy; sys.argv[1:] = ['--help']\ntry: runpy.run_module('kg4d', run_name='__main__')\n"
    code += "finally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "lightning", "omegaconf", "wandb"} & set(done.stderr.split())
    for name, does in __main__.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(does)}$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("name", __main__.COMMANDS)
def test_every_command_exists_and_explains_itself(name):
    spec = importlib.util.find_spec(f"kg4d.{name}")
    file = Path(spec.origin)
    file = file.with_name("__main__.py") if spec.submodule_search_locations else file
    tree = ast.parse(file.read_text())
    assert len(file.read_text().splitlines()) < 80
    assert isinstance(tree.body[-1], ast.If), 'ends with `if __name__ == "__main__":`'
    done = kg4d(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ")
    assert "--debug" in done.stdout


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("fit", ["--config", "experiments/quickstart.yaml", "kfc.wieght=1"]),
        ("fit", ["--config", "experiments/no_such_file.yaml"]),
        ("fit", ["--config", "experiments/ablation_wgf.yaml", "--variant", "ful"]),
        ("fit", ["--config", "experiments/quickstart.yaml", "--list"]),
        ("prepare", ["--input", "a.mp4", "--out", "scene", "matting.knid=none"]),
        ("sweep", ["--config", "experiments/sweep_points.yaml", "kfc.wieght=1"]),
    ],
)
def test_a_wrong_request_is_found_before_torch_is_loaded(module, words):
    code = f"import sys, runpy\nsys.argv = ['kg4d.{module}', *{words!r}]\n"
    code += f"try: runpy.run_module('kg4d.{module}', run_name='__main__')\n"
    code += "finally: print(*sys.modules, sep='\\n', file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == (0 if "--list" in words else 2), done.stderr
    assert not {"torch", "lightning", "numpy", "wandb"} & set(done.stderr.splitlines())


def test_the_other_words():
    assert kg4d("--version").stdout == f"kg4d {__version__}\n"
    wrong = kg4d("fti")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "kg4d: error: command line: no command 'fti' (did you mean fit?)\n"
    assert "choose from prepare, fit, " in kg4d("zzz").stderr


def parser_of(name: str) -> Parser:
    module = importlib.import_module(f"kg4d.{name}" + ".__main__" * (name == "flows"))
    parser: Parser = module.parser()
    return parser


def examples_of(parser: Parser) -> list[list[str]]:
    assert parser.epilog is not None
    lines = parser.epilog.splitlines()
    assert lines[0] == "examples:"
    return [shlex.split(line, comments=True) for line in lines[1:]]


MADE = {"runs/quickstart/full/seed0": "quickstart", "runs/quickstart_kg4d/full/seed0": "quickstart_kg4d"}
MADE |= {
    "runs/quickstart": "quickstart",
    "runs/quickstart_kg4d": "quickstart_kg4d",
    "runs/ablation_wgf": "ablation_wgf",
}


ROOT = Path(__file__).parents[1]


def check_fit(arguments: argparse.Namespace) -> None:
    file, overrides = asked_for(arguments.config, arguments.overrides)
    expand(ExperimentConfig, ROOT / file, [word for word in overrides if not word.startswith("scene=")])


def check_report(arguments: argparse.Namespace) -> None:
    variants = {one.variant for one in expand(ExperimentConfig, ROOT / "experiments/ablation_wgf.yaml")}
    assert arguments.against in (None, *variants)


CHECKS = {
    "fit": check_fit,
    "report": check_report,
    "prepare": lambda arguments: load_config(PriorsConfig, None, arguments.overrides),
    "sweep": lambda arguments: Sweep(str(ROOT / arguments.config), arguments.overrides, Places(None, None, 1)),
    "export": lambda arguments: [ExportFormat(part) for part in arguments.format.split(",")],
    "flows": lambda arguments: flows.EXAMPLES.index(arguments.example),
}


@pytest.mark.parametrize("name", __main__.COMMANDS)
def test_the_examples_of_every_command_are_right(name, tmp_path, monkeypatch):
    """Options and settings are right; of files there are those of this package, and runs lie where fits put them."""
    monkeypatch.chdir(tmp_path)
    Path("my.mp4").touch()
    parser = parser_of(name)
    examples = examples_of(parser)
    assert 2 <= len(examples) <= 4
    for python, flag, module, *words in examples:
        assert (python, flag, module) == ("python", "-m", parser.prog)
        CHECKS.get(name, lambda arguments: None)(parser.parse_intermixed_args(words))
        for word in words:
            assert not word.startswith("experiments/") or (ROOT / word).is_file()
            assert not word.startswith("runs/") or word in folders_of(MADE[word])


def folders_of(experiment: str) -> set[str]:
    configs = [one.config for one in expand(ExperimentConfig, ROOT / f"experiments/{experiment}.yaml")]
    return {str(path) for config in configs for path in (experiment_folder(config), RunFolder.of(config).path)}


def test_what_is_printed_at_the_end_can_be_pasted(tmp_path):
    """In a folder whose name a shell would take apart."""
    folders = [RunFolder(tmp_path / "a b; $(c) 'd'" / f"seed{seed}") for seed in range(3)]
    for folder in folders[:2]:
        folder.path.mkdir(parents=True)
        folder.metrics.write_text("{}")
    (folders[0].path / "export").mkdir()
    (folders[0].path / "export/viewer.html").touch()
    lines = dict.fromkeys(for_people(folders))
    assert f"viewer   {folders[0].path / 'export/viewer.html'}" in lines
    assert not any("seed2" in line for line in lines)
    commands = [line.partition(" ")[2].strip() for line in lines if line.startswith(("look", "compare"))]
    asked = []
    for line in commands:
        words = subprocess.run(
            ["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True
        ).stdout.split("\0")[:-1]
        assert words[:3] == [sys.executable, "-m", "kg4d.view"]
        arguments = parser_of("view").parse_args(words[3:])
        asked.append((arguments.run, arguments.compare))
    assert asked == [(folders[0].path, None), (folders[1].path, None), (folders[0].path, folders[1].path)]


@pytest.mark.parametrize("lines", [1, 100_000])  # which break at the end, and while they are printed
def test_a_reader_that_has_read_enough_is_no_failure(lines):
    script = f"""
import sys
from kg4d.utils.cli import Parser, run
def main(arguments):
    for _ in range({lines}):
        print("a line")
sys.exit(run(main, Parser("kg4d", "")))
"""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        ended = subprocess.run([sys.executable, "-c", script], stdout=closed, stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (141, "")
