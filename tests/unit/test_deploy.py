"""deploy/: what is written there is valid, agrees with the code, and keeps the promises that its comments make."""

from __future__ import annotations

import http.server
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from allranks_bus.addresses import DEFAULT_DATA_PORT, DEFAULT_HTTP_PORT, parse_address
from allranks_bus.version import __version__
from allranks_collector.api.service import router
from allranks_collector.settings import SWITCH, TABLE, Settings, load_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CONTAINERFILE = DEPLOY / "Containerfile"
COMPOSE = DEPLOY / "compose.yaml"
UNIT = DEPLOY / "systemd" / "allranks-collector.service"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
TOOLS = Path(sys.executable).parent

PORTS = {"http": DEFAULT_HTTP_PORT, "data": DEFAULT_DATA_PORT, "control": DEFAULT_DATA_PORT + 1}
UNIT_BYTES = {"Mi": 2**20, "Gi": 2**30}
_VARIABLE = re.compile(r"\bALLRANKS_[A-Z][A-Z_]*[A-Z]\b")
_DEADLINE_S = 20.0

Map = dict[str, Any]


def run_tool(*command: str | Path, cwd: Path = ROOT) -> None:
    """Runs a checker, which must find nothing."""
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def documents(path: Path) -> list[Map]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def the(kind: str, file: str) -> Map:
    """The one document of this kind in deploy/kubernetes/FILE."""
    (found,) = [document for document in documents(DEPLOY / "kubernetes" / file) if document["kind"] == kind]
    return found


def pod_templates() -> Iterator[tuple[str, Map]]:
    for path in MANIFESTS:
        for document in documents(path):
            if "template" in document.get("spec", {}):
                yield f"{path.name}:{document['kind']}", document["spec"]["template"]


PODS = [pytest.param(template, id=name) for name, template in pod_templates()]


def containers(pod: Map) -> list[Map]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def environment(container: Map) -> dict[str, str]:
    """The variables of a container; what Kubernetes fills in stands for itself."""
    return {row["name"]: row.get("value", "from-the-pod") for row in container.get("env", [])}


def instructions(keyword: str) -> list[str]:
    """The arguments of every KEYWORD of the Containerfile, in order."""
    text = CONTAINERFILE.read_text().replace("\\\n", " ")
    return [line.removeprefix(keyword).strip() for line in text.splitlines() if line.startswith(keyword + " ")]


def settings_of(arguments: list[str], env: Mapping[str, str]) -> Settings:
    """What `allranks collector ARGUMENTS` reads from its flags and variables."""
    flags: dict[str, object] = {}
    command, *rest = arguments
    assert command == "collector"
    words = iter(rest)
    for word in words:
        (row,) = [row for row in TABLE if row.flag == word]
        flags[row.name] = True if row.kind is SWITCH else next(words)
    return load_settings(flags, env)


def all_collectors() -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """Every collector that deploy/ starts: where, its arguments, its variables."""
    for name, template in pod_templates():
        for container in containers(template):
            if container.get("args", [""])[0] == "collector":
                yield name, container["args"], environment(container)
    service = documents(COMPOSE)[0]["services"]["collector"]
    yield "compose", service["command"], service["environment"]
    unit = UNIT.read_text()
    env = dict(line.split("=", 1) for line in re.findall(r"^Environment=(.*)$", unit, re.MULTILINE))
    (command,) = re.findall(r"^ExecStart=\S+/allranks (.*)$", unit, re.MULTILINE)
    yield "systemd", command.split(), env


COLLECTORS = [pytest.param(arguments, env, id=name) for name, arguments, env in all_collectors()]


# -- valid ---------------------------------------------------------------------------------------------------------


def test_hadolint_finds_nothing_in_the_containerfile() -> None:
    run_tool(TOOLS / "hadolint", CONTAINERFILE)


@pytest.mark.parametrize("version", ["1.29", "1.35"])
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_follow_the_schema_of_kubernetes(path: Path, version: str) -> None:
    """1.29 is the first one with native sidecars."""
    run_tool(TOOLS / "kubernetes-validate", "--strict", "--kubernetes-version", version, path)


