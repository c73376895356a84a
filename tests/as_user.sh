#!/bin/sh
# Run the tests once more as an ordinary user, as root calls it from `make test`; further arguments go to pytest.
#
# A user labkit-test is made (and removed again, with everything of its own) and does what a real one does: it gets a copy
# of the checkout, runs `make setup` there, and then the tests, twice:
#
#   run "user"  with a range in /etc/subuid and with cgroups that root has given to it
#   run "bare"  without either, and only the tests marked `bare`
#
# The user's .venv/ is kept in ours until the packages or the set-up change, because making it takes most of the time;
# with CI or LABKIT_FRESH_USER set it is made anew.
#
# LABKIT_FEATURE_REPORT (a folder that everybody may write to) collects what the runs counted.
# See: useradd(8), subuid(5), setpriv(1), tests/support/delegation.py
set -eu

user=labkit-test
mark='labkit test user, removed after the tests'
setup_timeout_s=${LABKIT_SETUP_TIMEOUT_S:-900}
tests_timeout_s=${LABKIT_TESTS_TIMEOUT_S:-2700}
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
python=$root/.venv/bin/python

say() { printf '%s\n' "as_user: $*" >&2; }

if [ "$(id -u)" != 0 ]; then
    say "only root can make a user; an ordinary user just runs the tests"
    exit 2
fi
for program in useradd userdel usermod setpriv flock make; do
    command -v "$program" >/dev/null 2>&1 || { say "there is no program $program here, so no tests as an ordinary user"; exit 1; }
done

processes_of_user() { ps -u "$user" -o pid= -o comm= 2>/dev/null || true; }

keep_venv() {
    rm -rf "$kept_venvs"
    mkdir -p "$kept_venvs"
    chown -R root: "$copy/.venv"
    mv "$copy/.venv" "$kept_venvs/$venv_key"
}

remove_user() {
    trap - EXIT INT TERM
    getent passwd "$user" >/dev/null || return 0
    id=$(id -u "$user")
    # What is started while we look is seen by the next look.
    for _ in 1 2 3 4 5; do
        pids=$(ps -u "$user" -o pid= 2>/dev/null || true)
        [ -n "$pids" ] || break
        # shellcheck disable=SC2086  # one word a process
        kill -KILL $pids 2>/dev/null || true
        sleep 0.2
    done
    if [ -n "$venv_key" ]; then keep_venv || rm -rf "$kept_venvs"; fi
    find /tmp /var/tmp /dev/shm -maxdepth 1 -user "$id" -exec rm -rf {} + 2>/dev/null || true
    userdel --remove "$user" 2>/dev/null || userdel "$user"
    for file in /etc/subuid /etc/subgid; do
        case $missing_files in *"$file"*) [ -s "$file" ] || rm -f "$file" ;; esac
    done
}

# One run at a time on a machine: they share the user's name. The lock goes with this process.
exec 9</run
flock -w 1800 9 || { say "another run of these tests has been going on for half an hour"; exit 1; }

kept_venvs=$root/.venv/as-user
venv_key= # set once there is an environment worth keeping
missing_files=
for file in /etc/subuid /etc/subgid; do [ -e "$file" ] || missing_files="$missing_files $file"; done
if getent passwd "$user" >/dev/null; then
    if [ "$(getent passwd "$user" | cut -d: -f5)" != "$mark" ]; then
        say "there is a user $user that this script did not make; rename it or run the tests as that user"
        exit 1
    fi
    say "removing the user that a killed run left behind"
    remove_user
fi
trap remove_user EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

useradd --create-home --shell /bin/sh --comment "$mark" "$user"
home=$(getent passwd "$user" | cut -d: -f6)
for kind in uid gid; do
    # useradd grants a range where /etc/login.defs says so; a high one of our own stays clear of everybody's elsewhere.
    grep -q "^$user:" "/etc/sub$kind" 2>/dev/null || usermod "--add-sub${kind}s" 1000000000-1000065535 "$user"
done

copy=$home/labkit
mkdir "$copy"
if git -C "$root" -c safe.directory='*' rev-parse --git-dir >/dev/null 2>&1; then
    git -C "$root" -c safe.directory='*' ls-files -z
else
    (cd "$root" && find . -name .venv -prune -o -name __pycache__ -prune -o -type f -print0)
fi | tar -C "$root" --null --ignore-failed-read -T - -cf - 2>/dev/null | tar -C "$copy" -xf -
chown -R "$user:" "$copy"

# The environment is that of a login, with the machine's settings for the network and the tests' own.
kept=$(env | grep -E '^(LABKIT_[A-Z_]+|PIP_[A-Z_]+|UV_[A-Z_]+|https?_proxy|no_proxy|LANG|CI)=[^[:space:]]+$' |
    grep -v -E '^(LABKIT_CGROUP|[A-Z_]*_CACHE_DIR)=' || true)
# As the Makefile has it: a user's own PATH lacks the sbin folders, where some witnesses lie.
path=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin
# shellcheck disable=SC2086  # one word a variable
as_user() {
    limit_s=$1
    shift
    # --foreground: an interrupt of this script's process group reaches the tests, too.
    $enter timeout --foreground -k 10 "$limit_s" $turn setpriv --reuid "$user" --regid "$user" --init-groups --reset-env env PATH="$path" $kept "$@"
}

cd "$copy"
enter=
# Packages are unpacked and compiled: no test that measures time may run meanwhile (tests/support/turns.py).
turn=${LABKIT_TEST_TURNS:+flock --shared $LABKIT_TEST_TURNS/room}
started=$(date +%s)
say "$user sets the course up in $copy"
key=$(cat pyproject.toml labkit/setup/*.py labkit/setup/bootstrap.sh | cksum | tr ' ' -)
if [ -d "$kept_venvs/$key" ] && [ -z "${CI:-}${LABKIT_FRESH_USER:-}" ]; then
    mv "$kept_venvs/$key" .venv
    chown -R "$user:" .venv
fi
as_user "$setup_timeout_s" make setup ARGS=--dev
turn=
venv_key=$key
say "that took $(($(date +%s) - started)) s"

# pytest's status 5: the arguments chose no test, which a part of the tests may well do.
failed=0
say "tests with delegated cgroups and a range of subordinate ids"
# -P: root must not import from a folder that the user may write to, and that is where we are.
enter="env PYTHONPATH=$root $python -P -m tests.support.delegation $user"
as_user "$tests_timeout_s" LABKIT_TEST_RUN=user .venv/bin/python -m pytest "$@" || [ $? = 5 ] || failed=1

say "tests with neither, those marked bare"
enter=
for kind in uid gid; do
    range=$(awk -F: -v user="$user" '$1 == user {print $2 "-" $2 + $3 - 1; exit}' "/etc/sub$kind")
    usermod "--del-sub${kind}s" "$range" "$user"
done
as_user "$tests_timeout_s" LABKIT_TEST_RUN=bare .venv/bin/python -m pytest -m bare "$@" || [ $? = 5 ] || failed=1

left=$(processes_of_user)
if [ -n "$left" ]; then
    say "still running after the tests: $left"
    failed=1
fi
exit "$failed"
