"""The service files of examples/deploy: each is checked by a linter of its kind, and the container's commands run.

No container engine runs here. So the test starts the same commands with the same settings, with the variables of the
Dockerfile and of compose.yaml, as the image's user.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.keys.api_keys import hash_secret
from relay.server.engine import engine_options
from relay.settings.load import load
from relay.settings.sections import Limits
from tests.support.ports import free_ports
from tests.support.raw_http import exchange, head
from tests.support.readme import ROOT
from tests.support.relay_process import PUBLISHER_KEY, PUBLISHER_SECRET
from tests.support.reverse_proxy import EXAMPLES, SECRETS, filled, needed

IMAGE_USER = 10001


@pytest.mark.parametrize("name", ["compose.yaml", "compose-nodes.yaml"])
def test_the_compose_file_has_the_form_of_the_specification(name: str) -> None:
    """The schema of compose finds no mistake."""
    pytest.importorskip("check_jsonschema", reason="needs: pip install check-jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(EXAMPLES / name)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("kubernetes.yaml", "StatefulSet Service Service NetworkPolicy Ingress"),
        ("kubernetes-nodes.yaml", "StatefulSet PodDisruptionBudget Service Service NetworkPolicy"),
    ],
)
def test_the_kubernetes_manifest_has_the_form_of_its_kinds(name: str, kinds: str) -> None:
    """The schemas of Kubernetes find no mistake and no unknown key."""
    validate = pytest.importorskip("kubernetes_validate", reason="needs: pip install kubernetes-validate")
    documents = loaded(name)
    for document in documents:
        validate.validate(document, "1.32", strict=True)
    assert [document["kind"] for document in documents] == kinds.split()


@pytest.mark.parametrize("name", ["kubernetes.yaml", "kubernetes-nodes.yaml"])
def test_the_kubernetes_probes_call_the_pods_address(name: str) -> None:
    """They name no host, so that the kubelet calls the pod by its address, and need no key."""
    (container,) = loaded(name)[0]["spec"]["template"]["spec"]["containers"]
    for probe, path in (("startupProbe", "/live"), ("livenessProbe", "/live"), ("readinessProbe", "/ready")):
        assert container[probe]["httpGet"] == {"path": path, "port": "internal"}


def test_the_ingress_leads_to_all_that_the_proxies_pass_on() -> None:
    """A path that is missing there would be answered by the application."""
    *_, ingress = loaded("kubernetes.yaml")
    paths = [one["path"] for rule in ingress["spec"]["rules"] for one in rule["http"]["paths"]]
    caddy = (EXAMPLES / "Caddyfile.nodes").read_text()
    passed_on = re.findall(r"(?:@relay path|handle) (/.*?)(?: \{)?\n", caddy)
    names = [one.removesuffix("/*") for line in passed_on for one in line.split()]
    assert len(names) == 6
    assert [name for name in names if not any(f"{name}/".startswith(f"{path}/") for path in paths)] == []


def test_a_pod_has_time_to_leave_the_services_and_to_drain() -> None:
    """Before SIGKILL: the wait of preStop, the drain, and the writing of the log."""
    pod = loaded("kubernetes-nodes.yaml")[0]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    _, waits_s = container["lifecycle"]["preStop"]["exec"]["command"]
    assert pod["terminationGracePeriodSeconds"] >= int(waits_s) + Limits().drain_s + 5
    assert int(waits_s) > container["readinessProbe"]["periodSeconds"]


@pytest.mark.parametrize("name", ["compose-nodes.yaml", "kubernetes-nodes.yaml"])
def test_the_nodes_variables_are_settings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the example's relay.toml they make a node of an engine, without a cookie or a key of its own."""
    document = loaded(name)[0]
    if name.startswith("compose"):
        variables = document["services"]["relay-2"]["environment"]
    else:
        (container,) = document["spec"]["template"]["spec"]["containers"]
        variables = {one["name"]: one["value"] for one in container["env"]}
        variables["RELAY_ENGINE__URL"] = "redis://valkey:6379"  # in the Secret
    for variable in [one for one in os.environ if one.startswith("RELAY_")]:
        monkeypatch.delenv(variable)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    path = tmp_path / "relay.toml"
    path.write_text(filled((EXAMPLES / "relay.toml").read_text(), SECRETS))
    path.chmod(0o600)
    options = engine_options(load(path))
    assert options is not None
    assert "valkey:6379" in str(options.address)


