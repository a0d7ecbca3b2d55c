"""How little a change shows: against closed forms, the paper's equations in float64, and what a run keeps."""

from __future__ import annotations

import math
import socket
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import mergerisk as mr
from mergerisk.cli.main import main
from mergerisk.errors import UserError
from mergerisk.transfer import stealth
from tests.cli.test_cli import call
from tests.tiny import write_tiny_study

if TYPE_CHECKING:
    from pathlib import Path


def naive_ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Wang et al. 2004, equation 13, windows of section III-C, of each channel by itself."""
    places = np.arange(-5, 6)
    line = np.exp(-(places**2) / (2 * 1.5**2))
    weights = np.outer(line, line) / line.sum() ** 2
    c1, c2 = 0.01**2, 0.03**2
    found = []
    for x, y in zip(first, second, strict=True):
        for row in range(x.shape[0] - 10):
            for column in range(x.shape[1] - 10):
                a, b = (image[row : row + 11, column : column + 11] for image in (x, y))
                mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
                spread_a = (weights * (a - mean_a) ** 2).sum()
                spread_b = (weights * (b - mean_b) ** 2).sum()
                shared = (weights * (a - mean_a) * (b - mean_b)).sum()
                alike = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
                found.append(alike * (2 * shared + c2) / (spread_a + spread_b + c2))
    return float(np.mean(found))


def test_psnr_by_hand() -> None:
    images = torch.full((3, 3, 4, 5), 0.5)
    changed = images.clone()
    changed[0] += 0.1
    changed[1, 0, 0, 0] += 0.25  # one number of sixty
    values, missing = stealth(images, changed, ["psnr"])["psnr"]
    # Pixels are rounded to float32 before they are compared.
    np.testing.assert_allclose(values[:2], [20.0, -10 * math.log10(0.25**2 / 60)], rtol=1e-6)
    assert math.isnan(values[2])
    assert "as it was" in missing


def test_ssim_is_the_papers() -> None:
    pytest.importorskip("skimage")
    random = np.random.default_rng(0)
    images = random.random((2, 3, 14, 12))
    changed = (images + random.normal(0, 0.1, images.shape)).clip(0, 1)
    values, missing = stealth(torch.from_numpy(images), torch.from_numpy(changed), ["ssim"])["ssim"]
    expected = [naive_ssim(a, b) for a, b in zip(images, changed, strict=True)]
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-10)
    assert missing == ""
    small = torch.zeros(1, 3, 10, 12)
    values, missing = stealth(small, small, ["ssim"])["ssim"]
    assert math.isnan(values[0])
    assert "smaller" in missing


def test_lpips_sees_pixels_as_its_package_wants_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Which lie in [−1, 1]; a stand-in for the package adds up what it is shown."""
    (tmp_path / "lpips.py").write_text(
        "import torch\n"
        "class LPIPS(torch.nn.Module):\n"
        "    def __init__(self, net, verbose):\n"
        "        super().__init__()\n"
        "        assert net == 'alex'\n"
        "    def forward(self, first, second):\n"
        "        return (second - 3 * first).mean(dim=(1, 2, 3), keepdim=True)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    images = torch.linspace(0, 1, 40).reshape(40, 1, 1, 1).expand(40, 3, 2, 2)
    values, _ = stealth(images, images.flip(0), ["lpips"])["lpips"]
    line = np.linspace(-1, 1, 40)
    np.testing.assert_allclose(values, line[::-1] - 3 * line, atol=1e-6)


def test_weights_are_fetched_before_anything_runs_or_refused(
    tiny_vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a stand-in for torchvision, which puts them where PyTorch's cache is."""
    packages, cache = tmp_path / "packages", tmp_path / "cache"
    (packages / "torchvision").mkdir(parents=True)
    (packages / "lpips.py").touch()
    (packages / "torchvision" / "__init__.py").touch()
    (packages / "torchvision" / "models.py").write_text(
        "import os, socket, types\n"
        "def get_state_dict(progress, check_hash):\n"
        "    assert check_hash and socket.getdefaulttimeout()\n"
        "    if 'AWAY' in os.environ:\n"
        "        raise OSError('no route to host')\n"
        f"    os.makedirs({str(cache / 'checkpoints')!r})\n"
        f"    open({str(cache / 'checkpoints' / 'alex.pth')!r}, 'w').close()\n"
        "one = types.SimpleNamespace(url='https://far/away/alex.pth', get_state_dict=get_state_dict)\n"
        "AlexNet_Weights = types.SimpleNamespace(IMAGENET1K_V1=one)\n"
    )
    monkeypatch.syspath_prepend(packages)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(cache))
    few = {"tasks": ["stripes.npz"], "merging": ["weight_averaging"], "attacks": ["fgsm"]}
    study = write_tiny_study(tmp_path, tiny_vit, **few, tables=[{"table": "stealth", "measures": ["lpips"]}])
    run = ("run", study, "--out", tmp_path / "run", "--quiet")
    by_hand = f"put https://far/away/alex.pth into {cache / 'checkpoints'}"
    for options, said in (
        (["--offline"], "alex.pth is not there; fetch it once without --offline, or "),
        ([], "alex.pth cannot be downloaded: no route to host; "),
    ):
        with monkeypatch.context() as during:
            during.setenv("AWAY", "yes")
            assert call(capsys, *run, *options) == (2, "", f"mergerisk: tables: lpips: {said}{by_hand}\n")
    assert not [*tmp_path.glob("run/store/objects/*")]
    assert call(capsys, "plan", study, "--offline")[0] == 2
    assert call(capsys, "plan", study)[0] == 0
    assert (cache / "checkpoints" / "alex.pth").is_file()
    assert call(capsys, "plan", study, "--offline")[0] == 0
    assert socket.getdefaulttimeout() is None


def test_what_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.zeros(1, 3, 11, 11)
    monkeypatch.setattr("mergerisk.transfer.similarity.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"ssim is computed by skimage.*mergerisk\[stealth\]"):
        stealth(images, images, ["ssim"])
    with pytest.raises(UserError, match="unknown measure 'nothing'"):
        stealth(images, images, ["nothing"])  # type: ignore[list-item]
    with pytest.raises(UserError, match="alike"):
        stealth(images, images[:, :1])


def test_a_run_keeps_it_of_every_image(tiny_vit: Path, tmp_path: Path) -> None:
    """PSNR follows from the length of the change that outcomes have; means and intervals are Student's."""
    study = write_tiny_study(
        tmp_path,
        tiny_vit,
        tasks=["stripes.npz"],
        merging=["weight_averaging"],
        attacks=["fgsm"],
        surrogates=["expert", "pretrained"],
        tables=[{"table": "stealth", "measures": ["psnr"]}],
    )
    run = tmp_path / "run"
    mr.run(study, run, workers=1, progress=False)
    table = pd.read_parquet(run / "stealth.parquet")
    outcomes = pd.read_parquet(run / "outcomes.parquet")
    assert len(table) == 2 * 3 * 12  # surrogates × budgets × images
    by = ["task", "attack", "surrogate", "epsilon", "seed", "image"]
    merge = outcomes[outcomes["target"] == "weight_averaging"]
    both = table.merge(merge, on=by, validate="one_to_one")
    np.testing.assert_allclose(both["psnr"], -20 * np.log10(both["l2"] / math.sqrt(3 * 16 * 16)), rtol=1e-9)
    assert (table["psnr_missing"] == "").all()
    main(["report", str(run), "--export", str(tmp_path / "export"), "--formats", "csv,md"])
    means = pd.read_csv(tmp_path / "export" / "data" / "stealth_means.csv")
    first = means.iloc[0]
    own = table[(table["surrogate"] == first["surrogate"]) & np.isclose(table["epsilon"], first["epsilon"])][
        "psnr"
    ]
    low, high = stats.t.interval(0.95, len(own) - 1, own.mean(), stats.sem(own))
    np.testing.assert_allclose(first[["psnr", "psnr_low", "psnr_high"]].tolist(), [own.mean(), low, high])
    shown = f"{own.mean():.3g} [{low:.3g}, {high:.3g}]"
    assert shown in (run / "report.html").read_text()
    assert shown.replace("[", r"\[").replace("]", r"\]") in (tmp_path / "export" / "report.md").read_text()
