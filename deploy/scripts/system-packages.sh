#!/usr/bin/env bash
# Install the Debian packages that tests and the Redis demo use, where this is allowed to: as root, or with a
# password-less sudo. Otherwise say what is missing and what that costs; with CI set, that is an error.
#
# usage: system-packages.sh PACKAGE...
#
# A person's machine stays as it was: no service is started while installing, and the services of newly installed
# packages are disabled again (tests start their own servers on free ports). What is there already is left alone.
set -euo pipefail

present() { # Is what the package is needed for there, wherever it came from?
    case "$1" in
        dcmtk) [ -x /usr/bin/storescu ] && [ -x /usr/bin/storescp ] && [ -x /usr/bin/dsrdump ] ;;
        redis-server) command -v redis-server >/dev/null ;;
        postgresql) compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null ;;
        orthanc) command -v Orthanc >/dev/null || [ -x /usr/sbin/Orthanc ] ;;
        dicom3tools) command -v dciodvfy >/dev/null ;;
        libpixelmed-java) [ -e /usr/share/java/pixelmed.jar ] ;;
        openssl) command -v openssl >/dev/null ;;
        default-jre-headless) command -v java >/dev/null ;;
        python3-venv) python3 -c 'import ensurepip' 2>/dev/null ;;
        *) dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed ;;
    esac
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

may_install() {
    command -v apt-get >/dev/null && { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }
}

policy=/usr/sbin/policy-rc.d
own_policy=no

forbid_service_starts() { # Debian's own switch; a machine that has one already keeps its own
    [ -e "$policy" ] && return 0
    own_policy=yes
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
}

allow_service_starts() {
    if [ "$own_policy" = yes ]; then as_root rm -f "$policy"; fi
}

disable_new_services() {
    [ -d /run/systemd/system ] || return 0
    local package
    for package in "$@"; do
        case "$package" in
            redis-server | postgresql | orthanc) as_root systemctl disable --quiet "$package" || true ;;
        esac
    done
}

get() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}

install_packages() {
    echo "system-packages: installing $*"
    trap allow_service_starts EXIT
    forbid_service_starts
    as_root apt-get update -qq || echo "system-packages: apt-get update failed, using the lists that are there" >&2
    if ! get "$@"; then # one that this distribution does not have must not keep out the others
        local package
        for package in "$@"; do get "$package" || true; done
    fi
    disable_new_services "$@"
}

find_missing() {
    missing=()
    local package
    for package in "$@"; do
        present "$package" || missing+=("$package")
    done
}

find_missing "$@"
if [ "${#missing[@]}" -gt 0 ] && may_install; then
    install_packages "${missing[@]}"
    find_missing "$@"
fi
[ "${#missing[@]}" -gt 0 ] || exit 0

echo "system-packages: missing and not installable from here: ${missing[*]}" >&2
echo "system-packages: what needs them will be skipped. To have it: sudo apt-get install ${missing[*]}" >&2
if [ -n "${CI:-}" ]; then
    echo "system-packages: nothing may be skipped in CI" >&2
    exit 1
fi
