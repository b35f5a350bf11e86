"""The hierarchy, and that each error crosses process borders and speaks in one sentence."""

from __future__ import annotations

import inspect
import pickle

import pytest

from transferscope import errors

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, errors.TransferscopeError)
]


def test_every_error_is_in_the_tree_of_the_module() -> None:
    assert len(CLASSES) >= 8
    for error in CLASSES:
        assert error.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.InputError, ValueError),
        (errors.UnknownName, LookupError),
        (errors.PictureError, ValueError),
        (errors.DataError, ValueError),
        (errors.WeightsError, ValueError),
        (errors.RunError, ValueError),
        (errors.AttackError, ValueError),
        (errors.OutputError, OSError),
    ],
)
def test_errors_are_also_what_a_caller_would_catch(
    error: type[Exception], builtin: type[Exception]
) -> None:
    assert issubclass(error, errors.TransferscopeError)
    assert issubclass(error, builtin)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("layer9", "layer4"),
        ("layr4", "layer4"),
        ("blocks", "blocks.4.2"),
        ("CONV1", "conv1"),
        ("zzzz", None),
        ("", None),
    ],
)
def test_unknown_name_names_the_nearest(name: str, nearest: str | None) -> None:
    error = errors.UnknownName(
        "layer",
        name,
        ["conv1", "layer4", "blocks.4.2"],
        where="resnet50",
        remedy="'transferscope layers' lists them",
    )
    assert error.nearest == nearest
    assert repr(name) in str(error)
    assert "resnet50" in str(error)
    assert str(error).endswith("'transferscope layers' lists them")
    assert ("did you mean" in str(error)) == (nearest is not None)


def test_picture_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(errors.PictureError("猫/1.jpg", "the file is empty")))
    assert (error.path, error.reason) == ("猫/1.jpg", "the file is empty")
    assert str(error) == "cannot read '猫/1.jpg': the file is empty"


def test_output_error_prints_its_sentence() -> None:
    assert str(errors.OutputError("cannot write 'a'")) == "cannot write 'a'"
