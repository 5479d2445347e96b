# shellcheck shell=bash
# Makes the virtual environments of examples/demo and tests/run. Both source this file.
#
# Why it is more than `python3 -m venv`:
# - Debian's and Ubuntu's Python refuses pip outside a virtual environment (PEP 668). Without the package python3-venv its `venv`
#   stops halfway. venv_create then tries other ways.
# - An active virtual environment, a PYTHONPATH or pyenv's shims would change what is installed and tested. Here only the checkout
#   decides.
# - An environment is used again only if nothing that made it has changed. Otherwise a dependency that is missing in pyproject.toml
#   could stay unnoticed. Only folders that were made here are deleted.

unset CDPATH
checkout=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV_STAMP=made-by-scoped-relay

# A closed standard input would hand descriptor 0 to the first file or socket that a child opens.
if ! { : <&0; } 2>/dev/null; then exec </dev/null; fi

say() {
    printf '%s\n' "$*" >&2
}

die() {
    say "$*"
    exit 1
}

# Unset the calling shell's variables for Python and pip, except those for pip's sources (index, proxy, CA).
venv_forget_surroundings() {
    unset VIRTUAL_ENV CONDA_PREFIX __PYVENV_LAUNCHER__
    unset PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONUSERBASE PYTHONWARNINGS PYTHONOPTIMIZE PYTHONSAFEPATH
    unset PIP_TARGET PIP_PREFIX PIP_ROOT PIP_PYTHON PIP_EDITABLE PIP_REQUIREMENT PIP_CONSTRAINT PIP_BUILD_CONSTRAINT
    unset PIP_REQUIRE_HASHES PIP_NO_DEPS PIP_PRE
    # A pip.conf may have `user = true` or `require-virtualenv = true`; these variables win over it.
    export PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1
}

# Print the path of the newest usable Python: the real interpreter, even if a virtual environment or a shim is first in PATH. It skips
# a Python that is too old or lacks a module that the relay needs.
venv_newest_python() {
    local name candidate probe
    probe='
import sys
if sys.version_info < (3, 11):
    sys.exit(1)
import ctypes, sqlite3, ssl, venv
print(getattr(sys, "_base_executable", "") or sys.executable)'
    for name in python3.13 python3.12 python3.11 python3; do
        while read -r candidate; do
            if "$candidate" -I -c "$probe" 2>/dev/null </dev/null; then return 0; fi
        done < <(type -aP "$name")
    done
    return 1
}

may_apt_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null
}

# Install Debian packages without questions, and without output if it succeeds.
apt_install() {
    local output
    say "Installing with apt-get: $*"
    output=$(
        {
            # A new system has no package lists; an old one may have some that no longer match the archive.
            apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "$@"
        } 2>&1 </dev/null
    ) || {
        printf '%s\n' "$output" | tail -n 15 >&2
        return 1
    }
}

