from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

import transferscope
from conftest import command
from transferscope.backbones.weights import load_backbone
from transferscope.cli import app, main
from transferscope.files import write_tensors


def process(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "transferscope", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


VERBS = [
    *("demo", "inspect", "advise", "tune", "evaluate", "predict", "visualize", "compare"),
    *(
        "atlas",
        "export",
        "layers",
        "activations",
        "explain",
        "ideal",
        "dream",
        "backbones",
        "doctor",
    ),
]


def test_help_is_quick_and_does_not_load_torch():
    code = (
        "import sys; from transferscope.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit as done: assert not done.code\n"
        "heavy = {'torch', 'numpy', 'timm', 'PIL', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb):
    done = command(verb, "--help")
    assert done.exit_code == 0
    assert "--help" in done.stdout


def test_wrong_usage_is_exit_code_2():
    assert process("tune").returncode == 2
    assert command("tune", "x", "--out", "y", "--strategy", "magic").exit_code == 2
    assert command("no-such-verb").exit_code == 2


def test_a_mistake_ends_the_process_with_its_sentence(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["transferscope", "layers", "efficientnet_lit0"])
    with pytest.raises(SystemExit) as ended:
        main()
    stdout, stderr = capsys.readouterr()
    assert (ended.value.code, stdout) == (2, "")
    assert stderr.startswith("error: ")
    assert "did you mean 'efficientnet_lite0'" in stderr


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (("tune", "nowhere", "--out", "out"), "nowhere", 1),
        (("evaluate", "nowhere"), "not a folder", 1),
        (("predict", "efficientnet_lit0", "x.png"), "did you mean 'efficientnet_lite0'", 2),
        (("layers", "timm/test_resnet"), "--download", 1),
        (
            (
                "visualize",
                "efficientnet_lite0",
                "--layer",
                "blocks.77",
                "--channels",
                "0",
                "--out",
                "v",
            ),
            "did you mean 'blocks",
            2,
        ),
        (("predict", "efficientnet_lite0", "missing.png"), "could be read as asked", 1),
        (("compare", ".", "--draw", "few"), "--draw is 'few'", 2),
        (("predict", "efficientnet_lite0", "x.png", "--figure", "x.gif"), ".svg, .png", 2),
        (("predict", "efficientnet_lite0", "x.png", "--min-confidence", "2"), "in [0, 1]", 2),
        (("export", "nowhere", "--format", "onnx", "--out", "x.onnx"), "not a folder", 1),
        (("predict", "runs/nope", "x.png"), "'runs/nope' is not there", 1),
        (("layers", ""), "MODEL is empty", 2),
        (("predict", "hf-hub:no/such", "x.png"), "no folder 'hf-hub:no/such'", 1),
    ],
)
def test_mistakes_are_one_sentence(arguments, words, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command(*arguments)
    assert done.exit_code == code
    assert words in done.stderr
    assert done.stderr.count("error:") == 1
    assert not list(tmp_path.iterdir())


def test_ctrl_c_in_any_verb_is_exit_code_130(tmp_path, monkeypatch):
    """A whole process is interrupted in test_killed."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("transferscope.workflows.tune.tune", interrupted)
    monkeypatch.setattr("transferscope.workflows.open_model.open_model", interrupted)
    for arguments in (("tune", tmp_path, "--out", tmp_path / "run"), ("layers", "anything")):
        done = command(*arguments)
        assert (done.exit_code, done.stdout) == (130, "")
        assert done.stderr.startswith("interrupted; what was finished is kept: tune and demo go on")


def test_layers_and_doctor_speak_json():
    rows = json.loads(command("layers", "efficientnet_lite0", "--json").stdout)
    keys = {"name", "type", "stage", "output_shape", "parameters", "trainable"}
    assert keys <= set(rows[0])
    by_name = {row["name"]: row for row in rows}
    assert by_name["blocks.4.2"]["output_shape"] == [112, 14, 14]
    assert by_name["blocks.4.2"]["stage"] == "blocks.4"
    assert by_name["classifier"]["stage"] == "head"
    assert "torch" in json.loads(command("doctor", "--json").stdout)


def test_weights_of_ones_own_are_looked_into(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFERSCOPE_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=3)
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    backbone = ("timm/test_resnet", "--weights", tmp_path / "mine.pth")
    rows = json.loads(command("layers", *backbone, "--json").stdout)
    assert rows[-1]["output_shape"] == [3]
    done = command(
        *("visualize", *backbone, "--layer", "layer2", "--channels", "0", "--steps", "2"),
        *("--out", tmp_path / "out", "--json"),
    )
    assert [row["channel"] for row in json.loads(done.stdout)] == [0], done.stderr
    mine = (tmp_path / "mine.pth").read_bytes()
    twice = command("layers", tmp_path, "--weights", tmp_path / "mine.pth")
    assert twice.exit_code == 2
    assert "has its own; leave --weights out" in twice.stderr
    assert (tmp_path / "mine.pth").read_bytes() == mine


def test_data_on_stdout_and_talk_on_stderr(tmp_path, make_folder):
    folder = make_folder(tmp_path / "set", {"a": 2})
    done = command("predict", "efficientnet_lite0", folder, "--json", "--csv", tmp_path / "p.csv")
    answers = json.loads(done.stdout)
    assert [set(a) >= {"path", "top", "strip", "error"} for a in answers] == [True, True]
    assert len(answers[0]["top"]) == 5
    assert "predicting" in done.stderr
    assert (
        (tmp_path / "p.csv")
        .read_text()
        .startswith("path,place,class,probability,error,abstained,known,familiarity\n")
    )
    quiet = command("predict", "efficientnet_lite0", folder, "--json", "--quiet")
    assert quiet.stderr == ""


def test_what_was_predicted_is_told_even_if_the_csv_cannot_be_written(tmp_path, make_folder):
    folder = make_folder(tmp_path / "set", {"a": 1})
    (tmp_path / "file").write_text("in the way")
    table = tmp_path / "file" / "p.csv"
    done = command("predict", "efficientnet_lite0", folder, "--json", "--csv", table)
    assert done.exit_code == 1
    assert len(json.loads(done.stdout)) == 1
    assert "a part of its path is a file" in done.stderr


def test_the_public_map_is_true():
    tree = ast.parse(Path(transferscope.__file__).read_text())
    seen_by_type_checkers = {
        (alias.asname, f"{node.module}.{alias.name}")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("transferscope.")
        for alias in node.names
    }
    listed = transferscope.__all__
    assert {
        (n, f"transferscope.{transferscope._NAMES[n]}.{n}") for n in listed
    } == seen_by_type_checkers
    for name in listed:
        assert getattr(transferscope, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = transferscope.nonsense


def test_names_are_right_after_their_rooms_were_imported():
    import importlib

    for room in ("comparison", "visualize", "data", "evaluation", "training", "workflows"):
        importlib.import_module(f"transferscope.{room}")
    for name in transferscope.__all__:
        assert callable(getattr(transferscope, name)), name


def test_tune_reports_the_contracts_keys(tmp_path, make_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "set", {"a": 6, "b": 6})
    source = load_backbone("timm/test_efficientnet", weights="random")
    write_tensors(tmp_path / "w.safetensors", source.network.state_dict(), {})
    options = ("--backbone", "timm/test_efficientnet", "--weights", "w.safetensors")
    done = command("tune", "set", "--out", "run", *options, "--strategy", "probe", "--json")
    assert done.exit_code == 0, done.stderr
    keys = {"run", "backbone", "strategy", "seconds", "cached", "validation"}
    assert keys <= set(json.loads(done.stdout))
    evaluated = json.loads(command("evaluate", "run", "--json").stdout)
    wanted = {"n", "top1", "top1_interval", "top5", "mean_per_class", "ece", "nll", "per_class"}
    assert wanted <= set(evaluated)


def test_one_verb_is_one_name_in_every_room():
    """What a user types is the name of its files: whoever knows a verb finds its code."""
    root = Path(transferscope.__file__).parent
    docs = root.parents[1] / "docs"
    verbs = {command.callback.__name__ for command in app.registered_commands}
    assert {file.stem for file in (root / "cli").glob("[a-z]*.py")} == verbs | {"app", "options"}
    kept_elsewhere = {"backbones"}  # a table of the catalogue's
    assert verbs - kept_elsewhere <= {file.stem for file in (root / "workflows").glob("*.py")}
    readme = (docs.parent / "README.md").read_text(encoding="utf-8")
    assert {verb for verb in verbs if f"transferscope {verb}" not in readme} == set()
    told_in_the_readme = {"demo", "backbones", "doctor"}
    assert verbs - told_in_the_readme <= {file.stem for file in docs.glob("*.md")}
