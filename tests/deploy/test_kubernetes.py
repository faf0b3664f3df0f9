"""deploy/kubernetes: each object is one that Kubernetes takes, and what refers to another finds it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import kubernetes_validate
import pytest
import yaml

from common.keys import PoolKeys
from tests.deploy.manifests import DEPLOY, KUBERNETES, documents, of_kind, workloads

#: The oldest that is still in use, and the newest whose schemas we have.
VERSIONS = ("1.28", kubernetes_validate.latest_version())
OURS = [one for one in documents("base") if not one["apiVersion"].startswith("keda.sh/")]
SCALED = of_kind("ScaledObject", "keda")
#: What KEDA's redis-streams scaler asks XLEN for: no consumerGroup. https://keda.sh/docs/latest/scalers/redis-streams/
TRIGGER = {"address", "stream", "streamLength"}


def named(one: Mapping[str, Any]) -> str:
    return f"{one['kind']}/{one['metadata']['name']}"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("one", OURS, ids=named)
def test_an_object_is_one_that_kubernetes_takes(one: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("folder", ["base", "keda"])
def test_a_kustomization_names_all_files_beside_it(folder: str) -> None:
    told = yaml.safe_load((KUBERNETES / folder / "kustomization.yaml").read_text("utf-8"))["resources"]

    files = {path.name for path in (KUBERNETES / folder).glob("*.yaml")} - {"kustomization.yaml"}
    assert {one for one in told if one.endswith(".yaml")} == files


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed: it alone builds kustomizations")
@pytest.mark.parametrize("folder", ["base", "keda"])
def test_kubectl_builds_it(folder: str) -> None:
    built = subprocess.run(
        ["kubectl", "kustomize", KUBERNETES / folder], capture_output=True, text=True, timeout=60, check=True
    )

    images = [image for one in yaml.safe_load_all(built.stdout) for image in images_of(one)]
    assert set(images) == {"redis:7.4", "inference-worker:cuda", "inference-worker:cpu"}


def images_of(one: Mapping[str, Any]) -> Iterator[str]:
    spec = one.get("spec", {}).get("template", {}).get("spec", {})
    yield from (container["image"] for container in spec.get("containers", ()))


# -- what refers to another --------------------------------------------------------------------------------------------


def selectors() -> Iterator[tuple[str, Mapping[str, Any]]]:
    for one in documents("base"):
        spec = one.get("spec", {})
        for key in ("selector", "podSelector"):
            if key in spec and one["kind"] not in ("Deployment", "StatefulSet"):
                yield named(one), spec[key]


@pytest.mark.parametrize(("name", "selector"), list(selectors()), ids=lambda one: one if isinstance(one, str) else "")
def test_a_selector_selects_pods(name: str, selector: Mapping[str, Any]) -> None:
    pods = [one["spec"]["template"]["metadata"]["labels"] for one in workloads()]

    assert any(selects(selector, labels) for labels in pods), name


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    wanted = selector.get("matchLabels", {} if "matchExpressions" in selector else selector)
    return wanted.items() <= labels.items() and all(
        labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", ())
    )


@pytest.mark.parametrize("workload", workloads(), ids=named)
def test_a_pod_asks_for_what_is_there(workload: dict[str, Any]) -> None:
    spec = workload["spec"]["template"]["spec"]
    [container] = spec["containers"]
    claims = {one["metadata"]["name"] for one in workload["spec"].get("volumeClaimTemplates", ())}
    config = {one["metadata"]["name"]: one["data"] for one in of_kind("ConfigMap")}
    made = {*re.findall(r"^user (\S+) on", (DEPLOY / "redis" / "users.acl").read_text(), re.M)}

    assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in spec["volumes"]} | claims
    for variable in container.get("env", ()):
        if "valueFrom" in variable:
            reference = variable["valueFrom"]["configMapKeyRef"]
            assert reference["key"] in config[reference["name"]]
    for volume in spec["volumes"]:
        assert volume.get("configMap", {"name": "redis"})["name"] in config
        for item in volume.get("secret", {}).get("items", ()):
            assert item["key"] == "users.acl" or item["key"].removeprefix("redis-") in made


@pytest.mark.parametrize("workload", workloads(), ids=named)
def test_a_pod_passes_the_restricted_standard(workload: dict[str, Any]) -> None:
    """Kubernetes' Pod Security Standards, of which the namespace enforces this one."""
    spec = workload["spec"]["template"]["spec"]
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}

    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    assert {kind for volume in spec["volumes"] for kind in volume if kind != "name"} <= allowed
    for container in spec["containers"]:
        context = container["securityContext"]
        assert (context["allowPrivilegeEscalation"], context["capabilities"]) == (False, {"drop": ["ALL"]})
        assert context["readOnlyRootFilesystem"] is True
    assert spec["automountServiceAccountToken"] is False


# -- KEDA --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaled", SCALED, ids=named)
def test_a_scaled_object_looks_at_all_streams_of_the_pool_that_its_workers_serve(scaled: dict[str, Any]) -> None:
    [workload] = [one for one in workloads() if one["metadata"]["name"] == scaled["spec"]["scaleTargetRef"]["name"]]
    [container] = workload["spec"]["template"]["spec"]["containers"]
    [pool] = [one["value"] for one in container["env"] if one["name"] == "INFERENCE_WORKER_WORKER_POOL"]
    triggers = [one["metadata"] for one in scaled["spec"]["triggers"]]

    assert {one["stream"] for one in triggers} == set(PoolKeys(pool).streams)
    assert {key for one in triggers for key in one} == TRIGGER
    # KEDA takes strings only.
    assert all(isinstance(value, str) for one in triggers for value in one.values())


@pytest.mark.parametrize("scaled", SCALED, ids=named)
def test_its_formula_adds_up_all_triggers(scaled: dict[str, Any]) -> None:
    names = [one["name"] for one in scaled["spec"]["triggers"]]

    assert scaled["spec"]["advanced"]["scalingModifiers"]["formula"].split(" + ") == names
    assert len(names) == len(set(names))


@pytest.mark.parametrize("scaled", SCALED, ids=named)
def test_its_triggers_log_in_as_who_is_known(scaled: dict[str, Any]) -> None:
    known = {one["metadata"]["name"] for one in of_kind("TriggerAuthentication", "keda")}

    assert {one["authenticationRef"]["name"] for one in scaled["spec"]["triggers"]} <= known
