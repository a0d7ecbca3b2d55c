"""The examples for clusters, as far as they can be checked without one."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from mergerisk.cli.main import cli

EXAMPLES = Path(__file__).parents[1] / "examples" / "cluster"

FIELDS: dict[str, set[str]] = {
    "job": {"entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"},
    "cluster": {"rayVersion", "headGroupSpec", "workerGroupSpecs"},
    "head": {"rayStartParams", "template"},
    "worker": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
    "container": {"name", "image", "env", "resources", "volumeMounts"},
}
"""Of KubeRay's ray.io/v1, and of Kubernetes' containers, as their references list them: those that the example uses."""


def understood(words: list[str]) -> dict[str, Any]:
    """What our own command line makes of ``mergerisk run …``."""
    assert words[:2] == ["mergerisk", "run"]
    command = cli.get_command(click.Context(cli), "run")
    assert command is not None
    return command.make_context("run", words[2:]).params


def test_the_slurm_script_is_a_script_whose_command_is_understood() -> None:
    script = EXAMPLES / "slurm.sh"
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text()
    (line,) = re.findall(r"^mergerisk run .*$", text, re.MULTILINE)
    params = understood(shlex.split(line))
    assert (params["study"], params["executor"], params["address"]) == ("$study", "ray", "$address")
    assert params["shards"] == 8
    # What the script reads of Slurm is set by what it asks for: --nodes, --cpus-per-task, --gpus-per-node.
    assert set(re.findall(r"SLURM_\w+", text)) == {
        "SLURM_JOB_NODELIST",
        "SLURM_JOB_NUM_NODES",
        "SLURM_CPUS_PER_TASK",
        "SLURM_GPUS_ON_NODE",
    }


def test_the_options_that_examples_give_ray_exist() -> None:
    scripts = pytest.importorskip("ray.scripts.scripts")
    known = {option for each in scripts.start.params for option in each.opts}
    text = (EXAMPLES / "slurm.sh").read_text()
    room = re.findall(r"--[a-z-]+", text[text.index("room=(") : text.index("--block)")])
    assert {*room, "--head", "--port", "--address", "--block"} <= known
    assert "--address" in {option for each in scripts.healthcheck.params for option in each.opts}


def test_the_kuberay_job_has_the_fields_that_its_reference_lists() -> None:
    job = yaml.safe_load((EXAMPLES / "kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    workers = cluster["workerGroupSpecs"]
    assert set(spec) == FIELDS["job"]
    assert set(cluster) == FIELDS["cluster"]
    assert set(cluster["headGroupSpec"]) == FIELDS["head"]
    params = understood(shlex.split(spec["entrypoint"]))
    assert (params["executor"], params["address"]) == ("ray", "auto")
    for group in (cluster["headGroupSpec"], *workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), (
            "they are words of a command"
        )
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert set(container) == FIELDS["container"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
        for place in (params["study"], str(params["out"]), str(params["store"])):
            assert Path(place).is_relative_to(mounts["shared"]), "every pod sees it"
    for group in workers:
        assert set(group) == FIELDS["worker"]
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
