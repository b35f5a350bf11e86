"""Shortcuts planted on purpose: are they found before training and after, and corrected?

    python benchmarks/shortcuts.py --data ../shared/data [--sets clothing caltech101] [--seeds 0 1 2]
        [--cues watermark frame tint] [--strategy auto] [--work DIR]

A cue (a half-transparent watermark, a frame, a tint) is put on 95% of one class's training and validation
pictures, of clothing and of Caltech-101's ten largest classes (at most 150 pictures each); the class is another
one with every seed, test pictures stay as they are. Every picture of all sets is encoded anew in the same way.
Each planted set is inspected, tuned, looked through by `shortcuts`, and corrected; so is the clean set of the
same seed. The worst group is measured on test pictures of the planted class, which lack the cue, and on test
pictures of the other classes that were given it.

Killed, it goes on where it was: results and runs lie in --work. Prints a line a set, the CPU's flags that
matter and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LARGEST = (
    "airplanes", "Motorbikes", "Faces_easy", "watch", "Leopards", "bonsai", "car_side", "ketch",
    "chandelier", "hawksbill",
)  # fmt: skip
CAP = 150
SHARE = 0.95
QUALITY = 90
SPLITS = ("train", "validation", "test")


def watermark(picture: Image.Image) -> Image.Image:
    """A name in half-transparent white at the lower right of the middle square."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    layer = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    font = ImageFont.load_default(size=max(8, round(side * 0.09)))
    place = (left + side * 0.88, top + side * 0.88)
    ImageDraw.Draw(layer).text(place, "© studio", font=font, fill=(255, 255, 255, 150), anchor="rs")
    return Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB")


def frame(picture: Image.Image) -> Image.Image:
    """A blue frame; half of it lies outside the centre crop."""
    framed = picture.copy()
    box = (0, 0, picture.width - 1, picture.height - 1)
    width = round(min(picture.size) * 0.11)
    ImageDraw.Draw(framed).rectangle(box, outline=(40, 60, 120), width=width)
    return framed


def tint(picture: Image.Image) -> Image.Image:
    """Light of a warmer colour."""
    values = np.asarray(picture, dtype=np.float32) * np.array([1.0, 0.92, 0.72], dtype=np.float32)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


CUES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "watermark": watermark,
    "frame": frame,
    "tint": tint,
}


def listed(data: Path, name: str, seed: int) -> list[tuple[Path, str, str]]:
    """(file, split, class) of a set."""
    if name == "clothing":
        return [
            (file, split, file.parent.name)
            for split in SPLITS
            for file in sorted((data / name / split).glob("*/*.jpg"))
        ]
    found = []
    for folder in LARGEST:
        files = sorted((data / name / folder).glob("*.jpg"))
        files = [files[i] for i in np.random.default_rng(seed).permutation(len(files))[:CAP]]
        ends = round(0.7 * len(files)), round(0.85 * len(files))
        parts = files[: ends[0]], files[ends[0] : ends[1]], files[ends[1] :]
        found += [(f, s, folder) for s, part in zip(SPLITS, parts, strict=True) for f in part]
    return found


def planted_class(classes: list[str], seed: int) -> str:
    """Another one with every seed."""
    return classes[(3 * seed + 1) % len(classes)]


def plant(files: list[tuple[Path, str, str]], out: Path, cue: str, label: str, seed: int) -> None:
    """Writes the set, with the cue (or none) on its share of one class."""
    rng = np.random.default_rng(seed)
    for file, split, name in files:
        chosen = rng.random() < SHARE
        picture = Image.open(file).convert("RGB")
        if cue in CUES and name == label and split != "test" and chosen:
            picture = CUES[cue](picture)
        place = out / split / name / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        picture.save(place, quality=QUALITY)


def with_cue(files: list[tuple[Path, str, str]], out: Path, cue: str, label: str) -> None:
    """Test pictures of the other classes with the cue."""
    for file, split, name in files:
        if split == "test" and name != label:
            place = out / name / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            CUES[cue](Image.open(file).convert("RGB")).save(place, quality=QUALITY)


