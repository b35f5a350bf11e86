"""The verb `robustness`: base against tuned on the same pictures, saved as it goes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import transferscope as ts
from conftest import BACKBONE, Heard, command
from transferscope.adversarial.corruptions import CORRUPTIONS
from transferscope.adversarial.robustness import EPSILONS, Endured, Robustness
from transferscope.errors import InputError
from transferscope.report.figures.robustness import robustness_figure, share_rows, summary
from transferscope.workflows import robustness as workflow
from transferscope.workflows.robustness import stored_robustness

pytestmark = pytest.mark.usefixtures("undrawn")

OPTIONS = {"pictures": 5, "steps": 1, "restarts": 1}


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory, make_folder, weights: Path) -> Path:
    """A run whose probe was kept: tuned is base."""
    home = tmp_path_factory.mktemp("robust")
    data = make_folder(home / "set", {"a": 30, "b": 30, "c": 30})
    ts.tune(
        data,
        out=home / "run",
        backbone=BACKBONE,
        weights=str(weights),
        strategy="probe",
        progress=False,
    )
    return home / "run"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow, "_CHUNK", 3)


@pytest.fixture
def run(probed: Path, tmp_path: Path) -> Path:
    shutil.copytree(probed, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def measured(
    probed: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Robustness, Heard]:
    """A copy of the run that was measured, what was found, and what was heard."""
    run, heard = tmp_path_factory.mktemp("measured") / "run", Heard()
    shutil.copytree(probed, run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workflow, "_CHUNK", 3)
        return run, ts.robustness(ts.Run(run), **OPTIONS, reporter=heard), heard


@pytest.mark.drawn
def test_a_network_against_itself(measured: tuple[Path, Robustness, Heard]):
    run, result, heard = measured
    assert result.base == result.tuned
    assert (result.n, result.of, result.classes) == (5, 12, 3)
    assert result.trial.epsilons == EPSILONS
    shares = [*result.attacks, *result.noise]
    assert {share.difference for share in shares} == {0.0}
    assert all(share.interval[0] < 0 < share.interval[1] for share in shares)
    assert "10 attacked pictures (base and tuned): about" in heard.lines[0]
    assert all(done <= total for done, total in heard.progress)
    files = {file.name for file in (run / "attacks").iterdir()}
    assert files == {"robustness.json", "robustness.svg"}
    assert stored_robustness(run) == result
    said = " ".join(summary(result))
    assert "upper bound" in said
    assert "no difference" not in said
    assert "5 of 12 pictures of the test split" in said
    assert len(share_rows(result)) == len(EPSILONS) + 20
    assert (run / "attacks" / "robustness.svg").read_text("utf-8") == robustness_figure(result)


def _refusing(*_: object, **__: object) -> None:
    raise RuntimeError("measured")


def test_the_second_time_it_is_read(
    measured: tuple[Path, Robustness, Heard], monkeypatch: pytest.MonkeyPatch
):
    run, first, _ = measured
    heard = Heard()
    monkeypatch.setattr(workflow, "endure", lambda *_, **__: pytest.fail("measured again"))
    assert ts.robustness(ts.Run(run), **OPTIONS, reporter=heard) == first
    assert "the same weights, pictures and settings" in heard.lines[0]
    monkeypatch.setattr(workflow, "endure", _refusing)
    with pytest.raises(RuntimeError, match="measured"):
        ts.robustness(ts.Run(run), **OPTIONS | {"seed": 1})


def test_it_goes_on_where_it_was(run: Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[int] = []
    corruptions = dict.fromkeys(CORRUPTIONS, (True,) * 5)
    sizes = (True,) * len(EPSILONS)

    def counted(attacked, pictures, labels, paths, trial, *, on_progress):
        calls.append(len(pictures))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return [Endured(one, 0, len(calls), sizes, sizes, 0.5, corruptions) for one in paths]

    monkeypatch.setattr(workflow, "endure", counted)
    with pytest.raises(KeyboardInterrupt):
        ts.robustness(ts.Run(run), **OPTIONS)
    assert len(list((run / "attacks" / "parts").glob("*.json"))) == 2
    assert stored_robustness(run) is None
    resumed = ts.robustness(ts.Run(run), **OPTIONS)
    assert calls == [3, 2, 3, 3, 2]
    assert [one.margin for one in resumed.base] == [1, 1, 1, 2, 2]
    assert [one.margin for one in resumed.tuned] == [4, 4, 4, 5, 5]
    monkeypatch.setattr(workflow, "_stored", lambda *_: None)
    ts.robustness(ts.Run(run), **OPTIONS)
    assert len(calls) == 9, "nothing was left of the parts"
    (run / "attacks" / "robustness.json").write_text("{")
    assert stored_robustness(run) is None


def test_verb(run: Path):
    options = (
        "--pictures",
        3,
        "--steps",
        1,
        "--restarts",
        1,
        "--quiet",
    )  # the second time it is read
    done = command("robustness", run, *options, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert {"n", "split", "attacks", "noise", "distance", "margin", "corruptions"} <= set(told)
    assert {"base", "tuned", "difference", "interval"} <= set(told["attacks"][0])
    done = command("robustness", run, *options)
    assert "PGD, epsilon 1/255: at most" in done.stdout
    assert "upper bound" in done.stdout
    assert "Control: under random noise" in done.stdout


@pytest.mark.parametrize("name", ["pictures", "steps", "restarts"])
def test_options_out_of_range(run: Path, name: str):
    with pytest.raises(InputError, match=f"--{name} is 0"):
        ts.robustness(ts.Run(run), **{name: 0})
