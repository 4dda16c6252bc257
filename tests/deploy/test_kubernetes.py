"""Every overlay renders, is valid under three versions of Kubernetes, and meets Pod Security Standard "restricted"."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.settings import Settings

BASE = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
OVERLAYS = ("cpu", "gpu", "redis", "keys")
VERSIONS = ("1.29", "1.32", "1.35")


@functools.cache
def rendered(overlay: str) -> tuple[dict[str, Any], ...]:
    """The resources of an overlay, as `kubectl kustomize` writes them."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl (1.21 or newer) is not installed")
    command = ["kubectl", "kustomize", str(BASE / "overlays" / overlay)]
    return tuple(yaml.safe_load_all(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def one(overlay: str, kind: str, name: str = "aisle") -> dict[str, Any]:
    (found,) = (r for r in rendered(overlay) if r["kind"] == kind and r["metadata"]["name"] == name)
    return found


def pods(overlay: str) -> Iterator[dict[str, Any]]:
    return (r["spec"]["template"] for r in rendered(overlay) if r["kind"] == "Deployment")


@pytest.mark.promise("M5", "every resource of every overlay is valid for three versions of Kubernetes")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_resource_is_valid(overlay: str, version: str) -> None:
    """Strictly: an unknown field is an error, as the control shows."""
    for resource in rendered(overlay):
        kubernetes_validate.validate(resource, version, strict=True)
    broken = {**one(overlay, "PodDisruptionBudget"), "spec": {"maxUnavailible": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, version, strict=True)


def violations(pod: dict[str, Any]) -> list[str]:
    """What the restricted Pod Security Standard forbids in a pod template (v1.29; the fields that can be set here)."""
    spec, found = pod["spec"], []
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    found += [field for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    found += [f"volume {v['name']}" for v in spec.get("volumes", []) if not set(v) - {"name"} <= allowed]
    outer = spec.get("securityContext", {})
    for container in spec.get("initContainers", []) + spec["containers"]:
        inner = container.get("securityContext", {})
        merged = {**outer, **inner}
        if merged.get("runAsNonRoot") is not True or merged.get("runAsUser") == 0:
            found.append("root")
        if merged.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
            found.append("seccomp")
        if inner.get("allowPrivilegeEscalation") is not False or inner.get("privileged"):
            found.append("escalation")
        if inner.get("capabilities", {}).get("drop") != ["ALL"]:
            found.append("capabilities")
        if any("hostPort" in port for port in container.get("ports", [])):
            found.append("hostPort")
    return found


@pytest.mark.promise("S11", "Pod Security Standard restricted")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_satisfy_the_restricted_standard_and_more(overlay: str) -> None:
    """Restricted, a read-only root, no API token, bounded resources; an unhardened pod is seen as one."""
    for pod in pods(overlay):
        assert violations(pod) == []
        assert pod["spec"]["automountServiceAccountToken"] is False
        for container in pod["spec"]["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["resources"]["requests"]
            assert container["resources"]["limits"]["memory"]
    assert set(violations({"spec": {"containers": [{}]}})) == {"root", "seccomp", "escalation", "capabilities"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_environment_of_a_pod_is_one_that_the_service_accepts(overlay: str) -> None:
    """Config map and overlay together; links to other Services would add unknown AISLE_ names, so they are off."""
    spec = one(overlay, "Deployment")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    given = one(overlay, "ConfigMap")["data"] | {e["name"]: e["value"] for e in container["env"]}
    settings = Settings.from_environment(given)
    assert settings.provider == ("cuda" if overlay == "gpu" else "cpu")
    assert (settings.redis_url is not None) == (overlay == "redis")
    assert spec["enableServiceLinks"] is False
    assert str(settings.bundles) in {m["mountPath"] for m in container["volumeMounts"] if m.get("readOnly")}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_has_time_to_drain_and_probes_that_ask_the_right_question(overlay: str) -> None:
    """preStop, the service's own drain and 30 s for what is in flight fit into the grace period."""
    spec = one(overlay, "Deployment")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    drain = float(one(overlay, "ConfigMap")["data"]["AISLE_DRAIN_S"])
    assert spec["terminationGracePeriodSeconds"] >= 5 + drain + 30
    for probe, path in (("startupProbe", "/startupz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")):
        assert container[probe]["httpGet"]["path"] == path


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_find_the_pods_they_mean(overlay: str) -> None:
    """Services, the disruption budget, the policy and the autoscaler all point at what the overlay deploys."""
    labels = [pod["metadata"]["labels"].items() for pod in pods(overlay)]
    for resource in rendered(overlay):
        spec = resource.get("spec", {})
        selector = spec.get("podSelector") or spec.get("selector")
        if resource["kind"] in {"Service", "NetworkPolicy", "PodDisruptionBudget"}:
            wanted = selector.get("matchLabels", selector).items()
            assert sum(wanted <= pod for pod in labels) == 1, resource["metadata"]["name"]
    target = one(overlay, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert one(overlay, target["kind"], target["name"])
    assert "replicas" not in one(overlay, "Deployment")["spec"]


def test_keys_come_from_a_secret_and_metrics_have_a_port_that_needs_none() -> None:
    """The file that the settings name lies in the mounted folder; scrapers find the port, and may reach it. Without the
    component there is none of it."""
    settings = Settings.from_environment(one("keys", "ConfigMap")["data"])
    assert settings.api_keys_file is not None and not settings.open
    template = one("keys", "Deployment")["spec"]["template"]
    (container,) = template["spec"]["containers"]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    mount = mounts[str(settings.api_keys_file.parent)]
    assert mount["readOnly"] and "subPath" not in mount
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    assert volumes[mount["name"]]["secret"]["secretName"] == "aisle-keys"
    assert {"name": "metrics", "containerPort": settings.metrics_port, "protocol": "TCP"} in container["ports"]
    assert template["metadata"]["annotations"]["prometheus.io/port"] == str(settings.metrics_port)
    assert settings.metrics_port in {port["port"] for port in one("keys", "Service", "aisle-pods")["spec"]["ports"]}
    (rule,) = one("keys", "NetworkPolicy")["spec"]["ingress"]
    assert {port["port"] for port in rule["ports"]} == {"http", "metrics"}
    plain = Settings.from_environment(one("cpu", "ConfigMap")["data"])
    assert plain.api_keys_file is None and plain.metrics_port is None