def test_caddy_takes_the_file_for_two_relays(tmp_path: Path) -> None:
    """It asks /ready of the relays that compose starts, and names both for each listener."""
    program = needed("caddy")
    source = EXAMPLES / "Caddyfile.nodes"
    done = subprocess.run(
        [program, "validate", "--adapter", "caddyfile", "--config", str(source)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    names = set(re.findall(r"\brelay-\d\b", source.read_text()))
    assert names == {one for one in loaded("compose-nodes.yaml")[0]["services"] if one.startswith("relay-")}
    assert "health_uri /ready" in source.read_text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_unit_has_no_mistake(tmp_path: Path) -> None:
    """systemd's own check finds nothing, with a command that exists in the place of the relay's."""
    unit = tmp_path / "relay.service"
    unit.write_text((EXAMPLES / "relay.service").read_text().replace("/opt/relay/bin/relay", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_reloads_with_sighup() -> None:
    """After a check, so that `systemctl reload` fails if the file can't be used."""
    reloads = re.findall(r"^ExecReload=(.*)$", (EXAMPLES / "relay.service").read_text(), re.MULTILINE)
    assert reloads == [
        "/opt/relay/bin/relay config check --config /etc/relay/relay.toml",
        "/bin/kill -HUP $MAINPID",
    ]


def loaded(name: str) -> Any:
    """Return the documents of a YAML file of the example."""
    yaml = pytest.importorskip("yaml", reason="needs: pip install pyyaml")
    return list(yaml.safe_load_all((EXAMPLES / name).read_text()))


class Container:
    """A folder with the settings and the volume of a container, and the commands that it would run."""

    def __init__(self, folder: Path) -> None:
        self.ports = free_ports(3)
        self.settings = folder / "relay.toml"
        (folder / "state").mkdir(mode=0o700)
        text = (EXAMPLES / "relay.toml").read_text()
        digest = f'secret_sha256 = ["{hash_secret(PUBLISHER_SECRET)}"]'
        self.settings.write_text(filled(text, SECRETS | {'secret_sha256 = ["…"]': digest}))
        self.settings.chmod(0o600)
        for path in (self.settings, folder / "state"):
            os.chown(path, IMAGE_USER, IMAGE_USER)
        image = dict(re.findall(r"(RELAY_[A-Z_]+)=(\S+)", (ROOT / "Dockerfile").read_text()))
        (self.compose,) = loaded("compose.yaml")
        joined = json.dumps(image | self.compose["services"]["relay"]["environment"])
        joined = joined.replace("/var/lib/relay", str(folder / "state"))
        for number, port in enumerate(self.ports):
            joined = joined.replace(f"0.0.0.0:800{number}", f"127.0.0.1:{port}")
        others = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
        self.environment = others | json.loads(joined)
        self.folder = folder

    def command(self, *arguments: str) -> list[str]:
        """Return a command of the image, with the paths of this folder, as the image's user."""
        found = [
            argument.replace("/etc/relay/relay.toml", str(self.settings)).replace(
                "/var/lib/relay", str(self.folder / "state")
            )
            for argument in arguments
        ]
        return [sys.executable, "-m", "tests.support.as_user", str(IMAGE_USER), "relay", *found]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self.command(*arguments),
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    @contextlib.contextmanager
    def start(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Start a command, and end it at the latest after the block."""
        with subprocess.Popen(
            self.command(*arguments),
            env=self.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()


@pytest.fixture
def container() -> Iterator[Container]:
    """A container's settings and volume, in a folder that the image's user can reach."""
    if os.geteuid():
        pytest.skip("only root can start a process of another user")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Container(Path(name))


def test_the_second_start_has_its_key_already(container: Container) -> None:
    """The command of the service `keys` exits with 0 each time, and makes one key."""
    command = container.compose["services"]["keys"]["command"]
    first, second = container.run(*command), container.run(*command)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "already has the key" in second.stdout
    assert len(list((container.folder / "state" / "keys").glob("*.private.*"))) == 1


async def test_the_container_serves_and_reloads(container: Container) -> None:
    """The image's command runs with the example's settings: probes, a publisher by the service's name, SIGHUP."""
    assert container.run(*container.compose["services"]["keys"]["command"]).returncode == 0
    found = json.loads(
        container.run("doctor", "--offline", "--json", "--config", "/etc/relay/relay.toml").stdout
    )
    errors = {one["check"] for one in found["findings"] if one["severity"] == "error"}
    assert errors <= {"audit-lost"}  # this machine may keep its temporary files in memory
    arguments = json.loads(re.findall(r"^CMD (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[0])
    with container.start(*arguments) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "internal" in [process.stdout.readline() for _ in range(3)][-1]
        port = container.ports[2]
        for path in ("/live", "/ready"):
            assert (await exchange(port, head("GET", path, [("Host", "10.244.0.5:8002")]))).status == 200
        tick = b'{"channel":"prices.X","data":1}'
        fields = [("Host", "relay:8002"), ("Authorization", f"Bearer {PUBLISHER_KEY}")]
        fields.append(("Content-Length", str(len(tick))))
        assert (await exchange(port, head("POST", "/v1/publish", fields) + tick)).status == 200
        process.send_signal(signal.SIGHUP)
        while "the settings were read again" not in (line := process.stderr.readline()):
            assert line, "the relay ended"
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