def test_compose_file_follows_its_schema() -> None:
    run_tool(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_systemd_takes_the_unit_without_a_word(tmp_path: Path) -> None:
    """The checker wants the program to be there, so another one stands in for ours."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/allranks/bin/allranks", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# -- in agreement with the code ------------------------------------------------------------------------------------


def test_variables_are_ones_that_the_code_reads() -> None:
    known = {row.env for row in TABLE}
    for package in ("bus", "sdk", "collector"):
        for source in (ROOT / package).rglob("*.py"):
            known |= set(_VARIABLE.findall(source.read_text()))
    files = [path for path in DEPLOY.rglob("*") if path.is_file()]
    named = {name for path in files for name in _VARIABLE.findall(path.read_text())}
    assert "ALLRANKS_URL" in named
    assert named <= known


@pytest.mark.parametrize(("arguments", "env"), COLLECTORS)
def test_collectors_understand_their_settings(arguments: list[str], env: dict[str, str]) -> None:
    settings = settings_of(arguments, env)
    read = {row.env for row in TABLE if settings.sources[row.name] != "default"}
    assert {name for name in env if name.startswith("ALLRANKS_")} <= read
    assert (settings.http_port, settings.data_port) == (PORTS["http"], PORTS["data"])


def test_images_have_this_version() -> None:
    tags = [container["image"] for _, template in pod_templates() for container in containers(template)]
    tags += [service["image"] for service in documents(COMPOSE)[0]["services"].values()]
    ours = [tag for tag in tags if tag.startswith("allranks")]
    assert len(ours) >= 6
    assert {tag.rpartition(":")[2] for tag in ours} == {__version__}
    assert instructions("ARG")[-1] == f"VERSION={__version__}"


def test_ports_are_those_of_the_collector() -> None:
    assert set(instructions("EXPOSE")[0].split()) == {str(port) for port in PORTS.values()}
    for _, template in pod_templates():
        for container in containers(template):
            for port in container.get("ports", []):
                assert port["containerPort"] == PORTS[port["name"]]
    service = the("Service", "collector.yaml")
    assert {port["name"]: port["port"] for port in service["spec"]["ports"]} == PORTS


@pytest.mark.parametrize(
    ("file", "host"), [("job-sidecar.yaml", "127.0.0.1"), ("job-multi-node.yaml", "allranks-collector")]
)
def test_trainers_send_to_where_the_collector_listens(file: str, host: str) -> None:
    (trainer,) = the("Job", file)["spec"]["template"]["spec"]["containers"]
    address = parse_address(environment(trainer)["ALLRANKS_URL"])
    assert (address.host, address.port) == (host, PORTS["data"])
    assert host in ("127.0.0.1", the("Service", "collector.yaml")["metadata"]["name"])


def test_collector_goes_by_the_names_of_its_service() -> None:
    """Host headers with other names are refused."""
    (collector,) = the("StatefulSet", "collector.yaml")["spec"]["template"]["spec"]["containers"]
    settings = settings_of(collector["args"], environment(collector))
    name = the("Service", "collector.yaml")["metadata"]["name"]
    assert set(settings.allowed_hosts) == {
        name + suffix for suffix in ("", *(f".$(NAMESPACE){rest}" for rest in ("", ".svc", ".svc.cluster.local")))
    }


# -- confined ------------------------------------------------------------------------------------------------------


def test_image_runs_as_a_numbered_user_that_is_not_root() -> None:
    (user,) = instructions("USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    *_, runtime, demo, collector = instructions("FROM")
    assert runtime.endswith(" AS runtime")
    assert (demo, collector) == ("runtime AS demo", "runtime AS collector")


@pytest.mark.parametrize("template", PODS)
def test_pods_run_as_the_images_user(template: Map) -> None:
    """All containers of a pod as one: a spool is drained only by the user who wrote it."""
    context = template["spec"]["securityContext"]
    assert context["runAsNonRoot"] is True
    assert f"{context['runAsUser']}:{context['runAsGroup']}" == instructions("USER")[0]
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert all("runAsUser" not in container["securityContext"] for container in containers(template))


@pytest.mark.parametrize("template", PODS)
def test_containers_can_change_nothing_but_their_volumes(template: Map) -> None:
    for container in containers(template):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("template", PODS)
def test_pods_get_no_token_and_no_variables_of_services(template: Map) -> None:
    """A Service named allranks-http would set ALLRANKS_HTTP_PORT=tcp://…, and no collector would start any more."""
    assert template["spec"]["automountServiceAccountToken"] is False
    assert template["spec"]["enableServiceLinks"] is False


def test_compose_services_are_confined() -> None:
    for service in documents(COMPOSE)[0]["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_network_policy_lets_trainers_send_and_nothing_else() -> None:
    policy = the("NetworkPolicy", "collector.yaml")["spec"]
    collector = the("StatefulSet", "collector.yaml")["spec"]["template"]["metadata"]["labels"]
    trainer = the("Job", "job-multi-node.yaml")["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= collector.items()
    open_to_trainers = {
        port["port"]
        for rule in policy["ingress"]
        for peer in rule["from"]
        if peer["podSelector"]["matchLabels"].items() <= trainer.items()
        for port in rule["ports"]
    }
    assert open_to_trainers == {"data", "control"}
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert policy["egress"] == []


def test_sidecar_is_reached_from_its_pod_alone() -> None:
    sidecar = the_sidecar()
    settings = settings_of(sidecar["args"], environment(sidecar))
    assert (settings.host, settings.insecure) == ("127.0.0.1", False)


# -- never in the way of the training ------------------------------------------------------------------------------


def the_sidecar() -> Map:
    (sidecar,) = the("Job", "job-sidecar.yaml")["spec"]["template"]["spec"]["initContainers"]
    return dict(sidecar)


@pytest.mark.parametrize("file", ["job-sidecar.yaml", "job-multi-node.yaml"])
def test_helpers_are_native_sidecars_that_hold_nobody_back(file: str) -> None:
    """restartPolicy Always makes an initContainer a sidecar; with a startupProbe the trainers would wait for it."""
    for container in the("Job", file)["spec"]["template"]["spec"]["initContainers"]:
        assert container["restartPolicy"] == "Always"
        assert "startupProbe" not in container


@pytest.mark.parametrize("file", ["job-sidecar.yaml", "job-multi-node.yaml"])
def test_trainer_and_sidecar_share_a_spool_on_disk(file: str) -> None:
    pod = the("Job", file)["spec"]["template"]
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    for container in containers(pod):
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert volumes[mounts[environment(container)["ALLRANKS_SPOOL"]]] == {"name": "spool", "emptyDir": {}}


@pytest.mark.parametrize("template", PODS)
def test_pods_leave_time_to_end(template: Map) -> None:
    """The collector's own deadlines sum up to some 15 s."""
    assert template["spec"]["terminationGracePeriodSeconds"] >= 30


@pytest.mark.parametrize(
    "container",
    [
        pytest.param(container, id=name)
        for name, template in pod_templates()
        for container in containers(template)
        if container.get("args", [""])[0] == "collector"
    ],
)
def test_collectors_have_memory_beyond_duckdbs(container: Map) -> None:
    limit = container["resources"]["limits"]["memory"]
    settings = settings_of(container["args"], environment(container))
    ours = (settings.memory_limit_mb + settings.max_pending_mb) * 2**20
    assert int(limit[:-2]) * UNIT_BYTES[limit[-2:]] >= 1.5 * ours


# -- probes --------------------------------------------------------------------------------------------------------


def test_probes_of_the_collector_ask_what_it_serves() -> None:
    (collector,) = the("StatefulSet", "collector.yaml")["spec"]["template"]["spec"]["containers"]
    paths = {kind: collector[kind]["httpGet"]["path"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    assert set(paths.values()) <= {getattr(route, "path", "") for route in router.routes}


@contextmanager
def answering(status: int) -> Generator[str, None, None]:
    """An HTTP server that gives every question this answer; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def exit_status(command: list[str]) -> int:
    """Runs a probe with this Python; a proxy that is told but not there must not matter."""
    assert command[0] == "python"
    env = {**os.environ, "HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    return subprocess.run([sys.executable, *command[1:]], env=env, capture_output=True, check=False).returncode


@pytest.mark.parametrize(("probe", "path"), [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")])
def test_probes_of_the_sidecar_tell_well_from_ill(probe: str, path: str) -> None:
    *command, url = the_sidecar()[probe]["exec"]["command"]
    assert url == f"http://127.0.0.1:{PORTS['http']}{path}"
    with answering(200) as address:
        assert exit_status([*command, address + path]) == 0
    with answering(503) as address:
        assert exit_status([*command, address + path]) != 0


def test_healthcheck_asks_where_the_collector_says_it_listens(tmp_path: Path) -> None:
    (text,) = re.findall(r"CMD (\[.*\])", instructions("HEALTHCHECK")[0])
    command: list[str] = yaml.safe_load(text)
    home = next(word for word in instructions("ENV")[0].split() if word.startswith("ALLRANKS_HOME=")).partition("=")[
        2
    ]
    assert home in command[-1]
    command[-1] = command[-1].replace(home, str(tmp_path))
    for status, is_well in ((200, True), (503, False)):
        with answering(status) as address:
            (tmp_path / "collector.json").write_text(f'{{"http": "{address}"}}')
            assert (exit_status(command) == 0) is is_well


def test_sync_sidecar_ships_when_the_pod_ends(tmp_path: Path) -> None:
    """It sleeps until SIGTERM, also as process 1, and is `allranks sync` from then on."""
    (sidecar,) = the("Job", "job-multi-node.yaml")["spec"]["template"]["spec"]["initContainers"]
    fake = tmp_path / "allranks"
    fake.write_text('#!/bin/sh\necho "$@"\n')
    fake.chmod(0o755)
    command = [sys.executable, *sidecar["command"][1:]]
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_until_caught(process.pid, signal.SIGTERM)
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=_DEADLINE_S)
        finally:
            process.kill()
    assert (process.returncode, out) == (0, "sync --timeout 10\n")


def wait_until_caught(pid: int, number: signal.Signals) -> None:
    """Until the process has a handler for this signal (proc(5): SigCgt)."""
    deadline = time.monotonic() + _DEADLINE_S
    while time.monotonic() < deadline:
        (mask,) = re.findall(r"^SigCgt:\s*([0-9a-f]+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        if int(mask, 16) >> (number - 1) & 1:
            return
        time.sleep(0.005)
    raise AssertionError(f"{number.name} was not caught within {_DEADLINE_S:g} s")
