#!/usr/bin/env bash
# A fresh machine (原始机器配置指南): as root, then as the user byzerllm; a worker has ROLE=worker.
set -euo pipefail

git clone https://gitee.com/allwefantasy/byzer-llm
cd byzer-llm/setup-machine
ROLE="${ROLE:-master}" ./setup-machine.sh
