"""Examples of the vendors' pages run against `byzerllm simulate`, as they are written.

A block that says `<!-- simulated, prints: WORDS -->` deploys models of vendors. What it names as `env:NAME` is set to the
simulator's credential, the simulator's address is added to the deployment, and other parameters that the simulator
names (an application's id) take its values. The model stays the block's.
"""

import os
import re
import subprocess
from typing import Dict, List, Optional, Tuple

from progress import Problem

# `chatglm` is Zhipu's successor under an old name.
PLAYED_BY = {"chatglm": "zhipu", "official_openai": "openai", "reasoning_openai": "openai"}
# What a deployment calls its model.
MODELS = ("saas.model", "saas.deployment_id", "saas.domain", "saas.azure_deployment")


class Vendors:
    """Simulated vendors, each started when it is first needed."""

    def __init__(self, byzerllm: str) -> None:
        self._byzerllm = byzerllm
        self._running: Dict[Tuple[str, str], Tuple["subprocess.Popen[str]", Dict[str, str]]] = {}

    def stop(self) -> None:
        """Ends them."""
        for process, _ in self._running.values():
            process.terminate()
        for process, _ in self._running.values():
            process.wait(timeout=30)

    def parameters(self, vendor: str, model: str) -> Dict[str, str]:
        """What a deployment of this vendor must say, by name with `saas.`."""
        name = PLAYED_BY.get(vendor, vendor)
        if (name, model) not in self._running:
            command = [self._byzerllm, "simulate", name] + (["--model", model] if model else [])
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            if process.stdout is None:
                raise Problem(f"`{' '.join(command)}` has no output", "Report this.")
            process.stdout.readline()
            deploy = process.stdout.readline()
            found = dict(re.findall(r"--set (saas\.\w+)=(\S+)", deploy))
            if not found:
                raise Problem(f"`{' '.join(command)}` does not say how to deploy it", "Run it and look.")
            self._running[(name, model)] = (process, found)
        return self._running[(name, model)][1]

    def rewrite(self, code: str, environment: Dict[str, str]) -> str:
        """The block as it runs; `environment` gets its credentials."""
        return _Python(self, environment).rewrite(_Shell(self, environment).rewrite(code))


class _Rewriter:
    """Finds deployments in a block."""

    deployment = re.compile("")

    def __init__(self, vendors: Vendors, environment: Dict[str, str]) -> None:
        self.vendors = vendors
        self.environment = environment

    def rewrite(self, code: str) -> str:
        """The code with every deployment changed."""
        return self.deployment.sub(lambda found: self.deploy(found[0]), code)

    def deploy(self, text: str) -> str:
        """One deployment."""
        vendor = re.search(r"saas/(\w+)", text)
        if vendor is None:
            return text
        given = self.given(text)
        model = next((given[name] for name in MODELS if name in given), "")
        for name, value in self.vendors.parameters(vendor[1], model).items():
            written = given.get(name)
            if written is None and "://" in value:
                # Addresses have several names.
                written = next((other for other in given.values() if "://" in other), None)
            if written is None:
                if name not in MODELS:
                    text = self.add(text, name, value)
            elif written.startswith("env:"):
                self.environment[written[len("env:") :]] = value
            elif name not in MODELS:
                text = text.replace(written, value)
        return text

    def given(self, text: str) -> Dict[str, str]:
        """The parameters that a deployment names."""
        raise NotImplementedError

    def add(self, text: str, name: str, value: str) -> str:
        """The deployment with one more."""
        raise NotImplementedError


class _Python(_Rewriter):
    deployment = re.compile(r"\.deploy\(.*?\n\)", re.S)

    def given(self, text: str) -> Dict[str, str]:
        return dict(re.findall(r'"(saas\.\w+)": "([^"]*)"', text))

    def add(self, text: str, name: str, value: str) -> str:
        return text.replace("infer_params={", f'infer_params={{"{name}": "{value}", ', 1)


class _Shell(_Rewriter):
    deployment = re.compile(r"^byzerllm deploy .*$", re.M)

    def given(self, text: str) -> Dict[str, str]:
        return dict(re.findall(r"--set (saas\.\w+)=(\S+)", text))

    def add(self, text: str, name: str, value: str) -> str:
        return f"{text} --set {name}={value}"


def names(code: str) -> List[str]:
    """The deployments that a shell block leaves behind."""
    return re.findall(r"^byzerllm deploy .*--name (\S+)", code, re.M)


def credentials(codes: List[str]) -> Dict[str, str]:
    """The simulator's own credentials under every name that the blocks read them from: a server reads its own environment."""
    found: Dict[str, str] = {}
    for code in codes:
        for name, variable in re.findall(r'saas\.(\w+)(?:": "|=)env:(\w+)', code):
            found[variable] = "simulator-secret" if "secret" in name else "0123456789abcdef.simulator"
    return found


def undeploy(byzerllm: str, code: str, variables: Dict[str, str], url: Optional[str]) -> None:
    """Takes away what a shell block deployed, so that the next page may use the name."""
    for name in names(code):
        command = [byzerllm, "undeploy", name] + (["--url", url] if url else [])
        subprocess.run(command, env={**os.environ, **variables}, check=True, capture_output=True)
