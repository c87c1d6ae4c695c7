# Sourced by the other scripts, which set `root` first: the project's own environment, in .venv, and
# the tools of the system that tests use.
#
# Promise of `ensure_environment LOCK`: when it returns, an install of LOCK into .venv has run to its
# end. The proof is a copy of LOCK in .venv/.p2psync, written last and removed first; an environment
# without any such proof was interrupted, and is made anew.

say() {
    printf 'p2psync: %s\n' "$1" >&2
}

fail() {
    say "$1"
    exit 1
}

# What the tests of networks, disks and repositories run, and the Debian packages that hold it.
test_packages='e2fsprogs git iproute2 nftables util-linux'
missing_test_tools() {
    # Where Debian keeps some of them is not on everyone's PATH.
    PATH=$PATH:/usr/sbin:/sbin
    for tool in chattr git ip nft nsenter setpriv unshare; do
        command -v "$tool" >/dev/null || printf ' %s' "$tool"
    done
}

ensure_environment() {
    is_ready "$1" && return
    command -v flock >/dev/null || fail 'The tool flock is missing; install util-linux, then run the command again.'
    # The lock is on the project's directory, so it needs no file of its own. What the installer
    # starts inherits it: should this script be killed, the next one waits for the rest of it.
    (
        if ! flock -n 9; then
            say 'Another command is preparing the environment; waiting for it.'
            flock 9 || fail "$root could not be locked; run the command again."
        fi
        is_ready "$1" || make_environment "$1"
    ) 9<"$root" || exit 1
}

is_ready() {
    [ -x "$root/.venv/bin/python" ] && cmp -s "$root/$1" "$root/.venv/.p2psync/$1"
}

make_environment() {
    venv=$root/.venv
    proofs=$venv/.p2psync
    rmdir "$venv" 2>/dev/null || true
    if [ -e "$venv" ] && [ ! -d "$proofs" ]; then
        fail "$venv was not made by p2psync; move it away, then run the command again."
    fi
    if [ -x "$venv/bin/python" ] && has_proof; then
        told='Updating the environment in .venv ...'
    else
        told='Preparing an environment in .venv; this takes about half a minute ...'
        python=$(find_python) || exit 1
        mkdir -p "$proofs" 2>/dev/null ||
            fail "$venv cannot be made; make $root writable, then run the command again."
        # All but the directory that says whose this is: should this be interrupted, it still does.
        find "$venv/" -mindepth 1 -maxdepth 1 ! -name .p2psync -exec rm -rf {} +
    fi
    printf 'p2psync: %s' "$told" >&2
    rm -f "$proofs"/*.lock
    if ! install_lock "$1" >"$proofs/install.log" 2>&1; then
        printf ' failed.\n' >&2
        tail -n 5 "$proofs/install.log" >&2
        fail "The environment could not be made; all of it is in $proofs/install.log. Check the network, then run the command again."
    fi
    printf ' done.\n' >&2
}

has_proof() {
    for proof in "$proofs"/*.lock; do
        [ -e "$proof" ] && return
    done
    return 1
}

# -I keeps PYTHONPATH and a user's own packages from passing for installed ones.
install_lock() {
    if [ ! -x "$venv/bin/python" ]; then
        "$python" -I -m venv "$venv" || return
        # Relative, so that the project can be moved.
        for packages in "$venv"/lib/python3.*/site-packages; do
            echo ../../../.. >"$packages/p2psync.pth" || return
        done
    fi
    PIP_USER=0 "$venv/bin/python" -I -m pip install --quiet --disable-pip-version-check --no-input \
        --require-hashes -r "$root/$1" || return
    # The development lock holds all of the other one, pinned the same.
    if [ "$1" = requirements-dev.lock ]; then
        prove requirements.lock || return
    fi
    prove "$1"
}

prove() {
    cp "$root/$1" "$proofs/$1.new" && mv "$proofs/$1.new" "$proofs/$1"
}

# Prints the path of a Python to build on: the real one behind links, wrappers and other
# environments, so that an upgrade which takes it away is noticed.
find_python() {
    without_venv=
    for name in python3 python3.13 python3.12 python3.11; do
        found=$("$name" -I -c '
import os, sys
if sys.version_info >= (3, 11):
    print(os.path.realpath(sys.executable))
' 2>/dev/null) || continue
        [ -n "$found" ] || continue
        if "$found" -I -c 'import ensurepip, venv' 2>/dev/null; then
            printf '%s\n' "$found"
            return
        fi
        without_venv=${without_venv:-$found}
    done
    if [ -n "$without_venv" ]; then
        fail "$without_venv lacks the module venv; install it (Debian, Ubuntu: apt install python3-venv), then run the command again."
    fi
    fail 'Python 3.11 or newer is needed, and none of python3, python3.13, python3.12 and python3.11 is; install it, then run the command again.'
}
