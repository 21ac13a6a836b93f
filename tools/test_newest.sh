#!/usr/bin/env bash
# Runs the tests on Python 3.13 with the newest JAX that the package index has.
#
#   tools/test_newest.sh [ARGUMENTS FOR PYTEST]
#
# A Python 3.13 on PATH (or one that pyenv knows) is used where there is one. Elsewhere, on Debian
# as root with debootstrap, a Debian trixie is built from the machine's own mirror and entered with
# chroot. Both are cached, so that the second run only copies the tree and tests it.
#
# NEWEST_VIA=python|chroot   takes that way and no other
# NEWEST_CACHE=DIR           instead of ${XDG_CACHE_HOME:-~/.cache}/prompt_jax
# NEWEST_JOBS=N              pytest-xdist workers (default 2)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
self=$root/tools/test_newest.sh
cache=${NEWEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/prompt_jax}
via=${NEWEST_VIA:-auto}
jobs=${NEWEST_JOBS:-2}
extras=dev,tfds

say() { printf 'test-newest: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# --- the part that is the same inside and outside a chroot -------------------------------------

# run_tests PYTHON VENV TREE [PYTEST ARGUMENTS]: no constraints, so that pip takes the newest.
run_tests() {
  local python=$1 venv=$2 tree=$3
  shift 3
  # Installed again when pyproject.toml changed and once a week; otherwise the venv is reused.
  local want
  want="$tree $(sha256sum <"$tree/pyproject.toml") $(date +%G-%V)"
  if [ ! -x "$venv/bin/pytest" ] || [ "$(cat "$venv/.installed" 2>/dev/null)" != "$want" ]; then
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    say "installing the newest versions into $venv"
    "$venv/bin/python" -m pip install -qq --upgrade pip
    "$venv/bin/python" -m pip install -qq --upgrade --upgrade-strategy eager \
      -e "$tree[$extras]"
    printf '%s' "$want" >"$venv/.installed"
  fi
  "$venv/bin/python" - <<'PY' >&2
import platform
from importlib.metadata import version

import flax.linen  # noqa: F401

names = ("jax", "flax", "optax", "numpy")
print("test-newest: Python", platform.python_version(), *(f"{n} {version(n)}" for n in names))
PY
  cd "$tree"
  exec "$venv/bin/python" -m pytest -p no:cacheprovider -q -n "$jobs" "$@"
}

if [ "${NEWEST_STAGE:-}" = inside ]; then
  run_tests /usr/bin/python3 /venv /src/main "$@"
fi

# --- a Python 3.13 of the machine --------------------------------------------------------------

is_313() { "$1" -c 'import sys, venv; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null; }

find_python() {
  local candidate
  for candidate in "$(command -v python3.13)" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13*/bin/python3.13; do
    # pyenv's shim is on PATH even where it starts nothing, hence the trial.
    if [ -n "$candidate" ] && is_313 "$candidate"; then
      printf '%s' "$candidate"
      return 0
    fi
  done
  return 1
}

if [ "$via" != chroot ]; then
  if python=$(find_python); then
    mkdir -p "$cache"
    run_tests "$python" "$cache/newest" "$root" "$@"
  fi
  [ "$via" = auto ] || die "no Python 3.13 on PATH and none known to pyenv."
fi

# --- Debian trixie in a chroot -----------------------------------------------------------------

for needed in debootstrap unshare apt-get; do
  command -v "$needed" >/dev/null || die "there is no Python 3.13 on PATH, and no '$needed' to \
build one in a chroot. Install Python 3.13 (for example with 'uv python install 3.13' or pyenv), \
or on Debian: apt-get install debootstrap."
done
[ "$(id -u)" = 0 ] || die "there is no Python 3.13 on PATH, and building a Debian chroot needs \
root. Install Python 3.13 (for example with 'uv python install 3.13' or pyenv), or run as root."

# Mounts live in a namespace of their own: they are gone when the script ends, however it ends.
if [ "${NEWEST_STAGE:-}" != mounts ]; then
  unshare --mount --propagation private true 2>/dev/null ||
    die "this machine does not let root make mounts (a container without CAP_SYS_ADMIN?)."
  NEWEST_STAGE=mounts exec unshare --mount --propagation private "$self" "$@"
fi

mkdir -p "$cache"
exec 9>"$cache/trixie.lock"
flock 9 # one run at a time shares the cache

chroot_dir=$cache/trixie
inside_home=/root
if [ ! -d "$chroot_dir" ]; then
  codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' \
    'Created-By: Packages' 2>/dev/null |
    awk -v release="$codename" '$2 == release && $3 == "main" { print $1; exit }')
  [ -n "$mirror" ] || die "found no Debian mirror in this machine's apt sources."
  eval "$(apt-config shell apt_proxy Acquire::http::Proxy)"
  [ -z "${apt_proxy:-}" ] || export http_proxy=$apt_proxy
  say "building Debian trixie in $chroot_dir (a minute)"
  rm -rf --one-file-system "$chroot_dir.partial"
  debootstrap --variant=minbase \
    --include=python3,python3-venv,python3-pip,ca-certificates \
    trixie "$chroot_dir.partial" "$mirror" >"$cache/trixie.log" 2>&1 ||
    { tail -n 20 "$cache/trixie.log" >&2; die "debootstrap failed; all of its log: $cache/trixie.log"; }
  mv "$chroot_dir.partial" "$chroot_dir"
fi

# What the machine knows about its network and its package index holds inside as well.
copy_in() {
  [ -f "$1" ] || return 0
  mkdir -p "$chroot_dir$(dirname "${2:-$1}")"
  cat "$1" >"$chroot_dir${2:-$1}"
}
copy_in /etc/resolv.conf
copy_in /etc/hosts
copy_in /etc/pip.conf
copy_in "$HOME/.config/pip/pip.conf" "$inside_home/.config/pip/pip.conf"
copy_in "$HOME/.pip/pip.conf" "$inside_home/.pip/pip.conf"
copy_in /etc/ssl/certs/ca-certificates.crt
for variable in PIP_CERT SSL_CERT_FILE REQUESTS_CA_BUNDLE PIP_CONFIG_FILE; do
  copy_in "${!variable:-}"
done

mount -t proc proc "$chroot_dir/proc"
mount --bind /dev "$chroot_dir/dev"
mount -t tmpfs tmpfs "$chroot_dir/dev/shm" 2>/dev/null || true
mount -t tmpfs tmpfs "$chroot_dir/tmp"

# The tree as it is now, changes that are not committed included, but nothing that git ignores.
rm -rf --one-file-system "$chroot_dir/src"
mkdir -p "$chroot_dir/src/main"
(
  cd "$root"
  git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' name; do
      [ ! -e "$name" ] || printf '%s\0' "$name"
    done | tar --create --null --files-from=- --file=-
) | tar --extract --file=- --directory="$chroot_dir/src/main"
if [ -d "$root/../shared" ]; then # data beside the checkout, read only; tests skip without it
  mkdir -p "$chroot_dir/src/shared"
  mount --bind "$root/../shared" "$chroot_dir/src/shared"
  mount -o remount,bind,ro "$chroot_dir/src/shared"
fi

unset VIRTUAL_ENV PYTHONPATH PYTHONHOME PYENV_VERSION TMPDIR XDG_CACHE_HOME
export HOME=$inside_home PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
export NEWEST_STAGE=inside NEWEST_JOBS=$jobs
# Not 'exec': this shell holds the lock until the tests end.
chroot "$chroot_dir" /bin/bash /src/main/tools/test_newest.sh "$@"