# Make an empty virtual environment with pip in it.
venv_create() {
    local python=$1 dir=$2 debian_package
    "$python" -m venv "$dir" >/dev/null 2>&1 && return

    # Debian without python3-venv, but with a pip: that pip can install pip into an environment without one.
    venv_clear "$dir"
    "$python" -m venv --without-pip "$dir" >/dev/null 2>&1 &&
        "$python" -m pip --python "$dir/bin/python" install --quiet pip >/dev/null 2>&1 && return

    venv_clear "$dir"
    "$python" -m virtualenv --quiet "$dir" >/dev/null 2>&1 && return
    venv_clear "$dir"
    virtualenv --quiet --python "$python" "$dir" >/dev/null 2>&1 && return

    # Debian names the package after its interpreter: python3.11-venv.
    venv_clear "$dir"
    debian_package=$("$python" -I -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [[ $python != /usr/bin/* ]] || ! command -v apt-get >/dev/null; then
        die "$python can't make virtual environments (it lacks ensurepip). Install virtualenv for it, then run this again."
    fi
    may_apt_install || die "Python can't make virtual environments here yet. Run this, then this command again:" \
        "sudo apt-get install -y $debian_package"
    apt_install "$debian_package" || die "apt-get could not install $debian_package. Install it, then run this again."
    "$python" -m venv "$dir" >/dev/null || die "$python can't make a virtual environment in $dir."
}

# Empty the folder, and write the mark that allows the next run to empty it too.
venv_clear() {
    rm -rf -- "$1"
    { mkdir -p -- "$1" && printf 'unfinished\n' >"$1/$VENV_STAMP"; } || die "Can't write to $1."
}

# Print what the environment depends on: its place, its contents, and the metadata of the installed relay.
venv_key() {
    printf '%s\n' "$checkout" "$@"
    cat pyproject.toml examples/*constraints.txt tests/constraints.txt | cksum
    grep -s '^__version__' relay/__init__.py || true
}

# venv_pinned PYTHON CONSTRAINTS EXTRAS: install the packages of a constraints file and what builds the relay, all checked against
# their hashes, and then this checkout.
#
# A folder of wheels in PIP_FIND_LINKS may have other versions, on a machine without a network. Then the caller's own wheels are
# taken as they are, and nothing else is: --no-index.
venv_pinned() {
    # Python compiles what is imported; pip would compile all, which takes a third of the time.
    local pip=("$1" -m pip install --quiet --no-compile) constraints=$2 extras=$3
    "${pip[@]}" --require-hashes -r examples/build-constraints.txt -r "$constraints" </dev/null &&
        venv_checkout "$1" && return
    [[ -n ${PIP_FIND_LINKS:-} && $PIP_FIND_LINKS != *://* ]] || return
    say "Not all packages of $constraints can be had. Trying the wheels in $PIP_FIND_LINKS, without hashes..."
    "${pip[@]}" --no-index -e ".${extras:+[$extras]}" </dev/null
}

# Install this checkout as it is, without a download: the packages that it needs, and those that build it, are there.
venv_checkout() {
    "$1" -m pip install --quiet --no-index --no-deps --no-build-isolation -e . </dev/null
}

# venv_ready DIR INSTALL ARGUMENTS...: make DIR a virtual environment, and fill it with `INSTALL PYTHON ARGUMENTS...` unless that has
# been done. If that is impossible, end the script with one sentence.
venv_ready() {
    local dir=$1 python key
    venv_forget_surroundings
    # `python -m` imports from the working directory first, so change to a known one.
    cd -- "$checkout" || exit 1

    if [ -e "$dir" ] && [ ! -f "$dir/$VENV_STAMP" ] && [ -n "$(ls -A -- "$dir")" ]; then
        die "$dir was not made by this script, so it stays as it is. Name another folder, or remove this one."
    fi

    # Two runs at once would install into the same unfinished environment. The lock ends with the process.
    if command -v flock >/dev/null; then
        exec 9<"$checkout/examples/venv.sh"
        flock -n 9 || { say "Waiting for another run that prepares its environment..."; flock 9; }
    fi

    key=$(venv_key "$@")
    if [ "$(cat -- "$dir/$VENV_STAMP" 2>/dev/null)" != "$key" ] || ! "$dir/bin/python" -c 'import pip' 2>/dev/null; then
        python=$(venv_newest_python) || die "The relay needs Python 3.11 or newer, with its sqlite3 and ssl modules," \
            "as python3 or python3.11 to python3.13 in PATH. Here is $(python3 --version 2>/dev/null || echo none)." \
            "On Debian 12 or Ubuntu 24.04: apt-get install python3 python3-venv"
        say "Preparing $dir with $python (once, about a minute)..."
        venv_clear "$dir"
        venv_create "$python" "$dir"
        "$2" "$dir/bin/python" "${@:3}" ||
            die "pip could not install the relay's packages; its message is above. Fix the cause and run this again."
        printf '%s\n' "$key" >"$dir/$VENV_STAMP"
    fi
    exec 9<&-
}