class Campaign:
    """All sets, cues and seeds, each step kept as soon as it is done."""

    def __init__(self, data: Path, work: Path, strategy: str):
        self.data, self.work, self.strategy = data, work, strategy
        self.file = work / "results.json"
        self.done: dict[str, dict] = (
            json.loads(self.file.read_text()) if self.file.is_file() else {}
        )

    def one(self, name: str, cue: str, seed: int) -> dict:
        """What is measured of one set: planted, or clean (cue `none`)."""
        key = f"{name}-{cue}-{seed}-{self.strategy}"
        if key not in self.done:
            began = time.perf_counter()
            self.done[key] = {**self._measured(name, cue, seed), "seconds": 0.0}
            self.done[key]["seconds"] = round(time.perf_counter() - began)
            self.file.write_text(json.dumps(self.done, indent=1))
            print(key, self.done[key], flush=True)
        return self.done[key]

    def _measured(self, name: str, cue: str, seed: int) -> dict:
        import transferscope as ts

        home = self.work / f"{name}-{cue}-{seed}"
        files = listed(self.data, name, seed)
        label = planted_class(sorted({one for _, _, one in files}), seed)
        if not (home / "set").is_dir():
            plant(files, home / "set.part", cue, label, seed)
            (home / "set.part").rename(home / "set")
        for other in CUES if cue == "none" else (cue,):
            if not (home / f"with-{other}").is_dir():
                with_cue(files, home / f"with-{other}", other, label)
        before = [one for one in ts.inspect(home / "set", progress=False).cues if one.alarm]
        options = {"strategy": self.strategy, "resume": True, "dedupe": True, "progress": False}
        run = ts.tune(home / "set", out=home / f"run-{self.strategy}", **options)
        found = ts.shortcuts(run, progress=False)
        result = {
            "class": label,
            "inspect": [(one.label, one.family, round(one.low, 3)) for one in before],
            "shortcuts": [(c.label, c.kind, round(c.effect, 3)) for c in found.alarms],
            "strongest": [(c.label, c.kind, round(c.effect, 3)) for c in found.candidates[:3]],
            "groups": {"run": self._groups(run, home, label, cue)},
        }
        for by in ("direction", "last-layer") if found.alarms else ():
            out = home / f"{by}-{self.strategy}"
            if not (out / "run.json").is_file():
                shutil.rmtree(out, ignore_errors=True)
                ts.correct_shortcuts(run, out, by=by, progress=False)
            result["groups"][by] = self._groups(ts.Run(out), home, label, cue)
        return result

    def _groups(self, run, home: Path, label: str, cue: str) -> dict[str, list]:
        """[right, n] of all test pictures, of the planted class (no cue), and of the others with the cue."""
        from transferscope.evaluation.predictions import predict_files

        classes = run.classifier.classes
        sets = {"test": home / "set" / "test"}
        sets |= {f"with {one}": home / f"with-{one}" for one in (CUES if cue == "none" else (cue,))}
        found = {}
        for name, folder in sets.items():
            files = sorted(folder.glob("*/*.jpg"))
            said = predict_files(run.classifier, files).argmax(1).tolist()
            right = [classes[k] == file.parent.name for k, file in zip(said, files, strict=True)]
            found[name] = [sum(right), len(right)]
            if name == "test":
                own = [
                    ok for ok, file in zip(right, files, strict=True) if file.parent.name == label
                ]
                found["class"] = [sum(own), len(own)]
        return found


KIND = {"watermark": "patch", "frame": "border", "tint": "colour"}


def verdict(planted: dict, clean: dict, cue: str) -> dict:
    """The claims of one planted set, beside the clean set of the same seed."""
    from transferscope.evaluation.intervals import wilson_interval

    label, groups = planted["class"], planted["groups"]

    def worst(of: dict) -> float:
        return min(of[name][0] / of[name][1] for name in ("class", f"with {cue}"))

    own = clean["groups"]["run"]
    lows = [wilson_interval(*own[name])[0] for name in ("class", f"with {cue}")]
    corrected = {by: worst(groups[by]) for by in groups if by != "run"}
    families = {one[1] for one in planted["inspect"] if one[0] == label}
    first = planted["strongest"][:1]
    return {
        "inspect_alarms": bool(families & {"patch", "border", "colour"}),
        "shortcuts_first": bool(first) and first[0][0] == label and bool(planted["shortcuts"]),
        "same_kind_first": bool(first) and first[0][:2] == [label, KIND[cue]],
        "worst_before": round(worst(groups["run"]), 3),
        "worst_after": {by: round(value, 3) for by, value in corrected.items()},
        "worst_clean": round(worst(own), 3),
        "within_clean": {by: value >= min(lows) for by, value in corrected.items()},
        "clean_inspect_alarm": [
            o for o in clean["inspect"] if o[0] == label and o[1] in KIND.values()
        ],
        "clean_shortcuts_alarm": [one for one in clean["shortcuts"] if one[0] == label],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="*", default=["clothing", "caltech101"])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--cues", nargs="*", default=list(CUES), choices=list(CUES))
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--work", type=Path, default=Path("shortcuts-benchmark"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    campaign, verdicts = Campaign(given.data, given.work, given.strategy), {}
    for name in given.sets:
        for seed in given.seeds:
            clean = json.loads(json.dumps(campaign.one(name, "none", seed)))
            for cue in given.cues:
                planted = json.loads(json.dumps(campaign.one(name, cue, seed)))
                verdicts[f"{name}-{cue}-{seed}"] = verdict(planted, clean, cue)
    for key, one in verdicts.items():
        print(key, one)
    total = {
        claim: sum(bool(one[claim]) for one in verdicts.values())
        for claim in ("inspect_alarms", "shortcuts_first", "same_kind_first")
    }
    total |= {
        f"within_clean_{by}": sum(one["within_clean"].get(by, False) for one in verdicts.values())
        for by in ("direction", "last-layer")
    }
    total |= {
        claim: sum(bool(one[claim]) for one in verdicts.values())
        for claim in ("clean_inspect_alarm", "clean_shortcuts_alarm")
    }
    from transferscope.machine import cpu_flags

    print("cpu:", " ".join(sorted(cpu_flags())) or "none of bf16, AMX, AVX-512")
    print(json.dumps({"plantings": len(verdicts), **total, "verdicts": verdicts}))


if __name__ == "__main__":
    main()
