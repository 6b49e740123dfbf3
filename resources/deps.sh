#!/bin/sh
# Installs the packages that the given groups need and that are not there yet:
#   resources/deps.sh [--missing] GROUP...          `make deps GROUPS="build test kafka bench image"`
# The Makefile's targets call it first (--missing), so with nothing to do it says nothing and takes
# milliseconds; called by hand it also says that all is there. Anything to install is one visible
# step: what, why, with which command. Where there is no apt it looks for the things themselves and
# prints what to install; it never changes such a machine.
set -eu

# package | what proves it is there without dpkg | what it is for
list() {
  for group in "$@"; do
    case $group in
    build) cat <<'LIST'
gcc|cmd gcc|C compiler
libc6-dev|header stdio.h|C library
make|cmd make|build
pkg-config|cmd pkg-config|finds the libraries
librdkafka-dev|pkg rdkafka|Kafka client
libcurl4-openssl-dev|pkg libcurl|HTTP client
liblua5.4-dev|pkg lua5.4|Lua, as a library
lua5.4|cmd lua5.4|Lua, for build steps and specs
libyaml-dev|pkg yaml-0.1|YAML with positions
libjansson-dev|pkg jansson|JSON
libuv1-dev|pkg libuv|event loop
libmicrohttpd-dev|pkg libmicrohttpd|HTTP server
lua-argparse|lua argparse|command line, built into the executable
ca-certificates|any /etc/ssl/certs|TLS
LIST
    ;;
    test) cat <<'LIST'
lua-busted|lua busted|specs
lua-check|cmd luacheck|lint of Lua
libcmocka-dev|pkg cmocka|units in C
openssl|cmd openssl|certificates for the specs
shellcheck|cmd shellcheck|lint of the shell scripts
groff-base|cmd groff|lint of the manual page
LIST
    ;;
    kafka) cat <<'LIST'
openjdk-17-jre-headless|cmd java|runs the Apache Kafka broker
maven|cmd mvn|fetches the Apache Kafka broker
kcat|cmd kcat|produces records
openssl|cmd openssl|certificates for the broker
LIST
    ;;
    bench) cat <<'LIST'
iproute2|cmd ss|counts bytes and requests
LIST
    ;;
    image) cat <<'LIST'
buildah|cmd buildah|builds and runs the image without a daemon
debootstrap|cmd debootstrap|base image where no registry is reached
kcat|cmd kcat|produces records
LIST
    ;;
    *) echo "deps: no group '$group'; there are: build test kafka bench image" >&2; exit 2 ;;
    esac
  done
}

present() { # cmd|pkg|lua|header|any WHAT
  case $1 in
  cmd) command -v "$2" >/dev/null || [ -x "/usr/sbin/$2" ] ;;
  pkg) pkg-config --exists "$2" 2>/dev/null ;;
  lua) lua5.4 -e "require '$2'" >/dev/null 2>&1 ;;
  header) echo "#include <$2>" | cc -E - >/dev/null 2>&1 ;;
  any) [ -e "$2" ] ;;
  esac
}

quiet=
if [ "${1:-}" = --missing ]; then
  quiet=yes
  shift
fi
[ $# -gt 0 ] || set -- build
wanted=$(list "$@")
packages=$(echo "$wanted" | cut -d'|' -f1)
apt=
if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then apt=yes; fi

find_missing() {
  missing=
  if [ -n "$apt" ]; then
    # shellcheck disable=SC2086,SC2016 # a word per package; ${...} is dpkg-query's
    installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $packages 2>/dev/null || true)
    for package in $packages; do
      case "
$installed
" in
      *"
installed $package
"*) ;;
      *) missing="$missing $package" ;;
      esac
    done
  else
    while IFS='|' read -r package proof _; do
      # shellcheck disable=SC2086 # kind and name are two words
      present $proof || missing="$missing $package"
    done <<LIST
$wanted
LIST
  fi
  # shellcheck disable=SC2086 # a word per package
  missing=$(printf '%s\n' $missing | sort -u)
}

done_already() {
  [ -n "$quiet" ] || echo "deps: all there for: $*" >&2
  exit 0
}

find_missing
[ -n "$missing" ] || done_already "$@"
# Targets side by side (make -j) want their groups at the same time: one installs, the others wait
# and look again.
if [ -n "$apt" ] && command -v flock >/dev/null; then
  exec 9<"$0"
  flock 9
  find_missing
  [ -n "$missing" ] || done_already "$@"
fi

# Root, or sudo; without a terminal nobody can answer its question about a password.
root='' can=
if [ -n "$apt" ]; then
  if [ "$(id -u)" = 0 ]; then
    can=yes
  elif command -v sudo >/dev/null; then
    if [ -t 0 ]; then root=sudo; else root="sudo -n"; fi
    if [ -t 0 ] || sudo -n true 2>/dev/null; then can=yes; fi
  fi
fi

{
  if [ -n "$can" ]; then
    echo "make deps GROUPS=\"$*\": installing the Debian packages that are missing"
  elif [ -n "$apt" ]; then
    echo "make deps GROUPS=\"$*\": neither root nor sudo; please install what is missing"
  else
    echo "make deps GROUPS=\"$*\": no apt; please install what is missing (the names are Debian's)"
  fi
  for package in $missing; do
    echo "$wanted" | awk -F'|' -v p="$package" '$1 == p && !n++ { printf "  %-24s %s\n", $1, $3 }'
  done
  # shellcheck disable=SC2086 # a word per package
  [ -n "$can" ] || [ -z "$apt" ] || echo "  apt-get install" $missing
} >&2
[ -n "$can" ] || exit 1

log=$(mktemp)
trap 'rm -f "$log"' EXIT
run_apt() {
  echo "deps: $root${root:+ }apt-get $1 ..." >&2
  # shellcheck disable=SC2086 # root is empty, "sudo" or "sudo -n"
  $root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 \
    -o Dpkg::Use-Pty=0 "$@" >>"$log" 2>&1 </dev/null 9>&-
}
failed() {
  tail -n 30 "$log" >&2
  echo "deps: apt-get $1 failed (above)" >&2
  exit 1
}

# The lists are fetched only where there are none, or where they are too old to install from.
fresh=
if ! ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1; then
  run_apt update || failed update
  fresh=yes
fi
# shellcheck disable=SC2086 # a word per package
if ! run_apt install --no-install-recommends $missing; then
  [ -z "$fresh" ] || failed install
  run_apt update || failed update
  run_apt install --no-install-recommends $missing || failed install
fi
echo "deps: done" >&2
