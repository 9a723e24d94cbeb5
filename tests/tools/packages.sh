# Functions that put what tests and benchmarks need into the build's folder, or into the system. To be sourced with `target` set.

# What both use is pinned here.
LITELLM="litellm[proxy]==1.106.2"

# Python packages in an environment of their own, made once for each list of them.
venv() {
  local name=$1 folder="$target/venv/$1" wanted
  shift
  wanted="$*"
  if [[ "$(cat "$folder/.made" 2>/dev/null)" != "$wanted" ]]; then
    rm -rf "$folder"
    python3 -m venv "$folder" && "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@" || {
      echo "cannot install $wanted"
      return 1
    }
    echo "$wanted" >"$folder/.made"
  fi
}

# npm's packages in a folder of their own, made once for each list of them. Their own scripts do not run.
npm_packages() {
  local name=$1 folder="$target/npm/$1" wanted
  shift
  wanted="$*"
  if [[ "$(cat "$folder/.made" 2>/dev/null)" != "$wanted" ]]; then
    rm -rf "$folder"
    mkdir -p "$folder"
    npm install --prefix "$folder" --no-audit --no-fund --no-package-lock --ignore-scripts --omit=optional --loglevel=error "$@" >/dev/null || {
      echo "cannot install $wanted"
      return 1
    }
    echo "$wanted" >"$folder/.made"
  fi
}

# A package of a virtual environment alone: what it says that it needs is left out, or there already.
venv_alone() {
  local name=$1
  shift
  "$target/venv/$name/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "$@" || {
    echo "cannot install $*"
    return 1
  }
}

# Debian packages, installed where they are missing; whoever is not root needs a `sudo` that asks nothing.
packages() {
  local package missing=() sudo=()
  for package; do
    [[ "$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null)" == "install ok installed" ]] || missing+=("$package")
  done
  if ((${#missing[@]} == 0)); then return 0; fi
  if ((EUID != 0)); then sudo=(sudo -n); fi
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 || {
    "${sudo[@]}" apt-get update -qq &&
      "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  } || {
    echo "cannot install ${missing[*]}"
    return 1
  }
}
